//! Tiers: who is served first, who gives way, and who is turned away. The scheduler is driven turn by turn.

use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use sublet_core::engine::{Allowance, FinishReason, GenerationEvent, Millionths, Sampling};
use sublet_core::tier::ServiceTier;
use sublet_core::{Clock, DurationMs, Error, ErrorCode, Result, TokenCount};

use super::harness::{TickingClock, embedded};
use crate::detokenize::TextAssembler;
use crate::inbox::Inbox;
use crate::load::load;
use crate::sample::Sampler;
use crate::scheduler::Scheduler;
use crate::sequence::{EventStream, Sequence, SequenceParts, channel};
use crate::test_model::{END_TOKEN, TinyModel};
use crate::{EngineConfig, ModelSource};

/// A scheduler without a thread.
struct Stage {
    config: EngineConfig,
    clock: Arc<TickingClock>,
    inbox: Arc<Inbox>,
    scheduler: Scheduler,
    asked: u64,
}

/// One request, and what it was sent.
struct Reader {
    stream: EventStream,
    text: String,
    output: i64,
    end: Option<std::result::Result<FinishReason, Error>>,
}

impl Reader {
    /// Reads what is there.
    fn read(&mut self) {
        let mut context = Context::from_waker(Waker::noop());
        while let Poll::Ready(Some(event)) = self.stream.poll_next_unpin(&mut context) {
            match event {
                GenerationEvent::Delta { text, output, .. } => {
                    self.text.push_str(&text);
                    self.output = output.get();
                }
                GenerationEvent::Finished { reason, .. } => self.end = Some(Ok(reason)),
                GenerationEvent::Failed(error) => self.end = Some(Err(error)),
                GenerationEvent::Started { .. }
                | GenerationEvent::Counted { .. }
                | GenerationEvent::Waiting { .. }
                | GenerationEvent::Vector { .. } => {}
            }
        }
    }

    fn code(&self) -> Option<ErrorCode> {
        self.end.as_ref().and_then(|end| end.as_ref().err().map(Error::code))
    }
}

impl Stage {
    fn new(config: EngineConfig) -> Self {
        let model = load(ModelSource::Embedded(embedded(&TinyModel::default()))).expect("the tiny model loads");
        let (inbox, clock) = (Arc::new(Inbox::default()), Arc::new(TickingClock::default()));
        let scheduler = Scheduler::new(
            Arc::new(model),
            config.clone(),
            (Arc::clone(&inbox), Arc::default()),
            Arc::clone(&clock) as Arc<dyn Clock>,
        );
        Self { config, clock, inbox, scheduler, asked: 0 }
    }

    /// Asks for so many tokens, all paid for but where `paid` says less. The text never ends by itself.
    fn try_ask(&mut self, tier: ServiceTier, (prompt, tokens, paid): (usize, usize, i64)) -> Result<Reader> {
        self.asked += 1;
        let sampling =
            Sampling { logit_bias: vec![(END_TOKEN, Millionths(-100_000_000))], seed: Some(self.asked), ..Sampling::default() };
        let parts = SequenceParts {
            tokens: (0..prompt).map(|position| 40 + (position % 9) as u32).collect(),
            output_max: tokens,
            sampler: Sampler::new(&sampling, self.asked),
            assembler: TextAssembler::new(&[]),
            allowance: Arc::new(Allowance::new(TokenCount::new(paid))),
            rule: None,
            salt: "a tenant".into(),
            tier,
            vectors: None,
        };
        let (outlet, stream) = channel(Arc::clone(&self.inbox));
        let made = (self.asked, self.clock.now());
        self.inbox.accept(&self.config, tier, || Sequence::new(made, parts, outlet))?;
        Ok(Reader { stream, text: String::new(), output: 0, end: None })
    }

    fn ask(&mut self, tier: ServiceTier, tokens: usize) -> Reader {
        self.try_ask(tier, (5, tokens, i64::MAX)).expect("there is room")
    }

