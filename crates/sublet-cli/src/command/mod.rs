//! The commands, one file for each noun of the API.

pub mod audit;
pub mod availability;
pub mod batch;
pub mod billing;
pub mod capacity;
mod chart;
mod chart_png;
pub mod chat;
pub mod clock;
pub mod compensation;
pub mod contract;
pub mod credit_note;
pub mod demand;
pub mod device;
pub mod dunning;
pub mod estimate;
mod estimate_chart;
mod estimate_figures;
mod estimate_input;
mod estimate_progress;
pub mod explain;
pub mod export;
pub mod export_schedule;
pub mod fee;
pub mod file;
pub mod invoice;
pub mod job;
pub mod key;
pub mod lease;
pub mod ledger;
pub mod limit;
pub mod mail;
pub mod model;
mod monthly_return;
pub mod offering;
pub mod organization;
pub mod payment;
pub mod payout;
pub mod policy;
pub mod price;
mod price_diff;
mod price_index;
mod price_simulation;
pub mod project;
pub mod proof;
pub mod quote;
pub mod rate_limit;
mod reclaim;
pub mod refund;
pub mod replica;
pub mod report;
pub mod rerate;
pub mod response;
pub mod run;
pub mod saved_card;
pub mod seller;
pub mod sku;
pub mod status;
pub mod supply_cost;
pub mod tax_report;
pub mod top_up;
pub mod top_up_rule;
pub mod usage;
pub mod webhook;
pub mod why;

use clap::{Args, Subcommand};
use sublet_api::list::{Cursor, Order, PageLimit};
use sublet_core::error::Result;

use crate::{Context, ExitStatus};

