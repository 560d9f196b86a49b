//! A cloud with one limit per organization, which checks the money rules at every step.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::world::TestClock;
use sublet_core::admission::{
    Access, Admission, ModelAccess, PriceVersion, SliceClosed, SliceGrant, SliceRequest, SliceReturn, SliceTarget, SpendClass,
    TokenPrices, TokenRates,
};
use sublet_core::card::Cards;
use sublet_core::engine::Prompt;
use sublet_core::id::{Identifier, KeyId, OrganizationId, ProjectId, RequestId, SliceId};
use sublet_core::key::Secret;
use sublet_core::offering::{Entitlements, Offerings};
use sublet_core::rate::{Bucket, Draw, DrawRequest, Drawn, RateLimits};
use sublet_core::supplier::DataConsent;
use sublet_core::supply::{Catalogue, RemoteModels, SecretName, SecretSource};
use sublet_core::tier::ServiceTier;
use sublet_core::tokenizer::{TokenCounter, TokenizerName, Tokenizers};
use sublet_core::usage::{SettleReport, UsageRecord, UsageSink};
use sublet_core::{BoxFuture, Clock, Currency, Error, ErrorCode, Nanos, Rate, Result, Timestamp, TokenCount};

/// Nano-units per token in the fake price list.
pub const INPUT: i64 = 10;
pub const CACHED: i64 = 1;
pub const OUTPUT: i64 = 100;

#[derive(Debug)]
struct Slice {
    key: KeyId,
    class: SpendClass,
    organization: OrganizationId,
    granted: i64,
    charged: i64,
    records: i64,
    window: Timestamp,
}

