//! Lots of credit in an account's books: burned by slices and holds, put back by what they did not spend, expired at
//! their end.
//!
//! Everything here runs inside the caller's transaction, which posts the same amounts to the ledger.

use std::collections::BTreeSet;

use sublet_core::id::{CreditGrantId, OrganizationId};
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, CreditKind, LedgerAccount};
use sublet_money::credit_lot::{Burned, Credit, CreditLot, LOTS_MAX};
use sublet_money::period::BillingCalendar;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::sku::SkuFamily;
use sublet_store::organization::Organization;
use sublet_store::{Tx, credit, hold, ledger, organization, slice};

use crate::audit::Deed;
use crate::contract_drawdown::grants_of;
use crate::{Actor, Cloud};

/// Accounts of which expired credit is taken at once.
const ACCOUNTS_AT_ONCE: i64 = 100;

/// What an account has, with its lots as they are stored.
pub(crate) struct StoredCredit {
    pub credit: Credit,
    stored: Vec<CreditLot>,
}

impl StoredCredit {
    pub async fn of(tx: &mut Tx, account: &Organization) -> Result<Self> {
        let available = ledger::available(tx, &account.id).await?;
        let stored = credit::list_lots(tx, &account.id).await?;
        Ok(Self { credit: Credit::new(available, account.credit_limit, stored.clone())?, stored })
    }

    /// What can pay for a use of an instant, which may be of a month that is over: of commitments that of its own period.
    pub async fn at(tx: &mut Tx, account: &Organization, used_at: Timestamp) -> Result<Self> {
        let available = ledger::available(tx, &account.id).await?;
        let mut stored = credit::list_lots(tx, &account.id).await?;
        if stored.iter().any(|lot| lot.kind == CreditKind::Committed) {
            let month = BillingCalendar::new(&account.time_zone)?.period_at(used_at)?.key;
            let own = grants_of(tx, &account.id, month).await?;
            stored.retain(|lot| lot.kind != CreditKind::Committed || own.contains(&lot.id));
        }
        Ok(Self { credit: Credit::new(available, account.credit_limit, stored.clone())?, stored })
    }

    /// Takes an amount for a use. The caller posts it.
    pub async fn burn(&self, tx: &mut Tx, amount: Nanos, (family, now): (SkuFamily, Timestamp)) -> Result<Burned> {
        let burned = self.credit.burn(amount, family, now)?;
        let taken = |lot: &CreditLot| Nanos::checked_sum(burned.of_lots().filter(|(id, _)| **id == lot.id).map(|(_, part)| part));
        for lot in self.credit.lots() {
            self.keep(tx, lot, lot.remaining.checked_sub(taken(lot)?)?).await?;
        }
        Ok(burned)
    }

    /// Writes what is left of a lot, unless that is what is stored.
    async fn keep(&self, tx: &mut Tx, lot: &CreditLot, remaining: Nanos) -> Result<()> {
        if self.stored.iter().any(|stored| stored.id == lot.id && stored.remaining == remaining) {
            return Ok(());
        }
        credit::set_remaining(tx, &lot.id, remaining).await
    }
}

/// Takes paid credit for what is no use, as a debt is: lots give way where free credit is not enough. The caller posts it.
pub(crate) async fn take_otherwise(tx: &mut Tx, id: &OrganizationId, paid: Nanos) -> Result<()> {
    if paid.is_zero() || credit::list_lots(tx, id).await?.is_empty() {
        return Ok(());
    }
    let account = organization::get(tx, &Scope::Operator, id).await?;
    let all = StoredCredit::of(tx, &account).await?;
    for lot in all.credit.lots_without(paid)? {
        all.keep(tx, &lot, lot.remaining).await?;
    }
    Ok(())
}

/// Puts back into its lots what was not spent. The caller posts it.
pub(crate) async fn put_back(tx: &mut Tx, unspent: &Burned) -> Result<()> {
    for (lot, amount) in unspent.of_lots() {
        credit::give_back(tx, lot, amount).await?;
    }
    Ok(())
}

