//! Tokenizers of models that are served elsewhere: one folder each, in a folder of the data directory.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::SystemTime;

use sublet_core::tokenizer::{TokenCounter, TokenizerName, Tokenizers};
use sublet_core::{Error, ErrorCode, Result};
use sublet_engine::ChatTokenizer;

/// Tokenizers that are kept in memory at once: a large one takes a hundred megabytes. Of more, the one that was not
/// wanted for longest is read again when it is.
const KEPT_MAX: usize = 16;
const FILES: [&str; 3] = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"];

type Opened = Arc<OnceLock<Result<Arc<dyn TokenCounter>>>>;

/// The folder `tokenizers`.
pub struct TokenizerFiles {
    folder: PathBuf,
    kept: Mutex<Shelf>,
}

#[derive(Default)]
struct Shelf {
    kept: BTreeMap<TokenizerName, Kept>,
    /// How often any was wanted.
    wanted: u64,
}

struct Kept {
    version: Version,
    wanted: u64,
    opened: Opened,
}

/// When each file was last written, and how long it is: another version is read anew, good or bad.
type Version = [Option<(SystemTime, u64)>; 3];

impl TokenizerFiles {
    pub fn new(folder: PathBuf) -> Self {
        Self { folder, kept: Mutex::default() }
    }

    fn entry(&self, name: &TokenizerName, version: Version) -> Opened {
        let mut shelf = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.wanted += 1;
        let wanted = shelf.wanted;
        if let Some(known) = shelf.kept.get_mut(name).filter(|known| known.version == version) {
            known.wanted = wanted;
            return Arc::clone(&known.opened);
        }
        shelf.kept.remove(name);
        if shelf.kept.len() >= KEPT_MAX {
            let oldest = shelf.kept.iter().min_by_key(|(_, kept)| kept.wanted).map(|(name, _)| name.clone());
            oldest.and_then(|name| shelf.kept.remove(&name));
        }
        let opened = Opened::default();
        shelf.kept.insert(name.clone(), Kept { version, wanted, opened: Arc::clone(&opened) });
        opened
    }
}

impl Tokenizers for TokenizerFiles {
    fn open(&self, name: &TokenizerName) -> Result<Arc<dyn TokenCounter>> {
        // A name is one part of a path: it has no slashes, and does not begin with a dot.
        let folder = self.folder.join(name.as_str());
        let opened = self.entry(name, FILES.map(|file| version(&folder.join(file))));
        opened.get_or_init(|| read(name, &folder)).clone()
    }
}

fn version(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Said once in the log, for each version.
fn read(name: &TokenizerName, folder: &Path) -> Result<Arc<dyn TokenCounter>> {
    let read = ChatTokenizer::open(folder).map_err(|error| {
        let message = format!("the tokenizer '{}' cannot be used: {}", name.as_str(), error.message());
        let needed = format!("the model's tokenizer.json in the folder tokenizers/{} of the data directory", name.as_str());
        Error::new(ErrorCode::InvalidRequest, message).param("tokenizer").alternative(needed)
    });
    match &read {
        Ok(_) => tracing::info!(tokenizer = name.as_str(), "a tokenizer was read"),
        Err(error) => tracing::error!(tokenizer = name.as_str(), ?error, "a tokenizer cannot be used"),
    }
    Ok(Arc::new(read?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_core::TokenCount;
    use sublet_core::engine::{ChatMessage, Prompt, Role};

    const WORDS: &str = r#"{"model":{"type":"WordLevel","vocab":{"a":0,"b":1,"<":2,">":3},"unk_token":"a"},"pre_tokenizer":{"type":"WhitespaceSplit"},"added_tokens":[]}"#;

    #[test]
    fn a_tokenizer_is_a_folder_that_is_read_again_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let files = TokenizerFiles::new(folder.path().to_owned());
        let name: TokenizerName = "words".parse().unwrap();
        let refused = |files: &TokenizerFiles| {
            let error = files.open(&name).err().unwrap();
            assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some("tokenizer")));
        };
        refused(&files);
        let home = folder.path().join("words");
        std::fs::create_dir(&home).unwrap();
        std::fs::write(home.join(FILES[0]), "{}").unwrap();
        refused(&files);
        std::fs::write(home.join(FILES[0]), WORDS).unwrap();
        let counter = files.open(&name).unwrap();
        assert_eq!(counter.count_text("a b b").unwrap(), TokenCount::new(3));
        assert!(Arc::ptr_eq(&counter, &files.open(&name).unwrap()), "it is read once");
        let chat = Prompt::Chat(vec![ChatMessage::text(Role::User, "a b")].into());
        assert_eq!(counter.count_prompt(&chat).unwrap(), TokenCount::new(2 + 4 + 3), "without a template");
        std::fs::write(home.join(FILES[2]), "< {{ messages[0].content }} >").unwrap();
        assert_eq!(files.open(&name).unwrap().count_prompt(&chat).unwrap(), TokenCount::new(4), "with one");
    }

    #[test]
    fn not_all_that_were_ever_asked_for_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let files = TokenizerFiles::new(folder.path().to_owned());
        for number in 0..=KEPT_MAX {
            let name: TokenizerName = format!("t{number}").parse().unwrap();
            std::fs::create_dir(folder.path().join(name.as_str())).unwrap();
            std::fs::write(folder.path().join(name.as_str()).join(FILES[0]), WORDS).unwrap();
            files.open(&name).unwrap();
        }
        assert_eq!(files.kept.lock().unwrap().kept.len(), KEPT_MAX);
    }
}
