//! What every read prints, for people and as JSON.

use serde_json::{Value, json};
use sublet_api::time::Rfc3339;
use sublet_cli::ExitStatus;

use crate::cloud::Cloud;
use crate::money;
use crate::object;
use crate::owner;
use crate::terminal::Terminal;

/// Command, route that answers, answer.
fn reads() -> Vec<(&'static str, &'static str, Value)> {
    let mut reads = project_reads();
    reads.extend(organization_reads());
    reads.extend(operator_reads());
    reads.extend(fleet_reads());
    reads
}

fn project_reads() -> Vec<(&'static str, &'static str, Value)> {
    let finished = || object::job("failed", json!({"kind": "out_of_memory"}));
    let usage = json!({"object": "usage", "start_time": "2026-02-28T23:00:00Z", "end_time": "2026-03-31T22:00:00Z",
        "lines": [{"project": "proj_1", "subject": {"kind": "model", "name": "tiny"}, "meter": "input_tokens",
            "quantity": 1_234, "charges": 12, "cost": object::eur("0.0002468")}],
        "total": object::eur("0.0002468"), "held": object::eur("0.001")});
    let model = json!({"id": "tiny", "object": "model", "created": 1, "owned_by": "sublet", "context_window": 512,
        "pricing": {"version": "abc", "input": {"price": object::eur("0.2"), "per_tokens": 1_000_000},
            "cached_input": {"price": object::eur("0.05"), "per_tokens": 1_000_000},
            "output": {"price": object::eur("0.6"), "per_tokens": 1_000_000}},
        "shutdown_date": 4_070_908_800_i64, "sublet": {"private": false,
            "licence": {"name": "llama3.1", "acceptance_required": true, "accepted": false}}});
    let availability = json!({"object": "availability", "sku": "cpu", "notice": "n0", "available_units": 3,
        "total_units": 4, "price": object::eur("0.02"), "as_of": "2026-03-01T00:00:00Z"});
    let levels = json!({"object": "availability_calendar", "sku": "h100", "notice": "n1h", "site": "site_berlin",
        "starts_at": "2026-03-01T01:00:00Z", "levels": ["none", "none", "low", "high", "unknown"]});
    vec![
        ("jobs list", "GET /v1/jobs", object::list(vec![finished(), object::job("queued", Value::Null)])),
        ("jobs show job_1", "GET /v1/jobs/job_1", finished()),
        ("jobs show job_2", "GET /v1/jobs/job_2", object::restarted_job("requeued", object::waiting())),
        ("leases list", "GET /v1/leases", object::list(vec![object::lease()])),
        ("leases show lease_1", "GET /v1/leases/lease_1", object::lease()),
        ("quotes list", "GET /v1/quotes", object::list(vec![object::quote()])),
        ("quotes show quote_1", "GET /v1/quotes/quote_1", object::quote()),
        ("skus", "GET /v1/skus", object::list(vec![object::sku("cpu")])),
        ("availability", "GET /v1/availability", object::list(vec![availability])),
        ("availability --calendar 5 --site site_berlin", "GET /v1/availability_calendar", object::list(vec![levels])),
        ("prices", "GET /v1/account/prices", object::contract_price_list()),
        ("prices --public", "GET /v1/prices", object::price_list()),
        ("usage", "GET /v1/usage", usage),
        (
            "models list",
            "GET /v1/models",
            json!({"object": "list", "data": [model], "first_id": "tiny", "last_id": "tiny", "has_more": false}),
        ),
        ("responses show resp_1", "GET /v1/responses/resp_1", object::response()),
        ("responses input resp_1", "GET /v1/responses/resp_1/input_items", object::list(object::input_items())),
        ("files list", "GET /v1/files", object::list(vec![object::file()])),
        ("files show file_1", "GET /v1/files/file_1", object::file()),
        ("batches list", "GET /v1/batches", object::list(vec![object::batch("in_progress", (1, 0))])),
        ("batches show batch_1", "GET /v1/batches/batch_1", object::batch("completed", (2, 1))),
        ("why job_1", "GET /v1/why/job_1", object::why()),
    ]
}