#[derive(Default)]
pub struct Books {
    /// What each class of requests may be granted.
    pub class_limit: Option<i64>,
    limits: HashMap<OrganizationId, i64>,
    /// What admitted work may go beyond the limits by.
    pub overrun: i64,
    settled: HashMap<OrganizationId, i64>,
    slices: BTreeMap<SliceId, Slice>,
    records: BTreeMap<(RequestId, u32), UsageRecord>,
    /// Tokens per priced line, for cumulative rounding.
    lines: HashMap<(OrganizationId, &'static str), i64>,
    access: HashMap<String, Arc<Access>>,
}

pub struct Cloud {
    pub books: Mutex<Books>,
    pub prices: Mutex<TokenPrices>,
    pub epoch: AtomicU64,
    pub unreachable: AtomicBool,
    /// Grants wait until this is false again and `go` says so.
    pub slow: AtomicBool,
    pub go: tokio::sync::Notify,
    /// Grants are made, and their answers wait until this is false again and `go` says so.
    pub answers_slow: AtomicBool,
    /// Grants are made, and their answers are lost.
    pub answers_lost: AtomicBool,
    pub grants: AtomicU64,
    pub refusals: AtomicU64,
    /// Grants beyond a limit.
    pub beyond: AtomicU64,
    pub authentications: AtomicU64,
    /// Slices end at this instant.
    pub window_ends_at: Mutex<Option<Timestamp>>,
    /// Of limits on speed.
    pub buckets: Mutex<BTreeMap<Arc<str>, Bucket>>,
    /// That of every gateway on it.
    pub clock: Arc<TestClock>,
    pub draws: tokio::sync::watch::Sender<u64>,
    pub remote: Mutex<Arc<RemoteModels>>,
    pub cards: Mutex<Arc<Cards>>,
    pub offerings: Mutex<Arc<Offerings>>,
}

pub fn prices(input: Rate, cached: Rate, output: Rate) -> TokenPrices {
    TokenPrices {
        tier: ServiceTier::Default,
        version: PriceVersion(Arc::from("v1")),
        currency: Currency::EUR,
        request: Nanos::ZERO,
        input,
        cached_input: cached,
        output,
        least: TokenRates { input, cached_input: cached, output },
    }
}

/// Flex costs a half, priority twice as much.
fn at_tier(prices: TokenPrices, tier: ServiceTier) -> TokenPrices {
    let (times, per) = match tier {
        ServiceTier::Flex => (1, 2),
        ServiceTier::Default => (1, 1),
        ServiceTier::Priority => (2, 1),
    };
    let share = |rate: Rate| Rate::new(Nanos::new(rate.nanos().get() * times), rate.per() * per).unwrap();
    let TokenPrices { input, cached_input, output, .. } = prices;
    let least = TokenRates { input: share(input), cached_input: share(cached_input), output: share(output) };
    TokenPrices { tier, input: least.input, cached_input: least.cached_input, output: least.output, least, ..prices }
}

pub fn per_token(nanos: i64) -> Rate {
    Rate::new(Nanos::new(nanos), 1).unwrap()
}

impl Cloud {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            books: Mutex::default(),
            prices: Mutex::new(prices(per_token(INPUT), per_token(CACHED), per_token(OUTPUT))),
            epoch: AtomicU64::new(1),
            unreachable: AtomicBool::new(false),
            slow: AtomicBool::new(false),
            go: tokio::sync::Notify::new(),
            answers_slow: AtomicBool::new(false),
            answers_lost: AtomicBool::new(false),
            grants: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            beyond: AtomicU64::new(0),
            authentications: AtomicU64::new(0),
            window_ends_at: Mutex::default(),
            buckets: Mutex::default(),
            clock: TestClock::new(),
            draws: tokio::sync::watch::Sender::new(0),
            remote: Mutex::default(),
            cards: Mutex::default(),
            offerings: Mutex::default(),
        })
    }

    /// A key of an organization; the secret is made from the number.
    pub fn add_key(&self, number: u32, organization: &str, rates: RateLimits) -> String {
        let text = secret(number);
        let access = Access {
            key: KeyId::from_trusted(Arc::from(format!("key_{number}"))),
            project: ProjectId::from_trusted(Arc::from(format!("proj_{organization}"))),
            organization: organization_id(organization),
            currency: Currency::EUR,
            models: ModelAccess::All,
            limits: rates.rules(&KeyId::from_trusted(Arc::from(format!("key_{number}")))),
            expires_at: None,
            narrow_limits: Vec::new(),
            licences: Vec::new(),
            entitlements: Entitlements::default(),
            data: DataConsent::default(),
        };
        self.books.lock().unwrap().access.insert(text.clone(), Arc::new(access));
        text
    }

    pub fn change_key(&self, secret: &str, change: impl FnOnce(&mut Access)) {
        let mut books = self.books.lock().unwrap();
        let mut access = Access::clone(&books.access[secret]);
        change(&mut access);
        books.access.insert(secret.to_owned(), Arc::new(access));
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn revoke(&self, secret: &str) {
        self.books.lock().unwrap().access.remove(secret);
        self.epoch.fetch_add(1, Ordering::SeqCst);
    }

    pub fn limit(&self, organization: &str, nanos: i64) {
        self.books.lock().unwrap().limits.insert(organization_id(organization), nanos);
    }

    pub fn settled(&self, organization: &str) -> i64 {
        self.books.lock().unwrap().settled.get(&organization_id(organization)).copied().unwrap_or(0)
    }

    /// Granted and not charged.
    pub fn sliced(&self, organization: &str) -> i64 {
        self.books.lock().unwrap().sliced(&organization_id(organization))
    }

    pub fn shown_slices(&self) -> String {
        format!("{:?}", self.books.lock().unwrap().slices)
    }

    pub fn open_slices(&self) -> usize {
        self.books.lock().unwrap().slices.len()
    }

    pub fn records(&self) -> Vec<UsageRecord> {
        self.books.lock().unwrap().records.values().cloned().collect()
    }

    fn draw(&self, request: &DrawRequest, now: Timestamp) -> Vec<Drawn> {
        let mut buckets = self.buckets.lock().unwrap();
        let draw = |draw: &Draw| {
            let bucket = buckets.entry(Arc::clone(&draw.bucket)).or_insert_with(|| Bucket::full(draw, now));
            bucket.draw((&request.gateway, request.fence), draw, now)
        };
        request.draws.iter().map(draw).collect()
    }

    fn check_reachable(&self) -> Result<()> {
        if self.unreachable.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorCode::StoreUnavailable, "the store is away"));
        }
        Ok(())
    }
}

