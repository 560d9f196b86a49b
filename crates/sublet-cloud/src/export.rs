//! Files for other people's programs: a month's cost and usage, its single charges, or what supports them, of one account or
//! of all.
//!
//! A file is read and written in pages, each in a transaction of its own: memory does not grow with the month. What an
//! issued invoice is made of does not change any more, and is compared with it; an open month is as it was page by page.
//!
//! Deliberately absent: what says where files are kept ([`crate::export_schedule`]).

use std::collections::{BTreeMap, VecDeque};
use std::str::FromStr;

use sublet_core::id::{ContractId, CreditNoteId, OrganizationId, SiteId};
use sublet_core::organization::OrganizationClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope};
use sublet_money::encoder::Format;
use sublet_money::focus::{Credited, FocusRow, FocusVersion, ROW_LENGTH, RowPrices, Statement};
use sublet_money::focus_contract::ContractCommitment;
use sublet_money::focus_dataset::SupportingDataset;
use sublet_money::focus_invoice::{Beyond, InvoiceDetail, InvoiceDetails, LinePlaces, beyond_lines, credit_details};
use sublet_money::focus_period::BillingPeriod;
use sublet_money::invoice::{Invoice, InvoiceAccount, InvoiceState};
use sublet_money::period::{BillingCalendar, Interval, PeriodKey};
use sublet_store::charge::Charge;
use sublet_store::export::{self, ChargeCursor, HourCursor, HourOfMonth};
use sublet_store::organization::{self, Organization};
use sublet_store::page::Order;
use sublet_store::{PageRequest, Tx, billing, invoice, project};

use crate::export_rows::{Page, Rows};
use crate::export_supporting::applied_use;
use crate::{Action, Actor, Cloud};

/// Rows that are read at once.
const ROWS_AT_ONCE: usize = 1_000;
/// Accounts that are read at once.
const ACCOUNTS_AT_ONCE: i64 = 100;

/// What a file is about.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Dataset {
    /// Cost and usage for FinOps programs.
    #[default]
    Focus,
    /// Single charges.
    Charges,
    /// What FOCUS has beside cost and usage.
    Supporting(SupportingDataset),
}

impl Dataset {
    pub const ALL: [Self; 5] = [
        Self::Focus,
        Self::Charges,
        Self::Supporting(SupportingDataset::BillingPeriod),
        Self::Supporting(SupportingDataset::InvoiceDetail),
        Self::Supporting(SupportingDataset::ContractCommitment),
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Focus => "focus",
            Self::Charges => "charges",
            Self::Supporting(dataset) => dataset.as_str(),
        }
    }
}

impl FromStr for Dataset {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|dataset| dataset.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("there is no export called '{shown}'"))
                .param("dataset")
                .alternative("ask for dataset focus, charges, billing-period, invoice-detail or contract-commitment")
        })
    }
}

/// Which file is wanted.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRequest {
    pub dataset: Dataset,
    /// Of the specification, for [`Dataset::Focus`].
    pub version: FocusVersion,
    pub format: Format,
    /// In each account's own time zone; the one that runs if none is named.
    pub period: Option<PeriodKey>,
    /// For operators: of one organization.
    pub organization: Option<OrganizationId>,
}

/// A file being written.
pub struct Export {
    /// What to call it.
    pub name: String,
    /// Rows so far.
    pub row_count: u64,
    period: PeriodKey,
    dataset: Dataset,
    rows: Rows,
    accounts: Accounts,
    current: Option<Account>,
    has_begun: bool,
    has_ended: bool,
}

/// Accounts that are not written yet.
struct Accounts {
    waiting: VecDeque<Organization>,
    /// Up to where they were listed; `None` if all are waiting.
    listed: Option<String>,
}

/// An account being written.
struct Account {
    statement: Statement,
    calendar: BillingCalendar,
    stage: Stage,
    /// What the rows of use add up to.
    sum: Nanos,
    has_rows: bool,
    rounding: Rounding,
    /// What the issued invoice has beyond its lines.
    beyond: Vec<Beyond>,
    /// Its lines, where they are wanted.
    details: Option<InvoiceDetails>,
    /// The month as it was when its invoice was looked for, where that is wanted.
    month: Option<BillingPeriod>,
    organization: Organization,
}

