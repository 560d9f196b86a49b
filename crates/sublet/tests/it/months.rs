//! A test clock: a year of months in seconds, and who may not have one.

use serde_json::{Value, json};

use crate::server::{Database, Home, Server, chat, nanos, sublet, text, wait_for};

const OPTIONS: &[&str] = &["--test-clock"];

fn start() -> Server {
    let mut home = Home::new(Database::Sqlite);
    home.options = OPTIONS;
    home.start()
}

/// What the clock says, as long as the process answers.
fn clock_or_nothing(server: &Server) -> Value {
    let answer = server.get("/operator/v1/clock", &server.keys.operator);
    answer.map_or_else(|_| json!({ "now": "" }), |answer| answer.json())
}

fn clock(server: &Server) -> Value {
    server.see("/operator/v1/clock", &server.keys.operator)
}

fn set(server: &Server, now: &str) -> (u16, Value) {
    let answer = server.ask("PUT", "/operator/v1/clock").key(&server.keys.operator).json(&json!({ "now": now })).send().unwrap();
    (answer.status, answer.json())
}

/// Year and month of what the clock says, so many months later.
fn month_after(now: &str, months: u32) -> String {
    let year: u32 = now[..4].parse().unwrap();
    let month: u32 = now[5..7].parse::<u32>().unwrap() - 1 + months;
    format!("{}-{:02}", year + month / 12, month % 12 + 1)
}

fn invoices(server: &Server) -> Vec<Value> {
    let mut all = server.pages("/v1/organization/billing/invoices", &server.keys.admin);
    all.retain(|invoice| !invoice["number"].is_null());
    all.sort_by_key(|invoice| text(&invoice["number"]));
    all
}

fn charged_requests(server: &Server) -> u32 {
    let charges = server.charges();
    let requests: std::collections::BTreeSet<_> = charges.iter().map(|charge| text(&charge["request"])).collect();
    u32::try_from(requests.len()).unwrap()
}

#[test]
fn a_year_of_invoices_adds_up_whatever_ends_its_process() {
    let mut server = start();
    let begun = text(&clock(&server)["now"]);
    // Dear enough that every month is worth some cents, and a part of one.
    let mut list = server.see("/operator/v1/price_lists", &server.keys.operator)["data"][0].clone();
    for price in list["prices"].as_array_mut().unwrap() {
        if price["meter"] == json!("output_tokens") {
            price["amount"] = json!("5432.1");
        }
    }
    let list = json!({ "name": list["name"], "currency": list["currency"], "prices": list["prices"] });
    server.make("/operator/v1/price_lists", &server.keys.operator, &list);
    let mut months = Vec::new();
    for month in 0..12 {
        server.make("/v1/chat/completions", &server.keys.project, &chat(&server.keys.model, 3 + month, &json!({ "seed": 1 })));
        let next = format!("{}-01T01:00:00Z", month_after(&begun, month + 1));
        if month % 3 == 1 {
            // Killed while it closes the month, sooner and later; the next process goes on.
            wait_for("the charges of the month", || (charged_requests(&server) > month).then_some(()));
            let asked = server.ask("PUT", "/operator/v1/clock").key(&server.keys.operator).json(&json!({ "now": next }));
            let closing = std::thread::spawn(move || asked.send().is_ok());
            while !closing.is_finished() && !text(&clock_or_nothing(&server)["now"]).starts_with(&next[..10]) {}
            server.kill();
            let _whatever_it_heard = closing.join().unwrap();
            server.restart();
        }
        let (status, jumped) = set(&server, &next);
        let is_there = status == 400 && text(&jumped["error"]["message"]).contains("time goes forward only");
        assert!(is_there || jumped["is_test_clock"] == json!(true), "{jumped}");
        let closed = || invoices(&server).len() == usize::try_from(month).unwrap() + 1;
        wait_for("the month to be billed", || closed().then_some(()));
        months.push(month_after(&begun, month));
    }
    let issued = invoices(&server);
    assert_eq!(issued.iter().map(|invoice| text(&invoice["period_start"])[..7].to_owned()).collect::<Vec<_>>(), months);
    let mut places = std::collections::BTreeMap::new();
    for invoice in &issued {
        // A month is issued in the next one, so the series turns with the year.
        let number = text(&invoice["number"]);
        let place = places.entry(number[..8].to_owned()).or_insert(0);
        *place += 1;
        assert_eq!(number[9..].parse::<u32>().unwrap(), *place, "{number}");
        assert_eq!((&invoice["status"], nanos(&invoice["amount_due"])), (&json!("paid"), 0), "{invoice}");
    }
    let charged: i128 = server.charges().iter().map(|charge| nanos(&charge["amount"])).sum();
    assert!(charged > 500_000_000, "{charged}");
    assert_eq!(issued.iter().map(|invoice| nanos(&invoice["subtotal"])).sum::<i128>(), charged);
    let carried = issued.iter().map(|invoice| nanos(&invoice["total"])).sum::<i128>() - charged;
    assert!(carried.abs() <= 5_000_000, "{carried} were rounded in all");
    server.assert_books();
    assert_proven(&server, &issued);
}

