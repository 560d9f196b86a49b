//! `sublet models`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use sublet_api::card::{AcceptLicence, AcceptedLicence, DataPolicy, Licence, ModelCard, SetModelCard};
use sublet_api::list::ListQuery;
use sublet_api::model::ImportModel;
use sublet_api::openai::{Model, ModelList, TokenPrice};
use sublet_api::remote_model::{CreateRemoteModel, RemoteModel};
use sublet_api::time::Rfc3339;
use sublet_core::card::Weights;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ModelId, OrganizationId};
use sublet_core::tokenizer::TokenizerName;

use super::{PageArgs, offering, show_page};
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
    /// Show a model's card: licence, data policy, end, aliases (operator)
    Card { name: String },
    /// Say more of a model in its card; what is not named stays (operator)
    Describe(Box<DescribeArgs>),
    /// Accept a model's licence for the organization (admin)
    Accept {
        /// The model, or an alias of it
        name: String,
        /// The name of the licence that you have read
        #[arg(long)]
        licence: String,
    },
    /// List the licences that the organization accepted (admin)
    Licences,
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
    /// A folder in the folder 'tokenizers' of the cloud's data directory: counts what the servers do not
    #[arg(long, value_name = "NAME")]
    pub tokenizer: Option<TokenizerName>,
}

impl AddArgs {
    fn body(self) -> CreateRemoteModel {
        CreateRemoteModel {
            name: self.name,
            owned_by: self.owned_by,
            context_window: self.context,
            max_output_tokens: self.max_output,
            organizations: (!self.organizations.is_empty()).then_some(self.organizations),
            tokenizer: self.tokenizer,
        }
    }
}

/// What to say of a model.
#[derive(Args, Debug)]
pub struct DescribeArgs {
    /// The model's name; it need not be served yet
    pub name: String,
    /// Who made it
    #[arg(long)]
    pub owned_by: Option<String>,
    #[arg(long)]
    pub description: Option<String>,
    /// Whether anybody can have the weights
    #[arg(long, value_parser = weights, value_name = "open|proprietary")]
    pub weights: Option<Weights>,
    /// The licence's SPDX identifier where there is one, otherwise its name
    #[arg(long)]
    pub licence: Option<String>,
    /// Where the licence can be read
    #[arg(long, value_name = "URL", requires = "licence")]
    pub licence_url: Option<String>,
    /// Organizations must accept the licence before they call the model
    #[arg(long, requires = "licence_url")]
    pub acceptance_required: bool,
    /// How long prompts and outputs are kept, in words
    #[arg(long)]
    pub retention: Option<String>,
    /// Whether somebody trains models with them
    #[arg(long, value_name = "true|false")]
    pub used_for_training: Option<bool>,
    /// A country or region in which it is served
    #[arg(long, value_name = "PLACE")]
    pub served_in: Vec<String>,
    /// An organization that may call it; everybody if none is given
    #[arg(long = "only-for", value_name = "ORGANIZATION")]
    pub organizations: Vec<OrganizationId>,
    /// Nobody should begin to use it from then on, as RFC 3339
    #[arg(long, value_name = "INSTANT")]
    pub deprecated_at: Option<Rfc3339>,
    /// It is not served from then on, as RFC 3339
    #[arg(long, value_name = "INSTANT")]
    pub shutdown_date: Option<Rfc3339>,
    /// The model to use instead
    #[arg(long, value_name = "MODEL")]
    pub replacement: Option<String>,
    /// Another name that means this model
    #[arg(long = "alias", value_name = "NAME")]
    pub aliases: Vec<String>,
    /// Forget what was said before
    #[arg(long)]
    pub replace: bool,
}

fn weights(text: &str) -> Result<Weights, String> {
    match text {
        "open" => Ok(Weights::Open),
        "proprietary" => Ok(Weights::Proprietary),
        _ => Err("weights are open or proprietary".to_owned()),
    }
}