/// What is to be added to rows of use.
#[derive(Clone, Copy)]
enum Rounding {
    /// Of an issued invoice: what its lines add up to. The rest is known.
    Issued { charged: Nanos },
    /// What it would be if the month ended now, a contract's part left out.
    Open { carry_before: Nanos },
    /// The owner's own teams get no invoices.
    Never,
}

enum Stage {
    Hours(HourCursor),
    Rounding,
    Credits(Option<CreditNoteId>),
    Charges(ChargeCursor),
    Period,
    /// Behind so many.
    Details(usize),
    CreditDetails(Option<CreditNoteId>),
    Commitments(Option<ContractId>),
    End,
}

impl Cloud {
    /// Opens a file: what it is about is there, and may be seen.
    pub async fn open_export(&self, actor: &Actor, request: &ExportRequest) -> Result<Export> {
        actor.require(Action::ReadBilling)?;
        let wanted = match (actor.scope.organization(), &request.organization) {
            (Some(own), Some(other)) if own != other => return Err(no_organization(other)),
            (own, named) => named.as_ref().or(own).cloned(),
        };
        let (now, period) = (self.now(), request.period);
        let one = match &wanted {
            Some(id) => {
                Some(self.store.read((actor, id), |(actor, id), tx| Box::pin(organization::get(tx, &actor.scope, id))).await?)
            }
            None => None,
        };
        // Whoever exports many accounts may name the month that began first anywhere.
        let calendar = BillingCalendar::new(one.as_ref().map_or("Pacific/Kiritimati", |account| &account.time_zone))?;
        let newest = calendar.period_at(now)?.key;
        let period = match (period, &one) {
            (Some(named), _) => named,
            (None, Some(_)) => newest,
            (None, None) => BillingCalendar::new("UTC")?.period_at(now)?.key,
        };
        if period > newest {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("{period} has not begun"))
                .param("period")
                .alternative(format!("the newest month is {newest}")));
        }
        let (rows, label) = Rows::new(request);
        let listed = one.is_none().then(String::new);
        let accounts = Accounts { waiting: one.into_iter().collect(), listed };
        let name = format!("{label}-{period}.{}", request.format.as_str());
        let dataset = request.dataset;
        Ok(Export { name, row_count: 0, period, dataset, rows, accounts, current: None, has_begun: false, has_ended: false })
    }

    /// The next piece of a file; `None` after the last.
    pub async fn next_export_piece(&self, export: &mut Export) -> Result<Option<Vec<u8>>> {
        if !export.has_begun {
            export.has_begun = true;
            return Ok(Some(export.rows.begin()));
        }
        while !export.has_ended {
            let bytes = match self.next_page(export).await? {
                Some(page) => {
                    let added = u64::try_from(page.rows()).unwrap_or(u64::MAX);
                    export.row_count = export.row_count.saturating_add(added);
                    export.rows.add(&page)?
                }
                None => {
                    export.has_ended = true;
                    export.rows.end()?
                }
            };
            if !bytes.is_empty() {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }

    /// The next rows, which may be none before the last; `None` after the last account.
    async fn next_page(&self, export: &mut Export) -> Result<Option<Page>> {
        let is_over = export.current.as_ref().is_none_or(|account| matches!(account.stage, Stage::End));
        if is_over {
            let Some(account) = self.next_account(&mut export.accounts).await? else { return Ok(None) };
            let of = (self, account, export.period, export.dataset);
            let opened = self
                .store
                .read(of, |(cloud, account, period, dataset), tx| {
                    Box::pin(cloud.open_account_export(tx, account, (*period, *dataset)))
                })
                .await?;
            export.current = Some(opened);
        }
        let Some(account) = &mut export.current else { return Ok(None) };
        let page = match &account.stage {
            Stage::Hours(cursor) => Page::Focus(self.hours(account, cursor.clone()).await?),
            Stage::Rounding => {
                account.stage = Stage::Credits(None);
                let rounding = account.rounding()?;
                let statement = &account.statement;
                let beyond = account.beyond.iter().map(|part| statement.beyond(part));
                Page::Focus(statement.rounding(rounding).into_iter().chain(beyond).collect())
            }
            Stage::Credits(after) => Page::Focus(self.credits(account, after.clone()).await?),
            Stage::Charges(cursor) => Page::Charges(self.charges(account, cursor.clone()).await?),
            Stage::Period => {
                account.stage = Stage::End;
                Page::Periods(account.month.take().into_iter().collect())
            }
            Stage::Details(after) => Page::Details(account.details(*after)?),
            Stage::CreditDetails(after) => {
                let notes = self.credit_notes(account, after.clone(), Stage::CreditDetails).await?;
                let rows = notes.iter().map(|note| credit_details(&account.statement, note)).collect::<Result<Vec<_>>>()?;
                Page::Details(rows.into_iter().flatten().collect())
            }
            Stage::Commitments(after) => Page::Commitments(self.commitments_of(account, after.clone()).await?),
            Stage::End => Page::Nothing,
        };
        Ok(Some(page))
    }

    async fn next_account(&self, accounts: &mut Accounts) -> Result<Option<Organization>> {
        if let (true, Some(after)) = (accounts.waiting.is_empty(), &accounts.listed) {
            let after = Some(after.clone()).filter(|after| !after.is_empty());
            let page = PageRequest { limit: Some(ACCOUNTS_AT_ONCE), after, order: Order::Ascending };
            let page = self.store.read(page, |page, tx| Box::pin(organization::list(tx, None, page))).await?;
            accounts.listed = page.items.last().filter(|_| page.has_more).map(|last| last.id.to_string());
            accounts.waiting.extend(page.items);
        }
        Ok(accounts.waiting.pop_front())
    }

    async fn open_account_export(
        &self,
        tx: &mut Tx,
        of: &Organization,
        (period, dataset): (PeriodKey, Dataset),
    ) -> Result<Account> {
        let calendar = BillingCalendar::new(&of.time_zone)?;
        let stored = invoice::find_of_period(tx, &of.id, period).await?;
        let issued = stored.map(|stored| stored.invoice).filter(|invoice| invoice.state != InvoiceState::Draft);
        let rounding = match (&issued, of.class) {
            (Some(invoice), _) => Rounding::Issued { charged: invoice.content.charged()? },
            (None, OrganizationClass::External | OrganizationClass::Partner) => {
                Rounding::Open { carry_before: billing::carry_before(tx, &of.id, period).await? }
            }
            (None, OrganizationClass::Internal | OrganizationClass::Supplier) => Rounding::Never,
        };
        let named = || InvoiceAccount {
            organization: of.id.clone(),
            name: of.name.clone(),
            currency: of.currency,
            zone: of.time_zone.clone(),
        };
        let statement = Statement {
            account: issued.as_ref().map_or_else(named, |invoice| invoice.content.account.clone()),
            seller: self.settings.seller.clone(),
            period: calendar.period(period)?,
            invoice: issued.as_ref().and_then(|invoice| invoice.number),
            places: LinePlaces::default(),
            counts: None,
        };
        let (sum, has_rows, beyond, organization) = (Nanos::ZERO, false, Vec::new(), of.clone());
        let (stage, details, month) = (first_stage(dataset), None, None);
        let account = Account { statement, calendar, stage, sum, has_rows, rounding, beyond, details, month, organization };
        self.with_invoice(tx, account, (issued, dataset)).await
    }

    /// What a dataset takes of the month and its invoice: of one moment, since both change at once.
    async fn with_invoice(
        &self,
        tx: &mut Tx,
        mut account: Account,
        (issued, dataset): (Option<Invoice>, Dataset),
    ) -> Result<Account> {
        match (dataset, issued) {
            (Dataset::Focus, issued) => {
                let of = (&account.organization.id, account.statement.period);
                let content = issued.map(|invoice| invoice.content);
                account.statement.counts = applied_use(tx, of, content.as_ref()).await?;
                if let Some(content) = content {
                    account.statement.places = LinePlaces::of(&content)?;
                    account.beyond = beyond_lines(&content)?;
                }
            }
            (Dataset::Supporting(SupportingDataset::InvoiceDetail), Some(invoice)) => {
                account.details = Some(InvoiceDetails::new(&account.statement, invoice)?);
            }
            (Dataset::Supporting(SupportingDataset::BillingPeriod), _) => {
                account.month = self.billing_period(tx, (&account.organization, &account.statement)).await?;
            }
            (Dataset::Charges | Dataset::Supporting(_), _) => {}
        }
        Ok(account)
    }

    /// The next hours of the month, which moves the account on.
    async fn hours(&self, account: &mut Account, cursor: HourCursor) -> Result<Vec<FocusRow>> {
        let (rows, cursor) = self
            .store
            .read((self, &*account, cursor), |(cloud, account, cursor), tx| {
                Box::pin(async move {
                    let mut cursor = cursor.clone();
                    let of = (&account.statement.account.organization, account.statement.period.key);
                    let hours = export::list_hours(tx, of, &mut cursor, ROWS_AT_ONCE).await?;
                    let (mut names, mut rows) = (BTreeMap::new(), Vec::with_capacity(hours.len()));
                    let mut places = BTreeMap::new();
                    for HourOfMonth { period, mut hour } in hours {
                        let name = match names.get(&hour.project) {
                            Some(known) => String::clone(known),
                            None => {
                                let found = project::get(tx, &Scope::Operator, &hour.project).await?;
                                names.insert(found.id, found.name.clone());
                                found.name
                            }
                        };
                        let place = place_of(tx, of.0, (&mut places, hour.resource.as_deref())).await?;
                        (hour.site, hour.isolation) = place.unzip();
                        let version = cloud.price_version(tx, &hour.price_version).await?;
                        let month = account.calendar.period(period)?;
                        let public = match version.source() {
                            Some(source) => Some(cloud.price_version(tx, &source.list).await?),
                            None => None,
                        };
                        let hour_of = Interval { starts_at: hour.starts_at, ends_at: hour.starts_at.plus(ROW_LENGTH) };
                        let indexes = cloud.indexes_within(tx, public.as_deref(), hour_of).await?;
                        let prices = RowPrices { charged: &version, public: public.as_deref(), indexes: &indexes };
                        rows.push(account.statement.usage(hour, &month, (&name, prices))?);
                    }
                    Ok((rows, cursor))
                })
            })
            .await?;
        if let Some(row) = rows.iter().find(|row| account.statement.invoice.is_some() && row.place.is_none()) {
            let message = format!("an export has use that its invoice has no line of: {}", row.description);
            return Err(Error::new(ErrorCode::LedgerMismatch, message));
        }
        account.sum = Nanos::checked_sum([account.sum].into_iter().chain(rows.iter().map(|row| row.billed)))?;
        account.has_rows |= !rows.is_empty();
        account.stage = if cursor.is_end { Stage::Rounding } else { Stage::Hours(cursor) };
        Ok(rows)
    }

    /// The next charges of the month, which moves the account on.
    async fn charges(&self, account: &mut Account, cursor: ChargeCursor) -> Result<Vec<Charge>> {
        let (charges, cursor) = self
            .store
            .read((&account.statement, cursor), |(statement, cursor), tx| {
                Box::pin(async move {
                    let mut cursor = cursor.clone();
                    let of = (&statement.account.organization, statement.period.key);
                    let charges = export::list_charges(tx, of, &mut cursor, ROWS_AT_ONCE).await?;
                    Ok((charges, cursor))
                })
            })
            .await?;
        account.stage = if cursor.is_end { Stage::End } else { Stage::Charges(cursor) };
        Ok(charges)
    }

    async fn credits(&self, account: &mut Account, after: Option<CreditNoteId>) -> Result<Vec<FocusRow>> {
        let notes = self.credit_notes(account, after, Stage::Credits).await?;
        let rows = notes.iter().map(|note| account.statement.credit(note)).collect::<Result<Vec<_>>>()?;
        Ok(rows.into_iter().flatten().collect())
    }

    /// The next credit notes of the month, which moves the account on.
    async fn credit_notes(
        &self,
        account: &mut Account,
        after: Option<CreditNoteId>,
        stage: fn(Option<CreditNoteId>) -> Stage,
    ) -> Result<Vec<Credited>> {
        let (organization, month) = (account.statement.account.organization.clone(), account.statement.period.interval);
        let most = i64::try_from(ROWS_AT_ONCE).unwrap_or(i64::MAX);
        let notes = self
            .store
            .read((organization, after), |(organization, after), tx| {
                Box::pin(export::list_credited(tx, (organization, month), after.as_ref(), most))
            })
            .await?;
        let is_end = notes.len() < ROWS_AT_ONCE;
        account.stage = match notes.last() {
            Some((last, _)) if !is_end => stage(Some(last.clone())),
            Some(_) | None => Stage::End,
        };
        Ok(notes.into_iter().map(|(_, note)| note).collect())
    }

    /// The periods of the next contract, which moves the account on.
    async fn commitments_of(&self, account: &mut Account, after: Option<ContractId>) -> Result<Vec<ContractCommitment>> {
        let found = self
            .store
            .read((self, &account.statement, after), |(cloud, statement, after), tx| {
                Box::pin(cloud.next_commitments(tx, statement, after.as_ref()))
            })
            .await?;
        let Some((contract, rows)) = found else {
            account.stage = Stage::End;
            return Ok(Vec::new());
        };
        account.stage = Stage::Commitments(Some(contract));
        Ok(rows)
    }
}

fn first_stage(dataset: Dataset) -> Stage {
    match dataset {
        Dataset::Focus => Stage::Hours(HourCursor::default()),
        Dataset::Charges => Stage::Charges(ChargeCursor::default()),
        Dataset::Supporting(SupportingDataset::BillingPeriod) => Stage::Period,
        Dataset::Supporting(SupportingDataset::InvoiceDetail) => Stage::Details(0),
        Dataset::Supporting(SupportingDataset::ContractCommitment) => Stage::Commitments(None),
    }
}

fn no_organization(id: &OrganizationId) -> Error {
    Error::new(ErrorCode::NotFound, format!("there is no organization '{id}'"))
}

impl Account {
    /// The next lines of the invoice, which moves the account on.
    fn details(&mut self, after: usize) -> Result<Vec<InvoiceDetail>> {
        let rows = match &self.details {
            Some(details) => details.rows(after, ROWS_AT_ONCE)?,
            None => Vec::new(),
        };
        self.stage =
            if rows.len() < ROWS_AT_ONCE { Stage::CreditDetails(None) } else { Stage::Details(after.saturating_add(rows.len())) };
        Ok(rows)
    }

    /// What rounding an open month would add. Of an issued one, use has to add up to the invoice's lines.
    fn rounding(&self) -> Result<Nanos> {
        match self.rounding {
            Rounding::Issued { charged } if charged == self.sum => Ok(Nanos::ZERO),
            Rounding::Issued { charged } => Err(Error::new(
                ErrorCode::LedgerMismatch,
                format!("the rows of an export add up to {}, and the lines of its invoice to {charged}", self.sum),
            )),
            Rounding::Open { carry_before } if self.has_rows => {
                let minor_unit = self.statement.account.currency.minor_unit().get();
                let total = self.sum.checked_sub(carry_before)?.round_half_even(minor_unit)?;
                total.checked_sub(self.sum)
            }
            Rounding::Open { .. } | Rounding::Never => Ok(Nanos::ZERO),
        }
    }
}

/// A site, and how work there had to be kept apart.
type JobPlace = (SiteId, IsolationLevel);

/// Where a job ran; `known` keeps what was read.
async fn place_of(
    tx: &mut Tx,
    organization: &OrganizationId,
    (known, job): (&mut BTreeMap<String, Option<JobPlace>>, Option<&str>),
) -> Result<Option<JobPlace>> {
    let Some(job) = job else { return Ok(None) };
    if let Some(place) = known.get(job) {
        return Ok(place.clone());
    }
    let place = export::find_place(tx, organization, job).await?;
    known.insert(job.to_owned(), place.clone());
    Ok(place)
}
