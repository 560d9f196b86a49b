//! Spend limits: set by administrators, shown to everybody they bind.

use sublet_core::id::{KeyId, OrganizationId, ProjectId};
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope};
use sublet_store::budget::{Budget, BudgetWindow};
use sublet_store::limit::{self, SpendLimit};
use sublet_store::{Tx, key, organization, project};

use crate::audit::Deed;
use crate::budget::periods_at;
use crate::{Action, Actor, Cloud};

/// What a limit is on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LimitSubject {
    Organization(OrganizationId),
    Project(ProjectId),
    Key(KeyId),
}

impl LimitSubject {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Organization(id) => id.as_str(),
            Self::Project(id) => id.as_str(),
            Self::Key(id) => id.as_str(),
        }
    }
    /// Reads an organization, project or key id.
    pub fn parse(text: &str) -> Result<Self> {
        match sublet_core::id::prefix_of(text) {
            Some("org") => text.parse().map(Self::Organization),
            Some("proj") => text.parse().map(Self::Project),
            Some("key") => text.parse().map(Self::Key),
            _ => Err(Error::new(ErrorCode::InvalidId, "a limit is on an organization, a project or a key").param("subject")),
        }
    }
    pub(crate) async fn check(&self, tx: &mut Tx, scope: &Scope) -> Result<()> {
        let visible = match self {
            Self::Organization(id) => organization::find(tx, scope, id).await?.is_some(),
            Self::Project(id) => project::find(tx, scope, id).await?.is_some(),
            Self::Key(id) => key::find(tx, scope, id).await?.is_some_and(|key| key.project.is_some()),
        };
        if visible {
            return Ok(());
        }
        Err(Error::new(ErrorCode::NotFound, format!("there is no organization, project or project key '{}'", self.as_str())))
    }
}

impl Cloud {
    /// Sets a limit, or changes its amount. It binds from the next reservation on.
    pub async fn set_limit(
        &self,
        actor: &Actor,
        subject: &LimitSubject,
        window: BudgetWindow,
        amount: Nanos,
    ) -> Result<SpendLimit> {
        actor.require(Action::ManageLimits)?;
        if amount.is_negative() {
            return Err(Error::new(ErrorCode::InvalidAmount, "a spend limit is not negative").param("amount"));
        }
        let now = self.now();
        let limit = SpendLimit {
            subject: subject.as_str().to_owned(),
            window,
            organization: actor.organization()?.clone(),
            amount,
            created_at: now,
        };
        self.store
            .write((self, actor, subject, &limit), move |(cloud, actor, subject, limit), tx| {
                Box::pin(async move {
                    subject.check(tx, &actor.scope).await?;
                    let organization = organization::get(tx, &actor.scope, &limit.organization).await?;
                    limit::set(tx, limit, &periods_at(&organization.time_zone, now)?).await?;
                    let detail = format!("{} {} per {}", limit.amount, organization.currency, limit.window.as_str());
                    let deed = Deed {
                        organization: Some(&limit.organization),
                        action: "spend_limit.set",
                        target: subject.as_str(),
                        detail,
                    };
                    cloud.record(tx, actor, deed, now).await
                })
            })
            .await?;
        Ok(limit)
    }

    pub async fn remove_limit(&self, actor: &Actor, subject: &LimitSubject, window: BudgetWindow) -> Result<()> {
        actor.require(Action::ManageLimits)?;
        let organization = actor.organization()?;
        let now = self.now();
        self.store
            .write((self, actor, organization, subject), move |(cloud, actor, organization, subject), tx| {
                Box::pin(async move {
                    limit::remove(tx, organization, subject.as_str(), window).await?;
                    let detail = format!("per {}", window.as_str());
                    let deed =
                        Deed { organization: Some(organization), action: "spend_limit.remove", target: subject.as_str(), detail };
                    cloud.record(tx, actor, deed, now).await
                })
            })
            .await
    }

    /// Limits with what is spent and held in their running windows. A project key sees those that bind it.
    pub async fn list_limits(&self, actor: &Actor, subject: Option<&LimitSubject>) -> Result<Vec<(SpendLimit, Budget)>> {
        actor.require(Action::ReadUsage)?;
        let organization = actor.organization()?;
        let now = self.now();
        let limits = self
            .store
            .read((actor, organization, subject), move |(actor, organization, subject), tx| {
                Box::pin(async move {
                    let found = organization::get(tx, &Scope::Organization((*organization).clone()), organization).await?;
                    if let Some(subject) = subject {
                        subject.check(tx, &actor.scope).await?;
                    }
                    let periods = periods_at(&found.time_zone, now)?;
                    limit::list(tx, organization, subject.map(LimitSubject::as_str), &periods).await
                })
            })
            .await?;
        let Some(project) = actor.scope.project() else { return Ok(limits) };
        let own = [organization.as_str(), project.as_str(), actor.key.as_ref().map_or("", KeyId::as_str)];
        Ok(limits.into_iter().filter(|(limit, _)| own.contains(&limit.subject.as_str())).collect())
    }
}
