//! The console over the real use cases: every page of the table, for every plane.
#![cfg(test)]

mod world;

use http::StatusCode;
use sublet_api::Method;
use sublet_cloud::Actor;
use sublet_cloud::limit::LimitSubject;
use sublet_core::Nanos;
use sublet_core::key::KeyPlane;
use sublet_http::console::{Door, PAGES, Page};
use sublet_testkit::tenant::actor;

use world::{HOSTILE, ORIGIN, Sent, World, run};

/// Every page that asks for a session, with the planes it is for.
fn closed(method: Method) -> impl Iterator<Item = (&'static Page, &'static [KeyPlane])> {
    PAGES.iter().filter(move |page| page.method == method).filter_map(|page| match page.door {
        Door::Open(_) => None,
        Door::Planes(planes, _) => Some((page, planes)),
    })
}

/// Things that no page may contain, whoever looks at it.
fn assert_clean(world: &World, address: &str, text: &str) {
    for secret in world.secrets() {
        assert!(!text.contains(&secret), "{address} shows a secret");
    }
    for bad in ["<script>", "<img src=x", " style=\"", " onclick=", "javascript:", "http://elsewhere"] {
        assert!(!text.contains(bad), "{address} contains {bad}");
    }
}

#[test]
fn a_page_is_rendered_for_its_planes_and_refused_to_the_others() {
    run(|world| {
        Box::pin(async move {
            for plane in KeyPlane::ALL {
                let session = world.sign_in(plane).await;
                for (page, planes) in closed(Method::Get) {
                    let address = world.address(page.path);
                    let answer = world.get(&address, &session).await;
                    let expected = match planes.contains(&plane) {
                        false => StatusCode::FORBIDDEN,
                        true if page.path == "/console/why" => StatusCode::SEE_OTHER,
                        true => StatusCode::OK,
                    };
                    assert_eq!(answer.status, expected, "{plane} at {address}: {}", answer.text);
                    assert_clean(world, &address, &answer.text);
                    assert!(answer.header("content-security-policy").contains("default-src 'none'"), "{address}");
                    assert_eq!(answer.header("cache-control"), "no-store", "{address}");
                    if answer.header("content-type").starts_with("text/html") {
                        assert!(answer.text.starts_with("<!doctype html>"), "{address}");
                        assert_eq!(answer.text.matches("<h1").count(), 1, "{address}");
                        assert_eq!(answer.text.matches("<table").count(), answer.text.matches("<caption").count(), "{address}");
                    }
                }
            }
        })
    });
}

#[test]
fn every_link_of_a_page_leads_to_a_page() {
    run(|world| {
        Box::pin(async move {
            for plane in KeyPlane::ALL {
                let session = world.sign_in(plane).await;
                let mut open = vec!["/console".to_owned()];
                let mut seen: Vec<String> = Vec::new();
                while let Some(address) = open.pop() {
                    if seen.contains(&address) {
                        continue;
                    }
                    let answer = world.get(&address, &session).await;
                    assert_eq!(answer.status, StatusCode::OK, "{plane} at {address}: {}", answer.text);
                    open.extend(answer.links("href=\"").into_iter().filter(|link| link.starts_with("/console")));
                    seen.push(address);
                }
                assert!(seen.len() >= 8, "{plane} reached {seen:?}");
            }
        })
    });
}

#[test]
fn without_a_session_no_page_is_shown_and_no_form_is_taken() {
    run(|world| {
        Box::pin(async move {
            for session in [None, Some("0".repeat(64))] {
                for (page, _) in closed(Method::Get) {
                    let address = world.address(page.path);
                    let answer = world.send(Sent::get(&address).session(session.as_deref())).await;
                    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{address}");
                    assert!(answer.header("location").starts_with("/console/login"), "{address}");
                    assert!(answer.text.is_empty(), "{address}");
                }
                for (page, _) in closed(Method::Post) {
                    let address = world.address(page.path);
                    let answer = world.send(Sent::post(&address, "").session(session.as_deref()).origin(Some(ORIGIN))).await;
                    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{address}");
                }
            }
        })
    });
}

