//! A model server by script: it says as many words as it is asked for, one at a time, at a steady pace. Until it may go
//! on, it says one word only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::response::Response;
use serde_json::{Value, json};
use tokio::sync::oneshot;

/// Tokens of every prompt, as it counts them.
const PROMPT_TOKENS: u64 = 10;
/// Largest body it reads, in bytes.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// The server, on a thread of its own until it is dropped.
pub struct Upstream {
    pub base_url: String,
    pub may_go_on: Arc<AtomicBool>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Upstream {
    pub fn start(pace: Duration) -> Self {
        let may_go_on = Arc::<AtomicBool>::default();
        let gate = Arc::clone(&may_go_on);
        let (tell, told) = std::sync::mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                tell.send(listener.local_addr().unwrap()).unwrap();
                let router = Router::new().fallback(move |body: Bytes| answer(body, pace, Arc::clone(&gate)));
                tokio::select! {
                    served = axum::serve(listener, router) => served.unwrap(),
                    _ = stopped => {}
                }
            });
        });
        let base_url = format!("http://{}/v1", told.recv().unwrap());
        Self { base_url, may_go_on, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.take().map(|stop| stop.send(()).ok());
        self.thread.take().map(|thread| thread.join().ok());
    }
}

async fn answer(body: Bytes, pace: Duration, gate: Arc<AtomicBool>) -> Response {
    assert!(body.len() <= BODY_BYTES_MAX);
    // Whoever only looks whether it is there sends no body.
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let words = asked["max_tokens"].as_u64().or_else(|| asked["max_completion_tokens"].as_u64()).unwrap_or(0);
    let beat = tokio::time::interval(pace);
    let stream = futures_util::stream::unfold((0, beat, gate), move |(said, mut beat, gate)| async move {
        if said > words {
            return None;
        }
        beat.tick().await;
        while said > 0 && !gate.load(Ordering::Relaxed) {
            beat.tick().await;
        }
        Some((Ok::<Bytes, std::io::Error>(piece(said, words).into()), (said + 1, beat, gate)))
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(stream)).unwrap()
}

/// A word, or the end with its counts.
fn piece(said: u64, words: u64) -> String {
    let chunk = |choices: Value| json!({ "id": "theirs", "object": "chat.completion.chunk", "created": 1, "model": "far", "choices": choices });
    if said < words {
        let delta = json!({ "role": "assistant", "content": "word " });
        return format!("data: {}\n\n", chunk(json!([{ "index": 0, "delta": delta, "finish_reason": null }])));
    }
    let end = chunk(json!([{ "index": 0, "delta": {}, "finish_reason": "length" }]));
    let mut counts = chunk(json!([]));
    counts["usage"] = json!({ "prompt_tokens": PROMPT_TOKENS, "completion_tokens": words, "total_tokens": PROMPT_TOKENS + words });
    format!("data: {end}\n\ndata: {counts}\n\ndata: [DONE]\n\n")
}
