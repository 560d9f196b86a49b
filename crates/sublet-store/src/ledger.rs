//! The double-entry ledger: accounts, entries, transfers.
//!
//! A transfer debits one account and credits another with the same amount, so debits equal
//! credits by construction. An account with a minimum is never debited below it: the check is
//! part of the posting (`balance = credits - debits`). Entry ids are idempotent for ever: the
//! same entry again changes nothing, another body under a known id is an error.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use sublet_core::id::{JournalEntryId, OrganizationId};
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, CreditKind, DEFERRED_PREFIX, LedgerAccount, TAX_PREFIX};
use sublet_money::balance::AccountTotals;
use sublet_money::posting::{CreditSplit, EntryKind, JournalEntry, Transfer};

use crate::database::Tx;
use crate::params;
use crate::row::{Row, Value};

/// What posting an entry did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Posted {
    New,
    /// The very same entry is in the books.
    Duplicate,
}

/// The balance below which an account of this kind is never debited.
const fn minimum(kind: AccountKind) -> Option<Nanos> {
    match kind {
        AccountKind::Available(_)
        | AccountKind::Slices
        | AccountKind::Holds
        | AccountKind::Suspense
        | AccountKind::RefundsPayable
        | AccountKind::TaxPrepaid
        | AccountKind::DeferredRevenue => Some(Nanos::ZERO),
        AccountKind::Cash(_)
        | AccountKind::Receivable
        | AccountKind::TaxReceivable
        | AccountKind::Tax
        | AccountKind::RoundingCarry
        | AccountKind::Payouts(_)
        | AccountKind::AccruedCosts(_)
        | AccountKind::Usage(_)
        | AccountKind::Commitments
        | AccountKind::Fees
        | AccountKind::Rounding
        | AccountKind::Breakage
        | AccountKind::Promotions
        | AccountKind::Compensations
        | AccountKind::Refunds
        | AccountKind::Costs(_) => None,
    }
}

/// Posts an entry: all of it or nothing (the caller's transaction fails with the error).
pub async fn post(tx: &mut Tx, entry: &JournalEntry) -> Result<Posted> {
    entry.verify()?;
    // Nothing is read of what is not there, so that on PostgreSQL entries that are posted at once are in nobody's way.
    if insert_entries(tx, &[entry]).await? == 0 {
        check_same(entry, find(tx, &Scope::Operator, &entry.id).await?.as_ref())?;
        return Ok(Posted::Duplicate);
    }
    move_accounts(tx, &[entry]).await?;
    Ok(Posted::New)
}

/// Posts entries as if one after the other: all of them or nothing. Each account is read and written once.
pub async fn post_all(tx: &mut Tx, entries: &[JournalEntry]) -> Result<Vec<Posted>> {
    let ids: Vec<_> = entries.iter().map(|entry| entry.id.as_str().into()).collect();
    let mut known = BTreeSet::new();
    for row in tx.fetch_listed("SELECT id FROM journal_entries WHERE id IN ", &ids).await? {
        known.insert(row.reader().string()?);
    }
    let (mut fresh, mut posted) = (BTreeMap::new(), Vec::with_capacity(entries.len()));
    for entry in entries {
        entry.verify()?;
        if known.contains(entry.id.as_str()) {
            check_same(entry, find(tx, &Scope::Operator, &entry.id).await?.as_ref())?;
            posted.push(Posted::Duplicate);
        } else if let Some(earlier) = fresh.insert(&entry.id, entry) {
            check_same(entry, Some(earlier))?;
            fresh.insert(&entry.id, earlier);
            posted.push(Posted::Duplicate);
        } else {
            posted.push(Posted::New);
        }
    }
    // In the order in which they were given: the overdraft of one may be covered by another before it.
    let new: Vec<_> = entries.iter().zip(&posted).filter(|(_, posted)| **posted == Posted::New).map(|(entry, _)| entry).collect();
    if usize::try_from(insert_entries(tx, &new).await?) != Ok(new.len()) {
        return Err(Error::internal("an entry came to be known while it was posted"));
    }
    move_accounts(tx, &new).await?;
    Ok(posted)
}

/// An id stands for one entry for ever.
fn check_same(entry: &JournalEntry, known: Option<&JournalEntry>) -> Result<()> {
    let same = known
        .is_some_and(|known| known.kind == entry.kind && known.currency == entry.currency && known.transfers == entry.transfers);
    if same {
        return Ok(());
    }
    Err(Error::new(ErrorCode::IdempotencyMismatch, format!("entry {} is in the books with other transfers", entry.id)))
}

