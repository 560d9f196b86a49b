//! Batches, in OpenAI's shape, with what ours say beyond it under `sublet`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{BatchId, FileId, KeyId, ProjectId};

use crate::money::Money;
use crate::object::{BatchTag, ListTag, Metadata};
use crate::schema::IdText;
use crate::time::UnixSeconds;

/// Many requests in one file, answered within a time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Batch {
    pub object: BatchTag,
    #[schemars(with = "IdText<BatchId>")]
    pub id: BatchId,
    /// What every line calls.
    pub endpoint: String,
    /// What is wrong with the file, or why lines ended without an answer; null if there is nothing to say.
    pub errors: Option<BatchErrors>,
    #[schemars(with = "IdText<FileId>")]
    pub input_file_id: FileId,
    pub completion_window: String,
    pub status: BatchStatus,
    /// The answers; null while it runs, and if there are none.
    #[schemars(with = "Option<IdText<FileId>>")]
    pub output_file_id: Option<FileId>,
    /// The lines that have no answer.
    #[schemars(with = "Option<IdText<FileId>>")]
    pub error_file_id: Option<FileId>,
    pub created_at: UnixSeconds,
    pub in_progress_at: Option<UnixSeconds>,
    /// When it ends with what it has by then.
    pub expires_at: UnixSeconds,
    pub finalizing_at: Option<UnixSeconds>,
    pub completed_at: Option<UnixSeconds>,
    pub failed_at: Option<UnixSeconds>,
    pub expired_at: Option<UnixSeconds>,
    pub cancelling_at: Option<UnixSeconds>,
    pub cancelled_at: Option<UnixSeconds>,
    pub request_counts: RequestCounts,
    /// What its answers used so far.
    pub usage: BatchUsage,
    pub metadata: Metadata,
    pub sublet: BatchExtension,
}

/// Where a batch is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
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

/// Problems of a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchErrors {
    pub object: ListTag,
    pub data: Vec<BatchError>,
}

/// One problem.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchError {
    pub code: String,
    pub message: String,
    pub param: Option<String>,
    /// The line of the input file, counted from 1; null if it is not about one.
    pub line: Option<u32>,
}

/// Lines by what became of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RequestCounts {
    pub total: u64,
    pub completed: u64,
    pub failed: u64,
}

/// Tokens of all answers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchUsage {
    pub input_tokens: u64,
    pub input_tokens_details: BatchInputDetails,
    pub output_tokens: u64,
    pub output_tokens_details: BatchOutputDetails,
    pub total_tokens: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchInputDetails {
    pub cached_tokens: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchOutputDetails {
    pub reasoning_tokens: u64,
}

/// What our batches say beyond OpenAI's.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchExtension {
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    /// The key that pays: the one that created the batch.
    #[schemars(with = "IdText<KeyId>")]
    pub key: KeyId,
    /// What it may cost; null until its file was read.
    pub quote: Option<BatchQuote>,
    /// When it will end if it goes on as it does; null while that cannot be said.
    pub forecast: Option<BatchForecast>,
}

/// An estimate from counted tokens. Nothing is held for it: each line is held for when it runs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchQuote {
    /// How many answers the lines ask for: one each, or as many as `n` and several prompts make.
    pub answers: u64,
    pub input_tokens: u64,
    pub output_tokens_max: u64,
    /// The input, and one token of output for each answer.
    pub least: Money,
    /// The input, and the most output.
    pub most: Money,
}

/// A look ahead.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BatchForecast {
    pub ends_at: UnixSeconds,
    /// False says early that lines will be left at the deadline.
    pub meets_deadline: bool,
}

/// The body that creates a batch.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateBatch {
    /// A file that was uploaded with the purpose `batch`: one JSON object on each line.
    #[schemars(with = "IdText<FileId>")]
    pub input_file_id: FileId,
    /// `/v1/chat/completions`, `/v1/completions`, `/v1/responses` or `/v1/embeddings`.
    pub endpoint: String,
    /// `24h`, or less in hours, minutes or seconds.
    pub completion_window: String,
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// How long the files of answers and errors are kept.
    #[serde(default)]
    pub output_expires_after: Option<ExpiresAfter>,
}

/// A life, counted from an instant.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExpiresAfter {
    pub anchor: Anchor,
    /// 3600 to 2592000.
    pub seconds: u32,
}

/// What a life is counted from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Anchor {
    CreatedAt,
}