    /// Computes a step.
    fn turn(&mut self, readers: &mut [&mut Reader]) {
        assert!(self.scheduler.turn());
        for reader in readers {
            reader.read();
        }
    }

    fn run(&mut self, readers: &mut [&mut Reader]) {
        for _ in 0..2_000 {
            if readers.iter().all(|reader| reader.end.is_some()) {
                return;
            }
            self.turn(readers);
        }
        panic!("not all ended: {:?}", self.inbox.load());
    }
}

fn with_slots(running_max: usize) -> EngineConfig {
    EngineConfig { running_max, ..EngineConfig::default() }
}

#[test]
fn a_higher_tier_takes_the_slot_and_the_lower_one_goes_on_as_if_nothing_had_been() {
    let mut stage = Stage::new(with_slots(1));
    let mut alone = stage.ask(ServiceTier::Flex, 30);
    stage.run(&mut [&mut alone]);
    for better in [ServiceTier::Default, ServiceTier::Priority] {
        // The same seed as before.
        stage.asked = 0;
        let mut flex = stage.ask(ServiceTier::Flex, 30);
        while flex.output < 10 {
            stage.turn(&mut [&mut flex]);
        }
        let mut better = stage.ask(better, 20);
        while better.end.is_none() {
            let before = flex.output;
            stage.turn(&mut [&mut flex, &mut better]);
            assert!(flex.output == before || better.end.is_some(), "it has no slot meanwhile");
        }
        assert_eq!(better.output, 20);
        stage.run(&mut [&mut flex]);
        assert_eq!((&flex.text, flex.output), (&alone.text, 30));
    }
}

#[test]
fn slots_go_by_tier_and_then_by_arrival() {
    let mut stage = Stage::new(with_slots(1));
    let tiers = [ServiceTier::Flex, ServiceTier::Default, ServiceTier::Priority, ServiceTier::Default, ServiceTier::Priority];
    let mut readers: Vec<Reader> = tiers.iter().map(|tier| stage.ask(*tier, 4)).collect();
    let mut order = Vec::new();
    while order.len() < readers.len() {
        stage.turn(&mut readers.iter_mut().collect::<Vec<_>>());
        let ended = |place: &usize| readers[*place].end.is_some() && !order.contains(place);
        order.extend((0..readers.len()).filter(ended).collect::<Vec<_>>());
    }
    assert_eq!(order, [2, 4, 1, 3, 0]);
}

#[test]
fn memory_goes_to_the_higher_tier_too() {
    // One context of 256 positions fits.
    let config = EngineConfig { kv_bytes_max: Some(sublet_core::Bytes::new(1)), ..with_slots(8) };
    let mut stage = Stage::new(config);
    let mut flex = stage.try_ask(ServiceTier::Flex, (200, 40, i64::MAX)).expect("there is room");
    while flex.output < 5 {
        stage.turn(&mut [&mut flex]);
    }
    let mut priority = stage.try_ask(ServiceTier::Priority, (200, 40, i64::MAX)).expect("there is room");
    stage.run(&mut [&mut priority]);
    assert_eq!((priority.output, flex.end.is_none()), (40, true));
    stage.run(&mut [&mut flex]);
    assert_eq!(flex.output, 40);
}

#[test]
fn little_of_flex_is_computed_beside_others_and_all_of_it_alone() {
    let mut stage = Stage::new(with_slots(8));
    let mut flex: Vec<Reader> = (0..8).map(|_| stage.ask(ServiceTier::Flex, 100)).collect();
    stage.turn(&mut flex.iter_mut().collect::<Vec<_>>());
    assert_eq!(stage.inbox.load().running, 8);
    let mut better = stage.ask(ServiceTier::Default, 20);
    stage.turn(&mut [&mut better]);
    let load = stage.inbox.load();
    assert_eq!((load.running, load.queued), (3, 6), "one of the default tier, and a quarter of eight slots");
    stage.run(&mut [&mut better]);
    stage.turn(&mut flex.iter_mut().collect::<Vec<_>>());
    assert_eq!(stage.inbox.load().running, 8);
    // Long prompts of flex are read in small pieces beside others.
    let mut stage = Stage::new(EngineConfig { prefill_tokens_per_step_max: 64, ..with_slots(8) });
    let mut better = stage.ask(ServiceTier::Default, 60);
    stage.turn(&mut [&mut better]);
    let mut flex = stage.try_ask(ServiceTier::Flex, (160, 2, i64::MAX)).expect("there is room");
    let mut turns = 0;
    while flex.output == 0 {
        stage.turn(&mut [&mut better, &mut flex]);
        turns += 1;
    }
    assert_eq!((turns, better.end.is_none()), (10, true), "160 tokens, a quarter of 64 at a time");
}

