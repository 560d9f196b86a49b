//! The table itself: the API's table of contents, one plane after the other.

use super::Plane::{Admin, Operator, Project, Public};
use super::{FILE_BODY_BYTES_MAX, JOB_BODY_BYTES_MAX, Method, Route};
use crate::account::Account;
use crate::audit::{AuditEntry, AuditListQuery};
use crate::batch::{Batch, CreateBatch};
use crate::calendar::{AvailabilityCalendar, AvailabilityCalendarQuery, CapacityCalendar, CapacityCalendarQuery};
use crate::capacity::Capacity;
use crate::card::{AcceptLicence, AcceptedLicence, ModelCard, SetModelCard};
use crate::clock::{Clock, SetClock};
use crate::compensation::{Compensation, CompensationListQuery, CompensationRules, CreateCompensation, SetCompensationRules};
use crate::contract::{self, Contract, ContractListQuery, CreateAmendment, CreateContract};
use crate::credit::{CreateCreditGrant, CreditBalance, CreditGrant};
use crate::credit_note::{CreateCreditNote, CreditNote, CreditNoteListQuery};
use crate::demand::{
    DemandHistory, DemandImport, DemandQuery, DemandReport, ImportDemand, ReportDemand, SellingPolicy, SetSellingPolicy,
};
use crate::device::{Device, DeviceListQuery, Node};
use crate::document::DocumentQuery;
use crate::dunning::{self, Dunning, DunningDays, DunningPolicy};
use crate::export::ExportQuery;
use crate::export_schedule::{CreateExportSchedule, ExportSchedule};
use crate::fee::{CreateFee, Fee, FeeListQuery};
use crate::file::{ArchivedFile, ArchivedFileListQuery, CreateFile, File, FileListQuery};
use crate::health::Health;
use crate::invoice::{Charge, ChargeListQuery, DraftInvoice, Invoice, InvoiceListQuery};
use crate::job::{CreateJob, Job, JobListQuery, JobLogQuery};
use crate::key::{AdminKey, CreateAdminKey, CreateKey, CreatedAdminKey, CreatedKey, Key};
use crate::leakage::Leakage;
use crate::lease::{CreateLease, Lease, LeaseListQuery, LeaseNotice, LeaseNoticeQuery};
use crate::ledger::{
    AnswerGateway, Earnings, GatewayLoss, LedgerAccount, LedgerAccountListQuery, LedgerExportQuery, LedgerVerification,
    QuarantineEntry,
};
use crate::limit::{LimitQuery, SetSpendLimit, SpendAlert, SpendForecast, SpendLimit};
use crate::list::{List, ListQuery};
use crate::mail::{Mail, MailListQuery};
use crate::margin::{MarginReport, MonthQuery, Showback};
use crate::messages::{CountTokens, CountedTokens, Message, MessageEvent, MessageRequest};
use crate::model::{ImportModel, ServedModel};
use crate::monthly_return::ReturnReport;
use crate::object::Deleted;
use crate::offering::{Offering, OfferingRecord, SetOffering};
use crate::openai;
use crate::organization::{CreateOrganization, CreatedOrganization, Organization, OrganizationListQuery};
use crate::payment::{
    self, BankStatement, IncomingPayment, IncomingPaymentListQuery, PaymentNotice, Refund, RefundListQuery, TopUp, TopUpListQuery,
};
use crate::payout::{Payout, ProcessorFunds};
use crate::price::{PriceList, PriceListQuery, PublishPriceList};
use crate::price_index::{CreatePriceIndex, PriceIndex, PricePoint, PublishPricePoint};
use crate::price_simulation::{PriceSimulation, SimulatePrices};
use crate::project::{CreateProject, Project as ProjectObject, ProjectListQuery};
use crate::quote::{CreateQuote, Quote, QuoteListQuery};
use crate::rate_limit::{self, RateLimit};
use crate::receipt::Receipt;
use crate::reclaim::{CreateReclaim, DeclareCheckpoint, Reclaim, ReclaimListQuery, ReclaimPreview, ReclaimSummary};
use crate::remote_model::{
    ChangeRemoteModel, ChangeReplica, CreateRemoteModel, CreateReplica, RemoteModel, Replica, ReplicaListQuery,
};
use crate::rerate::{Rerate, SimulateRerate};
use crate::responses::{CountInput, CountedInput, InputItem, Response, ResponseEvent, ResponseQuery, ResponseRequest};
use crate::revenue::RevenueReport;
use crate::saved_card::SavedCard;
use crate::sku::{Availability, AvailabilityQuery, Sku};
use crate::supplier::{DataPermission, Margins, ReplicaCost, SetReplicaCost};
use crate::supply_cost::{PublishSupplyCosts, SupplyCosts};
use crate::tax::{AddLogo, BillingProfile, Logo, Seller, SetBillingProfile, SetSeller, SetTaxTable, TaxTable};
use crate::tax_report::{TaxReport, TaxReportQuery};
use crate::top_up_rule::{TopUpRule, TopUpTerms};
use crate::usage::{BucketPage, BucketQuery, CompletionsUsage, Costs, Request, UsageQuery, UsageSummary};
use crate::user::{CreateUser, User};
use crate::webhook::{CreateWebhookEndpoint, CreatedWebhookEndpoint, WebhookDelivery, WebhookDeliveryListQuery, WebhookEndpoint};
use crate::why::Why;

