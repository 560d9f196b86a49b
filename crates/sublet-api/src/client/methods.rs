//! The calls with their types, in the order of the route table.

use super::{Chunks, Client, FileUpload, IdempotencyKey};
use crate::account::Account;
use crate::audit::{AuditEntry, AuditListQuery};
use crate::batch::{Batch, CreateBatch};
use crate::calendar::{AvailabilityCalendar, AvailabilityCalendarQuery};
use crate::card::{AcceptLicence, AcceptedLicence};
use crate::compensation::{Compensation, CompensationRules};
use crate::contract::{AcceptContract, Contract, ContractListQuery, LeaveContract};
use crate::credit::{CreditBalance, CreditGrant};
use crate::credit_note::{CreditNote, CreditNoteListQuery};
use crate::document::DocumentQuery;
use crate::export::ExportQuery;
use crate::fee::Fee;
use crate::file::{ArchivedFile, ArchivedFileListQuery, File, FileListQuery};
use crate::health::Health;
use crate::invoice::{Charge, ChargeListQuery, DraftInvoice, Invoice, InvoiceListQuery};
use crate::job::{CreateJob, Job, JobListQuery, JobLogQuery};
use crate::key::{AdminKey, CreateAdminKey, CreateKey, CreatedAdminKey, CreatedKey, Key, KeyOwnerKind};
use crate::lease::{CreateLease, Lease, LeaseListQuery, LeaseNotice, LeaseNoticeQuery};
use crate::limit::{LimitQuery, LimitWindow, SetSpendLimit, SpendAlert, SpendForecast, SpendLimit};
use crate::list::{List, ListQuery};
use crate::object::Deleted;
use crate::openai::{ChatCompletion, ChatRequest, Model, ModelList};
use crate::organization::Organization;
use crate::price::{PriceList, PriceListQuery};
use crate::price_index::{PriceIndex, PricePoint};
use crate::project::{CreateProject, Project, ProjectListQuery};
use crate::quote::{CreateQuote, Quote, QuoteListQuery};
use crate::rate_limit::{CreateRateLimit, RateLimit, SetRateLimit};
use crate::receipt::Receipt;
use crate::reclaim::DeclareCheckpoint;
use crate::route::{Operation, Plane};
use crate::sku::{Availability, AvailabilityQuery, Sku};
use crate::supplier::DataPermission;
use crate::tax::{BillingProfile, SetBillingProfile};
use crate::usage::{Request, UsageQuery, UsageSummary};
use crate::why::Why;
use serde_json::Value;
use std::io::Read;
use sublet_core::error::Result;
use sublet_core::id::{
    BatchId, CompensationId, ContractId, FileId, InvoiceId, JobId, KeyId, LeaseId, ProjectId, QuoteId, RateLimitId, RequestId,
    ResponseId,
};

/// A key with the project it belongs to, as paths name it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct KeyPath {
    pub project: ProjectId,
    pub key: KeyId,
}

