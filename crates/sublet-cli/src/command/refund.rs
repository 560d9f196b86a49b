//! `sublet refunds`.

use clap::Subcommand;
use sublet_api::payment::{
    ApproveRefund, CreateRefund, OperatorCreateRefund, PayRefund, Refund, RefundListQuery, RefundStatus, RejectRefund,
};
use sublet_core::error::Result;
use sublet_core::id::{OrganizationId, RefundId, TopUpId};

use super::{PageArgs, show_page};
use crate::Context;
use crate::render::{self, Cell, Table};
use crate::value::MoneyArgument;

/// Refunds.
#[derive(Subcommand, Debug)]
pub enum RefundCommand {
    /// List paid credit that went back, or is to
    List {
        /// requested, approved, paid, rejected, cancelled or failed
        #[arg(long)]
        status: Option<RefundStatus>,
        /// Of every organization (operator)
        #[arg(long)]
        all: bool,
        /// Of one organization (operator)
        #[arg(long, conflicts_with = "all")]
        organization: Option<OrganizationId>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show one
    Show { refund: RefundId },
    /// Ask for paid credit back
    Request {
        /// Such as 50 or "50 EUR"; at most the paid credit that is there
        amount: MoneyArgument,
        /// One line: why
        #[arg(long)]
        note: String,
        /// Of a customer (operator)
        #[arg(long)]
        organization: Option<OrganizationId>,
    },
    /// Call one off that nobody approved yet
    Cancel { refund: RefundId },
    /// Approve what somebody else asked for (operator)
    Approve {
        refund: RefundId,
        /// The payment that its processor gives back; by bank transfer if left out
        #[arg(long, value_name = "TOP-UP")]
        to: Option<TopUpId>,
    },
    /// Reject one; it is credit again (operator)
    Reject {
        refund: RefundId,
        /// One line that the customer reads
        #[arg(long)]
        reason: String,
    },
    /// Note the transfer by which one was paid (operator)
    Paid {
        refund: RefundId,
        /// The bank's name of the transfer
        #[arg(long, value_name = "ID")]
        transaction: String,
    },
}

impl RefundCommand {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        let client = context.client()?;
        let refund = match self {
            Self::List { status, all, organization, page } => {
                let order = page.order();
                let is_operator = all || organization.is_some();
                let query = RefundListQuery { organization, status, limit: page.limit, after: page.after, before: None, order };
                let list = if is_operator { client.all_refunds(&query)? } else { client.refunds(&query)? };
                return show_page(context, &list, table);
            }
            Self::Show { refund } => client.refund(&refund)?,
            Self::Request { amount, note, organization: None } => {
                let currency = client.credits()?.available.currency;
                let body = CreateRefund { amount: amount.in_currency(currency)?, note };
                client.create_refund(&body, &context.fresh_key())?
            }
            Self::Request { amount, note, organization: Some(organization) } => {
                let currency = client.organization_credits(&organization)?.available.currency;
                let body = OperatorCreateRefund { organization, amount: amount.in_currency(currency)?, note };
                client.create_refund_of(&body, &context.fresh_key())?
            }
            Self::Cancel { refund } => client.cancel_refund(&refund)?,
            Self::Approve { refund, to } => client.approve_refund(&refund, &ApproveRefund { top_up: to })?,
            Self::Reject { refund, reason } => client.reject_refund(&refund, &RejectRefund { reason })?,
            Self::Paid { refund, transaction } => client.pay_refund(&refund, &PayRefund { transaction_id: transaction })?,
        };
        context.show(&refund, |refund| table(std::slice::from_ref(refund)))
    }
}

fn table(refunds: &[Refund]) -> Table {
    let rows = refunds.iter().map(|refund| {
        [
            Cell::text(refund.id.as_str()),
            Cell::number(render::money(&refund.amount)),
            Cell::text(refund.status.as_str()),
            Cell::optional(refund.method.map(|method| method.as_str().to_owned()).as_ref()),
            Cell::text(&refund.requested_by),
            Cell::optional(refund.approved_by.as_ref()),
            Cell::optional(refund.transaction_id.as_ref()),
            Cell::optional(refund.reason.as_ref()),
        ]
    });
    let titles = ["refund", "amount", "status", "by", "requested by", "approved by", "transaction", "reason"];
    Table::new(titles, "nothing went back").rows(rows)
}
