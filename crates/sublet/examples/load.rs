//! The two ends of a gateway under measurement: a model server that costs next to nothing, and callers.
//!
//! `load upstream ADDRESS` answers every POST at once: with an object, or with 32 events of text.
//! `load drive ADDRESS KEY MODEL CONNECTIONS REQUESTS [stream] [rate=N]` sends requests over so many
//! connections, each its next one when the last was answered, or N a second over all; it prints one JSON
//! object with latencies in microseconds, and counts every answer that is not whole and right. KEY may be
//! `@FILE`: the keys in its lines are used in turn.
//! `load open ADDRESS KEY MODEL STREAMS` opens so many streams, says "open", and holds them until its
//! standard input ends; the server behind must have been started as `load upstream ADDRESS slow`.
//! Both ends write HTTP by hand, so that what they use of the processor says little about HTTP libraries.

use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Events with text in one streamed answer.
const EVENTS: usize = 32;
/// Between two events of a slow stream.
const SLOW_PAUSE: Duration = Duration::from_secs(20);
const HEAD_BYTES_MAX: usize = 16 * 1024;

const USAGE: &str = "load upstream ADDRESS [slow] | drive ADDRESS KEY MODEL CONNECTIONS REQUESTS [stream] [rate=N] | open ADDRESS KEY MODEL STREAMS";

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match words.as_slice() {
        ["upstream", address] => runtime.block_on(serve(address, false)),
        ["upstream", address, "slow"] => runtime.block_on(serve(address, true)),
        ["drive", address, key, model, connections, requests, rest @ ..] => {
            let rate = rest.iter().find_map(|word| word.strip_prefix("rate=")?.parse().ok());
            let plan = Plan {
                address: (*address).to_owned(),
                requests_of_keys: requests_of(address, key, model, rest.contains(&"stream"))?,
                connections: connections.parse()?,
                requests: requests.parse()?,
                rate,
            };
            say(&runtime.block_on(drive(Arc::new(plan)))?.to_string())
        }
        ["open", address, key, model, streams] => {
            let request = request(address, key, model, true);
            runtime.block_on(open(address, &request, streams.parse()?))
        }
        _ => Err(USAGE.into()),
    }
}

