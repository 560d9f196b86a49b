//! Every route of the table against the live server: who is let in, and who is not.

use serde_json::{Value, json};
use sublet_api::route::{Method, Operation, Plane, ROUTES, Route};

use crate::batches::{chat_lines, create, ended};
use crate::files::batch_file;
use crate::on_both;
use crate::server::{Database, Home, Server, chat, text, wait_for};

on_both! {
    every_route_refuses_missing_wrong_and_revoked_keys: keys_are_checked_on_every_route;
    a_foreign_tenants_key_finds_nothing: tenants_do_not_see_each_other;
    k_nothing_billable_is_done_without_money: billable_routes_need_money;
    an_unknown_url_is_named_in_our_error_shape: unknown_urls;
}

/// Public routes that need a parameter that exists; may only shrink.
const PUBLIC_EXAMPLES: &[(Operation, &str)] = &[(Operation::GetErrorPage, "not_found")];

/// Public, and with nothing to show on a new cloud: the log has its first tile with its first invoice, and nobody made an
/// index.
const EMPTY_AT_FIRST: [(Operation, &str); 3] =
    [(Operation::GetLogTile, "0/000.p/1"), (Operation::GetPriceIndex, "gpu-spot"), (Operation::ListPricePoints, "gpu-spot")];

/// Routes whose path has an id that does not belong to a tenant, with the reason; may only shrink.
const WITHOUT_A_TENANT: &[(Operation, &str)] = &[(Operation::GetModel, "a model is offered to every tenant under its name")];

fn method(route: &Route) -> &'static str {
    route.method.as_str()
}

/// The path with each parameter replaced.
fn filled(path: &str, fill: impl Fn(&str) -> String) -> String {
    let part = |part: &str| match part.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
        Some(name) => fill(name.trim_start_matches('*')),
        None => part.to_owned(),
    };
    path.split('/').map(part).collect::<Vec<_>>().join("/")
}

fn keys_are_checked_on_every_route(database: Database) {
    let server = Home::new(database).start();
    let revoked = server.new_key("revoked");
    server.ask("DELETE", &revoked.path()).key(&server.keys.admin).send().unwrap().good();
    let mut checked = 0;
    for route in ROUTES {
        for path in route.paths() {
            check_keys(&server, route, &filled(&path, |_| "unknown".to_owned()), &revoked.secret);
            checked += 1;
        }
    }
    assert!(checked > ROUTES.len(), "aliases are checked too");
}

fn check_keys(server: &Server, route: &Route, path: &str, revoked: &str) {
    let ask = || {
        let asked = server.ask(method(route), path);
        if route.body_bytes_max > 0 { asked.json(&json!({})) } else { asked }
    };
    let right = match route.plane {
        Plane::Public => return check_public(server, route),
        Plane::Project => "sk-sub-",
        Plane::Admin => "sk-adm-",
        Plane::Operator => "sk-opr-",
    };
    let none = ask().send().unwrap();
    assert_eq!((none.status, none.code().as_str()), (401, "missing_api_key"), "{route:?} at {path}");
    let never_issued = format!("{right}{}", "0".repeat(64));
    for invalid in [revoked, &never_issued, "sk-sub-", "nonsense"] {
        let refused = ask().key(invalid).send().unwrap();
        let wrong_plane = !invalid.starts_with(right) && refused.status == 403;
        assert!(refused.status == 401 || wrong_plane, "{route:?} at {path}: {} {}", refused.status, refused.text());
        assert!(refused.header("x-request-id").is_some(), "{route:?}");
    }
    for other in [&server.keys.project, &server.keys.admin, &server.keys.operator] {
        let answer = ask().key(other).send().unwrap();
        assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{route:?}");
        assert!(answer.status < 500, "{route:?}: {}", answer.text());
        if other.starts_with(right) {
            assert!(!matches!(answer.status, 401 | 405), "{route:?} at {path}: {}", answer.text());
            assert_ne!(answer.code(), "unknown_url", "{route:?} at {path}");
        } else {
            assert_eq!((answer.status, answer.code().as_str()), (403, "wrong_key_plane"), "{route:?} at {path}");
        }
    }
}

