//! What may stand only in certain places.

use super::Finding;
use crate::source::Source;
use crate::tree::{File, Tree};

const ROUTER: &str = "crates/sublet-http/src/router.rs";

/// The server that tests start is administered with statements of its own.
const TEST_SERVER: &str = "crates/sublet-testkit/src/postgres.rs";

/// SQL, and statements that could become SQL, stand in the store alone.
pub fn sql(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let elsewhere = |file: &File| file.path != TEST_SERVER && file.crate_name().is_some_and(|name| name != "sublet-store");
    for (file, source) in tree.rust().filter(|(file, _)| elsewhere(file)) {
        for (line, _) in source.strings.iter().filter(|(_, text)| is_sql(text)) {
            findings.push(Finding::new("database", &file.path, *line, "SQL outside sublet-store"));
        }
    }
    findings
}

fn is_sql(text: &str) -> bool {
    let words: Vec<&str> = text.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| !word.is_empty()).collect();
    let follows = |first: &str, second: &str| {
        words.windows(2).any(|pair| pair[0].eq_ignore_ascii_case(first) && pair[1].eq_ignore_ascii_case(second))
    };
    let upper = |word: &str| words.contains(&word);
    let starts_with_select = words.first().is_some_and(|word| word.eq_ignore_ascii_case("select"));
    let has_from = words.iter().any(|word| word.eq_ignore_ascii_case("from"));
    (upper("SELECT") && upper("FROM"))
        || (starts_with_select && has_from)
        || (upper("UPDATE") && upper("SET"))
        || [("insert", "into"), ("delete", "from"), ("create", "table"), ("drop", "table"), ("alter", "table")]
            .iter()
            .any(|(first, second)| follows(first, second))
}

/// Files of the store whose tables belong to the operator, not to a tenant.
const OPERATOR_TABLES: &[&str] = &[
    "compensation_rule.rs",
    "demand.rs",
    "device.rs",
    "export_schedule.rs",
    "log.rs",
    "model_card.rs",
    "offering.rs",
    "payout.rs",
    "price.rs",
    "price_index.rs",
    "reclaim.rs",
    "remote_model.rs",
    "replica.rs",
    "rerate.rs",
    "seller.rs",
    "setting.rs",
    "supplier.rs",
    "supply_cost.rs",
    "tax_report.rs",
    "migration.rs",
];

/// Whoever reads from the store says whose data it may see: by a `Scope`, or by naming the owner.
pub fn scopes(tree: &Tree) -> Vec<Finding> {
    let is_tenant_data = |file: &File| {
        file.crate_name() == Some("sublet-store") && !OPERATOR_TABLES.iter().any(|name| file.path.ends_with(&format!("/{name}")))
    };
    let mut findings = Vec::new();
    for (file, source) in product(tree).filter(|(file, _)| is_tenant_data(file)) {
        for function in source.functions() {
            let reads =
                ["find", "get", "list"].iter().any(|verb| function.name == *verb || function.name.starts_with(&format!("{verb}_")));
            let is_confined = ["Scope", "&OrganizationId", "&ProjectId"].iter().any(|owner| function.signature.contains(owner));
            if reads && function.signature.starts_with("pub async fn") && !is_confined {
                let message = format!("{} reads without a Scope", function.name);
                let mut finding = Finding::new("scopes", &file.path, function.line, message);
                finding.key = format!("{}::{}", file.path, function.name);
                findings.push(finding);
            }
        }
    }
    findings
}

/// Routes are registered in one file, from the table that tests enumerate.
pub fn routes(tree: &Tree) -> Vec<Finding> {
    let patterns = [".route(", ".route_service(", ".nest(", ".nest_service(", "Router::route"];
    // `.route()` without a path asks for a route and registers nothing.
    let asks = |finding: &Finding, source: &Source| {
        source.code.lines().nth(finding.line - 1).is_some_and(|line| line.contains(".route()"))
    };
    product(tree)
        .filter(|(file, _)| file.path != ROUTER)
        .flat_map(|(file, source)| {
            let found = matches_in(file, source, "routes", &patterns, "routes are registered in the router only");
            found.into_iter().filter(|finding| !asks(finding, source)).collect::<Vec<_>>()
        })
        .collect()
}