/// Every client command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Run a command on leased devices, follow its output, print its cost
    Run(run::RunArgs),
    /// Talk to a model
    Chat(chat::ChatArgs),
    /// Show the rule and the numbers behind an id
    Why(why::WhyArgs),
    /// Show whether the cloud is up and what the key may spend
    Status,
    /// What the project used and what it cost
    Usage(usage::UsageArgs),
    /// Published prices
    #[command(alias = "price")]
    Prices(price::PriceArgs),
    /// What can be leased
    Skus,
    /// How much can be leased now
    Availability(availability::AvailabilityArgs),
    /// Binding offers of capacity
    #[command(subcommand)]
    Quotes(quote::QuoteCommand),
    /// Rights to use capacity
    #[command(subcommand, alias = "lease")]
    Leases(lease::LeaseCommand),
    /// Commands that run on leases
    #[command(subcommand)]
    Jobs(job::JobCommand),
    /// Models that are served
    #[command(subcommand)]
    Models(model::ModelCommand),
    /// Responses that were asked to be kept
    #[command(subcommand)]
    Responses(response::ResponseCommand),
    /// Files of the project
    #[command(subcommand)]
    Files(file::FileCommand),
    /// Many requests in one file, answered while models are idle
    #[command(subcommand)]
    Batches(batch::BatchCommand),
    /// Servers that answer for remote models (operator)
    #[command(subcommand)]
    Replicas(replica::ReplicaCommand),
    /// Credit, limits, charges, invoices
    #[command(subcommand)]
    Billing(billing::BillingCommand),
    /// To whom products are sold, and until when (operator)
    #[command(subcommand)]
    Offerings(offering::OfferingCommand),
    /// What is agreed for months to years: commitments, amendments, ways to leave
    #[command(subcommand)]
    Contracts(contract::ContractCommand),
    /// Credit that is bought: by bank transfer, on a page of Stripe, or with the saved card
    #[command(subcommand)]
    TopUps(top_up::TopUpCommand),
    /// The card that top-ups charge
    #[command(subcommand)]
    SavedCard(saved_card::SavedCardCommand),
    /// Paid credit that goes back
    #[command(subcommand)]
    Refunds(refund::RefundCommand),
    /// Fees that are charged once
    #[command(subcommand)]
    Fees(fee::FeeCommand),
    /// Use of past times that is rated by another price list (operator)
    #[command(subcommand, alias = "rerate")]
    Rerates(rerate::RerateCommand),
    /// Credit for promises that were not kept, and what interrupted leases are owed
    #[command(subcommand)]
    Compensations(compensation::CompensationCommand),
    /// Money that arrived: bank statements, and what is quarantined (operator)
    #[command(subcommand)]
    Payments(payment::PaymentCommand),
    /// What Stripe paid out to the bank account, and what it holds (operator)
    #[command(subcommand)]
    Payouts(payout::PayoutCommand),
    /// What is overdue, and what follows from it
    #[command(subcommand)]
    Dunning(dunning::DunningCommand),
    /// Files for finance that are delivered by themselves (operator)
    #[command(subcommand)]
    Exports(export_schedule::ExportScheduleCommand),
    /// Mail that the cloud sends (operator)
    #[command(subcommand)]
    Mail(mail::MailCommand),
    /// Where events are posted (admin)
    #[command(subcommand)]
    Webhooks(webhook::WebhookCommand),
    /// Limits on speed (admin); all that apply do apply
    #[command(subcommand)]
    RateLimits(rate_limit::RateLimitCommand),
    /// What proves the charges of a request or job
    Receipts(proof::ReceiptArgs),
    /// Check an invoice's bundle; needs no cloud
    VerifyInvoice(proof::VerifyArgs),
    /// Check receipts; needs no cloud
    VerifyReceipt(proof::VerifyArgs),
    /// The log that invoices are sealed in
    #[command(subcommand)]
    Log(proof::LogCommand),
    /// Keys of projects
    #[command(subcommand)]
    Keys(key::KeyCommand),
    /// Projects of the organization
    #[command(subcommand)]
    Projects(project::ProjectCommand),
    /// Who did what
    #[command(subcommand)]
    Audit(audit::AuditCommand),
    /// Organizations of the cloud (operator)
    #[command(subcommand)]
    Orgs(organization::OrganizationCommand),
    /// Devices of each kind: idle, sold, internal, and what may be sold (operator)
    Capacity(capacity::CapacityArgs),
    /// Take capacity back for the owner's teams, with a dry run (operator)
    Reclaim(reclaim::ReclaimArgs),
    /// What the owner's own work demands: report, import, export (operator)
    #[command(subcommand)]
    Demand(demand::DemandCommand),
    /// By what is sold to customers (operator)
    #[command(subcommand)]
    Policy(policy::PolicyCommand),
    /// Single devices (operator)
    #[command(subcommand)]
    Devices(device::DeviceCommand),
    /// A month's margin, what leaks, what own teams used (operator)
    #[command(subcommand)]
    Report(report::ReportCommand),
    /// What supply costs, as the owner declares it (operator)
    #[command(subcommand)]
    Costs(supply_cost::CostCommand),
    /// Who sells: what invoices say of the seller (operator)
    #[command(subcommand)]
    Seller(seller::SellerCommand),
    /// The taxes that are collected (operator)
    #[command(subcommand)]
    Taxes(seller::TaxCommand),
    /// The books (operator)
    #[command(subcommand)]
    Ledger(ledger::LedgerCommand),
    /// What time it is in the cloud; a test clock can be put forward (operator)
    #[command(subcommand)]
    Clock(clock::ClockCommand),
    /// What past idle time could have been sold for; needs no cloud
    Estimate(estimate::EstimateArgs),
    /// What an error code means and what to do
    Explain(explain::ExplainArgs),
}

