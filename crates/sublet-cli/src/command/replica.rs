//! `sublet replicas`.

use clap::{Args, Subcommand};
use sublet_api::money::Amount;
use sublet_api::remote_model::{ChangeReplica, CreateReplica, Replica, ReplicaListQuery};
use sublet_api::supplier::{MarginLine, ReplicaCost, SetReplicaCost, SupplierPolicy, TierMargin};
use sublet_api::usage::UsageQuery;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::{ModelId, OrganizationId, ReplicaId};
use sublet_core::kv_events::KvEvents;
use sublet_core::supplier::{Region, Retention};
use sublet_core::supply::{BaseUrl, EngineKind, ReplicaSource, ReplicaState, SecretName};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, NOTHING, Table};
use crate::value::{MoneyArgument, word};

/// Servers that answer for remote models.
#[derive(Subcommand, Debug)]
pub enum ReplicaCommand {
    /// List servers and how they are
    List {
        /// Of this model only
        #[arg(long)]
        model: Option<ModelId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Add a server to a remote model
    Add(AddArgs),
    /// Send no new requests there; what it has begun goes on
    Drain { id: ReplicaId },
    /// Send requests there again
    Serve { id: ReplicaId },
    /// Forget a server
    Remove { id: ReplicaId },
    /// Change on which terms a supplier's server is used
    Terms {
        id: ReplicaId,
        /// Who is owed for it, where nobody was named yet
        #[arg(long, value_name = "ORGANIZATION")]
        supplier: Option<OrganizationId>,
        #[command(flatten)]
        terms: TermsArgs,
    },
    /// Set what a supplier's server costs from now on, or show what it costs
    Cost(CostArgs),
    /// What was bought from suppliers, and what stays of what it was sold for
    Margins,
}

/// What a supplier does with data, and what has to stay of the price.
#[derive(Args, Debug)]
pub struct TermsArgs {
    /// How long it keeps prompts and answers: none, unknown, or days as 30d
    #[arg(long, value_name = "TIME")]
    pub retention: Option<Retention>,
    /// It does not train models on them
    #[arg(long, requires = "retention")]
    pub no_training: bool,
    /// Where it processes them, such as eu
    #[arg(long, requires = "retention")]
    pub region: Option<Region>,
    /// Least part of the price that has to stay, in thousandths
    #[arg(long, value_name = "PERMILLE")]
    pub min_margin: Option<u16>,
}

impl TermsArgs {
    fn data_policy(&self) -> Option<SupplierPolicy> {
        let (retention, region) = (self.retention?, self.region.clone());
        Some(SupplierPolicy { retention, used_for_training: !self.no_training, region })
    }
}

/// A cost for a million tokens of each kind; without any, the costs that were set are listed.
#[derive(Args, Debug)]
pub struct CostArgs {
    pub id: ReplicaId,
    #[arg(long, value_name = "AMOUNT", requires = "output")]
    pub input: Option<MoneyArgument>,
    /// As other input if left out
    #[arg(long, value_name = "AMOUNT", requires = "input")]
    pub cached_input: Option<MoneyArgument>,
    #[arg(long, value_name = "AMOUNT", requires = "input")]
    pub output: Option<MoneyArgument>,
}

/// Which server.
#[derive(Args, Debug)]
pub struct AddArgs {
    pub model: ModelId,
    /// Up to and with /v1
    #[arg(long)]
    pub base_url: BaseUrl,
    /// What the server calls the model
    #[arg(long)]
    pub upstream_model: String,
    /// The name of a file in the folder 'secrets' of the cloud's data directory
    #[arg(long)]
    pub secret: Option<SecretName>,
    /// vllm, sglang, llama_cpp or openai
    #[arg(long, default_value = "openai", value_parser = word::<EngineKind>)]
    pub engine: EngineKind,
    /// Where vLLM or SGLang publishes what its cache keeps; the model needs a tokenizer
    #[arg(long, value_name = "tcp://HOST:PORT")]
    pub kv_events: Option<KvEvents>,
    /// Requests of one gateway at once
    #[arg(long)]
    pub max_in_flight: Option<u32>,
    /// It is bought from this organization of the class supplier: used when the fleet has no place
    #[arg(long, value_name = "ORGANIZATION")]
    pub supplier: Option<OrganizationId>,
    #[command(flatten)]
    pub terms: TermsArgs,
}

impl ReplicaCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let state = |state| ChangeReplica { state: Some(state), ..ChangeReplica::default() };
        let replica = match self {
            Self::List { model, page } => {
                let order = page.order();
                let query = ReplicaListQuery { model, limit: page.limit, after: page.after, before: None, order };
                let list = client.replicas(&query)?;
                return show_page(context, &list, table);
            }
            Self::Add(args) => {
                let body = CreateReplica {
                    model: args.model,
                    base_url: args.base_url,
                    upstream_model: args.upstream_model,
                    secret: args.secret,
                    engine: args.engine,
                    kv_events: args.kv_events,
                    max_in_flight: args.max_in_flight,
                    source: ReplicaSource::default(),
                    data_policy: args.terms.data_policy(),
                    min_margin_permille: args.terms.min_margin,
                    supplier: args.supplier,
                };
                client.create_replica(&body, &context.fresh_key())?
            }
            Self::Drain { id } => client.change_replica(&id, &state(ReplicaState::Draining))?,
            Self::Serve { id } => client.change_replica(&id, &state(ReplicaState::Serving))?,
            Self::Remove { id } => {
                client.delete_replica(&id)?;
                return context.note(&format!("{id} is no longer asked"));
            }
            Self::Terms { id, supplier, terms } => {
                let (data_policy, min_margin_permille) = (terms.data_policy(), terms.min_margin);
                client.change_replica(
                    &id,
                    &ChangeReplica { supplier, data_policy, min_margin_permille, ..ChangeReplica::default() },
                )?
            }
            Self::Cost(args) => return args.run(context),
            Self::Margins => {
                let margins = client.margins(&UsageQuery::default())?;
                return context.show(&margins, |margins| margin_table(&margins.lines));
            }
        };
        context.show(&replica, |replica| table(std::slice::from_ref(replica)))
    }
}

