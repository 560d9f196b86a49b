//! Who sells, who buys, and the taxes on what is invoiced.
//!
//! Prices, holds and charges are net: nothing here is asked when work is admitted or charged. Tax is in two places only.
//! A payment is gross, and its tax is kept apart when it comes. An invoice takes its tax from what is kept when it is
//! issued; what is missing is owed, and is paid from the next payment, or from paid credit as far as there is any. So tax
//! never makes credit fall below its limit.
//!
//! A month is taxed by what holds on its last day in the account's zone. What is changed here holds for every month that
//! is not closed.
//!
//! Deliberately absent: asking registers whether a VAT number is valid.

use std::collections::BTreeMap;

use sublet_core::id::OrganizationId;
use sublet_core::organization::OrganizationClass;
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::{AccountKind, LedgerAccount};
use sublet_money::canonical::sha256_hex;
use sublet_money::day::Day;
use sublet_money::invoice::{Invoice, InvoiceContent, Parties, part_of};
use sublet_money::party::PaymentTerms;
use sublet_money::period::{BillingCalendar, PeriodKey};
use sublet_money::place::Jurisdiction;
use sublet_money::posting::{EntryHead, Fact, JurisdictionTax, TaxFact, post};
use sublet_money::tax::{BillingProfile, SellerProfile, TaxTable, TaxTreatment, split_gross};
use sublet_money::tax_treatment::treatments;
use sublet_store::credit::{self, CreditGrant};
use sublet_store::organization::{self, Organization};
use sublet_store::{Tx, billing_profile, contract, invoice, ledger, seller};

use crate::audit::Deed;
use crate::credit_lot::{gifts_spent, take_otherwise};
use crate::{Action, Actor, Cloud};

/// Largest image of a seller, in bytes.
pub const LOGO_BYTES_MAX: usize = 128 * 1024;
/// What a PNG begins with, up to the name of its first chunk.
const PNG_HEAD: [u8; 16] = *b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR";
/// Largest width and height of an image, in pixels.
const LOGO_PIXELS_MAX: u32 = 4_096;

/// How an account is invoiced, and taxed if a month ended today.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AccountTax {
    pub organization: OrganizationId,
    pub profile: Option<BillingProfile>,
    /// Of its contract in the running month, or else its own, or the seller's; none where nobody sells.
    pub terms: Option<PaymentTerms>,
    pub day: Day,
    /// Nothing where nobody sells, or the owner's own teams.
    pub treatments: Vec<TaxTreatment>,
    /// Why there is no treatment where there has to be one.
    pub problem: Option<String>,
}

/// What taxes depend on.
struct Rules {
    seller: SellerProfile,
    table: TaxTable,
    buyer: Option<BillingProfile>,
}

impl Rules {
    /// `None` where nobody sells, and for accounts that get no invoices.
    async fn of(tx: &mut Tx, account: &Organization) -> Result<Option<Self>> {
        if !matches!(account.class, OrganizationClass::External | OrganizationClass::Partner) {
            return Ok(None);
        }
        let Some(seller) = seller::find(tx).await? else { return Ok(None) };
        let (table, buyer) = (seller::get_taxes(tx).await?, billing_profile::find(tx, &account.id).await?);
        Ok(Some(Self { seller, table, buyer }))
    }

    fn treatments(&self, day: Day) -> Result<Vec<TaxTreatment>> {
        treatments(&self.seller.seller, &self.table, self.buyer.as_ref(), day)
    }

    /// What a contract says wins over what holds for the account.
    fn terms(&self, agreed: Option<PaymentTerms>) -> PaymentTerms {
        let own = || self.buyer.as_ref().and_then(|buyer| buyer.terms.clone());
        agreed.or_else(own).unwrap_or_else(|| self.seller.terms.clone())
    }
}

impl Cloud {
    /// Who sells, if anybody said so.
    pub async fn seller(&self, actor: &Actor) -> Result<Option<SellerProfile>> {
        actor.require(Action::ManagePrices)?;
        self.store.read((), |(), tx| Box::pin(seller::find(tx))).await
    }