/// Says how many were not known.
async fn insert_entries(tx: &mut Tx, entries: &[&JournalEntry]) -> Result<u64> {
    fn row(entry: &JournalEntry) -> Vec<Value<'_>> {
        let of = entry.transfers.iter().find_map(|transfer| transfer.debit.organization().or(transfer.credit.organization()));
        params![
            entry.id.as_str(),
            entry.kind.as_str(),
            of.map(OrganizationId::as_str),
            entry.currency.as_str(),
            entry.at,
            entry.memo.as_str()
        ]
        .to_vec()
    }
    let rows: Vec<_> = entries.iter().map(|entry| row(entry)).collect();
    let prefix = "INSERT INTO journal_entries (id, kind, organization_id, currency, posted_at, memo) VALUES ";
    tx.insert_many(prefix, "ON CONFLICT (id) DO NOTHING", &rows).await
}

/// An account while entries are posted to it.
struct Moved<'e> {
    account: &'e LedgerAccount,
    currency: Currency,
    /// What transfers name it by; none until it is opened.
    number: Option<i64>,
    minimum: Option<Nanos>,
    /// With what is posted now.
    totals: AccountTotals,
    /// What is posted now.
    more: AccountTotals,
}

impl<'e> Moved<'e> {
    fn new(account: &'e LedgerAccount, currency: Currency) -> Self {
        let (totals, more) = (AccountTotals::default(), AccountTotals::default());
        Self { account, currency, number: None, minimum: minimum(account.kind()), totals, more }
    }
    fn debit(&mut self, amount: Nanos) -> Result<()> {
        let balance = self.totals.credits.checked_sub(self.totals.debits)?;
        if self.minimum.is_some_and(|minimum| balance.checked_sub(amount).is_ok_and(|left| left < minimum)) {
            return Err(Error::new(ErrorCode::InsufficientQuota, format!("the balance is {balance}, and {amount} is needed"))
                .context(format!("account {} would fall below its minimum", self.account)));
        }
        self.totals.debits = self.totals.debits.checked_add(amount)?;
        self.more.debits = self.more.debits.checked_add(amount)?;
        // What is left has to be an amount, too.
        self.totals.credits.checked_sub(self.totals.debits).map(|_| ())
    }
    fn credit(&mut self, amount: Nanos) -> Result<()> {
        self.totals.credits = self.totals.credits.checked_add(amount)?;
        self.more.credits = self.more.credits.checked_add(amount)?;
        self.totals.credits.checked_sub(self.totals.debits).map(|_| ())
    }
    fn number(&self) -> Result<i64> {
        self.number.ok_or_else(|| Error::internal(format!("account {} was not opened", self.account)))
    }
}

/// A transfer, with the places of its accounts in the movement.
struct Leg<'e> {
    entry: &'e JournalEntry,
    position: i64,
    debit: usize,
    credit: usize,
    amount: Nanos,
}

/// Entries that are posted together, and their accounts.
struct Movement<'e> {
    /// In the order of their paths, so that two writers never wait for each other.
    accounts: Vec<Moved<'e>>,
    /// The path of each account.
    paths: Vec<String>,
    /// In the order in which they are posted.
    legs: Vec<Leg<'e>>,
}

impl<'e> Movement<'e> {
    fn of(entries: &[&'e JournalEntry]) -> Self {
        let (mut seen, mut found, mut legs) = (HashMap::new(), Vec::new(), Vec::with_capacity(entries.len()));
        let mut place = |account: &'e LedgerAccount, currency| {
            *seen.entry(account).or_insert_with(|| {
                found.push((account.to_string(), account, currency));
                found.len() - 1
            })
        };
        for entry in entries {
            for (position, Transfer { debit, credit, amount }) in (1..).zip(&entry.transfers) {
                let (debit, credit) = (place(debit, entry.currency), place(credit, entry.currency));
                legs.push(Leg { entry, position, debit, credit, amount: *amount });
            }
        }
        let mut order: Vec<_> = (0..found.len()).collect();
        order.sort_unstable_by(|one, other| found[*one].0.cmp(&found[*other].0));
        let mut places = vec![0; found.len()];
        for (sorted, first_seen) in (0..).zip(&order) {
            places[*first_seen] = sorted;
        }
        for leg in &mut legs {
            (leg.debit, leg.credit) = (places[leg.debit], places[leg.credit]);
        }
        let accounts = order.iter().map(|place| Moved::new(found[*place].1, found[*place].2)).collect();
        let paths = order.iter().map(|place| std::mem::take(&mut found[*place].0)).collect();
        Self { accounts, paths, legs }
    }