#[test]
fn a_form_sent_by_another_site_is_refused() {
    run(|world| {
        Box::pin(async move {
            for (page, planes) in closed(Method::Post) {
                let session = world.sign_in(planes[0]).await;
                let address = world.address(page.path);
                for origin in [Some("http://elsewhere.test"), Some("null"), Some("http://console.test.elsewhere.test"), None] {
                    let answer = world.send(Sent::post(&address, "").session(Some(&session)).origin(origin)).await;
                    assert_eq!(answer.status, StatusCode::FORBIDDEN, "{address} from {origin:?}");
                }
            }
            let key = world.secret(KeyPlane::Project);
            let answer =
                world.send(Sent::post("/console/login", &format!("key={key}")).origin(Some("http://elsewhere.test"))).await;
            assert_eq!((answer.status, answer.header("set-cookie")), (StatusCode::FORBIDDEN, ""));
        })
    });
}

#[test]
fn what_belongs_to_another_tenant_is_not_found() {
    run(|world| {
        Box::pin(async move {
            for plane in [KeyPlane::Project, KeyPlane::Admin] {
                let session = world.sign_in_stranger(plane).await;
                let own = world.get("/console", &session).await;
                assert!(
                    own.text.contains("&#60;script&#62;") || own.text.contains("&lt;script&gt;"),
                    "the stranger's own name: {}",
                    own.text
                );
                for id in world.ids_of_customer() {
                    let answer = world.get(&format!("/console/why/{id}"), &session).await;
                    assert!(matches!(answer.status, StatusCode::NOT_FOUND | StatusCode::FORBIDDEN), "{id}: {}", answer.status);
                }
                for address in [format!("/console/jobs/{}", world.job), format!("/console/jobs/{}/log", world.job)] {
                    assert_eq!(world.get(&address, &session).await.status, StatusCode::NOT_FOUND, "{address}");
                }
            }
            let session = world.sign_in_stranger(KeyPlane::Admin).await;
            let answer = world.post(&format!("/console/keys/{}/revoke", world.key), "", &session).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
            let session = world.sign_in_stranger(KeyPlane::Project).await;
            let answer = world.post(&format!("/console/jobs/{}/cancel", world.job), "", &session).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
        })
    });
}

#[test]
fn hostile_names_are_shown_as_text() {
    run(|world| {
        Box::pin(async move {
            for plane in [KeyPlane::Project, KeyPlane::Admin] {
                let session = world.sign_in_stranger(plane).await;
                for (page, planes) in closed(Method::Get) {
                    if planes.contains(&plane) && !page.path.contains('{') {
                        let answer = world.get(page.path, &session).await;
                        assert_clean(world, page.path, &answer.text);
                    }
                }
                let job = world.get(&format!("/console/jobs/{}", world.stranger_job), &session).await;
                assert_eq!(job.status, StatusCode::OK);
                assert_clean(world, "the stranger's job", &job.text);
                assert!(job.text.contains("alert(1)"), "{}", job.text);
            }
            let operator = world.sign_in(KeyPlane::Operator).await;
            for address in ["/console", "/console/organizations", "/console/jobs", "/console/audit", "/console/fleet"] {
                let answer = world.get(address, &operator).await;
                assert_clean(world, address, &answer.text);
            }
            for address in
                ["/console/%3Cscript%3Ealert(1)%3C/script%3E", "/console/why/%3Cimg%20src=x%3E", "/console?id=\"><script>"]
            {
                assert_clean(world, address, &world.get(&address.replace(['"', '<', '>'], "%22"), &operator).await.text);
            }
            let session = world.sign_in_stranger(KeyPlane::Project).await;
            let form = format!("model={0}&message={0}", world::encoded(HOSTILE));
            let answer = world.post("/console/playground", &form, &session).await;
            assert_eq!(answer.status, StatusCode::OK);
            assert_clean(world, "the playground", &answer.text);
        })
    });
}

#[test]
fn a_session_is_a_strict_cookie_and_ends_with_its_sign_out_or_its_key() {
    run(|world| {
        Box::pin(async move {
            let key = world.secret(KeyPlane::Project);
            let answer =
                world.send(Sent::post("/console/login", &format!("key={key}&next=%2Fconsole%2Fjobs")).origin(Some(ORIGIN))).await;
            assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/console/jobs"));
            let cookie = answer.header("set-cookie");
            for attribute in ["HttpOnly", "SameSite=Strict", "Path=/console", "Max-Age=43200"] {
                assert!(cookie.contains(attribute), "{cookie}");
            }
            assert!(!cookie.contains(&key) && !cookie.contains("Secure"), "{cookie}");
            let over_tls = Sent::post("/console/login", &format!("key={key}")).origin(Some("https://console.test"));
            assert!(world.send(over_tls).await.header("set-cookie").contains("; Secure"));

            let session = world.sign_in(KeyPlane::Project).await;
            assert_eq!(world.get("/console", &session).await.status, StatusCode::OK);
            assert_eq!(world.post("/console/logout", "", &session).await.status, StatusCode::SEE_OTHER);
            assert_eq!(world.get("/console", &session).await.status, StatusCode::SEE_OTHER);

            let session = world.sign_in(KeyPlane::Project).await;
            let admin = world.sign_in(KeyPlane::Admin).await;
            let answer = world.post(&format!("/console/keys/{}/revoke", world.key), "", &admin).await;
            assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
            assert_eq!(world.get("/console", &session).await.status, StatusCode::SEE_OTHER);
        })
    });
}