impl DescribeArgs {
    /// The card with what is named here in the place of what was said before.
    fn onto(self, before: SetModelCard) -> SetModelCard {
        let licence =
            self.licence.map(|name| Licence { name, url: self.licence_url, acceptance_required: self.acceptance_required });
        let list = |new: Vec<String>, old: Vec<String>| if new.is_empty() { old } else { new };
        let says_policy = self.retention.is_some() || self.used_for_training.is_some() || !self.served_in.is_empty();
        let policy = before.data_policy.clone().unwrap_or_default();
        let policy = DataPolicy {
            retention: self.retention.or(policy.retention),
            used_for_training: self.used_for_training.or(policy.used_for_training),
            served_in: list(self.served_in, policy.served_in),
        };
        SetModelCard {
            owned_by: self.owned_by.or(before.owned_by),
            description: self.description.or(before.description),
            weights: self.weights.or(before.weights),
            licence: licence.or(before.licence),
            data_policy: if says_policy { Some(policy) } else { before.data_policy },
            organizations: if self.organizations.is_empty() { before.organizations } else { Some(self.organizations) },
            deprecated_at: self.deprecated_at.or(before.deprecated_at),
            shutdown_date: self.shutdown_date.or(before.shutdown_date),
            replacement: self.replacement.or(before.replacement),
            aliases: list(self.aliases, before.aliases),
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
            Self::Card { name } => {
                let card = client.model_card(&name)?;
                context.show(&card, card_table)
            }
            Self::Describe(args) => {
                let name = args.name.clone();
                let before = match client.model_card(&name) {
                    Ok(card) if !args.replace => card.card,
                    Ok(_) => SetModelCard::default(),
                    Err(error) if error.code() == ErrorCode::NotFound => SetModelCard::default(),
                    Err(error) => return Err(error),
                };
                let card = client.set_model_card(&name, &args.onto(before))?;
                context.show(&card, card_table)
            }
            Self::Accept { name, licence } => {
                let accepted = client.accept_licence(&AcceptLicence { model: name, licence }, &context.fresh_key())?;
                context.show(&accepted, |accepted| licence_table(std::slice::from_ref(accepted)))
            }
            Self::Licences => {
                let list = client.licences()?;
                context.show(&list, |list| licence_table(&list.data))
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

fn card_table(card: &ModelCard) -> Table {
    let said = &card.card;
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| NOTHING.to_owned());
    let licence = said.licence.as_ref().map(|licence| {
        let must = if licence.acceptance_required { ", to be accepted" } else { "" };
        format!("{}{must}", licence.name)
    });
    let policy = said.data_policy.clone().unwrap_or_default();
    let trained = policy.used_for_training.map(|used| if used { "used" } else { "not used" }.to_owned());
    let only = said.organizations.as_ref().map(|organizations| format!("{} organizations", organizations.len()));
    let rows = [
        ("model", card.id.clone()),
        ("owner", text(&said.owned_by)),
        ("description", text(&said.description)),
        ("weights", text(&said.weights.map(|weights| weights_text(weights).to_owned()))),
        ("licence", text(&licence)),
        ("read it at", text(&said.licence.as_ref().and_then(|licence| licence.url.clone()))),
        ("prompts kept", text(&policy.retention)),
        ("for training", text(&trained)),
        ("served in", policy.served_in.join(", ")),
        ("for", only.unwrap_or_else(|| "everybody".to_owned())),
        ("deprecated", render::rfc3339(said.deprecated_at)),
        ("shut down", render::rfc3339(said.shutdown_date)),
        ("use instead", text(&said.replacement)),
        ("aliases", said.aliases.join(", ")),
    ];
    Table::of_fields(rows.into_iter().map(|(name, value)| (name, Cell::text(value))).collect())
}

const fn weights_text(weights: Weights) -> &'static str {
    match weights {
        Weights::Open => "open",
        Weights::Proprietary => "proprietary",
    }
}

fn licence_table(accepted: &[AcceptedLicence]) -> Table {
    let rows = accepted.iter().map(|accepted| {
        [
            Cell::text(&accepted.model),
            Cell::text(&accepted.licence),
            Cell::text(&accepted.accepted_by),
            Cell::text(render::unix(accepted.accepted_at)),
        ]
    });
    Table::new(["model", "licence", "accepted by", "at"], "no licence was accepted").rows(rows)
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
            Cell::text(model.tokenizer.as_ref().map_or(NOTHING, TokenizerName::as_str)),
            Cell::text(if model.priced { "priced" } else { NOTHING }),
        ]
    });
    Table::new(["id", "name", "owner", "context", "output", "for", "tokenizer", "price"], "no model is served elsewhere").rows(rows)
}

fn table(models: &ModelList) -> Table {
    let rows = models.data.iter().map(|model: &Model| {
        let prices = model.pricing.as_ref().map(|pricing| {
            let request = pricing.request.as_ref().map(|amount| format!(" + {} / request", render::money(amount)));
            (price(&pricing.input), format!("{}{}", price(&pricing.output), request.unwrap_or_default()))
        });
        let (input, output) = prices.unwrap_or_else(|| (NOTHING.to_owned(), NOTHING.to_owned()));
        [
            Cell::text(&model.id),
            Cell::text(&model.owned_by),
            Cell::number(model.context_window),
            Cell::number(input),
            Cell::number(output),
            Cell::text(state(model)),
        ]
    });
    Table::new(["model", "owner", "context", "input", "output", "note"], "no model is served to this key").rows(rows)
}

/// What keeps a model from being called, now or soon.
fn state(model: &Model) -> String {
    let unaccepted = model.sublet.licence.as_ref().filter(|licence| !licence.accepted);
    let licence = unaccepted.map(|licence| format!("accept the licence {}", licence.name));
    let end = model.shutdown_date.map(|at| format!("until {}", render::unix(at)));
    let offering = model.sublet.offering.as_ref().map(offering::words);
    let notes: Vec<String> = licence.into_iter().chain(end).chain(offering).collect();
    if notes.is_empty() { NOTHING.to_owned() } else { notes.join(", ") }
}

fn price(price: &TokenPrice) -> String {
    let per = match price.per_tokens {
        1_000_000 => "1M".to_owned(),
        1_000 => "1k".to_owned(),
        other => other.to_string(),
    };
    format!("{} / {per}", render::money(&price.price))
}
