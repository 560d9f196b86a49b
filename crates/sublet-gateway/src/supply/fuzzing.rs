//! What a server elsewhere must never do to the gateway that asks it.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::StreamExt;
use sublet_core::engine::{Allowance, GenerationEvent, Prompt};
use sublet_core::id::{Identifier, ReplicaId};
use sublet_core::supply::{
    Audience, Catalogue, EngineKind, RemoteModel, RemoteModels, Replica, ReplicaSource, ReplicaState, SecretName, SecretSource,
};
use sublet_core::tier::ServiceTier;
use sublet_core::tokenizer::{TokenCounter, TokenizerName, Tokenizers};
use sublet_core::{Clock, Error, Result, Timestamp, TokenCount};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::events::EventReader;
use super::request::{Fields, OutputMax, UpstreamBody};
use super::{Order, Supply, start};
use crate::config::SupplyConfig;
use crate::dialect::relay::Kind;

/// Output tokens that are ordered, and the prompt's bound.
const CAP: i64 = 40;
const INPUT_MAX: i64 = 9;
/// Events of one exchange, at most; each has a line of the answer.
const EVENTS_MAX: usize = 100_000;

/// A stream of events: the same however its bytes come.
pub fn upstream_events(data: &[u8]) {
    let Some((step, stream)) = data.split_first() else { return };
    let whole = read(stream, usize::MAX);
    assert!(whole.iter().all(|event| !event.contains(&b'\n')), "the data of an event are one line");
    assert!(whole.iter().map(Vec::len).sum::<usize>() <= stream.len());
    assert_eq!(read(stream, usize::from(*step).max(1)), whole, "in pieces of {step}");
}

fn read(stream: &[u8], step: usize) -> Vec<Vec<u8>> {
    let (mut reader, mut events) = (EventReader::default(), Vec::new());
    for piece in stream.chunks(step.min(stream.len().max(1))) {
        if reader.push(piece).is_err() {
            break;
        }
        events.extend(std::iter::from_fn(|| reader.next()).map(|event| event.to_vec()));
    }
    events
}

/// All that a server says on a connection, from the status line on: the exchange ends, once, and counts
/// and passes on no more than was ordered and paid for. The first byte says how it is asked.
pub fn upstream_exchange(data: &[u8]) {
    let Some((how, answer)) = data.split_first() else { return };
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    world.get_or_insert_with(World::new).exchange(*how, answer);
}

/// One for all inputs: a connection costs less than a runtime.
static WORLD: Mutex<Option<World>> = Mutex::new(None);

struct World {
    runtime: tokio::runtime::Runtime,
    listener: TcpListener,
    supply: Arc<Supply>,
}

/// A clock that goes on an hour whenever it is asked: no replica rests from what an earlier input did.
struct Hours(AtomicI64);

impl Clock for Hours {
    fn now(&self) -> Timestamp {
        Timestamp::from_seconds(3_600 * self.0.fetch_add(1, Ordering::Relaxed))
    }
}

struct One(Arc<RemoteModels>);

impl Catalogue for One {
    fn remote_models(&self) -> Arc<RemoteModels> {
        Arc::clone(&self.0)
    }
    fn cards(&self) -> Arc<sublet_core::card::Cards> {
        Arc::default()
    }
    fn offerings(&self) -> Arc<sublet_core::offering::Offerings> {
        Arc::default()
    }
}

struct NoSecrets;

impl SecretSource for NoSecrets {
    fn read(&self, name: &SecretName) -> Result<String> {
        Err(Error::internal(format!("there is no secret '{}'", name.as_str())))
    }
}

/// Every byte is a token.
struct Byte;

impl Tokenizers for Byte {
    fn open(&self, _: &TokenizerName) -> Result<Arc<dyn TokenCounter>> {
        Ok(Arc::new(Self))
    }
}

impl TokenCounter for Byte {
    fn encode_prompt(&self, _: &Prompt) -> Result<Vec<u32>> {
        Ok(vec![0])
    }
    fn count_prompt(&self, _: &Prompt) -> Result<TokenCount> {
        Ok(TokenCount::new(1))
    }
    fn count_text(&self, text: &str) -> Result<TokenCount> {
        Ok(TokenCount::new(i64::try_from(text.len()).unwrap_or(i64::MAX)))
    }
}

