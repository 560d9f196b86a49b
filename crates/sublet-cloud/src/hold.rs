//! Holds of long-running work, of starts and of downloads: placed, extended, captured, released, each inside the caller's transaction.

use sublet_core::admission::SpendClass;
use sublet_core::id::{HoldId, KeyId, OrganizationId, ProjectId};
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::sku::SkuFamily;
use sublet_money::spend_limit::Work;
use sublet_store::budget::{self, BudgetRef};
use sublet_store::hold::{self, Hold};
use sublet_store::{Tx, ledger, organization};

use crate::Cloud;
use crate::budget::periods_at;
use crate::credit_lot::put_back;

/// Whose money is held, and what for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HoldOwner {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub key: Option<KeyId>,
    /// What it pays for: a lease, the start of a job, or a download.
    pub subject: String,
    pub family: SkuFamily,
}

impl Cloud {
    /// Sets money aside out of the credit and every limit that applies, all or nothing.
    pub async fn place_hold(&self, tx: &mut Tx, owner: &HoldOwner, amount: Nanos, now: Timestamp) -> Result<HoldId> {
        self.check_suspension(tx, &owner.organization, Work::New).await?;
        let found = organization::get(tx, &Scope::Operator, &owner.organization).await?;
        let budgets = budgets_of(tx, owner, &found.time_zone, now).await?;
        budget::reserve(tx, &budgets, amount, Work::New).await?;
        let burned = self.credit_for(tx, &found, (amount, owner.family), now).await?.burn(tx, amount, (owner.family, now)).await?;
        let split = burned.split()?;
        let hold = Hold {
            id: self.ids.mint(),
            organization: owner.organization.clone(),
            project: owner.project.clone(),
            key: owner.key.clone(),
            subject: owner.subject.clone(),
            currency: found.currency,
            amount: split,
            parts: burned.kept(),
            captured: Nanos::ZERO,
            budgets,
            open: true,
            created_at: now,
        };
        hold::insert(tx, &hold).await?;
        self.post_hold(tx, &hold, &Fact::HoldPlaced { from: split }, now).await?;
        Ok(hold.id)
    }

    /// Moves an open hold into the days and months that run now, with the credit that it has: what was held in time is not
    /// taken away by the end of credit.
    pub async fn renew_hold(&self, tx: &mut Tx, owner: &HoldOwner, now: Timestamp) -> Result<()> {
        let Some(old) = hold::find_open(tx, &owner.subject).await? else { return Ok(()) };
        let left = old.uncaptured()?;
        let split = left.split()?;
        hold::close(tx, &old.id, now).await?;
        budget::release(tx, &old.budgets, split.total()?).await?;
        let found = organization::get(tx, &Scope::Operator, &owner.organization).await?;
        let budgets = budgets_of(tx, owner, &found.time_zone, now).await?;
        budget::reserve(tx, &budgets, split.total()?, Work::Admitted).await?;
        let (id, parts, captured) = (self.ids.mint(), left.kept(), Nanos::ZERO);
        hold::insert(tx, &Hold { id, amount: split, parts, captured, budgets, created_at: now, ..old }).await
    }

    /// Adds to an open hold of a lease; refused like a new one if it cannot be afforded, but that a limit that lets work finish also
    /// gives of what is for that.
    pub async fn extend_hold(&self, tx: &mut Tx, hold: &Hold, by: Nanos, now: Timestamp) -> Result<()> {
        self.check_suspension(tx, &hold.organization, Work::Admitted).await?;
        budget::reserve(tx, &hold.budgets, by, Work::Admitted).await?;
        let found = organization::get(tx, &Scope::Operator, &hold.organization).await?;
        let family = SkuFamily::DeviceTime;
        let burned = self.credit_for(tx, &found, (by, family), now).await?.burn(tx, by, (family, now)).await?;
        if !hold::extend(tx, hold, &burned).await? {
            return Err(Error::new(ErrorCode::Conflict, format!("hold {} is closed", hold.id)));
        }
        self.post_hold(tx, hold, &Fact::HoldPlaced { from: burned.split()? }, now).await
    }

    /// Turns part of a hold into income. More than it holds is an error: nothing runs beyond its hold.
    pub async fn capture_hold(&self, tx: &mut Tx, hold: &Hold, (family, amount): (SkuFamily, Nanos), now: Timestamp) -> Result<()> {
        if !hold::capture(tx, &hold.id, amount).await? {
            return Err(Error::new(ErrorCode::LedgerMismatch, format!("hold {} is closed or holds less than {amount}", hold.id)));
        }
        budget::settle(tx, &hold.budgets, amount).await?;
        self.post_hold(tx, hold, &Fact::HoldCaptured { family, amount }, now).await
    }

    /// Gives back what a hold did not capture and closes it. A closed hold stays as it is.
    pub async fn release_hold(&self, tx: &mut Tx, subject: &str, now: Timestamp) -> Result<()> {
        let Some(hold) = hold::find_open(tx, subject).await? else { return Ok(()) };
        if !hold::close(tx, &hold.id, now).await? {
            return Ok(());
        }
        let unspent = hold.uncaptured()?;
        let to = unspent.split()?;
        budget::release(tx, &hold.budgets, to.total()?).await?;
        put_back(tx, &unspent).await?;
        self.post_hold(tx, &hold, &Fact::HoldReleased { to }, now).await
    }

    async fn post_hold(&self, tx: &mut Tx, hold: &Hold, fact: &Fact, now: Timestamp) -> Result<()> {
        let memo = format!("{} of {}", hold.id, hold.subject);
        let head = EntryHead { id: self.ids.mint(), at: now, currency: hold.currency, memo };
        ledger::post(tx, &post(head, &hold.organization, fact)?).await.map(|_| ())
    }
}

/// The limits that apply to an owner, in the windows that run at an instant.
async fn budgets_of(tx: &mut Tx, owner: &HoldOwner, zone: &str, now: Timestamp) -> Result<Vec<BudgetRef>> {
    let periods = periods_at(zone, now)?;
    let key = owner.key.as_ref().map_or("", KeyId::as_str);
    let subjects = [key, owner.project.as_str(), owner.organization.as_str()];
    let budgets = budget::chain(tx, &subjects, &SpendClass::default(), &periods).await?;
    Ok(budgets.into_iter().map(|budget| budget.reference).collect())
}
