//! `sublet projects`.

use clap::Subcommand;
use sublet_api::object::Metadata;
use sublet_api::project::{CreateProject, Project, ProjectListQuery, ProjectStatus};
use sublet_core::error::Result;

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};

/// Projects of the organization.
#[derive(Subcommand, Debug)]
pub enum ProjectCommand {
    /// List projects
    List {
        /// Archived ones too
        #[arg(long)]
        archived: bool,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Create a project
    Create {
        /// What to call it
        name: String,
    },
}

impl ProjectCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List { archived, page } => {
                let order = page.order();
                let include_archived = archived.then_some(true);
                let query = ProjectListQuery { include_archived, limit: page.limit, after: page.after, before: None, order };
                let list = client.projects(&query)?;
                show_page(context, &list, table)
            }
            Self::Create { name } => {
                let body = CreateProject { name, metadata: Metadata::default() };
                let project = client.create_project(&body, &context.fresh_key())?;
                context.show_text(&project, |project, _| format!("{}\n", project.id))
            }
        }
    }
}

fn table(projects: &[Project]) -> Table {
    let rows = projects.iter().map(|project| {
        let state = match project.status {
            ProjectStatus::Active => "active",
            ProjectStatus::Archived => "archived",
        };
        [
            Cell::text(project.id.as_str()),
            Cell::text(&project.name),
            Cell::state(state),
            Cell::text(render::unix(project.created_at)),
        ]
    });
    Table::new(["project", "name", "state", "created"], "no projects yet").rows(rows)
}