/// Every invoice can be computed again without the cloud, whatever ended its process while it was sealed.
fn assert_proven(server: &Server, issued: &[Value]) {
    let run = |arguments: &[&str]| {
        let output = sublet().args(arguments).arg("--data-dir").arg(&server.home.data_dir).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let bundle = server.home.data_dir.with_extension("bundle");
    let bundle = bundle.to_str().unwrap();
    let (_, key, _) = run(&["log", "key"]);
    for (place, invoice) in issued.iter().enumerate() {
        let (status, _, said) = run(&["billing", "invoices", "bundle", &text(&invoice["id"]), "--output", bundle]);
        assert_eq!(status, Some(0), "{said}");
        let (status, found, said) = run(&["--json", "verify-invoice", bundle, "--log-key", key.trim_end()]);
        assert_eq!(status, Some(0), "{said}");
        let found: Value = serde_json::from_str(&found).unwrap();
        assert_eq!((&found["number"], &found["total"]), (&invoice["number"], &invoice["total"]));
        assert_eq!(found["sealed"]["log_index"], json!(place), "it is in the log once: {found}");
    }
    let whole = std::fs::read(bundle).unwrap();
    std::fs::write(bundle, &whole[..whole.len() - 1]).unwrap();
    let (status, _, said) = run(&["verify-invoice", bundle]);
    assert!(status == Some(1) && said.contains("cut off"), "{said}");
}

#[test]
fn time_jumps_only_forward_and_while_nothing_runs() {
    let server = start();
    let now = text(&clock(&server)["now"]);
    for (to, part) in [
        ("2020-01-01T00:00:00Z".to_owned(), "time goes forward only"),
        (now.clone(), "time goes forward only"),
        (format!("{}-01T00:00:00Z", month_after(&now, 14)), "366 days"),
    ] {
        let (status, refused) = set(&server, &to);
        assert_eq!((status, &refused["error"]["param"]), (400, &json!("now")), "{refused}");
        assert!(text(&refused["error"]["message"]).contains(part), "{refused}");
    }
    let lease = server.lease(&server.keys.project, "n0", &json!({}));
    let tomorrow = format!("{}-02T00:00:00Z", month_after(&now, 1));
    let (status, refused) = set(&server, &tomorrow);
    assert!(status == 409 && text(&refused["error"]["message"]).contains("would be charged for a time"), "{refused}");
    server.make(&format!("/v1/leases/{}/cancel", text(&lease["id"])), &server.keys.project, &json!({}));
    wait_for("the lease to end", || (set(&server, &tomorrow).0 == 200).then_some(()));
    let read = clock(&server);
    assert!(text(&read["now"]).starts_with(&tomorrow[..10]) && read["ahead_seconds"].as_u64().unwrap() > 0, "{read}");
    // Clocks are ahead by whole milliseconds, and never short of what was asked for.
    for hour in 1..=20 {
        let wanted = format!("{}-03T{hour:02}:00:00Z", &tomorrow[..7]);
        let (_, jumped) = set(&server, &wanted);
        assert!(text(&jumped["now"])[..19] >= wanted[..19], "{jumped}");
    }
}

#[test]
fn a_clock_is_a_test_clock_from_the_first_start_or_never() {
    let mut real = Home::new(Database::Sqlite).start();
    assert_eq!(clock(&real)["is_test_clock"], json!(false));
    let (status, refused) = set(&real, "2099-01-01T00:00:00Z");
    assert!(status == 409 && text(&refused["error"]["message"]).contains("time is real"), "{refused}");
    real.terminate();
    real.wait();
    real.home.options = OPTIONS;
    let mut test = start();
    test.terminate();
    test.wait();
    test.home.options = &[];
    let mut shared = Home::new(Database::Postgresql);
    shared.options = OPTIONS;
    for (home, part) in [(&real.home, "new data directory"), (&test.home, "--test-clock"), (&shared, "one process")] {
        let output = home.up("127.0.0.1:0").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{said}");
    }
}
