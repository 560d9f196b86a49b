//! One method for each operation that is the operator's: the rest of [`super::methods`].

use super::{Client, IdempotencyKey};
use crate::audit::{AuditEntry, AuditListQuery};
use crate::calendar::{CapacityCalendar, CapacityCalendarQuery};
use crate::capacity::Capacity;
use crate::card::{ModelCard, SetModelCard};
use crate::clock::{Clock, SetClock};
use crate::compensation::{Compensation, CompensationListQuery, CompensationRules, CreateCompensation, SetCompensationRules};
use crate::contract::{Contract, ContractListQuery, CreateAmendment, CreateContract};
use crate::credit::{CreateCreditGrant, CreditBalance, CreditGrant};
use crate::credit_note::{CreateCreditNote, CreditNote, CreditNoteListQuery};
use crate::demand::{
    DemandHistory, DemandImport, DemandQuery, DemandReport, ImportDemand, ReportDemand, SellingPolicy, SetSellingPolicy,
};
use crate::device::{Device, DeviceListQuery, Node};
use crate::document::DocumentQuery;
use crate::export::ExportQuery;
use crate::fee::{CreateFee, Fee, FeeListQuery};
use crate::file::{ArchivedFile, ArchivedFileListQuery};
use crate::invoice::{Invoice, InvoiceListQuery};
use crate::job::{Job, JobListQuery};
use crate::leakage::Leakage;
use crate::lease::{Lease, LeaseListQuery};
use crate::ledger::{
    AnswerGateway, Earnings, GatewayLoss, LedgerAccount, LedgerAccountListQuery, LedgerExportQuery, LedgerVerification,
    QuarantineEntry,
};
use crate::list::{List, ListQuery};
use crate::margin::{MarginReport, MonthQuery, Showback};
use crate::model::{ImportModel, ServedModel};
use crate::monthly_return::ReturnReport;
use crate::object::Deleted;
use crate::offering::{Offering, OfferingRecord, SetOffering};
use crate::organization::{CreateOrganization, CreatedOrganization, Organization, OrganizationListQuery};
use crate::price::{PriceList, PublishPriceList};
use crate::price_index::{CreatePriceIndex, PriceIndex, PricePoint, PublishPricePoint};
use crate::price_simulation::{PriceSimulation, SimulatePrices};
use crate::reclaim::{CreateReclaim, Reclaim, ReclaimListQuery, ReclaimPreview, ReclaimSummary};
use crate::remote_model::{ChangeReplica, CreateRemoteModel, CreateReplica, RemoteModel, Replica, ReplicaListQuery};
use crate::rerate::{Rerate, SimulateRerate};
use crate::revenue::RevenueReport;
use crate::route::Operation;
use crate::supplier::{Margins, ReplicaCost, SetReplicaCost};
use crate::supply_cost::{PublishSupplyCosts, SupplyCosts};
use crate::tax::{AddLogo, BillingProfile, Logo, Seller, SetBillingProfile, SetSeller, SetTaxTable, TaxTable};
use crate::tax_report::{TaxReport, TaxReportQuery};
use crate::usage::UsageQuery;
use std::io::Read;
use sublet_core::error::Result;
use sublet_core::id::{
    CompensationId, ContractId, DeviceId, FileId, GatewayId, InvoiceId, ModelId, OrganizationId, ReclaimId, ReplicaId, RerateId,
};

