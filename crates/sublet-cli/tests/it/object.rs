//! Wire objects as a server would send them.

use serde_json::{Value, json};

pub fn eur(amount: &str) -> Value {
    json!({"amount": amount, "currency": "EUR"})
}

pub fn list(data: Vec<Value>) -> Value {
    let (first, last) = (data.first().map(|o| o["id"].clone()), data.last().map(|o| o["id"].clone()));
    json!({"object": "list", "data": data, "first_id": first, "last_id": last, "has_more": false})
}

pub fn sku(name: &str) -> Value {
    json!({"object": "sku", "id": "sku_1", "name": name, "description": "one CPU core", "device_kind": "cpu",
        "device_memory_bytes": 2_147_483_648_u64, "created_at": 1_772_323_200,
        "prices": [{"notice": "n0", "price": eur("0.02")}, {"notice": "n15m", "price": eur("0.05")}]})
}

pub fn account() -> Value {
    json!({"object": "account", "organization": "org_1", "organization_name": "Acme", "class": "external",
        "project": "proj_1", "project_name": "vision", "key": "key_1", "key_expires_at": null, "models": null,
        "rate_limits": {}, "currency": "EUR", "time_zone": "Europe/Berlin", "credit_available": eur("42.5"),
        "limits": [], "spendable": eur("20")})
}

pub fn rate_limit() -> Value {
    json!({"object": "rate_limit", "id": "rlim_1", "subject": "proj_1", "metric": "tokens_per_day", "value": 1_000_000,
        "model": "tiny", "each_end_user": false, "end_user": null, "remaining": 999_000, "created_at": 1_772_323_200})
}

pub fn quote() -> Value {
    json!({"object": "quote", "id": "quote_1", "project": "proj_1", "status": "open", "sku": "cpu", "units": 2,
        "notice": "n0", "site": "site_1", "isolation": "sandbox", "price": eur("0.02"), "price_version": "abc",
        "minimum_seconds": 0, "maximum_seconds": null, "minimum_cost": eur("0"), "maximum_cost": eur("5"), "hold": eur("0.001"), "lease": null,
        "created_at": 1_772_323_200, "expires_at": "2026-03-01T00:01:00Z", "metadata": {}})
}

pub fn lease() -> Value {
    json!({"object": "lease", "id": "lease_1", "organization": "org_1", "project": "proj_1", "quote": "quote_1",
        "status": "active", "sku": "cpu", "units": 2, "notice": "n0", "devices": ["dev_1", "dev_2"],
        "price": eur("0.02"), "price_version": "abc", "maximum_cost": eur("5"), "cost": eur("0.000011"),
        "held": eur("0.001"), "starts_at": "2026-03-01T00:00:00Z", "ends_at": null, "ended_at": null,
        "end_reason": null, "generation": 1, "created_at": 1_772_323_200, "metadata": {}})
}

pub fn job(status: &str, exit: Value) -> Value {
    let ended = if exit.is_null() { Value::Null } else { json!("2026-03-01T00:00:03.250Z") };
    json!({"object": "job", "id": "job_1", "organization": "org_1", "project": "proj_1", "lease": "lease_1",
        "status": status, "command": ["python3", "train.py"], "exit": exit,
        "isolation": {"level": "sandbox", "mechanisms": ["pid_namespace", "seccomp"]}, "contained": [],
        "created_at": 1_772_323_200, "started_at": "2026-03-01T00:00:01Z", "ended_at": ended,
        "restart": null, "restarts": 0, "waiting": null, "attempts": [],
        "device_milliseconds": 4_500, "cpu_milliseconds": 2_100, "peak_memory_bytes": 67_108_864,
        "cost": eur("0.000025"), "charges": ["chg_1"], "metadata": {}})
}

