//! To whom products are sold: what the operator says, and who is asked before something begins.
//!
//! A change acts in this process before its call returns, and in the others when they next look. Whatever begins with
//! money behind it looks in its own transaction.

use std::collections::BTreeSet;
use std::sync::Arc;

use sublet_core::device::DeviceKind;
use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::notice::NoticeClass;
use sublet_core::offering::{End, Entitlements, Offered, Offering, OfferingChange, OfferingState, Product, Reach, plan_change};
use sublet_core::supply::Catalogue;
use sublet_core::tier::ServiceTier;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Scope, Timestamp};
use sublet_money::contract::Agreement;
use sublet_money::period::BillingCalendar;
use sublet_money::price_book::PriceListVersion;
use sublet_money::sku::{ModelName, SkuName, TokenKind};
use sublet_store::Tx;
use sublet_store::change::{self, Subject};
use sublet_store::contract;
use sublet_store::offering::{self, Invitation, OfferingRow};
use sublet_store::organization::{self, Organization};

use crate::audit::Deed;
use crate::{Action, Actor, Cloud};

/// Who used a product in so many days before its end is announced may go on, if the operator does not say otherwise.
pub const USED_WITHIN_DAYS: u32 = 90;
/// The most days to look back.
const USED_WITHIN_DAYS_MAX: u32 = 366;
/// Longest note on a change, in bytes.
const NOTE_BYTES_MAX: usize = 512;
/// Contracts that are looked at together.
const CONTRACTS_AT_ONCE: i64 = 100;

/// An offering with all that led to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct OfferingRecord {
    /// The latest change first; never empty.
    pub history: Vec<OfferingRow>,
    pub invited: Vec<Invitation>,
    /// Organizations that may go on with what retires.
    pub users: i64,
}

/// Whether an organization is invited to a product.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InvitationState {
    Invited,
    Withdrawn,
}

/// What the operator wants of an offering.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewOffering {
    pub product: Product,
    pub change: OfferingChange,
    /// Of what begins to retire.
    pub used_within_days: Option<u32>,
    pub note: String,
}