#[test]
fn a_wrong_key_is_refused_in_words_and_opens_nothing() {
    run(|world| {
        Box::pin(async move {
            for key in ["", "hello", &format!("sk-sub-{}", "0".repeat(64)), HOSTILE] {
                let answer =
                    world.send(Sent::post("/console/login", &format!("key={}", world::encoded(key))).origin(Some(ORIGIN))).await;
                assert_eq!((answer.status, answer.header("set-cookie")), (StatusCode::UNAUTHORIZED, ""), "{key}");
                assert!(answer.text.contains("role=\"alert\""), "{key}");
                assert_clean(world, "the login", &answer.text);
            }
        })
    });
}

#[test]
fn a_new_key_is_shown_once_and_works() {
    run(|world| {
        Box::pin(async move {
            let session = world.sign_in(KeyPlane::Admin).await;
            let answer = world.post("/console/keys", &format!("name=batch&project={}&models=", world.project), &session).await;
            assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
            let secret = answer.between("id=\"secret\">", "</code>");
            assert!(secret.starts_with("sk-sub-"), "{secret}");
            actor(&world.cloud.cloud, &secret.parse().expect("a key")).await;
            let later = world.get("/console/keys", &session).await;
            assert!(later.text.contains("batch") && !later.text.contains(&secret));
        })
    });
}

#[test]
fn the_playground_calls_the_data_plane_as_the_key_and_only_once_per_ticket() {
    run(|world| {
        Box::pin(async move {
            let session = world.sign_in(KeyPlane::Project).await;
            let page = world.post("/console/playground", "model=sublet-mini&message=Hello+there&max_tokens=7", &session).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text);
            assert!(page.text.contains("You said: Hello there"), "{}", page.text);
            let calls = world.chat.calls();
            assert_eq!(calls.len(), 1);
            assert_eq!(calls[0].key.as_ref(), Some(&world.key));
            assert_eq!(calls[0].body["max_completion_tokens"], 7);
            assert!(world.chat.authenticate(&calls[0].secret).await.is_err(), "a ticket works once");
            assert!(!page.text.contains(&calls[0].secret));

            // The next form carries the conversation.
            let history = page.between("name=\"history\" value=\"", "\"").replace("&#34;", "\"").replace("&quot;", "\"");
            let form = format!("model=sublet-mini&message=Again&history={}", world::encoded(&history));
            let page = world.post("/console/playground", &form, &session).await;
            assert!(page.text.contains("You said: Again"), "{}", page.text);
            assert_eq!(world.chat.calls()[1].body["messages"].as_array().map(Vec::len), Some(3));

            let events =
                Sent::post("/console/playground", "model=sublet-mini&message=Hello").session(Some(&session)).origin(Some(ORIGIN));
            let answer = world.send(events.accept("text/event-stream")).await;
            assert!(answer.text.ends_with("data: [DONE]\n\n"), "{}", answer.text);
            assert_eq!(world.chat.calls()[2].body["stream"], true);
        })
    });
}

#[test]
fn a_refused_generation_is_shown_with_what_would_work() {
    run(|world| {
        Box::pin(async move {
            let session = world.sign_in(KeyPlane::Project).await;
            let page = world.post("/console/playground", "model=none&message=My+words", &session).await;
            assert_eq!(page.status, StatusCode::OK);
            assert!(page.text.contains("there is no model") && page.text.contains("use sublet-mini"), "{}", page.text);
            assert!(page.text.contains(">My words</textarea>"), "the message is not lost: {}", page.text);
            let wrong = world.post("/console/playground", "model=sublet-mini&message=x&history=%7B", &session).await;
            assert_eq!(wrong.status, StatusCode::BAD_REQUEST);
        })
    });
}