fn check_public(server: &Server, route: &Route) {
    if let Some((_, example)) = EMPTY_AT_FIRST.iter().find(|(operation, _)| *operation == route.operation) {
        let nothing = server.ask(method(route), &filled(route.path, |_| (*example).to_owned())).send().unwrap();
        assert_eq!((nothing.status, nothing.code().as_str()), (404, "not_found"), "{route:?}: {}", nothing.text());
        return;
    }
    if route.operation == Operation::ReceiveStripeEvent {
        // It is there, and not set up here.
        let nothing = server.ask(method(route), route.path).json(&json!({})).send().unwrap();
        assert_eq!(nothing.code(), "not_offered", "{route:?}: {}", nothing.text());
        return;
    }
    let example = PUBLIC_EXAMPLES.iter().find(|(operation, _)| *operation == route.operation).map_or("", |(_, value)| value);
    let answer = server.ask(method(route), &filled(route.path, |_| example.to_owned())).send().unwrap();
    assert_eq!(answer.status, 200, "{route:?}: {}", answer.text());
    assert!(answer.header("x-request-id").is_some(), "{route:?}");
}

/// What one tenant owns, by the name of the path parameter and the noun before it.
struct Owned {
    project: String,
    key: String,
    user: String,
    quote: String,
    lease: String,
    job: String,
    request: String,
    invoice: String,
    file: String,
    batch: String,
    rate_limit: String,
    response: String,
    contract: String,
    top_up: String,
    refund: String,
    admin_key: String,
    compensation: String,
    webhook: String,
    delivery: String,
}

impl Owned {
    fn make(server: &Server) -> Self {
        let keys = &server.keys;
        let answer = server.make("/v1/chat/completions", &keys.project, &chat(&keys.model, 4, &json!({})));
        let lease = server.lease(&keys.project, "n2m", &json!({}));
        let job = server.job(&keys.project, &lease, "echo mine");
        server.ended_job(&keys.project, &job["id"]);
        server.wait_until_settled();
        let quote = server.make("/v1/quotes", &keys.project, &json!({ "sku": "cpu" }));
        let file = batch_file(server, &keys.project, chat_lines(&keys.model, 1, 2).as_bytes());
        let batch = ended(server, &keys.project, &create(server, &keys.project, &file, &json!({})));
        let asked = json!({ "model": keys.model, "input": "Hello", "max_output_tokens": 4, "store": true });
        let response = server.make("/v1/responses", &keys.project, &asked);
        let user = json!({ "name": "Ada", "email": "ada@example.com", "role": "reader" });
        let key = server.new_key("owned");
        let euro = json!({ "amount": "1", "currency": "EUR" });
        let organization = text(&server.see("/v1/organization/billing/credits", &keys.admin)["organization"]);
        let paid = json!({ "amount": euro, "kind": "paid" });
        server.make(&format!("/operator/v1/organizations/{organization}/credits"), &keys.operator, &paid);
        let hooks = json!({ "url": "https://hooks.invalid/sublet" });
        let webhook = text(&server.make("/v1/organization/webhook_endpoints", &keys.admin, &hooks)["id"]);
        let rate_limit = json!({ "subject": key.id, "metric": "requests_per_minute", "value": 1_000 });
        Self {
            project: key.project,
            key: key.id,
            user: text(&server.make("/v1/organization/users", &keys.admin, &user)["id"]),
            quote: text(&quote["id"]),
            lease: text(&lease["id"]),
            job: text(&job["id"]),
            request: text(&answer["id"]),
            invoice: text(&server.make("/v1/organization/billing/invoices", &keys.admin, &json!({}))["id"]),
            file,
            batch: text(&batch["id"]),
            rate_limit: text(&server.make("/v1/organization/rate_limits", &keys.admin, &rate_limit)["id"]),
            response: text(&response["id"]),
            top_up: text(&server.make("/v1/organization/top_ups", &keys.admin, &json!({ "amount": euro, "method": "bank" }))["id"]),
            refund: text(&server.make("/v1/organization/refunds", &keys.admin, &json!({ "amount": euro, "note": "x" }))["id"]),
            admin_key: text(&server.make("/v1/organization/admin_api_keys", &keys.admin, &json!({ "name": "second" }))["id"]),
            contract: text(&server.make("/operator/v1/contracts", &keys.operator, &contract(server))["id"]),
            compensation: interrupted(server),
            delivery: text(
                &server.make(&format!("/v1/organization/webhook_endpoints/{webhook}/test"), &keys.admin, &json!({}))["id"],
            ),
            webhook,
        }
    }

