//! Secrets of other servers: one file each, in a folder of the data directory.

use std::path::PathBuf;

use sublet_core::supply::{SecretName, SecretSource};
use sublet_core::{Error, Result};

/// Longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 8 * 1024;

/// The folder `secrets`.
pub struct SecretFiles {
    folder: PathBuf,
}

impl SecretFiles {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder }
    }
}

impl SecretSource for SecretFiles {
    fn read(&self, name: &SecretName) -> Result<String> {
        // A name is one part of a path: it has neither dots nor slashes.
        let path = self.folder.join(name.as_str());
        let text = std::fs::read_to_string(&path).map_err(|error| Error::internal(format!("{}: {error}", path.display())))?;
        let secret = text.trim();
        if secret.is_empty() || secret.len() > SECRET_BYTES_MAX {
            return Err(Error::internal(format!("{} does not hold 1 to {SECRET_BYTES_MAX} bytes", path.display())));
        }
        Ok(secret.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_file_without_white_space_around_it() {
        let folder = tempfile::tempdir().unwrap();
        let secrets = SecretFiles::new(folder.path().to_owned());
        std::fs::write(folder.path().join("good"), "  sk-1\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let read = |name: &str| secrets.read(&name.parse().unwrap());
        assert_eq!(read("good").ok().as_deref(), Some("sk-1"));
        assert!(read("empty").is_err() && read("missing").is_err());
    }
}
