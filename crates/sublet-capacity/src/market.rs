//! Machines by how their units could be had: free by then, from leases that end anyway, from leases that may be ended.

use std::cmp::Reverse;
use std::ops::Range;

use sublet_core::Timestamp;

use crate::index::{KindIndex, MachineIndex, Room, Tenant};
use crate::snapshot::DeviceView;
use crate::victim::{self, Choice, Item, Tier, cover};

/// What may become of a lease.
pub(crate) enum Fate {
    Stays,
    /// Without any doing of ours.
    Leaves(Timestamp),
    MayEnd {
        deadline: Timestamp,
        tier: Tier,
    },
}

/// Whose need it is: a lease of the owner's team may have what is held, another order may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    All,
    NotHeld,
}

impl Access {
    pub(crate) fn units(self, room: &Room) -> usize {
        match self {
            Self::All => room.len(),
            Self::NotHeld => room.open,
        }
    }
}

/// A lease that may be ended.
#[derive(Clone, Copy)]
pub(crate) struct Candidate<'i, 'a> {
    pub tenant: &'i Tenant<'a>,
    pub deadline: Timestamp,
    pub tier: Tier,
    pub item: Item,
}

/// One machine.
pub(crate) struct Supply<'i, 'a> {
    pub machine: &'i MachineIndex<'a>,
    /// Units that come without anybody's interruption.
    pub free: usize,
    /// Units that could be had with all that may be ended.
    pub reachable: usize,
    leaving: Range<usize>,
    candidates: Range<usize>,
}

pub(crate) struct Market<'i, 'a> {
    kind: &'i KindIndex<'a>,
    access: Access,
    pub supplies: Vec<Supply<'i, 'a>>,
    /// With when they leave.
    leaving: Vec<(&'i Tenant<'a>, Timestamp)>,
    /// Of each machine side by side, best victim first.
    pub candidates: Vec<Candidate<'i, 'a>>,
}