    /// Says who sells. From then on months are closed with parties and taxes.
    pub async fn set_seller(&self, actor: &Actor, profile: &SellerProfile) -> Result<()> {
        actor.require(Action::ManagePrices)?;
        profile.validate()?;
        let now = self.now();
        self.store
            .write((self, actor, profile), move |(cloud, actor, profile), tx| {
                Box::pin(async move {
                    if let Some(logo) = &profile.seller.logo {
                        get_logo(tx, logo).await.map_err(|error| error.param("seller.logo"))?;
                    }
                    seller::set(tx, profile).await?;
                    let party = &profile.seller.party;
                    let id = party.tax_id.as_ref().map_or("no VAT number", |id| id.as_str());
                    let detail = format!("{} in {}, {id}", party.legal_name, party.address.country);
                    cloud.record(tx, actor, Deed { organization: None, action: "seller.set", target: "seller", detail }, now).await
                })
            })
            .await
    }

    /// The taxes that are collected.
    pub async fn tax_table(&self, actor: &Actor) -> Result<TaxTable> {
        actor.require(Action::ManagePrices)?;
        self.store.read((), |(), tx| Box::pin(seller::get_taxes(tx))).await
    }

    /// Says which taxes are collected, in the place of what was said before.
    pub async fn set_tax_table(&self, actor: &Actor, table: &TaxTable) -> Result<()> {
        actor.require(Action::ManagePrices)?;
        table.validate()?;
        let now = self.now();
        self.store
            .write((self, actor, table), move |(cloud, actor, table), tx| {
                Box::pin(async move {
                    seller::set_taxes(tx, table).await?;
                    let places: std::collections::BTreeSet<_> = table.rows.iter().map(|row| &row.jurisdiction).collect();
                    let detail = format!("{} rows of {} jurisdictions", table.rows.len(), places.len());
                    let deed = Deed { organization: None, action: "tax_table.set", target: "tax_table", detail };
                    cloud.record(tx, actor, deed, now).await
                })
            })
            .await
    }

    /// Keeps an image that the seller can be set to have, and says its name: its SHA-256.
    pub async fn add_logo(&self, actor: &Actor, png: &[u8]) -> Result<String> {
        actor.require(Action::ManagePrices)?;
        check_png(png)?;
        let sha256 = sha256_hex(png);
        let now = self.now();
        let kept = (self, actor, &sha256, png);
        self.store
            .write(kept, move |(cloud, actor, sha256, png), tx| {
                Box::pin(async move {
                    seller::insert_logo(tx, sha256, png, now).await?;
                    let detail = format!("{} bytes", png.len());
                    cloud.record(tx, actor, Deed { organization: None, action: "logo.add", target: sha256, detail }, now).await
                })
            })
            .await?;
        Ok(sha256)
    }

    /// An image by its SHA-256: whoever has an invoice that names it may see it.
    pub async fn get_logo(&self, sha256: &str) -> Result<Vec<u8>> {
        self.store.read(sha256, |sha256, tx| Box::pin(get_logo(tx, sha256))).await
    }

    /// How an account is invoiced and taxed.
    pub async fn account_tax(&self, actor: &Actor, organization: &OrganizationId) -> Result<AccountTax> {
        actor.require(Action::ReadBilling)?;
        let now = self.now();
        self.store
            .read((actor, organization), move |(actor, organization), tx| {
                Box::pin(async move {
                    let account = organization::get(tx, &actor.scope, organization).await?;
                    account_tax(tx, &account, now).await
                })
            })
            .await
    }

    /// Says how an account is invoiced. What exempts it, and terms of its own, only the operator says: where its
    /// administrators write the profile, these stay.
    pub async fn set_billing_profile(
        &self,
        actor: &Actor,
        organization: &OrganizationId,
        profile: BillingProfile,
    ) -> Result<AccountTax> {
        actor.require(Action::ReadBilling)?;
        profile.validate()?;
        let now = self.now();
        self.store
            .write((self, actor, organization, profile), move |(cloud, actor, organization, profile), tx| {
                Box::pin(cloud.put_profile(tx, (actor, organization), profile.clone(), now))
            })
            .await
    }

