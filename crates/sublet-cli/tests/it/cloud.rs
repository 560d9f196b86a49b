//! A server that answers with what a test wrote down and remembers what it was asked.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use serde_json::Value;

/// What the server was asked.
#[derive(Clone, Debug)]
pub struct Asked {
    /// `GET /v1/jobs?limit=2`.
    pub line: String,
    pub headers: Vec<(String, String)>,
    pub body: Value,
    /// The body as it came.
    pub text: String,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
    }
}

/// What the server answers.
#[derive(Clone, Debug)]
pub enum Answer {
    Json(u16, Value),
    /// Chunks of text; without the end when `cut`.
    Text {
        chunks: Vec<&'static str>,
        cut: bool,
    },
    /// Somewhere else.
    Redirect(String),
    /// Anything else, with its status.
    Raw(u16, &'static str),
}

#[derive(Default)]
struct Script {
    /// For `METHOD /path`: answers in order; the last one stays.
    answers: Vec<(String, VecDeque<Answer>)>,
    asked: Vec<Asked>,
}

pub struct Cloud {
    address: SocketAddr,
    script: Arc<Mutex<Script>>,
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Cloud {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::default()));
        let stopping = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (script.clone(), stopping.clone());
        let thread = std::thread::spawn(move || {
            for connection in listener.incoming() {
                if stop.load(Ordering::Acquire) {
                    return;
                }
                serve(connection.unwrap(), &shared);
            }
        });
        Self { address, script, stopping, thread: Some(thread) }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes down an answer to `METHOD /path`; several are given one after the other.
    pub fn answers(&self, line: &str, answer: Answer) -> &Self {
        let mut script = self.script.lock().unwrap();
        match script.answers.iter_mut().find(|(known, _)| known == line) {
            Some((_, answers)) => answers.push_back(answer),
            None => script.answers.push((line.to_owned(), VecDeque::from([answer]))),
        }
        drop(script);
        self
    }

    pub fn gives(&self, line: &str, value: Value) -> &Self {
        self.answers(line, Answer::Json(200, value))
    }

    pub fn asked(&self) -> Vec<Asked> {
        self.script.lock().unwrap().asked.clone()
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked().into_iter().map(|asked| asked.line).collect()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        // Wakes the accepting thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the scripted server failed");
        }
    }
}

fn serve(connection: TcpStream, script: &Mutex<Script>) {
    let mut reader = BufReader::new(connection.try_clone().unwrap());
    let Some(asked) = read_request(&mut reader) else { return };
    let answer = {
        let mut script = script.lock().unwrap();
        let target = asked.line.split('?').next().unwrap().to_owned();
        script.asked.push(asked.clone());
        let found = script.answers.iter_mut().find(|(line, _)| *line == target);
        match found {
            Some((_, answers)) if answers.len() > 1 => answers.pop_front(),
            Some((_, answers)) => answers.front().cloned(),
            None => None,
        }
    };
    let unknown = Answer::Json(404, refusal("unknown_url", &format!("nothing was written down for {}", asked.line)));
    write_answer(connection, &answer.unwrap_or(unknown));
}

fn read_request(reader: &mut impl BufRead) -> Option<Asked> {
    let mut line = String::new();
    reader.read_line(&mut line).ok()?;
    let mut words = line.split_whitespace();
    let line = format!("{} {}", words.next()?, words.next()?);
    let mut headers = Vec::new();
    loop {
        let mut header = String::new();
        reader.read_line(&mut header).ok()?;
        match header.trim_end().split_once(": ") {
            Some((name, value)) => headers.push((name.to_ascii_lowercase(), value.to_owned())),
            None => break,
        }
    }
    let length = headers.iter().find(|(name, _)| name == "content-length").map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let text = String::from_utf8_lossy(&body).into_owned();
    Some(Asked { line, headers, body: serde_json::from_slice(&body).unwrap_or(Value::Null), text })
}

fn write_answer(mut connection: TcpStream, answer: &Answer) {
    let (status, kind, body) = match answer {
        Answer::Json(status, value) => (*status, "application/json", value.to_string()),
        Answer::Redirect(to) => {
            let text = format!("HTTP/1.1 307 X\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            let _ = connection.write_all(text.as_bytes());
            return;
        }
        Answer::Raw(status, text) => (*status, "text/html", (*text).to_owned()),
        Answer::Text { chunks, cut } => {
            // Said, because the client would use the connection for its next request otherwise.
            let head = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n";
            let mut text = head.to_owned();
            for chunk in chunks {
                text.push_str(&format!("{:x}\r\n{chunk}\r\n", chunk.len()));
            }
            if !cut {
                text.push_str("0\r\n\r\n");
            }
            // A client that has seen enough may be gone.
            let _ = connection.write_all(text.as_bytes());
            return;
        }
    };
    let retry = if status == 429 { "retry-after: 7\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n",
        body.len()
    );
    let _ = connection.write_all(format!("{head}{body}").as_bytes());
}

/// An error envelope.
pub fn refusal(code: &str, message: &str) -> Value {
    serde_json::json!({"error": {
        "message": message, "type": "invalid_request_error", "code": code, "param": null,
        "request_id": "req_7", "doc_url": format!("/errors/{code}"), "alternatives": ["do the other thing"],
    }})
}