/// Everybody and the data plane.
impl Client {
    pub fn readiness(&self) -> Result<Health> {
        self.call(Operation::GetReadiness, &[]).json()
    }
    pub fn prices(&self) -> Result<PriceList> {
        self.call(Operation::GetPrices, &[]).json()
    }
    pub fn models(&self) -> Result<ModelList> {
        self.call(Operation::ListModels, &[]).json()
    }
    /// One model by its name or an alias.
    pub fn model(&self, name: &str) -> Result<Model> {
        self.call(Operation::GetModel, &[name]).json()
    }
    pub fn chat(&self, request: &ChatRequest) -> Result<ChatCompletion> {
        self.call(Operation::CreateChatCompletion, &[]).body(request).json()
    }
    /// The request must ask for a stream.
    pub fn chat_stream(&self, request: &ChatRequest) -> Result<Chunks> {
        self.call(Operation::CreateChatCompletion, &[]).body(request).stream().map(Chunks::new)
    }
    /// A kept response, as it was answered.
    pub fn response(&self, id: &ResponseId) -> Result<Value> {
        self.call(Operation::GetResponse, &[id.as_str()]).json()
    }
    /// The items that a kept response was asked.
    pub fn response_input(&self, id: &ResponseId, query: &ListQuery) -> Result<List<Value>> {
        self.call(Operation::ListResponseInputItems, &[id.as_str()]).query(query).json()
    }
    pub fn delete_response(&self, id: &ResponseId) -> Result<Deleted> {
        self.call(Operation::DeleteResponse, &[id.as_str()]).json()
    }
    pub fn upload_file(&self, file: FileUpload, key: &IdempotencyKey) -> Result<File> {
        self.call(Operation::CreateFile, &[]).file(file, key).json()
    }
    pub fn files(&self, query: &FileListQuery) -> Result<List<File>> {
        self.call(Operation::ListFiles, &[]).query(query).json()
    }
    pub fn file(&self, id: &FileId) -> Result<File> {
        self.call(Operation::GetFile, &[id.as_str()]).json()
    }
    pub fn delete_file(&self, id: &FileId) -> Result<Deleted> {
        self.call(Operation::DeleteFile, &[id.as_str()]).json()
    }
    pub fn archived_files(&self, query: &ArchivedFileListQuery) -> Result<List<ArchivedFile>> {
        self.call(Operation::ListArchivedFiles, &[]).query(query).json()
    }
    pub fn delete_archived_file(&self, id: &FileId) -> Result<Deleted> {
        self.call(Operation::DeleteArchivedFile, &[id.as_str()]).json()
    }
    /// What proves the charges of a request or job.
    pub fn receipts(&self, source: &str, query: &ListQuery) -> Result<List<Receipt>> {
        self.call(Operation::ListReceipts, &[source]).query(query).json()
    }
    pub fn file_content(&self, id: &FileId) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::GetFileContent, &[id.as_str()]).stream()
    }
    pub fn create_batch(&self, body: &CreateBatch, key: &IdempotencyKey) -> Result<Batch> {
        self.call(Operation::CreateBatch, &[]).body(body).idempotency_key(key).json()
    }
    pub fn batches(&self, query: &ListQuery) -> Result<List<Batch>> {
        self.call(Operation::ListBatches, &[]).query(query).json()
    }
    pub fn batch(&self, id: &BatchId) -> Result<Batch> {
        self.call(Operation::GetBatch, &[id.as_str()]).json()
    }
    pub fn cancel_batch(&self, id: &BatchId) -> Result<Batch> {
        self.call(Operation::CancelBatch, &[id.as_str()]).json()
    }
    pub fn request(&self, id: &RequestId) -> Result<Request> {
        self.call(Operation::GetRequest, &[id.as_str()]).json()
    }
}