/// A job that was restarted, and how it is now.
pub fn restarted_job(status: &str, waiting: Value) -> Value {
    let mut job = job(status, Value::Null);
    job["restart"] = json!({"on_interruption": true, "exit_codes": [3], "restarts_max": 100, "wait_seconds_max": 604_800});
    job["restarts"] = json!(1);
    job["attempts"] = json!([{"number": 1, "lease": "lease_1", "status": "ended", "started_at": "2026-03-01T00:00:01Z",
        "ended_at": "2026-03-01T00:00:03.250Z", "exit": {"kind": "code", "code": 75}}]);
    job["waiting"] = waiting;
    job
}

/// What one waits for.
pub fn waiting() -> Value {
    json!({"since": "2026-03-01T00:00:03.250Z", "until": "2026-03-08T00:00:03.250Z", "position": 1,
        "reason": "0 of 2 devices are free"})
}

pub fn invoice() -> Value {
    json!({"object": "invoice", "id": "inv_1", "number": null, "organization": "org_1", "status": "draft",
        "period_start": "2026-02-28T23:00:00Z", "period_end": "2026-03-31T22:00:00Z", "time_zone": "Europe/Berlin",
        "lines": [
            {"project": "proj_1", "subject": {"kind": "model", "name": "tiny"}, "meter": "output_tokens",
             "price_version": "abc", "price": "0.6 EUR per 1M tokens", "unit_amount": "0.6", "unit_per": 1_000_000,
             "quantity": 123_456, "charges": 40,
             "amount": eur("0.0740736")},
            {"project": "proj_1", "subject": {"kind": "sku", "name": "cpu"}, "meter": "device_milliseconds", "notice": "n0",
             "band": "night", "price_version": "abc", "price": "0.02 EUR per started 900000 device-ms", "unit_per": 3_600_000,
             "quantity": 4_500, "charges": 1,
             "amount": eur("0.000025")},
        ],
        "subtotal": eur("0.0740986"), "carried": eur("0"), "rounding": eur("-0.0040986"), "total": eur("0.07"),
        "credited": eur("0"), "amount_due": eur("0"), "created_at": 1_772_323_200, "issued_at": null, "paid_at": null,
        "voided_at": null})
}

/// One that was issued: with a line that came late.
pub fn issued_invoice() -> Value {
    let mut invoice = invoice();
    invoice["number"] = json!("INV-2026-000007");
    invoice["status"] = json!("issued");
    invoice["issued_at"] = json!("2026-04-01T00:00:00Z");
    invoice["amount_due"] = eur("0.05");
    invoice["credited"] = eur("0.02");
    invoice["commitment"] = json!({"contract": "ctr_1", "terms_hash": "c0ffee01", "number": 1, "first_month": "2026-01",
        "last_month": "2026-03", "committed": eur("100"), "counted_before": eur("59.9"), "counted": eur("0.1"),
        "roll_over": eur("0"), "shortfall": eur("40"), "roll_over_used": eur("0"), "exit_fee": eur("0"), "overage": eur("0"), "amount": eur("40")});
    invoice["lines"][0]["late"] = json!({"period": "2026-02", "quantity_before": 1_000, "amount_before": eur("0.0006")});
    invoice
}

pub fn credit_note() -> Value {
    json!({"object": "credit_note", "id": "note_1", "number": "CN-2026-000001", "invoice": "inv_1", "organization": "org_1",
        "kind": "paid", "amount": eur("0.02"), "reason": "slow answers", "issued_at": "2026-04-02T00:00:00Z",
        "created_at": 1_775_088_000})
}

