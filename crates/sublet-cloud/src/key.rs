//! Keys: created, shown once, checked, revoked.

use std::sync::Arc;

use sublet_core::admission::{Access, ModelAccess};
use sublet_core::id::{KeyId, OrganizationId, ProjectId};
use sublet_core::key::{KeyPlane, Secret};
use sublet_core::rate::RateLimits;
use sublet_core::{DurationMs, Error, ErrorCode, Result, Scope, Timestamp};
use sublet_store::change::{self, Subject};
use sublet_store::key::{self, Key};
use sublet_store::rate_limit::{self, RateLimit};
use sublet_store::{Page, PageRequest, Tx, licence, limit, offering, organization, project};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call};
use crate::organization::checked_name;
use crate::{Action, Actor, Cloud};
use sublet_money::spend_limit::Work;

/// How long a console session lives where time is real.
pub const SESSION_LIFE: DurationMs = DurationMs::from_hours(12);
/// Models one key may be confined to.
pub const KEY_MODELS_MAX: usize = 100;

/// What a new key may do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewKey {
    pub name: String,
    pub models: ModelAccess,
    pub rates: RateLimits,
    pub expires_at: Option<Timestamp>,
}

/// A key with its secret, which is never shown again.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CreatedKey {
    pub key: Key,
    pub secret: Secret,
}

/// Where a key belongs; decides its plane.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum KeyOwner {
    Project { organization: OrganizationId, project: ProjectId },
    Organization(OrganizationId),
    Operator,
}

impl KeyOwner {
    const fn plane(&self) -> KeyPlane {
        match self {
            Self::Project { .. } => KeyPlane::Project,
            Self::Organization(_) => KeyPlane::Admin,
            Self::Operator => KeyPlane::Operator,
        }
    }
    fn parts(&self) -> (Option<OrganizationId>, Option<ProjectId>) {
        match self {
            Self::Project { organization, project } => (Some(organization.clone()), Some(project.clone())),
            Self::Organization(organization) => (Some(organization.clone()), None),
            Self::Operator => (None, None),
        }
    }
}

/// A key that ends makes none that lives longer.
async fn check_life(tx: &mut Tx, actor: &Actor, new: &Key) -> Result<()> {
    let Some(id) = &actor.key else { return Ok(()) };
    let Some(end) = key::find(tx, &actor.scope, id).await?.and_then(|own| own.expires_at) else { return Ok(()) };
    if new.expires_at.is_some_and(|at| at <= end) {
        return Ok(());
    }
    Err(Error::new(ErrorCode::InvalidRequest, format!("the key that makes it ends at {end}, and it would live longer"))
        .param("expires_at")
        .alternative(format!("{end} or before")))
}

fn last_of_its_plane(key: &Key) -> Error {
    Error::new(
        ErrorCode::Conflict,
        format!("'{}' is the last {} key that does not end; nobody could make another", key.id, key.plane),
    )
    .alternative("create another one first, then revoke this one with it")
}

impl Cloud {
    /// Creates a key for a project of the actor's organization. A repeat of the call gets the id of
    /// the key, never its secret again.
    pub async fn create_project_key(&self, call: &Call, project: &ProjectId, new: &NewKey) -> Result<Answer<CreatedKey>> {
        let actor = &call.actor;
        actor.require(Action::ManageKeys)?;
        self.check_new_key(new)?;
        let organization = actor.organization()?.clone();
        let created = self.new_key(&KeyOwner::Project { organization, project: project.clone() }, new)?;
        self.once(
            call,
            &|created: &CreatedKey| Ok(created.key.id.to_string()),
            (self, actor, created, project),
            |(cloud, actor, created, project), tx| {
                Box::pin(async move {
                    let found = project::get(tx, &actor.scope, project).await?;
                    if found.archived {
                        return Err(Error::new(ErrorCode::Conflict, format!("project '{project}' is archived")));
                    }
                    cloud.insert_key(tx, actor, created).await?;
                    Ok(created.clone())
                })
            },
        )
        .await
    }