impl CostArgs {
    fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        match (self.input, self.output) {
            (Some(input), Some(output)) => {
                let typed = [Some(input), self.cached_input, Some(output)];
                let currency = typed.iter().flatten().find_map(|amount| amount.currency);
                if let Some(other) =
                    typed.iter().flatten().find(|amount| amount.currency.is_some_and(|typed| Some(typed) != currency))
                {
                    let message = format!("a cost is in one currency, and {} is in another", other.amount);
                    return Err(Error::new(ErrorCode::CurrencyMismatch, message));
                }
                let body = SetReplicaCost {
                    input: Amount(input.amount),
                    cached_input: self.cached_input.map(|cached| Amount(cached.amount)),
                    output: Amount(output.amount),
                    currency,
                    effective_at: None,
                };
                let cost = client.set_replica_cost(&self.id, &body, &context.fresh_key())?;
                context.show(&cost, |cost| cost_table(std::slice::from_ref(cost)))
            }
            (_, _) => {
                let costs = client.replica_costs(&self.id)?;
                context.show(&costs, |costs| cost_table(&costs.data))
            }
        }
    }
}

fn cost_table(costs: &[ReplicaCost]) -> Table {
    let rows = costs.iter().map(|cost| {
        [
            Cell::text(render::instant(cost.effective_at.0)),
            Cell::text(&cost.model),
            Cell::number(cost.input.0),
            Cell::number(cost.cached_input.0),
            Cell::number(cost.output.0),
            Cell::text(cost.currency.as_str()),
            Cell::text(cost.version.0.chars().take(12).collect::<String>()),
        ]
    });
    let head = ["from", "model", "input per 1M", "cached input", "output", "in", "version"];
    Table::new(head, "its cost is unknown: it is not used").rows(rows)
}

fn margin_table(lines: &[MarginLine]) -> Table {
    let rows = lines.iter().map(|line| {
        [
            Cell::text(&line.model),
            Cell::text(line.supplier.as_str()),
            Cell::number(line.purchases),
            Cell::number(line.unsold),
            Cell::number(render::money(&line.revenue)),
            Cell::number(render::money(&line.cost)),
            Cell::number(render::money(&line.margin)),
            Cell::number(line.margin_permille.map_or_else(|| NOTHING.to_owned(), share)),
        ]
    });
    let head = ["model", "supplier", "bought", "unsold", "revenue", "cost", "margin", "of revenue"];
    Table::new(head, "nothing was bought this month").rows(rows)
}

/// Thousandths as percent.
fn share(permille: i64) -> String {
    let sign = if permille < 0 { "-" } else { "" };
    let permille = permille.unsigned_abs();
    format!("{sign}{}.{} %", permille / 10, permille % 10)
}

/// Whether a server is used: the fleet's are, a supplier's where its cost leaves its margin.
fn use_of(replica: &Replica) -> String {
    let Some(supply) = &replica.supply else { return "fleet".to_owned() };
    if supply.supplier.is_none() {
        return "not used: no supplier".to_owned();
    }
    if supply.cost_version.is_none() {
        return "not used: no cost".to_owned();
    }
    let tier = |tier: &TierMargin| {
        let margin = tier.margin_permille.map_or_else(|| NOTHING.to_owned(), share);
        let refused = if tier.refused.is_some() { " refused" } else { "" };
        format!("{} {margin}{refused}", tier.service_tier)
    };
    if supply.tiers.is_empty() {
        "not used: no price".to_owned()
    } else {
        supply.tiers.iter().map(tier).collect::<Vec<_>>().join(", ")
    }
}

fn table(replicas: &[Replica]) -> Table {
    let rows = replicas.iter().map(|replica| {
        let resting = replica.seen.is_some_and(|seen| seen.resting_until.is_some());
        let health = if replica.seen.is_none() {
            NOTHING
        } else if resting {
            "failing"
        } else {
            "well"
        };
        [
            Cell::text(replica.id.as_str()),
            Cell::text(replica.model.as_str()),
            Cell::text(replica.base_url.as_str()),
            Cell::text(&replica.upstream_model),
            Cell::text(replica.engine.as_str()),
            Cell::state(if replica.state == ReplicaState::Serving { "serving" } else { "draining" }),
            Cell::text(health),
            Cell::number(replica.seen.map_or(0, |seen| seen.in_flight)),
            Cell::text(use_of(replica)),
        ]
    });
    let head = ["replica", "model", "url", "upstream model", "engine", "state", "health", "in flight", "use and margin"];
    Table::new(head, "there are no replicas").rows(rows)
}