pub fn secret(number: u32) -> String {
    format!("sk-sub-{number:064x}")
}

pub fn organization_id(name: &str) -> OrganizationId {
    OrganizationId::from_trusted(Arc::from(format!("org_{name}")))
}

impl Books {
    fn sliced(&self, organization: &OrganizationId) -> i64 {
        self.slices.values().filter(|slice| slice.organization == *organization).map(|slice| slice.granted - slice.charged).sum()
    }

    fn check(&self) {
        for (organization, limit) in &self.limits {
            let settled = self.settled.get(organization).copied().unwrap_or(0);
            let sliced = self.sliced(organization);
            assert!(settled + sliced <= *limit + self.overrun, "settled {settled} + sliced {sliced} > {limit}");
        }
        for (id, slice) in &self.slices {
            assert!(slice.charged <= slice.granted, "{id}: {slice:?}");
        }
    }

    fn grant(&mut self, request: &SliceRequest, window: Option<Timestamp>) -> Result<SliceGrant> {
        let found = self.access.values().find(|access| access.key == request.key);
        let organization =
            found.map(|access| access.organization.clone()).ok_or_else(|| Error::new(ErrorCode::NotFound, "no key"))?;
        let limit = self.limits.get(&organization).copied().unwrap_or(i64::MAX / 2);
        let settled = self.settled.get(&organization).copied().unwrap_or(0);
        let available = limit - settled - self.sliced(&organization);
        assert!(request.least <= request.wanted && !request.least.is_negative(), "{request:?}");
        if let SliceTarget::Open(id) = &request.slice
            && let Some(known) = self.slices.get(id).filter(|known| known.granted >= request.least.get())
        {
            let (has, available) = (Nanos::new(known.granted), Some(Nanos::new(available)));
            let window_ends_at = Some(known.window).filter(|at| *at != Timestamp::EPOCH);
            return Ok(SliceGrant { slice: id.clone(), added: has, granted: has, window_ends_at, available, closed_to_new: None });
        }
        // Every class but the common one is limited here, each by itself.
        let of_class: i64 = self.slices.values().filter(|slice| slice.class == request.class).map(|slice| slice.granted).sum();
        let class_limit = if request.class == SpendClass::default() { i64::MAX } else { self.class_limit.unwrap_or(i64::MAX) };
        let mut available = available.min(class_limit.saturating_sub(of_class));
        let mut closed_to_new = None;
        if available < request.least.get() {
            let message = format!("the organization's limit of {limit} leaves {available}, {} are needed", request.least.get());
            let refusal = Error::new(ErrorCode::InsufficientQuota, message);
            available += self.overrun;
            if !matches!(request.slice, SliceTarget::Finish(_)) || available < request.least.get() {
                return Err(refusal);
            }
            closed_to_new = Some(refusal);
        }
        let added = request.wanted.get().min(available);
        let id = match &request.slice {
            SliceTarget::Extend(id) | SliceTarget::Finish(id) if self.slices.contains_key(id) => id.clone(),
            SliceTarget::Extend(id) | SliceTarget::Finish(id) => {
                return Err(Error::new(ErrorCode::Conflict, format!("{id} is closed")));
            }
            SliceTarget::Open(id) => {
                let slice = Slice {
                    key: request.key.clone(),
                    class: request.class.clone(),
                    organization,
                    granted: 0,
                    charged: 0,
                    records: 0,
                    window: window.unwrap_or(Timestamp::EPOCH),
                };
                assert!(self.slices.insert(id.clone(), slice).is_none(), "{id} was opened twice");
                id.clone()
            }
        };
        let slice = self.slices.get_mut(&id).unwrap();
        assert_eq!(slice.key, request.key);
        slice.granted += added;
        let granted = Nanos::new(slice.granted);
        let window_ends_at = Some(slice.window).filter(|at| *at != Timestamp::EPOCH);
        self.check();
        Ok(SliceGrant {
            slice: id,
            added: Nanos::new(added),
            granted,
            window_ends_at,
            available: Some(Nanos::new(available - added)),
            closed_to_new,
        })
    }

