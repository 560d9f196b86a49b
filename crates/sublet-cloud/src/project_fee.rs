//! Flat prices of projects: what each project that was used in a month is charged when that month closes.
//!
//! It is charged in the transaction that closes the month, so once for ever, and to the month itself. The price is that in
//! force when the month began, or the account if that was later: nobody's running month becomes dearer. A list without such
//! a price charges nothing. What credit does not pay is owed, and paid by the next that comes.
//!
//! Deliberately absent: holds and spend limits, for it does not arise from anything that could be stopped; and projects of
//! which a use is known only after the month was closed.

use sublet_core::id::ProjectId;
use sublet_core::{DurationMs, Nanos, Result, Timestamp};
use sublet_money::period::Period;
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::price_book::{PriceList, PriceListVersion};
use sublet_money::rating::{LineKey, RatedLine, rate_line};
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_store::charge::{self, Charge};
use sublet_store::organization::Organization;
use sublet_store::{Tx, contract_price, ledger};

use crate::Cloud;
use crate::credit_lot::StoredCredit;

impl Cloud {
    /// Charges an account's projects for a month that is closed in the same transaction.
    pub(crate) async fn charge_projects(&self, tx: &mut Tx, account: &Organization, month: &Period) -> Result<()> {
        let begin = month.interval.starts_at;
        let at = if month.interval.contains(account.created_at) { account.created_at } else { begin };
        let Some(version) = self.version_at(tx, account, at).await? else { return Ok(()) };
        if version.find(&SkuName::ProjectMonth).is_none() {
            return Ok(());
        }
        let (mut charges, mut lines) = (Vec::new(), Vec::new());
        for project in charge::used_projects(tx, &account.id, month.key).await? {
            let rated = rate_project(tx, (account, &project), month, &version).await?;
            charges.push(self.charge_of(account, &rated, at));
            lines.push((rated.key, rated.after));
        }
        if charges.is_empty() {
            return Ok(());
        }
        let lines: Vec<_> = lines.iter().map(|(key, state)| (key, *state)).collect();
        charge::set_line_states(tx, &lines).await?;
        charge::insert(tx, &charges).await?;
        let amount = Nanos::checked_sum(charges.iter().map(|charge| charge.amount))?;
        self.post_fees(tx, account, (month, charges.len()), amount).await
    }

    /// The price list that an account had at an instant that may have passed.
    pub(crate) async fn version_at(
        &self,
        tx: &mut Tx,
        account: &Organization,
        at: Timestamp,
    ) -> Result<Option<std::sync::Arc<PriceListVersion>>> {
        self.follow_changes(tx).await?;
        if let Some(version) = contract_price::find_of_account(tx, &account.id, at).await? {
            return self.price_version(tx, &version).await.map(Some);
        }
        let lists = self.prices.snapshot();
        let public = lists.values().find(|list| list.currency == account.currency);
        Ok(public.and_then(|list: &PriceList| list.find_at(at)).cloned())
    }

    fn charge_of(&self, account: &Organization, rated: &RatedLine, at: Timestamp) -> Charge {
        Charge {
            id: self.ids.mint(),
            organization: account.id.clone(),
            project: rated.key.project.clone(),
            key: None,
            source: rated.key.project.to_string(),
            sku: rated.key.sku.clone(),
            quantity: rated.quantity,
            amount: rated.amount,
            currency: account.currency,
            price_version: rated.key.price_version.clone(),
            period: rated.key.period,
            billed_in: None,
            band: None,
            before: rated.before,
            occurred_at: at,
            posted_at: self.now(),
        }
    }

    /// From credit as far as there is any; the rest is owed.
    async fn post_fees(&self, tx: &mut Tx, account: &Organization, (month, count): (&Period, usize), amount: Nanos) -> Result<()> {
        let (family, now) = (SkuFamily::ProjectFees, self.now());
        let used_at = month.interval.ends_at.minus(DurationMs::from_millis(1));
        let stored = StoredCredit::at(tx, account, used_at).await?;
        let covered = stored.credit.spendable(family, used_at)?.min(amount);
        let from = stored.burn(tx, covered, (family, used_at)).await?.split()?;
        let fact = Fact::FeeCharged { family, from, owed: amount.checked_sub(covered)? };
        let memo = format!("{count} projects in {}", month.key);
        let head = EntryHead { id: self.ids.mint(), at: now, currency: account.currency, memo };
        ledger::post(tx, &post(head, &account.id, &fact)?).await.map(|_| ())
    }
}

async fn rate_project(
    tx: &mut Tx,
    (account, project): (&Organization, &ProjectId),
    month: &Period,
    version: &PriceListVersion,
) -> Result<RatedLine> {
    let key = LineKey {
        organization: account.id.clone(),
        project: project.clone(),
        period: month.key,
        price_version: version.version().clone(),
        sku: SkuName::ProjectMonth,
        band: None,
    };
    let state = charge::line_state(tx, &key).await?;
    rate_line(key, state, version, Quantity::new(1)?)
}