impl Command {
    pub(crate) fn run(self, context: &mut Context<'_>) -> Result<ExitStatus> {
        match self {
            Self::Run(args) => return args.run(context),
            Self::Status => return status::run(context),
            Self::Batches(command) => return command.run(context),
            Self::Chat(args) => args.run(context),
            Self::Why(args) => args.run(context),
            Self::Usage(args) => args.run(context),
            Self::Prices(args) => args.run(context),
            Self::Skus => sku::run(context),
            Self::Receipts(args) => args.run(context),
            Self::VerifyInvoice(args) => args.verify_invoice(context),
            Self::VerifyReceipt(args) => args.verify_receipts(context),
            Self::Log(command) => command.run(context),
            Self::Availability(args) => args.run(context),
            Self::Quotes(command) => command.run(context),
            Self::Leases(command) => command.run(context),
            Self::Jobs(command) => command.run(context),
            Self::Models(command) => command.run(context),
            Self::Responses(command) => command.run(context),
            Self::Files(command) => command.run(context),
            Self::Replicas(command) => command.run(context),
            Self::RateLimits(command) => command.run(context),
            Self::Billing(command) => command.run(context),
            Self::Fees(command) => command.run(context),
            Self::Compensations(command) => command.run(context),
            Self::Rerates(command) => command.run(context),
            Self::Offerings(command) => command.run(context),
            Self::Contracts(command) => command.run(context),
            Self::TopUps(command) => command.run(context),
            Self::SavedCard(command) => command.run(context),
            Self::Refunds(command) => command.run(context),
            Self::Payments(command) => command.run(context),
            Self::Payouts(command) => command.run(context),
            Self::Dunning(command) => command.run(context),
            Self::Exports(command) => command.run(context),
            Self::Mail(command) => command.run(context),
            Self::Webhooks(command) => command.run(context),
            Self::Keys(command) => command.run(context),
            Self::Projects(command) => command.run(context),
            Self::Audit(command) => command.run(context),
            Self::Orgs(command) => command.run(context),
            Self::Capacity(args) => args.run(context),
            Self::Reclaim(args) => args.run(context),
            Self::Demand(command) => command.run(context),
            Self::Policy(command) => command.run(context),
            Self::Devices(command) => command.run(context),
            Self::Report(command) => command.run(context),
            Self::Seller(command) => command.run(context),
            Self::Taxes(command) => command.run(context),
            Self::Costs(command) => command.run(context),
            Self::Ledger(command) => command.run(context),
            Self::Clock(command) => command.run(context),
            Self::Estimate(args) => args.run(context),
            Self::Explain(args) => args.run(context),
        }?;
        Ok(ExitStatus::OK)
    }
}

/// Which page of a list.
#[derive(Args, Clone, Debug, Default)]
pub struct PageArgs {
    /// Objects to show, 1 to 100
    #[arg(long, value_name = "N", value_parser = parse_limit)]
    pub limit: Option<PageLimit>,
    /// Continue behind this id
    #[arg(long, value_name = "ID", value_parser = parse_cursor)]
    pub after: Option<Cursor>,
    /// Oldest first
    #[arg(long)]
    pub oldest_first: bool,
}

impl PageArgs {
    fn order(&self) -> Option<Order> {
        self.oldest_first.then_some(Order::Asc)
    }
}

fn parse_limit(text: &str) -> std::result::Result<PageLimit, String> {
    let number: u32 = text.parse().map_err(|_| format!("'{text}' is not a number"))?;
    PageLimit::try_from(number).map_err(|error| error.to_string())
}

fn parse_cursor(text: &str) -> std::result::Result<Cursor, String> {
    Cursor::try_from(text.to_owned()).map_err(|error| error.to_string())
}

/// Shows a page as a table and says on standard error how to see more.
fn show_page<T: serde::Serialize>(
    context: &mut Context<'_>,
    list: &sublet_api::List<T>,
    table: impl FnOnce(&[T]) -> crate::render::Table,
) -> Result<()> {
    context.show(list, |list| table(&list.data))?;
    match (&list.last_id, list.has_more) {
        (Some(last), true) => context.note(&format!("more: --after {}", crate::render::plain(&last.0))),
        _ => Ok(()),
    }
}
