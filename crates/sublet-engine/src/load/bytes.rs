//! Reading model files without trusting them.
//!
//! Invariants: nothing is allocated for a length that the file itself does not have; every
//! failure is [`ErrorCode::ModelFileInvalid`] and names the file.

use std::borrow::Cow;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use sublet_core::{Error, ErrorCode, Result};

/// Largest JSON or template file read whole, in bytes.
pub const TEXT_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// An error that names the file and says what would work.
pub fn invalid(file: &str, problem: impl std::fmt::Display) -> Error {
    Error::new(ErrorCode::ModelFileInvalid, format!("{file}: {problem}"))
        .alternative("a directory in Hugging Face format: config.json, *.safetensors, tokenizer.json")
        .alternative("a .gguf file of the llama or qwen2 architecture")
}

/// A file on disk or in memory that can be read at any place.
pub struct ByteSource {
    name: String,
    length: u64,
    content: Content,
}

enum Content {
    File(File),
    Memory(Cow<'static, [u8]>),
}

impl ByteSource {
    pub fn open(path: &Path) -> Result<Self> {
        let name = file_name(path);
        let file = File::open(path).map_err(|error| invalid(&name, format!("cannot be opened ({})", reason(&error))))?;
        let metadata = file.metadata().map_err(|error| invalid(&name, format!("cannot be read ({})", reason(&error))))?;
        if !metadata.is_file() {
            return Err(invalid(&name, "is not a regular file"));
        }
        Ok(Self { name, length: metadata.len(), content: Content::File(file) })
    }

    pub fn memory(name: &str, bytes: Cow<'static, [u8]>) -> Self {
        Self { name: name.to_owned(), length: bytes.len() as u64, content: Content::Memory(bytes) }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    /// The bytes `offset..offset + length`.
    pub fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>> {
        let end = offset.checked_add(length).filter(|end| *end <= self.length);
        let Some(end) = end else {
            return Err(invalid(
                &self.name,
                format!("is truncated: bytes {offset} to {} are needed, it has {}", offset.saturating_add(length), self.length),
            ));
        };
        match &self.content {
            Content::Memory(bytes) => Ok(bytes[offset as usize..end as usize].to_vec()),
            Content::File(file) => {
                let mut buffer = vec![0; length as usize];
                let mut file = file;
                file.seek(SeekFrom::Start(offset))
                    .and_then(|_| file.read_exact(&mut buffer))
                    .map_err(|error| invalid(&self.name, format!("cannot be read ({})", reason(&error))))?;
                Ok(buffer)
            }
        }
    }

    /// The whole content as UTF-8.
    pub fn text(&self) -> Result<String> {
        if self.length > TEXT_FILE_BYTES_MAX {
            return Err(invalid(&self.name, format!("has {} bytes, more than the {TEXT_FILE_BYTES_MAX} allowed", self.length)));
        }
        String::from_utf8(self.read(0, self.length)?).map_err(|_| invalid(&self.name, "is not UTF-8 text"))
    }
}

/// The last part of a path: enough to find the file, and it gives no directory away.
pub fn file_name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

fn reason(error: &std::io::Error) -> String {
    error.kind().to_string()
}
