//! A server that speaks OpenAI's API by script, over real connections.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sublet_core::id::{Identifier, ReplicaId};
use sublet_core::supply::{Audience, EngineKind, RemoteModel, RemoteModels, Replica, ReplicaSource, ReplicaState};
use sublet_core::{Timestamp, TokenCount};
use tokio::sync::Notify;

use crate::cloud::Cloud;

/// What it does with one request.
pub enum Reply {
    Json(u16, Value),
    /// Refuses, with a header that says for how long.
    Busy(u16, &'static str, &'static str),
    Raw(u16, &'static str, String),
    Stream(Vec<Part>),
    /// Never answers.
    Hang,
}

/// A part of a stream.
pub enum Part {
    Event(Value),
    Raw(String),
    Done,
    /// Until [`Upstream::go_on`].
    Wait,
    /// The connection breaks.
    Cut,
}

#[derive(Clone, Debug)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Value,
    pub text: String,
}

#[derive(Default)]
struct Shared {
    script: Mutex<VecDeque<Reply>>,
    received: Mutex<Vec<Received>>,
    probes: AtomicUsize,
    open: AtomicUsize,
    go: Notify,
    closed: Notify,
}

pub struct Upstream {
    shared: Arc<Shared>,
    pub base_url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Counts a stream that is open.
struct Open(Arc<Shared>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
        self.0.closed.notify_waiters();
    }
}

impl Upstream {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base_url = format!("http://{}/v1", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        let served = Arc::clone(&shared);
        let router = Router::new().fallback(move |request: Request<Body>| answer(Arc::clone(&served), request));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { shared, base_url, task }
    }

    pub fn then(&self, reply: Reply) -> &Self {
        self.shared.script.lock().unwrap().push_back(reply);
        self
    }

    pub fn go_on(&self) {
        self.shared.go.notify_one();
    }

    pub fn received(&self) -> Vec<Received> {
        self.shared.received.lock().unwrap().clone()
    }

    pub fn probes(&self) -> usize {
        self.shared.probes.load(Ordering::SeqCst)
    }

    /// Waits until no stream is open: the gateway let go of it.
    pub async fn closed(&self) {
        loop {
            let closed = self.shared.closed.notified();
            if self.shared.open.load(Ordering::SeqCst) == 0 {
                return;
            }
            closed.await;
        }
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let text = String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap();
    if parts.uri.path() == "/v1/models" {
        shared.probes.fetch_add(1, Ordering::SeqCst);
        return plain(200, "application/json", "{\"object\":\"list\",\"data\":[]}".to_owned());
    }
    let received = Received {
        path: parts.uri.path().to_owned(),
        headers: parts.headers,
        body: serde_json::from_str(&text).unwrap_or(Value::Null),
        text,
    };
    shared.received.lock().unwrap().push(received);
    let reply = shared.script.lock().unwrap().pop_front();
    match reply {
        Some(Reply::Json(status, body)) => plain(status, "application/json", body.to_string()),
        Some(Reply::Busy(status, header, wait)) => {
            let mut response = plain(status, "application/json", "{}".to_owned());
            response.headers_mut().insert(header, wait.parse().unwrap());
            response
        }
        Some(Reply::Raw(status, kind, body)) => plain(status, kind, body),
        Some(Reply::Stream(parts)) => stream(shared, parts),
        Some(Reply::Hang) => {
            shared.open.fetch_add(1, Ordering::SeqCst);
            let _open = Open(Arc::clone(&shared));
            std::future::pending().await
        }
        None => plain(500, "text/plain", "the script is over".to_owned()),
    }
}

fn plain(status: u16, kind: &str, body: String) -> Response {
    Response::builder().status(status).header("content-type", kind).body(Body::from(body)).unwrap()
}

fn stream(shared: Arc<Shared>, parts: Vec<Part>) -> Response {
    shared.open.fetch_add(1, Ordering::SeqCst);
    let state = (Open(shared), VecDeque::from(parts));
    let stream = futures_util::stream::unfold(state, |(open, mut parts)| async move {
        loop {
            let bytes = match parts.pop_front()? {
                Part::Event(event) => format!("data: {event}\n\n"),
                Part::Raw(text) => text,
                Part::Done => "data: [DONE]\n\n".to_owned(),
                Part::Wait => {
                    open.0.go.notified().await;
                    continue;
                }
                Part::Cut => return Some((Err(std::io::Error::other("cut")), (open, parts))),
            };
            return Some((Ok::<Bytes, std::io::Error>(bytes.into()), (open, parts)));
        }
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(stream)).unwrap()
}

/// An event of a chat with more text.
pub fn said(text: &str) -> Part {
    Part::Event(chunk(&json!([{"index": 0, "delta": {"content": text}, "finish_reason": null}])))
}

pub fn ended(reason: &str) -> Part {
    Part::Event(chunk(&json!([{"index": 0, "delta": {}, "finish_reason": reason}])))
}

pub fn counted(prompt: i64, output: i64) -> Part {
    let mut event = chunk(&json!([]));
    event["usage"] = usage(prompt, output);
    Part::Event(event)
}

pub fn chunk(choices: &Value) -> Value {
    json!({"id": "chatcmpl-theirs", "object": "chat.completion.chunk", "created": 1, "model": "theirs/model", "choices": choices})
}

pub fn usage(prompt: i64, output: i64) -> Value {
    json!({"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output, "prompt_tokens_details": {"cached_tokens": 2}})
}

/// A whole answer.
pub fn whole(text: &str, usage: Value) -> Reply {
    let choice =
        json!({"index": 0, "message": {"role": "assistant", "content": text, "their_field": [1]}, "finish_reason": "stop"});
    Reply::Json(
        200,
        json!({"id": "chatcmpl-theirs", "object": "chat.completion", "created": 1, "model": "theirs/model", "choices": [choice], "usage": usage, "their_field": {"a": 1}}),
    )
}

/// A stream of words, one a token, that ends well.
pub fn words(count: i64) -> Reply {
    let mut parts = vec![Part::Event(chunk(&json!([{"index": 0, "delta": {"role": "assistant", "content": ""}}])))];
    parts.extend((0..count).map(|_| said("word")));
    parts.extend([ended("stop"), counted(7, count), Part::Done]);
    Reply::Stream(parts)
}

pub fn replica(number: u32, base_url: &str) -> Replica {
    Replica {
        id: ReplicaId::from_trusted(Arc::from(format!("rep_{number}"))),
        base_url: base_url.parse().unwrap(),
        upstream_model: "theirs/model".to_owned(),
        secret: Some("vault-1".parse().unwrap()),
        engine: EngineKind::OpenAi,
        kv_events: None,
        in_flight_max: 64,
        state: ReplicaState::Serving,
        source: ReplicaSource::Fleet,
        terms: None,
        costs: Vec::new(),
    }
}

pub fn model(name: &str, replicas: Vec<Replica>) -> RemoteModel {
    RemoteModel {
        name: name.to_owned(),
        owned_by: "acme".to_owned(),
        created_at: Timestamp::from_seconds(1_700_000_000),
        context_window: TokenCount::new(4_096),
        output_max: TokenCount::new(1_024),
        audience: Audience::Everyone,
        tokenizer: None,
        replicas: replicas.into_iter().map(Arc::new).collect(),
    }
}

impl Cloud {
    /// Puts remote models into the catalogue, in the place of those that were there.
    pub fn offer(&self, models: impl IntoIterator<Item = RemoteModel>) {
        let models = models.into_iter().map(|model| (model.name.clone(), Arc::new(model))).collect();
        *self.remote.lock().unwrap() = Arc::new(RemoteModels { models });
    }
}
