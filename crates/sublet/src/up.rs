//! `sublet up`: the whole cloud in one process with one data directory.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use sublet_cloud::batch::{BatchPorts, Batches};
use sublet_cloud::bootstrap::{FirstKeys, FirstStart};
use sublet_cloud::clock::clock_of;
use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::file::Files;
use sublet_cloud::file_room::FileLimits;
use sublet_cloud::key::SESSION_LIFE;
use sublet_cloud::machine::Registration;
use sublet_cloud::mail::Mailer;
use sublet_cloud::payment::Payments;
use sublet_cloud::response::ResponsePort;
use sublet_cloud::slice::GatewayPort;
use sublet_cloud::{Cloud, CloudSettings, TestClock};
use sublet_core::delivery::DeliveryPort;
use sublet_core::engine::ModelEngine;
use sublet_core::id::{GatewayId, SiteId};
use sublet_core::mail::{MailAddress, MailPort};
use sublet_core::supply::{SecretName, SecretSource};
use sublet_core::tokenizer::Tokenizers;
use sublet_core::webhook::WebhookPort;
use sublet_core::{Clock, Currency, DurationMs, Error, ErrorCode, IdMint, Result, Rng};
use sublet_delivery::{Deliveries, Webhooks};
use sublet_engine::{Engine, EngineConfig};
use sublet_gateway::{FileDirectory, Gateway, GatewayConfig, GatewayPorts, Lines};
use sublet_http::{App, router};
use sublet_mail::{MailFolder, Smtp, SmtpConfig};
use sublet_store::{Store, StoreConfig};
use sublet_stripe::{Stripe, StripeConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::ahead_clock::AheadClock;
use crate::blob_folder::BlobFolder;
use crate::data_directory::{self, Credentials, DataDirectory};
use crate::demonstration::{self, Demonstration, DemonstrationOptions, Stage};
use crate::fast_clock::FastClock;
use crate::machines::{GivenFleet, Machines, Opening};
use crate::process::CloudProcess;
use crate::real::SystemRng;
use crate::secret_files::SecretFiles;
use crate::shared_clock::{ProcessClock, SharedClock};
use crate::tokenizer_files::TokenizerFiles;
use crate::{listen, models};

/// How long a drain lets streams finish.
const DRAIN_DEADLINE: DurationMs = DurationMs::from_seconds(20);
/// The database of a cloud that keeps its own, in the data directory.
const BOOKS: &str = "sublet.db";
/// The notice that jobs get when the cloud stops.
const JOB_NOTICE: DurationMs = DurationMs::from_seconds(5);
/// How often a drain looks whether jobs have ended, [`DRAIN_PAUSE`] apart: thirty seconds.
const DRAIN_LOOKS_MAX: u32 = 300;
const DRAIN_PAUSE: DurationMs = DurationMs::from_millis(100);
/// From SIGTERM to the end of what is still there when the runner closes.
const RUNNER_GRACE: DurationMs = DurationMs::from_seconds(2);

/// What `sublet up` was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpOptions {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// `None` is SQLite in the data directory.
    pub database: Option<String>,
    pub currency: Currency,
    pub time_zone: String,
    /// What this machine is called among the nodes; `None` is its host name.
    pub node_name: Option<String>,
    /// Where this machine is; `None` is the site of a cloud on one machine.
    pub site: Option<SiteId>,
    /// A description of the machines, if they are simulated and this is the first start or they change.
    pub fleet: Option<PathBuf>,
    /// A cloud in which all is simulated, time included.
    pub demonstration: Option<DemonstrationOptions>,
    /// Where contents of files are; `None` is in the data directory.
    pub files: Option<PathBuf>,
    /// What files may fill.
    pub file_limits: FileLimits,
    /// How long responses that were asked to be kept are; zero keeps none.
    pub responses_kept_for: DurationMs,
    /// How wrong this machine's clock is made; zero but for diagnosis.
    pub clock_skew: DurationMs,
    /// A cloud whose time an operator can put forward.
    pub test_clock: bool,
    /// How long after its end a month is closed.
    pub close_after: DurationMs,
    /// Months are closed although the last look for them was long ago.
    pub resume_billing: bool,
    /// Who sells, as exports name it.
    pub seller: String,
    /// How Stripe is asked, if it is.
    pub stripe: Option<StripeConfig>,
    pub mail: MailOptions,
    /// What scheduled exports go below; `None` is in the data directory.
    pub exports: Option<PathBuf>,
    /// Events are posted to any address, not only to the public internet over TLS.
    pub webhooks_anywhere: bool,
}

