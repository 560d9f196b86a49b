//! Mail as files of a folder: one `.eml` each, whole or not there.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use sublet_core::BoxFuture;
use sublet_core::mail::{MailFailure, MailPort, Message};

use crate::mime;

const OWNER_ONLY_DIRECTORY: u32 = 0o700;
const OWNER_ONLY_FILE: u32 = 0o600;

/// A folder of messages, each named by its id. A repeat replaces its file by the same one.
pub struct MailFolder {
    folder: PathBuf,
}

impl MailFolder {
    /// Creates the folder if it is missing.
    pub fn open(folder: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(OWNER_ONLY_DIRECTORY).create(folder)?;
        Ok(Self { folder: folder.to_owned() })
    }
}

fn put(folder: &Path, name: &str, content: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!(".{name}.part"));
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(OWNER_ONLY_FILE).open(&unfinished)?;
    file.write_all(content)?;
    file.sync_all()?;
    std::fs::rename(&unfinished, folder.join(name))?;
    File::open(folder)?.sync_all()
}

impl MailPort for MailFolder {
    fn send<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, Result<(), MailFailure>> {
        Box::pin(async move {
            let content = mime::written(message)?.formatted();
            let (folder, name) = (self.folder.clone(), format!("{}.eml", message.id));
            let written = tokio::task::spawn_blocking(move || put(&folder, &name, &content)).await;
            let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
            written.map_err(|error| MailFailure::Unclear(format!("{}: {error}", self.folder.display())))
        })
    }
}
