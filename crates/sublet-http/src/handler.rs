//! Which handler serves which operation.

use sublet_api::{Operation, Plane};
use sublet_core::{BoxFuture, Result};

use crate::answer::Answer;
use crate::context::Context;
use crate::{
    App, account, archived_file, audit, batch, calendar, clock, compensation, contract, credit, credit_note, demand, device,
    document, dunning, export, export_schedule, fee, file, invoice, job, key, leakage, lease, ledger, limit, mail, margin, model,
    model_card, monthly_return, offering, organization, payment, payout, price, price_index, price_simulation, project, proof,
    public, quote, rate_limit, reclaim, remote_model, rerate, response, revenue, saved_card, sku, supplier, supply_cost, tax,
    tax_report, top_up_rule, usage, user, webhook, why,
};

/// Extracts, calls one use case, maps.
pub type Handler = fn(App, Context) -> BoxFuture<'static, Result<Answer>>;

macro_rules! to {
    ($handler:path) => {
        Some(|app, context| Box::pin($handler(app, context)))
    };
}

/// The handler of an operation; `None` for those of the data plane. A test enumerates the table.
pub fn find(operation: Operation) -> Option<Handler> {
    match operation.route().plane {
        Plane::Public => everybodys(operation),
        Plane::Project => projects(operation),
        Plane::Admin => organizations(operation).or_else(|| payments(operation)),
        Plane::Operator => operators(operation).or_else(|| operators_money(operation)).or_else(|| offerings(operation)),
    }
}

fn everybodys(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::GetHealth | Operation::GetHealthAlias => to!(public::health),
        Operation::GetReadiness => to!(public::readiness),
        Operation::GetMetrics => to!(public::metrics),
        Operation::GetOpenApi => to!(public::open_api),
        Operation::GetLlmsText => to!(public::llms_text),
        Operation::GetErrorPage => to!(public::error_page),
        Operation::GetPrices => to!(price::public),
        Operation::ListPriceIndexes => to!(price_index::list),
        Operation::GetPriceIndex => to!(price_index::get),
        Operation::ListPricePoints => to!(price_index::list_points),
        Operation::GetLogKey => to!(proof::log_key),
        Operation::GetLogCheckpoint => to!(proof::log_checkpoint),
        Operation::GetLogTile => to!(proof::log_tile),
        Operation::ReceiveStripeEvent => to!(payment::stripe_notice),
        _ => None,
    }
}

fn projects(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::GetResponse => to!(response::get),
        Operation::DeleteResponse => to!(response::delete),
        Operation::ListResponseInputItems => to!(response::list_input_items),
        Operation::CancelResponse => to!(response::cancel),
        Operation::CreateFile => to!(file::create),
        Operation::ListFiles => to!(file::list),
        Operation::GetFile => to!(file::get),
        Operation::DeleteFile => to!(file::delete),
        Operation::GetFileContent => to!(file::content),
        Operation::CreateBatch => to!(batch::create),
        Operation::ListBatches => to!(batch::list),
        Operation::GetBatch => to!(batch::get),
        Operation::CancelBatch => to!(batch::cancel),
        Operation::GetAccount => to!(account::get),
        Operation::ListReceipts => to!(proof::receipts),
        Operation::GetRequest => to!(usage::get_request),
        Operation::GetUsage => to!(usage::summary),
        Operation::GetWhy => to!(why::explain),
        Operation::GetAccountPrices => to!(price::of_account),
        Operation::ListSkus => to!(sku::list),
        Operation::GetAvailabilityCalendar => to!(calendar::availability),
        Operation::ListAvailability => to!(sku::availability),
        Operation::CreateQuote => to!(quote::create),
        Operation::ListQuotes => to!(quote::list),
        Operation::GetQuote => to!(quote::get),
        Operation::CreateLease => to!(lease::create),
        Operation::ListLeases => to!(lease::list),
        Operation::GetLease => to!(lease::get),
        Operation::GetLeaseNotice => to!(lease::notice),
        Operation::CancelLease => to!(lease::cancel),
        Operation::DeclareCheckpoint => to!(lease::checkpoint),
        Operation::YieldLease => to!(lease::give_back),
        Operation::CreateJob => to!(job::create),
        Operation::ListJobs => to!(job::list),
        Operation::GetJob => to!(job::get),
        Operation::CancelJob => to!(job::cancel),
        Operation::GetJobLogs => to!(job::logs),
        Operation::GetCompensationRules => to!(compensation::get_rules),
        _ => None,
    }
}