/// Every way to say something about prices.
fn pricing() -> Value {
    let fixed = json!([
        {"subject": {"kind": "model", "name": "tiny"}, "meter": "output_tokens", "service_tier": "flex", "amount": "0.4", "per": 1_000_000},
        {"subject": {"kind": "sku", "name": "cpu"}, "meter": "device_milliseconds", "notice": "n1h", "amount": "0.02", "per": 3_600_000,
         "time_of_use": {"time_zone": "UTC", "bands": [
            {"name": "night", "windows": [{"from": "22:00", "until": "06:00"}], "amount": "0.01"}]}},
    ]);
    json!({"discounts": [
        {"on": {"family": "model_tokens"}, "off_ppm": 150_000}, {"on": {"model": "tiny"}, "off_ppm": 200_001},
        {"on": {"device": "cpu"}, "off_ppm": 1_000_000}, {"on": {"notice": "n0"}, "off_ppm": 0},
        {"on": {"sku": "device/n0/cpu"}, "off_ppm": 125_000},
    ], "fixed": fixed, "protection": {"version": "abc", "until": "2026-12"}})
}

/// What an account pays by its contract.
pub fn contract_price_list() -> Value {
    let mut list = price_list();
    list["contract"] = json!({"terms_hash": "c0ffee01", "public_version": "def", "protected_version": "abc"});
    list
}

/// Amended, half used, and it can be left.
pub fn contract() -> Value {
    let terms = |amount: &str| {
        json!({"currency": "EUR", "starts": "2026-01", "months": 24, "period_months": 3, "covers": ["model_tokens"],
            "commitments": [{"from_period": 1, "amount": "100"}, {"from_period": 3, "amount": amount}], "roll_over_periods": 2,
            "exit": {"after_periods": 4, "notice_months": 1, "fee_ppm": 125_000},
            "renewal": {"months": 12, "notice_months": 3}, "payment": {"net_days": 60, "note": "2 % within 10 days"},
            "pricing": pricing()})
    };
    let version = |hash: &str, status: &str, from: &str, amount: &str, answered_at: Value| {
        json!({"terms_hash": hash, "status": status, "from": from, "terms": terms(amount), "offered_at": "2025-12-01T00:00:00Z",
            "expires_at": "2025-12-31T00:00:00Z", "answered_at": answered_at})
    };
    let period = |number: u32, first: &str, last: &str, counted: &str, shortfall: &str, settled: bool| {
        json!({"number": number, "first_month": first, "last_month": last, "committed": eur("100"), "counted": eur(counted),
            "shortfall": eur(shortfall), "roll_over_used": eur("0"), "exit_fee": eur("0"), "overage": eur("0"), "quantity": null,
            "utilisation_ppm": 599_000, "coverage_ppm": null, "settled": settled,
            "months": [{"month": first, "counted": eur(counted), "quantity": null, "used": null, "billed": settled}]})
    };
    let versions = [
        version("c0ffee01", "accepted", "2026-01", "200", json!("2025-12-02T00:00:00Z")),
        version("c0ffee02", "offered", "2026-07", "150", Value::Null),
    ];
    let exits = [
        json!({"last_month": "2026-12", "notice_by": "2026-11", "fee": eur("100"), "committed": eur("500"), "term_end": false}),
        json!({"last_month": "2027-12", "notice_by": "2027-09", "fee": eur("0"), "committed": eur("1300"), "term_end": true}),
    ];
    json!({"object": "contract", "id": "ctr_1", "organization": "org_1", "name": "Inference 2026", "status": "active",
        "versions": versions, "last_month": null, "notice": null, "exits": exits, "created_at": 1_764_547_200,
        "periods": [period(1, "2026-01", "2026-03", "60", "40", true), period(2, "2026-04", "2026-06", "50.5", "0", false)]})
}

pub fn verification(balanced: bool) -> Value {
    let findings = if balanced { vec![] } else { vec!["acct_1: balance 2 but its postings sum to 3"] };
    json!({"object": "ledger.verification", "balanced": balanced, "as_of": "2026-03-01T00:00:00Z", "accounts": 12,
        "transfers": 345, "charges": 41, "currencies": [{"currency": "EUR", "debits": "100.5", "credits": "100.5"}],
        "findings": findings})
}

