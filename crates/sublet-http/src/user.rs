//! People of an organization.

use sublet_api::list::ListQuery;
use sublet_api::object::{Deleted, UserTag};
use sublet_api::user as wire;
use sublet_cloud::data::User;
use sublet_cloud::user::NewUser;
use sublet_core::id::UserId;
use sublet_core::{Error, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_request};

fn to_wire(user: &User) -> Result<wire::User> {
    let role = wire::Role::ALL
        .into_iter()
        .find(|role| role.as_str() == user.role)
        .ok_or_else(|| Error::internal(format!("{} has the unknown role {}", user.id, user.role)))?;
    Ok(wire::User {
        object: UserTag,
        id: user.id.clone(),
        name: user.name.clone(),
        email: user.email.clone(),
        role,
        added_at: user.created_at.into(),
    })
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let body: wire::CreateUser = context.body()?;
    let new = NewUser { email: body.email, name: body.name, role: body.role.as_str().to_owned() };
    let outcome = app.cloud.create_user(&context.call()?, &new, &|user| text_of(&to_wire(user)?)).await?;
    once(outcome, |user| to_wire(user).ok())
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let asked = context.query::<ListQuery>()?.page();
    let page = app.cloud.list_users(&context.actor, &page_request(&asked)?).await?;
    let mut users = page.items.iter().map(to_wire).collect::<Result<Vec<_>>>()?;
    if asked.before.is_some() {
        users.reverse();
    }
    json(&sublet_api::List::page(users, page.has_more, |user| user.id.to_string()))
}

pub async fn delete(app: App, context: Context) -> Result<Answer> {
    let id: UserId = context.path("id")?;
    app.cloud.delete_user(&context.actor, &id).await?;
    json(&Deleted::new("organization.user", id.as_str()))
}
