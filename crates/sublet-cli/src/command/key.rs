//! `sublet keys`.

use clap::{Args, Subcommand};
use sublet_api::client::{Client, KeyPath};
use sublet_api::key::{AdminKey, CreateAdminKey, CreateKey, CreatedAdminKey, CreatedKey, Key, KeyOwnerKind, RateLimits};
use sublet_api::list::ListQuery;
use sublet_api::object::Metadata;
use sublet_api::time::Rfc3339;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{KeyId, ProjectId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// Keys of a project, of the project key's own project if none is named; or admin or operator keys.
#[derive(Subcommand, Debug)]
pub enum KeyCommand {
    /// List keys, without their secrets
    List {
        #[arg(long)]
        project: Option<ProjectId>,
        #[command(flatten)]
        plane: PlaneArgs,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Create a key; its secret is printed this once
    Create(CreateArgs),
    /// Revoke a key at once
    Revoke {
        id: KeyId,
        #[arg(long)]
        project: Option<ProjectId>,
        #[command(flatten)]
        plane: PlaneArgs,
    },
}

/// Keys that open more than a project.
#[derive(Args, Clone, Copy, Debug)]
pub struct PlaneArgs {
    /// Admin keys of your organization
    #[arg(long, conflicts_with_all = ["project", "operator"])]
    pub admin: bool,
    /// Keys of the operator
    #[arg(long, conflicts_with = "project")]
    pub operator: bool,
}

impl PlaneArgs {
    const fn owner(self) -> Option<KeyOwnerKind> {
        match (self.admin, self.operator) {
            (false, false) => None,
            (true, _) => Some(KeyOwnerKind::Organization),
            (false, true) => Some(KeyOwnerKind::Operator),
        }
    }
}

/// A new key.
#[derive(Args, Debug)]
pub struct CreateArgs {
    /// What to call it
    pub name: String,
    #[arg(long)]
    pub project: Option<ProjectId>,
    #[command(flatten)]
    pub plane: PlaneArgs,
    /// Allow only this model (repeatable)
    #[arg(long = "model", value_name = "MODEL", conflicts_with_all = ["admin", "operator"])]
    pub models: Vec<String>,
    /// It stops working at this instant
    #[arg(long, value_name = "INSTANT")]
    pub expires_at: Option<Rfc3339>,
    #[arg(long, value_name = "N", conflicts_with_all = ["admin", "operator"])]
    pub requests_per_minute: Option<u32>,
    #[arg(long, value_name = "N", conflicts_with_all = ["admin", "operator"])]
    pub tokens_per_minute: Option<u32>,
    #[arg(long, value_name = "N", conflicts_with_all = ["admin", "operator"])]
    pub concurrent_requests: Option<u32>,
}

impl KeyCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { project, plane, page } => {
                let order = page.order();
                let query = ListQuery { limit: page.limit, after: page.after, before: None, order };
                if let Some(owner) = plane.owner() {
                    return show_page(context, &client.admin_keys(owner, &query)?, admin_table);
                }
                let project = project_or_own(project, &client)?;
                let list = client.project_keys(&project, &query)?;
                show_page(context, &list, table)
            }
            Self::Create(args) => args.run(&client, context),
            Self::Revoke { id, project, plane } => {
                let removed = match plane.owner() {
                    Some(owner) => client.revoke_admin_key(owner, &id)?,
                    None => client.revoke_project_key(&KeyPath { project: project_or_own(project, &client)?, key: id })?,
                };
                context.show_text(&removed, |removed, _| format!("revoked {}\n", render::plain(&removed.id)))
            }
        }
    }
}

impl CreateArgs {
    fn run(self, client: &Client, context: &mut Context<'_>) -> Result<()> {
        if let Some(owner) = self.plane.owner() {
            let body = CreateAdminKey { name: self.name, expires_at: self.expires_at };
            let created = client.create_admin_key(owner, &body, &context.fresh_key())?;
            context.show_text(&created, |created: &CreatedAdminKey, _| format!("{}\n", created.value.reveal()))?;
            return context.note(&format!("{}; the secret is not shown again", created.key.id));
        }
        let project = project_or_own(self.project, client)?;
        let body = CreateKey {
            name: self.name,
            models: (!self.models.is_empty()).then_some(self.models),
            expires_at: self.expires_at,
            rate_limits: RateLimits {
                requests_per_minute: self.requests_per_minute,
                tokens_per_minute: self.tokens_per_minute,
                concurrent_requests: self.concurrent_requests,
            },
            metadata: Metadata::default(),
        };
        let created = client.create_project_key(&project, &body, &context.fresh_key())?;
        context.show_text(&created, |created: &CreatedKey, _| format!("{}\n", created.value.reveal()))?;
        context.note(&format!("{} of {project}; the secret is not shown again", created.key.id))
    }
}

/// The named project, or else the one the project key belongs to.
pub(super) fn project_or_own(project: Option<ProjectId>, client: &Client) -> Result<ProjectId> {
    if let Some(project) = project {
        return Ok(project);
    }
    client.account().map(|account| account.project).map_err(|error| match error.code() {
        ErrorCode::MissingApiKey => {
            Error::new(ErrorCode::Usage, "say which project with --project").alternative("sublet projects list")
        }
        _ => error,
    })
}

fn table(keys: &[Key]) -> Table {
    let rows = keys.iter().map(|key| {
        let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
        [
            Cell::text(key.id.as_str()),
            Cell::text(&key.name),
            Cell::state(state),
            Cell::text(&key.redacted_value),
            Cell::text(key.models.as_ref().map_or_else(|| "all".to_owned(), |models| models.join(", "))),
            Cell::text(render::unix(key.created_at)),
            Cell::optional(key.expires_at.map(render::unix)),
            Cell::optional(key.last_used_at.map(render::unix)),
        ]
    });
    Table::new(["key", "name", "state", "secret", "models", "created", "expires", "used"], "no keys yet").rows(rows)
}

fn admin_table(keys: &[AdminKey]) -> Table {
    let rows = keys.iter().map(|key| {
        let state = if key.revoked_at.is_some() { "revoked" } else { "active" };
        [
            Cell::text(key.id.as_str()),
            Cell::text(&key.name),
            Cell::state(state),
            Cell::text(&key.redacted_value),
            Cell::text(render::unix(key.created_at)),
            Cell::optional(key.expires_at.map(render::unix)),
        ]
    });
    Table::new(["key", "name", "state", "secret", "created", "expires"], "no keys yet").rows(rows)
}
