//! `sublet models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sublet_api::list::ListQuery;
use sublet_api::model::ImportModel;
use sublet_api::openai::{Model, ModelList, TokenPrice};
use sublet_api::remote_model::{CreateRemoteModel, RemoteModel};
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ModelId, OrganizationId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, NOTHING, Table};

/// Models that are served.
#[derive(Subcommand, Debug)]
pub enum ModelCommand {
    /// List the models this key may call, with prices
    List,
    /// Import a model from a directory or GGUF file on the server's machine (operator)
    Import {
        path: PathBuf,
        /// The name callers will use
        #[arg(long)]
        name: Option<String>,
    },
    /// Offer a model that other servers answer for; add the servers with 'sublet replicas add' (operator)
    Add(AddArgs),
    /// List the models that other servers answer for (operator)
    Remote {
        #[command(flatten)]
        page: PageArgs,
    },
    /// Withdraw a model that other servers answered for (operator)
    Remove { id: ModelId },
    /// Bring a model from a Hugging Face hub to this machine and import it (operator)
    ///
    /// The cloud must run on this machine. HF_ENDPOINT names another hub, HF_TOKEN opens private models.
    Pull(PullArgs),
}

/// Which model.
#[derive(Args, Debug)]
pub struct AddArgs {
    /// The name callers will use
    pub name: String,
    /// Prompt and output together, in tokens
    #[arg(long, value_name = "TOKENS")]
    pub context: u64,
    /// Output of one answer, in tokens; the context if none is given
    #[arg(long, value_name = "TOKENS")]
    pub max_output: Option<u64>,
    /// Who made it
    #[arg(long, default_value = "unknown")]
    pub owned_by: String,
    /// An organization that may call it; everybody if none is given
    #[arg(long = "only-for", value_name = "ORGANIZATION")]
    pub organizations: Vec<OrganizationId>,
}

impl AddArgs {
    fn body(self) -> CreateRemoteModel {
        CreateRemoteModel {
            name: self.name,
            owned_by: self.owned_by,
            context_window: self.context,
            max_output_tokens: self.max_output,
            organizations: (!self.organizations.is_empty()).then_some(self.organizations),
        }
    }
}

/// What to pull.
#[derive(Args, Debug)]
pub struct PullArgs {
    /// The model, as hf:OWNER/NAME
    pub source: String,
    /// A branch, tag or commit; main if none is given
    #[arg(long)]
    pub revision: Option<String>,
    /// One .gguf file of the model, where it has several
    #[arg(long, value_name = "FILE")]
    pub file: Option<String>,
    /// The name callers will use; NAME if none is given
    #[arg(long)]
    pub name: Option<String>,
}

impl ModelCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match self {
            Self::List => {
                let models = client.models()?;
                context.show(&models, table)
            }
            Self::Import { path, name } => {
                let whole = std::fs::canonicalize(&path).map_err(|error| {
                    Error::new(ErrorCode::ModelFileInvalid, format!("{} cannot be read: {error}", path.display()))
                })?;
                let path = whole.to_str().map(str::to_owned).ok_or_else(|| {
                    Error::new(ErrorCode::Usage, format!("{} is not valid UTF-8, which the API needs", whole.display()))
                })?;
                let model = client.import_model(&ImportModel { path, name })?;
                context.show_text(&model, |model, _| format!("{}\n", render::plain(&model.id)))?;
                note_missing_price(context, model.priced)
            }
            Self::Add(args) => {
                let model = client.create_remote_model(&args.body(), &context.fresh_key())?;
                context.show(&model, |model| remote_table(std::slice::from_ref(model)))?;
                note_missing_price(context, model.priced)
            }
            Self::Remote { page } => {
                let order = page.order();
                let list = client.remote_models(&ListQuery { limit: page.limit, after: page.after, before: None, order })?;
                show_page(context, &list, remote_table)
            }
            Self::Remove { id } => {
                client.delete_remote_model(&id)?;
                context.note(&format!("{id} is withdrawn"))
            }
            // The binary brings the files and imports them: the client commands talk to clouds only.
            Self::Pull(_) => Err(Error::new(ErrorCode::Usage, "this program does not reach model hubs")
                .alternative("copy the model's files and use 'sublet models import PATH'")),
        }
    }
}

fn note_missing_price(context: &mut Context<'_>, priced: bool) -> Result<()> {
    if priced {
        return Ok(());
    }
    context.note("it has no price yet and cannot be called: add it to the price list with 'sublet prices publish FILE'")
}

fn remote_table(models: &[RemoteModel]) -> Table {
    let rows = models.iter().map(|model| {
        [
            Cell::text(model.id.as_str()),
            Cell::text(&model.name),
            Cell::text(&model.owned_by),
            Cell::number(model.context_window),
            Cell::number(model.max_output_tokens),
            Cell::text(match &model.organizations {
                None => "everybody".to_owned(),
                Some(organizations) => format!("{} organizations", organizations.len()),
            }),
            Cell::text(if model.priced { "priced" } else { NOTHING }),
        ]
    });
    Table::new(["id", "name", "owner", "context", "output", "for", "price"], "no model is served elsewhere").rows(rows)
}

fn table(models: &ModelList) -> Table {
    let rows = models.data.iter().map(|model: &Model| {
        let prices = model.pricing.as_ref().map(|pricing| (price(&pricing.input), price(&pricing.output)));
        let (input, output) = prices.unwrap_or_else(|| (NOTHING.to_owned(), NOTHING.to_owned()));
        [
            Cell::text(&model.id),
            Cell::text(&model.owned_by),
            Cell::number(model.context_window),
            Cell::number(input),
            Cell::number(output),
        ]
    });
    Table::new(["model", "owner", "context", "input", "output"], "no model is served to this key").rows(rows)
}

fn price(price: &TokenPrice) -> String {
    let per = match price.per_tokens {
        1_000_000 => "1M".to_owned(),
        1_000 => "1k".to_owned(),
        other => other.to_string(),
    };
    format!("{} / {per}", render::money(&price.price))
}
