//! `credentials.json`: what the first start of a cloud writes and commands read.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sublet_api::client::Keys;
use sublet_api::key::SecretText;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::key::{KeyPlane, Secret};

/// Name of the file in a data directory.
pub const CREDENTIALS_FILE: &str = "credentials.json";
/// Largest file that is read, in bytes.
const CREDENTIALS_BYTES_MAX: u64 = 64 * 1024;

/// The first keys of a cloud and where it listens. The file's mode is 0600.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Credentials {
    /// Base address for OpenAI's clients: ends in `/v1`.
    pub api_base: String,
    pub console_url: String,
    pub operator_key: SecretText,
    pub admin_key: SecretText,
    pub project_key: SecretText,
    /// A model that answers.
    pub model: String,
}

impl Credentials {
    /// Reads the file of a data directory; `None` if there is none.
    pub fn find(data_dir: &Path) -> Result<Option<Self>> {
        let path = data_dir.join(CREDENTIALS_FILE);
        let size = match std::fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(unusable(&path, &error.to_string())),
        };
        if size > CREDENTIALS_BYTES_MAX {
            return Err(unusable(&path, "it is too large"));
        }
        let text = std::fs::read_to_string(&path).map_err(|error| unusable(&path, &error.to_string()))?;
        serde_json::from_str(&text).map(Some).map_err(|error| unusable(&path, &error.to_string()))
    }

    pub fn keys(&self) -> Keys {
        Keys {
            project: Some(self.project_key.clone()),
            admin: Some(self.admin_key.clone()),
            operator: Some(self.operator_key.clone()),
        }
    }
}

/// Sorts keys by the plane their prefix names.
pub fn keys_by_plane(texts: impl IntoIterator<Item = String>) -> Result<Keys> {
    let mut keys = Keys::default();
    for text in texts {
        let secret: Secret = text.parse()?;
        let slot = match secret.plane() {
            KeyPlane::Project => &mut keys.project,
            KeyPlane::Admin => &mut keys.admin,
            KeyPlane::Operator => &mut keys.operator,
        };
        *slot = Some(SecretText::new(secret.reveal()));
    }
    Ok(keys)
}

fn unusable(path: &Path, why: &str) -> Error {
    Error::new(ErrorCode::Usage, format!("{} cannot be used: {why}", path.display()))
        .alternative("name another data directory with --data-dir, or give --url and a key")
}