    /// Reads what is there of the accounts, and opens the others.
    async fn read(&mut self, tx: &mut Tx) -> Result<()> {
        let Self { accounts, paths, .. } = self;
        let places: HashMap<&str, usize> = paths.iter().map(String::as_str).zip(0..).collect();
        let place =
            |path: &str| places.get(path).copied().ok_or_else(|| Error::internal("an account was read that was not asked for"));
        let wanted: Vec<_> = paths.iter().map(|path| Value::from(path.as_str())).collect();
        tx.each_listed("SELECT path, number, debits, credits, minimum FROM accounts WHERE path IN ", &wanted, |mut row| {
            let moved = &mut accounts[place(row.text()?)?];
            moved.number = Some(row.int()?);
            moved.totals = AccountTotals { debits: row.nanos()?, credits: row.nanos()? };
            moved.minimum = row.optional_int()?.map(Nanos::new);
            Ok(())
        })
        .await?;
        let missing = || accounts.iter().zip(&wanted).filter(|(moved, _)| moved.number.is_none());
        let rows: Vec<_> = missing().map(|(moved, _)| name(moved.account, moved.currency)).collect();
        if rows.is_empty() {
            return Ok(());
        }
        let unnumbered: Vec<_> = missing().map(|(_, path)| path.clone()).collect();
        name_accounts(tx, &rows).await?;
        tx.each_listed("SELECT path, number FROM account_names WHERE path IN ", &unnumbered, |mut row| {
            let moved = &mut accounts[place(row.text()?)?];
            moved.number = Some(row.int()?);
            Ok(())
        })
        .await
    }

    /// In the order of the transfers.
    fn post(&mut self) -> Result<()> {
        for leg in &self.legs {
            self.accounts[leg.debit].debit(leg.amount)?;
            self.accounts[leg.credit].credit(leg.amount)?;
        }
        Ok(())
    }

    /// Writes differences, where the statement itself refuses one that would leave less than the minimum, and transfers.
    async fn write(&self, tx: &mut Tx) -> Result<()> {
        let row = |moved: &Moved<'_>| {
            Ok(params![moved.number()?, moved.more.debits, moved.more.credits, moved.minimum.map(Nanos::get)].to_vec())
        };
        let rows: Vec<_> = self.accounts.iter().map(row).collect::<Result<_>>()?;
        let prefix = "INSERT INTO balances (account, debits, credits, minimum) VALUES ";
        let suffix = "ON CONFLICT (account) DO UPDATE
             SET debits = balances.debits + excluded.debits, credits = balances.credits + excluded.credits
             WHERE balances.minimum IS NULL OR excluded.debits = 0
                 OR balances.credits + excluded.credits - balances.debits - excluded.debits >= balances.minimum";
        let changed = tx.insert_many(prefix, suffix, &rows).await?;
        if usize::try_from(changed) != Ok(rows.len()) {
            return Err(Error::internal("an account changed while entries were posted to it"));
        }
        let row = |leg: &Leg<'e>| {
            let (debit, credit) = (self.accounts[leg.debit].number()?, self.accounts[leg.credit].number()?);
            Ok(params![leg.entry.id.as_str(), leg.position, debit, credit, leg.amount].to_vec())
        };
        let rows: Vec<_> = self.legs.iter().map(row).collect::<Result<_>>()?;
        tx.insert_many("INSERT INTO transfers (entry_id, position, debit, credit, amount) VALUES ", "", &rows).await.map(|_| ())
    }
}

/// Debits and credits accounts, in the order of the transfers, and writes the transfers. An account that is new is opened.
async fn move_accounts(tx: &mut Tx, entries: &[&JournalEntry]) -> Result<()> {
    let mut movement = Movement::of(entries);
    movement.read(tx).await?;
    movement.post()?;
    movement.write(tx).await
}

fn name(account: &LedgerAccount, currency: Currency) -> Vec<Value<'static>> {
    let organization = account.organization().map(|organization| organization.as_str().to_owned());
    params![account.to_string(), organization, currency.as_str().to_owned()].to_vec()
}

