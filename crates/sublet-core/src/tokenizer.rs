//! Counting by a model's own tokenizer, for models whose servers do not count.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::engine::Prompt;
use crate::error::{Error, ErrorCode, Result};
use crate::quantity::TokenCount;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 64;

/// The name of a tokenizer that the operator keeps beside the data: a folder's name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TokenizerName(Arc<str>);

impl TokenizerName {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for TokenizerName {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let good = (1..=NAME_BYTES_MAX).contains(&text.len())
            && !text.starts_with('.')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        if good {
            return Ok(Self(Arc::from(text)));
        }
        let message = format!("a tokenizer's name has 1 to {NAME_BYTES_MAX} letters, digits, dashes, underscores and dots");
        Err(Error::new(ErrorCode::InvalidRequest, message).param("tokenizer").alternative("llama-3.1"))
    }
}

impl TryFrom<String> for TokenizerName {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}
impl From<TokenizerName> for String {
    fn from(name: TokenizerName) -> Self {
        name.0.to_string()
    }
}

/// Counts as the model does.
pub trait TokenCounter: Send + Sync {
    /// The ids of a prompt's tokens, as the engine has them; an error where they cannot be known.
    fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>>;
    /// A prompt with all that the model's template and its tokenizer put around it.
    fn count_prompt(&self, prompt: &Prompt) -> Result<TokenCount>;
    /// A text by itself.
    fn count_text(&self, text: &str) -> Result<TokenCount>;
}

/// Knows tokenizers by their names.
pub trait Tokenizers: Send + Sync {
    /// Reads files when it is asked for one the first time: not for the threads of requests.
    fn open(&self, name: &TokenizerName) -> Result<Arc<dyn TokenCounter>>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_part_of_a_path() {
        for (text, good) in [
            ("llama-3.1_8b", true),
            ("a", true),
            ("", false),
            (".", false),
            ("..", false),
            (".hidden", false),
            ("a/b", false),
            ("a\\b", false),
            ("é", false),
            ("a b", false),
        ] {
            assert_eq!(text.parse::<TokenizerName>().is_ok(), good, "{text}");
        }
        assert!("a".repeat(65).parse::<TokenizerName>().is_err());
    }
}