    /// Values of `{id}` for a path; a path with `why` takes all of them.
    fn ids(&self, path: &str) -> Vec<&str> {
        let all = [&self.request, &self.job, &self.lease, &self.quote, &self.invoice];
        let nouns = [
            ("/why/", all.to_vec()),
            ("/projects/", vec![&self.project]),
            ("/users/", vec![&self.user]),
            ("/quotes/", vec![&self.quote]),
            ("/leases/", vec![&self.lease]),
            ("/jobs/", vec![&self.job]),
            ("/requests/", vec![&self.request]),
            ("/receipts/", vec![&self.request]),
            ("/invoices/", vec![&self.invoice]),
            ("/files/", vec![&self.file]),
            ("/batches/", vec![&self.batch]),
            ("/rate_limits/", vec![&self.rate_limit]),
            ("/responses/", vec![&self.response]),
            ("/contracts/", vec![&self.contract]),
            ("/top_ups/", vec![&self.top_up]),
            ("/refunds/", vec![&self.refund]),
            ("/admin_api_keys/", vec![&self.admin_key]),
            ("/compensations/", vec![&self.compensation]),
            ("/webhook_endpoints/", vec![&self.webhook]),
            ("/webhook_deliveries/", vec![&self.delivery]),
            ("/archived_files/", vec![&self.file]),
        ];
        let found = nouns.iter().find(|(noun, _)| path.contains(noun));
        found.map(|(_, ids)| ids.iter().map(|id| id.as_str()).collect()).unwrap_or_default()
    }
}

/// The owner's team takes everything back while a customer's job runs; what the customer gets for it.
fn interrupted(server: &Server) -> String {
    let keys = &server.keys;
    let lease = server.lease(&keys.project, "n0", &json!({}));
    let job = format!("/v1/jobs/{}", text(&server.job(&keys.project, &lease, "sleep 600")["id"]));
    wait_for("the job to run", || (server.see(&job, &keys.project)["status"] == json!("running")).then_some(()));
    let team = json!({ "name": "Team", "class": "internal", "currency": "EUR", "credit_limit": "100" });
    let team = text(&server.make("/operator/v1/organizations", &keys.operator, &team)["admin_key"]["value"]);
    let project = text(&server.make("/v1/organization/projects", &team, &json!({ "name": "own" }))["id"]);
    let key = server.make(&format!("/v1/organization/projects/{project}/api_keys"), &team, &json!({ "name": "own" }));
    let devices = server.see("/operator/v1/devices?limit=100", &keys.operator)["data"].as_array().unwrap().len();
    server.lease(&text(&key["value"]), "n0", &json!({ "units": devices }));
    let given = wait_for("what was lost to be given back", || {
        let given = server.see("/v1/organization/compensations", &keys.admin)["data"][0].clone();
        given.is_object().then_some(given)
    });
    assert_eq!((&given["kind"], &given["subject"]), (&json!("reclaim"), &lease["id"]), "{given}");
    assert_eq!((&given["evidence"]["reason"], &given["evidence"]["notice"]), (&json!("reclaimed"), &json!("n0")), "{given}");
    text(&given["id"])
}

/// An offer to the first customer.
fn contract(server: &Server) -> Value {
    let organization = server.see("/v1/organization/billing/credits", &server.keys.admin)["organization"].clone();
    let terms = json!({ "currency": "EUR", "starts": "2190-01", "months": 12, "period_months": 3, "covers": ["model_tokens"],
        "commitments": [{ "from_period": 1, "amount": "100" }] });
    json!({ "organization": organization, "name": "2190", "terms": terms })
}

/// Another organization with a project and keys of its own.
pub struct Stranger {
    pub admin: String,
    pub project: String,
}