    fn settle(&mut self, record: &UsageRecord, prices: &TokenPrices) -> bool {
        let identity = (record.request.clone(), record.attempt);
        if let Some(known) = self.records.get(&identity) {
            assert_eq!(known, record, "the same identity with another body");
            return false;
        }
        let has_work = record.tokens.output.get() > 0 || record.route == "/v1/embeddings" || record.is_purchase_only();
        assert!(has_work, "a record without output: {record:?}");
        let mut cost = if record.is_purchase_only() { 0 } else { prices.request.get() };
        for (name, rate, tokens) in [
            ("input", prices.input, record.tokens.input),
            ("cached", prices.cached_input, record.tokens.cached_input),
            ("output", prices.output, record.tokens.output),
        ] {
            let line = self.lines.entry((record.organization.clone(), name)).or_default();
            let before = rate.cost_half_even(*line).unwrap().get();
            *line += tokens.get();
            cost += rate.cost_half_even(*line).unwrap().get() - before;
        }
        let slice = self.slices.get_mut(&record.slice).expect("the record's slice is open until its records are settled");
        assert_eq!(slice.key, record.key);
        slice.charged += cost;
        slice.records += 1;
        *self.settled.entry(record.organization.clone()).or_default() += cost;
        self.records.insert(identity, record.clone());
        self.check();
        true
    }
}

impl Admission for Cloud {
    fn authenticate<'a>(&'a self, secret: &'a Secret) -> BoxFuture<'a, Result<Arc<Access>>> {
        Box::pin(async move {
            self.authentications.fetch_add(1, Ordering::SeqCst);
            let books = self.books.lock().unwrap();
            books.access.get(secret.reveal()).cloned().ok_or_else(|| Error::new(ErrorCode::InvalidApiKey, "the key is unknown"))
        })
    }
    fn access_epoch(&self) -> u64 {
        self.epoch.load(Ordering::SeqCst)
    }
    fn prices(&self, _: &Access, (model, tier): (&str, ServiceTier), _: Timestamp) -> Result<Arc<TokenPrices>> {
        if model == "unpriced" {
            return Err(Error::new(ErrorCode::UnknownPrice, "no price for unpriced"));
        }
        let prices = self.prices.lock().unwrap().clone();
        if tier == ServiceTier::Priority && model == "far/away" {
            return Err(Error::new(ErrorCode::PolicyRefused, "not sold at this tier").param("service_tier").alternative("default"));
        }
        Ok(Arc::new(at_tier(prices, tier)))
    }
    fn price_range(&self, access: &Access, model: (&str, ServiceTier), at: Timestamp) -> Result<[TokenPrices; 2]> {
        let prices = self.prices(access, model, at)?;
        Ok([(*prices).clone(), (*prices).clone()])
    }
    fn grant_slice(&self, request: SliceRequest) -> BoxFuture<'_, Result<SliceGrant>> {
        Box::pin(async move {
            // Others run while the store works.
            tokio::task::yield_now().await;
            while self.slow.load(Ordering::SeqCst) {
                self.go.notified().await;
            }
            self.check_reachable()?;
            self.grants.fetch_add(1, Ordering::SeqCst);
            let window = *self.window_ends_at.lock().unwrap();
            let answer = self.books.lock().unwrap().grant(&request, window);
            tokio::task::yield_now().await;
            while self.answers_slow.load(Ordering::SeqCst) {
                self.go.notified().await;
            }
            if self.answers_lost.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorCode::StoreUnavailable, "the connection broke before the answer"));
            }
            if answer.as_ref().is_ok_and(|grant| grant.closed_to_new.is_some()) {
                self.beyond.fetch_add(1, Ordering::SeqCst);
            }
            if answer.is_err() {
                self.refusals.fetch_add(1, Ordering::SeqCst);
            }
            answer
        })
    }
    fn draw_limits(&self, request: DrawRequest) -> BoxFuture<'_, Result<Vec<Drawn>>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            while self.slow.load(Ordering::SeqCst) {
                self.go.notified().await;
            }
            self.check_reachable()?;
            self.draws.send_modify(|count| *count += 1);
            assert!(request.draws.is_sorted_by(|one, other| one.bucket < other.bucket), "one draw of each bucket, in order");
            let now = self.clock.now();
            let drawn = self.draw(&request, now);
            tokio::task::yield_now().await;
            Ok(drawn)
        })
    }
    fn return_slice(&self, request: SliceReturn) -> BoxFuture<'_, Result<SliceClosed>> {
        Box::pin(async move {
            self.check_reachable()?;
            let mut books = self.books.lock().unwrap();
            let Some(slice) = books.slices.get(&request.slice) else {
                return Err(Error::new(ErrorCode::NotFound, "no such slice"));
            };
            assert!(slice.records <= request.records, "more was settled than the gateway recorded");
            if slice.records < request.records {
                return Ok(SliceClosed::Waiting);
            }
            let left = slice.granted - slice.charged;
            books.slices.remove(&request.slice);
            Ok(SliceClosed::Released(Nanos::new(left)))
        })
    }
}