#[test]
fn the_customers_home_shows_spend_against_every_limit_that_binds() {
    run(|world| {
        Box::pin(async move {
            let admin = actor(&world.cloud.cloud, &world.cloud.keys.admin).await;
            let organization = admin.organization().expect("an organization").clone();
            let window = sublet_cloud::data::BudgetWindow::Month;
            for (subject, units) in [
                (LimitSubject::Organization(organization), 100),
                (LimitSubject::Project(world.project.clone()), 10),
                (LimitSubject::Key(world.key.clone()), 1),
            ] {
                let amount = Nanos::new(units * 1_000_000_000);
                world.cloud.cloud.set_limit(&admin, &subject, window, amount).await.expect("a limit");
            }
            let session = world.sign_in(KeyPlane::Project).await;
            let page = world.get("/console", &session).await;
            // 1,000,000 input tokens at 0.15 and 1,000,000 output tokens at 0.60 for a million.
            assert!(page.text.contains("value=\"0.75\""), "{}", page.text);
            for words in ["Organization</strong> per month", "This project</strong> per month", "This key</strong> per month"] {
                assert!(page.text.contains(words), "{words}: {}", page.text);
            }
            assert!(page.text.contains("aria-label=\"0.75 of 1.00 EUR spent"), "{}", page.text);
            let request = format!("/console/why/{}", world.request);
            assert!(page.text.contains(&request) && world.get(&request, &session).await.text.contains("0.75 EUR"));
        })
    });
}

#[test]
fn the_operator_sees_the_fleet_what_it_earned_and_that_the_books_balance() {
    run(|world| {
        Box::pin(async move {
            let session = world.sign_in(KeyPlane::Operator).await;
            let home = world.get("/console", &session).await;
            for words in ["2<span class=\"of\"> of 4 devices", "1 sold to customers", "1 used by our own teams", "2 idle"] {
                assert!(home.text.contains(words), "{words}: {}", home.text);
            }
            assert!(home.text.contains("value=\"0.75\""), "what was earned: {}", home.text);
            let fleet = world.get("/console/fleet", &session).await;
            assert_eq!(fleet.text.matches("badge good\">healthy").count(), 4, "{}", fleet.text);
            let verified = world.post("/console/ledger", "", &session).await;
            assert!(verified.text.contains("The books balance"), "{}", verified.text);
        })
    });
}

#[test]
fn the_operator_sees_what_the_month_left_and_what_was_agreed() {
    run(|world| {
        Box::pin(async move {
            let session = world.sign_in(KeyPlane::Operator).await;
            let margin = world.get("/console/margin", &session).await;
            assert!(margin.text.contains("No costs of supply are declared"), "{}", margin.text);
            assert!(margin.between("class=\"tiles\"", "</section>").contains("Net revenue"), "{}", margin.text);
            let customers = margin.between("<h2>By customer</h2>", "</section>");
            assert!(customers.contains("value=\"0.75\"") && customers.contains("not known"), "{customers}");
            let sites = margin.between("<h2>By site</h2>", "</section>");
            assert!(sites.contains("value=\"0.75\"") && sites.contains("no site"), "{sites}");
            let page = world.get("/console/return", &session).await;
            let tiles = page.between("class=\"tiles\"", "</section>");
            for words in ["Earned", "value=\"-24.25\"", "Used with what was sold", "Paid back in"] {
                assert!(tiles.contains(words), "{words}: {tiles}");
            }
            assert!(page.between("<h2>What the devices did</h2>", "</section>").contains("<svg class=\"meter\""), "{}", page.text);
            assert!(page.text.contains("Nothing that was asked for was left unfilled."), "{}", page.text);
            assert!(page.between("<h2>Promises</h2>", "</section>").contains("<td>firm</td>"), "{}", page.text);
            let none = world.get("/console/contracts", &session).await.text;
            assert!(none.contains("There are no contracts."), "{none}");
            world.offer_contract("Ten & more").await;
            let offered = world.get("/console/contracts", &session).await.text;
            assert!(offered.contains("Ten &#38; more") || offered.contains("Ten &amp; more"), "{offered}");
            assert!(offered.contains("<td>offered</td><td>2027-03</td>"), "{offered}");
        })
    });
}