/// Only the binary touches the environment, the clock and randomness.
pub fn outside_world(tree: &Tree) -> Vec<Finding> {
    let patterns = [
        "SystemTime::now",
        "Instant::now",
        "Timestamp::now()",
        "Zoned::now",
        "env::var",
        "env::args",
        "rand::",
        "getrandom::",
        "fastrand::",
        "thread_rng",
    ];
    product(tree)
        .filter(|(file, _)| file.crate_name() != Some("sublet"))
        .flat_map(|(file, source)| matches_in(file, source, "outside", &patterns, "comes in through a port from the binary"))
        .collect()
}

/// The pure crates decide; they neither wait nor speak to anything.
pub fn pure(tree: &Tree) -> Vec<Finding> {
    let patterns = [
        "async ",
        ".await",
        "std::fs",
        "std::io",
        "std::net",
        "std::process",
        "std::thread",
        "std::env",
        "SystemTime",
        "Instant::now",
        "println!",
        "eprintln!",
        "tracing::",
    ];
    product(tree)
        .filter(|(file, _)| matches!(file.crate_name(), Some("sublet-money" | "sublet-capacity" | "sublet-proof")))
        .flat_map(|(file, source)| matches_in(file, source, "pure", &patterns, "has no place in a pure crate"))
        .collect()
}

/// Money is counted in integers.
pub fn floats(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    let exact = |file: &File| matches!(file.crate_name(), Some("sublet-core" | "sublet-money" | "sublet-store"));
    for (file, source) in product(tree).filter(|(file, _)| exact(file)) {
        for line in ["f32", "f64"].iter().flat_map(|word| source.find_word(word)).filter(|line| !source.is_test_line(*line)) {
            findings.push(Finding::new("floats", &file.path, line, "a float in a crate that counts money"));
        }
    }
    findings
}

/// What clients see is defined in `sublet-api` alone.
pub fn wire_types(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (file, source) in product(tree).filter(|(file, _)| matches!(file.crate_name(), Some("sublet-http" | "sublet-gateway"))) {
        for line in source.find("derive(").into_iter().filter(|line| !source.is_test_line(*line)) {
            if source.code.lines().nth(line - 1).is_some_and(|text| text.contains("Serialize")) {
                findings.push(Finding::new("wire", &file.path, line, "wire types live in sublet-api"));
            }
        }
    }
    findings
}

fn product(tree: &Tree) -> impl Iterator<Item = (&File, &Source)> {
    tree.rust().filter(|(file, _)| file.is_product())
}

