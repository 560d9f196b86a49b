//! JSON Schemas of vocabulary types that `sublet-core` serializes but does not describe.
//!
//! They appear in `#[schemars(with = "…")]` only; no value of these types exists.

use std::borrow::Cow;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use sublet_core::error::ErrorCode;
use sublet_core::file::FilePurpose;
use sublet_core::id::Identifier;
use sublet_core::notice::NoticeClass;
use sublet_core::offering::{OfferingState, Reach};
use sublet_core::rate::RateMetric;
use sublet_core::supplier::ExternalSupply;
use sublet_core::tier::ServiceTier;

/// An identifier of one kind.
pub enum IdText<I> {
    /// Never made.
    Never(std::convert::Infallible, PhantomData<I>),
}

impl<I: Identifier> JsonSchema for IdText<I> {
    fn schema_name() -> Cow<'static, str> {
        Cow::Owned(format!("Id_{}", I::PREFIX))
    }
    fn inline_schema() -> bool {
        true
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": format!("^{}_[0-9a-z]{{1,64}}$", I::PREFIX) })
    }
}

macro_rules! text_schemas {
    ($($(#[$doc:meta])* $name:ident = $schema:expr;)+) => {
        $(
            $(#[$doc])*
            pub enum $name {}

            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> { Cow::Borrowed(stringify!($name)) }
                fn inline_schema() -> bool { true }
                fn json_schema(_: &mut SchemaGenerator) -> Schema { $schema }
            }
        )+
    };
}

text_schemas! {
    /// An ISO 4217 code.
    CurrencyText = json_schema!({ "type": "string", "pattern": "^[A-Z]{3}$", "description": "ISO 4217 code" });
    /// A notice class.
    NoticeText = json_schema!({ "type": "string", "enum": NoticeClass::ALL.map(NoticeClass::as_str) });
    /// A service tier.
    TierText = json_schema!({ "type": "string", "enum": ServiceTier::ALL.map(ServiceTier::as_str) });
    /// What a rate limit counts.
    RateMetricText = json_schema!({ "type": "string", "enum": RateMetric::ALL.map(RateMetric::as_str) });
    /// A plane of keys.
    PlaneText = json_schema!({ "type": "string", "enum": ["project", "admin", "operator"] });
    /// What an organization is to the owner.
    ClassText = json_schema!({ "type": "string", "enum": ["internal", "external", "partner", "supplier"] });
    /// How strictly a workload is separated.
    IsolationText = json_schema!({ "type": "string", "enum": ["process", "sandbox"] });
    /// What a file is for.
    PurposeText = json_schema!({ "type": "string", "enum": FilePurpose::ALL.map(FilePurpose::as_str) });
    /// What is known of a server's own ways.
    EngineKindText = json_schema!({ "type": "string", "enum": ["vllm", "sglang", "llama_cpp", "openai"] });
    /// Whether anybody can have a model's weights.
    WeightsText = json_schema!({ "type": "string", "enum": ["open", "proprietary"] });
    /// How far a product is in its life.
    OfferingStateText = json_schema!({ "type": "string", "enum": OfferingState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>() });
    /// What is sold.
    ProductText = json_schema!({ "type": "string", "pattern": "^(model|device)/[!-~]+$" });
    /// Who may know of a product.
    ReachText = json_schema!({ "type": "string", "enum": Reach::ALL.iter().map(|reach| reach.as_str()).collect::<Vec<_>>() });
    /// Whether new requests go to a replica.
    ReplicaStateText = json_schema!({ "type": "string", "enum": ["serving", "draining"] });
    /// Whose hardware a replica is on.
    ReplicaSourceText = json_schema!({ "type": "string", "enum": ["fleet", "supplier"] });
    /// A stable error code.
    CodeText = json_schema!({
        "type": "string",
        "enum": ErrorCode::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>(),
    });
    /// Content hash of a price-list version.
    PriceVersionText = json_schema!({ "type": "string", "description": "content hash of an immutable price-list version" });
    /// Content hash of a version.
    VersionText = json_schema!({ "type": "string", "description": "content hash of an immutable version" });
    /// Which suppliers may see data.
    ExternalSupplyText = json_schema!({ "type": "string", "enum": ExternalSupply::ALL.map(ExternalSupply::as_str) });
    /// How long data is kept.
    RetentionText = json_schema!({ "type": "string", "pattern": "^(none|unknown|[1-9][0-9]{0,3}d)$" });
    /// A place by its short name.
    RegionText = json_schema!({ "type": "string", "pattern": "^[a-z0-9-]{1,32}$" });
    /// Who answered a request.
    MeasuredText = json_schema!({ "type": "string", "enum": ["engine", "estimated", "bounded"] });
    ServedByText = json_schema!({ "type": "string", "enum": ["engine", "fleet", "supplier"] });
    /// How a request ended.
    OutcomeText = json_schema!({
        "type": "string",
        "enum": ["completed", "length", "budget_stopped", "client_cancelled", "server_stopped", "preempted"],
    });
}
