//! Who sells, who buys, and the taxes between them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::OrganizationId;

use crate::job::Base64;
use crate::money::Money;
use crate::object::{BillingProfileTag, LogoTag, SellerTag, TaxTableTag};
use crate::schema::IdText;

/// Where a party is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Address {
    /// Street and number, and what is above them: 1 to 3 lines.
    pub lines: Vec<String>,
    pub city: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postal_code: Option<String>,
    /// What ISO 3166-2 has after the country: `QC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subdivision: Option<String>,
    /// ISO 3166-1 alpha-2.
    pub country: String,
}

/// Who is asked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Contact {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
}

/// Where electronic invoices go.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ElectronicAddress {
    /// A code of the Electronic Address Scheme list: `0204`, `EM`.
    pub scheme: String,
    pub id: String,
}

/// A business or a person.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Party {
    pub legal_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trading_name: Option<String>,
    pub address: Address,
    /// A VAT number with the prefix of its country.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tax_id: Option<String>,
    /// In the register of companies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact: Option<Contact>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub electronic_address: Option<ElectronicAddress>,
}

/// Where the money goes.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BankAccount {
    pub iban: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bic: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holder: Option<String>,
}

/// By when an invoice is paid.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PaymentTerms {
    /// Days after the day of issue.
    pub net_days: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// Body that says who sells, in the place of what was said before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetSeller {
    pub party: Party,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bank: Option<BankAccount>,
    /// One line, such as the management and the court of registration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub footer: Option<String>,
    /// The SHA-256 of an image that was added.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub logo: Option<String>,
    /// For accounts that have no terms of their own.
    pub terms: PaymentTerms,
}

/// Who sells.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Seller {
    pub object: SellerTag,
    #[serde(flatten)]
    pub seller: SetSeller,
}

/// Body that adds an image for invoices.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AddLogo {
    /// At most 128 KiB before base 64, and 4096 pixels wide and high.
    pub png_base64: Base64,
}

/// An image that the seller can be set to have.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct Logo {
    pub object: LogoTag,
    pub sha256: String,
}

/// A tax that is collected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaxRow {
    /// A country or a part of one: `DE`, `CA-QC`.
    pub jurisdiction: String,
    /// `VAT`, `GST`.
    pub name: String,
    /// In percent, with up to four decimals: `9.975`.
    pub rate: String,
    /// The first day on which it applies, in the zone of the account.
    pub from: String,
    /// S or Z by the rate if left out; E, G and O where nothing is collected for a reason of the seller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub category: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// A code of the VATEX list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
}

/// Body that says which taxes are collected, in the place of what was said before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetTaxTable {
    pub rows: Vec<TaxRow>,
}

/// The taxes that are collected.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaxTable {
    pub object: TaxTableTag,
    pub rows: Vec<TaxRow>,
}

/// A certificate by which a buyer is exempt.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exemption {
    /// As it is filed.
    pub certificate: String,
    /// What invoices say.
    pub reason: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
    /// Its last day, in the zone of the account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// Who buys, as invoices name it.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Buyer {
    pub party: Party,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_order: Option<String>,
    /// The buyer's own reference, such as a Leitweg-ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// Body that says how an account is invoiced, in the place of what was said before.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SetBillingProfile {
    pub party: Party,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub purchase_order: Option<String>,
    /// The buyer's own reference, such as a Leitweg-ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    /// The operator's to say: what it said stays where an administrator leaves it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exemption: Option<Exemption>,
    /// The operator's to say: those of the seller if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terms: Option<PaymentTerms>,
}

/// How a sale is taxed, and why.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaxTreatment {
    /// A code of UNCL5305: S, Z, E, AE, G or O.
    pub category: String,
    pub jurisdiction: String,
    pub name: String,
    /// In percent.
    pub rate: String,
    /// Why there is no tax.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason_code: Option<String>,
}

/// How an account is invoiced, and how it would be taxed if the month ended today.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BillingProfile {
    pub object: BillingProfileTag,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    /// Null where nobody said it.
    pub profile: Option<SetBillingProfile>,
    /// Of the running month; what a contract says wins. Null where nobody sells.
    pub terms: Option<PaymentTerms>,
    /// In the zone of the account.
    pub today: String,
    /// Empty where nobody sells.
    pub taxes: Vec<TaxTreatment>,
    /// Why there are none where there have to be some: the month is not closed before that is mended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// One tax of an invoice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct TaxLine {
    #[serde(flatten)]
    pub treatment: TaxTreatment,
    pub base: Money,
    pub amount: Money,
}

/// The taxes of an invoice.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct InvoiceTax {
    /// Gifts, which lower the base.
    pub gifts: Money,
    pub lines: Vec<TaxLine>,
    pub amount: Money,
    /// What credit notes gave back of it.
    pub credited: Money,
    /// The total with its taxes.
    pub gross: Money,
}
