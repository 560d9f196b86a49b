//! Invoices and the charges they add up.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::admission::PriceVersion;
use sublet_core::id::{ChargeId, InvoiceId, JobId, LeaseId, OrganizationId, ProjectId, RequestId, RerateId, SiteId};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::tier::ServiceTier;

use crate::contract::{InvoiceAdvance, InvoiceCommitment};
use crate::list::list_query;
use crate::money::{Amount, Money};
use crate::object::{ChargeTag, InvoiceTag};
use crate::price::{Meter, Subject};
use crate::schema::{IdText, IsolationText, NoticeText, PriceVersionText, TierText};
use crate::tax::{Buyer, InvoiceTax, PaymentTerms, Seller};
use crate::time::{QueryInstant, Rfc3339, UnixSeconds};

/// The bill of one organization and period.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Invoice {
    pub object: InvoiceTag,
    #[schemars(with = "IdText<InvoiceId>")]
    pub id: InvoiceId,
    /// In a series without gaps, such as `INV-2026-000001`; given at issue.
    pub number: Option<String>,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub status: InvoiceStatus,
    /// Included.
    pub period_start: Rfc3339,
    /// Excluded.
    pub period_end: Rfc3339,
    /// The IANA zone of the period.
    pub time_zone: String,
    pub lines: Vec<InvoiceLine>,
    /// Why lines are of other price lists than held when they were used.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rerates: Vec<InvoiceRerate>,
    /// The part of the contract that runs in the period.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commitment: Option<InvoiceCommitment>,
    /// What a contract bills in advance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advance: Option<InvoiceAdvance>,
    /// The sum of the lines and the contract's parts, exact.
    pub subtotal: Money,
    /// What rounding the total to the currency's smallest unit added; carried to the next invoice.
    pub rounding: Money,
    /// Carried over from the invoice before.
    pub carried: Money,
    /// `subtotal + carried + rounding`, in whole smallest units.
    pub total: Money,
    /// Who sells; left out where nobody said it when the month was closed, and so are the next four.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seller: Option<Seller>,
    /// Left out where nobody said how the account is invoiced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buyer: Option<Buyer>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<PaymentTerms>,
    /// The last day to pay it in time, in the zone of the account; given at issue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub due_on: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax: Option<InvoiceTax>,
    /// What credit notes took back of the total, without taxes.
    pub credited: Money,
    /// What is still to be paid of an issued invoice, with its taxes. What an account paid in pays its oldest invoices first.
    pub amount_due: Money,
    pub created_at: UnixSeconds,
    pub issued_at: Option<Rfc3339>,
    pub paid_at: Option<Rfc3339>,
    pub voided_at: Option<Rfc3339>,
}

/// Where an invoice is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum InvoiceStatus {
    /// Made again from the charges whenever it is asked for.
    Draft,
    /// Never edited again; something of it is still to be paid.
    Issued,
    /// Nothing of it is to be paid any more.
    Paid,
    /// All of it was credited.
    Void,
}

impl InvoiceStatus {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Draft => "draft",
            Self::Issued => "issued",
            Self::Paid => "paid",
            Self::Void => "void",
        }
    }
}

/// One priced thing of one project.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceLine {
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    pub subject: Subject,
    pub meter: Meter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NoticeText>")]
    pub notice: Option<NoticeClass>,
    /// For device time whose site has a price of its own: the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// For device time whose isolation has a price of its own: the isolation that is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IsolationText>")]
    pub isolation: Option<IsolationLevel>,
    /// For tokens: the tier; left out for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierText>")]
    pub service_tier: Option<ServiceTier>,
    #[schemars(with = "PriceVersionText")]
    pub price_version: PriceVersion,
    /// The band of a price by time of use; left out outside of all bands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub band: Option<String>,
    /// In words.
    #[serde(default)]
    pub price: String,
    /// The price is `unit_amount` for every `unit_per` units; left out where it depends on the quantity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit_amount: Option<Amount>,
    pub unit_per: u64,
    /// In the meter's unit; negative where use was rated anew and left the line.
    pub quantity: i64,
    /// How many charges the line adds up.
    pub charges: u64,
    /// Exact.
    pub amount: Money,
    /// For use that came to be known after its month was closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late: Option<Late>,
}

/// Use that was rated by another price list than it was admitted under.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceRerate {
    #[schemars(with = "IdText<RerateId>")]
    pub id: RerateId,
    #[schemars(with = "PriceVersionText")]
    pub of: PriceVersion,
    #[schemars(with = "PriceVersionText")]
    pub to: PriceVersion,
    /// When the use was: from, and until.
    pub from: Rfc3339,
    pub until: Rfc3339,
    pub reason: String,
    /// What it adds to this invoice's lines.
    pub amount: Money,
}

/// The part of a closed month's line that came late.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Late {
    /// The month of the use, such as `2026-03`.
    pub period: String,
    /// What of the line was invoiced before, in the meter's unit; its tiers go on from here.
    pub quantity_before: u64,
    pub amount_before: Money,
}

/// What one metered event cost.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    pub object: ChargeTag,
    #[schemars(with = "IdText<ChargeId>")]
    pub id: ChargeId,
    #[schemars(with = "IdText<ProjectId>")]
    pub project: ProjectId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<RequestId>>")]
    pub request: Option<RequestId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<JobId>>")]
    pub job: Option<JobId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<LeaseId>>")]
    pub lease: Option<LeaseId>,
    /// What rated its use anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<RerateId>>")]
    pub rerate: Option<RerateId>,
    pub subject: Subject,
    pub meter: Meter,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<NoticeText>")]
    pub notice: Option<NoticeClass>,
    /// For device time whose site has a price of its own: the site.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IdText<SiteId>>")]
    pub site: Option<SiteId>,
    /// For device time whose isolation has a price of its own: the isolation that is demanded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<IsolationText>")]
    pub isolation: Option<IsolationLevel>,
    /// For tokens: the tier; left out for the default one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<TierText>")]
    pub service_tier: Option<ServiceTier>,
    /// The band of a price by time of use; left out outside of all bands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub band: Option<String>,
    /// In the meter's unit; negative where use was rated anew and left the line.
    pub quantity: i64,
    pub amount: Money,
    #[schemars(with = "PriceVersionText")]
    pub price_version: PriceVersion,
    /// When the use happened; decides the period.
    pub used_at: Rfc3339,
    /// The month in whose invoice it is, where its own was closed before it was known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub billed_in: Option<String>,
    pub created_at: UnixSeconds,
}

/// Body that drafts an invoice.
#[derive(Clone, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DraftInvoice {
    /// Any instant of the period; now if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Rfc3339>,
}

list_query! {
    /// Which invoices.
    InvoiceListQuery {
        status: InvoiceStatus,
        /// For operators: of one organization.
        #[schemars(with = "Option<IdText<OrganizationId>>")]
        organization: OrganizationId,
        /// Such as `INV-2026-000001`.
        number: String,
    }
}

list_query! {
    /// Which charges.
    ChargeListQuery {
        #[schemars(with = "Option<IdText<ProjectId>>")]
        project: ProjectId,
        #[schemars(with = "Option<IdText<RequestId>>")]
        request: RequestId,
        #[schemars(with = "Option<IdText<JobId>>")]
        job: JobId,
        /// Included.
        start_time: QueryInstant,
        /// Excluded.
        end_time: QueryInstant,
    }
}
