//! Bodies of requests: read for the engine, passed on, or translated and passed on.
//!
//! Whatever comes: no panic; a refusal is the caller's and says so in the shape of its API; what is
//! accepted is inside every bound; what is passed on is what came, except for the fields that are ours.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use sublet_core::engine::{Chat, Millionths, ModelInfo, Prompt, STOP_STRINGS_MAX, ToolTemplate};
use sublet_core::id::{Identifier, ReplicaId, RequestId, ResponseId};
use sublet_core::response::Turn;
use sublet_core::supply::{Audience, EngineKind, RemoteModel, Replica, ReplicaSource, ReplicaState};
use sublet_core::{Error, ErrorCode, Result, Timestamp, TokenCount};

use crate::dialect::body::{UNIT, model_of};
use crate::dialect::relay::{self, Relayed};
use crate::dialect::{CHOICES_MAX, Call, Earlier, Endpoint, STOP_BYTES_MAX, translate};
use crate::supply::request::{Fields, OutputMax};

/// Longest answer that is an error, in bytes.
const REFUSAL_BYTES_MAX: usize = 32 * 1_024;
const UPSTREAM_NAME: &str = "up\"stream";
/// Fields of a request that are not passed on as they came.
const OURS: [&str; 7] = ["model", "max_tokens", "max_completion_tokens", "service_tier", "stream", "stream_options", "cache_salt"];
/// Options of a stream that are not passed on as they came.
const OUR_OPTIONS: [&str; 2] = ["include_usage", "continuous_usage_stats"];

/// A body of `POST /v1/chat/completions`.
pub fn chat(body: &[u8]) {
    request(Endpoint::Chat, body);
}

/// A body of `POST /v1/completions`.
pub fn completions(body: &[u8]) {
    request(Endpoint::Completion, body);
}

/// A body of `POST /v1/responses`.
pub fn responses(body: &[u8]) {
    request(Endpoint::Response, body);
}

/// A body of `POST /v1/messages` and of `POST /v1/messages/count_tokens`.
pub fn messages(body: &[u8]) {
    request(Endpoint::Message, body);
}

/// A body of `POST /v1/embeddings`.
pub fn embeddings(body: &[u8]) {
    request(Endpoint::Embedding, body);
}

fn request(endpoint: Endpoint, body: &[u8]) {
    if let Err(error) = model_of(body) {
        check_refusal(endpoint, &error);
    }
    for read in [Endpoint::read, Endpoint::read_to_count] {
        let read = |endpoint, body| read(endpoint, body, &Earlier::default());
        match read(endpoint, body) {
            Ok(mut call) => {
                check_call(&call, body);
                check_kept(&mut call);
            }
            Err(error) => check_refusal(endpoint, &error),
        }
        for tools in [ToolTemplate::Absent, ToolTemplate::Shown, ToolTemplate::Tagged] {
            if let Ok(mut call) = read(endpoint, body)
                && let Err(error) = call.fit(&here(tools))
            {
                check_refusal(endpoint, &error);
            }
        }
    }
    match elsewhere(endpoint, body) {
        Ok((relayed, sent)) => check_relayed(&relayed, &sent),
        Err(error) => check_refusal(endpoint, &error),
    }
}

fn here(tools: ToolTemplate) -> ModelInfo {
    ModelInfo {
        name: "m".to_owned(),
        created_at: Timestamp::EPOCH,
        owned_by: "o".to_owned(),
        context_window: TokenCount::new(4_096),
        vocabulary: TokenCount::new(256),
        has_chat_template: true,
        tools,
        embeddings: None,
    }
}

