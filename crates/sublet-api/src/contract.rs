//! Contracts: what a customer commits to spend, and how it may leave.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::Currency;
use sublet_core::admission::PriceVersion;
use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::notice::NoticeClass;

use crate::list::list_query;
use crate::money::{Amount, Money};
use crate::object::ContractTag;
use crate::price::Price;
use crate::schema::{CurrencyText, IdText, NoticeText, PriceVersionText};
use crate::tax::PaymentTerms;
use crate::time::{Rfc3339, UnixSeconds};

/// A contract with all that was offered and agreed, and what follows from it now. Months are such as `2026-03`, in the
/// account's time zone.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Contract {
    pub object: ContractTag,
    #[schemars(with = "IdText<ContractId>")]
    pub id: ContractId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub name: String,
    pub status: ContractStatus,
    /// The first terms and amendments, in the order in which they were offered. What is accepted never changes.
    pub versions: Vec<ContractVersion>,
    /// The last month as things stand, of an offer as it would be; null where it is renewed until notice is given.
    pub last_month: Option<String>,
    /// The notice that was given.
    pub notice: Option<ContractNotice>,
    /// Commitment periods that began, the oldest first.
    pub periods: Vec<CommitmentPeriod>,
    /// How the customer may leave, and what it costs.
    pub exits: Vec<ContractExit>,
    pub created_at: UnixSeconds,
}

/// What a contract is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ContractStatus {
    /// Nobody accepted it yet.
    Offered,
    /// Nobody accepted it in time.
    Expired,
    Withdrawn,
    /// Accepted, and it has not begun.
    Agreed,
    Active,
    Ended,
}

impl ContractStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
            Self::Agreed => "agreed",
            Self::Active => "active",
            Self::Ended => "ended",
        }
    }
}

/// One version of the terms.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ContractVersion {
    /// The SHA-256 of the terms' canonical form: what is named to accept them.
    pub terms_hash: String,
    pub status: OfferStatus,
    /// The first month of the commitment period from which on they apply.
    pub from: String,
    pub terms: ContractTerms,
    pub offered_at: Rfc3339,
    pub expires_at: Rfc3339,
    /// When it was accepted or withdrawn.
    pub answered_at: Option<Rfc3339>,
}

/// What became of an offer.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OfferStatus {
    /// It can be accepted until it expires.
    Offered,
    Accepted,
    Withdrawn,
}

impl OfferStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Offered => "offered",
            Self::Accepted => "accepted",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// What is agreed.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ContractTerms {
    /// The account's.
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    /// The first month.
    pub starts: String,
    /// The term, 1 to 120 months.
    pub months: u32,
    /// Months of a commitment period: 1, 2, 3, 4, 6 or 12.
    pub period_months: u32,
    /// What each period is committed to; later steps replace earlier ones. Left out where `quantities` says it.
    #[serde(default)]
    pub commitments: Vec<Commitment>,
    /// When commitments are billed; as far as they are missing, at a period's end, if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed: Option<CommitmentBilling>,
    /// What counts towards committed amounts; left out with `quantities`.
    #[serde(default)]
    pub covers: Vec<CoveredFamily>,
    /// So much of one thing instead of amounts of money.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantities: Option<QuantityCommitment>,
    /// For so many periods after it, what was charged as missing can be used up by use beyond their commitment.
    #[serde(default)]
    pub roll_over_periods: u32,
    /// For standing ready, whatever is used: for each period, billed in advance; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee: Option<Amount>,
    /// How the customer may leave before the term is over; left out if it may not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit: Option<ExitTerms>,
    /// How the term goes on when it is over; left out if it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renewal: Option<RenewalTerms>,
    /// By when invoices of the contract's months are paid; as for the account if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payment: Option<PaymentTerms>,
    /// Other prices than the public ones; left out if those hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pricing: Option<PricingTerms>,
}

/// When what a period is committed to is billed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CommitmentBilling {
    /// All of it, on the period's first day. It is drawn down by use.
    InAdvance,
    /// What is missing, at the period's end.
    InArrears,
}

/// What a contract says about prices, of what the public list sells: a fixed price; or else the public price, or the
/// protected one if that is less, with the discount that names it most exactly.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PricingTerms {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub discounts: Vec<Discount>,
    /// Prices instead of the public ones. There is no discount on them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fixed: Vec<Price>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protection: Option<PriceProtection>,
}

/// So much less than the price would be without it, of every amount in it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Discount {
    pub on: Discounted,
    /// In parts per million: 200000 is a fifth.
    pub off_ppm: u32,
}

