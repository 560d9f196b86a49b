//! The owner's reports as a cloud gives them.

use serde_json::{Value, json};

use crate::object::eur;

pub fn costs() -> Value {
    json!({"object": "supply_costs", "version": "c0ffee", "number": 2, "currency": "EUR", "effective_at": "2026-10-01T00:00:00Z",
        "replaces": "f00d", "energy": {"per_kwh": "0.3", "time_of_use": {"time_zone": "UTC", "bands": [{"name": "night",
            "windows": [{"from": "22:00", "until": "06:00"}], "amount": "0.1"}]}},
        "devices": [{"kind": "h100", "power": {"busy_watts": 700, "idle_watts": 100},
            "depreciation": {"price": "30000", "residual": "2000", "months": 48}}, {"kind": "cpu", "per_hour": "0.004"}, {"kind": "l4", "transfer_price": "0.35"}],
        "models": [{"model": "tiny", "input": "0.05", "output": "0.2"}], "created_at": 1_790_812_800})
}

fn figures(revenue: &str, cost: &str, margin: &str, share: Value) -> Value {
    json!({"revenue": eur(revenue), "cost": eur(cost), "without_cost": eur("0"), "margin": eur(margin), "margin_permille": share,
        "costs": {"power": eur("0.21"), "depreciation": eur("0.8"), "device_time": eur("0"), "transfer_price": eur("0"), "models": eur("0"), "upstream": eur("0")}})
}

fn sku(figures: Value, below_cost: bool) -> Value {
    json!({"subject": {"kind": "sku", "name": "h100"}, "meter": "device_milliseconds", "notice": "n2m", "quantity": 3_600_000,
        "figures": figures, "below_cost": below_cost,
        "unit": {"per": 3_600_000, "revenue": eur("2.5"), "cost": eur("1.0091"), "margin": eur("1.4909")}})
}

pub fn margin() -> Value {
    let sold = || figures("2.5", "1.009123456", "1.490876544", json!(596));
    let loss = figures("0.0000004", "0.0000009", "-0.0000005", json!(-1_250));
    let mut unknown = figures("0.2", "0", "0", Value::Null);
    unknown["without_cost"] = eur("0.2");
    let unknown = json!({"subject": {"kind": "model", "name": "tiny"}, "meter": "output_tokens", "service_tier": "flex",
        "quantity": 1_000_000, "unit": null, "figures": unknown, "below_cost": false});
    json!({"object": "report.margin", "month": "2026-10", "currency": "EUR", "as_of": "2026-11-01T00:00:00Z", "cost_version": "c0ffee",
        "revenue": eur("2.7000004"), "promotions": eur("0.5"), "compensations": eur("0.25"), "refunds": eur("0"), "breakage": eur("0"), "commitments": eur("0"), "fees": eur("0"), "rounding": eur("0.000000001"),
        "net_revenue": eur("2.200000401"), "costs": sold()["costs"], "cost": eur("1.009124356"), "bought_for_nobody": eur("0"),
        "processor_fees": eur("0"), "gross_margin": eur("0.990876045"), "margin_permille": 495, "without_cost": eur("0.2"),
        "families": [{"family": "device-time", "quantity": 3_600_000, "figures": sold(),
            "unit": {"per": 3_600_000, "revenue": eur("2.5"), "cost": eur("1.0091"), "margin": eur("1.4909")}}],
        "products": [{"subject": {"kind": "sku", "name": "h100"}, "quantity": 3_600_000, "figures": sold(), "unit": null}],
        "skus": [sku(sold(), false), sku(loss.clone(), true), unknown],
        "customers": [{"organization": "org_1", "name": "Acme", "figures": sold()}],
        "sites": [{"site": "site_fra", "figures": sold()}, {"site": null, "figures": loss}],
        "internal": figures("0", "0", "0", Value::Null),
        "utilisation": [{"kind": "h100", "capacity_milliseconds": 2_678_400_000_u64, "sold_milliseconds": 3_600_000,
            "internal_milliseconds": 0, "held_milliseconds": 400, "idle_milliseconds": 2_674_799_600_u64, "out_milliseconds": 0,
            "sold_permille": 1, "unused_cost": eur("610.5")}],
        "ledger": {"posted": eur("2.7"), "timing": eur("0"), "recognised": eur("9"), "booked": eur("9"), "difference": eur("0")}})
}

fn time(classes: &[(&str, u64)], shares: [Value; 2]) -> Value {
    let [before, after] = shares;
    let owned: u64 = classes.iter().map(|(_, hours)| hours * 3_600_000).sum();
    let class = |(class, hours): &(&str, u64)| json!({"class": class, "milliseconds": hours * 3_600_000});
    json!({"owned_milliseconds": owned, "classes": classes.iter().map(class).collect::<Vec<_>>(), "before_permille": before,
        "after_permille": after})
}

