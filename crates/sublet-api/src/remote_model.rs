//! Models that other servers answer for, and those servers, as the operator sees them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{ModelId, OrganizationId, ReplicaId};
use sublet_core::kv_events::KvEvents;
use sublet_core::supply::{BaseUrl, EngineKind, ReplicaSource, ReplicaState, SecretName};
use sublet_core::tokenizer::TokenizerName;

use crate::list::list_query;
use crate::object::{RemoteModelTag, ReplicaTag};
use crate::schema::{EngineKindText, IdText, ReplicaSourceText, ReplicaStateText};
use crate::supplier::{ReplicaSupply, SupplierPolicy};
use crate::time::UnixSeconds;

/// A model that replicas serve.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RemoteModel {
    pub object: RemoteModelTag,
    #[schemars(with = "IdText<ModelId>")]
    pub id: ModelId,
    /// The name callers use.
    pub name: String,
    pub owned_by: String,
    /// Prompt and output together, in tokens.
    pub context_window: u64,
    /// Output of one answer, in tokens.
    pub max_output_tokens: u64,
    /// The only organizations that may call it; null is everybody.
    #[schemars(with = "Option<Vec<IdText<OrganizationId>>>")]
    pub organizations: Option<Vec<OrganizationId>>,
    /// The name of the tokenizer that counts what its servers do not; null is none, and it is estimated from bytes.
    #[schemars(with = "Option<String>")]
    pub tokenizer: Option<TokenizerName>,
    /// A price is in force; without one it is not served.
    pub priced: bool,
    pub created_at: UnixSeconds,
}

/// Body that creates a remote model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateRemoteModel {
    /// The name callers will use.
    pub name: String,
    pub owned_by: String,
    pub context_window: u64,
    /// The context window if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// Everybody may call it if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<IdText<OrganizationId>>>")]
    pub organizations: Option<Vec<OrganizationId>>,
    /// A folder in the folder `tokenizers` of every serving process' data directory, which holds the model's
    /// `tokenizer.json`, and its `tokenizer_config.json` and `chat_template.jinja` if there are such.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub tokenizer: Option<TokenizerName>,
}

/// Body that changes a remote model; what is left out stays.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeRemoteModel {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context_window: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_tokens: Option<u64>,
    /// An empty list opens it to everybody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<IdText<OrganizationId>>>")]
    pub organizations: Option<Vec<OrganizationId>>,
    /// An empty name takes it away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<String>,
}

/// A server that speaks OpenAI's API.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Replica {
    pub object: ReplicaTag,
    #[schemars(with = "IdText<ReplicaId>")]
    pub id: ReplicaId,
    #[schemars(with = "IdText<ModelId>")]
    pub model: ModelId,
    #[schemars(with = "String")]
    pub base_url: BaseUrl,
    /// What the server calls the model.
    pub upstream_model: String,
    /// The name of the secret that opens it; never the secret.
    #[schemars(with = "Option<String>")]
    pub secret: Option<SecretName>,
    #[schemars(with = "EngineKindText")]
    pub engine: EngineKind,
    /// Where it publishes what its cache keeps; null is nowhere.
    #[schemars(with = "Option<String>")]
    pub kv_events: Option<KvEvents>,
    /// Requests of one gateway at once.
    pub max_in_flight: u32,
    #[schemars(with = "ReplicaStateText")]
    pub state: ReplicaState,
    #[schemars(with = "ReplicaSourceText")]
    pub source: ReplicaSource,
    /// On which terms it is bought, and whether it is used; null for one of the fleet.
    pub supply: Option<ReplicaSupply>,
    /// How the answering process sees it; null until it was first asked.
    pub seen: Option<ReplicaSeen>,
    pub created_at: UnixSeconds,
}

/// A replica as one process sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ReplicaSeen {
    pub in_flight: u32,
    /// Left alone after failures until then; null is well.
    pub resting_until: Option<UnixSeconds>,
    /// Tokens that it says its cache has; null if it does not say.
    pub cached_tokens: Option<u64>,
}

/// Body that adds a replica to a model.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateReplica {
    #[schemars(with = "IdText<ModelId>")]
    pub model: ModelId,
    /// Up to and with `/v1`.
    #[schemars(with = "String")]
    pub base_url: BaseUrl,
    pub upstream_model: String,
    /// A file in the folder `secrets` of every serving process' data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub secret: Option<SecretName>,
    /// `openai` if left out.
    #[serde(default)]
    #[schemars(with = "EngineKindText")]
    pub engine: EngineKind,
    /// Where vLLM or SGLang publishes what its cache keeps, as `tcp://HOST:PORT`. Requests then go where most of their
    /// prompt is, if the model has a tokenizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub kv_events: Option<KvEvents>,
    /// 256 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// `fleet` if left out, or `supplier` where one is named.
    #[serde(default)]
    #[schemars(with = "ReplicaSourceText")]
    pub source: ReplicaSource,
    /// Who is owed for its answers: an organization of the class `supplier`. It is used only once its cost is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub supplier: Option<OrganizationId>,
    /// What the supplier does with data; what is not said is taken as the worst.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_policy: Option<SupplierPolicy>,
    /// Least part of the price that has to stay, in thousandths; 0 if left out: never sold below its cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub min_margin_permille: Option<u16>,
}

/// Body that changes a replica; what is left out stays.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChangeReplica {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<ReplicaStateText>")]
    pub state: Option<ReplicaState>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// For a replica that was bought before suppliers had names; never changed afterwards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<OrganizationId>>")]
    pub supplier: Option<OrganizationId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_policy: Option<SupplierPolicy>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 1000))]
    pub min_margin_permille: Option<u16>,
}

list_query! {
    /// Which replicas.
    ReplicaListQuery {
        /// Of this model only.
        #[schemars(with = "Option<IdText<ModelId>>")]
        model: ModelId,
    }
}
