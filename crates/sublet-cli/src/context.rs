//! What a command gets from the binary: the cloud's address, keys, the terminal, time to wait.

use std::io::{BufRead, Write};
use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;
use sublet_api::client::{Client, IdempotencyKey, Keys};
use sublet_core::Rng;
use sublet_core::error::{Error, ErrorCode, Result};

use crate::credentials::Credentials;
use crate::render::Table;

/// Where a cloud listens when nothing says otherwise.
pub const DEFAULT_URL: &str = "http://127.0.0.1:8080";
/// Random bytes in a fresh idempotency key.
const IDEMPOTENCY_KEY_BYTES: usize = 16;
/// The reason of an error whose cause is that nobody reads the output any more.
pub(crate) const READER_GONE: &str = "reader_gone";

/// How output may look.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Style {
    /// ANSI colours. The binary decides: a terminal, and no `NO_COLOR`.
    pub color: bool,
    /// Somebody types: chats may be held line by line.
    pub interactive: bool,
    /// Standard error is a terminal: a line there may be written over.
    pub live: bool,
}

/// Everything a command needs from outside.
pub struct Context<'a> {
    /// From `--url` or the environment.
    pub url: Option<String>,
    /// From `--key` or the environment.
    pub keys: Keys,
    /// Where `credentials.json` may lie.
    pub data_dir: PathBuf,
    /// Print wire objects instead of tables.
    pub json: bool,
    pub style: Style,
    pub input: &'a mut dyn BufRead,
    pub out: &'a mut dyn Write,
    pub err: &'a mut dyn Write,
    /// For idempotency keys.
    pub rng: &'a dyn Rng,
    /// Waits; tests count instead.
    pub pause: &'a dyn Fn(Duration),
}

impl Context<'_> {
    /// The client of the cloud that the options, or else the data directory, name.
    ///
    /// Keys of `credentials.json` go only to the address in that same file.
    pub fn client(&self) -> Result<Client> {
        let found = Credentials::find(&self.data_dir)?;
        let url = match (&self.url, &found) {
            (Some(url), _) => url.clone(),
            (None, Some(credentials)) => credentials.api_base.clone(),
            (None, None) => DEFAULT_URL.to_owned(),
        };
        let from_file = match found {
            Some(credentials) if same_cloud(&url, &credentials.api_base) => credentials.keys(),
            Some(_) | None => Keys::default(),
        };
        let keys = Keys {
            project: self.keys.project.clone().or(from_file.project),
            admin: self.keys.admin.clone().or(from_file.admin),
            operator: self.keys.operator.clone().or(from_file.operator),
        };
        Client::new(&url, keys)
    }

    /// The model the data directory recommends.
    pub fn default_model(&self) -> Result<Option<String>> {
        Ok(Credentials::find(&self.data_dir)?.map(|credentials| credentials.model))
    }

    /// A key that makes one call safe to repeat.
    pub fn fresh_key(&self) -> IdempotencyKey {
        let mut bytes = [0_u8; IDEMPOTENCY_KEY_BYTES];
        self.rng.fill(&mut bytes);
        IdempotencyKey(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Prints an object as JSON, or else what `table` makes of it.
    pub fn show<T: Serialize>(&mut self, object: &T, table: impl FnOnce(&T) -> Table) -> Result<()> {
        if self.json {
            return self.print_json(object);
        }
        let text = table(object).render(self.style);
        self.print(&text)
    }

    /// Prints an object as JSON, or else what `text` makes of it.
    pub fn show_text<T: Serialize>(&mut self, object: &T, text: impl FnOnce(&T, Style) -> String) -> Result<()> {
        if self.json {
            return self.print_json(object);
        }
        let text = text(object, self.style);
        self.print(&text)
    }

    pub fn print_json<T: Serialize>(&mut self, object: &T) -> Result<()> {
        let mut text = serde_json::to_string_pretty(object).map_err(|error| Error::internal(error.to_string()))?;
        text.push('\n');
        self.print(&text)
    }

    /// Writes data.
    pub fn print(&mut self, text: &str) -> Result<()> {
        self.write_data(text.as_bytes())
    }

    /// Writes data and shows it at once.
    pub fn write_data(&mut self, bytes: &[u8]) -> Result<()> {
        self.out.write_all(bytes).and_then(|()| self.out.flush()).map_err(|error| data_failed(&error))
    }

    /// Passes bytes on that are not data.
    pub fn note_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.err.write_all(bytes).and_then(|()| self.err.flush()).map_err(|error| output_failed(&error))
    }

    /// Says something that is not data.
    pub fn note(&mut self, text: &str) -> Result<()> {
        writeln!(self.err, "{text}").and_then(|()| self.err.flush()).map_err(|error| output_failed(&error))
    }
}

/// Data that nobody reads any more is no failure to tell of.
fn data_failed(error: &std::io::Error) -> Error {
    let failed = output_failed(error);
    if error.kind() == std::io::ErrorKind::BrokenPipe { failed.reason(READER_GONE) } else { failed }
}

fn output_failed(error: &std::io::Error) -> Error {
    Error::new(ErrorCode::StorageFull, format!("the output could not be written: {error}"))
}

fn same_cloud(url: &str, api_base: &str) -> bool {
    let plain = |text: &str| {
        let text = text.trim_end_matches('/');
        text.strip_suffix("/v1").unwrap_or(text).to_owned()
    };
    plain(url) == plain(api_base)
}