/// How mail goes out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MailOptions {
    /// Where it is handed in; `None` is a folder of the data directory.
    pub smtp: Option<SmtpConfig>,
    pub from: MailAddress,
    /// Where the operator reads; the seller's contact if `None`.
    pub operator: Option<MailAddress>,
}

impl MailOptions {
    fn mailer(&self, data: &DataDirectory) -> Result<Mailer> {
        let port: Arc<dyn MailPort> = match &self.smtp {
            Some(config) => {
                let secrets = SecretFiles::new(data.directory("secrets")?);
                if let Some(login) = &config.login {
                    check_secret(&secrets, &login.password, "the server for mail")?;
                }
                Arc::new(Smtp::new(config.clone(), Arc::new(secrets)))
            }
            None => {
                let folder = data.join("mail");
                Arc::new(MailFolder::open(&folder).map_err(|error| data_directory::failure(&folder, &error))?)
            }
        };
        Ok(Mailer { port, from: self.from.clone(), operator: self.operator.clone() })
    }
}

/// Rather now than when somebody waits for it.
fn check_secret(secrets: &SecretFiles, name: &SecretName, whose: &str) -> Result<()> {
    secrets.read(name).map(|_| ()).map_err(|error| {
        Error::new(ErrorCode::Usage, format!("the secret '{}' of {whose} cannot be read", name.as_str()))
            .context(format!("{error:?}"))
            .alternative("a file of that name in the folder 'secrets' of the data directory")
    })
}

impl UpOptions {
    /// Where the books are.
    fn books(&self, data: &DataDirectory) -> Result<StoreConfig> {
        if self.demonstration.is_some() {
            data.check_books(BOOKS)?;
        }
        Ok(match &self.database {
            Some(url) => StoreConfig::Postgres(url.clone()),
            None => StoreConfig::Sqlite(data.join(BOOKS)),
        })
    }

    /// `clock` has the real time, whatever the test clock says.
    fn cloud_settings(
        &self,
        data: &DataDirectory,
        clock: Arc<dyn Clock>,
        test_clock: Option<Arc<dyn TestClock>>,
    ) -> Result<CloudSettings> {
        let (close_after, resume_billing, seller) = (self.close_after, self.resume_billing, self.seller.clone());
        let mut payments = Payments::default();
        if let Some(config) = &self.stripe {
            let secrets = SecretFiles::new(data.directory("secrets")?);
            for name in [&config.api_key, &config.webhook_secret] {
                check_secret(&secrets, name, "Stripe")?;
            }
            let stripe = Arc::new(Stripe::new(config.clone(), Arc::new(secrets))?);
            payments.stripe = Some(stripe.clone());
            payments.cards = Some(stripe.clone());
            payments.balance = Some(stripe);
        }
        let mail = Some(self.mail.mailer(data)?);
        let root = self.exports.clone().unwrap_or_else(|| data.join("exports"));
        let webhooks: Option<Arc<dyn WebhookPort>> = Some(Arc::new(Webhooks::new(Arc::clone(&clock), self.webhooks_anywhere)?));
        let deliveries = Deliveries::new(root, Arc::new(SecretFiles::new(data.directory("secrets")?)), clock)?;
        let exports: Option<Arc<dyn DeliveryPort>> = Some(Arc::new(deliveries));
        let session_life = self.demonstration.map_or(SESSION_LIFE, |demonstration| demonstration.speed.of(SESSION_LIFE));
        Ok(CloudSettings { close_after, resume_billing, seller, payments, mail, exports, webhooks, test_clock, session_life })
    }
}

/// A running cloud.
pub struct RunningCloud {
    pub cloud: Cloud,
    gateway: Arc<Gateway>,
    compute: Compute,
    pub machines: Machines,
    pub address: SocketAddr,
    /// The secrets, if this start or an earlier one of this data directory made them.
    pub credentials: Option<Credentials>,
    /// True if this start created the cloud.
    pub is_new: bool,
    /// Which of its machines this process offers, and which another does.
    pub registration: Registration,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
    reconciler: JoinHandle<()>,
    follower: JoinHandle<()>,
    /// Keeps the clock that processes share, where they share one.
    timekeeper: Option<JoinHandle<()>>,
    batch_reconciler: JoinHandle<()>,
    /// Settles what was fetched.
    downloads: JoinHandle<()>,
    /// Closes months.
    billing: JoinHandle<()>,
    /// Asks banks and processors.
    payments: JoinHandle<()>,
    /// Delivers mail.
    mail: JoinHandle<()>,
    /// Looks at spend limits.
    alerts: JoinHandle<()>,
    /// Delivers scheduled exports.
    exports: JoinHandle<()>,
    /// Posts events.
    webhooks: JoinHandle<()>,
    /// Who lives in it, if it is one.
    pub demonstration: Option<Demonstration>,
    _data: DataDirectory,
}