pub fn balance() -> Value {
    json!({"object": "credit_balance", "organization": "org_1", "deposited": eur("50"), "credit_limit": eur("0"), "owed": eur("0"),
        "available": eur("42.5"), "sliced": eur("1"), "held": eur("0.5"), "captured": eur("6"), "suspense": eur("0"),
        "expired": eur("0"), "refunded": eur("0")})
}

pub fn key() -> Value {
    json!({"object": "organization.project.api_key", "id": "key_1", "name": "ci", "plane": "project",
        "redacted_value": "sk-sub-…ab12", "project": "proj_1", "models": ["tiny"], "rate_limits": {},
        "created_at": 1_772_323_200, "expires_at": null, "revoked_at": null, "last_used_at": 1_772_323_260, "metadata": {}})
}

pub fn organization() -> Value {
    json!({"object": "organization", "id": "org_1", "name": "Acme", "class": "external", "status": "active",
        "currency": "EUR", "time_zone": "Europe/Berlin", "credit_limit": eur("0"), "isolation": "sandbox",
        "data_policy": {"external": "none", "regions": []},
        "created_at": 1_772_323_200, "metadata": {}})
}

pub fn limit() -> Value {
    json!({"object": "spend_limit", "owner": {"kind": "key", "id": "key_1"}, "window": "month", "model": null, "each_end_user": false,
        "end_user": null, "amount": eur("20"), "at_limit": "finish_then_stop", "overrun_max": eur("3"), "reached_at": null,
        "alerts": [{"on": "actual", "percent": 80}, {"on": "forecast", "percent": 100}],
        "spent": eur("12.34"), "held": eur("0.5"), "remaining": eur("7.16"), "resets_at": "2026-03-31T22:00:00Z",
        "created_at": 1_772_323_200})
}

/// What can be said of a limit, and what cannot.
pub fn forecasts() -> Value {
    let forecast = json!({"low": eur("18"), "expected": eur("21.5"), "high": eur("25"), "method": "weekly_profile"});
    let mut total = limit();
    total["window"] = json!("total");
    let of = |limit: Value, forecast: Value| json!({"object": "spend_forecast", "limit": limit, "forecast": forecast});
    list(vec![of(limit(), forecast), of(limit(), Value::Null), of(total, Value::Null)])
}

pub fn spend_alert() -> Value {
    json!({"object": "spend_alert", "id": "alert_1", "owner": {"kind": "key", "id": "key_1"}, "window": "month", "model": "tiny",
        "end_user": null, "starts_at": "2026-02-28T23:00:00Z", "ends_at": "2026-03-31T22:00:00Z", "on": "forecast", "percent": 100,
        "refused": false, "amount": eur("20"), "spent": eur("12.34"), "held": eur("0.5"), "forecast": eur("21.5"), "created_at": "2026-03-15T12:00:00Z"})
}

pub fn price_list() -> Value {
    json!({"object": "price_list", "id": "plist_1", "name": "standard", "version": "abc", "number": 1, "currency": "EUR",
    "effective_at": "2026-03-01T00:00:00Z", "created_at": 1_772_323_200, "prices": [
        {"subject": {"kind": "model", "name": "tiny"}, "meter": "input_tokens", "amount": "0.2", "per": 1_000_000},
        {"subject": {"kind": "model", "name": "tiny"}, "meter": "output_tokens", "service_tier": "flex", "per": 1_000_000,
         "model": {"type": "graduated", "tiers": [{"up_to": 1_000_000, "amount": "0.6"}, {"amount": "0.5"}]}},
        {"subject": {"kind": "sku", "name": "cpu"}, "meter": "device_milliseconds", "notice": "n0", "amount": "0.02", "per": 3_600_000,
         "time_of_use": {"time_zone": "Europe/Berlin", "bands": [
            {"name": "night", "windows": [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "from": "22:00", "until": "06:00"}],
             "model": {"type": "package", "size": 900_000, "amount": "0.004"}, "minimum": "0.01"},
            {"name": "lunch", "windows": [{"days": ["sat", "sun"], "from": "12:00", "until": "13:30"}],
             "model": {"type": "volume", "tiers": [{"up_to": 10, "amount": "0.03"}, {"amount": "0.01"}]}}]}},
    ]})
}

