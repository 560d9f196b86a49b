//! `sublet replicas`.

use clap::{Args, Subcommand};
use sublet_api::remote_model::{ChangeReplica, CreateReplica, Replica, ReplicaListQuery};
use sublet_core::error::Result;
use sublet_core::id::{ModelId, ReplicaId};
use sublet_core::supply::{BaseUrl, EngineKind, ReplicaSource, ReplicaState, SecretName};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{Cell, NOTHING, Table};
use crate::value::word;

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
    /// Requests of one gateway at once
    #[arg(long)]
    pub max_in_flight: Option<u32>,
    /// It is bought from outside: the worst case is held before it is asked
    #[arg(long)]
    pub supplier: bool,
}

impl ReplicaCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let state = |state| ChangeReplica { state: Some(state), max_in_flight: None };
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
                    max_in_flight: args.max_in_flight,
                    source: if args.supplier { ReplicaSource::Supplier } else { ReplicaSource::Fleet },
                };
                client.create_replica(&body, &context.fresh_key())?
            }
            Self::Drain { id } => client.change_replica(&id, &state(ReplicaState::Draining))?,
            Self::Serve { id } => client.change_replica(&id, &state(ReplicaState::Serving))?,
            Self::Remove { id } => {
                client.delete_replica(&id)?;
                return context.note(&format!("{id} is no longer asked"));
            }
        };
        context.show(&replica, |replica| table(std::slice::from_ref(replica)))
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
        ]
    });
    Table::new(["replica", "model", "url", "upstream model", "engine", "state", "health", "in flight"], "there are no replicas")
        .rows(rows)
}
