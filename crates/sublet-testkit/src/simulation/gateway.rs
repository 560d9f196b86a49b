//! A gateway as the simulation sees it: purses inside slices, open requests, a journal on a disk
//! that loses what was not synced.
//!
//! It speaks to the real cloud through the ports of the real gateway and keeps its rules: money is
//! held before work, a request never costs more than its hold, a record is durable before it is
//! acknowledged, a slice goes back once nothing of it is open. Deliberately absent: HTTP, engines, waiting.

use std::sync::Arc;

use sublet_cloud::Cloud;
use sublet_cloud::slice::GatewayPort;
use sublet_core::admission::{
    Access, Admission, SliceClosed, SliceRequest, SliceReturn, SliceTarget, SpendClass, TokenPrices, TokenUsage,
};
use sublet_core::id::{GatewayId, KeyId, RequestId, SliceId};
use sublet_core::key::Secret;
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{Measured, Outcome, UsageRecord, UsageSink};
use sublet_core::{ErrorCode, Nanos, Result, Timestamp, TokenCount};

use crate::database::MODEL;

/// What became of a request that wanted more output.
pub enum Generated {
    More,
    OutOfMoney,
    /// Its key was revoked.
    KeyGone(KeyId),
}

/// A grant asks for this many times what is missing.
const GROWTH: i64 = 4;
/// Records of one settlement when a journal is replayed.
const REPLAY_BATCH: usize = 7;

/// An open slice and what is done with it.
pub(crate) struct Purse {
    pub slice: SliceId,
    pub key: KeyId,
    pub granted: Nanos,
    pub held: Nanos,
    pub captured: Nanos,
    pub records: i64,
    pub window_ends_at: Option<Timestamp>,
    pub retired: bool,
}

impl Purse {
    fn free(&self) -> Nanos {
        let used = self.held.checked_add(self.captured).expect("amounts of a slice add up");
        let free = self.granted.checked_sub(used).expect("amounts of a slice add up");
        assert!(!free.is_negative(), "slice {} holds {} and spent {} of {}", self.slice, self.held, self.captured, self.granted);
        free
    }
}

/// A request between its admission and its end.
pub(crate) struct OpenRequest {
    pub id: RequestId,
    pub access: Arc<Access>,
    pub prices: Arc<TokenPrices>,
    pub tokens: TokenUsage,
    pub hold: Nanos,
    pub slice: SliceId,
    pub admitted_at: Timestamp,
}

/// A written record, and what its slice counts as spent for it.
pub(crate) struct Written {
    pub record: UsageRecord,
    pub upper: Nanos,
}

/// What is on the gateway's disk. It outlives the process; what was only written may not.
#[derive(Default)]
pub(crate) struct Disk {
    pub durable: Vec<UsageRecord>,
    pub written: Vec<Written>,
}

/// Tokens of a request that begins.
#[derive(Clone, Copy)]
pub(crate) struct Prompt {
    pub input: i64,
    pub cached: i64,
    pub first_stretch: i64,
}

pub(crate) struct ModelGateway {
    pub cloud: Cloud,
    pub port: GatewayPort,
    pub id: GatewayId,
    pub fence: i64,
    pub purses: Vec<Purse>,
    pub requests: Vec<OpenRequest>,
    pub disk: Disk,
    /// Durable records before this one were settled, as far as this process knows.
    pub settled: usize,
}

fn plus(a: Nanos, b: Nanos) -> Nanos {
    a.checked_add(b).expect("simulated amounts are small")
}

fn minus(a: Nanos, b: Nanos) -> Nanos {
    a.checked_sub(b).expect("simulated amounts are small")
}

impl ModelGateway {
    /// A new session: what the last one left durable is settled, then its slices go back.
    pub async fn start(cloud: &Cloud, id: &GatewayId, journal: &[UsageRecord]) -> Result<Self> {
        let fence = cloud.start_gateway(id).await?;
        for batch in journal.chunks(REPLAY_BATCH) {
            let report = cloud.settle(batch).await?;
            let length = u64::try_from(batch.len()).expect("a small batch");
            assert_eq!(report.settled + report.duplicate, length, "a replayed journal is charged or known: {report:?}");
        }
        cloud.close_fenced_slices(id, fence).await?;
        let port = GatewayPort::new(cloud.clone(), id.clone());
        let gateway = Self {
            cloud: cloud.clone(),
            port,
            id: id.clone(),
            fence,
            purses: Vec::new(),
            requests: Vec::new(),
            disk: Disk::default(),
            settled: 0,
        };
        Ok(gateway)
    }