fn say(text: &str) -> Outcome<()> {
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// One request for each key.
fn requests_of(address: &str, key: &str, model: &str, stream: bool) -> Outcome<Vec<Vec<u8>>> {
    let file = key.strip_prefix('@').map(std::fs::read_to_string).transpose()?;
    let keys = file.as_deref().unwrap_or(key).lines();
    Ok(keys.map(|key| request(address, key, model, stream)).collect())
}

/// A request of about three quarters of a kilobyte, as a short chat has.
fn request(address: &str, key: &str, model: &str, stream: bool) -> Vec<u8> {
    let text = "Summarize the following notes of a meeting in one sentence. ".repeat(9);
    let mut body = json!({ "model": model, "messages": [
        { "role": "system", "content": "You are a helpful assistant." }, { "role": "user", "content": text }], "max_tokens": 64 });
    if stream {
        body["stream"] = json!(true);
        body["stream_options"] = json!({ "include_usage": true });
    }
    let body = body.to_string();
    let length = body.len();
    format!("POST /v1/chat/completions HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
}

// ---- The model server --------------------------------------------------------------------------

fn whole_answer() -> Vec<u8> {
    let body = json!({ "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{ "index": 0, "message": { "role": "assistant", "content": "All agreed to meet again." }, "finish_reason": "stop" }],
        "usage": { "prompt_tokens": 120, "completion_tokens": 8, "total_tokens": 128 } });
    let body = body.to_string();
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn chunk(data: &str) -> Vec<u8> {
    let event = format!("data: {data}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len()).into_bytes()
}

fn streamed_answer() -> Vec<Vec<u8>> {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let event = |delta: serde_json::Value, reason: Option<&str>| {
        json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m",
            "choices": [{ "index": 0, "delta": delta, "finish_reason": reason }] })
        .to_string()
    };
    let mut parts = vec![head.as_bytes().to_vec()];
    parts.extend((0..EVENTS).map(|_| chunk(&event(json!({ "content": " word" }), None))));
    parts.push(chunk(&event(json!({}), Some("stop"))));
    let usage = json!({ "prompt_tokens": 120, "completion_tokens": EVENTS, "total_tokens": 120 + EVENTS });
    let last =
        json!({ "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [], "usage": usage });
    parts.push(chunk(&last.to_string()));
    let mut end = chunk("[DONE]");
    end.extend_from_slice(b"0\r\n\r\n");
    parts.push(end);
    parts
}

async fn serve(address: &str, slow: bool) -> Outcome<()> {
    let listener = TcpListener::bind(address).await?;
    let whole = Arc::new(whole_answer());
    let streamed = Arc::new(streamed_answer());
    loop {
        let (socket, _) = listener.accept().await?;
        let (whole, streamed) = (Arc::clone(&whole), Arc::clone(&streamed));
        tokio::spawn(async move {
            // A caller that goes away ends its connection only.
            let _gone = answer_all(socket, &whole, &streamed, slow).await;
        });
    }
}

async fn answer_all(mut socket: TcpStream, whole: &[u8], streamed: &[Vec<u8>], slow: bool) -> std::io::Result<()> {
    socket.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(4_096);
    loop {
        let Some(head) = head_end(&mut socket, &mut buffer).await? else { return Ok(()) };
        let length = header(&buffer[..head], "content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
        while buffer.len() < head + length {
            if socket.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        let is_stream = find(&buffer[head..head + length], b"\"stream\":true").is_some();
        buffer.drain(..head + length);
        if !is_stream {
            socket.write_all(whole).await?;
            continue;
        }
        for (number, part) in streamed.iter().enumerate() {
            if slow && number > 1 {
                tokio::time::sleep_until(Instant::now() + SLOW_PAUSE).await;
            }
            socket.write_all(part).await?;
            // Each event is a write of its own, as a server makes it.
            tokio::task::yield_now().await;
        }
    }
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    text.windows(part.len()).position(|window| window == part)
}

/// Reads until a head is there; where it ends.
async fn head_end(socket: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<usize>> {
    loop {
        if let Some(end) = find(buffer, b"\r\n\r\n") {
            return Ok(Some(end + 4));
        }
        if buffer.len() > HEAD_BYTES_MAX || socket.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

fn header(head: &[u8], name: &str) -> Option<String> {
    let head = String::from_utf8_lossy(head).into_owned();
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
    })
}

// ---- The callers -------------------------------------------------------------------------------

struct Plan {
    address: String,
    requests_of_keys: Vec<Vec<u8>>,
    connections: usize,
    requests: usize,
    /// Requests a second over all connections; `None` is as fast as answers come.
    rate: Option<u64>,
}

async fn drive(plan: Arc<Plan>) -> Outcome<serde_json::Value> {
    let next = Arc::new(AtomicUsize::new(0));
    let start = Instant::now();
    let callers: Vec<_> =
        (0..plan.connections).map(|_| tokio::spawn(call_all(Arc::clone(&plan), Arc::clone(&next), start))).collect();
    let (mut times, mut wrong) = (Vec::new(), 0);
    for caller in callers {
        let (took, bad) = caller.await??;
        times.extend(took);
        wrong += bad;
    }
    let elapsed = start.elapsed();
    times.sort_unstable();
    let at = |per_mille: usize| times.get((times.len().max(1) - 1) * per_mille / 1_000).map_or(0, Duration::as_micros);
    Ok(
        json!({ "answered": times.len(), "wrong": wrong, "seconds": elapsed.as_secs_f64(), "p50": at(500), "p90": at(900), "p99": at(990) }),
    )
}

async fn call_all(plan: Arc<Plan>, next: Arc<AtomicUsize>, start: Instant) -> Outcome<(Vec<Duration>, usize)> {
    let (mut times, mut wrong) = (Vec::new(), 0);
    let mut socket = connect(&plan.address).await?;
    let mut buffer = Vec::with_capacity(16 * 1_024);
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.requests {
            return Ok((times, wrong));
        }
        let mut begun = Instant::now();
        if let Some(rate) = plan.rate {
            // Late requests count from when they were due: a slow answer does not hide those behind it.
            let due = start + Duration::from_nanos(1_000_000_000 / rate * u64::try_from(number)?);
            tokio::time::sleep_until(due).await;
            begun = due;
        }
        match call(&mut socket, &plan.requests_of_keys[number % plan.requests_of_keys.len()], &mut buffer).await {
            Ok(true) => times.push(begun.elapsed()),
            Ok(false) | Err(_) => {
                wrong += 1;
                socket = connect(&plan.address).await?;
                buffer.clear();
            }
        }
    }
}

async fn connect(address: &str) -> std::io::Result<TcpStream> {
    let socket = TcpStream::connect(address).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

/// Sends one request and reads its answer; whether that is whole and right.
async fn call(socket: &mut TcpStream, request: &[u8], buffer: &mut Vec<u8>) -> std::io::Result<bool> {
    socket.write_all(request).await?;
    let Some(head) = head_end(socket, buffer).await? else { return Ok(false) };
    let good = buffer.starts_with(b"HTTP/1.1 200");
    let end = match header(&buffer[..head], "content-length").and_then(|text| text.parse::<usize>().ok()) {
        Some(length) => head + length,
        None => usize::MAX,
    };
    while buffer.len() < end && !(end == usize::MAX && buffer.ends_with(b"0\r\n\r\n")) {
        if socket.read_buf(buffer).await? == 0 {
            return Ok(false);
        }
    }
    let body = &buffer[head..];
    let right = if end == usize::MAX { find(body, b"data: [DONE]").is_some() } else { find(body, b"\"usage\"").is_some() };
    buffer.clear();
    Ok(good && right)
}

/// Opens streams and keeps them.
async fn open(address: &str, request: &[u8], streams: usize) -> Outcome<()> {
    let mut sockets = Vec::with_capacity(streams);
    for _ in 0..streams {
        let mut socket = connect(address).await?;
        socket.write_all(request).await?;
        sockets.push(socket);
    }
    let mut first = Vec::new();
    for socket in &mut sockets {
        first.clear();
        while find(&first, b"data: ").is_none() {
            if socket.read_buf(&mut first).await? == 0 {
                return Err("a stream ended at once".into());
            }
        }
        if !first.starts_with(b"HTTP/1.1 200") {
            return Err(String::from_utf8_lossy(&first).into());
        }
    }
    say("open")?;
    tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new())).await??;
    Ok(())
}