fn organizations(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::GetOrganization => to!(organization::get_own),
        Operation::ListUsers => to!(user::list),
        Operation::CreateUser => to!(user::create),
        Operation::DeleteUser => to!(user::delete),
        Operation::ListProjects => to!(project::list),
        Operation::CreateProject => to!(project::create),
        Operation::GetProject => to!(project::get),
        Operation::ArchiveProject => to!(project::archive),
        Operation::ListAdminKeys => to!(key::list_peers),
        Operation::CreateAdminKey => to!(key::create_peer),
        Operation::GetAdminKey => to!(key::get_peer),
        Operation::DeleteAdminKey => to!(key::delete_peer),
        Operation::ListKeys => to!(key::list),
        Operation::CreateKey => to!(key::create),
        Operation::DeleteKey => to!(key::delete),
        Operation::ListOrganizationLimits | Operation::ListProjectLimits | Operation::ListKeyLimits => to!(limit::list),
        Operation::SetOrganizationLimit | Operation::SetProjectLimit | Operation::SetKeyLimit => to!(limit::set),
        Operation::DeleteOrganizationLimit | Operation::DeleteProjectLimit | Operation::DeleteKeyLimit => to!(limit::delete),
        Operation::ListSpendForecasts => to!(limit::list_forecasts),
        Operation::ListSpendAlerts => to!(limit::list_alerts),
        Operation::GetCompletionsUsage => to!(usage::completions),
        Operation::GetCosts => to!(usage::costs),
        Operation::ListAuditLogs => to!(audit::list),
        Operation::GetCredits => to!(credit::get_own),
        Operation::ListCreditGrants => to!(credit::list),
        Operation::ListCharges => to!(invoice::list_charges),
        Operation::ListInvoices => to!(invoice::list),
        Operation::DraftInvoice => to!(invoice::draft),
        Operation::GetInvoice => to!(invoice::get),
        Operation::GetInvoiceBundle => to!(proof::bundle),
        Operation::GetInvoiceDocument => to!(document::get),
        Operation::ExportBilling => to!(export::file),
        Operation::ListOrganizationReceipts => to!(proof::receipts),
        Operation::ListContracts => to!(contract::list),
        Operation::GetContract => to!(contract::get),
        Operation::AcceptContract => to!(contract::accept),
        Operation::LeaveContract => to!(contract::leave),
        Operation::ListCreditNotes => to!(credit_note::list),
        Operation::GetBillingProfile => to!(tax::get_own_profile),
        Operation::SetBillingProfile => to!(tax::set_own_profile),
        Operation::GetDunning => to!(dunning::get_own),
        Operation::SetOnSuspension => to!(dunning::set_on_suspension),
        Operation::ListFees => to!(fee::list),
        Operation::ListWebhookEndpoints => to!(webhook::list),
        Operation::CreateWebhookEndpoint => to!(webhook::create),
        Operation::DeleteWebhookEndpoint => to!(webhook::delete),
        Operation::TestWebhookEndpoint => to!(webhook::test),
        Operation::ListWebhookDeliveries => to!(webhook::list_deliveries),
        Operation::RetryWebhookDelivery => to!(webhook::retry_delivery),
        Operation::ListArchivedFiles => to!(archived_file::list),
        Operation::DeleteArchivedFile => to!(archived_file::delete),
        Operation::ListCompensations => to!(compensation::list),
        Operation::GetCompensation => to!(compensation::get),
        Operation::ListRateLimits => to!(rate_limit::list),
        Operation::CreateRateLimit => to!(rate_limit::create),
        Operation::GetRateLimit => to!(rate_limit::get),
        Operation::SetRateLimit => to!(rate_limit::update),
        Operation::DeleteRateLimit => to!(rate_limit::delete),
        Operation::ListLicences => to!(model_card::list_licences),
        Operation::AcceptLicence => to!(model_card::accept_licence),
        Operation::SetDataPolicy => to!(supplier::set_data_policy),
        Operation::GetOrganizationUsage => to!(usage::summary),
        Operation::GetOrganizationWhy => to!(why::explain),
        _ => None,
    }
}

fn offerings(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::ListOfferings => to!(offering::list),
        Operation::GetOffering => to!(offering::get),
        Operation::SetOffering => to!(offering::set),
        Operation::InviteToOffering => to!(offering::invite),
        Operation::UninviteFromOffering => to!(offering::uninvite),
        _ => None,
    }
}