impl Stranger {
    pub fn make(server: &Server, credit: Option<&str>) -> Self {
        let body = json!({ "name": "Stranger", "class": "external", "currency": "EUR" });
        let made = server.make("/operator/v1/organizations", &server.keys.operator, &body);
        if let Some(amount) = credit {
            let path = format!("/operator/v1/organizations/{}/credits", text(&made["id"]));
            let grant = json!({ "amount": { "amount": amount, "currency": "EUR" }, "kind": "paid" });
            server.make(&path, &server.keys.operator, &grant);
        }
        let admin = text(&made["admin_key"]["value"]);
        let project = server.make("/v1/organization/projects", &admin, &json!({ "name": "theirs" }));
        let path = format!("/v1/organization/projects/{}/api_keys", text(&project["id"]));
        let key = server.make(&path, &admin, &json!({ "name": "theirs" }));
        Self { admin, project: text(&key["value"]) }
    }
}

fn tenants_do_not_see_each_other(database: Database) {
    let server = Home::new(database).start();
    let owned = Owned::make(&server);
    let stranger = Stranger::make(&server, Some("5"));
    let mut asked = 0;
    for route in ROUTES.iter().filter(|route| route.path.contains("{id}") || route.path.contains("{*id}")) {
        let key = match route.plane {
            Plane::Project => &stranger.project,
            Plane::Admin => &stranger.admin,
            Plane::Public | Plane::Operator => continue,
        };
        if WITHOUT_A_TENANT.iter().any(|(operation, _)| *operation == route.operation) {
            continue;
        }
        let ids = owned.ids(route.path);
        assert!(!ids.is_empty(), "{route:?} has no example: say what a tenant owns there");
        for id in ids {
            assert_found_by_owner_only(&server, route, &owned, (id, key));
            asked += 1;
        }
    }
    eprintln!("count: objects asked for by a stranger on {database:?} = {asked}");
    lists_of_a_stranger_are_empty(&server, &stranger);
    stranger_cannot_use_what_is_not_theirs(&server, &owned, &stranger);
}

fn assert_found_by_owner_only(server: &Server, route: &Route, owned: &Owned, (id, stranger): (&str, &str)) {
    let path = filled(route.path, |name| match name {
        "key" => owned.key.clone(),
        "window" => "total".to_owned(),
        _ => id.to_owned(),
    });
    let ask = |key: &str| {
        let asked = server.ask(method(route), &path).key(key);
        let body = match route.operation {
            Operation::CreateKey => json!({ "name": "stolen" }),
            Operation::SetRateLimit => json!({ "value": 1 }),
            Operation::AcceptContract => json!({ "terms_hash": "0".repeat(64) }),
            Operation::LeaveContract => json!({ "last_month": "2190-12" }),
            Operation::DeclareCheckpoint => json!({}),
            _ => json!({ "amount": "1" }),
        };
        if route.request.is_some() { asked.json(&body) } else { asked }.send().unwrap()
    };
    let refused = ask(stranger);
    // What no project owns is refused by the id's kind alone, whether it exists or not.
    let other_plane = route.operation == Operation::GetWhy && (refused.status, refused.code().as_str()) == (403, "wrong_key_plane");
    let hidden = (refused.status, refused.code().as_str()) == (404, "not_found");
    assert!(hidden || other_plane, "{route:?} at {path}: {}", refused.text());
    if route.method == Method::Get {
        let key = if route.plane == Plane::Project { &server.keys.project } else { &server.keys.admin };
        let own = ask(key);
        // Its owner is told that a draft is not sealed yet.
        let draft = route.operation == Operation::GetInvoiceBundle && (own.status, own.code().as_str()) == (409, "conflict");
        let other_plane = own.code() == "wrong_key_plane" && other_plane;
        assert!(own.status == 200 || draft || other_plane, "{route:?} at {path}: {}", own.text());
    }
}

