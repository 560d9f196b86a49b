//! The body that a replica is sent: the caller's, with only those fields changed that are ours to decide.
//!
//! Ours are the model's name, the output maximum (what is paid for), the options of a stream (its counts
//! are always wanted), and the tier. Everything else goes on as it came, in its order.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use serde::de::{MapAccess, Visitor};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use sublet_core::supply::{EngineKind, Replica};
use sublet_core::{Error, ErrorCode, Result, TokenCount};

/// Most top-level fields of a body.
pub(super) const FIELDS_MAX: usize = 256;

/// A JSON object's fields in their order, each value as its text.
pub(crate) struct Fields<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Fields<'a> {
    /// Reads a body. A field given twice is refused: which of both counts would be anybody's guess.
    pub fn read(body: &'a [u8]) -> Result<Self> {
        crate::dialect::json_object(body)
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| *value).filter(|value| value.get() != "null")
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(key, value)| (key.as_ref(), *value))
    }
}

impl<'a> serde::Deserialize<'a> for Fields<'a> {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;
        impl<'a> Visitor<'a> for All {
            type Value = Fields<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object of at most {FIELDS_MAX} fields, each given once")
            }
            fn visit_map<M: MapAccess<'a>>(self, mut map: M) -> Result<Fields<'a>, M::Error> {
                let mut fields: Vec<(Cow<'a, str>, &'a RawValue)> = Vec::with_capacity(16);
                while let Some(Name(name)) = map.next_key::<Name<'a>>()? {
                    if fields.len() == FIELDS_MAX || fields.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::custom(format!("at most {FIELDS_MAX} fields, each given once")));
                    }
                    fields.push((name, map.next_value()?));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(All)
    }
}

/// A key, borrowed unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'a> serde::Deserialize<'a> for Name<'a> {
    fn deserialize<D: serde::Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'a> Visitor<'a> for Text {
            type Value = Name<'a>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field's name")
            }
            fn visit_borrowed_str<E>(self, text: &'a str) -> Result<Name<'a>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'a>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// How the output maximum is said to a replica.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum OutputMax {
    /// The caller gave none, and what is paid for can grow while the answer comes.
    Open,
    /// At most so many tokens for each answer.
    Each(TokenCount),
}

/// A body without the fields that are ours.
#[derive(Clone, Debug)]
pub(crate) struct UpstreamBody {
    /// `,"field":value` for every other field, then `}`.
    tail: Vec<u8>,
    /// `,"option":value` for every other option of the stream.
    options: Vec<u8>,
    streamed: bool,
    /// Which of both names of the output maximum the caller used.
    newer_name: bool,
    older_name: bool,
    is_chat: bool,
    /// Keeps what an engine kept of one tenant's prompts from the others.
    salt: Arc<str>,
}

/// Longer than any number, name and punctuation that is put in front, without the model's name.
const HEAD_BYTES: usize = 160;

impl UpstreamBody {
    pub fn new(fields: &Fields<'_>, (is_chat, streamed): (bool, bool), salt: &str) -> Result<Self> {
        let mut tail = Vec::with_capacity(256);
        let mut options = Vec::new();
        for (name, value) in fields.iter() {
            match name {
                // A salt of the caller's, and be it none, would come after ours and be taken instead.
                "model" | "max_tokens" | "max_completion_tokens" | "service_tier" | "stream" | "cache_salt" => {}
                "stream_options" if streamed && value.get() != "null" => push_options(&mut options, value)?,
                "stream_options" => {}
                _ => push_field(&mut tail, name, value.get()),
            }
        }
        tail.push(b'}');
        let has = |name| fields.get(name).is_some();
        let (newer_name, older_name) = (has("max_completion_tokens"), has("max_tokens"));
        let salt = format!("{:x}", Sha256::digest(salt)).into();
        Ok(Self { tail, options, streamed, newer_name, older_name, is_chat, salt })
    }

    /// Whose it is, as engines are told that keep tenants apart.
    pub fn salt(&self) -> Arc<str> {
        Arc::clone(&self.salt)
    }

    /// How long it is, nearly.
    pub fn bytes(&self) -> usize {
        self.tail.len()
    }

    /// The body as nobody in particular would read it: for counting.
    pub fn unaddressed(&self) -> Vec<u8> {
        let mut body = b"{\"model\":\"\"".to_vec();
        body.extend_from_slice(&self.tail);
        body
    }

    /// The body as this replica is to read it.
    pub fn for_replica(&self, replica: &Replica, output_max: OutputMax) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.tail.len() + self.options.len() + replica.upstream_model.len() + HEAD_BYTES);
        body.extend_from_slice(b"{\"model\":");
        crate::dialect::push_json(&mut body, replica.upstream_model.as_str());
        if self.streamed {
            body.extend_from_slice(b",\"stream\":true,\"stream_options\":{\"include_usage\":true");
            if replica.engine.counts_while_streaming() {
                body.extend_from_slice(b",\"continuous_usage_stats\":true");
            }
            body.extend_from_slice(&self.options);
            body.push(b'}');
        }
        if let OutputMax::Each(tokens) = output_max {
            // OpenAI's newer models refuse the older name; older versions of the engines do not know the newer one.
            let newer = self.is_chat && replica.engine == EngineKind::OpenAi && (self.newer_name || !self.older_name);
            let name = if newer { "max_completion_tokens" } else { "max_tokens" };
            push_field(&mut body, name, &tokens.get().to_string());
        }
        if replica.engine == EngineKind::Vllm {
            push_field(&mut body, "cache_salt", &format!("\"{}\"", self.salt));
        }
        body.extend_from_slice(&self.tail);
        body
    }
}

fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    crate::dialect::push_json(out, name);
    out.push(b':');
    out.extend_from_slice(value.as_bytes());
}

fn push_options(out: &mut Vec<u8>, raw: &RawValue) -> Result<()> {
    let wrong = |_| {
        Error::new(ErrorCode::InvalidRequest, "'stream_options' must be an object, each field given once").param("stream_options")
    };
    let options: Fields<'_> = serde_json::from_str(raw.get()).map_err(wrong)?;
    for (name, value) in options.iter() {
        if !matches!(name, "include_usage" | "continuous_usage_stats") {
            push_field(out, name, value.get());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use sublet_core::id::{Identifier, ReplicaId};
    use sublet_core::supply::{ReplicaSource, ReplicaState};

    fn replica(engine: EngineKind) -> Replica {
        Replica {
            id: ReplicaId::from_trusted("rep_1".into()),
            base_url: "http://127.0.0.1:1/v1".parse().unwrap(),
            upstream_model: "up\"stream".to_owned(),
            secret: None,
            engine,
            kv_events: None,
            in_flight_max: 1,
            state: ReplicaState::Serving,
            source: ReplicaSource::Fleet,
            terms: None,
            costs: Vec::new(),
        }
    }

    fn sent(body: &str, engine: EngineKind, output_max: OutputMax) -> Value {
        let fields = Fields::read(body.as_bytes()).unwrap();
        let streamed = fields.get("stream").is_some_and(|raw| raw.get() == "true");
        let upstream = UpstreamBody::new(&fields, (true, streamed), "org").unwrap();
        let mut sent: Value = serde_json::from_slice(&upstream.for_replica(&replica(engine), output_max)).unwrap();
        let salt = sent.as_object_mut().unwrap().remove("cache_salt");
        assert_eq!(salt.is_some_and(|salt| salt.as_str().unwrap().len() == 64), engine == EngineKind::Vllm);
        sent
    }

    #[test]
    fn only_our_fields_change() {
        let body = r#"{"model":"m","messages":[{"role":"user","content":"é\u0041"}],"x_unknown":{"a":[1,0.10]},"temperature":0.70,"max_tokens":9,"service_tier":"flex"}"#;
        assert_eq!(
            sent(body, EngineKind::Vllm, OutputMax::Each(TokenCount::new(5))),
            json!({"model": "up\"stream", "max_tokens": 5, "messages": [{"role": "user", "content": "éA"}], "x_unknown": {"a": [1, 0.1]}, "temperature": 0.7})
        );
    }

    #[test]
    fn numbers_and_escapes_keep_their_text() {
        let body = br#"{"model":"m","seed":12345678901234567890123,"t":1e-3,"s":"\u00e9"}"#;
        let upstream = UpstreamBody::new(&Fields::read(body).unwrap(), (true, false), "org").unwrap();
        let text = String::from_utf8(upstream.for_replica(&replica(EngineKind::LlamaCpp), OutputMax::Open)).unwrap();
        assert_eq!(text, r#"{"model":"up\"stream","seed":12345678901234567890123,"t":1e-3,"s":"\u00e9"}"#);
    }

    #[test]
    fn a_stream_is_always_asked_for_its_counts() {
        let body = r#"{"model":"m","stream":true,"stream_options":{"include_usage":false,"include_obfuscation":true},"max_completion_tokens":7}"#;
        assert_eq!(
            sent(body, EngineKind::OpenAi, OutputMax::Each(TokenCount::new(7))),
            json!({"model": "up\"stream", "stream": true, "stream_options": {"include_usage": true, "include_obfuscation": true}, "max_completion_tokens": 7})
        );
        let options = &sent(r#"{"model":"m","stream":true}"#, EngineKind::Vllm, OutputMax::Open)["stream_options"];
        assert_eq!(*options, json!({"include_usage": true, "continuous_usage_stats": true}));
    }

    #[test]
    fn the_output_maximum_has_the_name_that_works() {
        let one = OutputMax::Each(TokenCount::new(3));
        assert_eq!(sent(r#"{"model":"m"}"#, EngineKind::OpenAi, one)["max_completion_tokens"], 3);
        assert_eq!(sent(r#"{"model":"m"}"#, EngineKind::LlamaCpp, one)["max_tokens"], 3);
        assert_eq!(sent(r#"{"model":"m","max_completion_tokens":1}"#, EngineKind::LlamaCpp, one)["max_tokens"], 3);
        assert_eq!(sent(r#"{"model":"m","max_tokens":1}"#, EngineKind::OpenAi, one)["max_tokens"], 3);
    }

    #[test]
    fn the_salt_of_a_tenant_is_said_once() {
        for theirs in ["null", "false", "\"shared\""] {
            let body = format!(r#"{{"model":"m","cache_salt":{theirs},"a":1}}"#);
            let upstream = UpstreamBody::new(&Fields::read(body.as_bytes()).unwrap(), (true, false), "org").unwrap();
            for engine in EngineKind::ALL {
                let text = String::from_utf8(upstream.for_replica(&replica(engine), OutputMax::Open)).unwrap();
                let salts = text.matches("cache_salt").count();
                assert_eq!((salts, text.contains(theirs)), (usize::from(engine == EngineKind::Vllm), false), "{text}");
            }
        }
    }

    #[test]
    fn a_field_given_twice_is_refused() {
        for body in [r#"{"model":"a","model":"b"}"#, r#"{"max_tokens":1,"max\u005ftokens":100}"#] {
            assert!(Fields::read(body.as_bytes()).is_err(), "{body}");
        }
        let fields = Fields::read(br#"{"stream_options":{"a":1,"a":2}}"#).unwrap();
        assert!(UpstreamBody::new(&fields, (true, true), "org").is_err());
    }
}
