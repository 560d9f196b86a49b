//! Orders by which the owner takes capacity back: shown before, placed, followed and cancelled.
//!
//! What an order is was decided when it was placed: the devices it holds, and whom it ends when. The plan of every pass
//! ends its victims, so an order needs nothing to be resumed. Who has to be told at once is told in the transaction that
//! places it.

use std::collections::BTreeMap;

use sublet_capacity::{FleetIndex, Instead, Need, Order, OrderedEnd, OrderedVictim, Shortfall, Snapshot, decide, instead};
use sublet_core::id::ReclaimId;
use sublet_core::lease::EndReason;
use sublet_core::reclaim::ReclaimState;
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_store::lease::{self, Lease};
use sublet_store::reclaim::{self, DeviceCounts, HeldDevice, StoredReclaim, StoredVictim};
use sublet_store::{Page, PageRequest, Tx};

use crate::audit::Deed;
use crate::compute::{Compute, done};
use crate::compute_reconciler::ComputeReport;
use crate::idempotency::{Answer, Call, Render};
use crate::lease::End;
use crate::quote::{UNITS_MAX, WINDOW_MAX};
use crate::{Action, Actor};

/// Owed amounts by their currency.
pub type Owed = BTreeMap<Currency, Nanos>;

/// What the owner wants back.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewReclaim {
    pub need: Need,
    /// Until when the devices are held; until it is cancelled if `None`.
    pub until: Option<Timestamp>,
}

/// What an order would do if it were placed now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReclaimPreview {
    pub new: NewReclaim,
    pub order: Order,
    pub victims: Vec<StoredVictim>,
    /// Others that cost less, each of which was tried.
    pub cheaper: Vec<NearbyOrder>,
    pub as_of: Timestamp,
}

/// An order near one that was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearbyOrder {
    pub sort: Instead,
    pub need: Need,
    pub victims: usize,
    pub owed: Owed,
    pub lost: DurationMs,
}

/// An order among others.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReclaimSummary {
    pub reclaim: StoredReclaim,
    pub counts: DeviceCounts,
    /// Leases that it ends.
    pub victims: u32,
    pub owed: Owed,
}

/// An order as it is now.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ReclaimStatement {
    pub reclaim: StoredReclaim,
    pub counts: DeviceCounts,
    pub devices: Vec<HeldDevice>,
    pub victims: Vec<StoredVictim>,
}

/// The sum of what is owed, by currency.
pub fn owed_to(victims: &[StoredVictim]) -> Result<Owed> {
    let mut owed = Owed::new();
    for victim in victims.iter().filter(|victim| !victim.owed.is_zero()) {
        let sum = owed.entry(victim.currency).or_insert(Nanos::ZERO);
        *sum = sum.checked_add(victim.owed)?;
    }
    Ok(owed)
}

impl Compute {
    /// What an order would do; nothing is changed.
    pub async fn preview_reclaim(&self, actor: &Actor, new: &NewReclaim) -> Result<ReclaimPreview> {
        actor.require(Action::ManageFleet)?;
        let now = self.now();
        check_new(new, now)?;
        self.cloud
            .store
            .read((self, new), move |(compute, new), tx| {
                Box::pin(async move {
                    let snapshot = compute.snapshot(tx).await?;
                    let (order, victims) = compute.decide_in(tx, &snapshot, new, now).await?;
                    let nearby =
                        if victims.is_empty() { Vec::new() } else { compute.nearby(tx, &snapshot, &new.need, now).await? };
                    let mine = weight(&order, &owed_to(&victims)?);
                    let cheaper = nearby.into_iter().filter(|(weight, _)| *weight < mine).map(|(_, one)| one).collect();
                    Ok(ReclaimPreview { new: (*new).clone(), order, victims, cheaper, as_of: now })
                })
            })
            .await
    }

    /// Places an order: everything or nothing.
    pub async fn place_reclaim(
        &self,
        call: &Call,
        new: &NewReclaim,
        render: &Render<ReclaimStatement>,
    ) -> Result<Answer<ReclaimStatement>> {
        call.actor.require(Action::ManageFleet)?;
        let answer = self
            .cloud
            .once(call, render, (self, &call.actor, new), |(compute, actor, new), tx| Box::pin(compute.place_in(tx, actor, new)))
            .await?;
        self.wake();
        Ok(answer)
    }

