//! A cloud with two tenants, devices and work, behind the whole router.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::body::Body;
use axum::routing::post;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sublet_api::health::HealthCheck;
use sublet_api::remote_model::ReplicaSeen;
use sublet_api::{ErrorBody, Operation};
use sublet_cloud::batch::{BatchPorts, Batches};
use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::contract::NewContract;
use sublet_cloud::data::{BelowThreshold, IndexName, StoredTopUpRule, TopUpRule, TopUpRuleState};
use sublet_cloud::file::Files;
use sublet_cloud::file_room::FileLimits;
use sublet_cloud::idempotency::Call;
use sublet_cloud::job::{NewJob, NewRun};
use sublet_cloud::key::NewKey;
use sublet_cloud::offering::NewOffering;
use sublet_cloud::organization::NewOrganization;
use sublet_cloud::price_index::{NewIndex, NewPoint};
use sublet_cloud::quote::NewQuote;
use sublet_cloud::slice::GatewayPort;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::{Access, Admission, ModelAccess, SliceRequest, SliceReturn, SliceTarget, SpendClass, TokenUsage};
use sublet_core::batch::{LineEnd, LineEndpoint, LineEstimate, LineRequest, LineServer};
use sublet_core::engine::{
    EmbedRequest, EngineLoad, GenerateRequest, GenerationStream, ModelEngine, ModelInfo, PreparedPrompt, Prompt,
};
use sublet_core::id::{GatewayId, InvoiceId, JobId, KeyId, OrganizationId, ProjectId, ReplicaId, RequestId};
use sublet_core::job::{JobLimits, JobSpec, OnEnd};
use sublet_core::key::{KeyPlane, Secret};
use sublet_core::notice::NoticeClass;
use sublet_core::offering::{OfferingChange, OfferingState};
use sublet_core::organization::OrganizationClass;
use sublet_core::rate::RateLimits;
use sublet_core::restart::RestartPolicy;
use sublet_core::tier::ServiceTier;
use sublet_core::tokenizer::TokenizerName;
use sublet_core::usage::{Measured, Outcome, UsageRecord, UsageSink};
use sublet_core::{BoxFuture, Currency, DurationMs, Error, ErrorCode, Nanos, Result, TokenCount};
use sublet_http::{App, Process, router};
use sublet_testkit::database::{self, MODEL};
use sublet_testkit::runner::{FakeRunner, Manners, cpu_slots, sandbox};
use sublet_testkit::tenant::{actor, committed_monthly, created, pay_in, put_top_up_rule};
use sublet_testkit::{Database, MemoryBlobs, TestCloud};
use tower::ServiceExt;

/// Where the console of these tests is.
pub const ORIGIN: &str = "http://console.test";
/// A name that would run if it were not escaped, in text and in attributes.
pub const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)>&";

const UNIT: i64 = 1_000_000_000;

struct Models;

impl ModelEngine for Models {
    fn models(&self) -> Vec<ModelInfo> {
        let info = |name: &str| ModelInfo {
            name: name.to_owned(),
            created_at: sublet_core::Timestamp::EPOCH,
            owned_by: "sublet".to_owned(),
            context_window: TokenCount::new(2_048),
            vocabulary: TokenCount::new(512),
            has_chat_template: true,
            tools: sublet_core::engine::ToolTemplate::Absent,
            embeddings: None,
        };
        vec![info(MODEL), info(HOSTILE)]
    }
    fn prepare(&self, _: &str, _: &Prompt) -> Result<PreparedPrompt> {
        Err(Error::internal("nothing is generated here"))
    }
    fn generate(&self, _: GenerateRequest) -> Result<GenerationStream> {
        Err(Error::internal("nothing is generated here"))
    }
    fn prepare_input(&self, _: &str, _: &Prompt) -> Result<PreparedPrompt> {
        Err(Error::internal("nothing is generated here"))
    }
    fn embed(&self, _: EmbedRequest) -> Result<GenerationStream> {
        Err(Error::internal("nothing is generated here"))
    }
    fn wake(&self) {}
    fn load(&self) -> EngineLoad {
        EngineLoad::default()
    }
}

