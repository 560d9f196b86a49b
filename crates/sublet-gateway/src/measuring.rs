//! What benchmarks measure of this crate and cannot see from outside.

use std::sync::{Arc, Weak};

use sublet_core::admission::{Access, Admission, SpendClass};
use sublet_core::id::{GatewayId, OrganizationId};
use sublet_core::{BoxFuture, DurationMs, Error, IdMint, Nanos, Result};

use crate::purse::{Ask, Bank, Held, IdleSlices, Purse};

/// There is one key only, so nobody to take money from.
struct Alone;

impl IdleSlices for Alone {
    fn release(&self, _organization: OrganizationId) -> BoxFuture<'_, Nanos> {
        Box::pin(async { Nanos::ZERO })
    }
    fn has_any(&self, _organization: &OrganizationId) -> bool {
        false
    }
}

/// One key's money, as requests find it: with a slice that was granted.
pub struct OpenPurse(Arc<Purse>);

impl OpenPurse {
    /// Asks for a slice, with which the first hold is taken and given back.
    pub async fn open(
        admission: Arc<dyn Admission>,
        ids: IdMint,
        (gateway, fence): (GatewayId, i64),
        access: &Access,
        amount: Nanos,
    ) -> Result<Self> {
        let clock = Arc::clone(ids.clock());
        let (grants, tight_for) = (Arc::default(), DurationMs::from_seconds(1));
        let bank = Arc::new(Bank { admission, clock, ids, grants, gateway, fence, tight_for });
        let owner = (access.key.clone(), access.organization.clone());
        let purse = Purse::new(bank, Weak::<Alone>::new(), owner, SpendClass::default());
        match purse.hold(Ask { least: amount, wanted: amount }) {
            Held::Now(money) => drop(money),
            Held::Wait(answer) => drop(answer.await.map_err(|_| Error::internal("a purse dropped its waiter"))??),
            Held::Retired => return Err(Error::internal("a new purse is closed")),
        }
        Ok(Self(purse))
    }
    /// Takes a hold and gives it back. False if the slice does not suffice for it.
    pub fn hold(&self, amount: Nanos) -> bool {
        matches!(self.0.hold(Ask { least: amount, wanted: amount }), Held::Now(_))
    }
}
