//! Runs a command line as the binary would, with everything it prints kept.

use std::cell::RefCell;
use std::io::{Cursor, Write};
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use sublet_api::client::Keys;
use sublet_api::key::SecretText;
use sublet_cli::{Command, Context, ExitStatus, Global, Style};
use sublet_core::Rng;

/// The binary's parser, without the commands that are the binary's own.
#[derive(Parser)]
#[command(name = "sublet", version = "0.0.0", propagate_version = true)]
pub struct Line {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

/// Bytes that count up: different each time, the same in each run.
#[derive(Default)]
struct CountingRng(std::sync::Mutex<u8>);

impl Rng for CountingRng {
    fn fill(&self, bytes: &mut [u8]) {
        for byte in bytes {
            let mut next = self.0.lock().unwrap();
            *next = next.wrapping_add(1);
            *byte = *next;
        }
    }
}

/// What a command printed and how it ended.
#[derive(Debug)]
pub struct Printed {
    pub out: String,
    pub err: String,
    pub status: ExitStatus,
    pub pauses: usize,
}

#[derive(Default)]
pub struct Terminal {
    pub url: Option<String>,
    pub keys: Option<Keys>,
    pub data_dir: Option<PathBuf>,
    pub input: &'static str,
    pub style: Style,
}

pub fn keys() -> Keys {
    Keys {
        project: Some(SecretText::new("sk-sub-1")),
        admin: Some(SecretText::new("sk-adm-1")),
        operator: Some(SecretText::new("sk-opr-1")),
    }
}

impl Terminal {
    /// With a key of each plane.
    pub fn at(url: String) -> Self {
        Self { url: Some(url), keys: Some(keys()), ..Self::default() }
    }

    pub fn run(&self, words: &[&str]) -> Printed {
        let mut out = Vec::new();
        let (err, status, pauses) = self.run_into(words, &mut out);
        Printed { out: String::from_utf8(out).unwrap(), err, status, pauses }
    }

    /// Runs with an output of the caller's: what else was printed, how it ended, and how often it paused.
    pub fn run_into(&self, words: &[&str], out: &mut dyn Write) -> (String, ExitStatus, usize) {
        let line = Line::try_parse_from(std::iter::once("sublet").chain(words.iter().copied())).unwrap();
        let mut err = Vec::new();
        let mut input = Cursor::new(self.input.as_bytes());
        let (rng, pauses) = (CountingRng::default(), RefCell::new(0));
        let count = |_: Duration| *pauses.borrow_mut() += 1;
        let status = {
            let mut context = Context {
                url: self.url.clone(),
                keys: self.keys.clone().unwrap_or_default(),
                data_dir: self.data_dir.clone().unwrap_or_else(|| PathBuf::from("/nonexistent")),
                json: line.global.json,
                style: self.style,
                input: &mut input,
                out,
                err: &mut err,
                rng: &rng,
                pause: &count,
            };
            sublet_cli::run_to_status(line.command, &mut context)
        };
        (String::from_utf8(err).unwrap(), status, pauses.into_inner())
    }
}
