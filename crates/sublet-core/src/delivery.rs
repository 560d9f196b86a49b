//! The port to where files are delivered: a directory, or a bucket of an object store.
//!
//! Invariants: a file is under its name whole or not at all, and the one before it stays until then; places and names are
//! parsed, so that none leads out of where it belongs; what an earlier attempt left unfinished is cleared by the next
//! one, which the earlier one, should it still run, cannot finish after that.
//!
//! Deliberately absent: when files are delivered, and reading them again.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::error::{Error, ErrorCode, Result};
use crate::id::ExportScheduleId;
use crate::supply::{BaseUrl, SecretName};

/// Longest folder, in bytes.
const FOLDER_BYTES_MAX: usize = 200;
/// Longest part of a folder, and longest name of a file, in bytes: what is put around it while it is written fits, too.
const PART_BYTES_MAX: usize = 100;

fn is_part(text: &str) -> bool {
    (1..=PART_BYTES_MAX).contains(&text.len())
        && !text.starts_with(['.', '-'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'))
}

fn invalid(message: String) -> Error {
    Error::new(ErrorCode::InvalidRequest, message)
}

fn shown(text: &str) -> String {
    text.chars().take(60).flat_map(char::escape_default).collect()
}

/// Folders below some root, such as `finance/focus`; empty is the root itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Default, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Folder(Arc<str>);

impl Folder {
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// Its parts, the outermost first.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/').filter(|part| !part.is_empty())
    }
}

impl FromStr for Folder {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text.len() > FOLDER_BYTES_MAX || !(text.is_empty() || text.split('/').all(is_part)) {
            return Err(invalid(format!(
                "'{}' is no folder: parts of letters, digits, dots, dashes and underscores, {FOLDER_BYTES_MAX} bytes in all, none of them beginning with a dot or a dash",
                shown(text)
            ))
            .alternative("finance/focus"));
        }
        Ok(Self(Arc::from(text)))
    }
}

/// What a file is called.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct FileName(Arc<str>);

impl FileName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for FileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for FileName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if is_part(text) { Ok(Self(Arc::from(text))) } else { Err(invalid(format!("'{}' is no name of a file", shown(text)))) }
    }
}

/// What a bucket is called, by the rules of S3.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BucketName(Arc<str>);

impl BucketName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for BucketName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let is_end = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        let bytes = text.as_bytes();
        let good = (3..=63).contains(&bytes.len())
            && is_end(bytes.first())
            && is_end(bytes.last())
            && bytes.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-'))
            && !text.contains("..");
        if !good {
            return Err(invalid(format!(
                "'{}' is no bucket: 3 to 63 lower-case letters, digits, dots and dashes, with a letter or digit at each end",
                shown(text)
            ))
            .param("bucket"));
        }
        Ok(Self(Arc::from(text)))
    }
}

/// A word that is part of a signature: a region, or the id of an access key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SigningWord(Arc<str>);

impl SigningWord {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for SigningWord {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let good = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if good {
            Ok(Self(Arc::from(text)))
        } else {
            Err(invalid(format!("'{}' is neither a region nor an access key's id", shown(text))))
        }
    }
}

macro_rules! text_of {
    ($($name:ident),+) => {
        $(
            impl TryFrom<String> for $name {
                type Error = Error;
                fn try_from(text: String) -> Result<Self> {
                    text.parse()
                }
            }
            impl From<$name> for String {
                fn from(name: $name) -> Self {
                    name.0.to_string()
                }
            }
        )+
    };
}
text_of!(Folder, BucketName, SigningWord);

/// Where files go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    /// Below the root that the server was started with.
    Directory {
        folder: Folder,
    },
    S3(Bucket),
}

/// A bucket, and as whom it is written.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bucket {
    /// Where the store is. The bucket is the first part of paths.
    pub endpoint: BaseUrl,
    pub region: SigningWord,
    pub bucket: BucketName,
    /// What keys begin with.
    #[serde(default)]
    pub prefix: Folder,
    pub access_key_id: SigningWord,
    /// Names the secret that has the access key's secret.
    pub secret: SecretName,
}