fn replica(engine: EngineKind) -> Replica {
    Replica {
        id: ReplicaId::from_trusted("rep_1".into()),
        base_url: "http://127.0.0.1:1/v1".parse().expect("an address"),
        upstream_model: UPSTREAM_NAME.to_owned(),
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

fn remote() -> RemoteModel {
    RemoteModel {
        name: "m".to_owned(),
        owned_by: "o".to_owned(),
        created_at: Timestamp::EPOCH,
        context_window: TokenCount::new(4_096),
        output_max: TokenCount::new(1_024),
        audience: Audience::Everyone,
        tokenizer: None,
        replicas: vec![Arc::new(replica(EngineKind::Vllm)), Arc::new(replica(EngineKind::OpenAi))],
    }
}

/// What would be passed on, and the body that it was made from.
fn elsewhere(endpoint: Endpoint, body: &[u8]) -> Result<(Relayed, Vec<u8>)> {
    let model = remote();
    match endpoint.relayed() {
        Some(kind) => Ok((relay::read(kind, body, &model, "org_1")?, body.to_vec())),
        None => {
            let chat = translate::chat(&endpoint.read(body, &Earlier::default())?)?;
            let relayed = relay::read(relay::Kind::Chat, &chat, &model, "org_1").expect("what is translated can be passed on");
            Ok((relayed, chat))
        }
    }
}

fn check_refusal(endpoint: Endpoint, error: &Error) {
    assert_ne!(error.code(), ErrorCode::Internal, "{error:?}");
    let status = endpoint.envelope().status(error);
    assert!((400..500).contains(&status), "status {status}: {error:?}");
    let body = endpoint.envelope().body(&RequestId::from_trusted("req_1".into()), error);
    assert!(body.len() <= REFUSAL_BYTES_MAX, "an error of {} bytes", body.len());
    let body: Value = serde_json::from_slice(&body).expect("an error is JSON");
    assert!(body["error"]["message"].as_str().is_some_and(|message| !message.is_empty()), "{body}");
    assert!(body["error"]["type"].is_string(), "{body}");
}

fn check_call(call: &Call, body: &[u8]) {
    let answers = call.prompts.len() * call.answers;
    assert!((1..=CHOICES_MAX).contains(&answers), "{answers} answers");
    assert!(call.output_max.is_none_or(|max| max > TokenCount::ZERO));
    assert!(call.stop.len() <= STOP_STRINGS_MAX);
    assert!(call.stop.iter().all(|stop| (1..=STOP_BYTES_MAX).contains(&stop.len())));
    let sampling = &call.sampling;
    let within = |value: Millionths, least: i64, most: i64| (least..=most).contains(&value.0);
    assert!(within(sampling.temperature, 0, 2 * UNIT) && within(sampling.top_p, 1, UNIT), "{sampling:?}");
    assert!(within(sampling.presence_penalty, -2 * UNIT, 2 * UNIT) && within(sampling.frequency_penalty, -2 * UNIT, 2 * UNIT));
    assert!(sampling.logit_bias.iter().all(|(_, bias)| within(*bias, -100 * UNIT, 100 * UNIT)), "{sampling:?}");
    assert!(sampling.logprobs.is_none_or(|count| count <= 20));
    let kept: usize = call.prompts.iter().map(prompt_bytes).sum();
    assert!(kept <= body.len(), "a prompt of {kept} bytes out of a body of {}", body.len());
}

/// What is kept of a request can be gone on from, and is what its model read.
fn check_kept(call: &mut Call) {
    let Some(draft) = call.form.take_draft() else { return };
    let input = String::from_utf8(draft.into_input(&RequestId::from_trusted("req_1".into()))).expect("an input is UTF-8");
    let id = ResponseId::from_trusted("resp_1".into());
    let turn = Turn { id: id.clone(), input, object: r#"{"output":[]}"#.to_owned() };
    let earlier = Earlier::conversation(id, &[turn]).expect("what is kept can be gone on from");
    let again = Endpoint::Response.read(br#"{"model":"m","input":[{"role":"system","content":""}]}"#, &earlier);
    let (Prompt::Chat(asked), Prompt::Chat(again)) = (&call.prompts[0], &again.expect("a good request").prompts[0]) else {
        panic!("responses are conversations")
    };
    // Instructions are the first turn, or a part of it.
    let calls = |chat: &Chat| chat.messages.iter().map(|message| message.tool_calls.len()).sum::<usize>();
    let results = |chat: &Chat| chat.messages.iter().filter_map(|message| message.tool_call_id.clone()).collect::<Vec<_>>();
    assert_eq!((calls(asked), results(asked)), (calls(again), results(again)));
}

/// Bytes of what a prompt says; a token is at least two in JSON.
fn prompt_bytes(prompt: &Prompt) -> usize {
    match prompt {
        Prompt::Text(text) => text.len(),
        Prompt::Tokens(tokens) => 2 * tokens.len(),
        Prompt::Chat(chat) => chat.messages.iter().map(|message| message.content.len()).sum(),
    }
}

fn check_relayed(relayed: &Relayed, body: &[u8]) {
    assert!((0..=128).contains(&relayed.answers));
    assert!(relayed.output_max > TokenCount::ZERO && relayed.output_max <= TokenCount::new(1_024));
    assert!(relayed.input_estimate > TokenCount::ZERO && relayed.input_estimate <= relayed.input_max, "{relayed:?}");
    let came = Fields::read(body).expect("it was read before");
    for engine in EngineKind::ALL {
        for output_max in [OutputMax::Open, OutputMax::Each(TokenCount::new(7))] {
            check_sent(&came, &relayed.body.for_replica(&replica(engine), output_max));
        }
    }
}

/// What came goes on in its order and in its own letters, and nothing is said twice.
fn check_sent(came: &Fields<'_>, sent: &[u8]) {
    let sent = Fields::read(sent).expect("what is passed on is an object whose fields are given once");
    assert_eq!(others(&sent, &OURS), others(came, &OURS));
    let model = sent.get("model").map(RawValue::get);
    assert_eq!(model.and_then(|raw| serde_json::from_str::<String>(raw).ok()).as_deref(), Some(UPSTREAM_NAME));
    let options = |fields: &Fields<'_>| {
        let raw = fields.get("stream_options").map_or("{}", RawValue::get).to_owned();
        let options: Fields<'_> = serde_json::from_str(&raw).expect("the options of a stream are an object");
        others(&options, &OUR_OPTIONS)
    };
    if sent.get("stream").is_some() {
        assert_eq!(options(&sent), options(came));
        let asked: Value = serde_json::from_str(sent.get("stream_options").map_or("", RawValue::get)).expect("an object");
        assert_eq!(asked["include_usage"], true, "the counts are always asked for");
    }
}

fn others(fields: &Fields<'_>, ours: &[&str]) -> Vec<(String, String)> {
    let others = fields.iter().filter(|(name, _)| !ours.contains(name));
    others.map(|(name, value)| (name.to_owned(), value.get().to_owned())).collect()
}