/// Names accounts that have no name yet.
async fn name_accounts(tx: &mut Tx, rows: &[Vec<Value<'_>>]) -> Result<()> {
    let prefix = "INSERT INTO account_names (path, organization_id, currency) VALUES ";
    tx.insert_many(prefix, "ON CONFLICT (path) DO NOTHING", rows).await.map(|_| ())
}

/// Opens an account when it is first used.
async fn open(tx: &mut Tx, account: &LedgerAccount, currency: Currency) -> Result<()> {
    name_accounts(tx, &[name(account, currency)]).await?;
    tx.execute(
        "INSERT INTO balances (account, debits, credits, minimum) SELECT number, 0, 0, $2 FROM account_names WHERE path = $1
         ON CONFLICT (account) DO NOTHING",
        params![account.to_string(), minimum(account.kind()).map(Nanos::get)],
    )
    .await?;
    Ok(())
}

/// Lets paid credit fall to `-credit_limit`.
pub async fn set_credit_limit(tx: &mut Tx, organization: &OrganizationId, currency: Currency, credit_limit: Nanos) -> Result<()> {
    let account = LedgerAccount::customer(AccountKind::Available(CreditKind::Paid), organization);
    open(tx, &account, currency).await?;
    let minimum = credit_limit.checked_neg()?;
    tx.execute(
        "UPDATE balances SET minimum = $2 WHERE account = (SELECT number FROM account_names WHERE path = $1)",
        params![account.to_string(), minimum],
    )
    .await?;
    Ok(())
}

/// All that was ever posted to one account.
pub async fn totals(tx: &mut Tx, account: &LedgerAccount) -> Result<AccountTotals> {
    let row = tx.fetch_optional("SELECT debits, credits FROM accounts WHERE path = $1", params![account.to_string()]).await?;
    let Some(row) = row else { return Ok(AccountTotals::default()) };
    let mut row = row.reader();
    Ok(AccountTotals { debits: row.nanos()?, credits: row.nanos()? })
}

/// What was ever posted to all customers' accounts of a kind, by currency: debits less credits.
pub async fn net_debits(tx: &mut Tx, path_prefix: &str) -> Result<BTreeMap<Currency, Nanos>> {
    let sql = "SELECT currency, CAST(SUM(debits - credits) AS BIGINT) FROM accounts WHERE path LIKE $1 GROUP BY currency";
    let rows = tx.fetch_all(sql, params![format!("{path_prefix}%")]).await?;
    rows.iter().map(|row| row.reader()).map(|mut row| Ok((row.parse()?, row.nanos()?))).collect()
}

/// All that was ever posted to a customer's taxes, by jurisdiction.
pub async fn list_taxes(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<(LedgerAccount, AccountTotals)>> {
    list_of_prefix(tx, organization, TAX_PREFIX).await
}

/// All that was ever posted to a customer's deferred revenue, by contract.
pub async fn list_deferred(tx: &mut Tx, organization: &OrganizationId) -> Result<Vec<(LedgerAccount, AccountTotals)>> {
    list_of_prefix(tx, organization, DEFERRED_PREFIX).await
}

async fn list_of_prefix(tx: &mut Tx, organization: &OrganizationId, prefix: &str) -> Result<Vec<(LedgerAccount, AccountTotals)>> {
    let rows = tx
        .fetch_all(
            "SELECT path, debits, credits FROM accounts WHERE organization_id = $1 AND path LIKE $2 ORDER BY path LIMIT $3",
            params![organization.as_str(), format!("{prefix}%"), ACCOUNTS_PAGE],
        )
        .await?;
    let read = |row: &Row| {
        let mut row = row.reader();
        Ok((row.parse()?, AccountTotals { debits: row.nanos()?, credits: row.nanos()? }))
    };
    rows.iter().map(read).collect()
}

/// What an organization's credit balances are now, the paid one possibly below zero.
pub async fn available(tx: &mut Tx, organization: &OrganizationId) -> Result<CreditSplit> {
    let mut split = CreditSplit::default();
    for kind in CreditKind::ALL {
        let totals = totals(tx, &LedgerAccount::customer(AccountKind::Available(kind), organization)).await?;
        let balance = totals.credits.checked_sub(totals.debits)?;
        match kind {
            CreditKind::Paid => split.paid = balance,
            CreditKind::Promotional => split.promotional = balance,
            CreditKind::Committed => split.committed = balance,
        }
    }
    Ok(split)
}

/// A ledger account with its sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct StoredAccount {
    pub account: LedgerAccount,
    pub currency: Currency,
    pub totals: AccountTotals,
    pub minimum: Option<Nanos>,
}

/// Most accounts in one listing; an organization has about a dozen.
pub const ACCOUNTS_PAGE: i64 = 1_000;

/// Accounts after a path, in the order of paths.
pub async fn list_accounts(tx: &mut Tx, scope: &Scope, after: &str) -> Result<Vec<StoredAccount>> {
    let rows = tx
        .fetch_all(
            "SELECT path, currency, debits, credits, minimum FROM accounts
             WHERE ($1 = '' OR organization_id = $1) AND path > $2 ORDER BY path LIMIT $3",
            params![scope.organization().map_or("", OrganizationId::as_str), after, ACCOUNTS_PAGE],
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(StoredAccount {
                account: row.parse()?,
                currency: row.parse()?,
                totals: AccountTotals { debits: row.nanos()?, credits: row.nanos()? },
                minimum: row.optional_int()?.map(Nanos::new),
            })
        })
        .collect()
}