fn organization_reads() -> Vec<(&'static str, &'static str, Value)> {
    let project = json!({"object": "organization.project", "id": "proj_1", "name": "vision", "status": "active",
        "created_at": 1_772_323_200, "archived_at": null, "metadata": {}});
    let charge = json!({"object": "charge", "id": "chg_1", "project": "proj_1", "request": "req_1",
        "subject": {"kind": "model", "name": "tiny"}, "meter": "output_tokens", "quantity": 17, "amount": object::eur("0.0000102"),
        "price_version": "abc", "used_at": "2026-03-01T00:00:00Z", "created_at": 1_772_323_200});
    let entry = json!({"object": "organization.audit_log", "id": "aud_1", "type": "api_key.created", "effective_at": 1_772_323_200,
        "actor": {"kind": "key", "id": "key_9"}, "address": "127.0.0.1", "target": "key_1", "organization": "org_1",
        "request_id": "req_1", "result": "ok", "detail": null});
    let licence = json!({"object": "organization.licence", "model": "tiny", "licence": "llama3.1", "url": null,
        "accepted_by": "key_1", "accepted_at": 1_772_323_200});
    vec![
        ("models licences", "GET /v1/organization/licences", object::list(vec![licence])),
        ("projects list", "GET /v1/organization/projects", object::list(vec![project])),
        ("keys list --project proj_1", "GET /v1/organization/projects/proj_1/api_keys", object::list(vec![object::key()])),
        ("audit list", "GET /v1/organization/audit_logs", object::list(vec![entry])),
        ("rate-limits list", "GET /v1/organization/rate_limits", object::list(vec![object::rate_limit()])),
        ("billing limits list", "GET /v1/organization/spend_limits", object::list(vec![object::limit()])),
        ("billing forecast", "GET /v1/organization/spend_forecasts", object::forecasts()),
        ("billing alerts", "GET /v1/organization/spend_alerts", object::list(vec![object::spend_alert()])),
        ("contracts list", "GET /v1/organization/contracts", object::list(vec![object::contract()])),
        ("contracts show ctr_1", "GET /v1/organization/contracts/ctr_1", object::contract()),
        ("contracts exit ctr_1 --simulate", "GET /v1/organization/contracts/ctr_1", object::contract()),
        ("top-ups list", "GET /v1/organization/top_ups", object::list(vec![money::top_up("bank"), money::top_up("stripe")])),
        ("top-ups show top_1", "GET /v1/organization/top_ups/top_1", money::top_up("bank")),
        ("saved-card show", "GET /v1/organization/saved_card", money::saved_card()),
        ("top-ups rule show", "GET /v1/organization/top_up_rule", money::top_up_rule()),
        ("refunds list", "GET /v1/organization/refunds", object::list(vec![money::refund()])),
        ("refunds show rfd_1", "GET /v1/organization/refunds/rfd_1", money::refund()),
        ("billing charges", "GET /v1/organization/billing/charges", object::list(vec![charge])),
        ("billing invoices list", "GET /v1/organization/billing/invoices", object::list(vec![object::invoice()])),
        ("billing invoices draft", "POST /v1/organization/billing/invoices", object::invoice()),
        ("billing invoices show inv_1", "GET /v1/organization/billing/invoices/inv_1", object::issued_invoice()),
        (
            "billing credit-notes list --invoice inv_1",
            "GET /v1/organization/billing/credit_notes",
            object::list(vec![object::credit_note()]),
        ),
    ]
}