impl RunningCloud {
    /// Starts everything and serves.
    pub async fn start(options: &UpOptions) -> Result<Self> {
        let data = DataDirectory::open(&options.data_dir)?;
        let listener = listen::bind(options.listen).await?;
        let address = listener.local_addr().map_err(|error| Error::internal(error.to_string()))?;
        let store = Store::open(&options.books(&data)?).await?;
        let Clocks { real, cloud: clock, engine: engine_clock, test, keepers, fast } = Clocks::open(&store, options).await?;
        let rng: Arc<dyn Rng> = Arc::new(SystemRng::default());
        let ids = IdMint::new(Arc::clone(&clock), Arc::clone(&rng));
        let cloud = Cloud::open_with(store, ids.clone(), options.cloud_settings(&data, real, test)?).await?;
        let engine = load_engine(&data, engine_clock, rng).await?;
        let gateway_id = data.gateway_id(&ids)?;
        let (machines, compute) = open_compute(&cloud, &data, &gateway_id, options, clock).await?;
        let is_new = first_start(&cloud, &data, options, &Offered { address, engine: &engine, machines: &machines }).await?;
        let registration = register_devices(&compute, &machines, fast.as_deref()).await?;
        let tokenizers: Arc<dyn Tokenizers> = Arc::new(TokenizerFiles::new(data.directory("tokenizers")?));
        let models = (Arc::clone(&engine), Arc::clone(&tokenizers));
        let gateway = open_gateway(&cloud, (gateway_id.clone(), options.responses_kept_for), &data, models).await?;
        let files = open_files(&cloud, &files_folder(&data, options)?, options)?;
        let lines = Arc::new(Lines::new(&gateway));
        let batches = Batches::new(BatchPorts { files, lines, engine: Arc::<Engine>::clone(&engine), owner: gateway_id });
        let process = Arc::new(CloudProcess {
            cloud: cloud.clone(),
            gateway: Arc::clone(&gateway),
            engine: Arc::clone(&engine),
            batches: batches.clone(),
            tokenizers,
            models: data.directory("models")?,
            demonstration: fast.clone(),
        });
        let served: Arc<dyn ModelEngine> = engine;
        let app = App { cloud: cloud.clone(), compute: compute.clone(), batches: batches.clone(), engine: served, process };
        let router = router(&app, sublet_gateway::handlers(&gateway))?;
        let (stop, stopped) = watch::channel(false);
        let listener = tokio::spawn(listen::serve(listener, router, stopped.clone()));
        let reconciler = reconcile(compute.clone(), stop.subscribe());
        let timekeeper = keepers.start(cloud.store(), &stop);
        let [follower, billing, payments, mail, alerts, exports, webhooks] = follow_and_bill(&cloud, &stop);
        let [batch_reconciler, downloads] = work_on_files(batches, &stop);
        let credentials = data.credentials();
        let demonstration = start_demonstration(fast, &machines, credentials.as_ref(), &data)?;
        Ok(Self {
            cloud,
            gateway,
            compute,
            machines,
            address,
            credentials,
            is_new,
            registration,
            stop,
            listener,
            reconciler,
            follower,
            timekeeper,
            batch_reconciler,
            downloads,
            billing,
            payments,
            mail,
            alerts,
            exports,
            webhooks,
            demonstration,
            _data: data,
        })
    }

