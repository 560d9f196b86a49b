//! Models that other servers answer for: what they are called here, and which replicas serve them.
//!
//! Deliberately absent: whether a replica is well now, which every gateway finds out for itself, and
//! the secrets that open replicas, of which this knows only the names.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::card::Cards;
use crate::error::{Error, ErrorCode, Result};
use crate::id::{OrganizationId, ReplicaId};
use crate::kv_events::KvEvents;
use crate::offering::Offerings;
use crate::quantity::TokenCount;
use crate::supplier::{CostPrice, SupplierTerms};
use crate::time::Timestamp;
use crate::tokenizer::TokenizerName;

/// Most replicas of one model.
pub const REPLICAS_MAX: usize = 256;
/// Longest address of a replica, in bytes.
const BASE_URL_BYTES_MAX: usize = 512;
/// Longest name of a secret, in bytes.
const SECRET_NAME_BYTES_MAX: usize = 64;

/// A model that replicas serve.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RemoteModel {
    /// What customers call it.
    pub name: String,
    pub owned_by: String,
    pub created_at: Timestamp,
    /// Prompt and output together, at most.
    pub context_window: TokenCount,
    /// Output tokens of one answer, at most.
    pub output_max: TokenCount,
    pub audience: Audience,
    /// Counts what its servers do not.
    pub tokenizer: Option<TokenizerName>,
    pub replicas: Vec<Arc<Replica>>,
}

/// Who may call a model.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    #[default]
    Everyone,
    /// Nobody else learns that it exists.
    Only(Vec<OrganizationId>),
}

impl Audience {
    pub fn admits(&self, organization: &OrganizationId) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(organizations) => organizations.contains(organization),
        }
    }
}

/// A server that speaks OpenAI's API.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Replica {
    pub id: ReplicaId,
    pub base_url: BaseUrl,
    /// What the server calls the model.
    pub upstream_model: String,
    /// Names the secret that opens it; `None` sends no key.
    pub secret: Option<SecretName>,
    pub engine: EngineKind,
    /// Where it publishes what its cache keeps, if it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_events: Option<KvEvents>,
    /// Requests of one gateway in flight at once, at most.
    pub in_flight_max: u32,
    pub state: ReplicaState,
    pub source: ReplicaSource,
    /// On which terms it is bought; nobody of the fleet has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<SupplierTerms>,
    /// What it costs, in the order of the instants from which on: they are kept beside it.
    #[serde(skip)]
    pub costs: Vec<CostPrice>,
}

/// What is known of a server's own ways.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EngineKind {
    Vllm,
    Sglang,
    LlamaCpp,
    /// Nothing beyond OpenAI's API.
    #[default]
    #[serde(rename = "openai")]
    OpenAi,
}

impl EngineKind {
    pub const ALL: [Self; 4] = [Self::Vllm, Self::Sglang, Self::LlamaCpp, Self::OpenAi];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::LlamaCpp => "llama_cpp",
            Self::OpenAi => "openai",
        }
    }
    /// Whether every event of a stream can carry the counts so far.
    pub const fn counts_while_streaming(self) -> bool {
        match self {
            Self::Vllm | Self::Sglang => true,
            Self::LlamaCpp | Self::OpenAi => false,
        }
    }
}

/// Whether new requests go to a replica.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaState {
    #[default]
    Serving,
    /// It ends what it has begun.
    Draining,
}

/// Whose hardware a replica is on.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReplicaSource {
    /// This fleet: an answer that is stopped costs nothing more.
    #[default]
    Fleet,
    /// Bought from outside: whatever it produces has to be paid, so the worst case is held before it is asked. It is
    /// asked only where its terms, its cost and the caller's organization allow it, and when the fleet has no place.
    Supplier,
}

/// `http://host:port/v1` or the like, without a slash at its end.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BaseUrl(Arc<str>);

impl BaseUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for BaseUrl {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(ErrorCode::InvalidRequest, format!("the base URL {why}"))
                .param("base_url")
                .alternative("http://127.0.0.1:8000/v1")
        };
        if text.len() > BASE_URL_BYTES_MAX {
            return Err(wrong("is too long"));
        }
        let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
        let rest = rest.ok_or_else(|| wrong("starts with neither http:// nor https://"))?;
        let host = rest.split('/').next().unwrap_or("");
        if host.is_empty() || host.starts_with(':') {
            return Err(wrong("names no host"));
        }
        if host.contains('@') {
            return Err(wrong("holds a password; name a secret instead"));
        }
        if text.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'?' | b'#' | b'"' | b'\\')) {
            return Err(wrong("has a query, a fragment or characters that do not belong there"));
        }
        Ok(Self(Arc::from(text.trim_end_matches('/'))))
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<BaseUrl> for String {
    fn from(url: BaseUrl) -> Self {
        url.0.to_string()
    }
}

/// The name of a secret that the operator keeps beside the data: a file's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SecretName(Arc<str>);

impl SecretName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for SecretName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let good = (1..=SECRET_NAME_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if good {
            return Ok(Self(Arc::from(text)));
        }
        Err(Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "a secret's name has 1 to {SECRET_NAME_BYTES_MAX} letters, digits, dashes and underscores; it is not the secret"
            ),
        )
        .param("secret"))
    }
}

impl TryFrom<String> for SecretName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<SecretName> for String {
    fn from(name: SecretName) -> Self {
        name.0.to_string()
    }
}

/// All remote models at one time.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct RemoteModels {
    pub models: BTreeMap<String, Arc<RemoteModel>>,
}

/// Knows the remote models.
pub trait Catalogue: Send + Sync {
    /// Answers from memory: every request asks. The same models are the same pointer.
    fn remote_models(&self) -> Arc<RemoteModels>;
    /// What is told of models, these and those that the engine serves; answered like them.
    fn cards(&self) -> Arc<Cards>;
    /// To whom they are sold; answered like them.
    fn offerings(&self) -> Arc<Offerings>;
}

/// Reads secrets by their names.
pub trait SecretSource: Send + Sync {
    /// The secret's text, without white space around it.
    fn read(&self, name: &SecretName) -> Result<String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked() {
        for (text, kept) in
            [("http://10.0.0.1:8000/v1/", "http://10.0.0.1:8000/v1"), ("https://a.example/x", "https://a.example/x")]
        {
            assert_eq!(text.parse::<BaseUrl>().map(|url| url.as_str().to_owned()), Ok(kept.to_owned()));
        }
        for text in ["", "ftp://a", "http://", "http://:80", "http://u:p@h/v1", "http://h/v1?x=1", "http://h/ v1", "h:80/v1"] {
            assert!(text.parse::<BaseUrl>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_secret_is_named_not_given() {
        assert!("vllm-a_1".parse::<SecretName>().is_ok());
        for text in ["", "../x", "sk.x", "a/b", &"x".repeat(65)] {
            assert!(text.parse::<SecretName>().is_err(), "{text}");
        }
    }
}
