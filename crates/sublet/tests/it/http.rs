//! A small blocking HTTP/1.1 client: tests must see statuses, headers and single chunks, and must be
//! able to hang up in the middle. One connection for each request.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read, Result, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

/// Longest silence of a server before a test gives up.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Most header lines of an answer.
const HEADERS_MAX: usize = 64;
/// Largest body that is read whole, in bytes.
const BODY_BYTES_MAX: u64 = 32 * 1024 * 1024;

/// A request, built field by field.
#[derive(Clone)]
pub struct Ask {
    pub address: String,
    pub method: &'static str,
    pub path: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
}

impl Ask {
    pub fn new(address: &str, method: &'static str, path: &str) -> Self {
        Self { address: address.to_owned(), method, path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
    }
    pub fn key(self, key: &str) -> Self {
        self.header("authorization", format!("Bearer {key}"))
    }
    pub fn header(mut self, name: &'static str, value: String) -> Self {
        self.headers.push((name, value));
        self
    }
    pub fn json(self, body: &Value) -> Self {
        let mut asked = self.header("content-type", "application/json".to_owned());
        asked.body = body.to_string().into_bytes();
        asked
    }
    pub fn bytes(mut self, body: &[u8]) -> Self {
        self.body = body.to_vec();
        self
    }

    /// Sends the request and reads the head of the answer.
    pub fn open(self) -> Result<Opened> {
        let stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        stream.set_write_timeout(Some(SILENCE_MAX))?;
        stream.set_nodelay(true)?;
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n", self.method, self.path, self.address);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if self.method != "GET" || !self.body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut request = head.into_bytes();
        request.extend_from_slice(&self.body);
        // A server may answer and close before it has read a large body; the answer still counts.
        let sent = (&stream).write_all(&request);
        Opened::read(stream).map_err(|error| sent.err().unwrap_or(error))
    }

    /// Sends the request and reads the whole answer.
    pub fn send(self) -> Result<Answer> {
        let mut opened = self.open()?;
        let (status, headers) = (opened.status, std::mem::take(&mut opened.headers));
        let mut body = Vec::new();
        opened.body.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
        Ok(Answer { status, headers, body })
    }
}

/// A whole answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error} in {}: {}", self.status, self.text()))
    }
    /// The error code of a refusal, empty if there is none.
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        body["error"]["code"].as_str().unwrap_or_default().to_owned()
    }
    /// The object of a good answer.
    #[track_caller]
    pub fn good(self) -> Value {
        assert_eq!(self.status, 200, "{}", self.text());
        self.json()
    }
}

/// An answer whose body is still coming; dropping it hangs up.
pub struct Opened {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    body: Body,
}

impl Opened {
    fn read(stream: TcpStream) -> Result<Self> {
        let mut reader = BufReader::new(stream);
        let status_line = line(&mut reader)?;
        let status = status_line.split(' ').nth(1).and_then(|text| text.parse().ok()).ok_or(ErrorKind::InvalidData)?;
        let mut headers = Vec::new();
        for _ in 0..HEADERS_MAX {
            let text = line(&mut reader)?;
            let Some((name, value)) = text.split_once(':') else { break };
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let find = |name: &str| headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let left = match (find("transfer-encoding"), find("content-length")) {
            (Some("chunked"), _) => Left::Chunks { in_chunk: 0 },
            (_, Some(length)) => Left::Bytes(length.parse().map_err(|_| ErrorKind::InvalidData)?),
            _ => Left::UntilClosed,
        };
        Ok(Self { status, headers, body: Body { reader, left } })
    }

    /// The whole rest as text.
    pub fn text(self) -> Result<String> {
        let mut text = String::new();
        self.body.take(BODY_BYTES_MAX).read_to_string(&mut text)?;
        Ok(text)
    }

    /// The data of the server-sent events, `[DONE]` included. A broken connection is an error.
    pub fn events(self) -> Events {
        Events { reader: BufReader::new(self.body) }
    }
}

/// The data lines of a stream of server-sent events.
pub struct Events {
    reader: BufReader<Body>,
}

impl Iterator for Events {
    type Item = Result<String>;
    fn next(&mut self) -> Option<Result<String>> {
        loop {
            let mut text = String::new();
            match self.reader.read_line(&mut text) {
                Ok(0) => return None,
                Ok(_) => {}
                Err(error) => return Some(Err(error)),
            }
            if let Some(data) = text.trim_end().strip_prefix("data: ") {
                return Some(Ok(data.to_owned()));
            }
        }
    }
}

enum Left {
    Bytes(usize),
    Chunks { in_chunk: usize },
    UntilClosed,
    Nothing,
}

struct Body {
    reader: BufReader<TcpStream>,
    left: Left,
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        match self.left {
            Left::Nothing | Left::Bytes(0) => Ok(0),
            Left::UntilClosed => self.reader.read(buffer),
            Left::Bytes(left) => {
                let count = self.some(buffer, left)?;
                self.left = Left::Bytes(left - count);
                Ok(count)
            }
            Left::Chunks { in_chunk: 0 } => {
                let size = line(&mut self.reader)?;
                let size = usize::from_str_radix(size.trim(), 16).map_err(|_| ErrorKind::InvalidData)?;
                if size == 0 {
                    self.left = Left::Nothing;
                    return Ok(0);
                }
                self.left = Left::Chunks { in_chunk: size };
                self.read(buffer)
            }
            Left::Chunks { in_chunk } => {
                let count = self.some(buffer, in_chunk)?;
                if count == in_chunk {
                    line(&mut self.reader)?;
                }
                self.left = Left::Chunks { in_chunk: in_chunk - count };
                Ok(count)
            }
        }
    }
}

impl Body {
    fn some(&mut self, buffer: &mut [u8], left: usize) -> Result<usize> {
        let wanted = buffer.len().min(left);
        match self.reader.read(&mut buffer[..wanted])? {
            0 if wanted > 0 => Err(ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }
}

fn line(reader: &mut impl BufRead) -> Result<String> {
    let mut text = String::new();
    if reader.read_line(&mut text)? == 0 {
        return Err(Error::from(ErrorKind::UnexpectedEof));
    }
    Ok(text.trim_end().to_owned())
}