    /// Drains: streams finish or are settled, jobs get their notice, then everything stops.
    ///
    /// A demonstration's machines and time rest: what runs there goes on with the next start.
    pub async fn shutdown(mut self) {
        let demonstration = self.demonstration.take();
        let fast_clock = demonstration.as_ref().map(Demonstration::clock);
        if let Some(demonstration) = demonstration {
            demonstration.stop().await;
        }
        let drain_jobs = async {
            if fast_clock.is_none() {
                self.drain_jobs().await;
            }
        };
        let (report, ()) = tokio::join!(self.gateway.shutdown(DRAIN_DEADLINE), drain_jobs);
        tracing::info!(?report, "the gateway has drained");
        self.stop.send_replace(true);
        let tasks = [
            ("listener", self.listener),
            ("reconciler", self.reconciler),
            ("follower", self.follower),
            ("batches", self.batch_reconciler),
            ("downloads", self.downloads),
            ("billing", self.billing),
            ("payments", self.payments),
            ("mail", self.mail),
            ("alerts", self.alerts),
            ("exports", self.exports),
            ("webhooks", self.webhooks),
        ];
        for (name, task) in tasks.into_iter().chain(self.timekeeper.map(|task| ("clock", task))) {
            if let Err(error) = task.await {
                tracing::error!(name, %error, "a task failed");
            }
        }
        self.machines.shutdown(RUNNER_GRACE).await;
        self.compute.reconcile().await;
        if let Some(clock) = fast_clock {
            clock.stop(self.cloud.store()).await;
        } else if let Err(error) = self.compute.retire_devices().await {
            tracing::error!(?error, "the devices stay on sale though nobody runs them");
        }
        self.cloud.store().close().await;
    }

    async fn drain_jobs(&self) {
        if let Err(error) = self.compute.drain(JOB_NOTICE).await {
            tracing::error!(?error, "jobs could not be told");
            return;
        }
        for _ in 0..DRAIN_LOOKS_MAX {
            self.compute.wake();
            if matches!(self.compute.live_attempts().await, Ok(0)) {
                return;
            }
            tokio::time::sleep(DRAIN_PAUSE.to_std()).await;
        }
        tracing::warn!("jobs were still running when the cloud stopped; they are settled at the next start");
    }
}

/// What the cloud does by itself: it follows what other processes change, closes months, asks about payments, sends
/// mail, tells what limits have to say, delivers exports, and posts events.
fn follow_and_bill(cloud: &Cloud, stop: &watch::Sender<bool>) -> [JoinHandle<()>; 7] {
    let [following, billing, paying, mailing, telling, delivering, posting] =
        std::array::from_fn(|_| (cloud.clone(), stop.subscribe()));
    [
        tokio::spawn(async move { following.0.run_follower(following.1).await }),
        tokio::spawn(async move { billing.0.run_billing(billing.1).await }),
        tokio::spawn(async move { paying.0.run_payments(paying.1).await }),
        tokio::spawn(async move { mailing.0.run_mail(mailing.1).await }),
        tokio::spawn(async move { telling.0.run_spend_alerts(telling.1).await }),
        tokio::spawn(async move { delivering.0.run_exports(delivering.1).await }),
        tokio::spawn(async move { posting.0.run_webhooks(posting.1).await }),
    ]
}

fn reconcile(compute: Compute, stopped: watch::Receiver<bool>) -> JoinHandle<()> {
    tokio::spawn(async move { compute.run_reconciler(stopped).await })
}

/// Works on batches, and settles what is fetched.
fn work_on_files(batches: Batches, stop: &watch::Sender<bool>) -> [JoinHandle<()>; 2] {
    let (files, [working, settling]) = (batches.files().clone(), [stop.subscribe(), stop.subscribe()]);
    [
        tokio::spawn(async move { batches.run_reconciler(working).await }),
        tokio::spawn(async move { files.run_downloads(settling).await }),
    ]
}

/// What tells the time.
struct Clocks {
    real: Arc<dyn Clock>,
    /// What the cloud goes by.
    cloud: Arc<dyn Clock>,
    /// What models are measured by: how fast they compute is a matter of real time.
    engine: Arc<dyn Clock>,
    test: Option<Arc<dyn TestClock>>,
    fast: Option<Arc<FastClock>>,
    keepers: Keepers,
}

/// What has to be kept going.
struct Keepers {
    shared: Option<Arc<SharedClock>>,
    fast: Option<Arc<FastClock>>,
}

impl Clocks {
    async fn open(store: &Store, options: &UpOptions) -> Result<Self> {
        let ProcessClock { clock: real, shared } = ProcessClock::open(store, options.clock_skew).await?;
        let (clock, test) = with_test_clock(store, Arc::clone(&real), options).await?;
        let fast = demonstration::clock_of(store, real.as_ref(), options.demonstration).await?;
        let cloud = fast.clone().map_or(clock, |fast| -> Arc<dyn Clock> { fast });
        let engine = Arc::clone(if fast.is_some() { &real } else { &cloud });
        Ok(Self { real, cloud, engine, test, keepers: Keepers { shared, fast: fast.clone() }, fast })
    }
}