/// Where a reading of the journal stands: entries are read in the order of (instant, id).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct JournalCursor {
    pub posted_at: Timestamp,
    pub id: String,
}

impl Default for JournalCursor {
    fn default() -> Self {
        Self { posted_at: Timestamp::from_micros(i64::MIN), id: String::new() }
    }
}

/// Entries of one reading step.
pub const ENTRIES_PAGE: i64 = 500;

/// Journal entries after a cursor, oldest first, with the cursor to go on from. Empty at the end.
pub async fn list_entries(tx: &mut Tx, scope: &Scope, after: &JournalCursor) -> Result<(Vec<JournalEntry>, JournalCursor)> {
    let rows = tx
        .fetch_all(
            "SELECT id, kind, currency, posted_at, memo FROM journal_entries
             WHERE ($1 = '' OR organization_id = $1) AND (posted_at > $2 OR (posted_at = $2 AND id > $3))
             ORDER BY posted_at, id LIMIT $4",
            params![scope.organization().map_or("", OrganizationId::as_str), after.posted_at, after.id.as_str(), ENTRIES_PAGE],
        )
        .await?;
    let mut entries = Vec::with_capacity(rows.len());
    for row in &rows {
        entries.push(entry_from_row(tx, row).await?);
    }
    let cursor = entries.last().map_or_else(|| after.clone(), |last| JournalCursor { posted_at: last.at, id: last.id.to_string() });
    Ok((entries, cursor))
}

/// One entry, if the scope may see it.
pub async fn find(tx: &mut Tx, scope: &Scope, id: &JournalEntryId) -> Result<Option<JournalEntry>> {
    let row = tx
        .fetch_optional(
            "SELECT id, kind, currency, posted_at, memo FROM journal_entries WHERE id = $1 AND ($2 = '' OR organization_id = $2)",
            params![id.as_str(), scope.organization().map_or("", OrganizationId::as_str)],
        )
        .await?;
    match row {
        Some(row) => entry_from_row(tx, &row).await.map(Some),
        None => Ok(None),
    }
}

async fn entry_from_row(tx: &mut Tx, row: &Row) -> Result<JournalEntry> {
    let mut row = row.reader();
    let (id, kind, currency, at, memo): (JournalEntryId, EntryKind, Currency, Timestamp, String) =
        (row.parse()?, row.parse()?, row.parse()?, row.time()?, row.string()?);
    let rows = tx
        .fetch_all(
            "SELECT debited.path, credited.path, transfers.amount FROM transfers
             JOIN account_names AS debited ON debited.number = transfers.debit
             JOIN account_names AS credited ON credited.number = transfers.credit
             WHERE transfers.entry_id = $1 ORDER BY transfers.position",
            params![id.as_str()],
        )
        .await?;
    let transfers = rows
        .iter()
        .map(|row| {
            let mut row = row.reader();
            Ok(Transfer { debit: row.parse()?, credit: row.parse()?, amount: row.nanos()? })
        })
        .collect::<Result<_>>()?;
    Ok(JournalEntry { id, at, kind, currency, transfers, memo })
}
