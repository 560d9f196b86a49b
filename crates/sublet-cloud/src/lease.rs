//! Leases: taken from a quote, ended by their holder or by the plan.
//!
//! Taking a quote is one transaction: the placement is proven again, the devices change hands, the
//! first hold is placed, the audit entry is written. A team of the owner may displace customers;
//! its lease then waits for the devices that were promised to it.

use std::collections::BTreeMap;

use sublet_capacity::{ReclaimPlan, Request, earliest_end, try_place, try_place_with_reclaim};
use sublet_core::device::DeviceClass;
use sublet_core::id::{LeaseId, QuoteId};
use sublet_core::lease::{EndReason, Holder, LeaseState};
use sublet_core::quote::QuoteState;
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::period::BillingCalendar;
use sublet_money::sku::SkuName;
use sublet_money::spend_limit::Work;
use sublet_store::compensation::{self, CompensationKind, LeaseNotice};
use sublet_store::lease::{self, HoldBound, Lease};
use sublet_store::quote::{self, Quote};
use sublet_store::{Page, PageRequest, Tx, device, hold, job, organization};

use crate::audit::Deed;
use crate::compute::{Compute, Tariff, done};
use crate::cover::owner_of;
use crate::device::switch_lease;
use crate::idempotency::{Answer, Call, Render};
use crate::job_start::held_for;
use crate::offering::DeviceShelf;
use crate::placed_price::Ask;
use crate::quote::check_metadata;
use crate::why::{Explanation, Fact};
use crate::{Action, Actor, Cloud};

/// A lease gets one credit of each kind.
const CREDITS_MAX: i64 = 2;

/// Why a lease ends, by when, and when its holder is told so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct End {
    pub reason: EndReason,
    pub deadline: Timestamp,
    pub told_at: Timestamp,
}

impl End {
    /// The owner takes a lease back with the notice that was sold: not before it is over, counted from when it is told.
    pub(crate) fn kept(lease: &Lease, deadline: Timestamp, told_at: Timestamp) -> Self {
        let earliest = earliest_end(lease.notice, (lease.starts_at, lease.ends_at), told_at);
        Self { reason: EndReason::Reclaimed, deadline: earliest.map_or(deadline, |earliest| deadline.max(earliest)), told_at }
    }
}

/// A lease with what is set aside for it and for jobs on it now, and with what was given back of it when it ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LeaseStatement {
    pub lease: Lease,
    pub held: Nanos,
    /// For a promise that was not kept.
    pub made_good: Option<Nanos>,
    /// For leaving before its deadline.
    pub early_credit: Option<Nanos>,
}

impl Compute {
    /// Takes a quote: everything or nothing.
    pub async fn accept_quote(
        &self,
        call: &Call,
        id: &QuoteId,
        metadata: &BTreeMap<String, String>,
        render: &Render<LeaseStatement>,
    ) -> Result<Answer<LeaseStatement>> {
        call.actor.require(Action::UseCompute)?;
        check_metadata(metadata)?;
        let outcome = self
            .cloud
            .once(call, render, (self, &call.actor, id, metadata), |(compute, actor, id, metadata), tx| {
                Box::pin(async move {
                    let quote = quote::get(tx, &actor.scope, id).await?;
                    let lease = compute.accept_in(tx, actor, &quote, metadata).await?;
                    state_in(tx, lease).await
                })
            })
            .await;
        let answer = self.noting_quote(&call.actor, id, outcome).await?;
        self.wake();
        Ok(answer)
    }

    pub async fn get_lease(&self, actor: &Actor, id: &LeaseId) -> Result<LeaseStatement> {
        self.cloud
            .store
            .read((actor, id), |(actor, id), tx| {
                Box::pin(async move {
                    let lease = lease::get(tx, &actor.scope, id).await?;
                    state_in(tx, lease).await
                })
            })
            .await
    }

