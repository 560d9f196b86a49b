//! Who decides: the code under test, or a naive variant of a part of it.

use sublet_capacity::{
    Action, FleetIndex, Need, Order, Placement, ReclaimPlan, Refusal, RefusalReason, Request, Shortfall, Snapshot, available,
    decide, place, place_with_reclaim, plan,
};
use sublet_core::Timestamp;

pub trait Decider {
    /// The largest request of this sort that a quote shows.
    fn available(&self, snapshot: &Snapshot, request: &Request) -> u32 {
        available(snapshot, request).units
    }
    fn place(&self, snapshot: &Snapshot, request: &Request) -> Result<Placement, Refusal> {
        place(snapshot, request)
    }
    fn reclaim(&self, snapshot: &Snapshot, request: &Request, now: Timestamp) -> Result<ReclaimPlan, RefusalReason> {
        place_with_reclaim(snapshot, request, now).map_err(|refusal| refusal.reason)
    }
    fn order(&self, snapshot: &Snapshot, need: &Need, now: Timestamp) -> Result<Order, Shortfall> {
        decide(&FleetIndex::new(snapshot), need, now)
    }
    fn plan(&self, snapshot: &Snapshot, now: Timestamp) -> Vec<Action> {
        plan(snapshot, now)
    }
}

pub struct Real;

impl Decider for Real {}