impl Keepers {
    fn start(self, store: &Store, stop: &watch::Sender<bool>) -> Option<JoinHandle<()>> {
        let (store, stopped) = (store.clone(), stop.subscribe());
        let Self { shared, fast } = self;
        match (shared, fast) {
            (Some(shared), _) => Some(tokio::spawn(async move { shared.run(&store, stopped).await })),
            (None, Some(fast)) => Some(tokio::spawn(async move { fast.run(&store, stopped).await })),
            (None, None) => None,
        }
    }
}

/// Begins to live in a demonstration.
fn start_demonstration(
    clock: Option<Arc<FastClock>>,
    machines: &Machines,
    credentials: Option<&Credentials>,
    data: &DataDirectory,
) -> Result<Option<Demonstration>> {
    let (Some(clock), Some(fleet)) = (clock, machines.simulated()) else { return Ok(None) };
    let missing = || Error::new(ErrorCode::Usage, "this demonstration's data directory has no credentials.json");
    let credentials = credentials.ok_or_else(|| missing().alternative("start another with --data-dir"))?;
    Demonstration::start(&Stage { clock, fleet, credentials, data }).map(Some)
}

/// The clock as it is, or one that can be put forward: whichever this cloud has had from the start.
async fn with_test_clock(
    store: &Store,
    clock: Arc<dyn Clock>,
    options: &UpOptions,
) -> Result<(Arc<dyn Clock>, Option<Arc<dyn TestClock>>)> {
    if options.test_clock && options.database.is_some() {
        return Err(Error::new(ErrorCode::Usage, "a test clock is for a cloud of one process, in one data directory")
            .alternative("leave --database out"));
    }
    let Some(ahead) = clock_of(store, options.test_clock).await? else { return Ok((clock, None)) };
    let ahead_clock = Arc::new(AheadClock::new(clock, ahead));
    Ok((Arc::<AheadClock>::clone(&ahead_clock), Some(ahead_clock)))
}

/// Opens what workloads run on, and compute over it.
async fn open_compute(
    cloud: &Cloud,
    data: &DataDirectory,
    gateway: &GatewayId,
    options: &UpOptions,
    clock: Arc<dyn Clock>,
) -> Result<(Machines, Compute)> {
    let later: Arc<OnceLock<Compute>> = Arc::default();
    let described = options.demonstration.map(GivenFleet::Demonstration);
    let (store, fleet) = (cloud.store(), described.or(options.fleet.as_deref().map(GivenFleet::File)));
    let opening = Opening { data, store, gateway, fleet, clock, woken: Arc::clone(&later) };
    let machines = Machines::open(opening).await?;
    let host_name = || std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_else(|_| "local".to_owned());
    let name = options.node_name.clone().unwrap_or_else(host_name);
    let mut settings = ComputeSettings::new(name.trim())?;
    settings.site = options.site.clone();
    if let Some(demonstration) = options.demonstration {
        demonstration.settle_in(&mut settings);
    }
    let compute = Compute::new(cloud.clone(), machines.runner(), settings);
    // Set once, here: nobody else has this cell.
    let _ = later.set(compute.clone());
    Ok((machines, compute))
}

/// Offers the devices of this process's machines. If another process on the same database offers a machine already, says
/// so: this one then serves everything else.
async fn register_devices(compute: &Compute, machines: &Machines, fast: Option<&FastClock>) -> Result<Registration> {
    let registration = compute.register_devices().await?;
    if let (Some(fast), Some(fleet)) = (fast, machines.simulated()) {
        demonstration::remember(compute, fleet, fast).await?;
    }
    for node in &registration.taken {
        tracing::warn!(node = node.name, runner = node.runner, "this process does not offer these devices: another one does");
    }
    Ok(registration)
}

async fn load_engine(data: &DataDirectory, clock: Arc<dyn Clock>, rng: Arc<dyn Rng>) -> Result<Arc<Engine>> {
    let engine = Arc::new(Engine::new(EngineConfig::default(), clock, rng));
    let directory = data.directory("models")?;
    let loading = Arc::clone(&engine);
    tokio::task::spawn_blocking(move || models::load_all(&loading, &directory))
        .await
        .map_err(|error| Error::internal(format!("loading models failed: {error}")))??;
    Ok(engine)
}

