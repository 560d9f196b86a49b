//! The data directory: one process at a time, secrets readable by their owner only.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sublet_core::id::GatewayId;
use sublet_core::{Error, ErrorCode, IdMint, Result};

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// An opened data directory; the lock is held as long as this lives.
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

/// What a new cloud tells its owner, in `credentials.json`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Credentials {
    pub api_base: String,
    pub console_url: String,
    pub operator_key: String,
    pub admin_key: String,
    pub project_key: String,
    /// The internal team's project key.
    pub internal_key: String,
    pub model: String,
}

impl DataDirectory {
    /// Creates the directory if it is missing and locks it.
    pub fn open(path: &Path) -> Result<Self> {
        let failed = |error: std::io::Error| failure(path, &error);
        std::fs::DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIRECTORY).create(path).map_err(failed)?;
        let path = path.canonicalize().map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(OWNER_ONLY_FILE)
            .open(path.join("lock"))
            .map_err(|error| failure(&path, &error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                Err(Error::new(ErrorCode::DataDirectoryBusy, format!("another process uses the data directory {}", path.display()))
                    .alternative("stop it, or choose another directory with --data-dir"))
            }
            Err(TryLockError::Error(error)) => Err(failure(&path, &error)),
        }
    }

    pub fn join(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Refuses the directory of a cloud whose books are elsewhere than in `books` of it: a demonstration would take the
    /// place of its keys.
    pub fn check_books(&self, books: &str) -> Result<()> {
        if self.join(books).exists() || !["gateway", "credentials.json"].iter().any(|kept| self.join(kept).exists()) {
            return Ok(());
        }
        Err(Error::new(ErrorCode::Conflict, "this data directory is of a cloud whose books are in PostgreSQL, and has its keys")
            .alternative("start a demonstration in a new data directory"))
    }

    /// A subdirectory, created if it is missing.
    pub fn directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(OWNER_ONLY_DIRECTORY)
            .create(&path)
            .map_err(|error| failure(&path, &error))?;
        Ok(path)
    }

    /// This machine's gateway, the same over restarts.
    pub fn gateway_id(&self, ids: &IdMint) -> Result<GatewayId> {
        let path = self.path.join("gateway");
        match std::fs::read_to_string(&path) {
            Ok(text) => text.trim().parse(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let id: GatewayId = ids.mint();
                write_owner_only(&path, id.as_str())?;
                Ok(id)
            }
            Err(error) => Err(failure(&path, &error)),
        }
    }

    pub fn credentials(&self) -> Option<Credentials> {
        serde_json::from_str(&std::fs::read_to_string(self.path.join("credentials.json")).ok()?).ok()
    }

    /// Keeps new secrets beside the old file until [`Self::publish_credentials`].
    pub fn prepare_credentials(&self, credentials: &Credentials) -> Result<()> {
        let text = serde_json::to_string_pretty(credentials).map_err(|error| Error::internal(error.to_string()))?;
        write_owner_only(&self.path.join("credentials.json.new"), &text)?;
        self.sync()
    }

    /// Forgets prepared secrets that came to nothing.
    pub fn discard_credentials(&self) -> Result<()> {
        let path = self.path.join("credentials.json.new");
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure(&path, &error)),
            _ => Ok(()),
        }
    }

    /// Makes the names in the directory outlive a loss of power.
    fn sync(&self) -> Result<()> {
        std::fs::File::open(&self.path).and_then(|directory| directory.sync_all()).map_err(|error| failure(&self.path, &error))
    }

    /// Puts prepared secrets in place. Nothing prepared is fine.
    pub fn publish_credentials(&self) -> Result<()> {
        let (from, to) = (self.path.join("credentials.json.new"), self.path.join("credentials.json"));
        match std::fs::rename(&from, &to) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failure(&to, &error)),
            _ => self.sync(),
        }
    }
}

/// A file that its owner alone can read, durable when this returns.
pub fn write_owner_only(path: &Path, text: &str) -> Result<()> {
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(OWNER_ONLY_FILE).open(path)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()
    };
    write().map_err(|error| failure(path, &error))
}

/// What a failed access to a path means for whoever starts the cloud.
pub fn failure(path: &Path, error: &std::io::Error) -> Error {
    use std::io::ErrorKind;
    let shown = path.display();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            Error::new(ErrorCode::StorageFull, format!("there is no space left for {shown}"))
                .alternative("free space and start again")
        }
        ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem => {
            Error::new(ErrorCode::Usage, format!("{shown} cannot be written: {error}"))
                .alternative("choose another directory with --data-dir")
        }
        _ => Error::new(ErrorCode::Usage, format!("{shown} cannot be used: {error}"))
            .alternative("choose another directory with --data-dir"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_directory_belongs_to_one_process_and_secrets_to_their_owner() {
        let temporary = tempfile::tempdir().unwrap();
        let path = temporary.path().join("data");
        let data = DataDirectory::open(&path).unwrap();
        let error = DataDirectory::open(&path).err().unwrap();
        assert_eq!(error.code(), ErrorCode::DataDirectoryBusy);
        let credentials = Credentials {
            api_base: "a".into(),
            console_url: "c".into(),
            operator_key: "o".into(),
            admin_key: "d".into(),
            project_key: "p".into(),
            internal_key: "i".into(),
            model: "m".into(),
        };
        data.prepare_credentials(&credentials).unwrap();
        assert_eq!(data.credentials(), None);
        data.publish_credentials().unwrap();
        data.publish_credentials().unwrap();
        assert_eq!(data.credentials(), Some(credentials));
        let mode = std::fs::metadata(data.join("credentials.json")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