#[test]
fn offerings_and_indexes_are_read_with_what_led_to_them() {
    run(|world| {
        Box::pin(async move {
            let (operator, admin) = (world.sign_in(KeyPlane::Operator).await, world.sign_in(KeyPlane::Admin).await);
            let none = world.get("/console/offerings", &operator).await.text;
            assert!(none.contains("all are public") && none.contains("sublet offerings set"), "{none}");
            world.retire("device/cpu-2", "too <old>").await;
            let page = world.get("/console/offerings", &operator).await;
            assert!(page.text.contains("<td>retiring</td>") && !page.text.contains("too &"), "{}", page.text);
            let address = page.links("href=\"").into_iter().find(|link| link.contains("product=device")).expect("a link");
            assert_eq!(address, "/console/offerings?product=device%2Fcpu-2");
            let record = world.get(&address, &operator).await.text;
            assert!(record.contains("too &#60;old&#62;") || record.contains("too &lt;old&gt;"), "{record}");
            let unknown = world.get("/console/offerings?product=device/nothing", &operator).await;
            assert_eq!(unknown.status, StatusCode::NOT_FOUND, "{}", unknown.text);
            assert!(world.get("/console/indexes", &operator).await.text.contains("There are no price indexes."));
            world.publish_levels("gpu-spot", &["1", "1.4"]).await;
            let page = world.get("/console/indexes", &operator).await.text;
            assert!(page.contains("Now <strong>1</strong>") && page.contains("<td class=\"number\">1.4</td>"), "{page}");
            assert!(page.contains("(to come)") && page.contains("sublet prices index publish"), "{page}");
            let page = world.get("/console/indexes", &admin).await.text;
            assert!(page.contains("gpu-spot") && !page.contains("index publish"), "customers read it, and publish nothing");
        })
    });
}

#[test]
fn an_automatic_top_up_is_shown_to_its_customer_and_the_operator() {
    run(|world| {
        Box::pin(async move {
            let (operator, admin) = (world.sign_in(KeyPlane::Operator).await, world.sign_in(KeyPlane::Admin).await);
            let none = world.get("/console/top-up", &admin).await.text;
            assert!(none.contains("Nothing is charged by itself.") && none.contains("sublet top-ups rule set"), "{none}");
            world.top_up_by_itself().await;
            let organization = format!("/console/organizations/{}", world.organization);
            for (address, session) in [("/console/top-up", &admin), (organization.as_str(), &operator)] {
                let page = world.get(address, session).await;
                let card = page.between("<h2>Automatic top-up</h2>", "</section>");
                for said in
                    ["It is paused: the card was declined", "value=\"20\"", "value=\"50\"", "value=\"200\"", "2 charges in a row"]
                {
                    assert!(card.contains(said), "{said}: {card}");
                }
            }
            let other = world.sign_in_stranger(KeyPlane::Admin).await;
            assert!(world.get("/console/top-up", &other).await.text.contains("Nothing is charged by itself."));
        })
    });
}

#[test]
fn a_job_can_be_read_followed_and_cancelled() {
    run(|world| {
        Box::pin(async move {
            let session = world.sign_in(KeyPlane::Project).await;
            let address = format!("/console/jobs/{}", world.job);
            let page = world.get(&address, &session).await;
            assert!(page.text.contains("output of att_") && page.text.contains("data-follow"), "{}", page.text);
            let log = world.get(&format!("{address}/log?offset=7"), &session).await;
            assert!(log.text.starts_with("of att_") && log.header("x-complete") == "0", "{}", log.text);
            assert_eq!(world.post(&format!("{address}/cancel"), "", &session).await.status, StatusCode::SEE_OTHER);
            let report = world.compute.reconcile().await;
            assert_eq!(report.errors, Vec::new());
            let state = world.compute.get_job(&Actor::system(), &world.job).await.expect("the job").job.state;
            assert!(["stopping", "cancelled"].contains(&state.as_str()), "{state}");
        })
    });
}

#[test]
fn what_does_not_exist_has_a_page_that_says_so() {
    run(|world| {
        Box::pin(async move {
            let session = world.sign_in(KeyPlane::Project).await;
            for address in
                ["/console/nothing", "/console/jobs/job_0", "/console/jobs/%3Cb%3E", "/console/why/req_0", "/console/static/none"]
            {
                let answer = world.get(address, &session).await;
                assert_eq!(answer.status, StatusCode::NOT_FOUND, "{address}: {}", answer.text);
                assert!(answer.text.contains("<h1>Not found</h1>"), "{address}");
            }
            for name in ["console.css", "console.js", "icon.svg"] {
                let answer = world.send(Sent::get(&format!("/console/static/{name}"))).await;
                assert_eq!(answer.status, StatusCode::OK);
                assert!(answer.header("cache-control").contains("immutable"), "{name}");
            }
            assert_eq!(world.send(Sent::get("/")).await.header("location"), "/console");
        })
    });
}
