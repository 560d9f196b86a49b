//! Replays recorded requests over simulated replicas and compares ways of choosing one.
//!
//! `replay REPLICAS TOKENS_PER_SECOND CACHED_BLOCKS < REQUESTS.csv` reads lines of arrival in seconds,
//! input tokens, output tokens, and the ids of the prompt's blocks of 512 tokens. A replica reads
//! prompts one after the other at the given speed, writes answers meanwhile, and keeps the blocks that
//! were used last. The table says what share of all input was cached, and how long the first token took.

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{Read, Write};
use std::sync::Arc;

use sublet_core::id::{Identifier, ReplicaId};
use sublet_core::{DurationMs, Timestamp, TokenCount};
use sublet_gateway::routing::{Block, Candidate, Router, Routing};

/// Tokens of a block in the recording.
const RECORDED_TOKENS: u64 = 512;
/// Blocks of the router in one recorded block.
const BLOCKS_EACH: u64 = 8;
/// Microseconds to write one token.
const WRITING_MICROS: i64 = 25_000;

type Outcome<T> = Result<T, Box<dyn Error>>;

struct Request {
    at: i64,
    input: u64,
    output: i64,
    blocks: Vec<u64>,
}

fn read_requests(text: &str) -> Outcome<Vec<Request>> {
    let mut requests = Vec::new();
    for line in text.lines().skip(1).filter(|line| !line.is_empty()) {
        let fields: Vec<&str> = line.split(',').collect();
        let [at, input, output, blocks] = fields.as_slice() else { return Err(format!("not a request: {line}").into()) };
        let (seconds, fraction) = at.split_once('.').unwrap_or((at, "0"));
        let micros: i64 = format!("{fraction:0<6}").get(..6).ok_or("a short fraction")?.parse()?;
        requests.push(Request {
            at: seconds.parse::<i64>()? * 1_000_000 + micros,
            input: input.parse()?,
            output: output.parse()?,
            blocks: blocks.split_whitespace().map(str::parse).collect::<Result<_, _>>()?,
        });
    }
    Ok(requests)
}

/// A model server: what it has kept, and until when it is busy reading.
struct Server {
    kept: HashMap<u64, u64>,
    order: VecDeque<(u64, u64)>,
    uses: u64,
    blocks_max: usize,
    free_at: i64,
    /// First token and end of what it was sent, with the tokens that the router thought it has to read.
    sent: Vec<(i64, i64, i64)>,
}

impl Server {
    fn new(blocks_max: usize) -> Self {
        Self { kept: HashMap::new(), order: VecDeque::new(), uses: 0, blocks_max, free_at: 0, sent: Vec::new() }
    }

    fn cached(&self, request: &Request) -> u64 {
        let blocks = request.blocks.iter().take_while(|block| self.kept.contains_key(block)).count();
        // The last token is always computed.
        (u64::try_from(blocks).unwrap_or(0) * RECORDED_TOKENS).min(request.input.saturating_sub(1))
    }

    fn keep(&mut self, request: &Request) {
        for block in &request.blocks {
            self.uses += 1;
            self.kept.insert(*block, self.uses);
            self.order.push_back((self.uses, *block));
        }
        while self.kept.len() > self.blocks_max {
            let Some((use_number, block)) = self.order.pop_front() else { return };
            if self.kept.get(&block) == Some(&use_number) {
                self.kept.remove(&block);
            }
        }
    }

    /// When the first token would come.
    fn first_token(&self, request: &Request, speed: u64) -> i64 {
        let micros = (request.input - self.cached(request)) * 1_000_000 / speed;
        self.free_at.max(request.at) + i64::try_from(micros).unwrap_or(i64::MAX)
    }

    fn candidate(&mut self, number: usize, now: i64) -> Candidate {
        self.sent.retain(|(_, end, _)| *end > now);
        let reading = self.sent.iter().filter(|(first, _, _)| *first > now).map(|(_, _, tokens)| tokens).sum();
        let writing = self.sent.iter().filter(|(first, _, _)| *first <= now).count();
        Candidate {
            replica: name(number),
            reading: TokenCount::new(reading),
            writing: u32::try_from(writing).unwrap_or(u32::MAX),
            cached: None,
        }
    }
}

fn name(number: usize) -> ReplicaId {
    ReplicaId::from_trusted(Arc::from(format!("rep_{number}")))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    RoundRobin,
    LeastLoad,
    Sublet,
    Clairvoyant,
}