/// The platform, with project keys.
impl Client {
    pub fn account(&self) -> Result<Account> {
        self.call(Operation::GetAccount, &[]).json()
    }
    /// What market prices follow.
    pub fn price_indexes(&self) -> Result<List<PriceIndex>> {
        self.call(Operation::ListPriceIndexes, &[]).json()
    }
    pub fn price_points(&self, index: &str, query: &ListQuery) -> Result<List<PricePoint>> {
        self.call(Operation::ListPricePoints, &[index]).query(query).json()
    }
    /// What this account pays: by its contract, or the public prices.
    pub fn account_prices(&self, query: &PriceListQuery) -> Result<PriceList> {
        self.call(Operation::GetAccountPrices, &[]).query(query).json()
    }
    pub fn skus(&self) -> Result<List<Sku>> {
        self.call(Operation::ListSkus, &[]).json()
    }
    pub fn availability(&self, query: &AvailabilityQuery) -> Result<List<Availability>> {
        self.call(Operation::ListAvailability, &[]).query(query).json()
    }
    pub fn availability_calendar(&self, query: &AvailabilityCalendarQuery) -> Result<List<AvailabilityCalendar>> {
        self.call(Operation::GetAvailabilityCalendar, &[]).query(query).json()
    }
    pub fn create_quote(&self, body: &CreateQuote, key: &IdempotencyKey) -> Result<Quote> {
        self.call(Operation::CreateQuote, &[]).body(body).idempotency_key(key).json()
    }
    pub fn quotes(&self, query: &QuoteListQuery) -> Result<List<Quote>> {
        self.call(Operation::ListQuotes, &[]).query(query).json()
    }
    pub fn quote(&self, id: &QuoteId) -> Result<Quote> {
        self.call(Operation::GetQuote, &[id.as_str()]).json()
    }
    pub fn create_lease(&self, body: &CreateLease, key: &IdempotencyKey) -> Result<Lease> {
        self.call(Operation::CreateLease, &[]).body(body).idempotency_key(key).json()
    }
    pub fn leases(&self, query: &LeaseListQuery) -> Result<List<Lease>> {
        self.call(Operation::ListLeases, &[]).query(query).json()
    }
    pub fn lease(&self, id: &LeaseId) -> Result<Lease> {
        self.call(Operation::GetLease, &[id.as_str()]).json()
    }
    /// What a lease was told of its end; waits up to a minute for it if the query says so.
    pub fn lease_notice(&self, id: &LeaseId, query: &LeaseNoticeQuery) -> Result<LeaseNotice> {
        self.call(Operation::GetLeaseNotice, &[id.as_str()]).query(query).json()
    }
    /// Says that what a lease's workload did so far is saved.
    pub fn declare_checkpoint(&self, id: &LeaseId, body: &DeclareCheckpoint) -> Result<Lease> {
        self.call(Operation::DeclareCheckpoint, &[id.as_str()]).body(body).json()
    }
    /// Gives a lease back that was told to end.
    pub fn yield_lease(&self, id: &LeaseId) -> Result<Lease> {
        self.call(Operation::YieldLease, &[id.as_str()]).json()
    }
    pub fn cancel_lease(&self, id: &LeaseId) -> Result<Lease> {
        self.call(Operation::CancelLease, &[id.as_str()]).json()
    }
    pub fn create_job(&self, body: &CreateJob, key: &IdempotencyKey) -> Result<Job> {
        self.call(Operation::CreateJob, &[]).body(body).idempotency_key(key).json()
    }
    pub fn jobs(&self, query: &JobListQuery) -> Result<List<Job>> {
        self.call(Operation::ListJobs, &[]).query(query).json()
    }
    pub fn job(&self, id: &JobId) -> Result<Job> {
        self.call(Operation::GetJob, &[id.as_str()]).json()
    }
    pub fn cancel_job(&self, id: &JobId) -> Result<Job> {
        self.call(Operation::CancelJob, &[id.as_str()]).json()
    }
    pub fn job_log(&self, id: &JobId, query: &JobLogQuery) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::GetJobLogs, &[id.as_str()]).query(query).stream()
    }
    pub fn usage(&self, query: &UsageQuery) -> Result<UsageSummary> {
        self.call(Operation::GetUsage, &[]).query(query).json()
    }
    /// Explains an object, asking on the given plane.
    pub fn why(&self, plane: Plane, id: &str) -> Result<Why> {
        let operation = match plane {
            Plane::Operator => Operation::OperatorGetWhy,
            Plane::Admin => Operation::GetOrganizationWhy,
            Plane::Project | Plane::Public => Operation::GetWhy,
        };
        self.call(operation, &[id]).json()
    }
}

