//! Server-sent events of a streamed chat, one chunk after the other.

use std::io::{BufRead, BufReader, Read};

use sublet_core::error::{Error, ErrorCode, Result};

use crate::error::ErrorBody;
use crate::openai::ChatChunk;

/// Longest line of an event stream, in bytes.
const LINE_BYTES_MAX: u64 = 1024 * 1024;

/// The chunks of a streamed answer. Dropping it before its end cancels the request.
pub struct Chunks {
    reader: BufReader<Box<dyn Read + Send>>,
    done: bool,
}

impl Chunks {
    pub(super) fn new(body: Box<dyn Read + Send>) -> Self {
        Self { reader: BufReader::new(body), done: false }
    }

    fn read(&mut self) -> Result<Option<ChatChunk>> {
        loop {
            let mut line = Vec::new();
            let read = self.reader.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
            let count = read.map_err(|error| broken(&error.to_string()))?;
            if count == 0 {
                return Err(broken("the connection ended before the answer did"));
            }
            if line.last() != Some(&b'\n') {
                return Err(broken("a line of the answer is too long or cut"));
            }
            // Comments (heartbeats), `event:` lines and blank lines carry nothing here.
            let Some(data) = line.trim_ascii().strip_prefix(b"data:") else { continue };
            let data = data.trim_ascii();
            if data == b"[DONE]" {
                return Ok(None);
            }
            if let Ok(body) = serde_json::from_slice::<ErrorBody>(data) {
                return Err(body.into_error(500));
            }
            return serde_json::from_slice(data).map(Some).map_err(|error| broken(&error.to_string()));
        }
    }
}

impl Iterator for Chunks {
    type Item = Result<ChatChunk>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        let chunk = self.read().transpose();
        self.done = !matches!(chunk, Some(Ok(_)));
        chunk
    }
}

fn broken(what: &str) -> Error {
    Error::new(ErrorCode::Unreachable, format!("the stream broke: {what}"))
        .alternative("what was delivered is charged; ask again for the rest")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunks(text: &'static str) -> Vec<Result<ChatChunk>> {
        Chunks::new(Box::new(text.as_bytes())).collect()
    }

    const CHUNK: &str = r#"{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}"#;

    #[test]
    fn a_stream_ends_at_done_and_skips_comments() {
        let text: &'static str = Box::leak(format!(": ping\n\ndata: {CHUNK}\n\ndata: [DONE]\n\n").into_boxed_str());
        let read = chunks(text);
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].as_ref().unwrap().choices[0].delta.content.as_deref(), Some("hi"));
    }

    #[test]
    fn a_stream_that_stops_early_or_fails_says_so() {
        let cut: &'static str = Box::leak(format!("data: {CHUNK}\n\n").into_boxed_str());
        assert_eq!(chunks(cut).pop().unwrap().unwrap_err().code(), ErrorCode::Unreachable);
        let failed = "data: {\"error\":{\"message\":\"m\",\"type\":\"t\",\"code\":\"queue_full\",\"param\":null}}\n\n";
        assert_eq!(chunks(failed).pop().unwrap().unwrap_err().code(), ErrorCode::QueueFull);
    }
}