    async fn put_profile(
        &self,
        tx: &mut Tx,
        (actor, id): (&Actor, &OrganizationId),
        mut profile: BillingProfile,
        now: Timestamp,
    ) -> Result<AccountTax> {
        let account = organization::get(tx, &actor.scope, id).await?;
        if actor.scope.organization().is_some() {
            if profile.exemption.is_some() || profile.terms.is_some() {
                let message = "an exemption and terms of payment are agreed with the operator, who writes them here";
                let param = if profile.exemption.is_some() { "exemption" } else { "terms" };
                return Err(Error::new(ErrorCode::PolicyRefused, message).param(param).alternative("leave them out: they stay"));
            }
            let known = billing_profile::find(tx, id).await?;
            (profile.exemption, profile.terms) = known.map_or((None, None), |known| (known.exemption, known.terms));
        }
        if let Some(mut rules) = Rules::of(tx, &account).await? {
            rules.buyer = Some(profile.clone());
            // What could not be invoiced at the end of the month is refused now.
            let today = BillingCalendar::new(&account.time_zone)?.day_at(now)?;
            rules.treatments(today).map_err(|error| error.param("party"))?;
        }
        billing_profile::put(tx, id, &profile, now).await?;
        let party = &profile.buyer.party;
        let number = party.tax_id.as_ref().map_or("no VAT number", |id| id.as_str());
        let exempt = if profile.exemption.is_some() { ", exempt" } else { "" };
        let detail = format!("{} in {}, {number}{exempt}", party.legal_name, party.address.jurisdiction());
        let deed = Deed { organization: Some(id), action: "billing_profile.set", target: id.as_str(), detail };
        self.record(tx, actor, deed, now).await?;
        account_tax(tx, &account, now).await
    }

    /// An invoice with its parties and taxes, where somebody sells.
    pub(crate) async fn with_taxes(&self, tx: &mut Tx, account: &Organization, content: InvoiceContent) -> Result<InvoiceContent> {
        let Some(rules) = Rules::of(tx, account).await? else { return Ok(content) };
        let treatments = rules.treatments(Day::last_of(content.period.key)?)?;
        let gifts = gifts_left(tx, &content).await?;
        let terms = rules.terms(agreed_terms(tx, &account.id, content.period.key).await?);
        let parties = Parties { seller: rules.seller.seller, buyer: rules.buyer.map(|profile| profile.buyer), terms };
        content.with_parties(parties, treatments, gifts)
    }

    /// What a payment posts, and how much of it is kept for tax. A payment is taken whatever the tax table
    /// lacks; what is missing then is owed once it is invoiced.
    pub(crate) async fn payment(&self, tx: &mut Tx, grant: &CreditGrant) -> Result<(Fact, Nanos)> {
        let account = organization::get(tx, &Scope::Operator, &grant.organization).await?;
        let rates = rates_on(tx, &account, grant.created_at).await?.unwrap_or_default();
        let split = split_gross(grant.amount, &rates, grant.currency)?;
        Ok((Fact::Tax(TaxFact::Bought { net: split.net, tax: split.tax }), split.tax))
    }

    /// What of a refund was kept for tax: the part that a payment of that amount would have today, as far as it is there.
    pub(crate) async fn tax_of_refund(
        &self,
        tx: &mut Tx,
        account: &Organization,
        (gross, now): (Nanos, Timestamp),
    ) -> Result<Nanos> {
        let rates = rates_on(tx, account, now).await?.unwrap_or_default();
        let prepaid = balance(tx, AccountKind::TaxPrepaid, &account.id).await?;
        Ok(split_gross(gross, &rates, account.currency)?.tax.min(prepaid))
    }

    /// Posts the taxes of an invoice that is issued in the same transaction.
    pub(crate) async fn post_taxes(&self, tx: &mut Tx, invoice: &Invoice, issued_at: Timestamp) -> Result<()> {
        let content = &invoice.content;
        let Some(tax) = &content.tax else { return Ok(()) };
        let organization = &content.account.organization;
        let amounts = tax.lines.iter().map(|line| (&line.treatment.jurisdiction, line.amount));
        let taxes = by_jurisdiction(amounts)?;
        if taxes.is_empty() {
            return Ok(());
        }
        let prepaid = balance(tx, AccountKind::TaxPrepaid, organization).await?;
        let memo = format!("tax of {}", invoice.id);
        let head = EntryHead { id: self.ids.mint(), at: issued_at, currency: content.account.currency, memo };
        ledger::post(tx, &post(head, organization, &Fact::Tax(TaxFact::Invoiced { taxes, prepaid }))?).await.map(|_| ())
    }