struct Quiet;

impl Process for Quiet {
    fn checks(&self) -> BoxFuture<'_, Vec<HealthCheck>> {
        Box::pin(async { Vec::new() })
    }
    fn metrics(&self) -> BoxFuture<'_, String> {
        Box::pin(async { String::new() })
    }
    fn import_model(&self, _: String, _: Option<String>) -> BoxFuture<'_, Result<ModelInfo>> {
        Box::pin(async { Err(Error::internal("nothing is imported here")) })
    }
    fn replica_seen(&self, _: &ReplicaId) -> Option<ReplicaSeen> {
        None
    }
    fn settle(&self) -> BoxFuture<'_, Result<()>> {
        Box::pin(async { Ok(()) })
    }

    fn check_tokenizer<'a>(&'a self, _: &'a TokenizerName) -> BoxFuture<'a, Result<()>> {
        Box::pin(async { Err(Error::internal("nothing is counted here")) })
    }
}

/// One call that reached the data plane.
#[derive(Clone)]
pub struct ChatCall {
    pub secret: String,
    pub key: Option<KeyId>,
    pub body: Value,
}

/// The data plane: admits by the real port and repeats what was said.
#[derive(Clone)]
pub struct Chat {
    port: Arc<GatewayPort>,
    calls: Arc<Mutex<Vec<ChatCall>>>,
}

impl Chat {
    pub fn calls(&self) -> Vec<ChatCall> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    pub async fn authenticate(&self, secret: &str) -> Result<Arc<Access>> {
        self.port.authenticate(&secret.parse()?).await
    }
    async fn answer(self, request: Request<Body>) -> Response<Body> {
        let (parts, body) = request.into_parts();
        let secret = parts.headers[AUTHORIZATION].to_str().expect("ASCII").trim_start_matches("Bearer ").to_owned();
        let access = self.authenticate(&secret).await;
        let body = body.collect().await.expect("a body").to_bytes();
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let key = access.as_ref().ok().map(|access| access.key.clone());
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(ChatCall { secret, key, body: body.clone() });
        match access {
            Ok(_) if body["model"] == "none" => {
                let error = Error::new(ErrorCode::ModelNotFound, "there is no model 'none'").alternative("use sublet-mini");
                refusal(&error)
            }
            Ok(_) => said(&body),
            Err(error) => refusal(&error),
        }
    }
}

fn refusal(error: &Error) -> Response<Body> {
    let text = serde_json::to_string(&ErrorBody::new(error, None)).expect("JSON");
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = StatusCode::from_u16(error.code().status()).expect("a status");
    response
}

