//! What a cloud answers about money that comes in and goes out.

use serde_json::{Value, json};
use sublet_cli::ExitStatus;

use crate::cloud::Cloud;
use crate::object::{balance, eur};
use crate::terminal::Terminal;

pub fn top_up(method: &str) -> Value {
    let (reference, url) = match method {
        "bank" => (json!("RF18539007547034"), Value::Null),
        _ => (Value::Null, json!("https://checkout.stripe.com/c/pay/cs_1")),
    };
    json!({"object": "top_up", "id": "top_1", "organization": "org_1", "method": method, "amount": eur("50"), "status": "pending",
        "cause": null, "reference": reference, "checkout_url": url, "reason": null, "credit_grant": null, "refunded": eur("0"), "fee": null,
        "expires_at": "2026-04-01T00:00:00Z", "created_at": 1_772_323_200, "ended_at": null})
}

pub fn saved_card() -> Value {
    json!({"object": "saved_card", "organization": "org_1",
        "card": {"id": "card_1", "brand": "visa", "last4": "4242", "expires_month": 7, "expires_year": 2031,
            "saved_at": "2026-03-02T00:00:00Z"},
        "page": {"url": "https://checkout.stripe.com/c/pay/cs_2", "expires_at": "2026-03-03T00:00:00Z"}})
}

pub fn top_up_rule() -> Value {
    json!({"object": "top_up_rule", "organization": "org_1", "status": "paused",
        "terms": {"below": {"threshold": eur("10"), "amount": eur("50")}, "on": {"day": "mon", "amount": eur("20")},
            "most_per_month": eur("200")},
        "reason": "3 charges in a row came to nothing", "declines": 3, "retry_at": null, "next_day_at": "2026-03-08T23:00:00Z",
        "set_by": "key_1", "set_at": "2026-03-01T00:00:00Z"})
}

pub fn payout() -> Value {
    json!({"object": "payout", "id": "pout_1", "transaction_id": "po_1", "amount": eur("20"), "status": "failed",
        "reason": "The bank account has been closed.", "made_at": "2026-03-02T00:00:00Z", "posted_at": "2026-03-03T00:00:00Z",
        "returned_at": "2026-03-08T00:00:00Z"})
}

pub fn processor_funds() -> Value {
    let euro = json!({"collected": eur("100"), "fees": eur("1.5"), "paid_out": eur("20"), "held": eur("78.5"),
        "reported": eur("78"), "difference": eur("-0.5")});
    let silent = json!({"collected": eur("100"), "fees": eur("1.5"), "paid_out": eur("20"), "held": eur("78.5"),
        "reported": null, "difference": null});
    json!({"object": "report.processor_funds", "currencies": [euro, silent]})
}

pub fn refund() -> Value {
    json!({"object": "refund", "id": "rfd_1", "organization": "org_1", "amount": eur("20"), "note": "we leave", "status": "paid",
        "method": "bank", "top_up": null, "transaction_id": "out-7", "requested_by": "key_1", "approved_by": "key_9",
        "reason": null, "created_at": 1_772_323_200, "approved_at": "2026-03-02T00:00:00Z", "ended_at": "2026-03-03T00:00:00Z"})
}

pub fn incoming() -> Value {
    json!({"object": "incoming_payment", "id": "inp_1", "source": "bank", "transaction_id": "in-7", "amount": eur("49.99"),
        "reference": "RF18 5390 0754 7034", "status": "quarantined", "problem": "partial", "top_up": "top_1",
        "organization": "org_1", "note": null, "answered_by": null, "credit_grant": null, "created_at": 1_772_323_200,
        "answered_at": null})
}

fn statement() -> Value {
    let row = |id: &str, status: &str, top_up: Value, problem: Value| json!({"transaction_id": id, "status": status, "top_up": top_up, "problem": problem});
    json!({"object": "bank_statement", "rows": [
        row("in-6", "matched", json!("top_1"), Value::Null), row("in-7", "quarantined", Value::Null, json!("partial")),
        row("in-5", "known", Value::Null, Value::Null), row("in-8", "outgoing", Value::Null, Value::Null)]})
}

