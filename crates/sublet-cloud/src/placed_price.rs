//! Where a request would go, and what time there costs.
//!
//! Time is priced by its place: by the site, and by the isolation that is demanded, whatever a machine achieves above it.
//! Where the caller names no site, it is the one with the least price for an hour now that has room without displacing
//! anybody, and of those that cost the same the one whose machine is left the fullest, as a plan without prices has it. What
//! is refused says other requests with the price of what they would get.

use std::collections::BTreeSet;
use std::mem::Discriminant;
use std::sync::Arc;

use sublet_capacity::{
    Alternative, DeviceView, KindFigures, Refusal, RefusalReason, Request, Snapshot, available, refuse, try_place,
    try_place_with_reclaim,
};
use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::id::{NodeId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::quote::PlacementFigures;
use sublet_core::runner::IsolationLevel;
use sublet_core::{Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::period::BillingCalendar;
use sublet_money::price_book::PriceListVersion;
use sublet_money::sku::SkuName;
use sublet_store::Tx;

use crate::compute::{Compute, Tariff};

/// Most other requests that are tried for one refusal.
const ALTERNATIVES_TRIED_MAX: usize = 16;
/// Most other sites that one refusal names: the cheapest.
const SITES_NAMED_MAX: usize = 3;

/// What requests are placed on and priced by.
#[derive(Clone, Copy)]
pub(crate) struct Ask<'a> {
    pub snapshot: &'a Snapshot,
    pub version: &'a Arc<PriceListVersion>,
    pub calendar: &'a BillingCalendar,
    /// The most that an hour of one device may cost.
    pub max_price: Option<Nanos>,
    pub now: Timestamp,
}

/// Where a request may go at one price: at a site, or wherever it may go at all.
pub(crate) struct Choice {
    pub site: Option<SiteId>,
    pub tariff: Tariff,
    /// Now, of one device.
    pub per_hour: Nanos,
}

impl Choice {
    /// What to ask for, and what it would cost.
    fn told(&self, what: &str) -> String {
        let at = self.site.as_ref().map_or_else(String::new, |site| format!(" at {site}"));
        format!("{what}: {} {} per device-hour{at}", self.per_hour, self.tariff.version.currency())
    }
}

/// Where a request would go.
pub(crate) struct Place {
    pub site: SiteId,
    pub node: NodeId,
    pub figures: PlacementFigures,
    /// Whether nobody has to give way.
    pub is_free: bool,
    /// Devices of the kind that are free on the machine.
    idle: usize,
}

/// Why a request has no place: what was asked for last, and the rule.
pub(crate) type Refused = (Request, RefusalReason);

/// A place and its price.
pub(crate) struct Offer {
    pub place: Place,
    pub tariff: Tariff,
    /// Now, of one device.
    pub per_hour: Nanos,
}

impl Compute {
    /// Where a request may go as far as prices say, the cheapest first.
    pub(crate) async fn choices(&self, tx: &mut Tx, ask: Ask<'_>, request: &Request) -> Result<Vec<Choice>> {
        let general = SkuName::device(request.notice, request.kind.clone());
        let sites: BTreeSet<&SiteId> = match &request.site {
            Some(site) => BTreeSet::from([site]),
            None => ask.snapshot.devices.iter().filter(|device| device.kind == request.kind).map(|device| &device.site).collect(),
        };
        let price_at = |site: &SiteId| ask.version.resolve(&general.placed(site, request.isolation)).map(|entry| &entry.sku);
        let mut priced: Vec<(Option<&SiteId>, Option<&SkuName>)> =
            sites.into_iter().map(|site| (Some(site), price_at(site))).collect();
        if request.site.is_none() && priced.windows(2).all(|pair| pair[0].1 == pair[1].1) {
            priced.truncate(1);
            priced.iter_mut().for_each(|(site, _)| *site = None);
        }
        let mut choices = Vec::with_capacity(priced.len());
        for (site, sku) in priced {
            let Some(sku) = sku else { continue };
            let priced = (ask.version.clone(), sku.clone());
            let tariff = Tariff::since(tx, &self.cloud, priced, request.units, ask.now).await?.at_most(ask.max_price);
            let per_hour = tariff.per_hour(ask.now)?;
            choices.push(Choice { site: site.cloned(), tariff, per_hour });
        }
        choices.sort_by(|one, other| (one.per_hour, &one.site).cmp(&(other.per_hour, &other.site)));
        Ok(choices)
    }

    /// The cheapest place for a request whose price may be kept, or why there is none.
    pub(crate) async fn offer(&self, tx: &mut Tx, ask: Ask<'_>, request: &Request) -> Result<std::result::Result<Offer, Refused>> {
        let choices = self.choices(tx, ask, request).await?;
        let is_chosen = choices.iter().any(|choice| choice.site != request.site);
        let (mut refused, mut too_dear) = (None, Vec::new());
        let (mut free, mut taken): (Option<Offer>, Option<Offer>) = (None, None);
        for Choice { site, tariff, per_hour } in choices {
            if free.as_ref().is_some_and(|free| free.per_hour < per_hour) {
                break;
            }
            let there = Request { site, ..request.clone() };
            if let Err(error) = self.check_price(&tariff, ask.calendar, request.notice, ask.now) {
                too_dear.push((there, error));
                continue;
            }
            match find_place(ask.snapshot, &there, ask.now) {
                Ok(place) if place.is_free => {
                    if free.as_ref().is_none_or(|free| place.idle < free.place.idle) {
                        free = Some(Offer { place, tariff, per_hour });
                    }
                }
                // Where it displaces nobody is better than where it costs less.
                Ok(place) => taken = taken.or(Some(Offer { place, tariff, per_hour })),
                Err(reason) => refused = refused.or(Some((there, reason))),
            }
        }
        if let Some(offer) = free.or(taken) {
            return Ok(Ok(offer));
        }
        for (there, error) in too_dear {
            match find_place(ask.snapshot, &there, ask.now) {
                Ok(_) => return Err(error),
                Err(reason) => refused = refused.or(Some((there, reason))),
            }
        }
        let of_all = || find_place(ask.snapshot, request, ask.now).err().map(|reason| (request.clone(), reason));
        match refused {
            // Of all sites together it says more.
            Some(refused) if is_chosen => Ok(Err(of_all().unwrap_or(refused))),
            Some(refused) => Ok(Err(refused)),
            None => match of_all() {
                Some(refused) => Ok(Err(refused)),
                None => Err(self.not_sold(tx, ask, request).await?),
            },
        }
    }

    /// Whether a request has room where it may go at a price that may be kept.
    fn is_offered(&self, ask: Ask<'_>, request: &Request, choice: &Choice) -> bool {
        let there = Request { site: choice.site.clone(), ..request.clone() };
        self.check_price(&choice.tariff, ask.calendar, request.notice, ask.now).is_ok()
            && find_place(ask.snapshot, &there, ask.now).is_ok()
    }

    /// That what was asked for has no price, and what has and is free.
    async fn not_sold(&self, tx: &mut Tx, ask: Ask<'_>, request: &Request) -> Result<Error> {
        let general = SkuName::device(request.notice, request.kind.clone());
        let no_price = |name: &SkuName| Error::new(ErrorCode::UnknownPrice, format!("{name} has no price in the list in force"));
        if !ask.version.sells(&general) {
            return Ok(no_price(&general));
        }
        let elsewhere = Request { site: None, ..request.clone() };
        let choices = self.choices(tx, ask, &elsewhere).await?;
        if let (Some(site), false) = (&request.site, choices.is_empty()) {
            let error = no_price(&general.placed(site, request.isolation)).param("site");
            let offered = choices.iter().filter(|choice| self.is_offered(ask, &elsewhere, choice)).take(SITES_NAMED_MAX);
            return Ok(offered.fold(error, |error, choice| error.alternative(choice.told("ask at another site"))));
        }
        let mut error = no_price(&general).param("isolation").context(format!("isolation {}", request.isolation.as_str()));
        for isolation in IsolationLevel::ALL.into_iter().filter(|level| *level > request.isolation) {
            let stronger = Request { isolation, ..request.clone() };
            let choices = self.choices(tx, ask, &stronger).await?;
            for choice in choices.iter().filter(|choice| self.is_offered(ask, &stronger, choice)).take(SITES_NAMED_MAX) {
                error = error.alternative(choice.told(&format!("ask for isolation {}", isolation.as_str())));
            }
        }
        Ok(error)
    }

    /// A refusal as the caller sees it: the rule, the numbers, the nearest things that work with their prices. What is not
    /// sold to the caller is not named.
    pub(crate) async fn refused(
        &self,
        tx: &mut Tx,
        ask: Ask<'_>,
        (request, (there, reason)): (&Request, Refused),
        is_sold: impl Fn(&DeviceKind, NoticeClass) -> bool + Send + Sync,
    ) -> Result<Error> {
        let refusal = refuse(ask.snapshot, &there, reason);
        let Refusal { reason, alternatives, .. } = only_sold(refusal, request, is_sold);
        let mut error = refusal_of(reason);
        // The nearest of each sort.
        let mut told: Vec<Discriminant<Alternative>> = Vec::new();
        let mut tried = 0;
        for alternative in alternatives {
            let sort = std::mem::discriminant(&alternative);
            if told.contains(&sort) {
                continue;
            }
            if tried == ALTERNATIVES_TRIED_MAX {
                break;
            }
            tried += 1;
            let other = alternative.of(request);
            let Offer { place, tariff, per_hour } = match self.offer(tx, ask, &other).await {
                Ok(Ok(offer)) => offer,
                Ok(Err(_)) => continue,
                Err(error) if [ErrorCode::UnknownPrice, ErrorCode::PriceAboveMaximum].contains(&error.code()) => continue,
                Err(error) => return Err(error),
            };
            let general = SkuName::device(other.notice, other.kind.clone());
            let site = Some(place.site).filter(|_| ask.version.depends_on_placement(&general));
            error = error.alternative(Choice { site, tariff, per_hour }.told(&alternative.to_string()));
            told.push(sort);
        }
        Ok(error)
    }
}

fn find_place(snapshot: &Snapshot, request: &Request, now: Timestamp) -> std::result::Result<Place, RefusalReason> {
    let (site, node, is_free) = match request.holder {
        Holder::External => try_place(snapshot, request).map(|placement| (placement.site, placement.node, true)),
        Holder::Internal => try_place_with_reclaim(snapshot, request, now).map(|plan| (plan.site, plan.node, plan.free_now)),
    }?;
    let shown = available(snapshot, request);
    let sellable = shown.figures.sellable(request.holder, request.notice);
    let is_idle = |device: &&DeviceView| {
        let is_there = device.node == node && device.kind == request.kind && device.health == DeviceHealth::Healthy;
        is_there && device.used_by.is_none() && device.promised_to.is_none()
    };
    let idle = snapshot.devices.iter().filter(is_idle).count();
    Ok(Place { site, node, is_free, idle, figures: placement_figures(&shown.figures, sellable, shown.units) })
}

const fn placement_figures(figures: &KindFigures, sellable: u32, largest: u32) -> PlacementFigures {
    PlacementFigures { healthy: figures.healthy, idle: figures.idle, kept: figures.kept, sellable, largest }
}

/// The same without what is not sold to the caller.
fn only_sold(mut refusal: Refusal, request: &Request, is_sold: impl Fn(&DeviceKind, NoticeClass) -> bool) -> Refusal {
    if let RefusalReason::UnknownKind { known } = &mut refusal.reason {
        known.retain(|kind| NoticeClass::ALL.into_iter().any(|notice| is_sold(kind, notice)));
    }
    refusal.alternatives.retain(|alternative| match alternative {
        Alternative::ShorterNotice { notice } => is_sold(&request.kind, *notice),
        Alternative::OtherKind { kind } => is_sold(kind, request.notice),
        Alternative::FewerUnits { .. } | Alternative::OtherSite { .. } => true,
    });
    refusal
}

pub(crate) fn refusal_of(reason: RefusalReason) -> Error {
    let (code, param) = match &reason {
        RefusalReason::NoUnits => (ErrorCode::InvalidRequest, "units"),
        RefusalReason::UnknownKind { .. } => (ErrorCode::InvalidRequest, "sku"),
        RefusalReason::UnknownSite { .. } => (ErrorCode::PolicyRefused, "site"),
        RefusalReason::Isolation { .. } => (ErrorCode::PolicyRefused, "isolation"),
        RefusalReason::AboveHealthy { .. }
        | RefusalReason::NotIdle { .. }
        | RefusalReason::Reserved { .. }
        | RefusalReason::FirmSoldOut { .. }
        | RefusalReason::Fragmented { .. }
        | RefusalReason::UsedOutside { .. }
        | RefusalReason::AboveLevel(_)
        | RefusalReason::NoCurve
        | RefusalReason::NothingSold
        | RefusalReason::NotReclaimable { .. } => (ErrorCode::CapacityUnavailable, "units"),
    };
    let error = Error::new(code, reason.to_string()).param(param).reason(reason.as_str());
    match reason {
        RefusalReason::Isolation { .. } => {
            error.alternative("the operator enables namespaces, seccomp and control groups on a machine")
        }
        RefusalReason::NoUnits
        | RefusalReason::UnknownKind { .. }
        | RefusalReason::UnknownSite { .. }
        | RefusalReason::AboveHealthy { .. }
        | RefusalReason::NotIdle { .. }
        | RefusalReason::Reserved { .. }
        | RefusalReason::FirmSoldOut { .. }
        | RefusalReason::Fragmented { .. }
        | RefusalReason::UsedOutside { .. }
        | RefusalReason::AboveLevel(_)
        | RefusalReason::NoCurve
        | RefusalReason::NothingSold
        | RefusalReason::NotReclaimable { .. } => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_only_what_is_sold() {
        let kind = |name: &str| -> DeviceKind { name.parse().expect("a kind") };
        let (notice, holder, isolation) = (NoticeClass::Firm, Holder::External, IsolationLevel::Process);
        let request = Request { kind: kind("cpu"), units: 2, notice, holder, site: None, isolation };
        let shorter = |notice| Alternative::ShorterNotice { notice };
        let other = |name: &str| Alternative::OtherKind { kind: kind(name) };
        let refusal = Refusal {
            reason: RefusalReason::NotIdle { idle: 1 },
            alternatives: vec![
                shorter(NoticeClass::N24h),
                shorter(NoticeClass::N1h),
                Alternative::FewerUnits { units: 1 },
                other("a100"),
                other("b200"),
            ],
            figures: Box::default(),
        };
        let named = |is_sold: &dyn Fn(&DeviceKind, NoticeClass) -> bool| {
            let sold = only_sold(refusal.clone(), &request, is_sold);
            sold.alternatives.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
        };
        let sold = named(&|kind, notice| match (kind.as_str(), notice) {
            ("cpu", notice) => notice != NoticeClass::N24h,
            (name, notice) => name != "a100" && notice == NoticeClass::Firm,
        });
        assert_eq!(sold, "ask for notice n1h; ask for 1 units; ask for b200");
        assert_eq!(named(&|_, _| false), "ask for 1 units");
    }
}
