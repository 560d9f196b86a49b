//! Models, as the operator sees them. What callers see is OpenAI's shape.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::object::ServedModelTag;
use crate::time::UnixSeconds;

/// A model this cloud serves.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ServedModel {
    pub object: ServedModelTag,
    /// The name callers use.
    pub id: String,
    pub owned_by: String,
    /// Prompt and output together, in tokens.
    pub context_window: u64,
    pub vocabulary: u64,
    pub has_chat_template: bool,
    /// A price is in force; without one it is not served.
    pub priced: bool,
    pub created_at: UnixSeconds,
}

/// Body that imports a model from a directory or file on the server.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportModel {
    /// A directory in Hugging Face's format, or a GGUF file, on the server.
    pub path: String,
    /// The name callers will use; the directory's or file's name if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}