impl Catalogue for Cloud {
    fn remote_models(&self) -> Arc<RemoteModels> {
        Arc::clone(&self.remote.lock().unwrap())
    }
    fn cards(&self) -> Arc<Cards> {
        Arc::clone(&self.cards.lock().unwrap())
    }
    fn offerings(&self) -> Arc<Offerings> {
        Arc::clone(&self.offerings.lock().unwrap())
    }
}

impl SecretSource for Cloud {
    fn read(&self, name: &SecretName) -> Result<String> {
        Ok(format!("secret-of-{}", name.as_str()))
    }
}

/// Words are tokens.
struct Words;

impl Tokenizers for Cloud {
    fn open(&self, name: &TokenizerName) -> Result<Arc<dyn TokenCounter>> {
        if name.as_str() == "words" { Ok(Arc::new(Words)) } else { Err(Error::internal("there is no such tokenizer")) }
    }
}

impl TokenCounter for Words {
    /// A word's token is its length.
    fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>> {
        let Prompt::Chat(chat) = prompt else { return Err(Error::internal("only conversations have tokens here")) };
        let words = chat.messages.iter().flat_map(|message| message.content.split_whitespace());
        Ok(words.map(|word| u32::try_from(word.len()).unwrap()).collect())
    }
    fn count_prompt(&self, prompt: &Prompt) -> Result<TokenCount> {
        match prompt {
            Prompt::Chat(chat) => {
                let texts: Vec<&str> = chat.messages.iter().map(|message| message.content.as_str()).collect();
                self.count_text(&texts.join(" "))
            }
            Prompt::Text(text) => self.count_text(text),
            Prompt::Tokens(tokens) => Ok(TokenCount::new(i64::try_from(tokens.len()).unwrap())),
        }
    }
    fn count_text(&self, text: &str) -> Result<TokenCount> {
        Ok(TokenCount::new(i64::try_from(text.split_whitespace().count()).unwrap()))
    }
}

impl UsageSink for Cloud {
    fn settle<'a>(&'a self, batch: &'a [UsageRecord]) -> BoxFuture<'a, Result<SettleReport>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            self.check_reachable()?;
            assert!(batch.len() <= 500);
            let prices = self.prices.lock().unwrap().clone();
            let mut books = self.books.lock().unwrap();
            let mut report = SettleReport::default();
            for record in batch {
                if books.settle(record, &at_tier(prices.clone(), record.tier)) {
                    report.settled += 1;
                } else {
                    report.duplicate += 1;
                }
            }
            Ok(report)
        })
    }
}
