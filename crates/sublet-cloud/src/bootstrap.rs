//! The first start: an operator, an internal and an external organization, keys, prices, credit.

use sublet_core::admission::ModelAccess;
use sublet_core::id::{OrganizationId, PriceListId};
use sublet_core::key::Secret;
use sublet_core::organization::OrganizationClass;
use sublet_core::rate::RateLimits;
use sublet_core::supplier::DataConsent;
use sublet_core::{Currency, ErrorCode, Nanos, Result};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::CreditTerms;
use sublet_money::sku::{DeviceKind, ModelName};
use sublet_money::starter::{StarterDevice, starter_price_list};
use sublet_store::credit::CreditGrant;
use sublet_store::organization::Organization;
use sublet_store::project::Project;
use sublet_store::{Tx, project, setting};

use crate::credit::GrantSource;
use crate::idempotency::Call;
use crate::key::{CreatedKey, KeyOwner, NewKey};
use crate::{Actor, Cloud};

const DONE: &str = "bootstrap.done";
/// Credit that a new cloud gives its first customer to try it with.
const WELCOME_CREDIT: Nanos = Nanos::new(25_000_000_000);
/// What the owner's own teams may use before their cost centre is settled.
const INTERNAL_CREDIT_LIMIT: Nanos = Nanos::new(1_000_000_000_000_000);

/// What a new cloud is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FirstStart {
    pub currency: Currency,
    pub time_zone: String,
    pub models: Vec<String>,
    pub device_kinds: Vec<String>,
}

/// The secrets of a new cloud, shown once.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FirstKeys {
    pub operator: Secret,
    pub admin: Secret,
    pub project: Secret,
    /// The internal team's project key.
    pub internal: Secret,
    pub external_organization: OrganizationId,
}

struct Tenant {
    organization: Organization,
    project: Project,
    admin: CreatedKey,
    key: CreatedKey,
}

/// A first start that is ready to be committed. Its secrets can be written down before that, so
/// that a crash in between loses nothing.
pub struct FirstStartPlan {
    operator: CreatedKey,
    external: Tenant,
    internal: Tenant,
}

impl FirstStartPlan {
    pub fn keys(&self) -> FirstKeys {
        FirstKeys {
            operator: self.operator.secret.clone(),
            admin: self.external.admin.secret.clone(),
            project: self.external.key.secret.clone(),
            internal: self.internal.key.secret.clone(),
            external_organization: self.external.organization.id.clone(),
        }
    }
}

impl Cloud {
    /// What a new cloud would be created with; `None` if that was done before.
    pub async fn plan_first_start(&self, start: &FirstStart) -> Result<Option<FirstStartPlan>> {
        let done = self.store.read((), |(), tx| Box::pin(setting::find(tx, DONE))).await?;
        if done.is_some() {
            return Ok(None);
        }
        Ok(Some(FirstStartPlan {
            operator: self.new_key(&KeyOwner::Operator, &open_key("operator"))?,
            external: self.new_tenant(start, "Example customer", OrganizationClass::External)?,
            internal: self.new_tenant(start, "Example team", OrganizationClass::Internal)?,
        }))
    }

    /// Creates it all in one transaction. False if another process was first.
    pub async fn apply_first_start(&self, plan: &FirstStartPlan) -> Result<bool> {
        self.store
            .write((self, plan), |(cloud, plan), tx| {
                Box::pin(async move {
                    if setting::find(tx, DONE).await?.is_some() {
                        return Ok(false);
                    }
                    let actor = Actor::system();
                    cloud.insert_key(tx, &actor, &plan.operator).await?;
                    cloud.insert_tenant(tx, &actor, &plan.external).await?;
                    cloud.insert_tenant(tx, &actor, &plan.internal).await?;
                    cloud.welcome(tx, &actor, &plan.external.organization).await?;
                    setting::set(tx, DONE, &cloud.now().to_string()).await?;
                    Ok(true)
                })
            })
            .await
    }

    /// Publishes the starter price list if there is no list at all.
    pub async fn ensure_prices(&self, start: &FirstStart) -> Result<()> {
        if !self.prices.snapshot().is_empty() {
            return Ok(());
        }
        match self.publish_starter_prices(start).await {
            // Another process that started at the same time was first.
            Err(error) if error.code() == ErrorCode::Conflict => {
                self.follow().await?;
                if self.prices.snapshot().is_empty() { Err(error) } else { Ok(()) }
            }
            published => published,
        }
    }

    fn new_tenant(&self, start: &FirstStart, name: &str, class: OrganizationClass) -> Result<Tenant> {
        let now = self.now();
        let credit_limit = if class == OrganizationClass::Internal { INTERNAL_CREDIT_LIMIT } else { Nanos::ZERO };
        let organization = Organization {
            id: self.ids.mint(),
            name: name.to_owned(),
            class,
            currency: start.currency,
            time_zone: start.time_zone.clone(),
            credit_limit,
            data: DataConsent::default(),
            generation: 1,
            created_at: now,
            suspended_at: None,
        };
        let project = Project {
            id: self.ids.mint(),
            organization: organization.id.clone(),
            name: "default".to_owned(),
            archived: false,
            generation: 1,
            created_at: now,
        };
        let admin = self.new_key(&KeyOwner::Organization(organization.id.clone()), &open_key("admin"))?;
        let owner = KeyOwner::Project { organization: organization.id.clone(), project: project.id.clone() };
        let key = self.new_key(&owner, &open_key("default"))?;
        Ok(Tenant { organization, project, admin, key })
    }

    async fn insert_tenant(&self, tx: &mut Tx, actor: &Actor, tenant: &Tenant) -> Result<()> {
        self.insert_organization(tx, actor, &tenant.organization).await?;
        project::insert(tx, &tenant.project).await?;
        self.insert_key(tx, actor, &tenant.admin).await?;
        self.insert_key(tx, actor, &tenant.key).await
    }

    async fn welcome(&self, tx: &mut Tx, actor: &Actor, organization: &Organization) -> Result<()> {
        let grant = CreditGrant {
            id: self.ids.mint(),
            organization: organization.id.clone(),
            kind: CreditKind::Promotional.as_str().to_owned(),
            amount: WELCOME_CREDIT,
            currency: organization.currency,
            reference: "welcome".to_owned(),
            terms: CreditTerms::default(),
            created_at: self.now(),
            remaining: None,
        };
        self.insert_grant(tx, actor, &grant, GrantSource::Gift).await.map(|_| ())
    }

    async fn publish_starter_prices(&self, start: &FirstStart) -> Result<()> {
        let models = start.models.iter().map(|name| name.parse()).collect::<Result<Vec<ModelName>>>()?;
        let devices = start
            .device_kinds
            .iter()
            .map(|kind| kind.parse::<DeviceKind>().map(StarterDevice::at_list_price))
            .collect::<Result<Vec<_>>>()?;
        let list: PriceListId = self.ids.mint();
        let now = self.now();
        let draft = starter_price_list(list, start.currency, now, &models, &devices)?;
        self.publish_prices(&Call::once(Actor::system()), "list", draft, now).await.map(|_| ())
    }
}

fn open_key(name: &str) -> NewKey {
    NewKey { name: name.to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None }
}
