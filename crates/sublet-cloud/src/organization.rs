//! Organizations: created by the operator, each with its own ledger accounts and calendar.

use sublet_core::admission::ModelAccess;
use sublet_core::id::OrganizationId;
use sublet_core::organization::OrganizationClass;
use sublet_core::rate::RateLimits;
use sublet_core::supplier::DataConsent;
use sublet_core::{Currency, Error, ErrorCode, Nanos, Result, Scope};
use sublet_money::period::BillingCalendar;
use sublet_store::organization::{self, Organization};
use sublet_store::{Page, PageRequest, Tx, ledger};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::key::{CreatedKey, KeyOwner, NewKey};
use crate::{Action, Actor, Cloud};

/// Longest name of anything, in characters.
pub const NAME_MAX_CHARS: usize = 200;

/// What a new organization needs.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewOrganization {
    pub name: String,
    pub class: OrganizationClass,
    pub currency: Currency,
    pub time_zone: String,
    pub credit_limit: Nanos,
}

/// A name a person gave: one line, not empty, bounded.
pub fn checked_name(name: &str) -> Result<String> {
    let name = name.trim();
    if name.is_empty() || name.chars().count() > NAME_MAX_CHARS || name.chars().any(char::is_control) {
        return Err(
            Error::new(ErrorCode::InvalidRequest, format!("a name is one line of 1 to {NAME_MAX_CHARS} characters")).param("name")
        );
    }
    Ok(name.to_owned())
}

impl Cloud {
    /// Creates an organization with its first admin key. A repeat of the call gets the organization's id,
    /// never the secret again.
    pub async fn create_organization(&self, call: &Call, new: &NewOrganization) -> Result<Answer<(Organization, CreatedKey)>> {
        call.actor.require(Action::ManageOrganizations)?;
        let name = checked_name(&new.name)?;
        let calendar = BillingCalendar::new(&new.time_zone).map_err(|error| error.param("time_zone"))?;
        if new.credit_limit.is_negative() {
            return Err(Error::new(ErrorCode::InvalidAmount, "a credit limit is not negative").param("credit_limit"));
        }
        let organization = Organization {
            id: self.ids.mint(),
            name,
            class: new.class,
            currency: new.currency,
            time_zone: calendar.zone_name().to_owned(),
            credit_limit: new.credit_limit,
            data: DataConsent::default(),
            generation: 1,
            created_at: self.now(),
            suspended_at: None,
        };
        let admin = NewKey { name: "admin".to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None };
        let key = self.new_key(&KeyOwner::Organization(organization.id.clone()), &admin)?;
        let context = (self, &call.actor, organization, key);
        self.once(
            call,
            &|(organization, _): &(Organization, CreatedKey)| Ok(organization.id.to_string()),
            context,
            |(cloud, actor, organization, key), tx| {
                Box::pin(async move {
                    cloud.insert_organization(tx, actor, organization).await?;
                    cloud.insert_key(tx, actor, key).await?;
                    Ok((organization.clone(), key.clone()))
                })
            },
        )
        .await
    }

    pub(crate) async fn insert_organization(&self, tx: &mut Tx, actor: &Actor, organization: &Organization) -> Result<()> {
        organization::insert(tx, organization).await?;
        ledger::set_credit_limit(tx, &organization.id, organization.currency, organization.credit_limit).await?;
        let detail = format!("{} organization in {}", organization.class, organization.currency);
        let deed =
            Deed { organization: Some(&organization.id), action: "organization.create", target: organization.id.as_str(), detail };
        self.record(tx, actor, deed, organization.created_at).await
    }

    pub async fn get_organization(&self, actor: &Actor, id: &OrganizationId) -> Result<Organization> {
        self.store.read((actor, id), |(actor, id), tx| Box::pin(organization::get(tx, &actor.scope, id))).await
    }

    /// The organization the actor belongs to, whatever its plane.
    pub async fn account_of(&self, actor: &Actor) -> Result<Organization> {
        let id = actor.organization()?;
        let own = Scope::Organization(id.clone());
        self.store.read((own, id), |(own, id), tx| Box::pin(organization::get(tx, own, id))).await
    }

    /// Records that an operator had a model imported.
    pub async fn record_import(&self, actor: &Actor, model: &str) -> Result<()> {
        let now = self.now();
        self.store
            .write((self, actor, model), move |(cloud, actor, model), tx| {
                let deed = Deed { organization: None, action: "model.import", target: model, detail: String::new() };
                Box::pin(cloud.record(tx, actor, deed, now))
            })
            .await
    }

    /// Every organization, or those of one class.
    pub async fn list_organizations(
        &self,
        actor: &Actor,
        class: Option<OrganizationClass>,
        page: &PageRequest,
    ) -> Result<Page<Organization>> {
        actor.require(Action::ManageOrganizations)?;
        self.store.read(page, move |page, tx| Box::pin(organization::list(tx, class, page))).await
    }
}
