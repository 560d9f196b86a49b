//! Somebody's endpoint for webhooks on loopback: keeps what is posted to it, and answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;
use serde_json::Value;
use sublet_core::Clock;
use sublet_core::webhook::{WebhookPort, WebhookUrl};
use sublet_delivery::Webhooks;

/// An event that was posted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PostedEvent {
    /// By their names in lower case.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl PostedEvent {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).expect("JSON")
    }
    /// Whether it was signed with a secret, as whoever gets it finds out.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let key = STANDARD.decode(secret.strip_prefix("whsec_").expect("a secret")).expect("Base64");
        let header = |name: &str| self.headers.get(name).expect("a header").as_str();
        let signed = format!("{}.{}.{}", header("webhook-id"), header("webhook-timestamp"), self.body);
        let Some(signature) = header("webhook-signature").strip_prefix("v1,") else { return false };
        let signature = STANDARD.decode(signature).expect("Base64");
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, &key), signed.as_bytes(), &signature).is_ok()
    }
}

#[derive(Default)]
struct State {
    posted: Vec<PostedEvent>,
    answers: VecDeque<u16>,
}

/// The endpoint. It listens until the test's process ends.
#[derive(Clone)]
pub struct FakeEndpoint {
    state: Arc<Mutex<State>>,
    port: u16,
}

impl FakeEndpoint {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let port = listener.local_addr().expect("an address").port();
        let fake = Self { state: Arc::default(), port };
        let serving = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        fake
    }

    /// Its address, by the address of its host.
    pub fn url(&self) -> WebhookUrl {
        self.url_of("127.0.0.1")
    }
    /// Its address, by another name of its host.
    pub fn url_of(&self, host: &str) -> WebhookUrl {
        format!("http://{host}:{}/hooks?of=sublet", self.port).parse().expect("an address")
    }
    /// The next events are answered with these; those after them with 204.
    pub fn answer(&self, statuses: impl IntoIterator<Item = u16>) {
        self.state().answers.extend(statuses);
    }
    /// What was posted since it was asked last.
    pub fn take(&self) -> Vec<PostedEvent> {
        std::mem::take(&mut self.state().posted)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) {
        let Ok(mut writer) = stream.try_clone() else { return };
        let mut reader = BufReader::new(stream);
        while let Some(event) = read_request(&mut reader) {
            let status = {
                let mut state = self.state();
                state.posted.push(event);
                state.answers.pop_front().unwrap_or(204)
            };
            let location = if status == 302 { "location: /elsewhere\r\n" } else { "" };
            let answer = format!("HTTP/1.1 {status} Said\r\n{location}content-length: 0\r\n\r\n");
            if writer.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn read_request(reader: &mut BufReader<TcpStream>) -> Option<PostedEvent> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    assert!(line.starts_with("POST /hooks?of=sublet "), "{line}");
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length: usize = headers.get("content-length")?.parse().ok()?;
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(PostedEvent { headers, body: String::from_utf8(body).ok()? })
}

/// The real port: one that goes anywhere, as here, or only to the public internet.
pub fn webhook_port(clock: Arc<dyn Clock>, goes_anywhere: bool) -> Arc<dyn WebhookPort> {
    Arc::new(Webhooks::new(clock, goes_anywhere).expect("a port"))
}