/// Tells a new grant apart from the rest of the credit, where its terms say so, and says what is left of it: less than
/// all only where the account is further below zero than its limit. The caller posts the grant before.
pub(crate) async fn open_lot(tx: &mut Tx, id: &OrganizationId, lot: Option<CreditLot>) -> Result<Option<Nanos>> {
    let Some(lot) = lot else { return Ok(None) };
    let mut known: BTreeSet<CreditGrantId> = credit::list_lots(tx, id).await?.into_iter().map(|lot| lot.id).collect();
    for parts in lent(tx, id).await? {
        known.extend(parts.of_lots().map(|(lot, _)| lot.clone()));
    }
    if known.len() >= LOTS_MAX {
        let message = format!("an account has at most {LOTS_MAX} grants with an end, a priority or a scope");
        return Err(
            Error::new(ErrorCode::Conflict, message).alternative("grant credit without them, or wait until some are used up")
        );
    }
    credit::insert_lot(tx, id, &lot).await?;
    let account = organization::get(tx, &Scope::Operator, id).await?;
    let all = StoredCredit::of(tx, &account).await?;
    for lot in all.credit.lots() {
        all.keep(tx, lot, lot.remaining).await?;
    }
    Ok(all.credit.lots().iter().find(|known| known.id == lot.id).map(|known| known.remaining))
}

/// What is in the open slices and holds of an account and not spent.
async fn lent(tx: &mut Tx, id: &OrganizationId) -> Result<Vec<Burned>> {
    let mut parts = Vec::new();
    for open in slice::list_open(tx, id).await? {
        parts.push(open.unspent()?);
    }
    for open in hold::list_open(tx, id).await? {
        parts.push(open.uncaptured()?);
    }
    Ok(parts)
}

/// What of that is of one lot.
pub(crate) async fn lent_of(tx: &mut Tx, id: &OrganizationId, lot: &CreditGrantId) -> Result<Nanos> {
    let parts = lent(tx, id).await?;
    let of_lot = parts.iter().flat_map(Burned::of_lots).filter(|(known, _)| *known == lot);
    Nanos::checked_sum(of_lot.map(|(_, amount)| amount))
}

/// What gifts and compensations have paid for by now: all that were given, but for what expired, is there, or is in slices and holds.
pub(crate) async fn gifts_spent(tx: &mut Tx, id: &OrganizationId) -> Result<Nanos> {
    let mut spent = Nanos::ZERO;
    for kind in [AccountKind::Promotions, AccountKind::Compensations] {
        let given = ledger::totals(tx, &LedgerAccount::customer(kind, id)).await?;
        spent = spent.checked_add(given.balance(kind.normal_side())?)?;
    }
    if spent.is_zero() {
        return Ok(spent);
    }
    spent = spent.checked_sub(ledger::available(tx, id).await?.promotional)?;
    for unspent in lent(tx, id).await? {
        spent = spent.checked_sub(unspent.split()?.promotional)?;
    }
    Ok(spent.max(Nanos::ZERO))
}

impl Cloud {
    /// Takes the credit away that is over by now. What is in slices and holds is taken when it comes back.
    pub async fn expire_credit(&self) -> Result<u64> {
        let (mut expired, mut last) = (0, None::<OrganizationId>);
        loop {
            let now = self.now();
            let page = self
                .store
                .read((now, last), |(now, last), tx| Box::pin(credit::expired(tx, *now, last.as_ref(), ACCOUNTS_AT_ONCE)));
            let page = page.await?;
            let Some(newest) = page.last() else { return Ok(expired) };
            last = Some(newest.clone());
            for account in &page {
                let done =
                    self.store.write((self, account), |(cloud, account), tx| Box::pin(cloud.expire_of(tx, account, now))).await;
                match done {
                    Ok(lots) => expired += lots,
                    Err(error) => {
                        tracing::error!(organization = %account, %error, private = ?error, "credit did not expire; it is tried again");
                    }
                }
            }
        }
    }

    async fn expire_of(&self, tx: &mut Tx, id: &OrganizationId, now: Timestamp) -> Result<u64> {
        let account = organization::get(tx, &Scope::Operator, id).await?;
        let all = StoredCredit::of(tx, &account).await?;
        let mut expired = 0;
        for lot in all.credit.lots() {
            if !lot.is_over(now) {
                all.keep(tx, lot, lot.remaining).await?;
                continue;
            }
            if lot.kind == CreditKind::Committed {
                // What is left is settled by its period's last invoice.
                self.return_drawdown(tx, &account, lot).await?;
                continue;
            }
            all.keep(tx, lot, Nanos::ZERO).await?;
            if lot.remaining.is_zero() {
                continue;
            }
            expired += 1;
            let memo = format!("what was left of {}", lot.id);
            let head = EntryHead { id: self.ids.mint(), at: now, currency: account.currency, memo };
            ledger::post(tx, &post(head, id, &Fact::CreditExpired { credit: lot.kind, amount: lot.remaining })?).await?;
            let detail = format!("{} {} {}", lot.remaining, account.currency, lot.kind);
            let deed = Deed { organization: Some(id), action: "credit.expire", target: lot.id.as_str(), detail };
            self.record(tx, &Actor::system(), deed, now).await?;
        }
        Ok(expired)
    }
}
