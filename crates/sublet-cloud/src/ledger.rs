//! The books as a whole: verification and export.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sublet_core::id::{OrganizationId, ReplicaId};
use sublet_core::supplier::CostVersion;
use sublet_core::{Currency, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, CostKind, LedgerAccount};
use sublet_money::balance::TrialBalance;
use sublet_money::commitment::CommitmentLine;
use sublet_money::cost::CostLineKey;
use sublet_money::export::{JournalFormat, JournalWriter};
use sublet_money::period::PeriodKey;
use sublet_money::rating::{LineKey, verify_line};
use sublet_store::invoice::StoredInvoice;
use sublet_store::ledger::{JournalCursor, StoredAccount};
use sublet_store::{PageRequest, Tx, billing, charge, contract, hold, invoice, ledger, organization, slice, supplier};

use crate::contract_drawdown::verify_drawdowns;
use crate::contract_fee::verify_fees;
use crate::{Action, Actor, Cloud, credit};

/// Most findings that are listed.
pub const FINDINGS_MAX: usize = 100;

/// Everything added up again.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Verification {
    pub as_of: Timestamp,
    pub accounts: u64,
    pub entries: u64,
    pub transfers: u64,
    pub charges: u64,
    pub totals: Vec<(Currency, Nanos, Nanos)>,
    /// What does not add up, one sentence each.
    pub findings: Vec<String>,
}

impl Verification {
    pub fn balanced(&self) -> bool {
        self.findings.is_empty()
    }
    fn check(&mut self, good: bool, finding: impl FnOnce() -> String) {
        if !good && self.findings.len() < FINDINGS_MAX {
            self.findings.push(finding());
        }
    }
    fn note(&mut self, result: Result<()>) {
        if let Err(error) = result {
            self.check(false, || error.to_string());
        }
    }
}

impl Cloud {
    /// Adds the whole ledger up again on one snapshot: journal against accounts, debits against
    /// credits, funds of every customer, slices and holds against their accounts, charges against lines and income.
    pub async fn verify_ledger(&self, actor: &Actor) -> Result<Verification> {
        actor.require(Action::ReadLedger)?;
        let as_of = self.now();
        self.store.read((self, as_of), |(cloud, as_of), tx| Box::pin(cloud.verify_in(tx, *as_of))).await
    }

    async fn verify_in(&self, tx: &mut Tx, as_of: Timestamp) -> Result<Verification> {
        let mut verification = Verification { as_of, ..Verification::default() };
        let journal = add_up_journal(tx, &mut verification).await?;
        let kept = read_accounts(tx, &mut verification).await?;
        verification.note(journal.verify_against(&kept));
        add_totals(&journal, &mut verification)?;
        let mut page = PageRequest { limit: Some(100), ..PageRequest::default() };
        loop {
            let organizations = organization::list(tx, None, &page).await?;
            for organization in &organizations.items {
                self.verify_organization(tx, organization, &mut verification).await?;
            }
            let Some(last) = organizations.items.last().filter(|_| organizations.has_more) else { return Ok(verification) };
            page.after = Some(last.id.to_string());
        }
    }

    async fn verify_organization(
        &self,
        tx: &mut Tx,
        organization: &organization::Organization,
        verification: &mut Verification,
    ) -> Result<()> {
        let id = &organization.id;
        match credit::balance(tx, &Scope::Operator, id).await {
            Ok(balance) => {
                let (sliced, held) = (slice::open_total(tx, id).await?, hold::open_total(tx, id).await?);
                verification.check(balance.funds.sliced == sliced, || {
                    format!("{id}: open slices hold {sliced}, their account {}", balance.funds.sliced)
                });
                let lost = slice::lost_total(tx, id).await?;
                verification.check(balance.funds.suspense == lost, || {
                    format!("{id}: lost slices leave {lost}, the account in suspense has {}", balance.funds.suspense)
                });
                verification.check(balance.funds.held == held, || {
                    format!("{id}: open holds hold {held}, their account {}", balance.funds.held)
                });
            }
            Err(error) => verification.check(false, || format!("{id}: {error}")),
        }
        let (charges, charged) = charge::organization_total(tx, id).await?;
        verification.charges += u64::try_from(charges).unwrap_or(0);
        let income = income(tx, id).await?;
        verification.check(charged == income, || format!("{id}: charges add up to {charged}, income accounts to {income}"));
        for line in charge::list_all_lines(tx, id).await? {
            self.verify_charge_line(tx, &line, verification).await?;
        }
        verify_invoices(tx, id, verification).await?;
        verify_supplier(tx, id, verification).await
    }

    async fn verify_charge_line(
        &self,
        tx: &mut Tx,
        line: &(LineKey, sublet_money::rating::LineState),
        verification: &mut Verification,
    ) -> Result<()> {
        let (key, state) = line;
        let (_, charged) = charge::sum_of_line(tx, key).await?;
        verification
            .check(charged == state.charged, || format!("{key}: charges add up to {charged}, the line says {}", state.charged));
        let verified = match self.price_version(tx, &key.price_version).await {
            Ok(version) => version
                .get(&key.sku)
                .and_then(|entry| entry.price_in(key.band.as_ref()))
                .and_then(|price| verify_line(*state, price)),
            Err(error) if error.code() == ErrorCode::UnknownPrice => Err(error),
            Err(error) => return Err(error),
        };
        verification.note(verified.map_err(|error| error.prefixed(&key.to_string())));
        Ok(())
    }