    async fn place_in(&self, tx: &mut Tx, actor: &Actor, new: &NewReclaim) -> Result<ReclaimStatement> {
        let now = self.now();
        check_new(new, now)?;
        let snapshot = self.snapshot(tx).await?;
        let (order, victims) = self.decide_in(tx, &snapshot, new, now).await?;
        let placed = StoredReclaim {
            id: self.cloud.ids.mint(),
            need: new.need.clone(),
            until: new.until,
            state: ReclaimState::Placed,
            generation: 1,
            created_by: actor.name().to_owned(),
            created_at: now,
            ended_at: None,
        };
        reclaim::insert(tx, &placed).await?;
        for device in &order.devices {
            reclaim::insert_device(tx, &placed.id, device).await?;
        }
        for victim in &victims {
            reclaim::insert_victim(tx, &placed.id, victim).await?;
        }
        let need = &new.need;
        let detail = format!("{} {} by {}, {} leases end", need.units, need.kind, need.by, victims.len());
        self.cloud.record(tx, actor, deed(&placed.id, "reclaim.place", detail), now).await?;
        for victim in victims.iter().filter(|victim| victim.end.tell_at <= now) {
            let told = lease::get(tx, &Scope::Operator, &victim.lease).await?;
            self.begin_ending(tx, actor, &told, end_of(&told, victim.end, (victim.end.deadline, now))).await?;
        }
        self.fulfil(tx, &placed, now).await?;
        statement_in(tx, &placed.id).await
    }

    pub async fn get_reclaim(&self, actor: &Actor, id: &ReclaimId) -> Result<ReclaimStatement> {
        actor.require(Action::ManageFleet)?;
        self.cloud.store.read(id, |id, tx| Box::pin(statement_in(tx, id))).await
    }

    /// Orders, possibly in one state, with counts of what each is about.
    pub async fn list_reclaims(
        &self,
        actor: &Actor,
        state: Option<ReclaimState>,
        page: &PageRequest,
    ) -> Result<Page<ReclaimSummary>> {
        actor.require(Action::ManageFleet)?;
        self.cloud
            .store
            .read(page, move |page, tx| {
                Box::pin(async move {
                    let found = reclaim::list(tx, state, page).await?;
                    let mut items = Vec::with_capacity(found.items.len());
                    for reclaim in found.items {
                        let counts = reclaim::count_devices(tx, &reclaim.id).await?;
                        let (victims, owed) = reclaim::sum_victims(tx, &reclaim.id).await?;
                        items.push(ReclaimSummary { reclaim, counts, victims, owed });
                    }
                    Ok(Page { items, has_more: found.has_more })
                })
            })
            .await
    }

    /// Gives an order up: nobody is told any more, and what it holds may be sold. Who was told ends all the same.
    /// Cancelling a cancelled order changes nothing. `generation` is what the caller saw, if it insists on it.
    pub async fn cancel_reclaim(&self, actor: &Actor, id: &ReclaimId, generation: Option<i64>) -> Result<ReclaimStatement> {
        actor.require(Action::ManageFleet)?;
        let now = self.now();
        let cancelled = self
            .cloud
            .store
            .write((self, actor, id), move |(compute, actor, id), tx| {
                Box::pin(async move {
                    let found = reclaim::get(tx, id).await?;
                    if generation.is_some_and(|seen| seen != found.generation) {
                        let message = format!("reclaim '{id}' is at generation {}", found.generation);
                        return Err(Error::new(ErrorCode::PreconditionFailed, message));
                    }
                    if found.state != ReclaimState::Cancelled {
                        let changed = StoredReclaim { state: found.state.cancel()?, ended_at: Some(now), ..found };
                        done(reclaim::save(tx, &changed).await?, id.as_str())?;
                        let deed = deed(id, "reclaim.cancel", "what it held may be sold".to_owned());
                        compute.cloud.record(tx, actor, deed, now).await?;
                    }
                    statement_in(tx, id).await
                })
            })
            .await?;
        self.wake();
        Ok(cancelled)
    }

    /// Ends orders whose time is over, and notes which have all their devices; says how many changed.
    pub(crate) async fn follow_reclaims(&self, report: &mut ComputeReport) -> usize {
        let now = self.now();
        let open = self.cloud.store.read((), |(), tx| Box::pin(reclaim::list_open(tx))).await;
        let mut changed = 0;
        for found in report.note("reading orders", open) {
            let is_over = found.until.is_some_and(|until| now >= until);
            if !is_over && found.state == ReclaimState::Fulfilled {
                continue;
            }
            let id = &found.id;
            let followed =
                self.cloud.store.write((self, id), move |(compute, id), tx| Box::pin(compute.follow_in(tx, id, now))).await;
            changed += usize::from(report.note("following an order", followed));
        }
        changed
    }