fn operators_money(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::OperatorGetBillingProfile => to!(tax::get_profile),
        Operation::OperatorSetBillingProfile => to!(tax::set_profile),
        Operation::GetSeller => to!(tax::get_seller),
        Operation::SetSeller => to!(tax::set_seller),
        Operation::AddLogo => to!(tax::add_logo),
        Operation::GetTaxTable => to!(tax::get_table),
        Operation::SetTaxTable => to!(tax::set_table),
        Operation::OperatorListInvoices => to!(invoice::list),
        Operation::OperatorGetInvoice => to!(invoice::get),
        Operation::OperatorGetInvoiceBundle => to!(proof::bundle),
        Operation::OperatorListContracts => to!(contract::list),
        Operation::CreateContract => to!(contract::create),
        Operation::OperatorGetContract => to!(contract::get),
        Operation::CreateAmendment => to!(contract::amend),
        Operation::WithdrawContract => to!(contract::withdraw),
        Operation::OperatorGetInvoiceDocument => to!(document::get),
        Operation::OperatorExportBilling => to!(export::file),
        Operation::OperatorListCreditNotes => to!(credit_note::list),
        Operation::CreateCreditNote => to!(credit_note::create),
        Operation::GrantCredit => to!(credit::grant),
        Operation::OperatorListFees => to!(fee::list),
        Operation::CreateFee => to!(fee::create),
        Operation::OperatorListArchivedFiles => to!(archived_file::list),
        Operation::OperatorDeleteArchivedFile => to!(archived_file::delete),
        Operation::OperatorListCompensations => to!(compensation::list),
        Operation::CreateCompensation => to!(compensation::create),
        Operation::OperatorGetCompensation => to!(compensation::get),
        Operation::OperatorGetCompensationRules => to!(compensation::get_rules),
        Operation::SetCompensationRules => to!(compensation::set_rules),
        Operation::OperatorGetCredits => to!(credit::get),
        _ => None,
    }
}

/// What an organization pays in and gets back.
fn payments(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::ListTopUps => to!(payment::list_top_ups),
        Operation::CreateTopUp => to!(payment::create_top_up),
        Operation::GetTopUp => to!(payment::get_top_up),
        Operation::CancelTopUp => to!(payment::cancel_top_up),
        Operation::GetSavedCard => to!(saved_card::get),
        Operation::SaveCard => to!(saved_card::save),
        Operation::RemoveSavedCard => to!(saved_card::remove),
        Operation::GetTopUpRule => to!(top_up_rule::get),
        Operation::SetTopUpRule => to!(top_up_rule::set),
        Operation::RemoveTopUpRule => to!(top_up_rule::remove),
        Operation::ListRefunds => to!(payment::list_refunds),
        Operation::CreateRefund => to!(payment::create_refund),
        Operation::GetRefund => to!(payment::get_refund),
        Operation::CancelRefund => to!(payment::cancel_refund),
        _ => None,
    }
}

fn operators(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::OperatorListAuditLogs => to!(audit::list),
        Operation::GetClock => to!(clock::get),
        Operation::SetClock => to!(clock::set),
        Operation::ListOrganizations => to!(organization::list),
        Operation::CreateOrganization => to!(organization::create),
        Operation::OperatorGetOrganization => to!(organization::get),
        Operation::ListPriceLists => to!(price::list),
        Operation::PublishPriceList => to!(price::publish),
        Operation::GetPriceList => to!(price::get),
        Operation::CreatePriceIndex => to!(price_index::create),
        Operation::PublishPricePoint => to!(price_index::publish_point),
        Operation::SimulatePrices => to!(price_simulation::simulate),
        Operation::ListRerates => to!(rerate::list),
        Operation::SimulateRerate => to!(rerate::simulate),
        Operation::GetRerate => to!(rerate::get),
        Operation::ApplyRerate => to!(rerate::apply),
        Operation::VerifyLedger => to!(ledger::verify),
        Operation::ListLedgerAccounts => to!(ledger::list_accounts),
        Operation::ExportLedger => to!(ledger::export),
        Operation::GetEarnings => to!(ledger::earnings),
        Operation::GetMarginReport => to!(margin::report),
        Operation::GetReturnReport => to!(monthly_return::report),
        Operation::GetRevenueReport => to!(revenue::report),
        Operation::GetShowback => to!(margin::showback),
        Operation::GetTaxReport => to!(tax_report::report),
        Operation::GetLeakage => to!(leakage::report),
        Operation::ListSupplyCosts => to!(supply_cost::list),
        Operation::PublishSupplyCosts => to!(supply_cost::publish),
        Operation::GetSupplyCosts => to!(supply_cost::get),
        Operation::ListQuarantine => to!(ledger::quarantine),
        Operation::AnswerGateway => to!(ledger::answer_gateway),
        Operation::OperatorGetWhy => to!(why::explain),
        Operation::OperatorListLeases => to!(lease::list),
        Operation::OperatorListJobs => to!(job::list),
        Operation::ListServedModels => to!(model::list),
        Operation::ImportModel => to!(model::import),
        Operation::ListModelCards => to!(model_card::list),
        Operation::GetModelCard => to!(model_card::get),
        Operation::SetModelCard => to!(model_card::set),
        Operation::DeleteModelCard => to!(model_card::delete),
        Operation::ListRemoteModels => to!(remote_model::list),
        Operation::CreateRemoteModel => to!(remote_model::create),
        Operation::GetRemoteModel => to!(remote_model::get),
        Operation::ChangeRemoteModel => to!(remote_model::change),
        Operation::DeleteRemoteModel => to!(remote_model::delete),
        Operation::ListReplicas => to!(remote_model::list_replicas),
        Operation::CreateReplica => to!(remote_model::create_replica),
        Operation::GetReplica => to!(remote_model::get_replica),
        Operation::ChangeReplica => to!(remote_model::change_replica),
        Operation::DeleteReplica => to!(remote_model::delete_replica),
        Operation::ListReplicaCosts => to!(supplier::list_costs),
        Operation::SetReplicaCost => to!(supplier::set_cost),
        Operation::GetMargins => to!(supplier::margins),
        _ => operators_fleet(operation).or_else(|| operators_payments(operation)),
    }
}

