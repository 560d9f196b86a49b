//! The port to whoever delivers mail.
//!
//! A message is the same whenever it is sent: its id and instant are those of the row that it was queued in, so that
//! a repeat is recognised. Addresses are parsed: one that exists cannot end a line or a bracket.
//!
//! Deliberately absent: HTML, and addresses that are not ASCII (RFC 6531).

use std::fmt;
use std::str::FromStr;

use crate::BoxFuture;
use crate::error::{Error, ErrorCode, Result};
use crate::id::OutboxId;
use crate::time::Timestamp;

/// Longest address, in bytes (RFC 5321, 4.5.3.1.3, less its brackets).
pub const ADDRESS_BYTES_MAX: usize = 254;
/// Longest name before the @, in bytes (RFC 5321, 4.5.3.1.1).
const NAME_BYTES_MAX: usize = 64;
/// Longest label of a host, in bytes (RFC 1035).
const LABEL_BYTES_MAX: usize = 63;

/// Where mail is sent to, or comes from.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct MailAddress(String);

impl MailAddress {
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// What is behind the @.
    pub fn host(&self) -> &str {
        self.0.rsplit_once('@').map_or("", |(_, host)| host)
    }
}

impl fmt::Display for MailAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MailAddress {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('@').filter(|(name, host)| is_name(name) && is_host(host));
        if parts.is_none() || text.len() > ADDRESS_BYTES_MAX {
            let shown: String = text.chars().take(60).flat_map(char::escape_default).collect();
            return Err(Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not an address for mail"))
                .alternative("billing@example.com"));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A dot-atom of RFC 5322; quoted names are nobody's.
fn is_name(name: &str) -> bool {
    let is_atom = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    name.len() <= NAME_BYTES_MAX && name.split('.').all(|atom| !atom.is_empty() && atom.bytes().all(is_atom))
}

fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        (1..=LABEL_BYTES_MAX).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    host.split('.').all(is_label)
}

/// A file that comes with a message.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Attachment {
    pub name: String,
    /// Such as `application/pdf`.
    pub media_type: &'static str,
    pub content: Vec<u8>,
}

/// A message as it is sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Message {
    /// The same for every repeat.
    pub id: OutboxId,
    pub from: MailAddress,
    /// At least one.
    pub to: Vec<MailAddress>,
    /// One line.
    pub subject: String,
    /// Plain text; lines end with `\n`.
    pub text: String,
    pub attachments: Vec<Attachment>,
    pub written_at: Timestamp,
}

/// Why a message was not delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum MailFailure {
    /// It will not be taken, however often it is sent.
    Refused(String),
    /// It was not taken now, or nobody knows: it is to be sent again.
    Unclear(String),
}

/// Who delivers mail. A message may be sent again.
pub trait MailPort: Send + Sync {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), MailFailure>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_exists_is_one_word_with_a_host() {
        let long = format!("{}@example.com", "x".repeat(65));
        let label = format!("a@{}.com", "x".repeat(64));
        for (text, is_right) in [
            ("billing@example.com", true),
            ("o'neil+invoices@sub.example.co", true),
            ("sublet@localhost", true),
            ("", false),
            ("billing", false),
            ("@example.com", false),
            ("billing@", false),
            ("a@b@example.com", false),
            (".a@example.com", false),
            ("a..b@example.com", false),
            ("a@example..com", false),
            ("a@-example.com", false),
            ("a b@example.com", false),
            ("a@example.com\r\nBcc: all@example.com", false),
            ("a@example.com>", false),
            ("a@example.com,b@example.com", false),
            ("\"a\"@example.com", false),
            ("bücher@example.com", false),
            ("a@bücher.example", false),
            (long.as_str(), false),
            (label.as_str(), false),
        ] {
            assert_eq!(text.parse::<MailAddress>().is_ok(), is_right, "{text:?}");
        }
        assert_eq!("a@example.com".parse::<MailAddress>().unwrap().host(), "example.com");
    }
}