fn capacity() -> Value {
    let class = |notice: &str, sold: u32, level: u32, reason: &str| json!({"notice": notice, "sold": sold, "level": level, "reason": reason});
    let pool = json!({"site": "site_local", "owned": 8, "unhealthy": 0, "reserve": 1, "internal": 1, "outside": 2,
        "outside_reported_at": "2026-02-28T23:59:00Z", "idle": 5, "classes": [
            class("n0", 1, 3, "the least idle in 60 minutes, less 2.0 % of capacity"), class("n2m", 1, 2, "a shorter class is not sold")],
        "decided_at": "2026-02-28T23:59:30Z", "age_seconds": 30, "is_fresh": true, "observed_from": null});
    json!({"object": "capacity", "device_kind": "cpu", "total": 8, "idle": 5, "sold": 2, "internal": 1,
        "cordoned": 0, "lost": 0, "pools": [pool], "as_of": "2026-03-01T00:00:00Z"})
}

fn operator_reads() -> Vec<(&'static str, &'static str, Value)> {
    let account = json!({"object": "ledger.account", "name": "liabilities:customers:org_1:available:paid",
        "organization": "org_1", "currency": "EUR", "debits_posted": "6", "credits_posted": "50"});
    let card = json!({"object": "model_card", "id": "maker/tiny", "weights": "open", "aliases": ["best"], "generation": 2,
        "licence": {"name": "llama3.1", "url": "https://example.com/l", "acceptance_required": true},
        "data_policy": {"retention": "none", "used_for_training": false, "served_in": ["DE"]},
        "shutdown_date": "2099-01-01T00:00:00Z", "changed_at": 1_772_323_200});
    let supply = json!({"supplier": "org_9", "data_policy": {"retention": "30d", "used_for_training": false, "region": "eu"},
        "min_margin_permille": 100, "cost_version": "c0ffee", "tiers": [
            {"service_tier": "flex", "margin_permille": -12, "refused": "the margin of output tokens is below the least"},
            {"service_tier": "default", "margin_permille": 493, "refused": null}]});
    let replica = |id: &str, source: &str, supply: Value| {
        json!({"object": "replica", "id": id, "model": "model_1",
        "base_url": "http://10.0.0.1/v1", "upstream_model": "m", "secret": null, "engine": "openai", "kv_events": null, "max_in_flight": 4,
        "state": "serving", "source": source, "supply": supply, "seen": null, "created_at": 1_772_323_200})
    };
    let unknown = json!({"supplier": "org_9", "data_policy": null, "min_margin_permille": 0, "cost_version": null, "tiers": []});
    let replicas =
        vec![replica("rep_1", "fleet", json!(null)), replica("rep_2", "supplier", supply), replica("rep_3", "supplier", unknown)];
    let cost = json!({"object": "replica.cost", "version": "c0ffee0123456789", "replica": "rep_2", "supplier": "org_9",
        "model": "far/mini", "currency": "EUR", "effective_at": "2026-03-01T00:00:00Z", "input": "0.1", "cached_input": "0.05",
        "output": "0.4", "created_at": 1_772_323_200});
    let margins = json!({"object": "report.margins", "start_time": "2026-03-01T00:00:00Z", "end_time": "2026-04-01T00:00:00Z",
        "lines": [{"model": "far/mini", "supplier": "org_9", "purchases": 12, "unsold": 1, "input_tokens": 1000,
            "cached_input_tokens": 0, "output_tokens": 300, "revenue": object::eur("0.5"), "cost": object::eur("0.253"),
            "margin": object::eur("0.247"), "margin_permille": 494}]});
    vec![
        ("replicas list", "GET /operator/v1/replicas", object::list(replicas)),
        ("replicas cost rep_2", "GET /operator/v1/replicas/rep_2/costs", object::list(vec![cost])),
        ("replicas margins", "GET /operator/v1/reports/margins", margins),
        ("models card maker/tiny", "GET /operator/v1/model_cards/maker/tiny", card),
        ("orgs list", "GET /operator/v1/organizations", object::list(vec![object::organization()])),
        ("billing credits show org_1", "GET /operator/v1/organizations/org_1/credits", object::balance()),
        ("billing invoices list --all", "GET /operator/v1/invoices", object::list(vec![object::issued_invoice()])),
        ("billing invoices show inv_1 --any", "GET /operator/v1/invoices/inv_1", object::invoice()),
        ("billing credit-notes list --all", "GET /operator/v1/credit_notes", object::list(vec![object::credit_note()])),
        ("contracts list --organization org_1", "GET /operator/v1/contracts", object::list(vec![object::contract()])),
        ("contracts exit --simulate", "GET /operator/v1/contracts", object::list(vec![object::contract()])),
        ("contracts show ctr_1 --any", "GET /operator/v1/contracts/ctr_1", object::contract()),
        ("top-ups list --all --status pending", "GET /operator/v1/top_ups", object::list(vec![money::top_up("bank")])),
        ("refunds list --organization org_1", "GET /operator/v1/refunds", object::list(vec![money::refund()])),
        ("payments list", "GET /operator/v1/incoming_payments", object::list(vec![money::incoming()])),
        ("payouts list", "GET /operator/v1/payouts", object::list(vec![money::payout()])),
        ("payouts held", "GET /operator/v1/reports/processor_funds", money::processor_funds()),
        ("clock show", "GET /operator/v1/clock", clock()),
        ("prices history", "GET /operator/v1/price_lists", object::list(vec![object::price_list()])),
        ("prices simulate tests/it/prices.json --period 2026-02", "POST /operator/v1/price_simulations", simulation()),
        ("rerates list", "GET /operator/v1/rerates", object::list(vec![rerate()])),
        ("rerates show rer_1", "GET /operator/v1/rerates/rer_1", rerate()),
        ("compensations rules --any", "GET /operator/v1/compensation_rules", compensation_rules()),
        ("seller show", "GET /operator/v1/seller", owner::seller()),
        ("taxes show", "GET /operator/v1/tax_table", owner::taxes()),
        ("billing profile show --of org_1", "GET /operator/v1/organizations/org_1/billing_profile", owner::profile()),
        ("billing invoices show inv_2 --any", "GET /operator/v1/invoices/inv_2", owner::taxed(object::issued_invoice())),
        ("costs list", "GET /operator/v1/supply_costs", object::list(vec![owner::costs()])),
        ("costs show c0ffee", "GET /operator/v1/supply_costs/c0ffee", owner::costs()),
        ("report margin --month 2026-10", "GET /operator/v1/reports/margin", owner::margin()),
        ("report return --month 2026-10", "GET /operator/v1/reports/return", owner::monthly_return()),
        ("report revenue --month 2026-10", "GET /operator/v1/reports/revenue", owner::revenue()),
        ("report showback --month 2026-10", "GET /operator/v1/reports/showback", owner::showback()),
        ("report leakage", "GET /operator/v1/reports/leakage", owner::leakage()),
        ("ledger verify", "GET /operator/v1/ledger/verify", object::verification(true)),
        ("ledger accounts", "GET /operator/v1/ledger/accounts", object::list(vec![account])),
    ]
}