    fn check_new_key(&self, new: &NewKey) -> Result<()> {
        if new.expires_at.is_some_and(|at| at <= self.now()) {
            return Err(Error::new(ErrorCode::InvalidRequest, "a key cannot expire in the past").param("expires_at"));
        }
        if let ModelAccess::Only(models) = &new.models
            && (models.is_empty() || models.len() > KEY_MODELS_MAX)
        {
            return Err(
                Error::new(ErrorCode::InvalidRequest, format!("a key is confined to 1 to {KEY_MODELS_MAX} models")).param("models")
            );
        }
        let rates = [new.rates.requests_per_minute, new.rates.tokens_per_minute, new.rates.concurrent_requests];
        if rates.contains(&Some(0)) {
            return Err(Error::new(ErrorCode::LimitUnenforceable, "a limit of 0 would stop the key; revoke it instead")
                .param("rate_limits"));
        }
        Ok(())
    }

    pub(crate) fn new_key(&self, owner: &KeyOwner, new: &NewKey) -> Result<CreatedKey> {
        let secret = Secret::generate(owner.plane(), self.ids.rng().as_ref());
        let (organization, project) = owner.parts();
        let key = Key {
            id: self.ids.mint(),
            plane: owner.plane(),
            organization,
            project,
            name: checked_name(&new.name)?,
            hint: secret.hint(),
            models: new.models.clone(),
            rates: new.rates,
            expires_at: new.expires_at,
            revoked_at: None,
            created_at: self.now(),
        };
        Ok(CreatedKey { key, secret })
    }

    pub(crate) async fn insert_key(&self, tx: &mut Tx, actor: &Actor, created: &CreatedKey) -> Result<()> {
        let key = &created.key;
        key::insert(tx, key, &created.secret).await?;
        let deed = Deed {
            organization: key.organization.as_ref(),
            action: "key.create",
            target: key.id.as_str(),
            detail: format!("{} plane, {}", key.plane, key.hint),
        };
        self.record(tx, actor, deed, key.created_at).await
    }

    /// Creates a key of the actor's own plane: for another person or program that may do what this one may.
    pub async fn create_peer_key(&self, call: &Call, name: &str, expires_at: Option<Timestamp>) -> Result<Answer<CreatedKey>> {
        let actor = &call.actor;
        actor.require(Action::ManagePeerKeys)?;
        let new = NewKey { name: name.to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at };
        self.check_new_key(&new)?;
        let owner = match &actor.scope {
            Scope::Operator => KeyOwner::Operator,
            Scope::Organization(organization) | Scope::Project { organization, .. } => KeyOwner::Organization(organization.clone()),
        };
        let created = self.new_key(&owner, &new)?;
        self.once(
            call,
            &|created: &CreatedKey| Ok(created.key.id.to_string()),
            (self, actor, created),
            |(cloud, actor, created), tx| {
                Box::pin(async move {
                    check_life(tx, actor, &created.key).await?;
                    cloud.insert_key(tx, actor, created).await?;
                    Ok(created.clone())
                })
            },
        )
        .await
    }

    /// Keys of the actor's own plane.
    pub async fn list_peer_keys(&self, actor: &Actor, page: &PageRequest) -> Result<Page<Key>> {
        actor.require(Action::ManagePeerKeys)?;
        self.store.read((actor, page), |(actor, page), tx| Box::pin(key::list(tx, &actor.scope, page))).await
    }

