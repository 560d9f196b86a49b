//! People and their roles.

use sublet_core::id::UserId;
use sublet_core::{Error, ErrorCode, Result};
use sublet_store::user::{self, User};
use sublet_store::{Page, PageRequest};

use crate::audit::Deed;
use crate::idempotency::{Answer, Call, Render};
use crate::organization::checked_name;
use crate::{Action, Actor, Cloud};

/// The roles a person can have.
pub const ROLES: [&str; 4] = ["owner", "developer", "billing", "reader"];
const EMAIL_MAX_BYTES: usize = 254;

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NewUser {
    pub email: String,
    pub name: String,
    pub role: String,
}

fn checked_email(email: &str) -> Result<String> {
    let parts = email.split_once('@');
    let plausible = parts.is_some_and(|(local, domain)| !local.is_empty() && domain.contains('.') && !domain.contains('@'));
    if !plausible || email.len() > EMAIL_MAX_BYTES || email.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::new(ErrorCode::InvalidRequest, "that is not an e-mail address").param("email"));
    }
    Ok(email.to_lowercase())
}

impl Cloud {
    pub async fn create_user(&self, call: &Call, new: &NewUser, render: &Render<User>) -> Result<Answer<User>> {
        call.actor.require(Action::ManageUsers)?;
        if !ROLES.contains(&new.role.as_str()) {
            return Err(Error::new(ErrorCode::InvalidRequest, format!("a role is one of {}", ROLES.join(", "))).param("role"));
        }
        let user = User {
            id: self.ids.mint(),
            organization: call.actor.organization()?.clone(),
            email: checked_email(&new.email)?,
            name: checked_name(&new.name)?,
            role: new.role.clone(),
            created_at: self.now(),
        };
        self.once(call, render, (self, &call.actor, user), |(cloud, actor, user), tx| {
            Box::pin(async move {
                user::insert(tx, user).await?;
                let deed = Deed {
                    organization: Some(&user.organization),
                    action: "user.create",
                    target: user.id.as_str(),
                    detail: format!("role {}", user.role),
                };
                cloud.record(tx, actor, deed, user.created_at).await?;
                Ok(user.clone())
            })
        })
        .await
    }

    pub async fn list_users(&self, actor: &Actor, page: &PageRequest) -> Result<Page<User>> {
        actor.require(Action::ManageUsers)?;
        let organization = actor.organization()?;
        self.store.read((organization, page), |(organization, page), tx| Box::pin(user::list(tx, organization, page))).await
    }

    pub async fn delete_user(&self, actor: &Actor, id: &UserId) -> Result<()> {
        actor.require(Action::ManageUsers)?;
        let organization = actor.organization()?;
        let now = self.now();
        self.store
            .write((self, actor, organization, id), move |(cloud, actor, organization, id), tx| {
                Box::pin(async move {
                    user::delete(tx, organization, id).await?;
                    let deed = Deed {
                        organization: Some(organization),
                        action: "user.delete",
                        target: id.as_str(),
                        detail: String::new(),
                    };
                    cloud.record(tx, actor, deed, now).await
                })
            })
            .await
    }
}
