//! What Stripe paid out to the owner's bank account, and what it still holds by the books and by its own word.
//!
//! Payouts are listed, not told: each hour by one process, from the oldest one that is on its way. A payout is in the books
//! once when it is paid, and once more, the other way, if the bank sends it back; what its row says is what was posted.
//!
//! Deliberately absent: the payments that a payout consists of. What is held is a sum, and so is what was paid out.

use std::collections::BTreeMap;

use sublet_core::payment::{PayoutPage, PayoutState, SeenPayout};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Nanos, Result, Timestamp};
use sublet_money::account::{AccountKind, CostKind, Processor};
use sublet_money::posting::{EntryHead, PayoutFact, post_payout};
use sublet_store::payout::{self, Payout};
use sublet_store::{Page, PageRequest, Tx, ledger, setting};

use crate::audit::Deed;
use crate::{Action, Actor, Cloud};

/// The setting that says when payouts are looked at next, in milliseconds.
const LOOK_AT: &str = "payouts_look_at";
/// The setting that says when the last look began that reached its end, in milliseconds.
const READ_AT: &str = "payouts_read_at";
/// How often they are looked at.
const LOOK_PERIOD: DurationMs = DurationMs::from_hours(1);
/// How soon it is tried again where the processor did not answer.
const RETRY_PERIOD: DurationMs = DurationMs::from_seconds(300);
/// How long it is looked whether a payout came back; Stripe says five business days.
const RETURN_MAX: DurationMs = DurationMs::from_hours(24 * 30);
/// Pages that are read in one look, of 100 payouts each.
const PAGES_MAX: usize = 20;

/// What a processor holds of one currency.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HeldFunds {
    pub currency: Currency,
    /// What customers paid in there, less what was paid back.
    pub collected: Nanos,
    /// What it kept for itself.
    pub fees: Nanos,
    /// What is on the bank account.
    pub paid_out: Nanos,
    /// What it holds by the books.
    pub held: Nanos,
    /// What it says it holds; `None` if it did not answer.
    pub reported: Option<Nanos>,
}

impl HeldFunds {
    /// What it says beyond what the books say.
    pub fn difference(&self) -> Result<Option<Nanos>> {
        self.reported.map(|reported| reported.checked_sub(self.held)).transpose()
    }
}