#[test]
fn what_waits_too_long_is_refused_or_preempted_and_says_when_to_repeat() {
    let mut stage = Stage::new(EngineConfig { flex_wait_max: DurationMs::from_millis(50), ..with_slots(1) });
    let mut begun = stage.ask(ServiceTier::Flex, 200);
    while begun.output < 3 {
        stage.turn(&mut [&mut begun]);
    }
    let mut better = stage.ask(ServiceTier::Default, 240);
    let mut new = stage.ask(ServiceTier::Flex, 5);
    let since = stage.clock.now();
    while begun.end.is_none() || new.end.is_none() {
        stage.turn(&mut [&mut begun, &mut new, &mut better]);
    }
    let waited = stage.clock.now().since(since);
    assert!((50..=200).contains(&waited.millis()), "{waited:?}");
    assert_eq!((new.code(), new.output), (Some(ErrorCode::QueueFull), 0));
    assert_eq!(begun.code(), Some(ErrorCode::Preempted));
    for reader in [&new, &begun] {
        let Some(Err(error)) = &reader.end else { panic!("both were refused") };
        assert!(error.retry_after_hint().is_some());
    }
    stage.turn(&mut [&mut better]);
    assert_eq!((stage.inbox.load().running, stage.inbox.load().queued), (1, 0), "nothing of them is left");
}

#[test]
fn each_tier_finds_its_share_of_the_queue() {
    let mut stage = Stage::new(EngineConfig { queue_max: 8, ..EngineConfig::default() });
    let mut kept = Vec::new();
    for (tier, places) in [(ServiceTier::Flex, 4), (ServiceTier::Default, 7), (ServiceTier::Priority, 8)] {
        while kept.len() < places {
            kept.push(stage.try_ask(tier, (5, 9, 1)).expect("there is room"));
        }
        let refused = stage.try_ask(tier, (5, 9, 1)).err().expect("its share is used");
        assert_eq!(refused.code(), ErrorCode::QueueFull);
        assert!(refused.to_string().contains(tier.as_str()) && refused.retry_after_hint().is_some(), "{refused}");
    }
}

#[test]
fn who_would_wait_too_long_is_told_at_once_for_how_long() {
    let mut stage = Stage::new(EngineConfig { flex_wait_max: DurationMs::from_millis(200), ..with_slots(1) });
    let mut some: Vec<Reader> = (0..4).map(|_| stage.ask(ServiceTier::Default, 30)).collect();
    stage.run(&mut some.iter_mut().collect::<Vec<_>>());
    let each = stage.inbox.time_of_ends(1).millis();
    let mut kept: Vec<Reader> = (0..20).map(|_| stage.ask(ServiceTier::Default, 30)).collect();
    stage.turn(&mut kept.iter_mut().collect::<Vec<_>>());
    let refused = stage.try_ask(ServiceTier::Flex, (5, 5, i64::MAX)).err().expect("all of them come first");
    let told = refused.retry_after_hint().expect("a hint").millis();
    let expected = 19 * each - 200;
    assert!((told - expected).abs() <= 20, "told {told} ms, {expected} ms are expected");
    assert!(stage.try_ask(ServiceTier::Priority, (5, 5, i64::MAX)).is_ok(), "it comes before them");
}