fn said(body: &Value) -> Response<Body> {
    let last = body["messages"].as_array().and_then(|messages| messages.last()).expect("a message");
    let text = format!("You said: {}", last["content"].as_str().unwrap_or(""));
    if body["stream"] == true {
        let chunk = json!({"choices": [{"delta": {"content": text}}]});
        let mut response = Response::new(Body::from(format!("data: {chunk}\n\ndata: [DONE]\n\n")));
        response.headers_mut().insert(CONTENT_TYPE, "text/event-stream".parse().expect("a header"));
        return response;
    }
    let usage = json!({"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8});
    let message = json!({"role": "assistant", "content": text});
    let choice = json!({"index": 0, "message": message, "logprobs": null, "finish_reason": "stop"});
    let answer = json!({"id": "req_1", "object": "chat.completion", "created": 0, "model": body["model"], "choices": [choice], "usage": usage, "service_tier": "default"});
    Response::new(Body::from(answer.to_string()))
}

/// A request as a browser sends it.
pub struct Sent {
    method: &'static str,
    address: String,
    body: String,
    session: Option<String>,
    origin: Option<String>,
    accept: Option<String>,
}

impl Sent {
    pub fn get(address: &str) -> Self {
        Self { method: "GET", address: address.to_owned(), body: String::new(), session: None, origin: None, accept: None }
    }
    pub fn post(address: &str, form: &str) -> Self {
        Self { method: "POST", body: form.to_owned(), ..Self::get(address) }
    }
    pub fn session(self, session: Option<&str>) -> Self {
        Self { session: session.map(str::to_owned), ..self }
    }
    pub fn origin(self, origin: Option<&str>) -> Self {
        Self { origin: origin.map(str::to_owned), ..self }
    }
    pub fn accept(self, accept: &str) -> Self {
        Self { accept: Some(accept.to_owned()), ..self }
    }
}

/// What came back.
pub struct Got {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub text: String,
}

impl Got {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
    }
    /// The text between two others.
    pub fn between(&self, before: &str, after: &str) -> String {
        let rest = self.text.split_once(before).unwrap_or_else(|| panic!("no {before} in {}", self.text)).1;
        rest.split_once(after).expect("an end").0.to_owned()
    }
    /// What every attribute of a name says.
    pub fn links(&self, attribute: &str) -> Vec<String> {
        self.text
            .split(attribute)
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .map(|link| link.replace("&#38;", "&"))
            .collect()
    }
}

/// A text as a form carries it.
pub fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

pub struct World<'a> {
    pub cloud: &'a TestCloud,
    pub compute: Compute,
    pub chat: Chat,
    router: Router,
    /// The customer's.
    pub organization: OrganizationId,
    pub project: ProjectId,
    pub key: KeyId,
    pub request: RequestId,
    pub invoice: InvoiceId,
    pub job: JobId,
    /// Another tenant, all of whose names are hostile.
    stranger_admin: Secret,
    stranger_project: Secret,
    pub stranger_job: JobId,
}

type Scenario<'a> = Pin<Box<dyn Future<Output = ()> + 'a>>;

/// Runs a scenario in a fresh world and verifies the ledger.
pub fn run(scenario: impl for<'a> FnOnce(&'a World<'a>) -> Scenario<'a> + 'static) {
    database::run(Database::sqlite(), |cloud| {
        Box::pin(async move {
            let world = World::start(cloud).await;
            scenario(&world).await;
        })
    });
}

impl<'a> World<'a> {
    async fn start(cloud: &'a TestCloud) -> Self {
        let runner = FakeRunner::new(cloud.clock.clone(), cpu_slots(4), sandbox(), Manners::Prompt);
        let compute = Compute::new(cloud.cloud.clone(), runner, ComputeSettings::new("node").expect("settings"));
        compute.register_devices().await.expect("the devices are registered");
        let customer = actor(&cloud.cloud, &cloud.keys.project).await;
        let team = actor(&cloud.cloud, &cloud.keys.internal).await;
        let request = use_tokens(&cloud.cloud, &cloud.keys.project).await;
        let job = run_job(&compute, &customer, &["sleep", "1"]).await;
        run_job(&compute, &team, &["sleep", "2"]).await;
        let (stranger_admin, stranger_project, stranger) = hostile_tenant(&cloud.cloud).await;
        let stranger_job = run_job(&compute, &stranger, &["echo", HOSTILE]).await;
        assert_eq!(compute.reconcile().await.errors, Vec::new());
        compute.cancel_job(&stranger, &stranger_job).await.expect("cancelled");
        assert_eq!(compute.reconcile().await.errors, Vec::new());
        assert_eq!(compute.reconcile().await.errors, Vec::new());
        let gateway: GatewayId = "gw_1".parse().expect("an id");
        let chat = Chat { port: Arc::new(GatewayPort::new(cloud.cloud.clone(), gateway)), calls: Arc::default() };
        let (organization, project) = customer.project().expect("a project");
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let draft = cloud.cloud.draft_invoice(&admin, organization, None).await.expect("a draft");
        Self {
            invoice: draft.invoice.id,
            cloud,
            router: routes(&cloud.cloud, &compute, &chat),
            compute,
            chat,
            organization: organization.clone(),
            project: project.clone(),
            key: customer.key.clone().expect("a key"),
            request,
            job,
            stranger_admin,
            stranger_project,
            stranger_job,
        }
    }

