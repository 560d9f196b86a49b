//! The state directory of a runner.

use std::fs::File;
use std::path::Path;

use sublet_core::error::{Error, ErrorCode, Result};

/// Keeps every other runner away from a state directory until the file is dropped.
pub(crate) fn lock_directory(state_dir: &Path) -> Result<File> {
    let path = state_dir.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| Error::internal(format!("open the runner's lock: {error}")))?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
        Error::new(ErrorCode::DataDirectoryBusy, "another process runs jobs from this data directory")
            .alternative("stop it or choose another data directory")
    })?;
    Ok(file)
}
