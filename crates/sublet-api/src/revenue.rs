//! Revenue as the owner recognises it, what is deferred, and the backlog of contracts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sublet_core::id::{ContractId, OrganizationId};
use sublet_core::money::Currency;

use crate::money::Money;
use crate::object::RevenueReportTag;
use crate::schema::{CurrencyText, IdText};
use crate::time::Rfc3339;

/// What a month earned, what is deferred now, and what contracts bring in months to come.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RevenueReport {
    pub object: RevenueReportTag,
    pub month: String,
    #[schemars(with = "CurrencyText")]
    pub currency: Currency,
    pub as_of: Rfc3339,
    /// Charged to customers for use in the month, by family.
    pub usage: Vec<FamilyRevenue>,
    /// Settled by contracts in the month: missing, overage and fees for leaving, less what was used up of earlier shortfalls.
    pub commitments: Money,
    /// Of fees, by the days of the month.
    pub fees: Money,
    /// The sum of all that.
    pub recognised: Money,
    /// Billed in advance and not earned now.
    pub deferred: Money,
    pub contracts: Vec<ContractRevenue>,
    /// The months after the one that runs.
    pub backlog: Vec<BacklogMonth>,
    /// What the sums of all months are in the ledger.
    pub ledger: Vec<RevenueTie>,
}

/// Use of one family.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct FamilyRevenue {
    pub family: String,
    pub recognised: Money,
}

/// A contract's part.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct ContractRevenue {
    #[schemars(with = "IdText<ContractId>")]
    pub contract: ContractId,
    #[schemars(with = "IdText<OrganizationId>")]
    pub organization: OrganizationId,
    pub name: String,
    /// Settled in the month.
    pub commitments: Money,
    /// Earned in the month.
    pub fees: Money,
    /// Billed in advance and not earned now.
    pub deferred: Money,
    /// The backlog up to the first exit.
    pub firm: Money,
    /// The backlog if nobody leaves.
    pub planned: Money,
}

/// What accepted contracts commit in a month to come, spread over their periods by the day.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct BacklogMonth {
    pub month: String,
    /// What nobody can leave any more.
    pub firm: Money,
    /// What comes if nobody leaves.
    pub planned: Money,
}

/// A sum of the report, of all months there were, and the balance of its accounts: the same, if the books are right.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
pub struct RevenueTie {
    /// `usage` (with the owner's own teams), `commitments`, `fees` or `deferred`.
    pub what: String,
    pub reported: Money,
    pub booked: Money,
    pub difference: Money,
}
