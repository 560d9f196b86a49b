//! A gateway over the fakes, and the calls a client makes.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use axum::Router;
use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, Request};
use http_body_util::BodyExt;
use serde_json::{Value, json};
use sublet_core::id::{GatewayId, Identifier};
use sublet_core::rate::RateLimits;
use sublet_core::{Clock, DurationMs, IdMint, Rng, Timestamp};
use sublet_gateway::{Gateway, GatewayConfig, GatewayPorts, JournalDirectory, handlers};
use tower::ServiceExt;

use crate::cloud::Cloud;
use crate::disk::Disk;
use crate::engine::Engine;
use crate::shelf::Shelf;

pub const START: Timestamp = Timestamp::from_seconds(1_750_000_000);
/// How long a test waits for what must happen at once; only a failing test waits that long.
pub const SOON: DurationMs = DurationMs::from_seconds(20);

pub struct TestClock(AtomicI64);

impl Clock for TestClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(self.0.load(Ordering::SeqCst))
    }
}

impl TestClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(START.micros())))
    }
    pub fn advance(&self, by: DurationMs) {
        self.0.fetch_add(by.millis() * 1_000, Ordering::SeqCst);
    }
}

/// Counts up, so that ids are different and always the same.
struct TestRng(AtomicU64);

impl Rng for TestRng {
    fn fill(&self, bytes: &mut [u8]) {
        let number = self.0.fetch_add(1, Ordering::SeqCst).to_be_bytes();
        let length = bytes.len();
        bytes.fill(0);
        bytes[length - 8..].copy_from_slice(&number);
    }
}

pub struct World {
    pub cloud: Arc<Cloud>,
    pub engine: Arc<Engine>,
    pub shelf: Arc<Shelf>,
    pub disk: Disk,
    pub clock: Arc<TestClock>,
    pub gateway: Arc<Gateway>,
    pub key: String,
    router: Router,
}

pub fn config() -> GatewayConfig {
    let mut config = GatewayConfig::new(GatewayId::from_trusted(Arc::from("gw_1")), 1);
    config.output_step = sublet_core::TokenCount::new(8);
    config.tight_output_step = sublet_core::TokenCount::new(2);
    config.supply.queue_wait = DurationMs::from_millis(50);
    config.supply.busy_pause = DurationMs::from_millis(100);
    config.quiet_extension = DurationMs::from_millis(1);
    config.journal.settle_interval = DurationMs::from_millis(1);
    config.journal.settle_backoff_first = DurationMs::from_millis(1);
    config
}

pub fn router(gateway: &Arc<Gateway>) -> Router {
    handlers(gateway).into_iter().fold(Router::new(), |router, (operation, handler)| {
        operation.route().paths().into_iter().fold(router, |router, path| router.route_service(&path, handler.clone()))
    })
}

impl World {
    pub async fn new() -> Self {
        Self::with(config()).await
    }

    pub async fn with(config: GatewayConfig) -> Self {
        let cloud = Cloud::new();
        let key = cloud.add_key(1, "a", RateLimits::default());
        cloud.limit("a", 1_000_000_000);
        Self::over(config, cloud, Disk::default(), key).await
    }

    /// A gateway on a cloud and a disk that may have a past.
    pub async fn over(config: GatewayConfig, cloud: Arc<Cloud>, disk: Disk, key: String) -> Self {
        let world = Self::on(config, cloud, Arc::new(disk.clone()), key).await;
        Self { disk, ..world }
    }

    /// Another gateway of the same cloud.
    pub async fn beside(&self, name: &str) -> Self {
        let mut other = config();
        other.gateway = GatewayId::from_trusted(Arc::from(name));
        // The ids of a session begin with its number.
        other.fence = i64::try_from(name.len()).unwrap();
        Self::over(other, Arc::clone(&self.cloud), Disk::default(), self.key.clone()).await
    }