/// Writes the closed enum and the table from one list.
macro_rules! routes {
    ($($(#[$note:meta])* $operation:ident = $method:ident $path:literal $(. $step:ident $(::<$($kind:ty),+>)? ($($argument:expr),*))+;)+) => {
        /// Everything the API can be asked for.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum Operation { $($(#[$note])* $operation),+ }

        impl Operation {
            /// The `operationId` of the OpenAPI document.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$operation => stringify!($operation)),+ }
            }
        }

        /// Every route, in the order of the reference.
        pub const ROUTES: &[Route] = &[
            $(Route::new(Operation::$operation, Method::$method, $path)$(.$step$(::<$($kind),+>)?($($argument),*))+),+
        ];
    };
}

routes! {
    // ---- Everybody ------------------------------------------------------------------------
    GetHealth        = Get    "/healthz"        .open(Public, "Says that the process is alive.").gives::<Health>();
    GetHealthAlias   = Get    "/health"         .open(Public, "The same as /healthz, for load tools.").gives::<Health>();
    GetReadiness     = Get    "/readyz"         .open(Public, "Says whether work may be sent here; 503 if not.").gives::<Health>();
    GetMetrics       = Get    "/metrics"        .open(Public, "Figures in Prometheus' text format.").text();
    GetOpenApi       = Get    "/openapi.json"   .open(Public, "This document.").gives::<serde_json::Value>();
    GetLlmsText      = Get    "/llms.txt"       .open(Public, "What this API is, in text for language models.").text();
    GetErrorPage     = Get    "/errors/{code}"  .open(Public, "What an error code means and what to do.").text();
    GetPrices        = Get    "/v1/prices"      .open(Public, "The public price list in force.").query::<PriceListQuery>().gives::<PriceList>();

    ListPriceIndexes = Get    "/v1/price_indexes" .open(Public, "What market prices follow, with levels.").gives::<List<PriceIndex>>();
    GetPriceIndex    = Get    "/v1/price_indexes/{name}" .open(Public, "One index, with its level.").gives::<PriceIndex>();
    ListPricePoints  = Get    "/v1/price_indexes/{name}/points" .open(Public, "The levels of an index, past and told ahead.").query::<ListQuery>().gives::<List<PricePoint>>();

    GetLogKey        = Get    "/log/key"        .open(Public, "The verifier key of the log that invoices are sealed in.").text();
    GetLogCheckpoint = Get    "/log/checkpoint" .open(Public, "The newest checkpoint of the log: a signed note with its size and root.").text();
    GetLogTile       = Get    "/log/tile/{*path}" .open(Public, "Hashes or entries of the log, named as C2SP's tlog-tiles names them.").gives_file();
    ReceiveStripeEvent = Post "/webhooks/stripe" .open(Public, "What Stripe tells of payments; its signature proves that it comes from there.").gives::<PaymentNotice>();

    // ---- Data plane: project keys ---------------------------------------------------------
    CreateChatCompletion = Post "/v1/chat/completions" .open(Project, "Answers a conversation.")
        .inference().takes::<openai::ChatRequest>().gives_or_streams::<openai::ChatCompletion, openai::ChatChunk>();
    CreateCompletion     = Post "/v1/completions"      .open(Project, "Continues a text.")
        .inference().takes::<openai::CompletionRequest>().gives_or_streams::<openai::Completion, openai::CompletionChunk>();
    CreateEmbedding      = Post "/v1/embeddings"       .open(Project, "Turns texts into vectors, with models that do so.")
        .inference().takes::<openai::EmbeddingRequest>().gives::<openai::EmbeddingList>();
    CreateModeration     = Post "/v1/moderations"      .open(Project, "Not offered: no classifier is served; the error says what would work.").refuses();
    CreateResponse       = Post "/v1/responses"        .open(Project, "Answers an input; kept only if the body says \"store\": true.")
        .inference().takes::<ResponseRequest>().gives_or_streams::<Response, ResponseEvent>();
    CountResponseTokens  = Post "/v1/responses/input_tokens" .open(Project, "Counts an input's tokens, free of charge.")
        .counts().takes::<CountInput>().gives::<CountedInput>();
    GetResponse          = Get    "/v1/responses/{id}" .open(Project, "A response that was kept, as it was answered.")
        .aliased().query::<ResponseQuery>().gives::<Response>();
    DeleteResponse       = Delete "/v1/responses/{id}" .open(Project, "Forgets a kept response at once.").aliased().gives::<Deleted>();
    ListResponseInputItems = Get  "/v1/responses/{id}/input_items" .open(Project, "What a kept response was asked; items of the responses before it are theirs.")
        .aliased().query::<ListQuery>().gives::<List<InputItem>>();
    CancelResponse       = Post   "/v1/responses/{id}/cancel" .open(Project, "Not offered: responses do not run in the background; the error says what would work.").refuses();
    CreateMessage        = Post "/v1/messages"         .open(Project, "Answers a conversation in Anthropic's shape.")
        .inference().takes::<MessageRequest>().gives_or_streams::<Message, MessageEvent>();
    CountMessageTokens   = Post "/v1/messages/count_tokens" .open(Project, "Counts a conversation's tokens, free of charge.")
        .counts().takes::<CountTokens>().gives::<CountedTokens>();
    ListModels           = Get  "/v1/models"           .open(Project, "The models this key may call.").aliased().gives::<openai::ModelList>();
    GetModel             = Get  "/v1/models/{*id}"     .open(Project, "One model by name; names may hold slashes.").aliased().gives::<openai::Model>();
    ListReceipts         = Get  "/v1/receipts/{id}"    .open(Project, "What proves the charges of a request or job.").query::<ListQuery>().gives::<List<Receipt>>();
    GetRequest           = Get  "/v1/requests/{id}"    .open(Project, "What one request used and cost; never its content.").gives::<Request>();

    CreateFile           = Post   "/v1/files"              .open(Project, "Uploads a file as a multipart form.")
        .creates().aliased().takes_form::<CreateFile>(FILE_BODY_BYTES_MAX).gives::<File>();
    ListFiles            = Get    "/v1/files"              .open(Project, "The project's files.").aliased().query::<FileListQuery>().gives::<List<File>>();
    GetFile              = Get    "/v1/files/{id}"         .open(Project, "One file, without its content.").aliased().gives::<File>();
    DeleteFile           = Delete "/v1/files/{id}"         .open(Project, "Deletes a file that no running batch reads.").aliased().gives::<Deleted>();
    GetFileContent       = Get    "/v1/files/{id}/content" .open(Project, "The content of a file, byte for byte.").aliased().gives_file();
    CreateBatch          = Post   "/v1/batches"            .open(Project, "Has the requests in a file answered within a time, each charged to this key.")
        .creates().aliased().takes::<CreateBatch>().gives::<Batch>();
    ListBatches          = Get    "/v1/batches"            .open(Project, "The project's batches.").aliased().query::<ListQuery>().gives::<List<Batch>>();
    GetBatch             = Get    "/v1/batches/{id}"       .open(Project, "One batch and how far it is.").aliased().gives::<Batch>();
    CancelBatch          = Post   "/v1/batches/{id}/cancel".open(Project, "Ends a batch; answers it has are kept.").aliased().gives::<Batch>();

    // ---- Platform: project keys -----------------------------------------------------------
    GetAccount       = Get    "/v1/account"           .open(Project, "Who this key is and what it can still spend.").gives::<Account>();
    GetAccountPrices = Get    "/v1/account/prices"    .open(Project, "This account's prices: those of its contract, or the public ones.").query::<PriceListQuery>().gives::<PriceList>();
    ListSkus         = Get    "/v1/skus"              .open(Project, "What can be leased, with prices.").gives::<List<Sku>>();
    ListAvailability = Get    "/v1/availability"      .open(Project, "How much can be leased now.").query::<AvailabilityQuery>().gives::<List<Availability>>();
    GetAvailabilityCalendar = Get "/v1/availability_calendar" .open(Project, "How much could be leased in the coming hours, in steps.").query::<AvailabilityCalendarQuery>().gives::<List<AvailabilityCalendar>>();
    CreateQuote      = Post   "/v1/quotes"            .open(Project, "Makes a binding offer.").creates().takes::<CreateQuote>().gives::<Quote>();
    ListQuotes       = Get    "/v1/quotes"            .open(Project, "The project's quotes.").query::<QuoteListQuery>().gives::<List<Quote>>();
    GetQuote         = Get    "/v1/quotes/{id}"       .open(Project, "One quote.").gives::<Quote>();
    GetCompensationRules = Get "/v1/compensation_rules" .open(Project, "What leases are owed that are sold now and interrupted later.").gives::<CompensationRules>();
    CreateLease      = Post   "/v1/leases"            .open(Project, "Takes a quote and sets money aside.").creates().bills().takes::<CreateLease>().gives::<Lease>();
    ListLeases       = Get    "/v1/leases"            .open(Project, "The project's leases.").query::<LeaseListQuery>().gives::<List<Lease>>();
    GetLease         = Get    "/v1/leases/{id}"       .open(Project, "One lease.").gives::<Lease>();
    GetLeaseNotice   = Get    "/v1/leases/{id}/notice" .open(Project, "What a lease was told of its end; waits for it if asked to.").query::<LeaseNoticeQuery>().gives::<LeaseNotice>();
    CancelLease      = Post   "/v1/leases/{id}/cancel".open(Project, "Ends a lease; its jobs are stopped.").gives::<Lease>();
    DeclareCheckpoint = Post  "/v1/leases/{id}/checkpoint" .open(Project, "Says that what a lease's workload did so far is saved.").takes::<DeclareCheckpoint>().gives::<Lease>();
    YieldLease       = Post   "/v1/leases/{id}/yield" .open(Project, "Gives a lease back that was told to end, before its deadline.").gives::<Lease>();
    CreateJob        = Post   "/v1/jobs"              .open(Project, "Runs a command on a lease.").creates().bills().body_up_to(JOB_BODY_BYTES_MAX).takes::<CreateJob>().gives::<Job>();
    ListJobs         = Get    "/v1/jobs"              .open(Project, "The project's jobs.").query::<JobListQuery>().gives::<List<Job>>();
    GetJob           = Get    "/v1/jobs/{id}"         .open(Project, "One job.").gives::<Job>();
    CancelJob        = Post   "/v1/jobs/{id}/cancel"  .open(Project, "Stops a job.").gives::<Job>();
    GetJobLogs       = Get    "/v1/jobs/{id}/logs"    .open(Project, "A job's output as it came; with follow, until it has ended.").query::<JobLogQuery>().streams_text();
    GetUsage         = Get    "/v1/usage"             .open(Project, "What the project used.").query::<UsageQuery>().gives::<UsageSummary>();
    GetWhy           = Get    "/v1/why/{id}"          .open(Project, "The rule and the numbers behind an object of the project.").gives::<Why>();

    // ---- Organization: admin keys ---------------------------------------------------------
    GetOrganization      = Get    "/v1/organization/self"                         .open(Admin, "The organization of this key.").gives::<Organization>();
    ListUsers            = Get    "/v1/organization/users"                        .open(Admin, "The organization's people.").query::<ListQuery>().gives::<List<User>>();
    CreateUser           = Post   "/v1/organization/users"                        .open(Admin, "Adds a person.").creates().takes::<CreateUser>().gives::<User>();
    DeleteUser           = Delete "/v1/organization/users/{id}"                   .open(Admin, "Removes a person.").gives::<Deleted>();
    ListAdminKeys        = Get    "/v1/organization/admin_api_keys"               .open(Admin, "The organization's admin keys, without their secrets.").query::<ListQuery>().gives::<List<AdminKey>>();
    CreateAdminKey       = Post   "/v1/organization/admin_api_keys"               .open(Admin, "Creates an admin key; its secret is in this one answer only.").creates().takes::<CreateAdminKey>().gives::<CreatedAdminKey>();
    GetAdminKey          = Get    "/v1/organization/admin_api_keys/{id}"          .open(Admin, "One admin key.").gives::<AdminKey>();
    DeleteAdminKey       = Delete "/v1/organization/admin_api_keys/{id}"          .open(Admin, "Revokes an admin key at once; the last one stays.").gives::<Deleted>();
    ListProjects         = Get    "/v1/organization/projects"                     .open(Admin, "The organization's projects.").query::<ProjectListQuery>().gives::<List<ProjectObject>>();
    CreateProject        = Post   "/v1/organization/projects"                     .open(Admin, "Creates a project.").creates().takes::<CreateProject>().gives::<ProjectObject>();
    GetProject           = Get    "/v1/organization/projects/{id}"                .open(Admin, "One project.").gives::<ProjectObject>();
    ArchiveProject       = Post   "/v1/organization/projects/{id}/archive"        .open(Admin, "Closes a project for ever; its keys stop working.").gives::<ProjectObject>();
    ListKeys             = Get    "/v1/organization/projects/{id}/api_keys"       .open(Admin, "A project's keys, without their secrets.").query::<ListQuery>().gives::<List<Key>>();
    CreateKey            = Post   "/v1/organization/projects/{id}/api_keys"       .open(Admin, "Creates a key; its secret is in this one answer only.").creates().takes::<CreateKey>().gives::<CreatedKey>();
    DeleteKey            = Delete "/v1/organization/projects/{id}/api_keys/{key}" .open(Admin, "Revokes a key at once.").gives::<Deleted>();

    ListOrganizationLimits  = Get    "/v1/organization/spend_limits"                                       .open(Admin, "The organization's spend limits.").gives::<List<SpendLimit>>();
    SetOrganizationLimit    = Put    "/v1/organization/spend_limits/{window}"                              .open(Admin, "Sets the organization's limit for a window.").query::<LimitQuery>().takes::<SetSpendLimit>().gives::<SpendLimit>();
    DeleteOrganizationLimit = Delete "/v1/organization/spend_limits/{window}"                              .open(Admin, "Removes the organization's limit for a window.").query::<LimitQuery>().gives::<Deleted>();
    ListProjectLimits       = Get    "/v1/organization/projects/{id}/spend_limits"                         .open(Admin, "A project's spend limits.").gives::<List<SpendLimit>>();
    SetProjectLimit         = Put    "/v1/organization/projects/{id}/spend_limits/{window}"                .open(Admin, "Sets a project's limit for a window.").query::<LimitQuery>().takes::<SetSpendLimit>().gives::<SpendLimit>();
    DeleteProjectLimit      = Delete "/v1/organization/projects/{id}/spend_limits/{window}"                .open(Admin, "Removes a project's limit for a window.").query::<LimitQuery>().gives::<Deleted>();
    ListKeyLimits           = Get    "/v1/organization/projects/{id}/api_keys/{key}/spend_limits"          .open(Admin, "A key's spend limits.").gives::<List<SpendLimit>>();
    SetKeyLimit             = Put    "/v1/organization/projects/{id}/api_keys/{key}/spend_limits/{window}" .open(Admin, "Sets a key's limit for a window.").query::<LimitQuery>().takes::<SetSpendLimit>().gives::<SpendLimit>();
    DeleteKeyLimit          = Delete "/v1/organization/projects/{id}/api_keys/{key}/spend_limits/{window}" .open(Admin, "Removes a key's limit for a window.").query::<LimitQuery>().gives::<Deleted>();
    ListSpendForecasts      = Get    "/v1/organization/spend_forecasts"                                    .open(Admin, "What the organization's limits, and those of its projects and keys, will stand at when their windows end: the first hundred.").gives::<List<SpendForecast>>();
    ListSpendAlerts         = Get    "/v1/organization/spend_alerts"                                       .open(Admin, "Thresholds of limits that were crossed.").query::<ListQuery>().gives::<List<SpendAlert>>();

    ListRateLimits  = Get    "/v1/organization/rate_limits"      .open(Admin, "The organization's limits on speed, with what is left of them.").query::<ListQuery>().gives::<List<RateLimit>>();
    CreateRateLimit = Post   "/v1/organization/rate_limits"      .open(Admin, "Limits the speed of the organization, a project or a key, on a model or on end users.").creates().takes::<rate_limit::CreateRateLimit>().gives::<RateLimit>();
    GetRateLimit    = Get    "/v1/organization/rate_limits/{id}" .open(Admin, "One limit on speed.").gives::<RateLimit>();
    SetRateLimit    = Put    "/v1/organization/rate_limits/{id}" .open(Admin, "Changes the value of a limit on speed; what was used stays used.").takes::<rate_limit::SetRateLimit>().gives::<RateLimit>();
    DeleteRateLimit = Delete "/v1/organization/rate_limits/{id}" .open(Admin, "Removes a limit on speed.").gives::<Deleted>();

    ListLicences         = Get  "/v1/organization/licences"              .open(Admin, "The licences of models that the organization accepted.").gives::<List<AcceptedLicence>>();
    AcceptLicence        = Post "/v1/organization/licences"              .open(Admin, "Accepts a model's licence, so that the organization's keys may call it.").creates().takes::<AcceptLicence>().gives::<AcceptedLicence>();
    SetDataPolicy        = Put  "/v1/organization/data_policy"           .open(Admin, "Says which suppliers outside may see what the organization asks.").takes::<DataPermission>().gives::<Organization>();
    GetOrganizationUsage = Get  "/v1/organization/usage"                 .open(Admin, "What all projects used, each line with its project.").query::<UsageQuery>().gives::<UsageSummary>();
    GetCompletionsUsage  = Get  "/v1/organization/usage/completions"     .open(Admin, "Tokens in buckets of time, in OpenAI's shape.").query::<BucketQuery>().gives::<BucketPage<CompletionsUsage>>();
    GetCosts             = Get  "/v1/organization/costs"                 .open(Admin, "Costs in buckets of time, in OpenAI's shape.").query::<BucketQuery>().gives::<BucketPage<Costs>>();
    ListAuditLogs        = Get  "/v1/organization/audit_logs"            .open(Admin, "Who did what in the organization.").query::<AuditListQuery>().gives::<List<AuditEntry>>();
    GetCredits           = Get  "/v1/organization/billing/credits"       .open(Admin, "Where the organization's money is.").gives::<CreditBalance>();
    ListCreditGrants     = Get  "/v1/organization/billing/credit_grants" .open(Admin, "The credit the organization was given.").query::<ListQuery>().gives::<List<CreditGrant>>();
    ListCharges          = Get  "/v1/organization/billing/charges"       .open(Admin, "Single charges: what invoices add up.").query::<ChargeListQuery>().gives::<List<Charge>>();
    ListInvoices         = Get  "/v1/organization/billing/invoices"      .open(Admin, "The organization's invoices.").query::<InvoiceListQuery>().gives::<List<Invoice>>();
    DraftInvoice         = Post "/v1/organization/billing/invoices"      .open(Admin, "Drafts the invoice of a period; the same draft each time.").takes::<DraftInvoice>().gives::<Invoice>();
    GetInvoice           = Get  "/v1/organization/billing/invoices/{id}" .open(Admin, "One invoice.").gives::<Invoice>();
    GetInvoiceBundle     = Get  "/v1/organization/billing/invoices/{id}/bundle" .open(Admin, "An issued invoice with all its charges, prices and proofs, to be checked offline.").gives_file();
    GetInvoiceDocument   = Get  "/v1/organization/billing/invoices/{id}/document" .open(Admin, "An invoice, or a credit note of it, as PDF or as UBL by EN 16931.").query::<DocumentQuery>().gives_document();
    ListOrganizationReceipts = Get "/v1/organization/billing/receipts/{id}" .open(Admin, "What proves the charges of a request or job of any project.").query::<ListQuery>().gives::<List<Receipt>>();
    ExportBilling        = Get  "/v1/organization/billing/export"        .open(Admin, "A month's cost and usage in the FOCUS format, or its charges, as CSV or Parquet.").query::<ExportQuery>().gives_table();
    ListCreditNotes      = Get  "/v1/organization/billing/credit_notes"  .open(Admin, "What was taken back of the organization's invoices.").query::<CreditNoteListQuery>().gives::<List<CreditNote>>();
    GetBillingProfile    = Get  "/v1/organization/billing/profile"       .open(Admin, "How the organization is invoiced, how it is taxed, and why.").gives::<BillingProfile>();
    SetBillingProfile    = Put  "/v1/organization/billing/profile"       .open(Admin, "Says whom invoices are for; holds for months that are not closed.").takes::<SetBillingProfile>().gives::<BillingProfile>();
    ListContracts        = Get  "/v1/organization/contracts"             .open(Admin, "What the organization agreed to for months to years, and what it is offered.").query::<ContractListQuery>().gives::<List<Contract>>();
    GetContract          = Get  "/v1/organization/contracts/{id}"        .open(Admin, "One contract: its terms, how far commitments are used, when it can be left and what that costs.").gives::<Contract>();
    AcceptContract       = Post "/v1/organization/contracts/{id}/accept" .open(Admin, "Accepts the terms that a hash names.").takes::<contract::AcceptContract>().gives::<Contract>();
    LeaveContract        = Post "/v1/organization/contracts/{id}/leave"  .open(Admin, "Gives notice: the contract ends with a month in which it can be left.").takes::<contract::LeaveContract>().gives::<Contract>();
    GetDunning           = Get  "/v1/organization/dunning"               .open(Admin, "What is overdue, and what follows from it.").gives::<Dunning>();
    SetOnSuspension      = Put  "/v1/organization/dunning"               .open(Admin, "Says what running work does if the account is suspended.").takes::<dunning::SetOnSuspension>().gives::<Dunning>();
    ListTopUps           = Get  "/v1/organization/top_ups"               .open(Admin, "What the organization paid in, or means to.").query::<TopUpListQuery>().gives::<List<TopUp>>();
    CreateTopUp          = Post "/v1/organization/top_ups"               .open(Admin, "Makes a place to pay: a reference for a bank transfer, or a page of Stripe.").creates().takes::<payment::CreateTopUp>().gives::<TopUp>();
    GetTopUp             = Get  "/v1/organization/top_ups/{id}"          .open(Admin, "One top-up.").gives::<TopUp>();
    CancelTopUp          = Post "/v1/organization/top_ups/{id}/cancel"   .open(Admin, "Calls a top-up off; what was paid before is credit.").gives::<TopUp>();
    GetSavedCard         = Get  "/v1/organization/saved_card"            .open(Admin, "The card that is charged, by its last digits, and where one can be saved.").gives::<SavedCard>();
    SaveCard             = Post "/v1/organization/saved_card"            .open(Admin, "Makes a page of Stripe on which a card is saved.").creates().gives::<SavedCard>();
    RemoveSavedCard      = Delete "/v1/organization/saved_card"          .open(Admin, "Has the card forgotten, and pauses what charges it.").gives::<SavedCard>();
    GetTopUpRule         = Get  "/v1/organization/top_up_rule"           .open(Admin, "What is charged by itself, and how far that is.").gives::<TopUpRule>();
    SetTopUpRule         = Put  "/v1/organization/top_up_rule"           .open(Admin, "Says what is charged by itself, in the place of what was said before.").takes::<TopUpTerms>().gives::<TopUpRule>();
    RemoveTopUpRule      = Delete "/v1/organization/top_up_rule"         .open(Admin, "Has nothing charged by itself.").gives::<TopUpRule>();
    ListRefunds          = Get  "/v1/organization/refunds"               .open(Admin, "Paid credit that went back, or is to.").query::<RefundListQuery>().gives::<List<Refund>>();
    CreateRefund         = Post "/v1/organization/refunds"               .open(Admin, "Asks for paid credit back; the operator approves it.").creates().takes::<payment::CreateRefund>().gives::<Refund>();
    GetRefund            = Get  "/v1/organization/refunds/{id}"          .open(Admin, "One refund.").gives::<Refund>();
    CancelRefund         = Post "/v1/organization/refunds/{id}/cancel"   .open(Admin, "Calls a refund off that nobody approved yet; it is credit again.").gives::<Refund>();
    ListFees             = Get  "/v1/organization/fees"                  .open(Admin, "Fees that were charged once.").query::<ListQuery>().gives::<List<Fee>>();
    ListCompensations    = Get  "/v1/organization/compensations"         .open(Admin, "Credit for promises that were not kept, with its evidence.").query::<ListQuery>().gives::<List<Compensation>>();
    GetCompensation      = Get  "/v1/organization/compensations/{id}"    .open(Admin, "One compensation.").gives::<Compensation>();
    ListWebhookEndpoints = Get  "/v1/organization/webhook_endpoints"     .open(Admin, "Where events are posted.").gives::<List<WebhookEndpoint>>();
    CreateWebhookEndpoint = Post "/v1/organization/webhook_endpoints"    .open(Admin, "Has events posted to an address; the secret that signs them is in this one answer only.").creates().takes::<CreateWebhookEndpoint>().gives::<CreatedWebhookEndpoint>();
    DeleteWebhookEndpoint = Delete "/v1/organization/webhook_endpoints/{id}" .open(Admin, "Has nothing posted there any more.").gives::<Deleted>();
    TestWebhookEndpoint  = Post "/v1/organization/webhook_endpoints/{id}/test" .open(Admin, "Posts an event that says nothing.").gives::<WebhookDelivery>();
    ListWebhookDeliveries = Get "/v1/organization/webhook_deliveries"    .open(Admin, "Events, and what became of them.").query::<WebhookDeliveryListQuery>().gives::<List<WebhookDelivery>>();
    RetryWebhookDelivery = Post "/v1/organization/webhook_deliveries/{id}/retry" .open(Admin, "Posts an event again that was not taken, at once.").gives::<WebhookDelivery>();
    ListArchivedFiles    = Get  "/v1/organization/archived_files"        .open(Admin, "What archived projects still keep.").query::<ArchivedFileListQuery>().gives::<List<ArchivedFile>>();
    DeleteArchivedFile   = Delete "/v1/organization/archived_files/{id}" .open(Admin, "Deletes a file of an archived project.").gives::<Deleted>();
    GetOrganizationWhy   = Get  "/v1/organization/why/{id}"              .open(Admin, "The rule and the numbers behind an object of the organization.").gives::<Why>();

    // ---- The cloud: operator keys ---------------------------------------------------------
    ListOrganizations  = Get  "/operator/v1/organizations"              .open(Operator, "Every organization.").query::<OrganizationListQuery>().gives::<List<Organization>>();
    CreateOrganization = Post "/operator/v1/organizations"              .open(Operator, "Creates an organization; its first admin key is in this one answer only.").creates().takes::<CreateOrganization>().gives::<CreatedOrganization>();
    OperatorGetOrganization = Get "/operator/v1/organizations/{id}"     .open(Operator, "One organization.").gives::<Organization>();
    ListOperatorKeys   = Get    "/operator/v1/api_keys"                 .open(Operator, "The operator's keys, without their secrets.").query::<ListQuery>().gives::<List<AdminKey>>();
    CreateOperatorKey  = Post   "/operator/v1/api_keys"                 .open(Operator, "Creates an operator key; its secret is in this one answer only.").creates().takes::<CreateAdminKey>().gives::<CreatedAdminKey>();
    GetOperatorKey     = Get    "/operator/v1/api_keys/{id}"            .open(Operator, "One operator key.").gives::<AdminKey>();
    DeleteOperatorKey  = Delete "/operator/v1/api_keys/{id}"            .open(Operator, "Revokes an operator key at once; the last one stays.").gives::<Deleted>();
    GrantCredit        = Post "/operator/v1/organizations/{id}/credits" .open(Operator, "Grants an organization credit.").creates().takes::<CreateCreditGrant>().gives::<CreditGrant>();
    OperatorGetCredits = Get  "/operator/v1/organizations/{id}/credits" .open(Operator, "Where an organization's money is.").gives::<CreditBalance>();
    OperatorGetBillingProfile = Get "/operator/v1/organizations/{id}/billing_profile" .open(Operator, "How an organization is invoiced and taxed.").gives::<BillingProfile>();
    OperatorSetBillingProfile = Put "/operator/v1/organizations/{id}/billing_profile" .open(Operator, "Says whom invoices are for, what exempts it, and its terms of payment.").takes::<SetBillingProfile>().gives::<BillingProfile>();
    GetSeller          = Get  "/operator/v1/seller"                     .open(Operator, "Who sells.").gives::<Seller>();
    SetSeller          = Put  "/operator/v1/seller"                     .open(Operator, "Says who sells: months are closed with parties and taxes from then on.").takes::<SetSeller>().gives::<Seller>();
    AddLogo            = Put  "/operator/v1/seller/logo"                .open(Operator, "Keeps an image that the seller can be set to have.").takes::<AddLogo>().gives::<Logo>();
    GetTaxTable        = Get  "/operator/v1/tax_table"                  .open(Operator, "The taxes that are collected.").gives::<TaxTable>();
    SetTaxTable        = Put  "/operator/v1/tax_table"                  .open(Operator, "Says which taxes are collected, in the place of what was said before.").takes::<SetTaxTable>().gives::<TaxTable>();
    OperatorListInvoices = Get "/operator/v1/invoices"                  .open(Operator, "Every invoice.").query::<InvoiceListQuery>().gives::<List<Invoice>>();
    OperatorGetInvoice = Get  "/operator/v1/invoices/{id}"              .open(Operator, "One invoice.").gives::<Invoice>();
    OperatorGetInvoiceBundle = Get "/operator/v1/invoices/{id}/bundle"  .open(Operator, "An issued invoice with all its charges, prices and proofs.").gives_file();
    OperatorGetInvoiceDocument = Get "/operator/v1/invoices/{id}/document" .open(Operator, "An invoice, or a credit note of it, as PDF or as UBL by EN 16931.").query::<DocumentQuery>().gives_document();
    OperatorExportBilling = Get "/operator/v1/billing/export"           .open(Operator, "The same of every organization, or of one.").query::<ExportQuery>().gives_table();
    ListExportSchedules = Get "/operator/v1/export_schedules"           .open(Operator, "Files for finance that are delivered by themselves.").gives::<List<ExportSchedule>>();
    CreateExportSchedule = Post "/operator/v1/export_schedules"         .open(Operator, "Has files delivered into a directory or a bucket, each day or when a month is closed.").creates().takes::<CreateExportSchedule>().gives::<ExportSchedule>();
    GetExportSchedule  = Get  "/operator/v1/export_schedules/{id}"      .open(Operator, "One schedule, and its latest attempts.").gives::<ExportSchedule>();
    RunExportSchedule  = Post "/operator/v1/export_schedules/{id}/run"  .open(Operator, "Has a schedule looked at at once, and what is open delivered again.").gives::<ExportSchedule>();
    DeleteExportSchedule = Delete "/operator/v1/export_schedules/{id}"  .open(Operator, "Delivers no more of a schedule; what was delivered stays.").gives::<Deleted>();
    CreateCreditNote   = Post "/operator/v1/invoices/{id}/credit_notes" .open(Operator, "Takes part of an issued invoice back; the customer has it as credit.").creates().takes::<CreateCreditNote>().gives::<CreditNote>();
    OperatorListContracts = Get "/operator/v1/contracts"                .open(Operator, "Every contract.").query::<ContractListQuery>().gives::<List<Contract>>();
    CreateContract     = Post "/operator/v1/contracts"                  .open(Operator, "Offers an organization a contract; it binds until it expires.").creates().takes::<CreateContract>().gives::<Contract>();
    OperatorGetContract = Get "/operator/v1/contracts/{id}"             .open(Operator, "One contract.").gives::<Contract>();
    CreateAmendment    = Post "/operator/v1/contracts/{id}/amendments"  .open(Operator, "Offers other terms from a commitment period on that has not begun.").creates().takes::<CreateAmendment>().gives::<Contract>();
    WithdrawContract   = Post "/operator/v1/contracts/{id}/withdraw"    .open(Operator, "Takes back what nobody accepted yet.").gives::<Contract>();
    OperatorListTopUps = Get "/operator/v1/top_ups"                     .open(Operator, "Every top-up.").query::<TopUpListQuery>().gives::<List<TopUp>>();
    ImportBankStatement = Post "/operator/v1/bank_statements"           .open(Operator, "Takes a bank statement in: each transaction counts once, whatever is imported again.").creates().takes::<payment::ImportBankStatement>().gives::<BankStatement>();
    ListIncomingPayments = Get "/operator/v1/incoming_payments"         .open(Operator, "Money that arrived, and what is quarantined of it.").query::<IncomingPaymentListQuery>().gives::<List<IncomingPayment>>();
    AnswerIncomingPayment = Post "/operator/v1/incoming_payments/{id}/answer" .open(Operator, "Says what is done with money that is quarantined.").takes::<payment::AnswerIncomingPayment>().gives::<IncomingPayment>();
    ListPayouts        = Get  "/operator/v1/payouts"                    .open(Operator, "What Stripe paid out to the bank account.").query::<ListQuery>().gives::<List<Payout>>();
    GetProcessorFunds  = Get  "/operator/v1/reports/processor_funds"    .open(Operator, "What Stripe holds, by the books and by its own word.").gives::<ProcessorFunds>();
    GetDunningPolicy   = Get  "/operator/v1/dunning_policy"             .open(Operator, "When customers are reminded and suspended.").gives::<DunningPolicy>();
    SetDunningPolicy   = Put  "/operator/v1/dunning_policy"             .open(Operator, "Says when customers are reminded and suspended, but those with a policy of their own.").takes::<DunningDays>().gives::<DunningPolicy>();
    OperatorGetDunning = Get  "/operator/v1/organizations/{id}/dunning" .open(Operator, "What of an account is overdue, and what follows from it.").gives::<Dunning>();
    OperatorSetDunning = Put  "/operator/v1/organizations/{id}/dunning" .open(Operator, "Gives an account a policy of its own, or leaves it alone.").takes::<dunning::SetDunning>().gives::<Dunning>();
    PauseInvoice       = Put  "/operator/v1/invoices/{id}/dunning"      .open(Operator, "Leaves an invoice alone, as in a dispute, or goes on with it.").takes::<dunning::PauseInvoice>().gives::<Dunning>();
    ListMail           = Get  "/operator/v1/mail"                       .open(Operator, "Mail that the cloud sends, and what became of it.").query::<MailListQuery>().gives::<List<Mail>>();
    RetryMail          = Post "/operator/v1/mail/{id}/retry"            .open(Operator, "Has a mail tried again at once.").gives::<Mail>();
    OperatorListRefunds = Get "/operator/v1/refunds"                    .open(Operator, "Every refund.").query::<RefundListQuery>().gives::<List<Refund>>();
    OperatorCreateRefund = Post "/operator/v1/refunds"                  .open(Operator, "Asks for a customer's paid credit back; another operator approves it.").creates().takes::<payment::OperatorCreateRefund>().gives::<Refund>();
    ApproveRefund      = Post "/operator/v1/refunds/{id}/approve"       .open(Operator, "Approves a refund that somebody else asked for, and says how it is paid.").takes::<payment::ApproveRefund>().gives::<Refund>();
    RejectRefund       = Post "/operator/v1/refunds/{id}/reject"        .open(Operator, "Rejects a refund; it is credit again.").takes::<payment::RejectRefund>().gives::<Refund>();
    PayRefund          = Post "/operator/v1/refunds/{id}/pay"           .open(Operator, "Notes the transfer by which a refund was paid.").takes::<payment::PayRefund>().gives::<Refund>();
    OperatorListFees = Get "/operator/v1/fees"                          .open(Operator, "Every fee that was charged once.").query::<FeeListQuery>().gives::<List<Fee>>();
    CreateFee = Post "/operator/v1/fees"                                .open(Operator, "Charges an account a fee of its price list, once.").creates().takes::<CreateFee>().gives::<Fee>();
    OperatorListArchivedFiles = Get "/operator/v1/archived_files"       .open(Operator, "What archived projects still keep, of every organization.").query::<ArchivedFileListQuery>().gives::<List<ArchivedFile>>();
    OperatorDeleteArchivedFile = Delete "/operator/v1/archived_files/{id}" .open(Operator, "Deletes a file of an archived project.").gives::<Deleted>();
    OperatorListCompensations = Get "/operator/v1/compensations"        .open(Operator, "Every compensation.").query::<CompensationListQuery>().gives::<List<Compensation>>();
    CreateCompensation = Post "/operator/v1/compensations"              .open(Operator, "Gives back a share of an issued invoice's charges, for a level of service that was missed.").creates().takes::<CreateCompensation>().gives::<Compensation>();
    OperatorGetCompensation = Get "/operator/v1/compensations/{id}"     .open(Operator, "One compensation.").gives::<Compensation>();
    OperatorGetCompensationRules = Get "/operator/v1/compensation_rules" .open(Operator, "What interrupted leases are owed.").gives::<CompensationRules>();
    SetCompensationRules = Put "/operator/v1/compensation_rules"        .open(Operator, "Sets what interrupted leases are owed that are sold from then on.").takes::<SetCompensationRules>().gives::<CompensationRules>();
    OperatorListCreditNotes = Get "/operator/v1/credit_notes"           .open(Operator, "Every credit note.").query::<CreditNoteListQuery>().gives::<List<CreditNote>>();
    ListNodes          = Get  "/operator/v1/nodes"                      .open(Operator, "Every machine.").query::<ListQuery>().gives::<List<Node>>();
    ListDevices        = Get  "/operator/v1/devices"                    .open(Operator, "Every device and what it does.").query::<DeviceListQuery>().gives::<List<Device>>();
    CordonDevice       = Post "/operator/v1/devices/{id}/cordon"        .open(Operator, "Keeps a device out of sale; a running lease goes on.").gives::<Device>();
    UncordonDevice     = Post "/operator/v1/devices/{id}/uncordon"      .open(Operator, "Offers a device again.").gives::<Device>();
    ListCapacity       = Get  "/operator/v1/capacity"                   .open(Operator, "Devices of each kind: idle, sold, internal.").gives::<List<Capacity>>();
    GetCapacityCalendar = Get "/operator/v1/capacity_calendar"          .open(Operator, "Where devices will be in the coming hours, by kind and site.").query::<CapacityCalendarQuery>().gives::<List<CapacityCalendar>>();
    PreviewReclaim     = Post "/operator/v1/reclaim_previews"           .open(Operator, "What taking capacity back would do: whom it touches, what they are owed, and what is cheaper.").takes::<CreateReclaim>().gives::<ReclaimPreview>();
    CreateReclaim      = Post "/operator/v1/reclaims"                   .open(Operator, "Takes capacity back for the owner's teams.").creates().takes::<CreateReclaim>().gives::<Reclaim>();
    ListReclaims       = Get  "/operator/v1/reclaims"                   .open(Operator, "Orders by which capacity is taken back, with counts.").query::<ReclaimListQuery>().gives::<List<ReclaimSummary>>();
    GetReclaim         = Get  "/operator/v1/reclaims/{id}"              .open(Operator, "One of them, with what is there.").gives::<Reclaim>();
    CancelReclaim      = Post "/operator/v1/reclaims/{id}/cancel"       .open(Operator, "Gives an order up; who was told ends all the same.").gives::<Reclaim>();
    GetDemand          = Get  "/operator/v1/demand"                     .open(Operator, "What the owner's own work demanded of a pool, as it was recorded.").query::<DemandQuery>().gives::<DemandHistory>();
    ReportDemand       = Put  "/operator/v1/demand"                     .open(Operator, "Says what the owner uses of a pool beside Sublet; the same report again changes nothing.").takes::<ReportDemand>().gives::<DemandReport>();
    ImportDemand       = Put  "/operator/v1/demand/history"             .open(Operator, "Adds history from before a pool was observed; the same rows again change nothing.").takes::<ImportDemand>().gives::<DemandImport>();
    GetSellingPolicy   = Get  "/operator/v1/selling_policy"             .open(Operator, "By what is sold to customers.").gives::<SellingPolicy>();
    SetSellingPolicy   = Put  "/operator/v1/selling_policy"             .open(Operator, "Says by what is sold from now on; what is left out stays.").takes::<SetSellingPolicy>().gives::<SellingPolicy>();
    ListPriceLists     = Get  "/operator/v1/price_lists"                .open(Operator, "Every version of every price list.").query::<ListQuery>().gives::<List<PriceList>>();
    PublishPriceList   = Post "/operator/v1/price_lists"                .open(Operator, "Publishes a version, never changed afterwards.").creates().takes::<PublishPriceList>().gives::<PriceList>();
    GetPriceList       = Get  "/operator/v1/price_lists/{version}"      .open(Operator, "One version, by its content hash.").gives::<PriceList>();
    SimulatePrices     = Post "/operator/v1/price_simulations"          .open(Operator, "What a past period would have been at other prices; nothing is published.").takes::<SimulatePrices>().gives::<PriceSimulation>();
    ListRerates        = Get  "/operator/v1/rerates"                    .open(Operator, "Use of past times by other price lists, simulated and applied.").query::<ListQuery>().gives::<List<Rerate>>();
    SimulateRerate     = Post "/operator/v1/rerates"                    .open(Operator, "What use of a past time would have been by another price list; nothing is changed until it is applied.").creates().takes::<SimulateRerate>().gives::<Rerate>();
    GetRerate          = Get  "/operator/v1/rerates/{id}"               .open(Operator, "One of them, with the customers for whom most changes.").gives::<Rerate>();
    ApplyRerate        = Post "/operator/v1/rerates/{id}/apply"         .open(Operator, "Rates the use anew: what it costs less is credit, what it costs more is charged; issued invoices stay.").gives::<Rerate>();
    CreatePriceIndex   = Post "/operator/v1/price_indexes"              .open(Operator, "Makes an index that market prices may follow.").creates().takes::<CreatePriceIndex>().gives::<PriceIndex>();
    PublishPricePoint  = Post "/operator/v1/price_indexes/{name}/points" .open(Operator, "Publishes the next level of an index ahead of the instant from which it holds.").creates().takes::<PublishPricePoint>().gives::<PricePoint>();
    ListSupplyCosts    = Get  "/operator/v1/supply_costs"               .open(Operator, "What supply costs, as the owner declared it: every version.").gives::<List<SupplyCosts>>();
    PublishSupplyCosts = Post "/operator/v1/supply_costs"               .open(Operator, "Declares what supply costs from a month on, never changed afterwards.").creates().takes::<PublishSupplyCosts>().gives::<SupplyCosts>();
    GetSupplyCosts     = Get  "/operator/v1/supply_costs/{version}"     .open(Operator, "One version of what supply costs, by its content hash.").gives::<SupplyCosts>();
    ListServedModels   = Get  "/operator/v1/models"                     .open(Operator, "The models this cloud serves.").gives::<List<ServedModel>>();
    ImportModel        = Post "/operator/v1/models"                     .open(Operator, "Imports a model from a path on the server.").takes::<ImportModel>().gives::<ServedModel>();
    ListOfferings      = Get    "/operator/v1/offerings"                .open(Operator, "Every product that is not simply for everybody, or once was not.").gives::<List<Offering>>();
    GetOffering        = Get    "/operator/v1/offerings/{*id}"          .open(Operator, "A product's offering, who is invited, and its history; names may hold slashes.").gives::<OfferingRecord>();
    SetOffering        = Put    "/operator/v1/offerings/{*id}"          .open(Operator, "Brings an offering to a state; the change is kept for ever.").takes::<SetOffering>().gives::<OfferingRecord>();
    InviteToOffering   = Put    "/operator/v1/organizations/{id}/offerings/{*product}" .open(Operator, "Invites an organization to use what others do not see.").gives::<OfferingRecord>();
    UninviteFromOffering = Delete "/operator/v1/organizations/{id}/offerings/{*product}" .open(Operator, "Withdraws an invitation.").gives::<OfferingRecord>();
    ListModelCards     = Get    "/operator/v1/model_cards"              .open(Operator, "Every model card, in the order of names.").gives::<List<ModelCard>>();
    GetModelCard       = Get    "/operator/v1/model_cards/{*id}"        .open(Operator, "One model's card; names may hold slashes.").gives::<ModelCard>();
    SetModelCard       = Put    "/operator/v1/model_cards/{*id}"        .open(Operator, "Writes a model's card in the place of the one before it.").takes::<SetModelCard>().gives::<ModelCard>();
    DeleteModelCard    = Delete "/operator/v1/model_cards/{*id}"        .open(Operator, "Forgets a model's card and its aliases.").gives::<Deleted>();
    ListRemoteModels   = Get    "/operator/v1/remote_models"            .open(Operator, "The models that other servers answer for.").query::<ListQuery>().gives::<List<RemoteModel>>();
    CreateRemoteModel  = Post   "/operator/v1/remote_models"            .open(Operator, "Offers a model that other servers answer for.").creates().takes::<CreateRemoteModel>().gives::<RemoteModel>();
    GetRemoteModel     = Get    "/operator/v1/remote_models/{id}"       .open(Operator, "One remote model.").gives::<RemoteModel>();
    ChangeRemoteModel  = Put    "/operator/v1/remote_models/{id}"       .open(Operator, "Changes a remote model; what is left out stays.").takes::<ChangeRemoteModel>().gives::<RemoteModel>();
    DeleteRemoteModel  = Delete "/operator/v1/remote_models/{id}"       .open(Operator, "Withdraws a remote model that has no replicas.").gives::<Deleted>();
    ListReplicas       = Get    "/operator/v1/replicas"                 .open(Operator, "The servers of remote models.").query::<ReplicaListQuery>().gives::<List<Replica>>();
    CreateReplica      = Post   "/operator/v1/replicas"                 .open(Operator, "Adds a server to a remote model.").creates().takes::<CreateReplica>().gives::<Replica>();
    GetReplica         = Get    "/operator/v1/replicas/{id}"            .open(Operator, "One server.").gives::<Replica>();
    ChangeReplica      = Put    "/operator/v1/replicas/{id}"            .open(Operator, "Drains a server, or changes how much it is given.").takes::<ChangeReplica>().gives::<Replica>();
    DeleteReplica      = Delete "/operator/v1/replicas/{id}"            .open(Operator, "Forgets a server; what it has begun still ends.").gives::<Deleted>();
    ListReplicaCosts   = Get    "/operator/v1/replicas/{id}/costs"      .open(Operator, "What a supplier's server costs: every version, oldest first.").gives::<List<ReplicaCost>>();
    SetReplicaCost     = Post   "/operator/v1/replicas/{id}/costs"      .open(Operator, "Sets what a supplier's server costs, never changed afterwards.").creates().takes::<SetReplicaCost>().gives::<ReplicaCost>();
    OperatorListJobs   = Get  "/operator/v1/jobs"                       .open(Operator, "Every job.").query::<JobListQuery>().gives::<List<Job>>();
    OperatorListLeases = Get  "/operator/v1/leases"                     .open(Operator, "Every lease.").query::<LeaseListQuery>().gives::<List<Lease>>();
    VerifyLedger       = Get  "/operator/v1/ledger/verify"              .open(Operator, "Adds everything up again.").gives::<LedgerVerification>();
    ListLedgerAccounts = Get  "/operator/v1/ledger/accounts"            .open(Operator, "The accounts of the books.").query::<LedgerAccountListQuery>().gives::<List<LedgerAccount>>();
    ExportLedger       = Get  "/operator/v1/ledger/export"              .open(Operator, "The whole journal as beancount or hledger text.").query::<LedgerExportQuery>().streams_text();
    OperatorListAuditLogs = Get "/operator/v1/audit_logs"               .open(Operator, "Who did what, everywhere.").query::<AuditListQuery>().gives::<List<AuditEntry>>();
    GetEarnings        = Get  "/operator/v1/reports/earnings"           .open(Operator, "What was earned, by organization and thing.").query::<UsageQuery>().gives::<Earnings>();
    GetMargins         = Get  "/operator/v1/reports/margins"            .open(Operator, "What was bought from suppliers, and what stays of what it was sold for.").query::<UsageQuery>().gives::<Margins>();
    GetMarginReport    = Get  "/operator/v1/reports/margin"             .open(Operator, "A month's revenue, cost of supply and margin, and how busy the devices were.").query::<MonthQuery>().gives::<MarginReport>();
    GetReturnReport    = Get  "/operator/v1/reports/return"             .open(Operator, "What a month returned: earned, cost, use before and after, payback, unfilled demand, promises.").query::<MonthQuery>().gives::<ReturnReport>();
    GetRevenueReport   = Get  "/operator/v1/reports/revenue"            .open(Operator, "What a month earned, what is deferred, and what contracts bring in months to come.").query::<MonthQuery>().gives::<RevenueReport>();
    GetShowback        = Get  "/operator/v1/reports/showback"           .open(Operator, "What the owner's own teams used in a month, at the prices of the list.").query::<MonthQuery>().gives::<Showback>();
    GetTaxReport       = Get  "/operator/v1/reports/tax"                .open(Operator, "What invoices and credit notes of a month or quarter come to, tax by tax, and what the books say.").query::<TaxReportQuery>().gives::<TaxReport>();
    GetLeakage         = Get  "/operator/v1/reports/leakage"            .open(Operator, "What runs or was metered and brings nothing; empty when all is well.").gives::<Leakage>();
    ListQuarantine     = Get  "/operator/v1/quarantine"                 .open(Operator, "Usage records that could not be charged.").query::<ListQuery>().gives::<List<QuarantineEntry>>();
    AnswerGateway      = Post "/operator/v1/gateways/{id}/answer"       .open(Operator, "Declares a silent gateway lost, or writes off what a lost one had.").takes::<AnswerGateway>().gives::<GatewayLoss>();
    GetClock           = Get  "/operator/v1/clock"                      .open(Operator, "What time it is in the cloud.").gives::<Clock>();
    SetClock           = Put  "/operator/v1/clock"                      .open(Operator, "Puts a test clock forward, and closes the months that are over then.").takes::<SetClock>().gives::<Clock>();
    OperatorGetWhy     = Get  "/operator/v1/why/{id}"                   .open(Operator, "The rule and the numbers behind any object.").gives::<Why>();
}