impl World {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))).expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let replica = Replica {
            id: ReplicaId::from_trusted("rep_1".into()),
            base_url: format!("http://{address}/v1").parse().expect("an address"),
            upstream_model: "up".to_owned(),
            secret: None,
            engine: EngineKind::OpenAi,
            kv_events: None,
            in_flight_max: 64,
            state: ReplicaState::Serving,
            source: ReplicaSource::Fleet,
            terms: None,
            costs: Vec::new(),
        };
        let model = RemoteModel {
            name: "m".to_owned(),
            owned_by: "o".to_owned(),
            created_at: Timestamp::EPOCH,
            context_window: TokenCount::new(4_096),
            output_max: TokenCount::new(1_024),
            audience: Audience::Everyone,
            tokenizer: Some("bytes".parse().expect("a good name")),
            replicas: vec![Arc::new(replica)],
        };
        let models = Arc::new(RemoteModels { models: [("m".to_owned(), Arc::new(model))].into() });
        let clock = Arc::new(Hours(AtomicI64::new(1)));
        // Nobody waits for a server that says that it is busy.
        let config = SupplyConfig { queue_wait: sublet_core::DurationMs::ZERO, ..SupplyConfig::default() };
        let supply = Supply::new((Arc::new(One(models)), Arc::new(NoSecrets), Arc::new(Byte)), clock, config);
        Self { runtime, listener, supply: Arc::new(supply.expect("no certificate is needed")) }
    }

    fn exchange(&self, how: u8, answer: &[u8]) {
        let (streamed, answers, paid) = (how & 1 == 1, usize::from(how >> 1 & 3), i64::from(how >> 3));
        let body = Fields::read(br#"{"messages":[]}"#).and_then(|fields| UpstreamBody::new(&fields, (true, streamed), "org"));
        let order = Order {
            model: self.supply.find("m").expect("it is in the catalogue"),
            kind: Kind::Chat,
            body: body.expect("a good body"),
            streamed,
            output_max: OutputMax::Open,
            answers,
            cap: TokenCount::new(CAP),
            input_max: TokenCount::new(INPUT_MAX),
            input_estimate: TokenCount::new(5),
            blocks: Arc::default(),
            allowance: Arc::new(Allowance::new(TokenCount::new(paid))),
            served_by: Arc::default(),
            bids: Arc::default(),
            hints: Arc::default(),
            // `flex` is driven by a task of its own.
            tier: if how & 1 == 1 { ServiceTier::Flex } else { ServiceTier::Default },
        };
        let allowance = Arc::clone(&order.allowance);
        self.runtime.block_on(async {
            let mut checks = Checks::new(answers);
            let mut stream = start(Arc::clone(&self.supply), order);
            let client = async {
                while let Some(event) = stream.next().await {
                    if let GenerationEvent::Waiting { .. } = event {
                        // Nothing more is paid.
                        allowance.close();
                    }
                    checks.take(&event, paid);
                }
                checks.end();
            };
            tokio::select! {
                () = client => {}
                never = self.serve(answer) => match never {},
            }
        });
    }

    /// Says the same on every connection, and ends it.
    async fn serve(&self, answer: &[u8]) -> Infallible {
        loop {
            let Ok((mut connection, _)) = self.listener.accept().await else { continue };
            let mut asked = vec![0; 4_096];
            // Whether it is read and written as a whole is the other side's doing.
            let _ = connection.read(&mut asked).await;
            let _ = connection.write_all(answer).await;
            let _ = connection.shutdown().await;
        }
    }
}

/// What an exchange says, looked at as it comes.
struct Checks {
    answers: usize,
    events: usize,
    delivered: i64,
    over: bool,
}

impl Checks {
    fn new(answers: usize) -> Self {
        Self { answers, events: 0, delivered: 0, over: false }
    }

    fn take(&mut self, event: &GenerationEvent, paid: i64) {
        assert!(!self.over, "something follows the end: {event:?}");
        self.events += 1;
        assert!(self.events < EVENTS_MAX, "an exchange without an end");
        match event {
            GenerationEvent::Started { input, cached_input } => assert!(cached_input <= input),
            GenerationEvent::Counted { input, cached_input, .. } => {
                assert!((TokenCount::ZERO..=TokenCount::new(INPUT_MAX)).contains(input), "{event:?}");
                assert!((&TokenCount::ZERO..=input).contains(&cached_input), "{event:?}");
            }
            GenerationEvent::Delta { output, .. } => {
                assert!((0..=paid.min(CAP)).contains(&output.get()), "{event:?} with {paid} paid");
                self.delivered = output.get();
            }
            GenerationEvent::Waiting { output } => assert!(output.get() > paid && output.get() <= CAP, "{event:?}"),
            GenerationEvent::Finished { output, .. } => {
                assert!((0..=paid.min(CAP)).contains(&output.get()), "{event:?} with {paid} paid");
                self.over = true;
            }
            GenerationEvent::Vector { .. } => panic!("a server elsewhere makes no vectors of ours"),
            GenerationEvent::Failed(error) => {
                assert!(error.code().status() < 600 && !error.message().is_empty());
                self.over = true;
            }
        }
    }

    fn end(&self) {
        assert!(self.over, "an exchange for {} answers ends with what came of it", self.answers);
    }
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: upstream_events);
    sublet_fuzz::tests!(Slow: upstream_exchange);
}
