//! Measures a model: load time, tokens per second at 1 and 8 concurrent generations, memory.
//!
//! `cargo run --release -p sublet-engine --example bench -- DIRECTORY-OR-GGUF [TOKENS]`
// A measuring tool is a binary: it has the real clock and prints.
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::float_arithmetic, clippy::as_conversions)]

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt;
use futures_util::future::join_all;
use sublet_core::engine::{Allowance, Constraint, GenerateRequest, GenerationEvent, ModelEngine, Prompt, Sampling};
use sublet_core::tier::ServiceTier;
use sublet_core::{Clock, Error, ErrorCode, Result, Rng, Timestamp, TokenCount};
use sublet_engine::{Engine, EngineConfig, ModelSource};

const TOKENS_DEFAULT: i64 = 200;
const TOKENS_MEASURED_MIN: i64 = 1_000;
const ROUNDS_MAX: u64 = 50;
/// Keeps a model writing texts and numbers, in which most tokens are allowed.
const SCHEMA: &str = r#"{"type":"array","items":{"type":"object","properties":{"text":{"type":"string"},"n":{"type":"integer"}},"required":["text","n"]}}"#;
const PROMPT: &str = "Once upon a time there was a small cloud that sold what it did not need.";

struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX))
    }
}

struct FixedRng;

impl Rng for FixedRng {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(7);
    }
}

/// Resident memory in MiB, current and highest, where the system tells.
fn memory() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) / 1024
    };
    format!("{} MiB resident, {} MiB at most", field("VmRSS:"), field("VmHWM:"))
}

/// One generation; returns its output tokens and the seconds until its first text.
async fn generate(engine: &Engine, (model, constraint): (&str, Option<&Constraint>), tokens: i64, seed: u64) -> Result<(i64, f64)> {
    let prompt = engine.prepare(model, &Prompt::Text(PROMPT.to_owned()))?;
    let request = GenerateRequest {
        prompt,
        sampling: Sampling { seed: Some(seed), ..Sampling::default() },
        stop: Vec::new(),
        max_output: Some(TokenCount::new(tokens)),
        allowance: Arc::new(Allowance::new(TokenCount::new(i64::MAX))),
        constraint: constraint.cloned(),
        // Nothing is shared, so that all is measured.
        salt: seed.to_string().into(),
        tier: ServiceTier::Default,
    };
    let started = Instant::now();
    let mut first = None;
    let mut stream = engine.generate(request)?;
    let mut output = 0;
    while let Some(event) = stream.next().await {
        match event {
            GenerationEvent::Delta { .. } => {
                first.get_or_insert_with(|| started.elapsed().as_secs_f64());
            }
            GenerationEvent::Finished { output: count, .. } => output = count.get(),
            GenerationEvent::Failed(error) => return Err(error),
            GenerationEvent::Started { .. }
            | GenerationEvent::Vector { .. }
            | GenerationEvent::Counted { .. }
            | GenerationEvent::Waiting { .. } => {}
        }
    }
    Ok((output, first.unwrap_or_default()))
}

/// Rounds of `concurrent` generations until enough tokens came for a figure; models end early.
async fn measure(engine: &Engine, model: (&str, Option<&Constraint>), tokens: i64, concurrent: u64) -> Result<()> {
    let started = Instant::now();
    let (mut total, mut first, mut seed) = (0, 0.0_f64, 0);
    while total < TOKENS_MEASURED_MIN && seed < ROUNDS_MAX * concurrent {
        for run in join_all((seed..seed + concurrent).map(|seed| generate(engine, model, tokens, seed))).await {
            let (output, until_first) = run?;
            total += output;
            first = first.max(until_first);
        }
        seed += concurrent;
    }
    let rate = total as f64 / started.elapsed().as_secs_f64();
    let kind = if model.1.is_some() { "JSON" } else { "free" };
    println!(
        "{concurrent:>5} concurrent, {kind}: {total:>6} tokens, {rate:>8.1} tokens/s, first text after {:.1} ms at most",
        first * 1e3
    );
    Ok(())
}

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let path = arguments.next().ok_or_else(|| Error::new(ErrorCode::Usage, "bench DIRECTORY-OR-GGUF [TOKENS]"))?;
    let tokens = arguments.next().and_then(|text| text.parse().ok()).unwrap_or(TOKENS_DEFAULT);
    let engine = Engine::new(EngineConfig::default(), Arc::new(SystemClock), Arc::new(FixedRng));
    let started = Instant::now();
    let info = engine.add_model("bench", ModelSource::from_path(&PathBuf::from(path))?)?;
    println!(
        "loaded in {:.3} s: context {}, vocabulary {}; {}",
        started.elapsed().as_secs_f64(),
        info.context_window,
        info.vocabulary,
        memory()
    );
    let runtime = tokio::runtime::Builder::new_current_thread().build().map_err(|error| Error::internal(error.to_string()))?;
    for concurrent in [1, 8, 64, 1_000] {
        runtime.block_on(measure(&engine, ("bench", None), tokens, concurrent))?;
    }
    let constraint = Constraint::JsonSchema(SCHEMA.into());
    for concurrent in [1, 8] {
        runtime.block_on(measure(&engine, ("bench", Some(&constraint)), tokens, concurrent))?;
    }
    println!("{}", memory());
    Ok(())
}
