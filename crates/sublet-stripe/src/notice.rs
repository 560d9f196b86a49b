//! Webhooks: proven to come from Stripe before anything of them is read.
//!
//! The header `Stripe-Signature` has `t`, the second of the signing, and one `v1` or, while a secret is exchanged, two:
//! HMAC-SHA256 over `t`, a point and the body as it came. Other schemes are passed over. Old ones are refused, so that
//! a copy of one is worth nothing after a while.

use ring::hmac;
use serde::Deserialize;
use serde_json::Value;
use sublet_core::payment::{Notice, NoticeSubject};
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Timestamp};

use crate::amount::from_stripe;

/// How far the second of the signing may be from ours, in seconds.
const TOLERANCE: i64 = 300;
/// Longest header, and most signatures in it.
const HEADER_BYTES_MAX: usize = 2_048;
const SIGNATURES_MAX: usize = 8;
/// Longest name of an object that is kept, in characters.
const NAME_MAX_CHARS: usize = 128;

/// An error unless the body was signed with the secret, and lately.
pub fn verify(body: &[u8], header: &str, (secret, now): (&str, Timestamp)) -> Result<()> {
    let wrong = |what: &str| Error::new(ErrorCode::InvalidRequest, what.to_owned()).param("stripe-signature");
    if header.len() > HEADER_BYTES_MAX {
        return Err(wrong("the signature is too long"));
    }
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let mut times = parts().filter(|(name, _)| *name == "t").map(|(_, value)| value);
    let (Some(time), None) = (times.next(), times.next()) else { return Err(wrong("the signature names no instant")) };
    let signed_at: i64 = time.parse().map_err(|_| wrong("the signature names no instant"))?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signed = [time.as_bytes(), b".", body].concat();
    let mut signatures = parts().filter(|(name, _)| *name == "v1").take(SIGNATURES_MAX).filter_map(|(_, value)| bytes_of(value));
    if !signatures.any(|signature| hmac::verify(&key, &signed, &signature).is_ok()) {
        return Err(wrong("the signature is not that of this body"));
    }
    let now = now.millis().div_euclid(1_000);
    if now.saturating_sub(signed_at).saturating_abs() > TOLERANCE {
        return Err(wrong("the signature is too old, or of a time that has not come"));
    }
    Ok(())
}

fn bytes_of(hex: &str) -> Option<Vec<u8>> {
    if hex.len() != 64 || !hex.is_ascii() {
        return None;
    }
    (0..32).map(|at| u8::from_str_radix(hex.get(2 * at..2 * at + 2)?, 16).ok()).collect()
}

#[derive(Deserialize)]
struct Event {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    data: EventData,
}

#[derive(Deserialize)]
struct EventData {
    object: Value,
}

/// Reads an event that was verified.
pub fn read(body: &[u8]) -> Result<Notice> {
    let event: Event = serde_json::from_slice(body)
        .map_err(|error| Error::new(ErrorCode::InvalidJson, format!("this is no event of Stripe: {error}")))?;
    let object = &event.data.object;
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let metadata = |name: &str| object.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
    let top_up = metadata("top_up").and_then(|id| id.parse().ok());
    let card = metadata("card").and_then(|id| id.parse().ok());
    let subject = match (text("object"), card) {
        (Some("checkout.session" | "setup_intent"), Some(card)) => NoticeSubject::Card(card),
        (Some("checkout.session" | "payment_intent" | "charge"), _) if top_up.is_some() => NoticeSubject::Payment(top_up),
        // Of the events that one payment makes, one says that money came.
        (Some("payment_intent"), _) if event.kind == "payment_intent.succeeded" => NoticeSubject::Payment(None),
        (Some("refund"), _) => NoticeSubject::Refund(metadata("refund").and_then(|id| id.parse().ok())),
        (Some("dispute"), _) if event.kind == "charge.dispute.created" => NoticeSubject::Dispute,
        _ => NoticeSubject::Other,
    };
    let name = |text: &str| -> String { text.chars().filter(|letter| !letter.is_control()).take(NAME_MAX_CHARS).collect() };
    Ok(Notice {
        id: name(&event.id),
        kind: name(&event.kind),
        object: name(text("id").unwrap_or_default()),
        subject,
        amount: amount(object),
    })
}