impl Way {
    const ALL: [(Self, &'static str); 4] = [
        (Self::RoundRobin, "round robin"),
        (Self::LeastLoad, "least load"),
        (Self::Sublet, "Sublet"),
        (Self::Clairvoyant, "clairvoyant"),
    ];
}

struct Setting {
    replicas: usize,
    speed: u64,
    blocks_max: usize,
}

/// Cached share in per mille, and times to the first token in milliseconds at 50, 90 and 99 %.
fn replay(requests: &[Request], way: Way, setting: &Setting) -> (u64, [i64; 3]) {
    let mut servers: Vec<Server> = (0..setting.replicas).map(|_| Server::new(setting.blocks_max)).collect();
    let mut router = Router::new(Routing { believed_for: DurationMs::from_seconds(3_600), ..Routing::default() });
    let (mut cached, mut total, mut waits) = (0, 0, Vec::with_capacity(requests.len()));
    for (turn, request) in requests.iter().enumerate() {
        let now = Timestamp::from_micros(request.at);
        let parts = |block: &u64| {
            let first = block * BLOCKS_EACH;
            (first..first + BLOCKS_EACH).map(Block)
        };
        let blocks: Vec<Block> = request.blocks.iter().flat_map(parts).collect();
        let prompt = TokenCount::new(i64::try_from(request.input).unwrap_or(i64::MAX));
        let mut candidates: Vec<Candidate> =
            servers.iter_mut().enumerate().map(|(number, server)| server.candidate(number, request.at)).collect();
        candidates.rotate_left(turn % setting.replicas);
        let place = |position: usize| (position + turn) % setting.replicas;
        let chosen = match way {
            Way::RoundRobin => place(0),
            Way::LeastLoad => least_busy(&servers, turn),
            Way::Sublet => place(router.rank(&blocks, prompt, &candidates, now)[0]),
            Way::Clairvoyant => soonest(&servers, request, setting.speed),
        };
        let thought = router.uncached(&blocks, prompt, (&name(chosen), None), now);
        router.sent(&blocks, &name(chosen), now);
        let server = &mut servers[chosen];
        cached += server.cached(request);
        total += request.input;
        let first = server.first_token(request, setting.speed);
        server.free_at = first;
        server.sent.push((first, first + request.output * WRITING_MICROS, i64::try_from(thought).unwrap_or(i64::MAX)));
        server.keep(request);
        waits.push(first - request.at);
    }
    waits.sort_unstable();
    let at = |percent: usize| waits[(waits.len() - 1) * percent / 100] / 1_000;
    (cached * 1_000 / total, [at(50), at(90), at(99)])
}

/// By requests in flight; equals take turns.
fn least_busy(servers: &[Server], turn: usize) -> usize {
    let count = servers.len();
    (0..count).map(|position| (position + turn) % count).min_by_key(|number| servers[*number].sent.len()).unwrap_or(0)
}

/// By what only the servers know: what they really kept, and when they will be free.
fn soonest(servers: &[Server], request: &Request, speed: u64) -> usize {
    (0..servers.len()).min_by_key(|number| servers[*number].first_token(request, speed)).unwrap_or(0)
}

fn main() -> Outcome<()> {
    let arguments: Vec<u64> = std::env::args().skip(1).map(|text| text.parse()).collect::<Result<_, _>>()?;
    let [replicas, speed, blocks] = arguments.as_slice() else {
        return Err("replay REPLICAS TOKENS_PER_SECOND CACHED_BLOCKS < REQUESTS.csv".into());
    };
    let setting = Setting { replicas: usize::try_from(*replicas)?, speed: *speed, blocks_max: usize::try_from(*blocks)? };
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let requests = read_requests(&text)?;
    if requests.is_empty() || setting.replicas == 0 || setting.speed == 0 {
        return Err("there is nothing to replay".into());
    }
    let mut out = std::io::stdout();
    writeln!(out, "{} requests over {replicas} replicas that read {speed} tokens/s and keep {blocks} blocks\n", requests.len())?;
    writeln!(out, "| way | cached | first token p50 | p90 | p99 |\n| --- | --- | --- | --- | --- |")?;
    for (way, name) in Way::ALL {
        let (cached, [p50, p90, p99]) = replay(&requests, way, &setting);
        writeln!(out, "| {name} | {}.{} % | {p50} ms | {p90} ms | {p99} ms |", cached / 10, cached % 10)?;
    }
    Ok(())
}