    /// Leases, possibly in one state, newest first unless asked otherwise.
    pub async fn list_leases(
        &self,
        actor: &Actor,
        states: Option<[&'static str; 2]>,
        page: &PageRequest,
    ) -> Result<Page<LeaseStatement>> {
        self.cloud
            .store
            .read((actor, states, page), |(actor, states, page), tx| {
                Box::pin(async move {
                    let leases = lease::list(tx, &actor.scope, *states, page).await?;
                    let mut items = Vec::with_capacity(leases.items.len());
                    for lease in leases.items {
                        items.push(state_in(tx, lease).await?);
                    }
                    Ok(Page { items, has_more: leases.has_more })
                })
            })
            .await
    }

    /// Ends a lease: what runs is stopped with the grace, then its devices and money go back.
    /// `generation` is what the caller saw, if it insists on it. Ending an ended lease changes nothing.
    pub async fn end_lease(&self, actor: &Actor, id: &LeaseId, generation: Option<i64>) -> Result<LeaseStatement> {
        let now = self.now();
        let ended = self
            .cloud
            .store
            .write((self, actor, id), move |(compute, actor, id), tx| {
                Box::pin(async move {
                    let lease = lease::get(tx, &actor.scope, id).await?;
                    if generation.is_some_and(|seen| seen != lease.generation) {
                        return Err(Error::new(
                            ErrorCode::PreconditionFailed,
                            format!("lease '{id}' is at generation {}", lease.generation),
                        ));
                    }
                    compute
                        .begin_ending(tx, actor, &lease, End { reason: EndReason::Released, deadline: now, told_at: now })
                        .await?;
                    let lease = lease::get(tx, &actor.scope, id).await?;
                    state_in(tx, lease).await
                })
            })
            .await?;
        self.wake();
        Ok(ended)
    }

    pub(crate) async fn accept_in(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        quote: &Quote,
        metadata: &BTreeMap<String, String>,
    ) -> Result<Lease> {
        let now = self.now();
        check_open(quote, now)?;
        self.cloud.follow_changes(tx).await?;
        let terms = &quote.terms;
        let shelf = DeviceShelf::read(tx, Some(&quote.organization), now).await?;
        shelf.check(&self.cloud, (&terms.kind, terms.notice), terms.max_duration)?;
        let sku = self.check_price_again(tx, quote, now).await?;
        let plan = self.place_again(tx, quote, now).await?;
        let lease = self.lease_of(actor, quote, metadata, (&plan, sku));
        match lease.state {
            LeaseState::Pending => self.promise_devices(tx, actor, &lease, &plan).await?,
            LeaseState::Active | LeaseState::Ending { .. } | LeaseState::Ended { .. } => take_devices(tx, &lease).await?,
        }
        self.cloud.place_hold(tx, &owner_of(&lease), quote.terms.hold, now).await?;
        lease::insert(tx, &lease).await?;
        if !quote::accept(tx, &quote.id, &lease.id).await? {
            return Err(Error::new(ErrorCode::Conflict, format!("quote '{}' was taken meanwhile", quote.id)));
        }
        for id in &lease.devices {
            let device = device::get(tx, id).await?;
            if device.lease.is_none() || device.lease.as_ref() == Some(&lease.id) {
                device::switch_class(tx, id, DeviceClass::Held, Some(&lease.id), now).await?;
            }
        }
        let detail = format!("{} {} at {} from {}", lease.units, quote.terms.kind, lease.notice, quote.id);
        let deed = Deed { organization: Some(&lease.organization), action: "lease.create", target: lease.id.as_str(), detail };
        self.cloud.record(tx, actor, deed, now).await?;
        Ok(lease)
    }

    /// What the quoted place is priced as. A level may have been published since that is above the maximum.
    async fn check_price_again(&self, tx: &mut Tx, quote: &Quote, now: Timestamp) -> Result<SkuName> {
        let terms = &quote.terms;
        let version = self.cloud.price_version(tx, &terms.price_version).await?;
        let placed = SkuName::device(terms.notice, terms.kind.clone()).placed(&terms.site, terms.isolation);
        let sku = version.get_resolved(&placed)?.sku.clone();
        if terms.max_price.is_some() {
            let organization = organization::get(tx, &Scope::Operator, &quote.organization).await?;
            let priced = (version, sku.clone());
            let tariff = Tariff::since(tx, &self.cloud, priced, terms.units, now).await?.at_most(terms.max_price);
            self.check_price(&tariff, &BillingCalendar::new(&organization.time_zone)?, terms.notice, now)?;
        }
        Ok(sku)
    }

    /// Proves the quote's placement on the fleet as it is now.
    async fn place_again(&self, tx: &mut Tx, quote: &Quote, now: Timestamp) -> Result<ReclaimPlan> {
        let terms = &quote.terms;
        let snapshot = self.snapshot(tx).await?;
        let request = Request {
            kind: terms.kind.clone(),
            units: terms.units,
            notice: terms.notice,
            holder: terms.holder,
            site: Some(terms.site.clone()),
            isolation: terms.isolation,
        };
        let placed = match terms.holder {
            Holder::Internal => try_place_with_reclaim(&snapshot, &request, now),
            Holder::External => try_place(&snapshot, &request).map(|placement| ReclaimPlan {
                site: placement.site,
                node: placement.node,
                devices: placement.devices,
                victims: Vec::new(),
                free_now: true,
                ready_at: now,
            }),
        };
        let reason = match placed {
            Ok(plan) => return Ok(plan),
            Err(reason) => reason,
        };
        let shelf = DeviceShelf::read(tx, Some(&quote.organization), now).await?;
        let prices = self.cloud.prices.in_force_for((&quote.organization, terms.currency), now)?;
        let is_sold = |kind: &_, notice| shelf.sells((&self.cloud, &prices), (kind, notice), terms.max_duration);
        let organization = organization::get(tx, &Scope::Operator, &quote.organization).await?;
        let calendar = BillingCalendar::new(&organization.time_zone)?;
        let ask = Ask { snapshot: &snapshot, version: &prices, calendar: &calendar, max_price: terms.max_price, now };
        Err(self.refused(tx, ask, (&request, (request.clone(), reason)), is_sold).await?)
    }

    fn lease_of(
        &self,
        actor: &Actor,
        quote: &Quote,
        metadata: &BTreeMap<String, String>,
        (plan, sku): (&ReclaimPlan, SkuName),
    ) -> Lease {
        let (now, terms) = (self.now(), &quote.terms);
        let state = if plan.free_now { LeaseState::Active } else { LeaseState::Pending };
        Lease {
            id: self.cloud.ids.mint(),
            organization: quote.organization.clone(),
            project: quote.project.clone(),
            quote: quote.id.clone(),
            key: actor.key.clone(),
            holder: terms.holder,
            sku,
            units: terms.units,
            notice: terms.notice,
            site: plan.site.clone(),
            node: plan.node.clone(),
            isolation: terms.isolation,
            devices: plan.devices.clone(),
            price_version: terms.price_version.clone(),
            price: terms.price_per_hour,
            currency: terms.currency,
            max_cost: terms.max_cost,
            max_price: terms.max_price,
            cost: Nanos::ZERO,
            starts_at: now,
            ends_at: terms.max_duration.map(|window| now.plus(window)),
            ended_at: None,
            state,
            unused_since: Some(now),
            job_over: false,
            hold_bound: HoldBound::Open,
            generation: 1,
            created_at: now,
            metadata: metadata.clone(),
        }
    }

    /// Promises the plan's devices and tells the leases that have to go.
    async fn promise_devices(&self, tx: &mut Tx, actor: &Actor, lease: &Lease, plan: &ReclaimPlan) -> Result<()> {
        for id in &lease.devices {
            if !device::promise(tx, id, &lease.id).await? {
                return Err(taken_meanwhile());
            }
        }
        let now = self.now();
        for victim in &plan.victims {
            let displaced = lease::get(tx, &Scope::Operator, &victim.lease).await?;
            if displaced.generation != victim.generation {
                return Err(taken_meanwhile());
            }
            self.begin_ending(tx, actor, &displaced, End::kept(&displaced, victim.deadline, now)).await?;
        }
        Ok(())
    }

    /// Tells a lease that it ends by `deadline`. One that ends no later already stays as it is.
    pub(crate) async fn begin_ending(&self, tx: &mut Tx, actor: &Actor, lease: &Lease, end: End) -> Result<bool> {
        let End { reason, deadline, told_at } = end;
        if lease.state.begin_ending(reason, deadline).is_err() {
            return Ok(false);
        }
        // Work that waits is interrupted, too.
        let is_busy = !job::list_open_of(tx, &lease.id).await?.is_empty();
        self.cloud.note_told(tx, lease, &LeaseNotice { told_at, reason, deadline, is_busy }).await?;
        self.end_by(tx, actor, lease, end).await
    }

    /// As [`Self::begin_ending`], of a lease whose holder knows that it ends.
    pub(crate) async fn end_by(&self, tx: &mut Tx, actor: &Actor, lease: &Lease, end: End) -> Result<bool> {
        let End { reason, deadline, told_at: now } = end;
        let Ok(state) = lease.state.begin_ending(reason, deadline) else { return Ok(false) };
        let changed = Lease { state, ..lease.clone() };
        done(lease::save(tx, &changed).await?, lease.id.as_str())?;
        self.refuse_queued(tx, &changed, reason, now).await?;
        let detail = format!("{} by {deadline}", reason.explanation());
        let deed = Deed { organization: Some(&lease.organization), action: "lease.end", target: lease.id.as_str(), detail };
        self.cloud.record(tx, actor, deed, now).await?;
        if sublet_store::attempt::find_live_of(tx, &lease.id).await?.is_none() {
            switch_lease(tx, &changed, false, now).await?;
        }
        Ok(true)
    }

    /// A lease whose promised devices are all free begins. False if its account is suspended and stops what it has: it waits.
    pub(crate) async fn activate(&self, tx: &mut Tx, lease: &Lease) -> Result<bool> {
        if self.cloud.is_kept_back(tx, &lease.organization, Work::Admitted).await? {
            return Ok(false);
        }
        let now = self.now();
        let waited = now.since(lease.starts_at);
        let active = Lease {
            state: lease.state.activate()?,
            starts_at: now,
            ends_at: lease.ends_at.map(|ends_at| ends_at.plus(waited)),
            unused_since: lease.unused_since.map(|_| now),
            ..lease.clone()
        };
        take_devices(tx, &active).await?;
        done(lease::save(tx, &active).await?, lease.id.as_str())?;
        switch_lease(tx, &active, false, now).await?;
        let deed = Deed {
            organization: Some(&lease.organization),
            action: "lease.activate",
            target: lease.id.as_str(),
            detail: format!("waited {} ms", waited.millis()),
        };
        self.cloud.record(tx, &Actor::system(), deed, now).await?;
        Ok(true)
    }

    /// Nothing of it runs: devices and money go back.
    pub(crate) async fn release(&self, tx: &mut Tx, lease: &Lease) -> Result<()> {
        let now = self.now();
        let ended = Lease { state: lease.state.end()?, ended_at: Some(now), unused_since: None, ..lease.clone() };
        done(lease::save(tx, &ended).await?, lease.id.as_str())?;
        let reason = lease.state.reason().unwrap_or(EndReason::Released);
        self.refuse_queued(tx, &ended, reason, now).await?;
        self.cloud.release_hold(tx, lease.id.as_str(), now).await?;
        self.cloud.compensate(tx, lease, now).await?;
        self.cloud.queue_lease_ended(tx, &ended, now).await?;
        device::release(tx, &lease.id).await?;
        for id in &lease.devices {
            let device = device::get(tx, id).await?;
            if device.lease.is_none() {
                let (class, next) = crate::device::class_when_free(&device);
                device::switch_class(tx, id, class, next, now).await?;
            }
        }
        let detail = format!("{}; it cost {} {}", reason.explanation(), lease.cost, lease.currency);
        let deed = Deed { organization: Some(&lease.organization), action: "lease.release", target: lease.id.as_str(), detail };
        self.cloud.record(tx, &Actor::system(), deed, now).await
    }

    /// Jobs that never ran do not run on a lease that ends.
    async fn refuse_queued(&self, tx: &mut Tx, lease: &Lease, reason: EndReason, now: Timestamp) -> Result<()> {
        for queued in job::list_open_of(tx, &lease.id).await? {
            if queued.state == sublet_core::job::JobState::Queued {
                self.stop_job(tx, &queued, sublet_core::job::StopReason::LeaseEnds(reason), now).await?;
            }
        }
        Ok(())
    }
}

fn check_open(quote: &Quote, now: Timestamp) -> Result<()> {
    match quote.state.at(now) {
        QuoteState::Open { .. } => Ok(()),
        QuoteState::Accepted => {
            let lease = quote.lease.as_ref().map_or("a lease", LeaseId::as_str);
            Err(Error::new(ErrorCode::Conflict, format!("quote '{}' was taken: it became {lease}", quote.id))
                .alternative("ask for a new quote"))
        }
        QuoteState::Expired => {
            Err(Error::new(ErrorCode::QuoteExpired, format!("quote '{}' expired at {}", quote.id, quote.expires_at))
                .alternative("ask for a new quote"))
        }
    }
}

fn taken_meanwhile() -> Error {
    Error::new(ErrorCode::Conflict, "the capacity was taken meanwhile").alternative("repeat the call")
}

async fn take_devices(tx: &mut Tx, lease: &Lease) -> Result<()> {
    for id in &lease.devices {
        if !device::lease(tx, id, &lease.id).await? {
            return Err(taken_meanwhile());
        }
    }
    Ok(())
}

pub(crate) async fn state_in(tx: &mut Tx, lease: Lease) -> Result<LeaseStatement> {
    let held = held_for(tx, &lease).await?;
    let given = if lease.state.is_final() {
        compensation::list_of(tx, &lease.organization, lease.id.as_str(), CREDITS_MAX).await?
    } else {
        Vec::new()
    };
    let of = |kind| given.iter().find(|one| one.kind == kind).map(|one| one.amount);
    let (made_good, early_credit) = (of(CompensationKind::Reclaim), of(CompensationKind::Early));
    Ok(LeaseStatement { lease, held, made_good, early_credit })
}

impl Cloud {
    pub(crate) async fn why_lease(&self, actor: &Actor, id: &LeaseId) -> Result<Explanation> {
        self.store.read((self, actor, id), |(cloud, actor, id), tx| Box::pin(cloud.why_lease_in(tx, actor, id))).await
    }