    pub async fn on(config: GatewayConfig, cloud: Arc<Cloud>, journal: Arc<dyn JournalDirectory>, key: String) -> Self {
        let clock = Arc::clone(&cloud.clock);
        let session = u64::try_from(config.fence).unwrap() << 32;
        let ids = IdMint::new(clock.clone(), Arc::new(TestRng(AtomicU64::new(session))));
        let engine = Engine::new();
        let shelf = Arc::<Shelf>::default();
        let ports = GatewayPorts {
            admission: cloud.clone(),
            sink: cloud.clone(),
            engine: engine.clone(),
            catalogue: cloud.clone(),
            secrets: cloud.clone(),
            tokenizers: cloud.clone(),
            responses: shelf.clone(),
            ids,
            journal,
        };
        let (gateway, _) = Gateway::open(config, ports).unwrap();
        gateway.recover().await.unwrap();
        let router = router(&gateway);
        Self { cloud, engine, shelf, disk: Disk::default(), clock, gateway, key, router }
    }

    pub async fn send(&self, request: Request<Body>) -> Response {
        self.router.clone().oneshot(request).await.unwrap()
    }

    pub fn request(&self, path: &str, body: impl Into<Body>) -> Request<Body> {
        Request::post(path).header("authorization", format!("Bearer {}", self.key)).body(body.into()).unwrap()
    }

    pub async fn post(&self, path: &str, body: &Value) -> Response {
        self.send(self.request(path, body.to_string())).await
    }

    pub async fn chat(&self, script: &str) -> Response {
        self.post("/v1/chat/completions", &chat(script)).await
    }

    /// A streamed chat; the body is read by the caller.
    pub async fn stream(&self, script: &str) -> Body {
        let response = self.post("/v1/chat/completions", &streamed(script)).await;
        assert_eq!(response.status(), 200);
        response.into_body()
    }

    /// Settles everything and checks that no request left anything behind.
    pub async fn at_rest(&self) {
        self.gateway.flush(SOON).await.unwrap();
        let metrics = self.gateway.metrics();
        assert_eq!((metrics.in_flight, metrics.held.get(), metrics.journal_unsettled), (0, 0, 0));
        assert_eq!(self.engine.shared.running.load(Ordering::SeqCst), 0);
    }

    /// Gives all slices back; what is settled is all that is left.
    pub async fn close(&self) {
        self.at_rest().await;
        let report = self.gateway.shutdown(DurationMs::ZERO).await;
        assert_eq!((report.stopped, report.unsettled, report.slices_left), (0, 0, 0));
        assert_eq!(self.cloud.open_slices(), 0, "{}", self.cloud.shown_slices());
    }
}

pub fn chat(script: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": script}]})
}

pub fn streamed(script: &str) -> Value {
    json!({"model": "tiny", "messages": [{"role": "user", "content": script}], "stream": true, "stream_options": {"include_usage": true}})
}

pub async fn text(response: Response) -> String {
    read(response.into_body()).await
}

pub async fn read(body: Body) -> String {
    String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

pub async fn value(response: Response) -> (u16, HeaderMap, Value) {
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = text(response).await;
    (status, headers, serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}")))
}

/// The next event of a body, as text.
pub async fn event(body: &mut Body) -> Option<String> {
    let frame = body.frame().await?.unwrap();
    Some(String::from_utf8(frame.into_data().unwrap().to_vec()).unwrap())
}

/// Reads until `count` pieces of text came.
pub async fn read_deltas(body: &mut Body, count: usize) {
    let mut seen = 0;
    while seen < count {
        let event = event(body).await.expect("the stream goes on");
        seen += usize::from(event.contains("\"content\":\"w"));
    }
}

/// The data objects of a stream, and whether it ended with `[DONE]`.
pub fn events(text: &str) -> (Vec<Value>, bool) {
    let mut done = false;
    let mut events = Vec::new();
    for block in text.split("\n\n").filter(|block| !block.is_empty() && !block.starts_with(':')) {
        assert!(!done, "something follows [DONE]: {block}");
        match block.strip_prefix("data: ").unwrap() {
            "[DONE]" => done = true,
            data => events.push(serde_json::from_str(data).unwrap()),
        }
    }
    (events, done)
}
