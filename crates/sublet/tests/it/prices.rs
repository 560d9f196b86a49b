//! Prices that depend on how much is used and when, from publishing to the invoice.

use serde_json::{Value, json};

use crate::on_both;
use crate::server::{Database, Home, Server, chat, nanos, text};

on_both! {
    what_is_published_is_read_back_and_charged: every_model;
    a_price_that_contradicts_itself_is_refused_with_the_reason: contradictions;
    a_price_follows_an_index_that_everybody_can_read: market;
}

/// Name, currency and prices of the list in force.
fn in_force(server: &Server) -> Value {
    let list = server.see("/operator/v1/price_lists", &server.keys.operator)["data"][0].clone();
    json!({ "name": list["name"], "currency": list["currency"], "prices": list["prices"] })
}

fn is_output(price: &Value) -> bool {
    price["meter"] == json!("output_tokens") && price["service_tier"].is_null()
}

fn of_device(price: &Value, notice: &str) -> bool {
    price["notice"] == json!(notice)
}

/// The price says so instead of its amount.
fn say(price: &mut Value, terms: &Value) {
    let price = price.as_object_mut().unwrap();
    price.remove("amount");
    price.extend(terms.as_object().unwrap().clone());
}

fn every_model(database: Database) {
    let server = Home::new(database).start();
    let before = in_force(&server);
    let mut list = before.clone();
    let tiers = json!([{ "up_to": 3, "amount": "1000" }, { "amount": "500" }]);
    let every_day = json!(["mon", "tue", "wed", "thu", "fri", "sat", "sun"]);
    let bands = json!({ "time_zone": "Asia/Kathmandu", "bands": [
        { "name": "always", "windows": [{ "days": every_day, "from": "00:00", "until": "24:00" }],
          "model": { "type": "graduated", "tiers": tiers } }] });
    let later = json!({ "time_zone": "UTC", "bands": [
        { "name": "peak", "windows": [{ "days": ["mon", "fri"], "from": "22:30", "until": "02:00" }], "amount": "7", "minimum": "1" }] });
    for price in list["prices"].as_array_mut().unwrap() {
        if is_output(price) {
            say(price, &json!({ "amount": "1", "time_of_use": bands }));
        } else if of_device(price, "n0") {
            say(price, &json!({ "model": { "type": "package", "size": 900_000, "amount": "0.02" }, "minimum": "0.05" }));
        } else if of_device(price, "n2m") {
            say(price, &json!({ "model": { "type": "volume", "tiers": [{ "up_to": 10, "amount": "2" }, { "amount": "1" }] } }));
        } else if of_device(price, "n15m") {
            say(price, &json!({ "amount": "3", "time_of_use": later }));
        }
    }
    let published = server.make("/operator/v1/price_lists", &server.keys.operator, &list);
    let read = server.see(&format!("/operator/v1/price_lists/{}", text(&published["version"])), &server.keys.operator);
    assert_eq!(read["prices"], list["prices"], "what is read back is what was published");

    let quote = server.make("/v1/quotes", &server.keys.project, &json!({ "sku": "cpu", "notice": "n0" }));
    assert_eq!(nanos(&quote["hold"]), 50_000_000, "a package costs less than the minimum: {quote}");
    for max_tokens in [2, 4] {
        server.make("/v1/chat/completions", &server.keys.project, &chat(&server.keys.model, max_tokens, &json!({ "seed": 1 })));
    }
    server.wait_until_settled();
    let charges: Vec<Value> = server.charges().into_iter().filter(|charge| charge["meter"] == json!("output_tokens")).collect();
    let quantity: u64 = charges.iter().map(|charge| charge["quantity"].as_u64().unwrap()).sum();
    assert_eq!(quantity, 6, "{charges:?}");
    assert!(charges.iter().all(|charge| charge["band"] == json!("always")), "{charges:?}");
    // Three tokens at 1,000 for a million, three at 500.
    assert_eq!(charges.iter().map(|charge| nanos(&charge["amount"])).sum::<i128>(), 4_500_000);
    let invoice = server.make("/v1/organization/billing/invoices", &server.keys.admin, &json!({}));
    let lines = invoice["lines"].as_array().unwrap();
    let line = lines.iter().find(|line| is_output(line)).unwrap();
    assert_eq!((&line["band"], &line["price"]), (&json!("always"), &json!("graduated, 500 to 1000 EUR per 1M tokens")));
    assert_eq!((&line["unit_amount"], nanos(&line["amount"])), (&Value::Null, 4_500_000), "no one price makes the amount");
    let mut asked = json!({ "currency": list["currency"], "prices": before["prices"], "period": "2026-3" });
    let wrong = server.post("/operator/v1/price_simulations", &server.keys.operator, &asked).unwrap();
    assert_eq!((wrong.status, wrong.json()["error"]["param"].clone()), (400, json!("period")), "{}", wrong.text());
    asked["period"] = json!(text(&invoice["period_start"]).get(..7));
    if text(&invoice["period_start"]).get(8..10) != Some("01") {
        // The account's month began while it was still the month before in Greenwich.
        asked["period"] = json!(text(&invoice["period_end"]).get(..7));
    }
    let simulated = server.make("/operator/v1/price_simulations", &server.keys.operator, &asked);
    let output = simulated["prices"].as_array().unwrap().iter().find(|price| is_output(price)).unwrap();
    // Six tokens at what they cost before: 0.60 for a million.
    assert_eq!((nanos(&output["charged"]), nanos(&output["would_be"])), (4_500_000, 3_600), "{simulated}");
    assert_eq!((&simulated["customers"], nanos(&simulated["not_sold"])), (&json!(1), 0), "{simulated}");
    server.assert_books();
}

