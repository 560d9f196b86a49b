//! Batches: many requests in one file, and the port through which one line of them is served.
//!
//! Deliberately absent: how lines are read from a file and answers written into one (`sublet-cloud`), and
//! the shapes of requests and answers (`sublet-gateway`).

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::BoxFuture;
use crate::admission::Access;
use crate::error::{Error, ErrorCode, Result};
use crate::id::{BatchId, RequestId};
use crate::money::Nanos;
use crate::quantity::TokenCount;
use crate::tier::ServiceTier;

/// What the lines of a batch call.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum LineEndpoint {
    #[serde(rename = "/v1/chat/completions")]
    ChatCompletions,
    #[serde(rename = "/v1/completions")]
    Completions,
    #[serde(rename = "/v1/responses")]
    Responses,
    #[serde(rename = "/v1/embeddings")]
    Embeddings,
}

/// An endpoint that lines of other clouds call, and the ones of this cloud cannot.
const MODERATIONS: &str = "/v1/moderations";

impl LineEndpoint {
    pub const ALL: [Self; 4] = [Self::ChatCompletions, Self::Completions, Self::Responses, Self::Embeddings];

    /// The path as a line names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ChatCompletions => "/v1/chat/completions",
            Self::Completions => "/v1/completions",
            Self::Responses => "/v1/responses",
            Self::Embeddings => "/v1/embeddings",
        }
    }
}

impl fmt::Display for LineEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for LineEndpoint {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        if text == MODERATIONS {
            return Err(Error::no_moderations().param("endpoint"));
        }
        Self::ALL.into_iter().find(|endpoint| endpoint.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            let error = Error::new(ErrorCode::UnsupportedField, format!("batches do not call '{shown}'")).param("endpoint");
            Self::ALL.into_iter().fold(error, |error, endpoint| error.alternative(endpoint.as_str()))
        })
    }
}

/// Where a batch is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BatchStatus {
    Validating,
    /// Its file was refused; nothing was run.
    Failed,
    InProgress,
    /// Its files are being written.
    Finalizing,
    Completed,
    /// Its time was over before its lines were.
    Expired,
    Cancelling,
    Cancelled,
}

impl BatchStatus {
    pub const ALL: [Self; 8] = [
        Self::Validating,
        Self::Failed,
        Self::InProgress,
        Self::Finalizing,
        Self::Completed,
        Self::Expired,
        Self::Cancelling,
        Self::Cancelled,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Validating => "validating",
            Self::Failed => "failed",
            Self::InProgress => "in_progress",
            Self::Finalizing => "finalizing",
            Self::Completed => "completed",
            Self::Expired => "expired",
            Self::Cancelling => "cancelling",
            Self::Cancelled => "cancelled",
        }
    }
    /// Nothing more happens to it.
    pub const fn has_ended(self) -> bool {
        match self {
            Self::Failed | Self::Completed | Self::Expired | Self::Cancelled => true,
            Self::Validating | Self::InProgress | Self::Finalizing | Self::Cancelling => false,
        }
    }
}

impl FromStr for BatchStatus {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| Error::new(ErrorCode::InvalidRequest, format!("'{text}' is not a status of a batch")))
    }
}

/// One line of one batch, counted from 1.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub struct LineName {
    pub batch: BatchId,
    pub number: u32,
}

/// What a line would use, as far as that is known before it runs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineEstimate {
    /// How many it asks for: what of it is worked on at once.
    pub answers: u32,
    /// Exact.
    pub input: TokenCount,
    /// The most that the request, the model and its context allow.
    pub output_max: TokenCount,
    /// The input and one token of each answer.
    pub least: Nanos,
    /// The input and the most output.
    pub most: Nanos,
}

/// One line to be served.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LineRequest {
    pub access: Arc<Access>,
    pub endpoint: LineEndpoint,
    pub body: Vec<u8>,
    pub request: RequestId,
    /// With the request the identity of what is charged; see [`crate::usage::UsageRecord`].
    pub attempt: u32,
    pub name: LineName,
    /// Before whom it is served; it costs the same at every tier.
    pub tier: ServiceTier,
}

/// How serving a line ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LineEnd {
    /// The answer and its usage are durable in one record; settling it writes both.
    Recorded,
    /// An answer without output: free of charge and kept nowhere.
    Free { body: String },
    /// Not served and not charged. `body` is the error in the shape of the endpoint.
    Refused { error: Error, status: u16, body: String },
    /// It may or may not be durable: only the next start knows, and until then it must not be repeated.
    Unknown,
}

/// Serves single lines through the same admission, holds and records as every request.
pub trait LineServer: Send + Sync {
    /// Reads a line as serving it would, without its money.
    fn estimate(&self, access: Arc<Access>, endpoint: LineEndpoint, body: Vec<u8>) -> BoxFuture<'_, Result<LineEstimate>>;
    /// Dropped before its end, it leaves either nothing or a record.
    fn serve(&self, line: LineRequest) -> BoxFuture<'_, LineEnd>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_read_back() {
        for endpoint in LineEndpoint::ALL {
            assert_eq!(endpoint.as_str().parse::<LineEndpoint>().ok(), Some(endpoint));
            assert_eq!(serde_json::to_string(&endpoint).unwrap(), format!("\"{endpoint}\""));
        }
        for status in BatchStatus::ALL {
            assert_eq!(status.as_str().parse::<BatchStatus>().ok(), Some(status));
        }
    }

    #[test]
    fn an_endpoint_that_is_not_served_is_refused_by_name() {
        let error = "/v1/videos".parse::<LineEndpoint>().unwrap_err();
        assert_eq!((error.code(), error.param_name()), (ErrorCode::UnsupportedField, Some("endpoint")));
        assert!(error.to_string().contains("/v1/videos") && error.alternatives().len() == 4);
        let error = "/v1/moderations".parse::<LineEndpoint>().unwrap_err();
        assert_eq!((error.code(), error.param_name()), (ErrorCode::NotOffered, Some("endpoint")));
    }
}