pub fn monthly_return() -> Value {
    let hours = |hours: u64| hours * 3_600_000;
    let h100 = [
        ("own_use", 300),
        ("outside_use", 100),
        ("sold_n2m", 200),
        ("sold_firm", 100),
        ("held", 10),
        ("reserved", 20),
        ("idle", 200),
        ("unhealthy", 70),
    ];
    let promise = |notice: &str, counts: [u64; 4], given: Vec<Value>| {
        json!({"notice": notice, "ended": counts[0],
        "ended_by_owner": counts[1], "kept": counts[2], "broken": counts[3], "compensation": given})
    };
    let usd = json!({"amount": "2", "currency": "USD"});
    json!({"object": "report.return", "month": "2026-10", "currency": "EUR", "as_of": "2026-11-01T00:00:00Z", "cost_version": "c0ffee",
        "earned": eur("750.2"), "cost": eur("301.009124356"), "margin": eur("449.190875644"), "margin_permille": 598,
        "without_cost": eur("0.2"), "unused_cost": eur("61.5"), "time": time(&h100, [json!(400), json!(700)]),
        "kinds": [{"kind": "h100", "time": time(&h100, [json!(400), json!(700)])}, {"kind": "cpu", "time": time(&[], [Value::Null, Value::Null])}],
        "payback": {"capital": eur("60000"), "devices": 3, "priced_devices": 2, "cash": eur("689.19"), "monthly_cash": eur("676.22"),
            "tenths_of_months": 888},
        "unfilled": {"time_zone": "Europe/Berlin", "is_complete": false, "other_currencies": [{"currency": "USD", "device_milliseconds": hours(12)}],
            "kinds": [{"kind": "h100", "device_milliseconds": hours(3_500), "densest": "weekday nights", "densest_permille": 612,
                "at": {"price": eur("2.4"), "device_milliseconds": hours(3_120), "worth": eur("7488")},
                "reasons": [{"reason": "not_enough", "device_milliseconds": hours(3_120)}, {"reason": "price", "device_milliseconds": hours(380)}],
                "notices": [{"notice": "n1h", "device_milliseconds": hours(3_500)}], "by_hour": vec![hours(100); 24]},
                {"kind": "cpu", "device_milliseconds": hours(3) / 2, "densest": "weekend days", "densest_permille": 400, "at": null,
                "reasons": [{"reason": "class_withdrawn", "device_milliseconds": hours(3) / 2}], "notices": [], "by_hour": vec![0; 24]}]},
        "promises": [promise("n0", [40, 31, 31, 0], vec![]), promise("n15m", [12, 4, 3, 1], vec![eur("1.75"), usd]),
            promise("firm", [1, 0, 0, 0], vec![])]})
}

pub fn revenue() -> Value {
    let tie =
        |what: &str, amount: &str| json!({"what": what, "reported": eur(amount), "booked": eur(amount), "difference": eur("0")});
    let month = |month: &str, firm: &str, planned: &str| json!({"month": month, "firm": eur(firm), "planned": eur(planned)});
    json!({"object": "report.revenue", "month": "2026-10", "currency": "EUR", "as_of": "2026-11-01T00:00:00Z",
        "usage": [{"family": "model-tokens", "recognised": eur("0.2000004")}, {"family": "device-time", "recognised": eur("2.5")}],
        "commitments": eur("40"), "fees": eur("30.663043478"), "recognised": eur("73.363043878"), "deferred": eur("60.336956522"),
        "contracts": [{"contract": "ctr_1", "organization": "org_1", "name": "Inference 2026", "commitments": eur("40"),
            "fees": eur("30.663043478"), "deferred": eur("60.336956522"), "firm": eur("100"), "planned": eur("300")}],
        "backlog": [month("2026-11", "50", "50"), month("2026-12", "50", "50"), month("2027-01", "0", "200")],
        "ledger": [tie("usage", "9"), tie("commitments", "40"), tie("fees", "30.663043478"), tie("deferred", "60.336956522")]})
}

pub fn showback() -> Value {
    let used = || figures("1.25", "0.5", "0.75", json!(600));
    json!({"object": "report.showback", "month": "2026-10", "currency": "EUR", "as_of": "2026-11-01T00:00:00Z",
        "teams": [{"organization": "org_2", "name": "Research", "figures": used(), "lines": [sku(used(), false)]}], "total": used()})
}

pub fn leakage() -> Value {
    json!({"object": "report.leakage", "as_of": "2026-11-01T00:00:00Z", "more": ["superseded_line"], "at_stake": [eur("0.6")],
        "findings": [{"kind": "quarantined_usage", "id": "req_1", "organization": "org_1", "since": "2026-10-30T12:00:00Z",
            "at_stake": eur("0.6"), "detail": "there is no cost c0ffee of rep_1", "remedy": "publish what the reason says is missing"},
            {"kind": "model_without_price", "id": "tiny", "detail": "it has no price in any list in force", "remedy": "publish a price"}]})
}