    /// Gives back what a credit note takes off its invoice's taxes: `before` and `after` are what was credited of the
    /// invoice without it and with it. Answers how much that is.
    pub(crate) async fn give_tax_back(
        &self,
        tx: &mut Tx,
        content: &InvoiceContent,
        (before, after): (Nanos, Nanos),
        head: EntryHead,
    ) -> Result<Nanos> {
        let Some(tax) = &content.tax else { return Ok(Nanos::ZERO) };
        let (before, after) = (content.tax_given_back(before)?, content.tax_given_back(after)?);
        let mut amounts = Vec::with_capacity(tax.lines.len());
        for ((line, before), after) in tax.lines.iter().zip(before).zip(after) {
            amounts.push((&line.treatment.jurisdiction, after.checked_sub(before)?));
        }
        let given_back = Nanos::checked_sum(amounts.iter().map(|(_, amount)| *amount))?;
        let taxes = by_jurisdiction(amounts)?;
        if !taxes.is_empty() {
            let fact = Fact::Tax(TaxFact::GivenBack { taxes });
            ledger::post(tx, &post(head, &content.account.organization, &fact)?).await?;
        }
        Ok(given_back)
    }

    /// Pays the tax that an account owes, from what is kept for tax and then from paid credit, as far as there is any.
    pub(crate) async fn settle_tax(&self, tx: &mut Tx, organization: &OrganizationId, now: Timestamp) -> Result<()> {
        let owed = balance(tx, AccountKind::TaxReceivable, organization).await?;
        if owed <= Nanos::ZERO {
            return Ok(());
        }
        let prepaid = balance(tx, AccountKind::TaxPrepaid, organization).await?.max(Nanos::ZERO).min(owed);
        let paid = ledger::available(tx, organization).await?.paid.max(Nanos::ZERO).min(owed.checked_sub(prepaid)?);
        if prepaid.is_zero() && paid.is_zero() {
            return Ok(());
        }
        take_otherwise(tx, organization, paid).await?;
        let currency = organization::get(tx, &Scope::Operator, organization).await?.currency;
        let head = EntryHead { id: self.ids.mint(), at: now, currency, memo: "tax that was owed".to_owned() };
        ledger::post(tx, &post(head, organization, &Fact::Tax(TaxFact::Settled { prepaid, paid }))?).await.map(|_| ())
    }

    /// Turns what is kept for tax into credit where the account is not taxed any more: once a month is invoiced, since
    /// until then its tax is needed.
    pub(crate) async fn release_prepaid_tax(&self, tx: &mut Tx, organization: &OrganizationId, now: Timestamp) -> Result<()> {
        let amount = balance(tx, AccountKind::TaxPrepaid, organization).await?;
        if amount <= Nanos::ZERO {
            return Ok(());
        }
        let account = organization::get(tx, &Scope::Operator, organization).await?;
        let rates = rates_on(tx, &account, now).await?;
        if rates.is_none_or(|rates| rates.iter().any(|treatment| !treatment.rate_ppm.is_zero())) {
            return Ok(());
        }
        let head = EntryHead { id: self.ids.mint(), at: now, currency: account.currency, memo: "not taxed any more".to_owned() };
        ledger::post(tx, &post(head, &account.id, &Fact::Tax(TaxFact::Released { amount }))?).await.map(|_| ())
    }
}

async fn account_tax(tx: &mut Tx, account: &Organization, now: Timestamp) -> Result<AccountTax> {
    let day = BillingCalendar::new(&account.time_zone)?.day_at(now)?;
    let rules = Rules::of(tx, account).await?;
    let profile = billing_profile::find(tx, &account.id).await?;
    let (treatments, problem) = match rules.as_ref().map(|rules| rules.treatments(day)) {
        None => (Vec::new(), None),
        Some(Ok(treatments)) => (treatments, None),
        Some(Err(error)) => (Vec::new(), Some(error.to_string())),
    };
    let terms = match rules {
        None => None,
        Some(rules) => {
            let month = BillingCalendar::new(&account.time_zone)?.period_at(now)?.key;
            Some(rules.terms(agreed_terms(tx, &account.id, month).await?))
        }
    };
    Ok(AccountTax { organization: account.id.clone(), profile, terms, day, treatments, problem })
}

/// By when the invoice of a month is paid by the contract that runs then. No two run in the same month.
async fn agreed_terms(tx: &mut Tx, organization: &OrganizationId, month: PeriodKey) -> Result<Option<PaymentTerms>> {
    for contract in contract::list_of(tx, organization).await? {
        let Some(agreement) = contract.agreement()? else { continue };
        if let Some(terms) = agreement.payment_at(month)? {
            return Ok(Some(terms.clone()));
        }
    }
    Ok(None)
}

