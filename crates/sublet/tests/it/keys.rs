//! Keys of an organization and of the operator, which make and revoke others of their kind.

use serde_json::{Value, json};

use crate::routes::Stranger;
use crate::server::{Database, Home, Server, text};

const ADMIN: &str = "/v1/organization/admin_api_keys";
const OPERATOR: &str = "/operator/v1/api_keys";

fn delete(server: &Server, path: &str, key: &str) -> (u16, String) {
    let answer = server.ask("DELETE", path).key(key).send().unwrap();
    (answer.status, if answer.status == 200 { String::new() } else { answer.code() })
}

/// Another key like this one: its id and secret.
fn another(server: &Server, path: &str, key: &str) -> (String, String) {
    let made = server.make(path, key, &json!({ "name": "second" }));
    (text(&made["id"]), text(&made["value"]))
}

#[test]
fn a_key_makes_another_of_its_kind_and_the_last_one_stays() {
    let server = Home::new(Database::Sqlite).start();
    for (path, first, owner) in [(ADMIN, &server.keys.admin, "organization"), (OPERATOR, &server.keys.operator, "operator")] {
        let only = text(&server.see(path, first)["data"][0]["id"]);
        assert_eq!(delete(&server, &format!("{path}/{only}"), first), (409, "conflict".to_owned()));
        let (id, second) = another(&server, path, first);
        let listed = server.see(path, &second)["data"].as_array().unwrap().clone();
        assert_eq!(listed.len(), 2, "{listed:?}");
        assert!(listed.iter().all(|key| key["owner"]["type"] == json!(owner) && key.get("value").is_none()), "{listed:?}");
        assert_eq!(server.see(&format!("{path}/{id}"), first)["name"], json!("second"));
        // One that ends is no replacement for one that does not, and makes none that lives longer.
        let passing = json!({ "name": "for a while", "expires_at": "2190-01-01T00:00:00Z" });
        let passing = text(&server.make(path, first, &passing)["value"]);
        for longer in [json!({ "name": "x" }), json!({ "name": "x", "expires_at": "2190-01-01T00:00:01Z" })] {
            let refused = server.post(path, &passing, &longer).unwrap();
            assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_request"), "{}", refused.text());
        }
        assert_eq!(delete(&server, &format!("{path}/{only}"), &second).0, 200);
        let refused = server.ask("GET", path).key(first).send().unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (401, "invalid_api_key"), "it stopped at once");
        assert_eq!(delete(&server, &format!("{path}/{id}"), &second), (409, "conflict".to_owned()));
    }
}

#[test]
fn a_key_is_found_by_its_own_kind_only() {
    let server = Home::new(Database::Sqlite).start();
    let stranger = Stranger::make(&server, None);
    let (admin, _) = another(&server, ADMIN, &server.keys.admin);
    let (operator, _) = another(&server, OPERATOR, &server.keys.operator);
    let project = server.new_key("one").id;
    let table = [
        (ADMIN, &admin, &stranger.admin),
        (ADMIN, &operator, &server.keys.admin),
        (ADMIN, &project, &server.keys.admin),
        (OPERATOR, &admin, &server.keys.operator),
        (OPERATOR, &project, &server.keys.operator),
    ];
    for (path, id, key) in table {
        let path = format!("{path}/{id}");
        let seen = server.ask("GET", &path).key(key).send().unwrap();
        assert_eq!((seen.status, seen.code().as_str()), (404, "not_found"), "{path}");
        assert_eq!(delete(&server, &path, key), (404, "not_found".to_owned()), "{path}");
    }
    for (path, key) in [(ADMIN, &server.keys.operator), (OPERATOR, &server.keys.admin), (OPERATOR, &server.keys.project)] {
        let refused = server.post(path, key, &json!({ "name": "x" })).unwrap();
        assert_eq!((refused.status, refused.code().as_str()), (403, "wrong_key_plane"), "{path}");
    }
    let unnamed = server.post(OPERATOR, &server.keys.operator, &json!({ "name": " " })).unwrap();
    assert_eq!(unnamed.status, 400, "{}", unnamed.text());
}

#[test]
fn a_refund_that_one_operator_asks_for_is_approved_by_another() {
    let server = Home::new(Database::Sqlite).start();
    let organization = server.see("/v1/organization/billing/credits", &server.keys.admin)["organization"].clone();
    let euro = json!({ "amount": "1", "currency": "EUR" });
    let grant = json!({ "amount": euro, "kind": "paid" });
    server.make(&format!("/operator/v1/organizations/{}/credits", text(&organization)), &server.keys.operator, &grant);
    let asked = json!({ "organization": organization, "amount": euro, "note": "paid twice" });
    let refund = text(&server.make("/operator/v1/refunds", &server.keys.operator, &asked)["id"]);
    let path = format!("/operator/v1/refunds/{refund}/approve");
    let approve = |key: &str| server.post(&path, key, &Value::Object(serde_json::Map::default())).unwrap();
    assert_eq!(approve(&server.keys.operator).code(), "conflict");
    let (_, second) = another(&server, OPERATOR, &server.keys.operator);
    assert_eq!(approve(&second).good()["status"], json!("approved"));
    server.assert_books();
}