/// The cloud, with operator keys.
impl Client {
    pub fn organizations(&self, query: &OrganizationListQuery) -> Result<List<Organization>> {
        self.call(Operation::ListOrganizations, &[]).query(query).json()
    }
    pub fn create_organization(&self, body: &CreateOrganization, key: &IdempotencyKey) -> Result<CreatedOrganization> {
        self.call(Operation::CreateOrganization, &[]).body(body).idempotency_key(key).json()
    }
    pub fn all_invoices(&self, query: &InvoiceListQuery) -> Result<List<Invoice>> {
        self.call(Operation::OperatorListInvoices, &[]).query(query).json()
    }
    pub fn any_invoice(&self, id: &InvoiceId) -> Result<Invoice> {
        self.call(Operation::OperatorGetInvoice, &[id.as_str()]).json()
    }
    pub fn any_invoice_bundle(&self, id: &InvoiceId) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::OperatorGetInvoiceBundle, &[id.as_str()]).stream()
    }
    pub fn any_invoice_document(&self, id: &InvoiceId, query: &DocumentQuery) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::OperatorGetInvoiceDocument, &[id.as_str()]).query(query).stream()
    }
    /// As [`Self::export`], of all organizations or one.
    pub fn export_all(&self, query: &ExportQuery) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::OperatorExportBilling, &[]).query(query).stream()
    }
    pub fn all_fees(&self, query: &FeeListQuery) -> Result<List<Fee>> {
        self.call(Operation::OperatorListFees, &[]).query(query).json()
    }
    pub fn charge_fee(&self, body: &CreateFee, key: &IdempotencyKey) -> Result<Fee> {
        self.call(Operation::CreateFee, &[]).body(body).idempotency_key(key).json()
    }
    pub fn all_archived_files(&self, query: &ArchivedFileListQuery) -> Result<List<ArchivedFile>> {
        self.call(Operation::OperatorListArchivedFiles, &[]).query(query).json()
    }
    pub fn delete_any_archived_file(&self, id: &FileId) -> Result<Deleted> {
        self.call(Operation::OperatorDeleteArchivedFile, &[id.as_str()]).json()
    }
    pub fn all_compensations(&self, query: &CompensationListQuery) -> Result<List<Compensation>> {
        self.call(Operation::OperatorListCompensations, &[]).query(query).json()
    }
    pub fn any_compensation(&self, id: &CompensationId) -> Result<Compensation> {
        self.call(Operation::OperatorGetCompensation, &[id.as_str()]).json()
    }
    pub fn give_compensation(&self, body: &CreateCompensation, key: &IdempotencyKey) -> Result<Compensation> {
        self.call(Operation::CreateCompensation, &[]).body(body).idempotency_key(key).json()
    }
    pub fn all_compensation_rules(&self) -> Result<CompensationRules> {
        self.call(Operation::OperatorGetCompensationRules, &[]).json()
    }
    pub fn set_compensation_rules(&self, body: &SetCompensationRules) -> Result<CompensationRules> {
        self.call(Operation::SetCompensationRules, &[]).body(body).json()
    }
    pub fn create_credit_note(&self, of: &InvoiceId, body: &CreateCreditNote, key: &IdempotencyKey) -> Result<CreditNote> {
        self.call(Operation::CreateCreditNote, &[of.as_str()]).body(body).idempotency_key(key).json()
    }
    pub fn all_contracts(&self, query: &ContractListQuery) -> Result<List<Contract>> {
        self.call(Operation::OperatorListContracts, &[]).query(query).json()
    }
    pub fn any_contract(&self, id: &ContractId) -> Result<Contract> {
        self.call(Operation::OperatorGetContract, &[id.as_str()]).json()
    }
    pub fn create_contract(&self, body: &CreateContract, key: &IdempotencyKey) -> Result<Contract> {
        self.call(Operation::CreateContract, &[]).body(body).idempotency_key(key).json()
    }
    pub fn amend_contract(&self, id: &ContractId, body: &CreateAmendment, key: &IdempotencyKey) -> Result<Contract> {
        self.call(Operation::CreateAmendment, &[id.as_str()]).body(body).idempotency_key(key).json()
    }
    pub fn withdraw_contract(&self, id: &ContractId) -> Result<Contract> {
        self.call(Operation::WithdrawContract, &[id.as_str()]).json()
    }
    pub fn all_credit_notes(&self, query: &CreditNoteListQuery) -> Result<List<CreditNote>> {
        self.call(Operation::OperatorListCreditNotes, &[]).query(query).json()
    }
    pub fn any_billing_profile(&self, id: &OrganizationId) -> Result<BillingProfile> {
        self.call(Operation::OperatorGetBillingProfile, &[id.as_str()]).json()
    }
    pub fn set_any_billing_profile(&self, id: &OrganizationId, body: &SetBillingProfile) -> Result<BillingProfile> {
        self.call(Operation::OperatorSetBillingProfile, &[id.as_str()]).body(body).json()
    }
    pub fn seller(&self) -> Result<Seller> {
        self.call(Operation::GetSeller, &[]).json()
    }
    pub fn set_seller(&self, body: &SetSeller) -> Result<Seller> {
        self.call(Operation::SetSeller, &[]).body(body).json()
    }
    pub fn add_logo(&self, body: &AddLogo) -> Result<Logo> {
        self.call(Operation::AddLogo, &[]).body(body).json()
    }
    pub fn tax_table(&self) -> Result<TaxTable> {
        self.call(Operation::GetTaxTable, &[]).json()
    }
    pub fn set_tax_table(&self, body: &SetTaxTable) -> Result<TaxTable> {
        self.call(Operation::SetTaxTable, &[]).body(body).json()
    }
    pub fn log_key(&self) -> Result<String> {
        self.call(Operation::GetLogKey, &[]).text()
    }
    pub fn log_checkpoint(&self) -> Result<String> {
        self.call(Operation::GetLogCheckpoint, &[]).text()
    }
    pub fn log_tile(&self, path: &str) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::GetLogTile, &[path]).stream()
    }
    pub fn clock(&self) -> Result<Clock> {
        self.call(Operation::GetClock, &[]).json()
    }
    pub fn set_clock(&self, body: &SetClock) -> Result<Clock> {
        self.call(Operation::SetClock, &[]).body(body).json()
    }
    pub fn grant_credit(&self, to: &OrganizationId, body: &CreateCreditGrant, key: &IdempotencyKey) -> Result<CreditGrant> {
        self.call(Operation::GrantCredit, &[to.as_str()]).body(body).idempotency_key(key).json()
    }
    pub fn organization_credits(&self, id: &OrganizationId) -> Result<CreditBalance> {
        self.call(Operation::OperatorGetCredits, &[id.as_str()]).json()
    }
    pub fn nodes(&self, query: &ListQuery) -> Result<List<Node>> {
        self.call(Operation::ListNodes, &[]).query(query).json()
    }
    pub fn devices(&self, query: &DeviceListQuery) -> Result<List<Device>> {
        self.call(Operation::ListDevices, &[]).query(query).json()
    }
    pub fn cordon_device(&self, id: &DeviceId) -> Result<Device> {
        self.call(Operation::CordonDevice, &[id.as_str()]).json()
    }
    pub fn uncordon_device(&self, id: &DeviceId) -> Result<Device> {
        self.call(Operation::UncordonDevice, &[id.as_str()]).json()
    }
    pub fn capacity_calendar(&self, query: &CapacityCalendarQuery) -> Result<List<CapacityCalendar>> {
        self.call(Operation::GetCapacityCalendar, &[]).query(query).json()
    }
    pub fn capacity(&self) -> Result<List<Capacity>> {
        self.call(Operation::ListCapacity, &[]).json()
    }
    pub fn demand(&self, query: &DemandQuery) -> Result<DemandHistory> {
        self.call(Operation::GetDemand, &[]).query(query).json()
    }
    pub fn report_demand(&self, body: &ReportDemand) -> Result<DemandReport> {
        self.call(Operation::ReportDemand, &[]).body(body).json()
    }
    pub fn import_demand(&self, body: &ImportDemand) -> Result<DemandImport> {
        self.call(Operation::ImportDemand, &[]).body(body).json()
    }
    pub fn selling_policy(&self) -> Result<SellingPolicy> {
        self.call(Operation::GetSellingPolicy, &[]).json()
    }
    pub fn set_selling_policy(&self, body: &SetSellingPolicy) -> Result<SellingPolicy> {
        self.call(Operation::SetSellingPolicy, &[]).body(body).json()
    }
    pub fn price_lists(&self, query: &ListQuery) -> Result<List<PriceList>> {
        self.call(Operation::ListPriceLists, &[]).query(query).json()
    }
    pub fn simulate_prices(&self, body: &SimulatePrices) -> Result<PriceSimulation> {
        self.call(Operation::SimulatePrices, &[]).body(body).json()
    }
    pub fn rerates(&self, query: &ListQuery) -> Result<List<Rerate>> {
        self.call(Operation::ListRerates, &[]).query(query).json()
    }
    pub fn simulate_rerate(&self, body: &SimulateRerate, key: &IdempotencyKey) -> Result<Rerate> {
        self.call(Operation::SimulateRerate, &[]).body(body).idempotency_key(key).json()
    }
    pub fn rerate(&self, id: &RerateId) -> Result<Rerate> {
        self.call(Operation::GetRerate, &[id.as_str()]).json()
    }
    pub fn apply_rerate(&self, id: &RerateId) -> Result<Rerate> {
        self.call(Operation::ApplyRerate, &[id.as_str()]).json()
    }
    pub fn price_list(&self, version: &str) -> Result<PriceList> {
        self.call(Operation::GetPriceList, &[version]).json()
    }
    pub fn publish_price_list(&self, body: &PublishPriceList, key: &IdempotencyKey) -> Result<PriceList> {
        self.call(Operation::PublishPriceList, &[]).body(body).idempotency_key(key).json()
    }
    pub fn served_models(&self) -> Result<List<ServedModel>> {
        self.call(Operation::ListServedModels, &[]).json()
    }
    pub fn import_model(&self, body: &ImportModel) -> Result<ServedModel> {
        self.call(Operation::ImportModel, &[]).body(body).json()
    }
    pub fn offerings(&self) -> Result<List<Offering>> {
        self.call(Operation::ListOfferings, &[]).json()
    }
    pub fn offering(&self, product: &str) -> Result<OfferingRecord> {
        self.call(Operation::GetOffering, &[product]).json()
    }
    pub fn set_offering(&self, product: &str, body: &SetOffering) -> Result<OfferingRecord> {
        self.call(Operation::SetOffering, &[product]).body(body).json()
    }
    pub fn invite_to_offering(&self, organization: &OrganizationId, product: &str) -> Result<OfferingRecord> {
        self.call(Operation::InviteToOffering, &[organization.as_str(), product]).json()
    }
    pub fn uninvite_from_offering(&self, organization: &OrganizationId, product: &str) -> Result<OfferingRecord> {
        self.call(Operation::UninviteFromOffering, &[organization.as_str(), product]).json()
    }
    pub fn model_cards(&self) -> Result<List<ModelCard>> {
        self.call(Operation::ListModelCards, &[]).json()
    }
    pub fn model_card(&self, model: &str) -> Result<ModelCard> {
        self.call(Operation::GetModelCard, &[model]).json()
    }
    pub fn set_model_card(&self, model: &str, body: &SetModelCard) -> Result<ModelCard> {
        self.call(Operation::SetModelCard, &[model]).body(body).json()
    }
    pub fn delete_model_card(&self, model: &str) -> Result<Deleted> {
        self.call(Operation::DeleteModelCard, &[model]).json()
    }
    pub fn remote_models(&self, query: &ListQuery) -> Result<List<RemoteModel>> {
        self.call(Operation::ListRemoteModels, &[]).query(query).json()
    }
    pub fn create_remote_model(&self, body: &CreateRemoteModel, key: &IdempotencyKey) -> Result<RemoteModel> {
        self.call(Operation::CreateRemoteModel, &[]).body(body).idempotency_key(key).json()
    }
    pub fn delete_remote_model(&self, id: &ModelId) -> Result<Deleted> {
        self.call(Operation::DeleteRemoteModel, &[id.as_str()]).json()
    }
    pub fn replicas(&self, query: &ReplicaListQuery) -> Result<List<Replica>> {
        self.call(Operation::ListReplicas, &[]).query(query).json()
    }
    pub fn create_replica(&self, body: &CreateReplica, key: &IdempotencyKey) -> Result<Replica> {
        self.call(Operation::CreateReplica, &[]).body(body).idempotency_key(key).json()
    }
    pub fn change_replica(&self, id: &ReplicaId, body: &ChangeReplica) -> Result<Replica> {
        self.call(Operation::ChangeReplica, &[id.as_str()]).body(body).json()
    }
    pub fn delete_replica(&self, id: &ReplicaId) -> Result<Deleted> {
        self.call(Operation::DeleteReplica, &[id.as_str()]).json()
    }
    pub fn replica_costs(&self, id: &ReplicaId) -> Result<List<ReplicaCost>> {
        self.call(Operation::ListReplicaCosts, &[id.as_str()]).json()
    }
    pub fn set_replica_cost(&self, id: &ReplicaId, body: &SetReplicaCost, key: &IdempotencyKey) -> Result<ReplicaCost> {
        self.call(Operation::SetReplicaCost, &[id.as_str()]).body(body).idempotency_key(key).json()
    }
    pub fn margins(&self, query: &UsageQuery) -> Result<Margins> {
        self.call(Operation::GetMargins, &[]).query(query).json()
    }
    pub fn all_jobs(&self, query: &JobListQuery) -> Result<List<Job>> {
        self.call(Operation::OperatorListJobs, &[]).query(query).json()
    }
    pub fn all_leases(&self, query: &LeaseListQuery) -> Result<List<Lease>> {
        self.call(Operation::OperatorListLeases, &[]).query(query).json()
    }
    pub fn preview_reclaim(&self, body: &CreateReclaim) -> Result<ReclaimPreview> {
        self.call(Operation::PreviewReclaim, &[]).body(body).json()
    }
    pub fn create_reclaim(&self, body: &CreateReclaim, key: &IdempotencyKey) -> Result<Reclaim> {
        self.call(Operation::CreateReclaim, &[]).body(body).idempotency_key(key).json()
    }
    pub fn reclaims(&self, query: &ReclaimListQuery) -> Result<List<ReclaimSummary>> {
        self.call(Operation::ListReclaims, &[]).query(query).json()
    }
    pub fn reclaim(&self, id: &ReclaimId) -> Result<Reclaim> {
        self.call(Operation::GetReclaim, &[id.as_str()]).json()
    }
    pub fn cancel_reclaim(&self, id: &ReclaimId) -> Result<Reclaim> {
        self.call(Operation::CancelReclaim, &[id.as_str()]).json()
    }
    pub fn verify_ledger(&self) -> Result<LedgerVerification> {
        self.call(Operation::VerifyLedger, &[]).json()
    }
    pub fn ledger_accounts(&self, query: &LedgerAccountListQuery) -> Result<List<LedgerAccount>> {
        self.call(Operation::ListLedgerAccounts, &[]).query(query).json()
    }
    pub fn export_ledger(&self, query: &LedgerExportQuery) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::ExportLedger, &[]).query(query).stream()
    }
    pub fn whole_audit_log(&self, query: &AuditListQuery) -> Result<List<AuditEntry>> {
        self.call(Operation::OperatorListAuditLogs, &[]).query(query).json()
    }
    pub fn earnings(&self, query: &UsageQuery) -> Result<Earnings> {
        self.call(Operation::GetEarnings, &[]).query(query).json()
    }
    pub fn create_price_index(&self, body: &CreatePriceIndex, key: &IdempotencyKey) -> Result<PriceIndex> {
        self.call(Operation::CreatePriceIndex, &[]).body(body).idempotency_key(key).json()
    }
    pub fn publish_price_point(&self, index: &str, body: &PublishPricePoint, key: &IdempotencyKey) -> Result<PricePoint> {
        self.call(Operation::PublishPricePoint, &[index]).body(body).idempotency_key(key).json()
    }
    pub fn supply_costs(&self) -> Result<List<SupplyCosts>> {
        self.call(Operation::ListSupplyCosts, &[]).json()
    }
    pub fn supply_cost(&self, version: &str) -> Result<SupplyCosts> {
        self.call(Operation::GetSupplyCosts, &[version]).json()
    }
    pub fn publish_supply_costs(&self, body: &PublishSupplyCosts, key: &IdempotencyKey) -> Result<SupplyCosts> {
        self.call(Operation::PublishSupplyCosts, &[]).body(body).idempotency_key(key).json()
    }
    pub fn margin_report(&self, query: &MonthQuery) -> Result<MarginReport> {
        self.call(Operation::GetMarginReport, &[]).query(query).json()
    }
    pub fn return_report(&self, query: &MonthQuery) -> Result<ReturnReport> {
        self.call(Operation::GetReturnReport, &[]).query(query).json()
    }
    pub fn revenue_report(&self, query: &MonthQuery) -> Result<RevenueReport> {
        self.call(Operation::GetRevenueReport, &[]).query(query).json()
    }
    pub fn showback(&self, query: &MonthQuery) -> Result<Showback> {
        self.call(Operation::GetShowback, &[]).query(query).json()
    }
    pub fn tax_report(&self, query: &TaxReportQuery) -> Result<TaxReport> {
        self.call(Operation::GetTaxReport, &[]).query(query).json()
    }
    pub fn leakage(&self) -> Result<Leakage> {
        self.call(Operation::GetLeakage, &[]).json()
    }
    pub fn quarantine(&self, query: &ListQuery) -> Result<List<QuarantineEntry>> {
        self.call(Operation::ListQuarantine, &[]).query(query).json()
    }
    pub fn answer_gateway(&self, id: &GatewayId, body: &AnswerGateway) -> Result<GatewayLoss> {
        self.call(Operation::AnswerGateway, &[id.as_str()]).body(body).json()
    }
}