fn amount(object: &Value) -> Option<(Nanos, Currency)> {
    from_stripe(object.get("amount")?.as_i64()?, object.get("currency")?.as_str()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &[u8] = br#"{"id":"evt_1","object":"event"}"#;
    const SECRET: &str = "whsec_test_secret";
    /// Made with Python's own hmac module over the body above, at 1,700,000,000.
    const HEADER: &str = "t=1700000000,v1=0c8670ed117751cc551a20e35839447075c42800ea3cf3e8a2fbda99cd1e6edd";

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(second * 1_000)
    }
    fn check(body: &[u8], header: &str, second: i64) -> bool {
        verify(body, header, (SECRET, at(second))).is_ok()
    }

    #[test]
    fn a_signature_is_that_of_the_body_the_instant_and_the_secret() {
        assert!(check(BODY, HEADER, 1_700_000_000));
        let (_, signature) = HEADER.split_once("v1=").unwrap();
        assert!(check(BODY, &format!("t=1700000000,v0=00,v1={},v1={signature}", "0".repeat(64)), 1_700_000_000));
        assert!(!check(br#"{"id":"evt_2","object":"event"}"#, HEADER, 1_700_000_000));
        assert!(!check(BODY, &HEADER.replace("t=17", "t=18"), 1_800_000_000));
        assert!(verify(BODY, HEADER, ("whsec_other", at(1_700_000_000))).is_err());
        for header in
            ["", "t=1", "v1=00", &format!("v0={signature},t=1700000000"), &format!("t=x,v1={signature}"), &"x".repeat(9_999)]
        {
            assert!(!check(BODY, header, 1_700_000_000), "{header}");
        }
        assert!(!check(BODY, &format!("{HEADER},t=1700000001"), 1_700_000_000), "two instants are none");
    }

    #[test]
    fn an_old_signature_is_worth_nothing() {
        for (second, expected) in [(1_700_000_300, true), (1_700_000_301, false), (1_699_999_700, true), (1_699_999_699, false)] {
            assert_eq!(check(BODY, HEADER, second), expected, "{second}");
        }
    }

    #[test]
    fn an_event_names_what_it_is_about() {
        let of = |kind: &str, object: Value| {
            let event = serde_json::json!({"id": "evt", "type": kind, "data": {"object": object}});
            read(event.to_string().as_bytes()).unwrap().subject
        };
        let card = || NoticeSubject::Card("card_1".parse().unwrap());
        for (kind, object, expected) in [
            ("checkout.session.completed", r#"{"object":"checkout.session","metadata":{"card":"card_1"}}"#, card()),
            ("setup_intent.succeeded", r#"{"object":"setup_intent","metadata":{"card":"card_1"}}"#, card()),
            ("setup_intent.succeeded", r#"{"object":"setup_intent","metadata":{}}"#, NoticeSubject::Other),
            (
                "payment_intent.payment_failed",
                r#"{"object":"payment_intent","metadata":{"top_up":"top_1"}}"#,
                NoticeSubject::Payment(Some("top_1".parse().unwrap())),
            ),
            ("payment_intent.payment_failed", r#"{"object":"payment_intent"}"#, NoticeSubject::Other),
            ("payment_intent.succeeded", r#"{"object":"payment_intent"}"#, NoticeSubject::Payment(None)),
        ] {
            assert_eq!(of(kind, serde_json::from_str(object).unwrap()), expected, "{kind} {object}");
        }
    }

    #[test]
    fn what_is_no_event_is_refused() {
        for body in [&b""[..], b"[]", b"{}", br#"{"id":1}"#, br#"{"id":"evt","type":"x","data":{}}"#] {
            assert_eq!(read(body).unwrap_err().code(), ErrorCode::InvalidJson);
        }
        let other = read(br#"{"id":"evt","type":"x","data":{"object":[]}}"#).unwrap();
        assert_eq!(other.subject, NoticeSubject::Other);
    }
}
