//! One-time fees: what an operator charges an account once, by name and at its price, for a set-up or an hour of support.
//!
//! A fee is a line like any other: priced by the list in force, named by its hash, on the invoice, in the bundle. It is taken
//! from credit at once, all of it or nothing; what the account may owe is its credit limit. The call's key makes it
//! idempotent.
//!
//! Deliberately absent: amounts that the list does not have, and spend limits, which are for what customers do.

use sublet_core::id::{OrganizationId, ProjectId};
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope};
use sublet_money::posting::{EntryHead, Fact, post};
use sublet_money::rating::{LineKey, RatedLine, rate_line};
use sublet_money::sku::{FeeName, Quantity, SkuFamily, SkuName};
use sublet_store::charge::{self, Charge};
use sublet_store::fee::{self, StoredFee};
use sublet_store::organization::Organization;
use sublet_store::{Page, PageRequest, Tx, ledger, organization, project};

use crate::audit::Deed;
use crate::billing::Billing;
use crate::credit_lot::StoredCredit;
use crate::idempotency::{Answer, Call, Render};
use crate::incoming_payment::check_note;
use crate::{Action, Actor, Cloud};

/// Most of one fee at once.
const QUANTITY_MAX: i64 = 1_000_000;

/// What is charged, to which project of an account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewFee {
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub name: FeeName,
    pub quantity: Quantity,
    /// What the customer reads.
    pub note: String,
}

impl Cloud {
    /// Charges an account a fee of its price list.
    pub async fn charge_fee(&self, call: &Call, new: &NewFee, render: &Render<StoredFee>) -> Result<Answer<StoredFee>> {
        call.actor.require(Action::GrantCredit)?;
        check_note(&new.note, "note")?;
        if !(1..=QUANTITY_MAX).contains(&new.quantity.get()) {
            let message = format!("between 1 and {QUANTITY_MAX} of a fee are charged at once");
            return Err(Error::new(ErrorCode::InvalidRequest, message).param("quantity"));
        }
        self.once(call, render, (self, &call.actor, new), |(cloud, actor, new), tx| Box::pin(cloud.charge_fee_in(tx, actor, new)))
            .await
    }

    async fn charge_fee_in(&self, tx: &mut Tx, actor: &Actor, new: &NewFee) -> Result<StoredFee> {
        self.follow_changes(tx).await?;
        let now = self.now();
        let of_body = |param: &'static str| move |error: Error| error.param(param);
        let account = organization::get(tx, &Scope::Operator, &new.organization).await.map_err(of_body("organization"))?;
        let own = Scope::Organization(account.id.clone());
        let project = project::get(tx, &own, &new.project).await.map_err(of_body("project"))?;
        let version = self.prices.in_force_for((&account.id, account.currency), now)?;
        let key = LineKey {
            organization: account.id.clone(),
            project: project.id,
            period: Billing::of_account(tx, &account).await?.calendar.period_at(now)?.key,
            price_version: version.version().clone(),
            sku: SkuName::Fee { fee: new.name.clone() },
            band: None,
        };
        version.get(&key.sku).map_err(of_body("fee"))?;
        let state = charge::line_state(tx, &key).await?;
        let rated = rate_line(key, state, &version, new.quantity)?;
        let fee = StoredFee {
            id: self.ids.mint(),
            organization: account.id.clone(),
            project: rated.key.project.clone(),
            name: new.name.clone(),
            quantity: new.quantity,
            amount: rated.amount,
            currency: account.currency,
            price_version: rated.key.price_version.clone(),
            note: new.note.clone(),
            created_by: actor.name().to_owned(),
            created_at: now,
        };
        self.post_fee(tx, &account, &fee).await?;
        self.keep_fee(tx, &fee, rated).await?;
        let detail = format!("{} {} for {} of {}: {}", fee.amount, fee.currency, fee.quantity, fee.name, fee.note);
        let deed = Deed { organization: Some(&fee.organization), action: "fee.charge", target: fee.id.as_str(), detail };
        self.record(tx, actor, deed, now).await?;
        Ok(fee)
    }

    /// All of it from credit, or an error.
    async fn post_fee(&self, tx: &mut Tx, account: &Organization, fee: &StoredFee) -> Result<()> {
        let (family, now) = (SkuFamily::OneTimeFees, fee.created_at);
        let from = StoredCredit::of(tx, account).await?.burn(tx, fee.amount, (family, now)).await?.split()?;
        let memo = format!("{} {}", fee.id, fee.name);
        let head = EntryHead { id: self.ids.mint(), at: now, currency: fee.currency, memo };
        let fact = Fact::FeeCharged { family, from, owed: Nanos::ZERO };
        ledger::post(tx, &post(head, &account.id, &fact)?).await.map(|_| ())
    }

    async fn keep_fee(&self, tx: &mut Tx, fee: &StoredFee, rated: RatedLine) -> Result<()> {
        let billing = Billing::of(tx, &fee.organization).await?;
        charge::set_line_states(tx, &[(&rated.key, rated.after)]).await?;
        let charge = Charge {
            id: self.ids.mint(),
            organization: fee.organization.clone(),
            project: fee.project.clone(),
            key: None,
            source: fee.id.to_string(),
            sku: rated.key.sku,
            quantity: rated.quantity,
            amount: rated.amount,
            currency: fee.currency,
            price_version: rated.key.price_version,
            period: rated.key.period,
            billed_in: billing.billed_in(rated.key.period),
            band: None,
            before: rated.before,
            occurred_at: fee.created_at,
            posted_at: fee.created_at,
        };
        charge::insert(tx, &[charge]).await?;
        fee::insert(tx, fee).await
    }

    /// Those of the actor's organization; of an operator, of one or all.
    pub async fn list_fees(
        &self,
        actor: &Actor,
        organization: Option<&OrganizationId>,
        page: &PageRequest,
    ) -> Result<Page<StoredFee>> {
        actor.require(Action::ReadBilling)?;
        self.store
            .read((actor, organization, page), |(actor, organization, page), tx| {
                Box::pin(fee::list(tx, &actor.scope, *organization, page))
            })
            .await
    }
}