    pub fn secret(&self, plane: KeyPlane) -> String {
        let keys = &self.cloud.keys;
        match plane {
            KeyPlane::Project => &keys.project,
            KeyPlane::Admin => &keys.admin,
            KeyPlane::Operator => &keys.operator,
        }
        .reveal()
        .to_owned()
    }
    /// Every secret of this world, without its public prefix.
    pub fn secrets(&self) -> Vec<String> {
        let mut secrets: Vec<String> = KeyPlane::ALL.into_iter().map(|plane| self.secret(plane)).collect();
        secrets.extend([&self.stranger_admin, &self.stranger_project].map(|secret| secret.reveal().to_owned()));
        secrets.iter().filter_map(|secret| secret.get(7..).map(str::to_owned)).collect()
    }
    /// A page's address with something of the customer's in it.
    pub fn address(&self, path: &str) -> String {
        let id = match path {
            _ if path.starts_with("/console/jobs") => self.job.as_str(),
            _ if path.starts_with("/console/invoices") => self.invoice.as_str(),
            _ if path.starts_with("/console/keys") => self.key.as_str(),
            _ if path.starts_with("/console/organizations") => self.organization.as_str(),
            _ => self.request.as_str(),
        };
        path.replace("{id}", id)
    }
    pub fn ids_of_customer(&self) -> [String; 2] {
        [self.request.to_string(), self.job.to_string()]
    }