    fn purse(&mut self, slice: &SliceId) -> &mut Purse {
        self.purses.iter_mut().find(|purse| purse.slice == *slice).expect("a request's slice is open")
    }

    /// Holds money for a request and lets it in.
    pub async fn admit(&mut self, secret: &Secret, prompt: Prompt) -> Result<()> {
        let access = self.port.authenticate(secret).await?;
        let tier = ServiceTier::ALL[usize::try_from(prompt.input.rem_euclid(3)).unwrap_or(0)];
        let now = self.cloud.clock().now();
        let prices = self.port.prices(&access, (MODEL, tier), now)?;
        let tokens = TokenUsage {
            input: TokenCount::new(prompt.input),
            cached_input: TokenCount::new(prompt.cached),
            output: TokenCount::ZERO,
        };
        let hold = prices.upper_bound(&TokenUsage { output: TokenCount::new(prompt.first_stretch), ..tokens })?;
        let slice = self.find_money(&access, hold, now).await?;
        let purse = self.purse(&slice);
        purse.held = plus(purse.held, hold);
        purse.free();
        let id = self.cloud.ids().mint();
        self.requests.push(OpenRequest { id, access, prices, tokens, hold, slice, admitted_at: now });
        Ok(())
    }

    /// The slice of a key that has so much free, after a grant if need be.
    async fn find_money(&mut self, access: &Access, hold: Nanos, now: Timestamp) -> Result<SliceId> {
        for purse in &mut self.purses {
            purse.retired |= purse.window_ends_at.is_some_and(|end| now >= end);
        }
        let found = self.purses.iter().position(|purse| purse.key == access.key && !purse.retired);
        let Some(index) = found else {
            let slice = self.grant(&access.key, None, hold).await?;
            return Ok(slice);
        };
        let (slice, free) = (self.purses[index].slice.clone(), self.purses[index].free());
        if free < hold {
            self.grant(&access.key, Some(slice.clone()), minus(hold, free)).await?;
        }
        Ok(slice)
    }

    async fn grant(&mut self, key: &KeyId, extend: Option<SliceId>, least: Nanos) -> Result<SliceId> {
        let request = SliceRequest {
            gateway: self.id.clone(),
            fence: self.fence,
            key: key.clone(),
            class: SpendClass::default(),
            slice: extend.clone().map_or_else(|| SliceTarget::Open(self.cloud.ids().mint()), SliceTarget::Extend),
            wanted: Nanos::new(least.get() * GROWTH),
            least,
            is_final: true,
        };
        let grant = self.port.grant_slice(request).await?;
        assert!(grant.added >= least && grant.added.get() <= least.get() * GROWTH, "{least} asked, {grant:?}");
        match extend {
            Some(slice) => {
                let purse = self.purse(&slice);
                purse.granted = plus(purse.granted, grant.added);
                assert_eq!(grant.granted, purse.granted, "the cloud and the gateway agree on {slice}");
            }
            None => self.purses.push(Purse {
                slice: grant.slice.clone(),
                key: key.clone(),
                granted: grant.granted,
                held: Nanos::ZERO,
                captured: Nanos::ZERO,
                records: 0,
                window_ends_at: grant.window_ends_at,
                retired: false,
            }),
        }
        Ok(grant.slice)
    }