    async fn why_lease_in(&self, tx: &mut Tx, actor: &Actor, id: &LeaseId) -> Result<Explanation> {
        let lease = lease::get(tx, &actor.scope, id).await?;
        let money = |amount: Nanos| format!("{amount} {}", lease.currency);
        let mut facts = vec![
            Fact::new("price per device-hour", money(lease.price)),
            Fact::new("priced as", &lease.sku),
            Fact::new("price version", &lease.price_version.0),
            Fact::new("devices", lease.devices.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
            Fact::new("isolation required", lease.isolation.as_str()),
            Fact::new(
                "window",
                match lease.ends_at {
                    Some(ends_at) => format!("{} to {ends_at}", lease.starts_at),
                    None => format!("from {} until it is ended", lease.starts_at),
                },
            ),
            Fact::new("charged", money(lease.cost)),
        ];
        facts.extend(lease.max_cost.map(|cost| Fact::new("maximum cost", money(cost))));
        facts.extend(lease.max_price.map(|price| Fact::new("maximum price per device-hour", money(price))));
        facts.extend(lease.state.deadline().map(|deadline| Fact::new("ends by", deadline)));
        if let HoldBound::Budget { refusal } = &lease.hold_bound {
            facts.push(Fact::new("the hold could not be extended", refusal));
        }
        facts.push(Fact::new("holds", "").made_of(hold_facts(tx, lease.id.as_str()).await?));
        let mut related = vec![lease.quote.to_string()];
        let filter = job::JobFilter { states: None, lease: Some(lease.id.clone()) };
        let jobs = job::list(tx, &actor.scope, &filter, &PageRequest::default()).await?;
        related.extend(jobs.items.iter().map(|job| job.id.to_string()));
        for given in compensation::list_of(tx, &lease.organization, id.as_str(), CREDITS_MAX).await? {
            let what = if given.kind == CompensationKind::Early { "credit for leaving early" } else { "made good" };
            facts.push(Fact::new(what, money(given.amount)));
            related.push(given.id.to_string());
        }
        let why = lease.state.reason().map_or(String::new(), |reason| format!(": {}", reason.explanation()));
        Ok(Explanation {
            id: id.to_string(),
            summary: format!("{} {} is {}{why}", lease.units, lease.sku, lease.state.as_str()),
            rule: "while one interval runs, the next is held together with the stop notice and the grace; \
                   a lease whose hold cannot grow is told and stopped within what is held"
                .to_owned(),
            facts,
            related,
        })
    }
}

/// Every hold of a subject: what was set aside and what became of it.
pub(crate) async fn hold_facts(tx: &mut Tx, subject: &str) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    for hold in hold::list_of(tx, subject).await? {
        let (total, state) = (hold.amount.total()?, if hold.open { "open" } else { "closed" });
        facts.push(Fact::new(
            hold.id.as_str(),
            format!("{total} {} held in all, {} captured, {state}", hold.currency, hold.captured),
        ));
    }
    Ok(facts)
}