    async fn follow_in(&self, tx: &mut Tx, id: &ReclaimId, now: Timestamp) -> Result<bool> {
        let found = reclaim::get(tx, id).await?;
        if !found.state.is_open() {
            return Ok(false);
        }
        if found.until.is_none_or(|until| now < until) {
            return self.fulfil(tx, &found, now).await;
        }
        let changed = StoredReclaim { state: found.state.expire()?, ended_at: Some(now), ..found };
        done(reclaim::save(tx, &changed).await?, id.as_str())?;
        let deed = deed(id, "reclaim.expire", "what it held may be sold".to_owned());
        self.cloud.record(tx, &Actor::system(), deed, now).await?;
        Ok(true)
    }

    /// Tells a lease that it is taken back, by an order as it was read or by none. False if the order has changed since.
    pub(crate) async fn take_back(
        &self,
        tx: &mut Tx,
        lease: &Lease,
        deadline: Timestamp,
        ordered: Option<OrderedEnd>,
    ) -> Result<bool> {
        let now = self.now();
        let end = match ordered {
            Some(end) if reclaim::ordered_end_of(tx, &lease.id, now).await? != Some(end) => return Ok(false),
            Some(end) => end_of(lease, end, (deadline, now)),
            None => End::kept(lease, deadline, now),
        };
        self.begin_ending(tx, &Actor::system(), lease, end).await
    }

    /// Notes that all devices of a placed order are there. False if some are not, or it was noted before.
    async fn fulfil(&self, tx: &mut Tx, placed: &StoredReclaim, now: Timestamp) -> Result<bool> {
        if placed.state != ReclaimState::Placed {
            return Ok(false);
        }
        let counts = reclaim::count_devices(tx, &placed.id).await?;
        if counts.there < counts.held {
            return Ok(false);
        }
        let changed = StoredReclaim { state: placed.state.fulfil()?, ..placed.clone() };
        done(reclaim::save(tx, &changed).await?, placed.id.as_str())?;
        let early = placed.need.by.since(now).millis();
        let deed = deed(&placed.id, "reclaim.fulfil", format!("{early} ms before its time"));
        self.cloud.record(tx, &Actor::system(), deed, now).await?;
        Ok(true)
    }

    /// Decides an order, with what each victim is owed; or says why not and what would work.
    async fn decide_in(
        &self,
        tx: &mut Tx,
        snapshot: &Snapshot,
        new: &NewReclaim,
        now: Timestamp,
    ) -> Result<(Order, Vec<StoredVictim>)> {
        let decided = decide(&FleetIndex::new(snapshot), &new.need, now);
        let shortfall = match decided {
            Ok(order) => {
                let victims = self.victims_of(tx, &order).await?;
                return Ok((order, victims));
            }
            Err(shortfall) => shortfall,
        };
        let mut error = refused(&new.need, &shortfall);
        if matches!(shortfall, Shortfall::TooFew { .. }) {
            for (_, nearby) in self.nearby(tx, snapshot, &new.need, now).await? {
                error = error.alternative(nearby.describe());
            }
        }
        Err(error)
    }

    /// Its own victims and those that it shares with other orders.
    async fn victims_of(&self, tx: &mut Tx, order: &Order) -> Result<Vec<StoredVictim>> {
        let checkpoints = reclaim::list_checkpoints(tx).await?;
        let mut victims = Vec::with_capacity(order.victims.len() + order.shared.len());
        for OrderedVictim { lease: id, notice, end, lost, .. } in order.victims.iter().chain(&order.shared) {
            let lease = lease::get(tx, &Scope::Operator, id).await?;
            let owed = self.cloud.foresee(tx, &lease, (end.tell_at, end.deadline)).await?;
            victims.push(StoredVictim {
                lease: id.clone(),
                organization: lease.organization,
                units: lease.units,
                notice: *notice,
                end: *end,
                owed,
                given: None,
                currency: lease.currency,
                lost: *lost,
                checkpoint_at: checkpoints.get(id).copied(),
            });
        }
        victims.sort_by(|a, b| a.lease.cmp(&b.lease));
        Ok(victims)
    }

    /// Orders near a need, each tried, with how much worse than nothing it is.
    async fn nearby(&self, tx: &mut Tx, snapshot: &Snapshot, need: &Need, now: Timestamp) -> Result<Vec<(Weight, NearbyOrder)>> {
        let mut nearby = Vec::new();
        for (sort, need, order) in instead(&FleetIndex::new(snapshot), need, now) {
            let owed = owed_to(&self.victims_of(tx, &order).await?)?;
            let weight = weight(&order, &owed);
            nearby.push((weight, NearbyOrder { sort, need, victims: order.victims.len(), owed, lost: order.lost() }));
        }
        Ok(nearby)
    }
}

/// Broken promises, what is owed (currencies are added up as they are: it only ranks), and what is lost.
type Weight = (bool, i128, DurationMs, usize);