impl Bucket {
    /// The key of a file.
    pub fn key(&self, name: &FileName) -> String {
        let separator = if self.prefix.as_str().is_empty() { "" } else { "/" };
        format!("{}{separator}{name}", self.prefix.as_str())
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory { folder } => write!(f, "directory:{}", folder.as_str()),
            Self::S3(bucket) => {
                write!(f, "s3:{}/{}/{}", bucket.endpoint.as_str(), bucket.bucket.as_str(), bucket.prefix.as_str())
            }
        }
    }
}

/// A file to be delivered.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Delivered {
    pub target: Target,
    pub name: FileName,
    /// Who delivers it. Another one may come to the same name, and counts from the beginning.
    pub schedule: ExportScheduleId,
    /// Counts the attempts of the schedule: a later one has a higher number.
    pub attempt: i64,
}

/// Why a file was not delivered, for an operator to read. It may be tried again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DeliveryFailure(pub String);

/// Who delivers files.
pub trait DeliveryPort: Send + Sync {
    /// Begins a file, and clears what earlier attempts left.
    fn begin<'a>(&'a self, file: &'a Delivered) -> BoxFuture<'a, Result<Box<dyn Delivery>, DeliveryFailure>>;
}

/// A file on its way; dropping it leaves the one before it.
pub trait Delivery: Send {
    fn append(&mut self, bytes: Vec<u8>) -> BoxFuture<'_, Result<(), DeliveryFailure>>;
    /// When this returns, the file is whole and durable under its name.
    fn commit(self: Box<Self>) -> BoxFuture<'static, Result<(), DeliveryFailure>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_folder_and_no_name_leads_out_of_its_place() {
        let long = "x".repeat(PART_BYTES_MAX + 1);
        for (text, is_folder, is_name) in [
            ("", true, false),
            ("finance", true, true),
            ("finance/focus-1.2", true, false),
            ("..", false, false),
            ("finance/../..", false, false),
            ("/etc", false, false),
            ("finance/", false, false),
            ("finance//focus", false, false),
            (".hidden", false, false),
            ("a/.part", false, false),
            ("-rf", false, false),
            ("a b", false, false),
            ("a\0b", false, false),
            ("a\\b", false, false),
            ("büro", false, false),
            ("%2e%2e", false, false),
            (long.as_str(), false, false),
        ] {
            assert_eq!((text.parse::<Folder>().is_ok(), text.parse::<FileName>().is_ok()), (is_folder, is_name), "{text:?}");
        }
        assert!("abc/".repeat(60).trim_end_matches('/').parse::<Folder>().is_err(), "too long in all");
    }

    #[test]
    fn a_bucket_has_a_name_that_every_store_takes() {
        for (text, is_right) in [
            ("finance", true),
            ("finance.example-1", true),
            ("ab", false),
            ("Finance", false),
            ("-finance", false),
            ("finance-", false),
            ("a..b", false),
            ("a/b", false),
            ("a?b", false),
        ] {
            assert_eq!(text.parse::<BucketName>().is_ok(), is_right, "{text:?}");
        }
    }

    #[test]
    fn a_stored_target_is_read_again_and_a_forged_one_is_not() {
        let bucket = Bucket {
            endpoint: "http://127.0.0.1:9000".parse().unwrap(),
            region: "eu-central-1".parse().unwrap(),
            bucket: "finance".parse().unwrap(),
            prefix: "sublet/focus".parse().unwrap(),
            access_key_id: "AKIAIOSFODNN7EXAMPLE".parse().unwrap(),
            secret: "finance".parse().unwrap(),
        };
        let name: FileName = "focus.csv".parse().unwrap();
        assert_eq!(bucket.key(&name), "sublet/focus/focus.csv");
        assert_eq!(Bucket { prefix: Folder::default(), ..bucket.clone() }.key(&name), "focus.csv");
        for target in [Target::Directory { folder: "finance".parse().unwrap() }, Target::S3(bucket)] {
            let text = serde_json::to_string(&target).unwrap();
            assert_eq!(serde_json::from_str::<Target>(&text).unwrap(), target);
        }
        assert!(serde_json::from_str::<Target>(r#"{"kind":"directory","folder":"../.."}"#).is_err());
    }
}