fn market(database: Database) {
    let server = Home::new(database).start();
    let keys = &server.keys;
    let indexes = "/operator/v1/price_indexes";
    let index = |changes: Value| {
        let mut body = json!({ "name": "gpu-spot", "level": "1.50", "lead_seconds": 300 });
        body.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        body
    };
    for (changes, param) in [
        (json!({ "name": "GPU spot" }), "name"),
        (json!({ "level": "0" }), "level"),
        (json!({ "level": "1.2345" }), "level"),
        (json!({ "lead_seconds": 59 }), "lead_seconds"),
        (json!({ "lead_seconds": u64::MAX }), "lead_seconds"),
        (json!({ "note": "x".repeat(501) }), "note"),
    ] {
        let answer = server.post(indexes, &keys.operator, &index(changes)).unwrap();
        assert_eq!((answer.status, answer.json()["error"]["param"].clone()), (400, json!(param)), "{}", answer.text());
    }
    let made = server.make(indexes, &keys.operator, &index(json!({})));
    assert_eq!((&made["level"], &made["last"]["number"]), (&json!("1.5"), &json!(1)), "{made}");
    let mut list = in_force(&server);
    let price = list["prices"].as_array_mut().unwrap().iter_mut().find(|price| of_device(price, "n2m")).unwrap();
    say(price, &json!({ "amount": "2", "market": { "index": "gpu-spot", "floor": "0.5", "ceiling": "2" } }));
    for (market, reason) in [
        (json!({ "index": "other", "floor": "0.5", "ceiling": "2" }), "no price index 'other'"),
        (json!({ "index": "gpu-spot", "floor": "2.5", "ceiling": "2" }), "above its ceiling"),
        (json!({ "index": "gpu-spot", "floor": "-1", "ceiling": "2" }), "not a level"),
    ] {
        let mut wrong = list.clone();
        let price = wrong["prices"].as_array_mut().unwrap().iter_mut().find(|price| of_device(price, "n2m")).unwrap();
        price["market"] = market;
        assert_refused(&server, &wrong, reason);
    }
    let published = server.make("/operator/v1/price_lists", &keys.operator, &list);
    let read = server.see(&format!("/operator/v1/price_lists/{}", text(&published["version"])), &keys.operator);
    assert_eq!(read["prices"], list["prices"], "what is read back is what was published");

    let asked = |more: Value| {
        let mut body = json!({ "sku": "cpu", "notice": "n2m" });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let eur = |amount: &str| json!({ "maximum_price": { "amount": amount, "currency": "EUR" } });
    let quote = server.make("/v1/quotes", &keys.project, &asked(eur("3")));
    assert_eq!((nanos(&quote["price"]), nanos(&quote["maximum_price"])), (3_000_000_000, 3_000_000_000), "{quote}");
    server.make("/v1/quotes", &keys.project, &asked(json!({ "site": quote["site"] })));
    for (more, param) in [
        (eur("2.999999999"), "maximum_price"),
        (eur("0"), "maximum_price"),
        (json!({ "maximum_price": { "amount": "3", "currency": "USD" } }), "maximum_price"),
        (json!({ "site": "site_nowhere" }), "site"),
    ] {
        let answer = server.post("/v1/quotes", &keys.project, &asked(more)).unwrap();
        assert_eq!(answer.json()["error"]["param"], json!(param), "{}", answer.text());
    }
    let points = format!("{indexes}/gpu-spot/points");
    let soon = server.make(&points, &keys.operator, &json!({ "level": "0.85" }));
    assert_eq!((&soon["number"], &soon["level"]), (&json!(2), &json!("0.85")), "{soon}");
    let wrong = server.post(&points, &keys.operator, &json!({ "level": "3", "from": "2026-01-01T00:00:00Z" })).unwrap();
    assert_eq!((wrong.status, wrong.json()["error"]["param"].clone()), (400, json!("from")), "{}", wrong.text());
    // Nobody needs a key to read them.
    let listed = server.see("/v1/price_indexes/gpu-spot/points?order=asc", "");
    assert_eq!(listed["data"], json!([made["last"], soon]));
    assert_eq!(server.see("/v1/price_indexes", "")["data"][0]["last"], soon);
    assert_eq!(server.see("/v1/price_indexes/gpu-spot", "")["level"], json!("1.5"));
}

fn contradictions(database: Database) {
    let server = Home::new(database).start();
    let before = server.see("/operator/v1/price_lists", &server.keys.operator);
    let window = json!([{ "from": "22:00", "until": "06:00" }]);
    let night = |band: Value| json!({ "amount": "1", "time_of_use": { "time_zone": "UTC", "bands": [band] } });
    let table = [
        (json!({}), "either an amount or a model"),
        (json!({ "amount": "1", "model": { "type": "package", "size": 1, "amount": "1" } }), "either an amount or a model"),
        (json!({ "amount": "-1" }), "cannot be negative"),
        (json!({ "amount": "1", "minimum": "-1" }), "cannot be negative"),
        (json!({ "model": { "type": "graduated", "tiers": [] } }), "at least one tier"),
        (json!({ "model": { "type": "graduated", "tiers": [{ "up_to": 5, "amount": "1" }] } }), "no upper bound"),
        (json!({ "model": { "type": "volume", "tiers": [{ "up_to": 5, "amount": "1" }, { "amount": "2" }] } }), "rises"),
        (json!({ "model": { "type": "package", "size": 0, "amount": "1" } }), "at least one unit"),
        (json!({ "model": { "type": "package", "size": u64::MAX, "amount": "1" } }), "at most 9007199254740992"),
        (json!({ "model": { "type": "auction" } }), "graduated"),
        (night(json!({ "name": "night", "windows": window })), "either an amount or a model"),
        (night(json!({ "name": "Night", "windows": window, "amount": "1" })), "name of a band"),
        (night(json!({ "name": "night", "windows": [], "amount": "1" })), "1 to 32 windows"),
        (night(json!({ "name": "night", "windows": [{ "from": "10pm", "until": "06:00" }], "amount": "1" })), "time of day"),
        (
            night(
                json!({ "name": "night", "windows": [{ "days": ["holiday"], "from": "22:00", "until": "06:00" }], "amount": "1" }),
            ),
            "day of the week",
        ),
        (
            night(json!({ "name": "night", "amount": "1",
                "windows": [{ "from": "22:00", "until": "06:00" }, { "days": ["tue"], "from": "05:00", "until": "07:00" }] })),
            "two windows hold tue 05:00",
        ),
        (json!({ "amount": "1", "time_of_use": { "time_zone": "Mars/Olympus", "bands": [] } }), "IANA time zone"),
    ];
    for (terms, reason) in table {
        let mut list = in_force(&server);
        let prices = list["prices"].as_array_mut().unwrap();
        say(prices.iter_mut().find(|price| of_device(price, "n0")).unwrap(), &terms);
        assert_refused(&server, &list, reason);
    }
    // Tokens are held in proportion.
    for terms in [json!({ "amount": "1", "minimum": "1" }), json!({ "model": { "type": "package", "size": 9, "amount": "1" } })] {
        let mut list = in_force(&server);
        say(list["prices"].as_array_mut().unwrap().iter_mut().find(|price| is_output(price)).unwrap(), &terms);
        assert_refused(&server, &list, "no price in packages and no minimum");
    }
    assert_eq!(server.see("/operator/v1/price_lists", &server.keys.operator), before, "nothing was published");
}

fn assert_refused(server: &Server, list: &Value, reason: &str) {
    let answer = server.post("/operator/v1/price_lists", &server.keys.operator, list).unwrap();
    let message = answer.json()["error"]["message"].as_str().unwrap_or_default().to_owned();
    assert_eq!(answer.status, 400, "{reason}: {}", answer.text());
    assert!(message.contains(reason), "{reason}: {}", answer.text());
}