/// The organization, with admin keys.
impl Client {
    pub fn licences(&self) -> Result<List<AcceptedLicence>> {
        self.call(Operation::ListLicences, &[]).json()
    }
    pub fn accept_licence(&self, body: &AcceptLicence, key: &IdempotencyKey) -> Result<AcceptedLicence> {
        self.call(Operation::AcceptLicence, &[]).body(body).idempotency_key(key).json()
    }
    pub fn set_data_policy(&self, body: &DataPermission) -> Result<Organization> {
        self.call(Operation::SetDataPolicy, &[]).body(body).json()
    }
    pub fn own_organization(&self) -> Result<Organization> {
        self.call(Operation::GetOrganization, &[]).json()
    }
    pub fn projects(&self, query: &ProjectListQuery) -> Result<List<Project>> {
        self.call(Operation::ListProjects, &[]).query(query).json()
    }
    pub fn create_project(&self, body: &CreateProject, key: &IdempotencyKey) -> Result<Project> {
        self.call(Operation::CreateProject, &[]).body(body).idempotency_key(key).json()
    }
    pub fn project_keys(&self, project: &ProjectId, query: &ListQuery) -> Result<List<Key>> {
        self.call(Operation::ListKeys, &[project.as_str()]).query(query).json()
    }
    pub fn create_project_key(&self, project: &ProjectId, body: &CreateKey, key: &IdempotencyKey) -> Result<CreatedKey> {
        self.call(Operation::CreateKey, &[project.as_str()]).body(body).idempotency_key(key).json()
    }
    pub fn revoke_project_key(&self, at: &KeyPath) -> Result<Deleted> {
        self.call(Operation::DeleteKey, &[at.project.as_str(), at.key.as_str()]).json()
    }
    pub fn fees(&self, query: &ListQuery) -> Result<List<Fee>> {
        self.call(Operation::ListFees, &[]).query(query).json()
    }
    pub fn compensations(&self, query: &ListQuery) -> Result<List<Compensation>> {
        self.call(Operation::ListCompensations, &[]).query(query).json()
    }
    pub fn compensation(&self, id: &CompensationId) -> Result<Compensation> {
        self.call(Operation::GetCompensation, &[id.as_str()]).json()
    }
    /// What leases are owed that are sold now.
    pub fn compensation_rules(&self) -> Result<CompensationRules> {
        self.call(Operation::GetCompensationRules, &[]).json()
    }
    /// Keys of an organization, or of the operator.
    pub fn admin_keys(&self, of: KeyOwnerKind, query: &ListQuery) -> Result<List<AdminKey>> {
        let operation = match of {
            KeyOwnerKind::Organization => Operation::ListAdminKeys,
            KeyOwnerKind::Operator => Operation::ListOperatorKeys,
        };
        self.call(operation, &[]).query(query).json()
    }
    pub fn create_admin_key(&self, of: KeyOwnerKind, body: &CreateAdminKey, key: &IdempotencyKey) -> Result<CreatedAdminKey> {
        let operation = match of {
            KeyOwnerKind::Organization => Operation::CreateAdminKey,
            KeyOwnerKind::Operator => Operation::CreateOperatorKey,
        };
        self.call(operation, &[]).body(body).idempotency_key(key).json()
    }
    pub fn revoke_admin_key(&self, of: KeyOwnerKind, id: &KeyId) -> Result<Deleted> {
        let operation = match of {
            KeyOwnerKind::Organization => Operation::DeleteAdminKey,
            KeyOwnerKind::Operator => Operation::DeleteOperatorKey,
        };
        self.call(operation, &[id.as_str()]).json()
    }
    /// The limits of an owner; a key's owner needs its project for the path.
    pub fn limits(&self, at: &LimitPath) -> Result<List<SpendLimit>> {
        match at {
            LimitPath::Organization => self.call(Operation::ListOrganizationLimits, &[]).json(),
            LimitPath::Project(project) => self.call(Operation::ListProjectLimits, &[project.as_str()]).json(),
            LimitPath::Key(at) => self.call(Operation::ListKeyLimits, &[at.project.as_str(), at.key.as_str()]).json(),
        }
    }
    pub fn set_limit(
        &self,
        at: &LimitPath,
        window: LimitWindow,
        requests: &LimitQuery,
        body: &SetSpendLimit,
    ) -> Result<SpendLimit> {
        let window = window.as_str();
        let call = match at {
            LimitPath::Organization => self.call(Operation::SetOrganizationLimit, &[window]),
            LimitPath::Project(project) => self.call(Operation::SetProjectLimit, &[project.as_str(), window]),
            LimitPath::Key(at) => self.call(Operation::SetKeyLimit, &[at.project.as_str(), at.key.as_str(), window]),
        };
        call.query(requests).body(body).json()
    }
    pub fn remove_limit(&self, at: &LimitPath, window: LimitWindow, requests: &LimitQuery) -> Result<Deleted> {
        let window = window.as_str();
        match at {
            LimitPath::Organization => self.call(Operation::DeleteOrganizationLimit, &[window]).query(requests).json(),
            LimitPath::Project(project) => {
                self.call(Operation::DeleteProjectLimit, &[project.as_str(), window]).query(requests).json()
            }
            LimitPath::Key(at) => {
                self.call(Operation::DeleteKeyLimit, &[at.project.as_str(), at.key.as_str(), window]).query(requests).json()
            }
        }
    }
    pub fn spend_forecasts(&self) -> Result<List<SpendForecast>> {
        self.call(Operation::ListSpendForecasts, &[]).json()
    }
    pub fn spend_alerts(&self, query: &ListQuery) -> Result<List<SpendAlert>> {
        self.call(Operation::ListSpendAlerts, &[]).query(query).json()
    }
    pub fn rate_limits(&self, query: &ListQuery) -> Result<List<RateLimit>> {
        self.call(Operation::ListRateLimits, &[]).query(query).json()
    }
    pub fn create_rate_limit(&self, body: &CreateRateLimit, key: &IdempotencyKey) -> Result<RateLimit> {
        self.call(Operation::CreateRateLimit, &[]).body(body).idempotency_key(key).json()
    }
    pub fn rate_limit(&self, id: &RateLimitId) -> Result<RateLimit> {
        self.call(Operation::GetRateLimit, &[id.as_str()]).json()
    }
    pub fn set_rate_limit(&self, id: &RateLimitId, body: &SetRateLimit) -> Result<RateLimit> {
        self.call(Operation::SetRateLimit, &[id.as_str()]).body(body).json()
    }
    pub fn remove_rate_limit(&self, id: &RateLimitId) -> Result<Deleted> {
        self.call(Operation::DeleteRateLimit, &[id.as_str()]).json()
    }
    pub fn organization_usage(&self, query: &UsageQuery) -> Result<UsageSummary> {
        self.call(Operation::GetOrganizationUsage, &[]).query(query).json()
    }
    pub fn audit_log(&self, query: &AuditListQuery) -> Result<List<AuditEntry>> {
        self.call(Operation::ListAuditLogs, &[]).query(query).json()
    }
    pub fn credits(&self) -> Result<CreditBalance> {
        self.call(Operation::GetCredits, &[]).json()
    }
    pub fn credit_grants(&self, query: &ListQuery) -> Result<List<CreditGrant>> {
        self.call(Operation::ListCreditGrants, &[]).query(query).json()
    }
    pub fn charges(&self, query: &ChargeListQuery) -> Result<List<Charge>> {
        self.call(Operation::ListCharges, &[]).query(query).json()
    }
    pub fn invoices(&self, query: &InvoiceListQuery) -> Result<List<Invoice>> {
        self.call(Operation::ListInvoices, &[]).query(query).json()
    }
    pub fn draft_invoice(&self, body: &DraftInvoice) -> Result<Invoice> {
        self.call(Operation::DraftInvoice, &[]).body(body).json()
    }
    pub fn invoice(&self, id: &InvoiceId) -> Result<Invoice> {
        self.call(Operation::GetInvoice, &[id.as_str()]).json()
    }
    /// An issued invoice's bundle, as it comes.
    pub fn invoice_bundle(&self, id: &InvoiceId) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::GetInvoiceBundle, &[id.as_str()]).stream()
    }
    /// An invoice's document, or a credit note's.
    pub fn invoice_document(&self, id: &InvoiceId, query: &DocumentQuery) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::GetInvoiceDocument, &[id.as_str()]).query(query).stream()
    }
    /// A month's file, as it comes.
    pub fn export(&self, query: &ExportQuery) -> Result<Box<dyn Read + Send>> {
        self.call(Operation::ExportBilling, &[]).query(query).stream()
    }
    /// What proves the charges of a request or job of any project.
    pub fn organization_receipts(&self, source: &str, query: &ListQuery) -> Result<List<Receipt>> {
        self.call(Operation::ListOrganizationReceipts, &[source]).query(query).json()
    }
    pub fn contracts(&self, query: &ContractListQuery) -> Result<List<Contract>> {
        self.call(Operation::ListContracts, &[]).query(query).json()
    }
    pub fn contract(&self, id: &ContractId) -> Result<Contract> {
        self.call(Operation::GetContract, &[id.as_str()]).json()
    }
    pub fn billing_profile(&self) -> Result<BillingProfile> {
        self.call(Operation::GetBillingProfile, &[]).json()
    }
    pub fn set_billing_profile(&self, body: &SetBillingProfile) -> Result<BillingProfile> {
        self.call(Operation::SetBillingProfile, &[]).body(body).json()
    }
    pub fn accept_contract(&self, id: &ContractId, body: &AcceptContract) -> Result<Contract> {
        self.call(Operation::AcceptContract, &[id.as_str()]).body(body).json()
    }
    pub fn leave_contract(&self, id: &ContractId, body: &LeaveContract) -> Result<Contract> {
        self.call(Operation::LeaveContract, &[id.as_str()]).body(body).json()
    }
    pub fn credit_notes(&self, query: &CreditNoteListQuery) -> Result<List<CreditNote>> {
        self.call(Operation::ListCreditNotes, &[]).query(query).json()
    }
}

/// Whose limits a path names.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum LimitPath {
    Organization,
    Project(ProjectId),
    Key(KeyPath),
}