/// What a discount is on. A SKU is more exact than a model, a device kind or a notice, and those than a family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Discounted {
    Family(CoveredFamily),
    /// All tokens of a model.
    Model(String),
    /// Time on devices of a kind, at every notice.
    Device(String),
    /// Time on devices of every kind at a notice.
    Notice(#[schemars(with = "NoticeText")] NoticeClass),
    /// Such as `tokens/output/MODEL` or `device/n2m/KIND`.
    Sku(String),
}

/// Public prices are never above those of a version for the customer.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PriceProtection {
    /// A version of the public list. If it is left out of an offer, it is that of the terms which the offer amends, or the
    /// one in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<PriceVersionText>")]
    pub version: Option<PriceVersion>,
    /// The last month of it; as long as the contract runs if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// A step of the ramp.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Commitment {
    /// Counted from 1.
    pub from_period: u32,
    /// For each period, in the contract's currency and its smallest units.
    pub amount: Amount,
}

/// Each period is committed to so much of one thing. `pricing.fixed` has its price, for every unit the same.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantityCommitment {
    /// Such as `device/n2m/KIND` or `tokens/output/MODEL`.
    pub sku: String,
    /// Later steps replace earlier ones.
    pub steps: Vec<QuantityStep>,
    /// What use beyond the commitment costs, for as much as the fixed price is for; that price if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overage: Option<Amount>,
}

/// A step of the ramp.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QuantityStep {
    /// Counted from 1.
    pub from_period: u32,
    /// For each period: tokens, or milliseconds of device time.
    pub quantity: u64,
}

/// A family of things with prices.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CoveredFamily {
    ModelTokens,
    ModelRequests,
    DeviceTime,
    JobStarts,
    ProjectFees,
    OneTimeFees,
    FileStorage,
    FileEgress,
}

impl CoveredFamily {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ModelTokens => "model_tokens",
            Self::ModelRequests => "model_requests",
            Self::DeviceTime => "device_time",
            Self::JobStarts => "job_starts",
            Self::ProjectFees => "project_fees",
            Self::OneTimeFees => "one_time_fees",
            Self::FileStorage => "file_storage",
            Self::FileEgress => "file_egress",
        }
    }
}

/// How the customer may leave, at the end of a commitment period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExitTerms {
    /// So many periods at least.
    pub after_periods: u32,
    /// Whole months between the month of the notice and the end.
    pub notice_months: u32,
    /// Of what is committed for the rest of the term, in parts per million.
    pub fee_ppm: u32,
}

/// How the term goes on, unless notice is given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RenewalTerms {
    /// By so many months each time.
    pub months: u32,
    /// Whole months between the month of the notice and the end.
    pub notice_months: u32,
}

/// A notice that was given.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ContractNotice {
    pub last_month: String,
    /// Due with that month's invoice.
    pub fee: Money,
    pub given_at: Rfc3339,
}

/// How far a commitment period is used.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct CommitmentPeriod {
    /// Counted from 1.
    pub number: u32,
    pub first_month: String,
    pub last_month: String,
    pub committed: Money,
    /// What counts towards it so far: in lists by invoices only, of one contract also by what will be in the next ones.
    pub counted: Money,
    /// What was charged because it was missing; of a commitment that was billed in advance, what was left of it.
    pub shortfall: Money,
    /// What was given back of earlier shortfalls, or drawn of what rolled over.
    pub roll_over_used: Money,
    pub exit_fee: Money,
    /// What use beyond a committed quantity cost more than it was charged; below zero if less.
    pub overage: Money,
    /// Where a quantity is committed.
    pub quantity: Option<PeriodQuantity>,
    /// Where the commitment was billed in advance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawdown: Option<PeriodDrawdown>,
    /// What is used of what is committed, in parts per million: more than 1000000 with overage. Null where nothing is
    /// committed.
    pub utilisation_ppm: Option<u64>,
    /// What the commitment covers of all use, or of the committed thing's use, in parts per million. Null where nothing is
    /// used, and where old invoices did not note it.
    pub coverage_ppm: Option<u64>,
    /// The drawdown month by month: in lists those that are billed, of one contract also those that are open.
    pub months: Vec<ContractMonth>,
    /// Its last month is billed.
    pub settled: bool,
}

/// How much of a commitment that was billed in advance is drawn.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PeriodDrawdown {
    /// By what is counted, of the commitment and of what rolled over.
    pub drawn: Money,
    /// What can still be drawn; nothing once it is settled.
    pub left: Money,
    /// What could not be used in time.
    pub lapsed: Money,
}