impl<'i, 'a> Market<'i, 'a> {
    pub(crate) fn new(
        kind: &'i KindIndex<'a>,
        access: Access,
        wanted: impl Fn(&MachineIndex<'a>) -> bool,
        fate: impl Fn(&Tenant<'a>) -> Fate,
    ) -> Self {
        let mut market =
            Self { kind, access, supplies: Vec::with_capacity(kind.machines.len()), leaving: Vec::new(), candidates: Vec::new() };
        for machine in kind.machines.iter().filter(|machine| wanted(machine)) {
            market.add(machine, &fate);
        }
        market
    }

    fn add(&mut self, machine: &'i MachineIndex<'a>, fate: &impl Fn(&Tenant<'a>) -> Fate) {
        let (leaving, candidates) = (self.leaving.len(), self.candidates.len());
        let (mut free, mut sold) = (self.access.units(&machine.idle), 0);
        for tenant in self.kind.tenants(machine) {
            let units = self.access.units(&tenant.room);
            match fate(tenant) {
                Fate::Leaves(at) => {
                    free += units;
                    self.leaving.push((tenant, at));
                }
                Fate::MayEnd { deadline, tier } if units > 0 => {
                    sold += units;
                    let item = Item { units, loss: victim::loss(&tenant.standing, tier, deadline) };
                    self.candidates.push(Candidate { tenant, deadline, tier, item });
                }
                Fate::MayEnd { .. } | Fate::Stays => {}
            }
        }
        self.leaving[leaving..].sort_by_key(|(_, at)| *at);
        // Of equals the one that began last; those of one instant are in the order of their ids.
        self.candidates[candidates..].sort_by_key(|one| (one.tier, Reverse(one.tenant.standing.starts_at)));
        let (leaving, candidates) = (leaving..self.leaving.len(), candidates..self.candidates.len());
        self.supplies.push(Supply { machine, free, reachable: free + sold, leaving, candidates });
    }

    pub(crate) fn candidates_of(&self, supply: &Supply<'i, 'a>) -> &[Candidate<'i, 'a>] {
        &self.candidates[supply.candidates.clone()]
    }
    /// Which supply a candidate is of.
    pub(crate) fn supply_of(&self, candidate: usize) -> usize {
        self.supplies.partition_point(|supply| supply.candidates.end <= candidate)
    }
    /// Where a supply's candidates begin.
    pub(crate) fn offset_of(&self, supply: usize) -> usize {
        self.supplies[supply].candidates.start
    }

    /// The devices of a machine that come without anybody's interruption, with when, those first that come first.
    pub(crate) fn free_devices<'m>(
        &'m self,
        supply: &'m Supply<'i, 'a>,
        now: Timestamp,
    ) -> impl Iterator<Item = (&'a DeviceView, Timestamp)> {
        let rooms = std::iter::once((&supply.machine.idle, now));
        let leaving = self.leaving[supply.leaving.clone()].iter().map(|(tenant, at)| (&tenant.room, *at));
        rooms.chain(leaving).flat_map(|(room, at)| self.devices(room).iter().map(move |device| (*device, at)))
    }
    /// The leases of a machine that leave anyway.
    pub(crate) fn leaving_of(&self, supply: &Supply<'i, 'a>) -> impl Iterator<Item = &'i Tenant<'a>> {
        self.leaving[supply.leaving.clone()].iter().map(|(tenant, _)| *tenant)
    }
    pub(crate) fn devices(&self, room: &Room) -> &[&'a DeviceView] {
        &self.kind.devices(room)[..self.access.units(room)]
    }

    /// The gentlest tier with which a machine has so many units; nothing if it never has.
    fn least_tier(&self, supply: &Supply<'i, 'a>, units: usize) -> Option<Option<Tier>> {
        let mut have = supply.free;
        if have >= units {
            return Some(None);
        }
        let enough = self.candidates_of(supply).iter().find(|one| {
            have += one.item.units;
            have >= units
        });
        enough.map(|one| Some(one.tier))
    }

    /// The machines that give so many units each with the gentlest tier and then the least loss, best first, with their
    /// victims as places among their own candidates. Among equals the least `tie`, then the first.
    pub(crate) fn best_machines<K: Ord>(
        &self,
        units: usize,
        machines: usize,
        tie: impl Fn(&Supply<'i, 'a>, &Choice) -> K,
    ) -> Option<Vec<(usize, Choice)>> {
        let least = self.supplies.iter().enumerate().filter_map(|(at, supply)| Some((self.least_tier(supply, units)?, at)));
        let mut least: Vec<(Option<Tier>, usize)> = least.collect();
        if machines == 0 || least.len() < machines {
            return None;
        }
        let (_, (tier, _), _) = least.select_nth_unstable(machines - 1);
        let tier = *tier;
        // The machines whose victims could be cheapest come first, so that most are never looked at closely.
        let bounded =
            least.iter().filter(|(least, _)| *least <= tier).map(|(_, at)| (self.bound(&self.supplies[*at], units, tier), *at));
        let mut bounded: Vec<(i128, usize)> = bounded.collect();
        bounded.sort_unstable();
        let mut best: Vec<(i128, usize, K, usize, Choice)> = Vec::with_capacity(machines + 1);
        for (bound, at) in bounded {
            if best.len() == machines && best.last().is_some_and(|(loss, ..)| bound > *loss) {
                break;
            }
            let supply = &self.supplies[at];
            let Some(choice) = self.solve(supply, units, tier) else { continue };
            let entry = (choice.loss, choice.count, tie(supply, &choice), at, choice);
            let place = best.partition_point(|known| (known.0, known.1, &known.2, known.3) < (entry.0, entry.1, &entry.2, entry.3));
            best.insert(place, entry);
            best.truncate(machines);
        }
        Some(best.into_iter().map(|(.., at, choice)| (at, choice)).collect())
    }

    fn allowed(&self, supply: &Supply<'i, 'a>, tier: Option<Tier>) -> impl Iterator<Item = Item> {
        self.candidates_of(supply).iter().take_while(move |one| Some(one.tier) <= tier).map(|one| one.item)
    }

    /// No choice on this machine loses less: the least loss of a unit, for all that are needed.
    fn bound(&self, supply: &Supply<'i, 'a>, units: usize, tier: Option<Tier>) -> i128 {
        let needed = i128::try_from(units.saturating_sub(supply.free)).unwrap_or(i128::MAX);
        let Some(cheapest) = self.allowed(supply, tier).min_by(|one, other| victim::is_dearer(*one, *other)) else { return 0 };
        cheapest.loss.div_euclid(i128::try_from(cheapest.units).unwrap_or(i128::MAX)).saturating_mul(needed)
    }

    fn solve(&self, supply: &Supply<'i, 'a>, units: usize, tier: Option<Tier>) -> Option<Choice> {
        let needed = units.saturating_sub(supply.free);
        if needed == 0 {
            return Some(Choice::default());
        }
        let items: Vec<Item> = self.allowed(supply, tier).collect();
        cover(&items, needed)
    }
}