fn party(name: &str, country: &str, id: &str) -> Value {
    json!({"legal_name": name, "address": {"lines": ["Street 1"], "city": "City", "postal_code": "10115", "country": country},
        "tax_id": id})
}

pub fn seller() -> Value {
    json!({"object": "seller", "party": party("Seller GmbH", "DE", "DE123456789"), "bank": {"iban": "DE89370400440532013000"},
        "terms": {"net_days": 14}})
}

pub fn taxes() -> Value {
    json!({"object": "tax_table", "rows": [
        {"jurisdiction": "DE", "name": "VAT", "rate": "19", "from": "2021-01-01"},
        {"jurisdiction": "CA-QC", "name": "QST", "rate": "9.975", "from": "2013-01-01"}]})
}

pub fn profile() -> Value {
    json!({"object": "billing_profile", "organization": "org_1", "today": "2026-03-31", "terms": {"net_days": 14},
        "profile": {"party": party("Buyer SARL", "FR", "FR12345678901"), "purchase_order": "PO-7"},
        "taxes": [{"category": "AE", "jurisdiction": "FR", "name": "VAT", "rate": "0", "reason": "Reverse charge",
            "reason_code": "VATEX-EU-AE"}]})
}

/// An invoice with parties and taxes.
pub fn taxed(mut invoice: Value) -> Value {
    invoice["seller"] = seller();
    invoice["buyer"] = json!({"party": party("Buyer GmbH", "DE", "DE987654321")});
    invoice["due_on"] = json!("2026-04-15");
    invoice["tax"] = json!({"gifts": eur("4"), "amount": eur("1.14"), "credited": eur("0"), "gross": eur("11.14"), "lines": [
        {"category": "S", "jurisdiction": "DE", "name": "VAT", "rate": "19", "base": eur("6"), "amount": eur("1.14")}]});
    invoice
}

fn reclaim_plan() -> Value {
    let device = |name: &str, node: &str, lease: Value, at: &str| json!({"device": name, "node": node, "site": "site_berlin", "lease": lease, "free_at": at});
    let victim = |lease: &str, notice: &str, owed: &str, broken: bool| {
        json!({"lease": lease, "organization": "org_1", "units": 1, "notice": notice, "told_at": "2026-10-01T17:40:00Z",
            "ends_at": "2026-10-01T17:59:45Z", "breaks_promise": broken, "owed": eur(owed), "lost_device_seconds": 5_400,
            "checkpoint_at": if broken { json!("2026-10-01T16:29:45Z") } else { Value::Null }})
    };
    json!({"free_anyway": 1, "owed": [eur("1.75")], "lost_device_seconds": 10_800,
        "devices": [device("dev_1", "node_1", Value::Null, "2026-10-01T12:00:00Z"),
            device("dev_2", "node_1", json!("lease_1"), "2026-10-01T18:00:00Z"),
            device("dev_3", "node_2", json!("lease_2"), "2026-10-01T18:00:00Z")],
        "victims": [victim("lease_1", "n2m", "0", false), victim("lease_2", "n1h", "1.75", true)]})
}

pub fn reclaim() -> Value {
    json!({"object": "reclaim", "id": "rcl_1", "status": "placed", "kind": "h100", "units": 3, "by": "2026-10-01T18:00:00Z",
        "until": null, "site": null, "units_per_node": null, "whole_nodes": false, "break_promises": true, "there": 1, "lost": 1,
        "plan": reclaim_plan(), "generation": 1, "created_by": "key_1", "created_at": 1_790_812_800, "ended_at": null})
}

pub fn reclaim_summary() -> Value {
    json!({"object": "reclaim_summary", "id": "rcl_1", "status": "placed", "kind": "h100", "units": 3, "by": "2026-10-01T18:00:00Z",
        "until": null, "devices": 3, "there": 1, "lost": 1, "victims": 2, "owed": [eur("1.75")], "created_at": 1_790_812_800})
}

pub fn reclaim_preview() -> Value {
    json!({"object": "reclaim_preview", "kind": "h100", "units": 3, "by": "2026-10-01T18:00:00Z", "plan": reclaim_plan(),
        "cheaper": [{"text": "ask for them by 2026-10-01T18:41:00Z: 2 leases end, nothing is owed", "kind": "h100", "units": 3,
            "by": "2026-10-01T18:41:00Z", "site": null, "victims": 2, "owed": [], "lost_device_seconds": 15_000}],
        "as_of": "2026-10-01T12:00:00Z"})
}

pub fn calendar() -> Value {
    json!({"object": "capacity_calendar", "device_kind": "h100", "site": "site_berlin", "hours": [
        {"at": "2026-10-01T13:00:00Z", "owned": 16, "unhealthy": 1, "internal": 4, "sold": [{"notice": "n2m", "units": 3},
            {"notice": "firm", "units": 2}], "idle": 6, "outside": 1, "kept": 2, "free": 3, "own_need_max": 9}]})
}