impl Cloud {
    /// Looks at payouts if it is time to; one process does. Says how many it saw.
    pub async fn reconcile_payouts(&self) -> Result<u64> {
        let Some(port) = &self.settings.payments.balance else { return Ok(0) };
        let started_at = self.now();
        let Some(since) = self.store.write(self, |cloud, tx| Box::pin(cloud.claim_payouts(tx))).await? else { return Ok(0) };
        let (mut seen, mut after) = (0, None);
        for _ in 0..PAGES_MAX {
            let page: PayoutPage = match port.payouts(since, after.as_deref()).await {
                Ok(page) => page,
                Err(failure) => {
                    tracing::warn!(?failure, "payouts could not be read; it is tried again");
                    return Ok(seen);
                }
            };
            for one in &page.payouts {
                self.store.write((self, one), |(cloud, one), tx| Box::pin(cloud.note_payout(tx, one))).await?;
                seen += 1;
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if after.is_some() {
            tracing::error!(seen, "there are more payouts than are read in one look; the oldest are not in the books");
        }
        let next = self.now().plus(LOOK_PERIOD);
        self.store
            .write((next, started_at), |(next, started_at), tx| {
                Box::pin(async move {
                    set_instant(tx, LOOK_AT, *next).await?;
                    set_instant(tx, READ_AT, *started_at).await
                })
            })
            .await?;
        Ok(seen)
    }

    /// Since when payouts are read, if it is time to: all of them until a look has reached its end, and then as long before
    /// the last one that did as a payout can come back.
    async fn claim_payouts(&self, tx: &mut Tx) -> Result<Option<Timestamp>> {
        let now = self.now();
        if find_instant(tx, LOOK_AT).await?.is_some_and(|at| at > now) {
            return Ok(None);
        }
        set_instant(tx, LOOK_AT, now.plus(RETRY_PERIOD)).await?;
        let oldest = payout::oldest_pending(tx).await?;
        let since = find_instant(tx, READ_AT).await?.map_or(Timestamp::EPOCH, |at| at.minus(RETURN_MAX));
        Ok(Some(oldest.map_or(since, |oldest| oldest.min(since))))
    }

    async fn note_payout(&self, tx: &mut Tx, seen: &SeenPayout) -> Result<()> {
        let now = self.now();
        let known = payout::find(tx, Processor::Stripe, &seen.name).await?;
        if known.as_ref().is_some_and(|known| known.state == seen.state) {
            return Ok(());
        }
        if known.as_ref().is_some_and(|known| (known.amount, known.currency) != (seen.amount, seen.currency)) {
            return Err(Error::new(ErrorCode::Conflict, format!("the payout {} was over another amount before", seen.name)));
        }
        let mut noted = known.unwrap_or_else(|| Payout {
            id: self.ids.mint(),
            name: seen.name.clone(),
            amount: seen.amount,
            currency: seen.currency,
            state: seen.state,
            reason: None,
            made_at: seen.made_at,
            posted_at: None,
            returned_at: None,
        });
        (noted.state, noted.reason) = (seen.state, seen.reason.clone());
        let is_there = noted.posted_at.is_some() && noted.returned_at.is_none();
        let fact = match seen.state {
            PayoutState::Paid if noted.posted_at.is_none() => Some(PayoutFact::Made),
            PayoutState::Failed | PayoutState::Cancelled if is_there => Some(PayoutFact::Returned),
            PayoutState::Pending | PayoutState::Paid | PayoutState::Failed | PayoutState::Cancelled => None,
        };
        match fact {
            Some(PayoutFact::Made) => noted.posted_at = Some(now),
            Some(PayoutFact::Returned) => noted.returned_at = Some(now),
            None => {}
        }
        payout::put(tx, Processor::Stripe, &noted).await?;
        let Some(fact) = fact else { return Ok(()) };
        self.post_payout(tx, &noted, fact).await?;
        let (action, detail) = match fact {
            PayoutFact::Made => ("payout.pay", format!("{} {} {}", noted.amount, noted.currency, noted.name)),
            PayoutFact::Returned => ("payout.return", noted.reason.clone().unwrap_or_default()),
        };
        let deed = Deed { organization: None, action, target: noted.id.as_str(), detail };
        self.record(tx, &Actor::system(), deed, now).await
    }

    async fn post_payout(&self, tx: &mut Tx, noted: &Payout, fact: PayoutFact) -> Result<()> {
        let memo = format!("payout {} {}", noted.id, noted.name);
        let head = EntryHead { id: self.ids.mint(), at: self.now(), currency: noted.currency, memo };
        // Where the processor took money from the bank account, it went the other way.
        let (fact, amount) = match (noted.amount.is_negative(), fact) {
            (false, fact) => (fact, noted.amount),
            (true, PayoutFact::Made) => (PayoutFact::Returned, noted.amount.checked_neg()?),
            (true, PayoutFact::Returned) => (PayoutFact::Made, noted.amount.checked_neg()?),
        };
        ledger::post(tx, &post_payout(head, (Processor::Stripe, fact), amount)?).await.map(|_| ())
    }

    pub async fn list_payouts(&self, actor: &Actor, page: &PageRequest) -> Result<Page<Payout>> {
        actor.require(Action::ManagePayments)?;
        self.store.read(page, |page, tx| Box::pin(payout::list(tx, page))).await
    }

    /// What Stripe holds: by the books, and by its own word, which is asked for.
    pub async fn held_funds(&self, actor: &Actor) -> Result<Vec<HeldFunds>> {
        actor.require(Action::ManagePayments)?;
        let port = self.settings.payments.balance.as_ref();
        let reported = match port {
            Some(port) => {
                port.balance().await.inspect_err(|failure| tracing::warn!(?failure, "Stripe does not say what it holds")).ok()
            }
            None => None,
        };
        let mut held = self.store.read((), |(), tx| Box::pin(held_by_the_books(tx))).await?;
        for (amount, currency) in reported.iter().flatten().filter(|(amount, _)| !amount.is_zero()) {
            held.entry(*currency).or_insert_with(|| nothing(*currency)).reported = Some(*amount);
        }
        // It answered, and says nothing of a currency: it holds nothing of it.
        if reported.is_some() {
            held.values_mut().for_each(|funds| funds.reported = Some(funds.reported.unwrap_or(Nanos::ZERO)));
        }
        Ok(held.into_values().collect())
    }
}

async fn find_instant(tx: &mut Tx, name: &str) -> Result<Option<Timestamp>> {
    let at = setting::find(tx, name).await?.map(|text| text.parse()).transpose();
    Ok(at.map_err(|_| Error::internal(format!("the setting {name} is no instant")))?.map(Timestamp::from_millis))
}

async fn set_instant(tx: &mut Tx, name: &str, at: Timestamp) -> Result<()> {
    setting::set(tx, name, &at.millis().to_string()).await
}

const fn nothing(currency: Currency) -> HeldFunds {
    let zero = Nanos::ZERO;
    HeldFunds { currency, collected: zero, fees: zero, paid_out: zero, held: zero, reported: None }
}

async fn held_by_the_books(tx: &mut Tx) -> Result<BTreeMap<Currency, HeldFunds>> {
    let mut held = BTreeMap::new();
    for (currency, collected) in ledger::net_debits(tx, AccountKind::Cash(Processor::Stripe).path_prefix()).await? {
        held.entry(currency).or_insert_with(|| nothing(currency)).collected = collected;
    }
    for (currency, fees) in ledger::net_debits(tx, AccountKind::AccruedCosts(CostKind::ProcessorFees).path_prefix()).await? {
        held.entry(currency).or_insert_with(|| nothing(currency)).fees = fees.checked_neg()?;
    }
    for (currency, paid_out) in ledger::net_debits(tx, AccountKind::Payouts(Processor::Bank).path_prefix()).await? {
        held.entry(currency).or_insert_with(|| nothing(currency)).paid_out = paid_out;
    }
    for funds in held.values_mut() {
        funds.held = funds.collected.checked_sub(funds.fees)?.checked_sub(funds.paid_out)?;
    }
    Ok(held)
}
