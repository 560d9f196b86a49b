//! Spend limits: set by administrators, shown to everybody they bind.

use sublet_core::admission::Narrowing;
use sublet_core::id::{KeyId, OrganizationId, ProjectId};
use sublet_core::rate::EndUsers;
use sublet_core::{Error, ErrorCode, Nanos, Result, Scope};
use sublet_money::spend_limit::{self, AlertRule, AtLimit, LimitPlace, LimitTerms};
use sublet_store::budget::{Budget, BudgetWindow};
use sublet_store::change::{self, Subject};
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

/// A subject, and which of its requests are limited.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitTarget {
    pub subject: LimitSubject,
    pub requests: Narrowing,
}

/// All of its requests.
impl From<&LimitSubject> for LimitTarget {
    fn from(subject: &LimitSubject) -> Self {
        Self { subject: subject.clone(), requests: Narrowing::NONE }
    }
}

impl LimitTarget {
    /// Reads a limit's stored name.
    pub fn parse(name: &str) -> Result<Self> {
        let (subject, requests) = Narrowing::parse(name);
        Ok(Self { subject: LimitSubject::parse(subject)?, requests })
    }

    pub fn name(&self) -> String {
        self.requests.name(self.subject.as_str())
    }

    fn check(&self) -> Result<()> {
        let Narrowing { model, end_users } = &self.requests;
        check_name("a model", "model", model.as_deref())?;
        if model.as_deref().is_some_and(|model| model.contains(char::is_whitespace)) {
            return Err(Error::new(ErrorCode::InvalidRequest, "the name of a model has no spaces").param("model"));
        }
        match end_users {
            EndUsers::One(name) => check_name("an end user", "end_user", Some(name)),
            EndUsers::All | EndUsers::Each => Ok(()),
        }
    }
}

/// What a limit is to be; what is not said stays as it was, and is hard and tells nobody where there was none.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LimitChange {
    pub amount: Nanos,
    pub at_limit: Option<AtLimit>,
    pub alerts: Option<Vec<AlertRule>>,
}

/// Another amount.
impl From<Nanos> for LimitChange {
    fn from(amount: Nanos) -> Self {
        Self { amount, at_limit: None, alerts: None }
    }
}

impl LimitChange {
    fn apply(&self, before: Option<LimitTerms>) -> LimitTerms {
        let (at_limit, alerts) = before.map_or((AtLimit::Hard, Vec::new()), |before| (before.at_limit, before.alerts));
        LimitTerms {
            amount: self.amount,
            at_limit: self.at_limit.unwrap_or(at_limit),
            alerts: self.alerts.clone().unwrap_or(alerts),
        }
    }
}

/// Longest name of a model or an end user.
const NAME_BYTES_MAX: usize = 256;

pub(crate) fn check_name(what: &str, param: &str, name: Option<&str>) -> Result<()> {
    let is_name = |name: &str| !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if name.is_none_or(is_name) {
        return Ok(());
    }
    let message = format!("the name of {what} has 1 to {NAME_BYTES_MAX} bytes and no control characters");
    Err(Error::new(ErrorCode::InvalidRequest, message).param(param))
}

impl Cloud {
    /// Sets a limit, or changes it. It binds from the next reservation on. One on some requests only counts what is
    /// spent from now on, by requests that begin from now on.
    pub async fn set_limit(
        &self,
        actor: &Actor,
        target: impl Into<LimitTarget>,
        window: BudgetWindow,
        change: impl Into<LimitChange>,
    ) -> Result<SpendLimit> {
        actor.require(Action::ManageLimits)?;
        let (target, change): (LimitTarget, LimitChange) = (target.into(), change.into());
        target.check()?;
        let set = self
            .store
            .write((self, actor, &target, &change), move |(cloud, actor, target, change), tx| {
                Box::pin(cloud.set_limit_in(tx, actor, (target, window), change))
            })
            .await?;
        self.follow().await?;
        Ok(set)
    }

    async fn set_limit_in(
        &self,
        tx: &mut Tx,
        actor: &Actor,
        (target, window): (&LimitTarget, BudgetWindow),
        change: &LimitChange,
    ) -> Result<SpendLimit> {
        let now = self.now();
        target.subject.check(tx, &actor.scope).await?;
        let organization = organization::get(tx, &actor.scope, actor.organization()?).await?;
        let subject = target.name();
        let terms = change.apply(limit::find_terms(tx, &organization.id, (&subject, window)).await?);
        let place = LimitPlace { ends: window != BudgetWindow::Total, is_each: target.requests.end_users == EndUsers::Each };
        spend_limit::check(&terms, place)?;
        let LimitTerms { amount, at_limit, alerts } = terms;
        let limit = SpendLimit { subject, window, organization: organization.id, amount, at_limit, alerts, created_at: now };
        limit::set(tx, &limit, &periods_at(&organization.time_zone, now)?).await?;
        announce(tx, target).await?;
        let mut detail = format!("{} {} per {}, {}", amount, organization.currency, window.as_str(), at_limit.as_str());
        if let AtLimit::FinishThenStop { overrun_max } = at_limit {
            detail.push_str(&format!(" within {overrun_max} more"));
        }
        if !limit.alerts.is_empty() {
            let alerts: Vec<String> =
                limit.alerts.iter().map(|rule| format!("{} {}%", rule.basis.as_str(), rule.percent)).collect();
            detail.push_str(&format!(", alerts at {}", alerts.join(", ")));
        }
        let deed =
            Deed { organization: Some(&limit.organization), action: "spend_limit.set", target: target.subject.as_str(), detail };
        self.record(tx, actor, deed, now).await?;
        Ok(limit)
    }

    pub async fn remove_limit(&self, actor: &Actor, target: impl Into<LimitTarget>, window: BudgetWindow) -> Result<()> {
        actor.require(Action::ManageLimits)?;
        let target: LimitTarget = target.into();
        let organization = actor.organization()?;
        let now = self.now();
        self.store
            .write((self, actor, organization, &target), move |(cloud, actor, organization, target), tx| {
                Box::pin(async move {
                    limit::remove(tx, organization, &target.name(), window).await?;
                    announce(tx, target).await?;
                    let detail = format!("per {}", window.as_str());
                    let target = target.subject.as_str();
                    let deed = Deed { organization: Some(organization), action: "spend_limit.remove", target, detail };
                    cloud.record(tx, actor, deed, now).await
                })
            })
            .await?;
        self.follow().await
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
        Ok(limits.into_iter().filter(|(limit, _)| own.contains(&Narrowing::parse(&limit.subject).0)).collect())
    }
}

/// Gateways know limits on some requests only as part of a key's access; the others they meet when they ask for money.
async fn announce(tx: &mut Tx, target: &LimitTarget) -> Result<()> {
    if target.requests != Narrowing::NONE {
        change::announce(tx, Subject::Access).await?;
    }
    Ok(())
}