    /// A key of the actor's own plane.
    pub async fn get_peer_key(&self, actor: &Actor, id: &KeyId) -> Result<Key> {
        actor.require(Action::ManagePeerKeys)?;
        let found = self.store.read((actor, id), |(actor, id), tx| Box::pin(key::find(tx, &actor.scope, id))).await?;
        found
            .filter(|key| key.plane == actor.plane)
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("there is no key '{id}'")))
    }

    /// As [`Self::revoke_key`], for a key of the actor's own plane.
    pub async fn revoke_peer_key(&self, actor: &Actor, id: &KeyId) -> Result<Key> {
        self.get_peer_key(actor, id).await?;
        self.revoke(actor, id).await
    }

    /// Keys of one project.
    pub async fn list_keys(&self, actor: &Actor, project: &ProjectId, page: &PageRequest) -> Result<Page<Key>> {
        actor.require(Action::ManageKeys)?;
        self.store
            .read((actor, project, page), |(actor, project, page), tx| {
                Box::pin(async move {
                    let project = project::get(tx, &actor.scope, project).await?;
                    key::list(tx, &Scope::Project { organization: project.organization, project: project.id }, page).await
                })
            })
            .await
    }

    /// Revokes a key. It stops working before this returns.
    pub async fn revoke_key(&self, actor: &Actor, id: &KeyId) -> Result<Key> {
        actor.require(Action::ManageKeys)?;
        self.revoke(actor, id).await
    }

    async fn revoke(&self, actor: &Actor, id: &KeyId) -> Result<Key> {
        let now = self.now();
        let revoked = self
            .store
            .write((self, actor, id), move |(cloud, actor, id), tx| {
                Box::pin(async move {
                    let key = key::revoke(tx, &actor.scope, id, now).await?;
                    if key.project.is_none() && !key::has_another(tx, &key).await? {
                        return Err(last_of_its_plane(&key));
                    }
                    change::announce(tx, Subject::Access).await?;
                    let deed = Deed {
                        organization: key.organization.as_ref(),
                        action: "key.revoke",
                        target: id.as_str(),
                        detail: key.hint.clone(),
                    };
                    cloud.record(tx, actor, deed, now).await?;
                    Ok(key)
                })
            })
            .await?;
        self.access_changed();
        Ok(revoked)
    }

    /// A key of one project, named below that project.
    pub async fn get_project_key(&self, actor: &Actor, project: &ProjectId, id: &KeyId) -> Result<Key> {
        actor.require(Action::ManageKeys)?;
        let found = self.store.read((actor, id), |(actor, id), tx| Box::pin(key::find(tx, &actor.scope, id))).await?;
        found
            .filter(|key| key.project.as_ref() == Some(project))
            .ok_or_else(|| Error::new(ErrorCode::NotFound, format!("project '{project}' has no key '{id}'")))
    }

    /// As [`Self::revoke_key`], for a key that is named below its project.
    pub async fn revoke_project_key(&self, actor: &Actor, project: &ProjectId, id: &KeyId) -> Result<Key> {
        self.get_project_key(actor, project, id).await?;
        self.revoke_key(actor, id).await
    }

    /// The key that the actor called with.
    pub async fn get_own_key(&self, actor: &Actor) -> Result<Key> {
        let id = actor.key.clone().ok_or_else(|| Error::internal("the cloud's own work has no key"))?;
        let found = self.store.read((actor, id), |(actor, id), tx| Box::pin(key::find(tx, &actor.scope, id))).await?;
        found.ok_or_else(|| Error::new(ErrorCode::NotFound, "the key is gone"))
    }

    /// Who holds this key? Fails for unknown, expired and revoked ones.
    pub async fn authenticate_key(&self, secret: &Secret, address: &str) -> Result<Actor> {
        let key = self.live_key(secret).await?;
        actor_of(&key, address)
    }

    async fn live_key(&self, secret: &Secret) -> Result<Key> {
        let now = self.now();
        let found = self.store.read(secret, |secret, tx| Box::pin(key::find_by_secret(tx, secret))).await?;
        let refused = |why: &str| {
            Err(Error::new(ErrorCode::InvalidApiKey, format!("the key {} {why}", secret.hint())).alternative("create a new key"))
        };
        match found {
            None => refused("is not known"),
            Some(key) if key.revoked_at.is_some() => refused("was revoked"),
            Some(key) if key.expires_at.is_some_and(|at| at <= now) => refused("has expired"),
            Some(key) => Ok(key),
        }
    }

    /// What the gateway may let this key do.
    pub(crate) async fn access_of(&self, secret: &Secret) -> Result<Arc<Access>> {
        let key = match self.redeem_ticket(secret).await? {
            Some(key) => key,
            None => self.live_key(secret).await?,
        };
        self.access_for(key, Work::New).await
    }

    /// The same for work that goes on under a key after the call that began it.
    pub(crate) async fn access_of_key(&self, id: &KeyId) -> Result<Arc<Access>> {
        let now = self.now();
        let found = self.store.read(id, |id, tx| Box::pin(key::find(tx, &Scope::Operator, id))).await?;
        let live = found.filter(|key| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now));
        let gone = || Error::new(ErrorCode::InvalidApiKey, format!("the key {id} was revoked or has expired"));
        self.access_for(live.ok_or_else(gone)?, Work::Admitted).await
    }

    async fn access_for(&self, key: Key, work: Work) -> Result<Arc<Access>> {
        let (Some(organization), Some(project)) = (key.organization, key.project) else {
            return Err(Error::new(
                ErrorCode::WrongKeyPlane,
                format!("models need a project key, this one is of the {} plane", key.plane),
            )
            .alternative(format!("use a key that starts with {}", KeyPlane::Project.prefix())));
        };
        let (found, (accepted, entitlements), (limits, narrow_limits)) = self
            .store
            .read((self, &organization, &project, &key.id), move |(cloud, id, project, key), tx| {
                Box::pin(async move {
                    cloud.check_suspension(tx, id, work).await?;
                    let found = organization::get(tx, &Scope::Operator, id).await?;
                    let limits = rate_limit::list_for(tx, id, (project.as_str(), key.as_str())).await?;
                    let narrow = limit::list_narrow(tx, id, (project.as_str(), key.as_str())).await?;
                    let entitlements = offering::entitlements_of(tx, id).await?;
                    Ok((found, (licence::list(tx, id).await?, entitlements), (limits, narrow)))
                })
            })
            .await?;
        let own = key.rates.rules(&key.id);
        Ok(Arc::new(Access {
            key: key.id,
            project,
            organization,
            currency: found.currency,
            models: key.models,
            limits: own.into_iter().chain(limits.iter().map(RateLimit::rule)).collect(),
            narrow_limits,
            expires_at: key.expires_at,
            data: found.data,
            entitlements,
            licences: accepted.into_iter().map(|acceptance| acceptance.accepted).collect(),
        }))
    }

    /// Opens a console session for a key and returns the session's secret.
    pub async fn open_session(&self, secret: &Secret, address: &str) -> Result<(String, Actor)> {
        let key = self.live_key(secret).await?;
        let mut random = [0_u8; 32];
        self.ids.rng().fill(&mut random);
        let token: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
        let (now, life) = (self.now(), self.settings.session_life);
        self.store
            .write((&token, &key.id), move |(token, id), tx| Box::pin(key::insert_session(tx, token, id, now, now.plus(life))))
            .await?;
        let actor = actor_of(&key, address)?;
        Ok((token, actor))
    }

    /// The actor behind a console session.
    pub async fn resume_session(&self, token: &str, address: &str) -> Result<Actor> {
        let now = self.now();
        let found = self.store.read(token.to_owned(), move |token, tx| Box::pin(key::find_by_session(tx, token, now))).await?;
        let live = found.filter(|key| key.revoked_at.is_none() && key.expires_at.is_none_or(|at| at > now));
        let key = live.ok_or_else(|| Error::new(ErrorCode::InvalidApiKey, "the session has ended").alternative("sign in again"))?;
        actor_of(&key, address)
    }

    pub async fn close_session(&self, token: &str) -> Result<()> {
        self.store.write(token.to_owned(), |token, tx| Box::pin(key::delete_session(tx, token))).await
    }
}

fn actor_of(key: &Key, address: &str) -> Result<Actor> {
    let scope = match (key.plane, &key.organization, &key.project) {
        (KeyPlane::Operator, None, None) => Scope::Operator,
        (KeyPlane::Admin, Some(organization), None) => Scope::Organization(organization.clone()),
        (KeyPlane::Project, Some(organization), Some(project)) => {
            Scope::Project { organization: organization.clone(), project: project.clone() }
        }
        (KeyPlane::Operator | KeyPlane::Admin | KeyPlane::Project, _, _) => {
            return Err(Error::internal(format!("key {} has a plane that does not fit its owner", key.id)));
        }
    };
    Ok(Actor { plane: key.plane, scope, key: Some(key.id.clone()), address: address.to_owned() })
}
