//! From files to a model that can run: formats apart, one assembly.
//!
//! Invariants: a file is believed only after its claims were checked against its size; every
//! failure names the file and what would work; nothing here panics on any input.
//!
//! Deliberately absent: downloading, conversion between formats, writing.

mod assemble;
pub mod bytes;
mod gguf;
mod gguf_tokenizer;
mod hf;
mod safetensors;

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use sublet_core::engine::{Constraint, ToolTemplate};
use sublet_core::{Error, Result};

use crate::constraint::{Rule, Rules};
use crate::decoder::Decoder;
use crate::pooling::VectorSettings;
use crate::template::ChatTemplate;
use crate::tokenizer::ModelTokenizer;
#[cfg(any(test, fuzzing))]
use bytes::ByteSource;
use bytes::{file_name, invalid};

/// Where a model's files are.
pub enum ModelSource {
    /// A directory in Hugging Face format.
    Directory(PathBuf),
    /// One GGUF file; a `tokenizer.json` beside it is preferred to the file's own vocabulary.
    Gguf(PathBuf),
    /// The files of a directory in Hugging Face format, in memory.
    Embedded(EmbeddedFiles),
}

/// A small model's files as bytes in the binary.
pub struct EmbeddedFiles {
    pub config: Cow<'static, [u8]>,
    pub weights: Cow<'static, [u8]>,
    pub tokenizer: Cow<'static, [u8]>,
    pub tokenizer_config: Option<Cow<'static, [u8]>>,
    pub generation_config: Option<Cow<'static, [u8]>>,
}

impl ModelSource {
    /// Tells a directory from a GGUF file by looking.
    pub fn from_path(path: &Path) -> Result<Self> {
        if path.is_dir() {
            if path.join("config.json").is_file() {
                return Ok(Self::Directory(path.to_owned()));
            }
            return match gguf_files(path).as_slice() {
                [only] => Ok(Self::Gguf(only.clone())),
                [] => Err(invalid(&file_name(path), "holds neither a config.json nor a .gguf file")),
                several => Err(invalid(&file_name(path), format!("holds {} .gguf files; name one of them", several.len()))),
            };
        }
        if path.is_file() {
            return Ok(Self::Gguf(path.to_owned()));
        }
        Err(invalid(&file_name(path), "does not exist"))
    }
}

fn gguf_files(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let mut files: Vec<PathBuf> =
        entries.flatten().map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|e| e == "gguf")).collect();
    files.sort();
    files
}

/// Everything one model needs to run.
pub struct LoadedModel {
    pub decoder: Decoder,
    pub tokenizer: ModelTokenizer,
    pub template: Option<ChatTemplate>,
    /// Tokens that end a generation.
    pub end_tokens: Vec<u32>,
    pub vectors: VectorSettings,
    /// Made with the first constrained request: most models never see one.
    pub rules: OnceLock<Result<Rules, String>>,
}

impl LoadedModel {
    /// A rule for an output of this model.
    pub fn compile(&self, constraint: &Constraint) -> Result<Rule> {
        let tools = self.template.as_ref().map_or(ToolTemplate::Absent, ChatTemplate::tools);
        self.rules()?.compile(constraint, tools)
    }

    fn rules(&self) -> Result<&Rules> {
        let make = || Rules::new(&self.tokenizer, self.decoder.parameters.vocabulary, &self.end_tokens);
        let made = self.rules.get_or_init(make).as_ref();
        made.map_err(|problem| Error::internal(format!("the vocabulary cannot be constrained: {problem}")))
    }

    /// Every token that the tokenizer can make must have a row in the embedding.
    fn check_vocabulary(self, tokenizer_file: &str) -> Result<Self> {
        let (tokens, rows) = (self.tokenizer.token_count(), self.decoder.parameters.vocabulary);
        if tokens > rows {
            let problem = format!("has token ids up to {}, the model's vocabulary has {rows}", tokens - 1);
            return Err(invalid(tokenizer_file, problem));
        }
        Ok(self)
    }
}

/// Loads a model.
pub fn load(source: ModelSource) -> Result<LoadedModel> {
    let name = match &source {
        ModelSource::Directory(path) | ModelSource::Gguf(path) => file_name(path),
        ModelSource::Embedded(_) => "the built-in model".to_owned(),
    };
    contained(&name, || match source {
        ModelSource::Directory(path) => hf::load_directory(&path),
        ModelSource::Gguf(path) => gguf::load_file(&path),
        ModelSource::Embedded(files) => hf::load_embedded(files),
    })
}

/// Loads a GGUF file; `tokenizer` is the one that is preferred to the file's own.
#[cfg(any(test, fuzzing))]
pub fn load_gguf(source: ByteSource, tokenizer: Option<ByteSource>) -> Result<LoadedModel> {
    contained("model.gguf", || gguf::load_source(source, tokenizer))
}

/// The tokenizer and the chat template of a model, without its weights.
pub fn load_tokenizer(directory: &std::path::Path) -> Result<(ModelTokenizer, Option<ChatTemplate>)> {
    contained("tokenizer.json", || hf::load_tokenizer(directory))
}

/// The tokenizer library asserts on some malformed files; a file must never end the process.
fn contained<T>(name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    let unexpected = |_| Err(invalid(name, "is malformed in a way that the loader did not expect"));
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(unexpected)
}