    /// The engine makes output; the hold grows ahead of it. A request that is stopped has ended.
    pub async fn generate(&mut self, index: usize, output: i64) -> Result<Generated> {
        let request = &self.requests[index];
        let (slice, key) = (request.slice.clone(), request.access.key.clone());
        let grown = TokenUsage { output: request.tokens.output.saturating_add(TokenCount::new(output)), ..request.tokens };
        let needed = request.prices.upper_bound(&grown)?;
        let missing = minus(needed, request.hold).max(Nanos::ZERO);
        let free = self.purse(&slice).free();
        if free < missing {
            match self.grant(&key, Some(slice.clone()), minus(missing, free)).await {
                Ok(_) => {}
                Err(error) if error.code() == ErrorCode::InsufficientQuota => {
                    self.finish(index, Outcome::BudgetStopped);
                    return Ok(Generated::OutOfMoney);
                }
                Err(error) if error.code() == ErrorCode::InvalidApiKey => {
                    self.finish(index, Outcome::ServerStopped);
                    return Ok(Generated::KeyGone(key));
                }
                Err(error) => return Err(error),
            }
        }
        let purse = self.purse(&slice);
        purse.held = plus(purse.held, missing);
        purse.free();
        let request = &mut self.requests[index];
        request.hold = plus(request.hold, missing);
        request.tokens = grown;
        Ok(Generated::More)
    }

    /// The request's record is written; it counts once it is synced.
    pub fn finish(&mut self, index: usize, outcome: Outcome) {
        let request = self.requests.swap_remove(index);
        let upper = request.prices.upper_bound(&request.tokens).expect("it was held");
        assert!(upper <= request.hold, "{} costs {upper}, more than its hold {}", request.id, request.hold);
        let now = self.cloud.clock().now();
        let record = UsageRecord {
            tier: request.prices.tier,
            request: request.id,
            attempt: 1,
            gateway: self.id.clone(),
            fence: self.fence,
            slice: request.slice.clone(),
            key: request.access.key.clone(),
            project: request.access.project.clone(),
            organization: request.access.organization.clone(),
            model: MODEL.to_owned(),
            route: "/v1/chat/completions".to_owned(),
            price_version: request.prices.version.clone(),
            admitted_at: request.admitted_at,
            first_token_at: Some(request.admitted_at),
            finished_at: now,
            tokens: request.tokens,
            outcome,
            measured: Measured::Engine,
            client_retry: 0,
            line: None,
            replica: None,
            purchases: Vec::new(),
        };
        let purse = self.purse(&request.slice);
        purse.held = minus(purse.held, request.hold);
        purse.captured = plus(purse.captured, upper);
        purse.records += 1;
        purse.free();
        self.disk.written.push(Written { record, upper });
    }

    /// The request failed before anything was delivered: nothing is charged.
    pub fn void(&mut self, index: usize) {
        let request = self.requests.swap_remove(index);
        let purse = self.purse(&request.slice);
        purse.held = minus(purse.held, request.hold);
    }

    /// Everything written becomes durable, and is acknowledged.
    pub fn sync(&mut self) -> Vec<UsageRecord> {
        let acknowledged: Vec<UsageRecord> = self.disk.written.drain(..).map(|written| written.record).collect();
        self.disk.durable.extend(acknowledged.iter().cloned());
        acknowledged
    }

    /// The disk refuses what was written: nothing of it was acknowledged, and nothing is charged.
    pub fn refuse_written(&mut self) {
        for Written { record, upper } in std::mem::take(&mut self.disk.written) {
            let purse = self.purse(&record.slice);
            purse.captured = minus(purse.captured, upper);
            purse.records -= 1;
        }
    }

    /// Gives back every slice that nothing is open on; with `all`, the ones in use are retired, too.
    pub async fn give_back(&mut self, all: bool) -> Result<usize> {
        let mut returned = 0;
        for index in (0..self.purses.len()).rev() {
            let used = self.requests.iter().any(|request| request.slice == self.purses[index].slice)
                || self.disk.written.iter().any(|written| written.record.slice == self.purses[index].slice);
            self.purses[index].retired |= all;
            if used || !self.purses[index].retired {
                continue;
            }
            let purse = &self.purses[index];
            let request = SliceReturn { slice: purse.slice.clone(), fence: self.fence, records: purse.records };
            match self.port.return_slice(request).await? {
                SliceClosed::Released(amount) => {
                    let least = minus(purse.granted, purse.captured);
                    assert!(amount >= least && amount <= purse.granted, "{} gave back {amount} of {}", purse.slice, purse.granted);
                    self.purses.swap_remove(index);
                    returned += 1;
                }
                SliceClosed::Waiting => {}
            }
        }
        Ok(returned)
    }
}