/// How much of a committed quantity is used: tokens, or milliseconds of device time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct PeriodQuantity {
    pub sku: String,
    pub committed: u64,
    pub counted: u64,
    /// Charged, because it was missing.
    pub missing: u64,
    /// Given back of what was missing earlier.
    pub roll_over_used: u64,
}

/// What one month took of a commitment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ContractMonth {
    pub month: String,
    pub counted: Money,
    /// Of a committed quantity; null of an amount.
    pub quantity: Option<u64>,
    /// What all use of the month came to, whether it counts or not; null where an old invoice did not note it.
    pub used: Option<Money>,
    /// It has its invoice.
    pub billed: bool,
}

/// One way to leave.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ContractExit {
    pub last_month: String,
    /// The last month in which notice can be given; null where the contract ends by itself.
    pub notice_by: Option<String>,
    pub fee: Money,
    /// What is committed from the running period to the end.
    pub committed: Money,
    /// The end of a term, which is free.
    pub term_end: bool,
}

/// A contract's part of an invoice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceCommitment {
    #[schemars(with = "IdText<ContractId>")]
    pub contract: ContractId,
    pub terms_hash: String,
    /// The commitment period, counted from 1.
    pub number: u32,
    pub first_month: String,
    pub last_month: String,
    pub committed: Money,
    /// By earlier invoices of the period.
    pub counted_before: Money,
    /// By the lines of this one.
    pub counted: Money,
    /// What was charged as missing earlier and can be used up in this period.
    pub roll_over: Money,
    /// Charged: what is missing at the period's end.
    pub shortfall: Money,
    /// Given back: what use beyond the commitment used up of the roll-over.
    pub roll_over_used: Money,
    /// Charged: for leaving before the end of the term.
    pub exit_fee: Money,
    /// What use beyond a committed quantity costs more than it was charged; below zero if less.
    pub overage: Money,
    /// The newest terms, where the fee was computed with those.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_terms_hash: Option<String>,
    /// Where a quantity is committed, of which the amounts above are the cost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quantity: Option<InvoiceQuantity>,
    /// Where the commitment was billed in advance: nothing is charged as missing then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drawdown: Option<InvoiceDrawdown>,
    /// `shortfall + exit_fee − roll_over_used + overage − drawdown.drawn`.
    pub amount: Money,
}

/// What an invoice has of a commitment that was billed in advance.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceDrawdown {
    /// Taken off: what was paid in advance of this invoice's lines; below zero where use was taken off them.
    pub drawn: Money,
    /// Left of the period's own commitment at its end.
    pub unused: Money,
    /// Drawn in the period of what rolled over.
    pub roll_over_used: Money,
    /// Of what was left at the period's end, what cannot be used any more.
    pub lapsed: Money,
}

/// What an invoice bills in advance: a contract's fee and commitment for the period that begins when the invoice's month ends.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceAdvance {
    #[schemars(with = "IdText<ContractId>")]
    pub contract: ContractId,
    pub terms_hash: String,
    /// The commitment period, counted from 1.
    pub number: u32,
    pub first_month: String,
    pub last_month: String,
    pub fee: Money,
    /// What the period is committed to, where that is billed in advance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<Money>,
}

/// A committed quantity in an invoice: tokens, or milliseconds of device time.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceQuantity {
    pub sku: String,
    pub committed: u64,
    /// By earlier invoices of the period.
    pub counted_before: u64,
    /// By the lines of this one.
    pub counted: u64,
    /// What was charged as missing earlier and can be used up in this period.
    pub roll_over: u64,
    /// Charged: what is missing at the period's end.
    pub missing: u64,
    /// Given back.
    pub roll_over_used: u64,
    /// Beyond the commitment and the roll-over.
    pub overage: u64,
}

/// Body that offers a contract.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateContract {
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub name: String,
    pub terms: ContractTerms,
    /// 30 days from now if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Rfc3339>,
}

/// Body that offers an amendment.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateAmendment {
    /// The first month of a commitment period that has not begun.
    pub from: String,
    /// All of them; `currency`, `starts`, `period_months` and earlier commitments stay.
    pub terms: ContractTerms,
    /// 30 days from now if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Rfc3339>,
}

/// Body that accepts what is offered.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptContract {
    /// Of the terms that were read.
    pub terms_hash: String,
}

/// Body that gives notice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LeaveContract {
    /// One of `exits`.
    pub last_month: String,
}

list_query! {
    /// Which contracts.
    ContractListQuery {
        #[schemars(with = "Option<IdText<OrganizationId>>")]
        organization: OrganizationId,
    }
}
