//! The `object` field that names the kind of every object, and the metadata customers attach.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sublet_core::error::{Error, ErrorCode};

macro_rules! object_tags {
    ($($name:ident = $text:literal),+ $(,)?) => {
        $(
            #[doc = concat!("The constant `\"", $text, "\"`.")]
            #[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
            pub struct $name;

            impl $name {
                pub const TEXT: &'static str = $text;
            }
            impl Serialize for $name {
                fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                    serializer.serialize_str($text)
                }
            }
            impl<'de> Deserialize<'de> for $name {
                fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                    let text = Cow::<'de, str>::deserialize(deserializer)?;
                    if text == $text {
                        return Ok(Self);
                    }
                    Err(serde::de::Error::custom(concat!("this object is not a ", $text)))
                }
            }
            impl JsonSchema for $name {
                fn schema_name() -> Cow<'static, str> { Cow::Borrowed(stringify!($name)) }
                fn inline_schema() -> bool { true }
                fn json_schema(_: &mut SchemaGenerator) -> Schema { json_schema!({ "type": "string", "const": $text }) }
            }
        )+
    };
}

object_tags! {
    AccountTag = "account",
    AdminKeyTag = "organization.admin_api_key",
    AuditEntryTag = "organization.audit_log",
    AvailabilityCalendarTag = "availability_calendar",
    AvailabilityTag = "availability",
    BankStatementTag = "bank_statement",
    BatchTag = "batch",
    BillingProfileTag = "billing_profile",
    BucketTag = "bucket",
    CapacityCalendarTag = "capacity_calendar",
    CapacityTag = "capacity",
    DemandHistoryTag = "demand_history",
    DemandImportTag = "demand_import",
    DemandReportTag = "demand_report",
    ChargeTag = "charge",
    ClockTag = "clock",
    CompensationRulesTag = "compensation_rules",
    CompensationTag = "compensation",
    CompletionsUsageTag = "organization.usage.completions.result",
    ContractTag = "contract",
    CostsTag = "organization.costs.result",
    CreditBalanceTag = "credit_balance",
    CreditGrantTag = "credit_grant",
    CreditNoteTag = "credit_note",
    ArchivedFileTag = "archived_file",
    WebhookDeliveryTag = "webhook_delivery",
    WebhookEndpointTag = "webhook_endpoint",
    DeviceTag = "device",
    DunningPolicyTag = "dunning_policy",
    DunningTag = "dunning",
    EarningsTag = "report.earnings",
    FeeTag = "fee",
    ExportScheduleTag = "export_schedule",
    FileTag = "file",
    GatewayLossTag = "gateway.loss",
    HealthTag = "health",
    IncomingPaymentTag = "incoming_payment",
    InvoiceTag = "invoice",
    JobTag = "job",
    KeyTag = "organization.project.api_key",
    LeakageTag = "report.leakage",
    LeaseNoticeTag = "lease.notice",
    LeaseTag = "lease",
    LedgerAccountTag = "ledger.account",
    LedgerVerificationTag = "ledger.verification",
    LogoTag = "logo",
    LicenceTag = "organization.licence",
    ListTag = "list",
    MailTag = "mail",
    MarginReportTag = "report.margin",
    MarginsTag = "report.margins",
    ModelCardTag = "model_card",
    NodeTag = "node",
    OfferingTag = "offering",
    OrganizationTag = "organization",
    PageTag = "page",
    PaymentNoticeTag = "payment_notice",
    PayoutTag = "payout",
    PriceIndexTag = "price_index",
    SellingPolicyTag = "selling_policy",
    PriceListTag = "price_list",
    PricePointTag = "price_index.point",
    PriceSimulationTag = "price_simulation",
    ProcessorFundsTag = "report.processor_funds",
    ProjectTag = "organization.project",
    QuarantineTag = "quarantine.entry",
    QuoteTag = "quote",
    RateLimitTag = "rate_limit",
    ReceiptTag = "receipt",
    ReclaimPreviewTag = "reclaim_preview",
    ReclaimSummaryTag = "reclaim_summary",
    ReclaimTag = "reclaim",
    RefundTag = "refund",
    RemoteModelTag = "remote_model",
    ReplicaCostTag = "replica.cost",
    ReplicaTag = "replica",
    RequestTag = "request",
    RerateTag = "rerate",
    ReturnReportTag = "report.return",
    RevenueReportTag = "report.revenue",
    SavedCardTag = "saved_card",
    SellerTag = "seller",
    ServedModelTag = "served_model",
    ShowbackTag = "report.showback",
    SkuTag = "sku",
    SpendAlertTag = "spend_alert",
    SpendForecastTag = "spend_forecast",
    SpendLimitTag = "spend_limit",
    SupplyCostsTag = "supply_costs",
    TaxReportTag = "report.tax",
    TaxTableTag = "tax_table",
    TopUpRuleTag = "top_up_rule",
    TopUpTag = "top_up",
    UsageTag = "usage",
    UserTag = "organization.user",
    WhyTag = "why",
}

/// Most pairs one object may carry (OpenAI's bound).
pub const METADATA_PAIRS_MAX: usize = 16;
/// Longest metadata key, in characters (OpenAI's bound).
pub const METADATA_KEY_CHARS_MAX: usize = 64;
/// Longest metadata value, in characters (OpenAI's bound).
pub const METADATA_VALUE_CHARS_MAX: usize = 512;

/// Text a customer attaches to an object; the cloud never interprets it.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "BTreeMap<String, String>", into = "BTreeMap<String, String>")]
pub struct Metadata(BTreeMap<String, String>);

impl Metadata {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    pub fn pairs(&self) -> &BTreeMap<String, String> {
        &self.0
    }
}

impl TryFrom<BTreeMap<String, String>> for Metadata {
    type Error = Error;
    fn try_from(pairs: BTreeMap<String, String>) -> Result<Self, Error> {
        let fits = pairs.len() <= METADATA_PAIRS_MAX
            && pairs.iter().all(|(key, value)| {
                key.chars().count() <= METADATA_KEY_CHARS_MAX && value.chars().count() <= METADATA_VALUE_CHARS_MAX
            });
        if fits {
            return Ok(Self(pairs));
        }
        Err(Error::new(
            ErrorCode::InvalidRequest,
            format!(
                "metadata holds at most {METADATA_PAIRS_MAX} pairs, keys of {METADATA_KEY_CHARS_MAX} and values of {METADATA_VALUE_CHARS_MAX} characters"
            ),
        )
        .param("metadata"))
    }
}
impl From<Metadata> for BTreeMap<String, String> {
    fn from(metadata: Metadata) -> Self {
        metadata.0
    }
}

/// The answer to a deletion, in OpenAI's shape.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Deleted {
    /// The kind of the deleted object with `.deleted` at its end.
    pub object: String,
    /// What the deleted object was called in the path.
    pub id: String,
    pub deleted: bool,
}

impl Deleted {
    /// `tag` is the `object` text of what was deleted.
    pub fn new(tag: &str, id: impl Into<String>) -> Self {
        Self { object: format!("{tag}.deleted"), id: id.into(), deleted: true }
    }
}
