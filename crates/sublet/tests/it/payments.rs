//! Money that customers pay in, with a Stripe on loopback: over HTTP, and with SIGKILL before, while and after Stripe is asked.
//!
//! Each payment is asked for until it is answered, and is on one page and becomes credit once, whatever was killed.

use serde_json::{Value, json};
use sublet_api::time::Rfc3339;
use sublet_core::{DurationMs, Timestamp};
use sublet_testkit::stripe::{API_KEY, FakeStripe, WEBHOOK_SECRET};

use crate::server::{Database, Home, Server, full, text, wait_for};

const OPTIONS: &[&str] = &[
    "--test-clock",
    "--stripe-key=stripe",
    "--stripe-webhook-secret=stripe-webhook",
    "--stripe-return-url=https://cloud.example/console",
];

/// A cloud that asks this Stripe; its time can be put forward.
fn start(stripe: &FakeStripe) -> Server {
    let mut home = Home::new(Database::Sqlite);
    (home.options, home.stripe) = (OPTIONS, Some(stripe.url().to_owned()));
    let secrets = home.data_dir.join("secrets");
    std::fs::create_dir_all(&secrets).unwrap();
    std::fs::write(secrets.join("stripe"), API_KEY).unwrap();
    std::fs::write(secrets.join("stripe-webhook"), WEBHOOK_SECRET).unwrap();
    home.start()
}

fn now(server: &Server) -> Timestamp {
    let clock = server.see("/operator/v1/clock", &server.keys.operator);
    text(&clock["now"]).parse::<Rfc3339>().unwrap().0
}

fn forward(server: &Server, by: DurationMs) {
    let to = Rfc3339(now(server).plus(by));
    server.ask("PUT", "/operator/v1/clock").key(&server.keys.operator).json(&json!({ "now": to })).send().unwrap().good();
}

fn create(server: &Server, key: &str) -> std::io::Result<Value> {
    let body = json!({ "amount": { "amount": "10", "currency": "EUR" }, "method": "stripe" });
    let asked = server.ask("POST", "/v1/organization/top_ups").key(&server.keys.admin);
    asked.header("idempotency-key", key.to_owned()).json(&body).send().map(|answer| answer.good())
}

/// Sends what Stripe tells of a page; whether it was taken.
fn tell(server: &Server, stripe: &FakeStripe, page: &Value, at: Timestamp) -> bool {
    let (body, header) = stripe.event("evt_1", "checkout.session.completed", page, at);
    let asked = server.ask("POST", "/webhooks/stripe").header("stripe-signature", header).bytes(body.as_bytes());
    asked.send().is_ok_and(|answer| answer.status == 200)
}

fn deposited(server: &Server) -> String {
    text(&server.see("/v1/organization/billing/credits", &server.keys.admin)["deposited"]["amount"])
}

#[test]
fn a_payment_comes_over_http() {
    let stripe = FakeStripe::start();
    let server = start(&stripe);
    let top_up = create(&server, "one").unwrap();
    assert!(text(&top_up["checkout_url"]).starts_with("https://checkout.stripe.com/"), "{top_up}");
    let page = stripe.sessions()[0].clone();
    stripe.pay(&text(&page["id"]), 50);
    let forged = server.ask("POST", "/webhooks/stripe").header("stripe-signature", "t=1,v1=00".to_owned()).bytes(b"{}");
    let forged = forged.send().unwrap();
    assert_eq!((forged.status, forged.code().as_str()), (400, "invalid_request"), "{}", forged.text());
    let long = vec![b'x'; 300 * 1024];
    assert_eq!(server.ask("POST", "/webhooks/stripe").bytes(&long).send().unwrap().status, 413);
    assert!(tell(&server, &stripe, &page, now(&server)) && tell(&server, &stripe, &page, now(&server)));
    let path = format!("/v1/organization/top_ups/{}", text(&top_up["id"]));
    let paid = wait_for("the payment to be credited", || {
        Some(server.see(&path, &server.keys.admin)).filter(|top_up| top_up["status"] == json!("succeeded"))
    });
    assert_eq!(paid["fee"], Value::Null, "it is the owner's cost");
    let seen = server.see("/operator/v1/top_ups", &server.keys.operator)["data"][0].clone();
    assert_eq!(seen["fee"], json!({ "amount": "0.5", "currency": "EUR" }));
    assert_eq!(deposited(&server), "35");
    assert!(!server.log().contains(API_KEY) && !server.log().contains(WEBHOOK_SECRET));
    server.assert_books();
    assert_eq!(stripe.wrong(), Vec::<String>::new());
}

#[test]
fn a_secret_that_is_missing_is_said_at_the_start() {
    let mut home = Home::new(Database::Sqlite);
    home.options = OPTIONS;
    let ended = home.up("127.0.0.1:0").output().unwrap();
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(!ended.status.success() && said.contains("the secret 'stripe' of Stripe"), "{said}");
}