    pub async fn send(&self, sent: Sent) -> Got {
        let mut request = Request::builder().method(sent.method).uri(&sent.address).header("host", "console.test");
        let cookie = sent.session.map(|session| format!("other=1; sublet_session={session}"));
        let headers = [("cookie", cookie), ("origin", sent.origin), ("accept", sent.accept)];
        for (name, value) in headers.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))) {
            request = request.header(name, value);
        }
        let request = request.body(Body::from(sent.body)).expect("a request");
        let response = self.router.clone().oneshot(request).await.expect("an answer");
        let (parts, body) = response.into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        Got { status: parts.status, headers: parts.headers, text: String::from_utf8_lossy(&body).into_owned() }
    }
    pub async fn get(&self, address: &str, session: &str) -> Got {
        self.send(Sent::get(address).session(Some(session))).await
    }
    pub async fn post(&self, address: &str, form: &str, session: &str) -> Got {
        self.send(Sent::post(address, form).session(Some(session)).origin(Some(ORIGIN))).await
    }

    async fn sign_in_with(&self, key: &str) -> String {
        let answer = self.send(Sent::post("/console/login", &format!("key={key}")).origin(Some(ORIGIN))).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
        let cookie = answer.header("set-cookie");
        cookie.trim_start_matches("sublet_session=").split(';').next().expect("a session").to_owned()
    }
    /// Offers the customer a contract of ten euros a month.
    pub async fn offer_contract(&self, name: &str) {
        let terms = committed_monthly(12, Nanos::new(10 * UNIT));
        let new = NewContract { organization: self.organization.clone(), name: name.to_owned(), terms, expires_at: None };
        let call = Call::once(Actor::system());
        created(self.cloud.cloud.offer_contract(&call, &new, &|_| Ok(String::new())).await);
    }
    /// Announces the end of a product.
    pub async fn retire(&self, product: &str, note: &str) {
        let cloud = &self.cloud.cloud;
        let ends_at = Some(cloud.clock().now().plus(DurationMs::from_hours(48)));
        let change = OfferingChange { state: OfferingState::Retiring, ends_at, successor: None };
        let product = product.parse().expect("a product");
        let new = NewOffering { product, change, used_within_days: None, note: note.to_owned() };
        cloud.set_offering(&Actor::system(), &new).await.expect("it is set");
    }
    /// An index with its first level, and what it becomes.
    pub async fn publish_levels(&self, name: &str, levels: &[&str]) {
        let (cloud, name): (_, IndexName) = (&self.cloud.cloud, name.parse().expect("a name"));
        let level = |text: &str| text.parse().expect("a level");
        let lead = DurationMs::from_seconds(1_800);
        let new = NewIndex { name: name.clone(), lead, level: level(levels[0]), note: String::new() };
        created(cloud.create_price_index(&Call::once(Actor::system()), &new).await);
        for text in &levels[1..] {
            let new = NewPoint { index: name.clone(), from: None, level: level(text) };
            created(cloud.publish_price_point(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
        }
    }
    /// A rule of the customer's that is paused: who processes cards is not there to ask.
    pub async fn top_up_by_itself(&self) {
        let now = self.cloud.cloud.clock().now();
        let below = BelowThreshold { threshold: Nanos::new(20 * UNIT), amount: Nanos::new(50 * UNIT) };
        let rule = StoredTopUpRule {
            organization: self.organization.clone(),
            terms: TopUpRule { below: Some(below), on: None, most_per_day: None, most_per_month: Nanos::new(200 * UNIT) },
            state: TopUpRuleState::Paused,
            reason: Some("the card was declined".to_owned()),
            declines: 2,
            look_at: None,
            retry_at: None,
            day_at: None,
            set_by: "key_1".to_owned(),
            set_at: now,
        };
        put_top_up_rule(&self.cloud.cloud, &rule).await;
    }
    pub async fn sign_in(&self, plane: KeyPlane) -> String {
        self.sign_in_with(&self.secret(plane)).await
    }
    pub async fn sign_in_stranger(&self, plane: KeyPlane) -> String {
        let secret = if plane == KeyPlane::Admin { &self.stranger_admin } else { &self.stranger_project };
        self.sign_in_with(secret.reveal()).await
    }
}

/// Pages run no batches.
struct NoLines;

impl LineServer for NoLines {
    fn estimate(&self, _: Arc<Access>, _: LineEndpoint, _: Vec<u8>) -> BoxFuture<'_, Result<LineEstimate>> {
        Box::pin(std::future::pending())
    }
    fn serve(&self, _: LineRequest) -> BoxFuture<'_, LineEnd> {
        Box::pin(std::future::pending())
    }
}

fn routes(cloud: &Cloud, compute: &Compute, chat: &Chat) -> Router {
    let blobs = MemoryBlobs::new("console", Arc::clone(cloud.clock()));
    let files = Files::new(cloud.clone(), Arc::new(blobs), FileLimits::default());
    let ports = BatchPorts { files, lines: Arc::new(NoLines), engine: Arc::new(Models), owner: "gw_1".parse().expect("an id") };
    let batches = Batches::new(ports);
    let app = App { cloud: cloud.clone(), compute: compute.clone(), batches, engine: Arc::new(Models), process: Arc::new(Quiet) };
    let chat = chat.clone();
    let chat = post(move |request: Request<Body>| chat.answer(request));
    let elsewhere = post(|| async { StatusCode::NOT_IMPLEMENTED });
    let mut data_plane = vec![(Operation::CreateChatCompletion, chat)];
    let others = [
        Operation::CreateCompletion,
        Operation::CreateResponse,
        Operation::CreateEmbedding,
        Operation::CreateModeration,
        Operation::CountResponseTokens,
        Operation::CreateMessage,
        Operation::CountMessageTokens,
        Operation::ListModels,
        Operation::GetModel,
    ];
    data_plane.extend(others.into_iter().map(|operation| (operation, elsewhere.clone())));
    router(&app, data_plane).expect("every route has a handler")
}