fn check(new: &NewOffering) -> Result<()> {
    let invalid = |param: &str, message: String| Err(Error::new(ErrorCode::InvalidRequest, message).param(param));
    match new.used_within_days {
        Some(_) if new.change.state != OfferingState::Retiring => {
            invalid("used_within_days", "only what retires has users who go on".to_owned())
        }
        Some(days) if !(1..=USED_WITHIN_DAYS_MAX).contains(&days) => {
            invalid("used_within_days", format!("between 1 and {USED_WITHIN_DAYS_MAX} days are looked back on"))
        }
        Some(_) | None if new.note.len() > NOTE_BYTES_MAX || new.note.chars().any(char::is_control) => {
            invalid("note", format!("a note is one line of at most {NOTE_BYTES_MAX} bytes"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Everything with a price that a product is, as far as it was used; device time is the product wherever it is.
async fn skus_of(tx: &mut Tx, product: &Product) -> Result<BTreeSet<String>> {
    Ok(match product {
        Product::Model(name) => {
            let model: ModelName = name.parse()?;
            let tokens = |(tier, kind)| SkuName::Tokens { tier, kind, model: model.clone() }.to_string();
            let requests = |tier| SkuName::Requests { tier, model: model.clone() }.to_string();
            let kinds = ServiceTier::ALL.into_iter().flat_map(|tier| TokenKind::ALL.map(|kind| (tier, kind)));
            kinds.map(tokens).chain(ServiceTier::ALL.into_iter().map(requests)).collect()
        }
        Product::Device { .. } => {
            let used = offering::device_skus(tx).await?;
            used.into_iter().filter(|sku| is_of(product, sku)).map(|sku| sku.to_string()).collect()
        }
    })
}

/// Whether something with a price is of a product.
fn is_of(product: &Product, sku: &SkuName) -> bool {
    match (product, sku) {
        (Product::Model(name), SkuName::Tokens { model, .. } | SkuName::Requests { model, .. }) => model.as_str() == &**name,
        (Product::Device { kind, notice }, SkuName::Device { notice: sold, device, .. }) => {
            kind == device && notice.is_none_or(|notice| notice == *sold)
        }
        // A start is of its kind at every notice.
        (Product::Device { kind, notice }, SkuName::Starts { device }) => kind == device && notice.is_none(),
        (Product::Model(_), SkuName::Device { .. } | SkuName::Starts { .. })
        | (Product::Device { .. }, SkuName::Tokens { .. } | SkuName::Requests { .. })
        | (_, SkuName::ProjectMonth | SkuName::Fee { .. } | SkuName::FileStorage | SkuName::FileEgress) => false,
    }
}

impl Cloud {
    /// Brings a product's offering to a state. What is the case already stays as it is and is answered.
    pub async fn set_offering(&self, actor: &Actor, new: &NewOffering) -> Result<OfferingRecord> {
        actor.require(Action::ManagePrices)?;
        check(new)?;
        let now = self.now();
        let record = self
            .store
            .write((self, actor, new), move |(cloud, actor, new), tx| {
                Box::pin(async move {
                    // Announced first: two changes of one product wait for each other here.
                    change::announce(tx, Subject::Models).await?;
                    let before = offering::find_in_force(tx, &new.product).await?.map(|row| row.offering);
                    if let Some(after) = plan_change(&new.product, before.as_ref(), &new.change, now)? {
                        check_successors(tx, &after).await?;
                        cloud.change_offering(tx, actor, new, (before.as_ref(), after)).await?;
                    }
                    record_in(tx, &new.product).await
                })
            })
            .await?;
        self.follow().await?;
        Ok(record)
    }

    async fn change_offering(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        new: &NewOffering,
        (before, after): (Option<&Offering>, Offering),
    ) -> Result<()> {
        let now = self.now();
        let product = &after.product;
        if after.users_of == Some(after.number) {
            let days = new.used_within_days.unwrap_or(USED_WITHIN_DAYS);
            let since = now.minus(DurationMs::from_hours(24 * i64::from(days)));
            let skus = skus_of(tx, product).await?;
            offering::insert_users(tx, (product, after.number), &skus, since).await?;
            if after.reach == Reach::Invited {
                // Whose invitation was withdrawn does not come back by what it used before.
                offering::remove_uninvited(tx, (product, after.number)).await?;
            }
            // Who may go on with what retires already was decided when that was announced.
            let announced = before.filter(|before| before.announced_end(now).is_some());
            if let Some((before, of)) = announced.and_then(|before| Some((before, before.users_of?))) {
                offering::copy_users(tx, (&before.product, of), (product, after.number)).await?;
            }
        }
        let committed = commitments_to(tx, &Scope::Operator, product, now).await?;
        if let (OfferingState::Retiring, Some(number)) = (after.state, after.users_of) {
            for commitment in &committed {
                offering::insert_user(tx, (product, number), &commitment.organization).await?;
            }
        }
        let (target, state) = (product.to_string(), after.state);
        let row = OfferingRow { offering: after, note: new.note.clone(), actor: actor.name().to_owned(), changed_at: now };
        offering::insert(tx, &row).await?;
        for commitment in &committed {
            let entitlements = offering::entitlements_of(tx, &commitment.organization).await?;
            check_kept(&row.offering, commitment, &entitlements, now)?;
        }
        // Who may go on is part of the access of keys.
        change::announce(tx, Subject::Access).await?;
        let end = row.offering.end.as_ref().map_or_else(String::new, |end| format!(" until {}", end.at));
        let deed = Deed { organization: None, action: "offering.set", target: &target, detail: format!("{state}{end}") };
        self.record(tx, actor, deed, now).await
    }

    /// Invites an organization to a product, or withdraws the invitation. What is the case already stays as it is.
    pub async fn set_invitation(
        &self,
        actor: &Actor,
        product: &Product,
        organization: &OrganizationId,
        wanted: InvitationState,
    ) -> Result<OfferingRecord> {
        actor.require(Action::ManagePrices)?;
        let now = self.now();
        let record = self
            .store
            .write((self, actor, (product, organization)), move |(cloud, actor, (product, organization)), tx| {
                Box::pin(async move {
                    change::announce(tx, Subject::Access).await?;
                    let before = record_in(tx, product).await?;
                    organization::get(tx, &Scope::Operator, organization).await?;
                    let by = actor.name().to_owned();
                    let (action, changed) = match wanted {
                        InvitationState::Invited => {
                            let organization = (*organization).clone();
                            let invitation = Invitation { organization, invited_by: by, invited_at: now };
                            ("offering.invite", offering::invite(tx, product, &invitation).await?)
                        }
                        InvitationState::Withdrawn => ("offering.uninvite", withdraw(tx, &before, organization, (&by, now)).await?),
                    };
                    if changed {
                        let deed =
                            Deed { organization: None, action, target: &product.to_string(), detail: organization.to_string() };
                        cloud.record(tx, actor, deed, now).await?;
                    }
                    record_in(tx, product).await
                })
            })
            .await?;
        self.follow().await?;
        Ok(record)
    }

    pub async fn get_offering(&self, actor: &Actor, product: &Product) -> Result<OfferingRecord> {
        actor.require(Action::ManagePrices)?;
        self.store.read(product, |product, tx| Box::pin(record_in(tx, product))).await
    }

    /// Every product's, as they are now.
    pub async fn list_offerings(&self, actor: &Actor) -> Result<Vec<OfferingRow>> {
        actor.require(Action::ManagePrices)?;
        self.store.read((), |(), tx| Box::pin(offering::list_all(tx))).await
    }

    /// What an organization may use that not everybody may; nobody in particular may nothing of it.
    pub async fn entitlements_of(&self, organization: Option<&OrganizationId>) -> Result<Entitlements> {
        let Some(organization) = organization else { return Ok(Entitlements::default()) };
        self.store.read(organization, |organization, tx| Box::pin(offering::entitlements_of(tx, organization))).await
    }

    /// Whether a product exists, as far as this organization can tell by its offering.
    pub(crate) async fn knows_of(&self, organization: Option<&OrganizationId>, product: &Product) -> Result<bool> {
        Ok(self.shows(&self.entitlements_of(organization).await?, product))
    }

    /// The same, where it is known what the organization may use. A device's product names its notice.
    pub fn shows(&self, entitlements: &Entitlements, product: &Product) -> bool {
        let found = self.offering_of(product);
        found.is_none_or(|offering| offering.offered_to(entitlements, self.now()) != Offered::Hidden)
    }

    fn offering_of(&self, product: &Product) -> Option<Arc<Offering>> {
        let offerings = self.offerings();
        match product {
            Product::Model(name) => offerings.find_model(name),
            Product::Device { kind, notice } => offerings.find_device(kind, notice.unwrap_or(NoticeClass::N0)),
        }
        .cloned()
    }
}

/// A successor is told to everybody whom its predecessor reaches, so everybody may know of it, as long as it is named.
async fn check_successors(tx: &mut Tx, after: &Offering) -> Result<()> {
    let successor = |offering: &Offering| offering.end.as_ref().and_then(|end| end.successor.clone());
    if let Some(named) = successor(after) {
        let in_force = offering::find_in_force(tx, &named).await?;
        if in_force.is_some_and(|row| row.offering.reach != Reach::Everyone) {
            let message = format!("not everybody may know of {named}, and a successor is told to all");
            return Err(Error::new(ErrorCode::Conflict, message)
                .param("successor")
                .alternative(format!("sublet offerings set {named} preview")));
        }
    }
    if after.reach == Reach::Everyone {
        return Ok(());
    }
    let all = offering::list_all(tx).await?;
    let has_its_own = |product: &Product| all.iter().any(|row| row.offering.product == *product);
    // What is said of a kind counts for each part of it of which nothing else is said.
    let counts_for =
        |named: &Product| *named == after.product || (named.general().as_ref() == Some(&after.product) && !has_its_own(named));
    match all.iter().find(|row| successor(&row.offering).is_some_and(|named| counts_for(&named))) {
        Some(before) => {
            let message = format!("{} is named as the successor of {}", after.product, before.offering.product);
            Err(Error::new(ErrorCode::Conflict, message).param("state"))
        }
        None => Ok(()),
    }
}

/// Withdraws an invitation; false if there was nothing to withdraw.
async fn withdraw(tx: &mut Tx, record: &OfferingRecord, organization: &OrganizationId, by: (&str, Timestamp)) -> Result<bool> {
    let Some(OfferingRow { offering: now, .. }) = record.history.first() else { return Ok(false) };
    let was_invited = offering::withdraw(tx, &now.product, organization, by).await?;
    // Where nobody but those invited may know of it, being invited is all that let this one go on.
    let is_closed = now.reach == Reach::Invited;
    let was_user = is_closed && offering::remove_user(tx, &now.product, organization).await?;
    let is_sold = matches!(now.state_at(by.1), OfferingState::Invited | OfferingState::Retiring);
    if is_closed && is_sold && (was_invited || was_user) {
        let scope = Scope::Organization(organization.clone());
        if let Some(commitment) = commitments_to(tx, &scope, &now.product, by.1).await?.first() {
            let message = format!("{organization} could not use {}", now.product);
            return Err(commitment.refusal(&message));
        }
    }
    Ok(was_invited || was_user)
}

/// A contract by which units of a product are paid for, used or not.
struct Commitment {
    contract: ContractId,
    organization: OrganizationId,
    /// `None` until notice is given.
    until: Option<Timestamp>,
}

impl Commitment {
    fn refusal(&self, message: &str) -> Error {
        let until = self.until.map_or_else(String::new, |until| format!(" until {until}"));
        Error::new(ErrorCode::Conflict, format!("{message}, and contract {} commits it to a quantity{until}", self.contract))
            .alternative(format!("amend or end {} first", self.contract))
    }
}

/// Commitments to units of what an offering of this product counts for, as far as they are not over.
async fn commitments_to(tx: &mut Tx, scope: &Scope, product: &Product, now: Timestamp) -> Result<Vec<Commitment>> {
    let mut apart = Vec::new();
    if let Product::Device { kind, notice: None } = product {
        for notice in NoticeClass::ALL {
            let exact = Product::Device { kind: kind.clone(), notice: Some(notice) };
            if offering::find(tx, &exact).await?.is_some() {
                apart.push(exact);
            }
        }
    }
    let (mut found, mut last) = (Vec::new(), None);
    loop {
        let page = contract::list_of_quantities(tx, scope, last.as_ref(), CONTRACTS_AT_ONCE).await?;
        let Some(newest) = page.last() else { return Ok(found) };
        last = Some(newest.id.clone());
        for contract in page {
            let Some(agreement) = contract.agreement()? else { continue };
            let Some((sku, last_month)) = agreement.committed_thing()? else { continue };
            if !is_of(product, sku) || apart.iter().any(|exact| is_of(exact, sku)) {
                continue;
            }
            let account = organization::get(tx, &Scope::Operator, &contract.organization).await?;
            let calendar = BillingCalendar::new(&account.time_zone)?;
            let until = last_month.map(|month| calendar.period(month)).transpose()?.map(|period| period.interval.ends_at);
            if until.is_none_or(|until| until > now) {
                found.push(Commitment { contract: contract.id, organization: contract.organization, until });
            }
        }
    }
}

/// Refuses terms that commit an organization to units of what is not sold to it for as long.
pub(crate) async fn check_on_sale(
    tx: &mut Tx,
    account: &Organization,
    contract: &ContractId,
    (agreement, now): (&Agreement, Timestamp),
) -> Result<()> {
    let Some((sku, last_month)) = agreement.committed_thing()? else { return Ok(()) };
    let product = match sku {
        SkuName::Tokens { model, .. } | SkuName::Requests { model, .. } => Product::Model(model.as_str().into()),
        SkuName::Device { notice, device, .. } => Product::Device { kind: device.clone(), notice: Some(*notice) },
        SkuName::Starts { device } => Product::Device { kind: device.clone(), notice: None },
        SkuName::ProjectMonth | SkuName::Fee { .. } | SkuName::FileStorage | SkuName::FileEgress => return Ok(()),
    };
    let Some(row) = offering::find_in_force(tx, &product).await? else { return Ok(()) };
    let calendar = BillingCalendar::new(&account.time_zone)?;
    let until = last_month.map(|month| calendar.period(month)).transpose()?.map(|period| period.interval.ends_at);
    let commitment = Commitment { contract: contract.clone(), organization: account.id.clone(), until };
    let entitlements = offering::entitlements_of(tx, &account.id).await?;
    if check_kept(&row.offering, &commitment, &entitlements, now).is_ok() {
        return Ok(());
    }
    let state = row.offering.state_at(now);
    let message = format!("{product} is {state}, and not sold to {} for as long as the terms commit it to a quantity", account.id);
    Err(Error::new(ErrorCode::Conflict, message)
        .param("terms.quantities.sku")
        .alternative(format!("sublet offerings invite {product} {}", account.id))
        .alternative("terms without that quantity"))
}

/// Refuses an offering by which an organization would pay for units that it may not use.
fn check_kept(offering: &Offering, commitment: &Commitment, entitlements: &Entitlements, now: Timestamp) -> Result<()> {
    let (product, organization) = (&offering.product, &commitment.organization);
    match (offering.offered_to(entitlements, now), offering.announced_end(now)) {
        (Offered::Open, None) => Ok(()),
        (Offered::Open, Some(end)) if commitment.until.is_some_and(|until| until <= end.at) => Ok(()),
        (Offered::Open, Some(end)) => {
            let message = format!("{organization} could not use {product} from {} on", end.at);
            let error = commitment.refusal(&message).param("ends_at");
            Err(commitment.until.iter().fold(error, |error, until| error.alternative(format!("an end at {until} or later"))))
        }
        (Offered::Hidden | Offered::Closed(_) | Offered::Ended(_), _) => {
            let error = commitment.refusal(&format!("{organization} could not use {product}")).param("state");
            Err(match (offering.reach, offering.number) {
                // Who is invited is said of what has an offering already.
                (Reach::Invited, 1) => error.alternative(format!(
                    "sublet offerings set {product} preview, sublet offerings invite {product} {organization}, and this again"
                )),
                (Reach::Invited, _) => error.alternative(format!("sublet offerings invite {product} {organization}")),
                (Reach::Nobody | Reach::Everyone, _) => error,
            })
        }
    }
}

async fn record_in(tx: &mut Tx, product: &Product) -> Result<OfferingRecord> {
    let history = offering::list_history(tx, product).await?;
    let Some(now) = history.first() else {
        return Err(Error::new(ErrorCode::NotFound, format!("nothing was said of {product}: it is public"))
            .alternative(format!("sublet offerings set {product} draft")));
    };
    let users = match now.offering.users_of {
        Some(number) => offering::count_users(tx, product, number).await?,
        None => 0,
    };
    Ok(OfferingRecord { invited: offering::list_invitations(tx, product).await?, users, history })
}

/// Device time on sale, as one organization sees it.
pub(crate) struct DeviceShelf {
    entitlements: Entitlements,
    /// The operator sees everything.
    is_operator: bool,
    now: Timestamp,
}

impl DeviceShelf {
    pub async fn read(tx: &mut Tx, organization: Option<&OrganizationId>, now: Timestamp) -> Result<Self> {
        let entitlements = match organization {
            Some(organization) => offering::entitlements_of(tx, organization).await?,
            None => Entitlements::default(),
        };
        Ok(Self { entitlements, is_operator: organization.is_none(), now })
    }

    /// What is said of a kind's time at a notice, if it can be leased: `Some(None)` says nothing.
    pub fn find(&self, cloud: &Cloud, kind: &DeviceKind, notice: NoticeClass) -> Option<Option<Arc<Offering>>> {
        let offering = cloud.offerings().find_device(kind, notice).cloned();
        let sale = offering.as_ref().map_or(Offered::Open, |offering| offering.offered_to(&self.entitlements, self.now));
        (self.is_operator || sale == Offered::Open).then_some(offering)
    }

    /// Whether this organization may know of a kind's time at a notice: what it could lease if it `is_on_sale`, and what is
    /// not sold any more, to it or to anybody.
    pub fn knows_of(&self, cloud: &Cloud, (kind, notice): (&DeviceKind, NoticeClass), is_on_sale: bool) -> bool {
        let offering = cloud.offerings().find_device(kind, notice).cloned();
        match offering.as_ref().map_or(Offered::Open, |offering| offering.offered_to(&self.entitlements, self.now)) {
            Offered::Open => is_on_sale,
            Offered::Hidden => self.is_operator && is_on_sale,
            Offered::Closed(_) | Offered::Ended(_) => true,
        }
    }

    /// Whether a lease in such a window could begin, as far as prices and offerings say.
    pub fn sells(
        &self,
        (cloud, prices): (&Cloud, &PriceListVersion),
        (kind, notice): (&DeviceKind, NoticeClass),
        window: Option<DurationMs>,
    ) -> bool {
        prices.sells(&SkuName::device(notice, kind.clone())) && self.check(cloud, (kind, notice), window).is_ok()
    }

    /// Refuses a lease that may not begin now, or would outlive what is sold. What this organization cannot know of is
    /// refused as what has no price.
    pub fn check(&self, cloud: &Cloud, (kind, notice): (&DeviceKind, NoticeClass), window: Option<DurationMs>) -> Result<()> {
        let Some(offering) = cloud.offerings().find_device(kind, notice).cloned() else { return Ok(()) };
        let refused = |what: &str, end: &End| {
            let error =
                Error::new(ErrorCode::PolicyRefused, format!("{kind} at notice {notice} {what} at {}", end.at)).param("sku");
            end.successor.iter().fold(error, |error, successor| error.alternative(successor.to_string()))
        };
        match (offering.offered_to(&self.entitlements, self.now), offering.announced_end(self.now)) {
            (Offered::Hidden, _) => {
                let sku = SkuName::device(notice, kind.clone());
                Err(Error::new(ErrorCode::UnknownPrice, format!("{sku} has no price in the list in force")))
            }
            (Offered::Closed(end), _) => Err(refused("takes no new users, since it retires", end)),
            (Offered::Ended(end), _) => Err(refused("was retired", end)),
            (Offered::Open, Some(end)) if window.is_none_or(|window| self.now.plus(window) > end.at) => {
                let left = end.at.since(self.now).seconds_ceil();
                Err(refused("retires, and a lease of it ends before it does,", end)
                    .param("maximum_seconds")
                    .alternative(format!("a window of less than {left} seconds")))
            }
            (Offered::Open, _) => Ok(()),
        }
    }
}