fn fleet_reads() -> Vec<(&'static str, &'static str, Value)> {
    let policy = json!({"object": "selling_policy", "mode": "learned", "reserve_units": 1, "reserve_thousandths": 50});
    let device = json!({"object": "device", "id": "dev_1", "node": "node_1", "name": "cpu-0", "kind": "cpu", "uuid": "cpu-slot-0",
        "memory_bytes": 2_147_483_648_u64, "status": "sold", "lease": "lease_1", "organization": "org_1", "cordoned": true,
        "created_at": 1_772_323_200});
    vec![
        ("capacity", "GET /operator/v1/capacity", object::list(vec![capacity()])),
        ("capacity --calendar 1", "GET /operator/v1/capacity_calendar", object::list(vec![owner::calendar()])),
        ("policy show", "GET /operator/v1/selling_policy", policy),
        ("reclaim list", "GET /operator/v1/reclaims", object::list(vec![owner::reclaim_summary()])),
        ("reclaim show rcl_1", "GET /operator/v1/reclaims/rcl_1", owner::reclaim()),
        (
            "reclaim --need 3xh100 --by 2026-10-01T18:00:00Z --break-promises --dry-run",
            "POST /operator/v1/reclaim_previews",
            owner::reclaim_preview(),
        ),
        ("devices list", "GET /operator/v1/devices", object::list(vec![device])),
    ]
}

