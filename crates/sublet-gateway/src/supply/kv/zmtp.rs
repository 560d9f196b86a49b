//! ZMTP 3.0, the wire protocol of ZeroMQ, as far as a subscriber needs it (<https://rfc.zeromq.org/spec/23/>).
//!
//! Invariant: nothing is allocated for a length that was only announced; messages are bounded.

use std::io::{Error, ErrorKind, Result};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Longest part of a message, in bytes: a batch of events about some hundred thousand tokens.
pub(super) const PART_BYTES_MAX: u64 = 1_024 * 1_024;
/// Parts of one message.
const PARTS_MAX: usize = 8;
const GREETING_BYTES: usize = 64;
/// Where a greeting says which version it speaks, and its mechanism.
const VERSION_AT: usize = 10;
const MECHANISM: std::ops::Range<usize> = 12..32;

const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A connection that is subscribed to everything of a publisher.
#[derive(Debug)]
pub(super) struct Subscriber<S> {
    stream: S,
}

struct Part {
    flags: u8,
    body: Vec<u8>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Subscriber<S> {
    /// Shakes hands without security, which is all that engines offer, and subscribes.
    pub async fn open(mut stream: S) -> Result<Self> {
        stream.write_all(&greeting()).await?;
        let mut theirs = [0; GREETING_BYTES];
        stream.read_exact(&mut theirs).await?;
        if theirs[0] != 0xff || theirs[9] & 1 != 1 || theirs[VERSION_AT] < 3 {
            return Err(wrong("it does not speak ZMTP 3"));
        }
        if theirs[MECHANISM] != greeting()[MECHANISM] {
            return Err(wrong("it demands security that is not supported here"));
        }
        let mut subscriber = Self { stream };
        subscriber.send(COMMAND, b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB").await?;
        let ready = subscriber.part().await?;
        if ready.flags & COMMAND == 0 || !ready.body.starts_with(b"\x05READY") {
            return Err(wrong("it refuses a subscriber"));
        }
        // One, and the beginning of the topics: all have an empty one.
        subscriber.send(0, &[1]).await?;
        Ok(subscriber)
    }

    /// The parts of the next message.
    pub async fn next(&mut self) -> Result<Vec<Vec<u8>>> {
        let mut parts = Vec::new();
        loop {
            let part = self.part().await?;
            if part.flags & COMMAND != 0 {
                continue;
            }
            if parts.len() == PARTS_MAX {
                return Err(wrong("a message has too many parts"));
            }
            parts.push(part.body);
            if part.flags & MORE == 0 {
                return Ok(parts);
            }
        }
    }

    async fn part(&mut self) -> Result<Part> {
        let flags = self.stream.read_u8().await?;
        let length = if flags & LONG != 0 { self.stream.read_u64().await? } else { u64::from(self.stream.read_u8().await?) };
        if length > PART_BYTES_MAX {
            return Err(wrong("a message is too long"));
        }
        let mut body = Vec::new();
        let read = (&mut self.stream).take(length).read_to_end(&mut body).await?;
        if u64::try_from(read).is_ok_and(|read| read == length) {
            Ok(Part { flags, body })
        } else {
            Err(ErrorKind::UnexpectedEof.into())
        }
    }

    /// What is sent is short.
    async fn send(&mut self, flags: u8, body: &[u8]) -> Result<()> {
        let mut bytes = vec![flags, u8::try_from(body.len()).map_err(|_| wrong("a message of ours is too long"))?];
        bytes.extend_from_slice(body);
        self.stream.write_all(&bytes).await
    }
}

pub(super) fn greeting() -> [u8; GREETING_BYTES] {
    let mut greeting = [0; GREETING_BYTES];
    (greeting[0], greeting[9], greeting[VERSION_AT]) = (0xff, 0x7f, 3);
    greeting[MECHANISM][..4].copy_from_slice(b"NULL");
    greeting
}

fn wrong(what: &str) -> Error {
    Error::new(ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a publisher says after its greeting, to a subscriber that asks for one message.
    async fn told(greeted: [u8; GREETING_BYTES], said: &[u8]) -> Result<Vec<Vec<u8>>> {
        let (ours, mut theirs) = tokio::io::duplex(1 << 16);
        theirs.write_all(&greeted).await.unwrap();
        theirs.write_all(said).await.unwrap();
        theirs.shutdown().await.unwrap();
        Subscriber::open(ours).await?.next().await
    }

    const READY: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB";

    #[tokio::test]
    async fn a_message_is_its_parts_however_they_are_written() {
        let said = [READY, b"\x04\x05\x04PING", b"\x01\x00\x01\x02ab", b"\x02\x00\x00\x00\x00\x00\x00\x00\x01c"].concat();
        assert_eq!(told(greeting(), &said).await.unwrap(), [b"".to_vec(), b"ab".to_vec(), b"c".to_vec()]);
    }

    #[tokio::test]
    async fn what_is_no_publisher_is_refused() {
        let mut old = greeting();
        old[VERSION_AT] = 1;
        let mut secured = greeting();
        secured[MECHANISM][..5].copy_from_slice(b"CURVE");
        for (greeted, said, what) in [
            (
                *b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"[..64].first_chunk().unwrap(),
                READY.to_vec(),
                "ZMTP 3",
            ),
            (old, READY.to_vec(), "ZMTP 3"),
            (secured, READY.to_vec(), "security"),
            (greeting(), b"\x04\x08\x05ERROR\x01x".to_vec(), "refuses"),
            (greeting(), [READY, b"\x02\x00\x00\x00\x00\x7f\x00\x00\x00"].concat(), "too long"),
            (greeting(), [READY, b"\x02\xff\xff\xff\xff\xff\xff\xff\xff"].concat(), "too long"),
            (greeting(), [READY, b"\x01\x00".repeat(9).as_slice()].concat(), "too many"),
        ] {
            let error = told(greeted, &said).await.unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
        }
        for cut in [b"".as_slice(), b"\x00", b"\x00\x05abc", b"\x02\x00\x00"] {
            assert_eq!(told(greeting(), &[READY, cut].concat()).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
        }
    }
}