#[test]
fn a_payment_is_neither_lost_nor_doubled_when_the_process_is_killed() {
    let stripe = FakeStripe::start();
    let mut server = start(&stripe);
    let rounds = if full() { 18 } else { 6 };
    for round in 0..rounds {
        let key = format!("round-{round}");
        kill_during(&mut server, (&stripe, round), |server| create(server, &key).map(|_| ()).ok());
        create(&server, &key).unwrap();
    }
    // What was claimed by a process that is gone is done when its time is up.
    forward(&server, DurationMs::from_seconds(90));
    let all = || server.see("/v1/organization/top_ups?limit=100", &server.keys.admin)["data"].as_array().unwrap().clone();
    wait_for("every top-up to have its page", || all().iter().all(|top_up| top_up["checkout_url"].is_string()).then_some(()));
    assert_eq!((all().len(), stripe.sessions().len()), (rounds, rounds), "a page for each, and one");
    let pages = stripe.sessions();
    pages.iter().for_each(|page| stripe.pay(&text(&page["id"]), 10));
    for (turn, page) in pages.iter().enumerate() {
        let at = now(&server);
        kill_during(&mut server, (&stripe, turn), |server| tell(server, &stripe, page, at).then_some(()));
    }
    forward(&server, DurationMs::from_hours(2));
    let is_paid = |top_up: &Value| top_up["status"] == json!("succeeded");
    let all = || server.see("/v1/organization/top_ups?limit=100", &server.keys.admin)["data"].as_array().unwrap().clone();
    wait_for("every payment to be credited", || all().iter().all(is_paid).then_some(()));
    assert_eq!(deposited(&server), (25 + 10 * rounds).to_string());
    server.assert_books();
    assert_eq!(stripe.wrong(), Vec::<String>::new());
}

#[test]
fn a_card_is_charged_once_when_the_process_is_killed() {
    let stripe = FakeStripe::start();
    let mut server = start(&stripe);
    let path = "/v1/organization/saved_card";
    assert!(text(&server.make(path, &server.keys.admin, &Value::Null)["page"]["url"]).starts_with("https://checkout.stripe.com/"));
    let page = stripe.sessions()[0].clone();
    stripe.save_card(&text(&page["id"]), "4242");
    assert!(tell(&server, &stripe, &page, now(&server)));
    let face =
        wait_for("the card to be saved", || Some(server.see(path, &server.keys.admin)["card"].clone()).filter(Value::is_object));
    assert_eq!((&face["brand"], &face["last4"]), (&json!("visa"), &json!("4242")));
    let rounds = if full() { 18 } else { 6 };
    for round in 0..rounds {
        let (key, body) = (format!("round-{round}"), json!({ "amount": { "amount": "10", "currency": "EUR" }, "method": "card" }));
        let charge = |server: &Server| {
            let asked = server.ask("POST", "/v1/organization/top_ups").key(&server.keys.admin);
            asked.header("idempotency-key", key.clone()).json(&body).send().map(|answer| answer.good())
        };
        kill_during(&mut server, (&stripe, round), |server| charge(server).map(|_| ()).ok());
        let path = format!("/v1/organization/top_ups/{}", text(&charge(&server).unwrap()["id"]));
        // What was claimed by a process that is gone is done when its time is up.
        forward(&server, DurationMs::from_seconds(90));
        wait_for("the charge to be credit", || {
            (server.see(&path, &server.keys.admin)["status"] == json!("succeeded")).then_some(())
        });
    }
    let units = i64::try_from(rounds).unwrap();
    assert_eq!((stripe.charged(), deposited(&server)), (1_000 * units, (25 + 10 * units).to_string()));
    // The same in what Stripe holds by the books.
    let held = server.see("/operator/v1/reports/processor_funds", &server.keys.operator)["currencies"][0].clone();
    assert_eq!(held["collected"]["amount"], json!((10 * units).to_string()), "{held}");
    server.assert_books();
    assert_eq!(stripe.wrong(), Vec::<String>::new());
}

/// Kills the process at once, when it has asked Stripe, or when it has answered: by turns. Starts another one.
fn kill_during(server: &mut Server, (stripe, turn): (&FakeStripe, usize), work: impl Fn(&Server) -> Option<()> + Sync) {
    let asked_before = stripe.seen().len();
    std::thread::scope(|scope| {
        let (working, work) = (&*server, &work);
        let worker = scope.spawn(move || work(working));
        let is_time = || match turn % 3 {
            0 => true,
            1 => stripe.seen().len() > asked_before,
            _ => false,
        };
        while !is_time() && !worker.is_finished() {
            std::thread::yield_now();
        }
        let told = std::process::Command::new("kill").args(["-KILL", &working.process_id().to_string()]).status().unwrap();
        assert!(told.success());
        worker.join().unwrap();
    });
    server.kill();
    server.restart();
}