fn clock() -> Value {
    json!({"object": "clock", "now": "2026-04-01T02:00:00Z", "is_test_clock": true, "ahead_seconds": 86_400,
        "closed_months": 2, "issued_invoices": 1, "failed_accounts": 0})
}

fn rerate() -> Value {
    let line = |version: &str, quantity: i64, amount: &str| {
        json!({"project": "proj_1", "period": "2026-03", "price_version": version, "subject": {"kind": "sku", "name": "cpu"},
            "meter": "device_milliseconds", "notice": "n0", "quantity": quantity, "quantity_before": 7_200_000,
            "amount": object::eur(amount)})
    };
    json!({"object": "rerate", "id": "rer_1", "of": "0ff0c0ffee0000000000", "to": "c0ffee0ff00000000000",
        "from": "2026-03-01T00:00:00Z", "until": "2026-04-01T00:00:00Z", "reason": "a list had a mistake", "status": "applied",
        "customers": 2, "raised": 1, "refused": 1, "charged": object::eur("120"), "would_be": object::eur("99.5"),
        "requested_by": "key_1", "applied_by": "key_2", "created_at": 1_775_000_000, "applied_at": 1_775_000_001,
        "most_changed": [
            {"organization": "org_2", "status": "refused", "charged": object::eur("1"), "would_be": object::eur("2"), "lines": 2,
                "refusal": "the credit balance allows 0 for device-time, and 1 is needed", "most_changed": []},
            {"organization": "org_1", "status": "applied", "charged": object::eur("120"), "would_be": object::eur("99.5"), "lines": 2,
                "most_changed": [line("0ff0c0ffee0000000000", -7_200_000, "-120"), line("c0ffee0ff00000000000", 7_200_000, "99.5")]}]})
}

fn compensation_rules() -> Value {
    let rule = |free_ms: i64| json!({"free_ms": free_ms, "hour_ppm": 2_000_000, "missing_ppm": 0, "early_ppm": 250_000});
    json!({"object": "compensation_rules", "version": 1, "created_at": null,
        "rules": {"n0": rule(500), "n15m": rule(90_000), "n2m": rule(3_600_000)}})
}

fn simulation() -> Value {
    json!({"object": "price_simulation", "period": "2026-02", "charged": object::eur("120"), "would_be": object::eur("99.5"),
        "not_sold": object::eur("3"), "customers": 2,
        "most_changed": [{"organization": "org_1", "name": "Example Works", "charged": object::eur("100"), "would_be": object::eur("79.5")},
            {"organization": "org_2", "name": "Others", "charged": object::eur("20"), "would_be": object::eur("20")}],
        "prices": [{"subject": {"kind": "model", "name": "tiny"}, "meter": "input_tokens", "service_tier": "flex", "quantity": 1_234,
                "charged": object::eur("0"), "would_be": object::eur("1")},
            {"subject": {"kind": "sku", "name": "cpu"}, "meter": "device_milliseconds", "notice": "n0", "band": "night",
                "quantity": 7_200_000, "charged": object::eur("120"), "would_be": object::eur("98.5")},
            {"subject": {"kind": "model", "name": "old"}, "meter": "input_tokens", "quantity": 5, "charged": object::eur("3")}],
        "below_cost": [{"subject": {"kind": "sku", "name": "cpu"}, "meter": "device_milliseconds", "notice": "n0", "band": "night",
            "per": 3_600_000, "price": object::eur("0.005"), "cost": object::eur("0.008"), "short": object::eur("0.003")}],
        "below_floor": [{"model": "far/mini", "replica": "rep_2", "service_tier": "default",
            "reason": "the margin of output tokens is below the least"}]})
}