/// One settled request of a million tokens each way.
async fn use_tokens(cloud: &Cloud, secret: &Secret) -> RequestId {
    let gateway: GatewayId = "gw_1".parse().expect("an id");
    let fence = cloud.start_gateway(&gateway).await.expect("a session");
    let port = GatewayPort::new(cloud.clone(), gateway.clone());
    let access = port.authenticate(secret).await.expect("the key works");
    let (key, wanted) = (access.key.clone(), Nanos::new(2 * UNIT));
    let slice = SliceTarget::Open(cloud.ids().mint());
    let request = SliceRequest {
        gateway: gateway.clone(),
        fence,
        key: key.clone(),
        class: SpendClass::default(),
        slice,
        wanted,
        least: wanted,
        is_final: true,
    };
    let slice = port.grant_slice(request).await.expect("credit is there").slice;
    let now = cloud.clock().now();
    let million = TokenCount::new(1_000_000);
    let record = UsageRecord {
        tier: ServiceTier::Default,
        request: cloud.ids().mint(),
        attempt: 1,
        gateway,
        fence,
        slice: slice.clone(),
        key,
        project: access.project.clone(),
        organization: access.organization.clone(),
        model: MODEL.to_owned(),
        route: "/v1/chat/completions".to_owned(),
        price_version: port.prices(&access, (MODEL, ServiceTier::Default), now).expect("a price").version.clone(),
        admitted_at: now,
        first_token_at: Some(now),
        finished_at: now,
        tokens: TokenUsage { input: million, cached_input: TokenCount::ZERO, output: million },
        outcome: Outcome::Completed,
        measured: Measured::Engine,
        client_retry: 0,
        line: None,
        replica: None,
        purchases: Vec::new(),
    };
    let report = cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
    assert_eq!(report.settled, 1);
    port.return_slice(SliceReturn { slice, fence, records: 1 }).await.expect("returned");
    record.request
}

async fn run_job(compute: &Compute, actor: &Actor, command: &[&str]) -> JobId {
    let quote = NewQuote {
        kind: "cpu".parse().expect("a kind"),
        units: 1,
        notice: NoticeClass::N0,
        site: None,
        isolation: None,
        max_duration: None,
        max_cost: None,
        max_price: None,
        metadata: BTreeMap::new(),
    };
    let spec = JobSpec {
        command: command.iter().map(|word| (*word).to_owned()).collect(),
        environment: BTreeMap::new(),
        files: BTreeMap::new(),
        limits: JobLimits::default(),
        on_end: OnEnd::EndLease,
        restart: RestartPolicy::default(),
    };
    let new = NewRun { quote, job: NewJob { spec, metadata: BTreeMap::new() } };
    created(compute.run(&Call::once(actor.clone()), &new, &|_| Ok(String::new())).await).job.job.id
}

/// A tenant whose names would break a page that does not escape.
async fn hostile_tenant(cloud: &Cloud) -> (Secret, Secret, Actor) {
    let new = NewOrganization {
        name: HOSTILE.to_owned(),
        class: OrganizationClass::External,
        currency: Currency::EUR,
        time_zone: "UTC".to_owned(),
        credit_limit: Nanos::ZERO,
    };
    let (organization, admin) = created(cloud.create_organization(&Call::once(Actor::system()), &new).await);
    pay_in(cloud, &organization.id, Nanos::new(UNIT)).await;
    let boss = actor(cloud, &admin.secret).await;
    let project = created(cloud.create_project(&Call::once(boss.clone()), HOSTILE, &|_| Ok(String::new())).await);
    let new = NewKey { name: HOSTILE.to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None };
    let key = created(cloud.create_project_key(&Call::once(boss), &project.id, &new).await);
    let person = actor(cloud, &key.secret).await;
    (admin.secret, key.secret, person)
}