fn weight(order: &Order, owed: &Owed) -> Weight {
    let owed = owed.values().map(|amount| i128::from(amount.get())).sum();
    (order.breaks_promises(), owed, order.lost(), order.victims.len())
}

impl NearbyOrder {
    /// For people: what to ask for, and what it costs.
    pub fn describe(&self) -> String {
        let Need { units, kind, by, .. } = &self.need;
        let ask = match self.sort {
            Instead::Later => format!("ask for them by {by}"),
            Instead::FewerUnits => format!("ask for {units} units"),
            Instead::OtherSite => {
                let site = self.need.site.as_ref().map_or_else(|| "any site".to_owned(), ToString::to_string);
                format!("ask at {site}")
            }
            Instead::OtherKind => format!("ask for {kind}"),
            Instead::BreakPromises => "break promises (--break-promises)".to_owned(),
        };
        let owed: Vec<String> = self.owed.iter().map(|(currency, amount)| format!("{amount} {currency}")).collect();
        match (self.victims, owed.is_empty()) {
            (0, _) => format!("{ask}: nobody is interrupted"),
            (victims, true) => format!("{ask}: {victims} leases end, nothing is owed"),
            (victims, false) => format!("{ask}: {victims} leases end and are owed {}", owed.join(" and ")),
        }
    }
}

fn deed<'a>(id: &'a ReclaimId, action: &'a str, detail: String) -> Deed<'a> {
    Deed { organization: None, action, target: id.as_str(), detail }
}

/// Who is told later than was planned still gets the notice, unless the order breaks it.
fn end_of(lease: &Lease, ordered: OrderedEnd, (deadline, now): (Timestamp, Timestamp)) -> End {
    if ordered.breaks_promise {
        return End { reason: EndReason::Reclaimed, deadline: deadline.max(now), told_at: now };
    }
    End::kept(lease, deadline, now)
}

async fn statement_in(tx: &mut Tx, id: &ReclaimId) -> Result<ReclaimStatement> {
    let (reclaim, counts) = (reclaim::get(tx, id).await?, reclaim::count_devices(tx, id).await?);
    let (devices, victims) = (reclaim::list_devices(tx, id).await?, reclaim::list_victims(tx, id).await?);
    Ok(ReclaimStatement { reclaim, counts, devices, victims })
}

fn check_new(new: &NewReclaim, now: Timestamp) -> Result<()> {
    let refuse = |param: &str, message: String| Error::new(ErrorCode::InvalidRequest, message).param(param);
    let NewReclaim { need, until } = new;
    if need.units == 0 || need.units > UNITS_MAX {
        return Err(refuse("units", format!("an order is for 1 to {UNITS_MAX} units")));
    }
    if need.by <= now {
        let error = refuse("by", format!("{} is not in the future: it is {now} in the cloud", need.by));
        return Err(error.alternative(format!("ask for an instant after {now}")));
    }
    let latest = now.plus(WINDOW_MAX);
    if need.by > latest {
        return Err(
            refuse("by", "an order is for the next three years".to_owned()).alternative(format!("ask for {latest} at the latest"))
        );
    }
    match until {
        Some(until) if *until <= need.by => {
            let error = refuse("until", format!("the devices are held until {until}, which is not after {}", need.by));
            Err(error.alternative("leave it out to hold them until the order is cancelled"))
        }
        Some(_) | None => Ok(()),
    }
}

fn refused(need: &Need, shortfall: &Shortfall) -> Error {
    let list = |known: Vec<String>| if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    let invalid = |param: &str, message: String| Error::new(ErrorCode::InvalidRequest, message).param(param);
    match shortfall {
        Shortfall::NoUnits => invalid("units", "at least one unit must be asked for".to_owned()),
        Shortfall::UnknownKind { known } => {
            let known = list(known.iter().map(ToString::to_string).collect());
            invalid("kind", format!("there is no device of kind '{}'", need.kind)).alternative(format!("ask for one of: {known}"))
        }
        Shortfall::UnknownSite { known } => {
            let known = list(known.iter().map(ToString::to_string).collect());
            invalid("site", format!("there is no such site with {}", need.kind)).alternative(format!("ask at one of: {known}"))
        }
        Shortfall::NoMultiple { units } => {
            let error = invalid("units", format!("{} units do not fill the machines that were asked for", need.units));
            error.alternative(format!("ask for {units} units"))
        }
        Shortfall::TooFew { available } => {
            let message = format!(
                "of {} {} by {}, {available} can be had: the rest is promised for longer, firm, held or in use by the owner's teams",
                need.units, need.kind, need.by
            );
            Error::new(ErrorCode::CapacityUnavailable, message)
        }
    }
}