/// What a new cloud sells, and where.
struct Offered<'a> {
    address: SocketAddr,
    engine: &'a Engine,
    machines: &'a Machines,
}

/// Creates the cloud's first tenants, keys and prices if that was not done before.
async fn first_start(cloud: &Cloud, data: &DataDirectory, options: &UpOptions, offered: &Offered<'_>) -> Result<bool> {
    let start = FirstStart {
        currency: options.currency,
        time_zone: options.time_zone.clone(),
        models: offered.engine.models().into_iter().map(|model| model.name).collect(),
        device_kinds: offered.machines.kinds(),
    };
    let plan = cloud.plan_first_start(&start).await?;
    let mut is_new = false;
    if let Some(plan) = plan {
        // The secrets are on disk before they are in the database, so that a crash in between loses none.
        data.prepare_credentials(&credentials(&plan.keys(), offered.address))?;
        is_new = cloud.apply_first_start(&plan).await?;
        if !is_new {
            // Another process was first: these secrets open nothing.
            data.discard_credentials()?;
        }
    }
    data.publish_credentials()?;
    readdress(data, offered.address)?;
    cloud.ensure_prices(&start).await?;
    Ok(is_new)
}

/// A later start may listen elsewhere: the file says where.
fn readdress(data: &DataDirectory, address: SocketAddr) -> Result<()> {
    let Some(known) = data.credentials() else { return Ok(()) };
    let (api_base, console_url) = addresses(address);
    if known.api_base == api_base {
        return Ok(());
    }
    data.prepare_credentials(&Credentials { api_base, console_url, ..known })?;
    data.publish_credentials()
}

/// The API's base address and the console's.
fn addresses(address: SocketAddr) -> (String, String) {
    (format!("http://{address}/v1"), format!("http://{address}/console"))
}

fn credentials(keys: &FirstKeys, address: SocketAddr) -> Credentials {
    let (api_base, console_url) = addresses(address);
    Credentials {
        api_base,
        console_url,
        operator_key: keys.operator.reveal().to_owned(),
        admin_key: keys.admin.reveal().to_owned(),
        project_key: keys.project.reveal().to_owned(),
        internal_key: keys.internal.reveal().to_owned(),
        model: models::SHIPPED_MODEL.to_owned(),
    }
}

/// Opens this machine's gateway, settles what its last life left, and frees what it held.
async fn open_gateway(
    cloud: &Cloud,
    (id, kept_for): (GatewayId, DurationMs),
    data: &DataDirectory,
    (engine, tokenizers): (Arc<Engine>, Arc<dyn Tokenizers>),
) -> Result<Arc<Gateway>> {
    let fence = cloud.start_gateway(&id).await?;
    let path = data.directory("journal")?;
    let journal = FileDirectory::open(path.clone()).map_err(|error| data_directory::failure(&path, &error))?;
    let ports = GatewayPorts {
        admission: Arc::new(GatewayPort::new(cloud.clone(), id.clone())),
        sink: Arc::new(cloud.clone()),
        engine,
        catalogue: Arc::new(cloud.clone()),
        responses: Arc::new(ResponsePort::new(cloud.clone(), kept_for)),
        secrets: Arc::new(SecretFiles::new(data.directory("secrets")?)),
        tokenizers,
        ids: cloud.ids().clone(),
        journal: Arc::new(journal),
    };
    let (gateway, report) = Gateway::open(GatewayConfig::new(id.clone(), fence), ports)?;
    let settled = gateway.recover().await?;
    let freed = cloud.close_fenced_slices(&id, fence).await?;
    tracing::info!(?report, settled, freed, "the gateway is open");
    Ok(gateway)
}

/// Where contents of files are.
fn files_folder(data: &DataDirectory, options: &UpOptions) -> Result<PathBuf> {
    options.files.clone().map_or_else(|| data.directory("files"), Ok)
}

fn open_files(cloud: &Cloud, folder: &Path, options: &UpOptions) -> Result<Files> {
    let blobs = BlobFolder::open(folder, cloud.ids().rng().as_ref()).map_err(|error| data_directory::failure(folder, &error))?;
    Ok(Files::new(cloud.clone(), Arc::new(blobs), options.file_limits))
}