fn matches_in(file: &File, source: &Source, check: &'static str, patterns: &[&str], rule: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for pattern in patterns {
        for line in source.find(pattern).into_iter().filter(|line| !source.is_test_line(*line)) {
            findings.push(Finding::new(check, &file.path, line, format!("{} {rule}", pattern.trim())));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(check: fn(&Tree) -> Vec<Finding>, path: &str, text: &str) -> usize {
        check(&Tree::of(&[(path, text)])).len()
    }

    #[test]
    fn sql_outside_the_store_is_found() {
        let samples = [
            (r#"let q = "SELECT id FROM orgs WHERE id = $1";"#, 1),
            ("let q = \"select *\\n from orgs\";", 1),
            (r##"let q = r#"INSERT INTO a VALUES ($1)"#;"##, 1),
            (r#"let q = "UPDATE a SET b = 1";"#, 1),
            (r#"let q = "delete from a";"#, 1),
            (r#"let q = "CREATE TABLE a (b TEXT)";"#, 1),
            (r#"let q = "please select a model from the list";"#, 0),
            (r#"let q = "update the price; set it later";"#, 0),
            ("// SELECT id FROM orgs", 0),
        ];
        for (text, found) in samples {
            assert_eq!(count(sql, "crates/sublet-cloud/src/a.rs", text), found, "{text}");
            assert_eq!(count(sql, "crates/sublet-store/src/a.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn a_read_without_a_scope_is_found() {
        let text = "pub async fn find(tx: &mut Tx, id: &JobId) -> Result<Job> {}\npub async fn list_all(\n    tx: &mut Tx,\n    scope: &Scope,\n) {}\npub async fn insert(tx: &mut Tx) {}\nasync fn get(tx: &mut Tx) {}\n";
        assert_eq!(count(scopes, "crates/sublet-store/src/job.rs", text), 1);
        assert_eq!(count(scopes, "crates/sublet-cloud/src/job.rs", text), 0);
        assert_eq!(count(scopes, "crates/sublet-store/src/device.rs", text), 0);
        let owned = "pub async fn list(tx: &mut Tx, organization: &OrganizationId) {}";
        assert_eq!(count(scopes, "crates/sublet-store/src/job.rs", owned), 0);
    }

    #[test]
    fn a_route_outside_the_router_is_found() {
        let text = "fn r() { Router::new().route(\"/x\", get(x)).nest(\"/y\", z) }";
        assert_eq!(count(routes, "crates/sublet-http/src/chat.rs", text), 2);
        assert_eq!(count(routes, ROUTER, text), 0);
        assert_eq!(count(routes, "crates/sublet-api/src/client.rs", "fn r() { operation.route() }"), 0);
        assert_eq!(count(routes, "crates/sublet-http/src/chat.rs", "#[cfg(test)]\nmod tests { fn r() { a.route(b) } }"), 0);
    }

    #[test]
    fn clock_randomness_and_environment_outside_the_binary_are_found() {
        for text in [
            "std::time::SystemTime::now()",
            "tokio::time::Instant::now()",
            "std::env::var(\"A\")",
            "rand::random()",
            "jiff::Zoned::now()",
        ] {
            let text = format!("fn f() {{ {text}; }}");
            assert_eq!(count(outside_world, "crates/sublet-cloud/src/a.rs", &text), 1, "{text}");
            assert_eq!(count(outside_world, "crates/sublet/src/a.rs", &text), 0, "{text}");
        }
        assert_eq!(count(outside_world, "crates/sublet-cloud/src/a.rs", "fn f() { operand::x(); }"), 0);
    }

    #[test]
    fn waiting_and_speaking_in_a_pure_crate_are_found() {
        for text in ["pub async fn f() {}", "fn f() { std::fs::read(\"a\"); }", "fn f() { println!(); }", "use tracing::info;"] {
            assert_eq!(count(pure, "crates/sublet-money/src/a.rs", text), 1, "{text}");
            assert_eq!(count(pure, "crates/sublet-cloud/src/a.rs", text), 0, "{text}");
        }
    }

    #[test]
    fn a_float_near_money_is_found() {
        assert_eq!(count(floats, "crates/sublet-money/src/a.rs", "fn f(a: f64) -> f32 { a }"), 2);
        assert_eq!(count(floats, "crates/sublet-money/src/a.rs", "fn half64() {} // f64"), 0);
        assert_eq!(count(floats, "crates/sublet-engine/src/a.rs", "fn f(a: f64) {}"), 0);
    }

    #[test]
    fn a_wire_type_outside_the_api_crate_is_found() {
        assert_eq!(count(wire_types, "crates/sublet-http/src/a.rs", "#[derive(Debug, Serialize)]\nstruct A;"), 1);
        assert_eq!(count(wire_types, "crates/sublet-api/src/a.rs", "#[derive(Serialize)]\nstruct A;"), 0);
    }
}