#[test]
fn tables_for_people() {
    let mut shown = String::new();
    for (command, route, answer) in reads() {
        let cloud = Cloud::start();
        cloud.gives(route, answer);
        let printed = Terminal::at(cloud.url()).run(&command.split(' ').collect::<Vec<_>>());
        assert_eq!((printed.status, printed.err.as_str()), (ExitStatus::OK, ""), "{command}");
        shown.push_str(&format!("$ sublet {command}\n{}\n", printed.out));
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn every_read_prints_the_whole_object_as_json() {
    for (command, route, answer) in reads() {
        let cloud = Cloud::start();
        cloud.gives(route, answer.clone());
        let words: Vec<&str> = command.split(' ').chain(["--json"]).collect();
        let printed = Terminal::at(cloud.url()).run(&words);
        let object: Value =
            serde_json::from_str(&printed.out).unwrap_or_else(|error| panic!("{command}: {error}\n{}", printed.out));
        assert_eq!(canonical(object), canonical(answer), "{command}");
    }
}

/// The same object with every instant written the same way.
fn canonical(value: Value) -> Value {
    match value {
        Value::String(text) => match text.parse::<Rfc3339>() {
            Ok(at) => json!(at),
            Err(_) => Value::String(text),
        },
        Value::Array(items) => items.into_iter().map(canonical).collect(),
        Value::Object(fields) => fields.into_iter().map(|(name, field)| (name, canonical(field))).collect(),
        plain => plain,
    }
}

#[test]
fn credit_is_listed_with_where_the_money_is() {
    let cloud = Cloud::start();
    cloud
        .gives("GET /v1/organization/billing/credit_grants", object::list(vec![]))
        .gives("GET /v1/organization/billing/credits", object::balance());
    insta::assert_snapshot!(Terminal::at(cloud.url()).run(&["billing", "credits", "list"]).out);
}

#[test]
fn the_state_of_the_cloud() {
    let cloud = Cloud::start();
    let ready = json!({"object": "health", "status": "ok", "version": "0.1.0", "checks": [{"name": "store", "ok": true, "detail": "sqlite"}]});
    cloud.gives("GET /readyz", ready).gives("GET /v1/account", object::account());
    let printed = Terminal::at(cloud.url()).run(&["status"]);
    insta::assert_snapshot!(printed.out.replace(&cloud.url(), "URL"));

    let unready = json!({"object": "health", "status": "unready", "version": "0.1.0", "checks": [{"name": "store", "ok": false, "detail": "gone"}]});
    let cloud = Cloud::start();
    cloud.answers("GET /readyz", crate::cloud::Answer::Json(503, unready));
    let printed = Terminal::at(cloud.url()).run(&["status"]);
    assert_eq!(printed.status, ExitStatus(9));
    assert!(printed.out.contains("failed: store (gone)"), "{}", printed.out);
}

#[test]
fn an_export_is_passed_on_as_it_comes() {
    let cloud = Cloud::start();
    let chunks = vec!["2026-03-01 open Assets:Cash EUR\n", "; end\n"];
    cloud.answers("GET /operator/v1/ledger/export", crate::cloud::Answer::Text { chunks, cut: false });
    let printed = Terminal::at(cloud.url()).run(&["ledger", "export", "--format", "hledger"]);
    assert_eq!(printed.out, "2026-03-01 open Assets:Cash EUR\n; end\n");
    assert_eq!(cloud.lines(), ["GET /operator/v1/ledger/export?format=hledger"]);
}