fn operators_fleet(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::ListNodes => to!(device::list_nodes),
        Operation::ListDevices => to!(device::list),
        Operation::CordonDevice => to!(device::cordon),
        Operation::UncordonDevice => to!(device::uncordon),
        Operation::GetCapacityCalendar => to!(calendar::capacity),
        Operation::ListCapacity => to!(device::capacity),
        Operation::PreviewReclaim => to!(reclaim::preview),
        Operation::CreateReclaim => to!(reclaim::create),
        Operation::ListReclaims => to!(reclaim::list),
        Operation::GetReclaim => to!(reclaim::get),
        Operation::CancelReclaim => to!(reclaim::cancel),
        Operation::GetDemand => to!(demand::history),
        Operation::ReportDemand => to!(demand::report),
        Operation::ImportDemand => to!(demand::import),
        Operation::GetSellingPolicy => to!(demand::policy),
        Operation::SetSellingPolicy => to!(demand::set_policy),
        _ => None,
    }
}

fn operators_payments(operation: Operation) -> Option<Handler> {
    match operation {
        Operation::OperatorListTopUps => to!(payment::list_top_ups),
        Operation::ImportBankStatement => to!(payment::import_statement),
        Operation::ListIncomingPayments => to!(payment::list_incoming),
        Operation::AnswerIncomingPayment => to!(payment::answer_incoming),
        Operation::OperatorListRefunds => to!(payment::list_refunds),
        Operation::OperatorCreateRefund => to!(payment::operator_create_refund),
        Operation::ApproveRefund => to!(payment::approve_refund),
        Operation::RejectRefund => to!(payment::reject_refund),
        Operation::PayRefund => to!(payment::pay_refund),
        Operation::ListOperatorKeys => to!(key::list_peers),
        Operation::CreateOperatorKey => to!(key::create_peer),
        Operation::GetOperatorKey => to!(key::get_peer),
        Operation::DeleteOperatorKey => to!(key::delete_peer),
        Operation::ListPayouts => to!(payout::list),
        Operation::GetProcessorFunds => to!(payout::funds),
        Operation::GetDunningPolicy => to!(dunning::get_policy),
        Operation::SetDunningPolicy => to!(dunning::set_policy),
        Operation::OperatorGetDunning => to!(dunning::get),
        Operation::OperatorSetDunning => to!(dunning::set),
        Operation::PauseInvoice => to!(dunning::pause_invoice),
        Operation::ListExportSchedules => to!(export_schedule::list),
        Operation::CreateExportSchedule => to!(export_schedule::create),
        Operation::GetExportSchedule => to!(export_schedule::get),
        Operation::RunExportSchedule => to!(export_schedule::run),
        Operation::DeleteExportSchedule => to!(export_schedule::delete),
        Operation::ListMail => to!(mail::list),
        Operation::RetryMail => to!(mail::retry),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_api::ROUTES;

    #[test]
    fn every_route_but_those_of_the_data_plane_has_a_handler() {
        let without: Vec<&str> =
            ROUTES.iter().filter(|route| find(route.operation).is_none()).map(|route| route.operation.name()).collect();
        assert_eq!(
            without,
            [
                "CreateChatCompletion",
                "CreateCompletion",
                "CreateEmbedding",
                "CreateModeration",
                "CreateResponse",
                "CountResponseTokens",
                "CreateMessage",
                "CountMessageTokens",
                "ListModels",
                "GetModel"
            ]
        );
    }
}