/// The rates of an account on the day of an instant; `None` where nobody sells, or where the table lacks one.
async fn rates_on(tx: &mut Tx, account: &Organization, at: Timestamp) -> Result<Option<Vec<TaxTreatment>>> {
    let Some(rules) = Rules::of(tx, account).await? else { return Ok(None) };
    let day = BillingCalendar::new(&account.time_zone)?.day_at(at)?;
    Ok(rules.treatments(day).ok())
}

/// What an account of one of a customer's kinds is at.
async fn balance(tx: &mut Tx, kind: AccountKind, organization: &OrganizationId) -> Result<Nanos> {
    ledger::totals(tx, &LedgerAccount::customer(kind, organization)).await?.balance(kind.normal_side())
}

/// Amounts of the same jurisdiction together, without those of nothing.
fn by_jurisdiction<'a>(amounts: impl IntoIterator<Item = (&'a Jurisdiction, Nanos)>) -> Result<Vec<JurisdictionTax>> {
    let mut sums: BTreeMap<&Jurisdiction, Nanos> = BTreeMap::new();
    for (jurisdiction, amount) in amounts {
        let sum = sums.entry(jurisdiction).or_default();
        *sum = sum.checked_add(amount)?;
    }
    let tax = |(jurisdiction, amount): (&Jurisdiction, Nanos)| JurisdictionTax { jurisdiction: jurisdiction.clone(), amount };
    Ok(sums.into_iter().filter(|(_, amount)| !amount.is_zero()).map(tax).collect())
}

/// Gifts that no earlier invoice counted: what they have paid for by now lowers invoices in their order, the oldest
/// first. One that is not spent lowers none: it may expire, or be for another use.
async fn gifts_left(tx: &mut Tx, content: &InvoiceContent) -> Result<Nanos> {
    let organization = &content.account.organization;
    let spent = gifts_spent(tx, organization).await?;
    if spent.is_zero() {
        return Ok(spent);
    }
    let calendar = BillingCalendar::new(&content.account.zone)?;
    let mut used = Nanos::ZERO;
    for earlier in invoice::list_gifted(tx, organization, content.period.key).await? {
        let gifts = match earlier.gifts {
            // What credit notes gave back is a gift again.
            Some(gifts) => gifts.checked_sub(part_of(gifts, (earlier.credited, earlier.total), content.account.currency)?)?,
            None => {
                // It has no taxes, and gifts paid it all the same.
                let ends_at = calendar.period(earlier.period)?.interval.ends_at;
                let left = credit::sum_given(tx, organization, ends_at).await?.checked_sub(used)?;
                earlier.total.min(left).max(Nanos::ZERO)
            }
        };
        used = used.checked_add(gifts)?;
    }
    Ok(spent.checked_sub(used)?.max(Nanos::ZERO))
}

async fn get_logo(tx: &mut Tx, sha256: &str) -> Result<Vec<u8>> {
    let found = seller::find_logo(tx, sha256).await?;
    found.ok_or_else(|| {
        Error::new(ErrorCode::NotFound, "there is no image with this SHA-256").alternative("add it before the seller names it")
    })
}

/// Whether bytes are a PNG of a size that fits on a page.
fn check_png(png: &[u8]) -> Result<()> {
    let refused = |why: String| Error::new(ErrorCode::InvalidRequest, why).param("png");
    if png.len() > LOGO_BYTES_MAX {
        return Err(refused(format!("an image has at most {LOGO_BYTES_MAX} bytes, not {}", png.len())));
    }
    let size = png.strip_prefix(&PNG_HEAD).and_then(|rest| rest.first_chunk::<8>());
    let Some([a, b, c, d, e, f, g, h]) = size else {
        return Err(refused("this is not a PNG image".to_owned()));
    };
    let (width, height) = (u32::from_be_bytes([*a, *b, *c, *d]), u32::from_be_bytes([*e, *f, *g, *h]));
    if !(1..=LOGO_PIXELS_MAX).contains(&width) || !(1..=LOGO_PIXELS_MAX).contains(&height) {
        return Err(refused(format!("an image is 1 to {LOGO_PIXELS_MAX} pixels wide and high, not {width} × {height}")));
    }
    Ok(())
}