    /// Every account, in the order of paths.
    pub async fn list_ledger_accounts(&self, actor: &Actor, after: &str) -> Result<Vec<StoredAccount>> {
        actor.require(Action::ReadLedger)?;
        self.store.read((actor, after), |(actor, after), tx| Box::pin(ledger::list_accounts(tx, &actor.scope, after))).await
    }

    /// Starts an export: entries are read step by step, so that memory stays bounded.
    pub fn export_ledger(&self, actor: &Actor, format: JournalFormat) -> Result<LedgerExport> {
        actor.require(Action::ReadLedger)?;
        let text = Piece::default();
        let writer = JournalWriter::new(text.clone(), format)?;
        Ok(LedgerExport { entries: 0, cloud: self.clone(), writer: Some(writer), text, cursor: JournalCursor::default() })
    }
}

/// An export under way.
pub struct LedgerExport {
    /// Entries so far.
    pub entries: u64,
    cloud: Cloud,
    writer: Option<JournalWriter<Piece>>,
    text: Piece,
    cursor: JournalCursor,
}

/// Text that one side writes and the other takes away piece by piece.
#[derive(Clone, Default)]
struct Piece(Arc<Mutex<String>>);

impl Piece {
    fn take(&self) -> String {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Write for Piece {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(text);
        Ok(())
    }
}

impl LedgerExport {
    /// The next piece of text; `None` after the last.
    pub async fn next(&mut self) -> Result<Option<String>> {
        let Some(mut writer) = self.writer.take() else { return Ok(None) };
        let cursor = self.cursor.clone();
        let (entries, cursor) =
            self.cloud.store.read(cursor, |cursor, tx| Box::pin(ledger::list_entries(tx, &Scope::Operator, cursor))).await?;
        if entries.is_empty() {
            writer.finish()?;
            return Ok(Some(self.text.take()));
        }
        for entry in &entries {
            writer.entry(entry)?;
            self.entries = self.entries.saturating_add(1);
        }
        self.cursor = cursor;
        self.writer = Some(writer);
        Ok(Some(self.text.take()))
    }
}

async fn add_up_journal(tx: &mut Tx, verification: &mut Verification) -> Result<TrialBalance> {
    let mut balance = TrialBalance::default();
    let mut cursor = JournalCursor::default();
    loop {
        let (entries, next) = ledger::list_entries(tx, &Scope::Operator, &cursor).await?;
        if entries.is_empty() {
            return Ok(balance);
        }
        for entry in &entries {
            verification.entries += 1;
            verification.transfers += u64::try_from(entry.transfers.len()).unwrap_or(0);
            balance.apply(entry)?;
        }
        cursor = next;
    }
}

async fn read_accounts(tx: &mut Tx, verification: &mut Verification) -> Result<TrialBalance> {
    let mut kept = TrialBalance::default();
    let mut after = String::new();
    loop {
        let accounts = ledger::list_accounts(tx, &Scope::Operator, &after).await?;
        let Some(last) = accounts.last() else { return Ok(kept) };
        after = last.account.to_string();
        for stored in accounts {
            verification.accounts += 1;
            let balance = stored.totals.credits.checked_sub(stored.totals.debits)?;
            verification.check(stored.minimum.is_none_or(|minimum| balance >= minimum), || {
                format!("{} is at {balance}, below its minimum", stored.account)
            });
            // Accounts that were opened but never used are in no entry.
            if !(stored.totals.debits.is_zero() && stored.totals.credits.is_zero()) {
                kept.insert(stored.currency, stored.account, stored.totals);
            }
        }
    }
}

fn add_totals(journal: &TrialBalance, verification: &mut Verification) -> Result<()> {
    let mut sums: std::collections::BTreeMap<Currency, (Nanos, Nanos)> = std::collections::BTreeMap::new();
    for (currency, _, totals) in journal.iter() {
        let sum = sums.entry(currency).or_default();
        sum.0 = sum.0.checked_add(totals.debits)?;
        sum.1 = sum.1.checked_add(totals.credits)?;
    }
    for (currency, (debits, credits)) in sums {
        verification.check(debits == credits, || format!("{currency}: debits are {debits}, credits {credits}"));
        verification.totals.push((currency, debits, credits));
    }
    Ok(())
}

/// What is charged to a month that was billed is in its invoice, and nothing was charged to one that needed none.
async fn verify_invoices(tx: &mut Tx, id: &OrganizationId, verification: &mut Verification) -> Result<()> {
    let (mut committed, mut advanced, mut taxes) = (Nanos::ZERO, Nanos::ZERO, BTreeMap::new());
    for period in billing::list_billed(tx, id).await? {
        let (_, charged) = charge::period_total(tx, id, period).await?;
        let found = invoice::find_of_period(tx, id, period).await?;
        let (invoiced, by_contract) = match found {
            Some(stored) => {
                add_taxes(&stored, &mut taxes)?;
                advanced = advanced.checked_add(stored.invoice.content.advanced()?)?;
                let earned = stored.invoice.content.commitment.as_ref().map_or(Ok(Nanos::ZERO), CommitmentLine::earned)?;
                (stored.invoice.content.charged()?, earned)
            }
            None => (Nanos::ZERO, Nanos::ZERO),
        };
        committed = committed.checked_add(by_contract)?;
        verification
            .check(charged == invoiced, || format!("{id}: {charged} were charged to {period}, and {invoiced} are in its invoice"));
    }
    verify_taxes(tx, id, taxes, verification).await?;
    for finding in verify_fees(tx, id, advanced).await? {
        verification.check(false, || finding);
    }
    for finding in verify_drawdowns(tx, id).await? {
        verification.check(false, || finding);
    }
    let settled = contract::sum_settled(tx, id).await?;
    let kind = AccountKind::Commitments;
    let posted = ledger::totals(tx, &LedgerAccount::customer(kind, id)).await?.balance(kind.normal_side())?;
    verification.check(settled == posted, || format!("{id}: contracts come to {settled}, their account to {posted}"));
    verification.check(committed == settled, || format!("{id}: invoices have {committed} by contract, and contracts {settled}"));
    Ok(())
}

/// Each jurisdiction is owed what the customer's invoices say, less what credit notes gave back.
async fn verify_taxes(
    tx: &mut Tx,
    id: &OrganizationId,
    invoiced: BTreeMap<LedgerAccount, Nanos>,
    verification: &mut Verification,
) -> Result<()> {
    let mut taxes: BTreeMap<_, _> = invoiced.into_iter().map(|(account, sum)| (account, (sum, Nanos::ZERO))).collect();
    for (account, totals) in ledger::list_taxes(tx, id).await? {
        taxes.entry(account).or_default().1 = totals.balance(AccountKind::Tax.normal_side())?;
    }
    for (account, (invoiced, posted)) in taxes {
        verification.check(invoiced == posted, || format!("{account}: invoices come to {invoiced}, the account to {posted}"));
    }
    Ok(())
}

/// Adds an invoice's taxes, less what credit notes gave back of them.
fn add_taxes(stored: &StoredInvoice, taxes: &mut BTreeMap<LedgerAccount, Nanos>) -> Result<()> {
    let content = &stored.invoice.content;
    let lines = content.tax.iter().flat_map(|tax| &tax.lines);
    for (line, given_back) in lines.zip(content.tax_given_back(stored.credited)?) {
        let account = LedgerAccount::tax(line.treatment.jurisdiction.clone(), stored.organization());
        let sum = taxes.entry(account).or_default();
        *sum = sum.checked_add(line.amount)?.checked_sub(given_back)?;
    }
    Ok(())
}

/// What a supplier is owed: purchases against lines, and both against its accounts.
async fn verify_supplier(tx: &mut Tx, id: &OrganizationId, verification: &mut Verification) -> Result<()> {
    let bought = supplier::supplier_total(tx, id).await?;
    for (kind, side) in [(AccountKind::Costs(CostKind::Upstream), "costs"), (AccountKind::AccruedCosts(CostKind::Upstream), "owed")]
    {
        let totals = ledger::totals(tx, &LedgerAccount::customer(kind, id)).await?;
        let balance = totals.balance(kind.normal_side())?;
        verification.check(bought == balance, || format!("{id}: purchases add up to {bought}, the account of {side} to {balance}"));
    }
    // Lines of one replica, period and version: its purchases are not split by kind of token.
    let mut groups: BTreeMap<(ReplicaId, PeriodKey, CostVersion), (CostLineKey, Nanos)> = BTreeMap::new();
    for (key, state) in supplier::list_lines(tx, id).await? {
        match supplier::find_cost(tx, &key.version).await? {
            Some(stored) => verification.note(verify_line(state, stored.cost.entry(key.kind).price_in(None)?)),
            None => verification.check(false, || format!("{key}: its cost is unknown")),
        }
        let group = (key.replica.clone(), key.period, key.version.clone());
        let sum = groups.entry(group).or_insert((key, Nanos::ZERO));
        sum.1 = sum.1.checked_add(state.charged)?;
    }
    for (key, owed) in groups.into_values() {
        let sum = supplier::sum_of(tx, &key).await?;
        verification.check(sum == owed, || format!("{key}: purchases add up to {sum}, the lines to {owed}"));
    }
    Ok(())
}

async fn income(tx: &mut Tx, organization: &sublet_core::id::OrganizationId) -> Result<Nanos> {
    let mut income = Nanos::ZERO;
    for kind in AccountKind::ALL {
        if let AccountKind::Usage(_) = kind {
            let totals = ledger::totals(tx, &LedgerAccount::customer(kind, organization)).await?;
            income = income.checked_add(totals.credits)?.checked_sub(totals.debits)?;
        }
    }
    Ok(income)
}
