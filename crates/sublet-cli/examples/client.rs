//! The client's commands alone, without the cloud: `client --json estimate --demand FILE`.
//!
//! It is built in minutes where the whole program takes half an hour; `bench/capacity.sh` uses it.

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sublet_api::client::Keys;
use sublet_cli::{Command, Context, Global, Style};
use sublet_core::Rng;

#[derive(Parser)]
struct Program {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Keys of requests come from the system, as in the program.
struct SystemNumbers;

impl Rng for SystemNumbers {
    fn fill(&self, bytes: &mut [u8]) {
        let read = std::fs::File::open("/dev/urandom").and_then(|mut file| std::io::Read::read_exact(&mut file, bytes));
        read.expect("the system has random numbers");
    }
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let Program { global, command } = Program::try_parse().unwrap_or_else(|error| error.exit());
    let mut context = Context {
        url: global.url,
        keys: Keys::default(),
        data_dir: global.data_dir.unwrap_or_else(|| PathBuf::from(".")),
        json: global.json,
        style: Style::default(),
        input: &mut std::io::stdin().lock(),
        out: &mut std::io::stdout().lock(),
        err: &mut std::io::stderr(),
        rng: &SystemNumbers,
        pause: &std::thread::sleep,
    };
    Ok(ExitCode::from(sublet_cli::run_to_status(command, &mut context).0))
}