pub fn why() -> Value {
    json!({"object": "why", "id": "job_1", "summary": "the job was stopped at its memory limit",
        "rule": "a job may use the memory its lease gives it",
        "facts": [
            {"label": "memory", "value": "512 MiB", "parts": [
                {"label": "share of the device", "value": "2 GiB"}, {"label": "asked for", "value": "512 MiB"}]},
            {"label": "cost", "value": "0.000025 EUR", "parts": [
                {"label": "device time", "value": "4500 ms"},
                {"label": "rate", "value": "0.02 EUR / 3600000 ms", "parts": [{"label": "price list", "value": "abc"}]}]},
        ],
        "related": ["lease_1", "chg_1"]})
}

pub fn response() -> Value {
    let text = json!([{"type": "output_text", "text": "A right to use capacity.\nFor a time.", "annotations": [], "logprobs": []}]);
    let output = json!([
        {"id": "msg_1", "type": "message", "status": "completed", "role": "assistant", "content": text},
        {"id": "fc_1_0_1", "type": "function_call", "status": "completed", "call_id": "call_1", "name": "weather", "arguments": "{}"},
    ]);
    json!({"id": "resp_1", "object": "response", "status": "completed", "model": "tiny", "previous_response_id": "resp_0",
        "usage": {"input_tokens": 12, "output_tokens": 5, "total_tokens": 17}, "output": output, "store": true})
}

pub fn input_items() -> Vec<Value> {
    let content = json!([{"type": "input_text", "text": "What is a lease?"}]);
    vec![
        json!({"id": "msg_1_i0", "type": "message", "status": "completed", "role": "user", "content": content}),
        json!({"id": "fco_1_i1", "type": "function_call_output", "status": "completed", "call_id": "call_1", "output": "rain"}),
    ]
}

pub fn file() -> Value {
    json!({"object": "file", "id": "file_1", "bytes": 2_097_152, "created_at": 1_772_323_200, "expires_at": 1_772_326_800,
        "filename": "requests.jsonl", "purpose": "batch", "status": "processed", "sha256": "c0ffee"})
}

/// A batch of three lines: its status, and how many have an answer and an error.
pub fn batch(status: &str, (completed, failed): (u32, u32)) -> Value {
    let runs = matches!(status, "validating" | "in_progress");
    let forecast = if runs { json!({"ends_at": 1_772_330_000, "meets_deadline": false}) } else { Value::Null };
    let file = |id: &str, count: u32| if runs || count == 0 { Value::Null } else { json!(id) };
    let errors =
        json!({"object": "list", "data": [{"code": "model_not_found", "message": "no model 'x'", "param": "model", "line": 2}]});
    json!({"object": "batch", "id": "batch_1", "endpoint": "/v1/chat/completions", "errors": if failed > 0 { errors } else { Value::Null },
        "input_file_id": "file_1", "completion_window": "24h", "status": status, "output_file_id": file("file_2", completed),
        "error_file_id": file("file_3", failed), "created_at": 1_772_323_200, "in_progress_at": null, "expires_at": 1_772_409_600,
        "finalizing_at": null, "completed_at": null, "failed_at": null, "expired_at": null, "cancelling_at": null,
        "cancelled_at": null, "request_counts": {"total": 3, "completed": completed, "failed": failed},
        "usage": {"input_tokens": 0, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 0,
            "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 0},
        "metadata": {}, "sublet": {"project": "proj_1", "key": "key_1", "forecast": forecast,
            "quote": {"answers": 3, "input_tokens": 30, "output_tokens_max": 60, "least": eur("0.01"), "most": eur("0.25")}}})
}