#[test]
fn a_top_up_is_in_the_accounts_currency() {
    let cloud = Cloud::start();
    cloud.gives("GET /v1/organization/billing/credits", balance()).gives("POST /v1/organization/top_ups", top_up("stripe"));
    let printed = Terminal::at(cloud.url()).run(&["top-ups", "create", "50", "--method", "stripe"]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    assert!(printed.out.contains("https://checkout.stripe.com/c/pay/cs_1"), "{}", printed.out);
    let asked = cloud.asked();
    assert_eq!(asked[1].body, json!({"amount": eur("50"), "method": "stripe"}));
    assert!(asked[1].header("idempotency-key").is_some());
}

#[test]
fn a_rule_for_top_ups_is_in_the_accounts_currency() {
    for (words, body) in [
        (
            &["--below", "10", "--add", "50", "--most-per-month", "200 EUR"][..],
            json!({"below": {"threshold": eur("10"), "amount": eur("50")}, "most_per_month": eur("200")}),
        ),
        (
            &["--on", "15", "--add-on-day", "20", "--most-per-day", "30", "--most-per-month", "40"],
            json!({"on": {"day": "15", "amount": eur("20")}, "most_per_day": eur("30"), "most_per_month": eur("40")}),
        ),
    ] {
        let cloud = Cloud::start();
        cloud.gives("GET /v1/organization/billing/credits", balance()).gives("PUT /v1/organization/top_up_rule", top_up_rule());
        let words: Vec<&str> = ["top-ups", "rule", "set"].into_iter().chain(words.iter().copied()).collect();
        let printed = Terminal::at(cloud.url()).run(&words);
        assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
        assert_eq!(cloud.asked()[1].body, body);
    }
}

#[test]
fn refunds_say_what_they_do() {
    for (words, route, body) in [
        (&["approve", "rfd_1", "--to", "top_1"][..], "approve", json!({"top_up": "top_1"})),
        (&["approve", "rfd_1"], "approve", json!({})),
        (&["reject", "rfd_1", "--reason", "wrong account"], "reject", json!({"reason": "wrong account"})),
        (&["paid", "rfd_1", "--transaction", "out-7"], "pay", json!({"transaction_id": "out-7"})),
    ] {
        let cloud = Cloud::start();
        cloud.gives(&format!("POST /operator/v1/refunds/rfd_1/{route}"), refund());
        let words: Vec<&str> = ["refunds"].into_iter().chain(words.iter().copied()).collect();
        let printed = Terminal::at(cloud.url()).run(&words);
        assert_eq!(printed.status, ExitStatus::OK, "{words:?} {}", printed.err);
        assert_eq!(cloud.asked()[0].body, body, "{words:?}");
    }
}

#[test]
fn a_statement_is_sent_as_it_is() {
    let cloud = Cloud::start();
    cloud.gives("POST /operator/v1/bank_statements", statement());
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("statement.csv");
    let content = "transaction_id,amount,currency,reference\nin-6,50,EUR,RF18539007547034\n";
    std::fs::write(&file, content).expect("room");
    let path = file.to_string_lossy().into_owned();
    let printed = Terminal::at(cloud.url()).run(&["payments", "import", &path]);
    assert_eq!(printed.status, ExitStatus::OK, "{}", printed.err);
    assert_eq!(cloud.asked()[0].body, json!({"content": content}));
    insta::assert_snapshot!(printed.out);
    std::fs::write(&file, "x".repeat(201 * 1024)).expect("room");
    for path in [path.as_str(), "/no/such/file"] {
        let wrong = Terminal::at(cloud.url()).run(&["payments", "import", path]);
        assert_eq!(wrong.status, ExitStatus(2), "{}", wrong.err);
    }
}

#[test]
fn what_is_quarantined_is_answered() {
    let cloud = Cloud::start();
    cloud.gives("POST /operator/v1/incoming_payments/inp_1/answer", incoming());
    for words in [
        &["payments", "credit", "inp_1", "--organization", "org_1", "--note", "they called"][..],
        &["payments", "return", "inp_1", "--note", "sent back"],
    ] {
        assert_eq!(Terminal::at(cloud.url()).run(words).status, ExitStatus::OK);
    }
    let asked = cloud.asked();
    assert_eq!(asked[0].body, json!({"action": "credit", "organization": "org_1", "note": "they called"}));
    assert_eq!(asked[1].body, json!({"action": "return", "note": "sent back"}));
}

#[test]
fn a_gateway_is_declared_lost_and_written_off() {
    let cloud = Cloud::start();
    let loss = json!({"object": "gateway.loss", "gateway": "gw_1", "action": "lost", "slices": 2,
        "moved": [{"amount": "1.5", "currency": "EUR"}]});
    cloud.gives("POST /operator/v1/gateways/gw_1/answer", loss);
    for words in [
        &["ledger", "lost-gateway", "gw_1", "--note", "its machine burnt"][..],
        &["ledger", "write-off", "gw_1", "--note", "its disk is gone"],
    ] {
        let told = Terminal::at(cloud.url()).run(words);
        assert_eq!(told.status, ExitStatus::OK, "{}", told.err);
        assert!(told.out.contains("1.5"), "{}", told.out);
    }
    let asked = cloud.asked();
    assert_eq!(asked[0].body, json!({"action": "lost", "note": "its machine burnt"}));
    assert_eq!(asked[1].body, json!({"action": "write_off", "note": "its disk is gone"}));
}
