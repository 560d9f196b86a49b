//! The client commands: noun then verb, data to standard output, the rest to standard error.
//!
//! Invariants: nothing here reads the environment, the clock or randomness (the binary passes
//! what is needed in [`Context`]); every read knows `--json`; every failure carries a code, and
//! the code decides the exit status.
//!
//! Deliberately absent: the server (`up`, `serve`, `demo` belong to the binary), and state of
//! any kind between two commands.

pub mod command;
pub mod context;
pub mod credentials;
pub mod global;
pub mod render;
pub mod value;

pub use command::Command;
pub use context::{Context, Style};
pub use credentials::Credentials;
pub use global::Global;

use sublet_core::error::{Error, Result};

/// How a command ended, for the shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExitStatus(pub u8);

impl ExitStatus {
    pub const OK: Self = Self(0);
    /// The reader of the output is gone: what a shell shows of a program that SIGPIPE ended, 128 plus 13.
    pub const READER_GONE: Self = Self(141);
}

/// Runs a command.
pub fn run(command: Command, context: &mut Context<'_>) -> Result<ExitStatus> {
    command.run(context)
}

/// Runs a command, prints its error if it fails, and says how to exit. One whose output nobody reads any more, as before
/// `head`, ends silently.
pub fn run_to_status(command: Command, context: &mut Context<'_>) -> ExitStatus {
    match run(command, context) {
        Ok(status) => status,
        Err(error) if error.reason_name() == Some(context::READER_GONE) => ExitStatus::READER_GONE,
        Err(error) => {
            // When not even standard error takes text, the exit status has to do.
            let _ = report(&error, context);
            ExitStatus(error.code().exit_status())
        }
    }
}

/// Prints an error with its remedy to standard error.
pub fn report(error: &Error, context: &mut Context<'_>) -> std::io::Result<()> {
    let text = render::error(error, context.style);
    context.err.write_all(text.as_bytes())?;
    context.err.flush()
}
