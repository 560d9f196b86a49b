//! What a file is for.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorCode};

/// Why a file was uploaded, or which work made it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum FilePurpose {
    Batch,
    /// Written by a batch; clients do not upload it.
    BatchOutput,
    FineTune,
    Assistants,
    Vision,
    UserData,
    Evals,
}

impl FilePurpose {
    pub const ALL: [Self; 7] =
        [Self::Batch, Self::BatchOutput, Self::FineTune, Self::Assistants, Self::Vision, Self::UserData, Self::Evals];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Batch => "batch",
            Self::BatchOutput => "batch_output",
            Self::FineTune => "fine-tune",
            Self::Assistants => "assistants",
            Self::Vision => "vision",
            Self::UserData => "user_data",
            Self::Evals => "evals",
        }
    }
    /// Whether a client may upload with it.
    pub const fn is_uploaded(self) -> bool {
        match self {
            Self::BatchOutput => false,
            Self::Batch | Self::FineTune | Self::Assistants | Self::Vision | Self::UserData | Self::Evals => true,
        }
    }
}

impl fmt::Display for FilePurpose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for FilePurpose {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|purpose| purpose.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            let error = Error::new(ErrorCode::InvalidRequest, format!("'{shown}' is not a purpose of files")).param("purpose");
            Self::ALL
                .into_iter()
                .filter(|purpose| purpose.is_uploaded())
                .fold(error, |error, known| error.alternative(known.as_str()))
        })
    }
}
impl TryFrom<String> for FilePurpose {
    type Error = Error;
    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}
impl From<FilePurpose> for String {
    fn from(purpose: FilePurpose) -> Self {
        purpose.as_str().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_read_back_and_outputs_are_not_uploaded() {
        for purpose in FilePurpose::ALL {
            assert_eq!(purpose.as_str().parse::<FilePurpose>().ok(), Some(purpose));
        }
        let error = "nonsense".parse::<FilePurpose>().unwrap_err();
        assert!(error.alternatives().iter().all(|known| known != "batch_output"));
    }
}