fn lists_of_a_stranger_are_empty(server: &Server, stranger: &Stranger) {
    for path in ["/v1/jobs", "/v1/leases", "/v1/quotes", "/v1/files", "/v1/batches"] {
        assert_eq!(server.see(path, &stranger.project)["data"], json!([]), "{path}");
    }
    for path in [
        "billing/charges",
        "billing/invoices",
        "users",
        "spend_limits",
        "rate_limits",
        "contracts",
        "top_ups",
        "refunds",
        "webhook_endpoints",
        "webhook_deliveries",
        "archived_files",
    ] {
        assert_eq!(server.see(&format!("/v1/organization/{path}"), &stranger.admin)["data"], json!([]), "{path}");
    }
}

fn stranger_cannot_use_what_is_not_theirs(server: &Server, owned: &Owned, stranger: &Stranger) {
    let quote = server.post("/v1/leases", &stranger.project, &json!({ "quote": owned.quote })).unwrap();
    assert_eq!((quote.status, quote.code().as_str()), (404, "not_found"), "{}", quote.text());
    let job = json!({ "lease": owned.lease, "command": ["true"] });
    let job = server.post("/v1/jobs", &stranger.project, &job).unwrap();
    assert_eq!((job.status, job.code().as_str()), (404, "not_found"), "{}", job.text());
}

fn billable_routes_need_money(database: Database) {
    let server = Home::new(database).start();
    let poor = Stranger::make(&server, None);
    let quote = server.post("/v1/quotes", &poor.project, &json!({ "sku": "cpu" })).unwrap().good();
    for route in ROUTES.iter().filter(|route| route.billable) {
        let body: Value = match route.operation {
            Operation::CreateLease => json!({ "quote": quote["id"] }),
            Operation::CreateJob => json!({ "lease": "lease_00000000000000000000000000", "command": ["true"] }),
            Operation::CreateCompletion => json!({ "model": server.keys.model, "prompt": "Hello", "max_tokens": 4 }),
            Operation::CreateEmbedding => json!({ "model": server.keys.model, "input": "Hello" }),
            Operation::CreateMessage => {
                let messages = json!([{ "role": "user", "content": "Hello" }]);
                json!({ "model": server.keys.model, "messages": messages, "max_tokens": 4 })
            }
            Operation::CreateResponse => json!({ "model": server.keys.model, "input": "Hello", "max_output_tokens": 4 }),
            _ => chat(&server.keys.model, 4, &json!({})),
        };
        for path in route.paths() {
            let refused = server.post(&path, &poor.project, &body).unwrap();
            let expected = match route.operation {
                Operation::CreateJob => 404,
                // Anthropic's clients know the status for an exhausted budget.
                Operation::CreateMessage => 402,
                _ => 429,
            };
            assert_eq!(refused.status, expected, "{route:?}: {}", refused.text());
            if expected != 404 {
                assert_eq!(refused.code(), "insufficient_quota", "{route:?}");
                assert_eq!(refused.header("x-should-retry"), Some("false"), "{route:?}");
            }
        }
    }
    assert_eq!(server.figure("sublet_engine_tokens_total"), 0);
    assert_eq!(server.see("/v1/organization/billing/charges", &poor.admin)["data"], json!([]));
}

fn unknown_urls(database: Database) {
    let server = Home::new(database).start();
    for (method, path) in [("GET", "/v1/nope"), ("POST", "/v1/v1/chat/completions"), ("GET", "/nope/deeper"), ("PUT", "/v2")] {
        let answer = server.ask(method, path).key(&server.keys.project).send().unwrap();
        assert_eq!((answer.status, answer.code().as_str()), (404, "unknown_url"), "{path}");
        assert_eq!(answer.json()["error"]["message"], json!(format!("Invalid URL ({method} {path})")));
        assert!(answer.header("x-request-id").is_some());
    }
    for (method, path, status) in [("POST", "/v1/messages/batches", 404), ("GET", "/v1/messages", 405)] {
        let answer = server.ask(method, path).key(&server.keys.project).send().unwrap();
        assert_eq!((answer.status, &answer.json()["type"]), (status, &json!("error")), "{path}: {}", answer.text());
        assert_eq!(answer.header("request-id"), answer.header("x-request-id"));
    }
    let answer = server.ask("DELETE", "/v1/models").key(&server.keys.project).send().unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"));
}
