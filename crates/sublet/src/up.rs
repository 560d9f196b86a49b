//! `sublet up`: the whole cloud in one process with one data directory.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use sublet_cloud::Cloud;
use sublet_cloud::bootstrap::{FirstKeys, FirstStart};
use sublet_cloud::slice::GatewayPort;
use sublet_core::engine::ModelEngine;
use sublet_core::{Clock, Currency, DurationMs, Error, IdMint, Result, Rng};
use sublet_engine::{Engine, EngineConfig};
use sublet_gateway::{FileDirectory, Gateway, GatewayConfig, GatewayPorts};
use sublet_http::{App, router};
use sublet_store::{Store, StoreConfig};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::data_directory::{self, Credentials, DataDirectory};
use crate::process::CloudProcess;
use crate::real::{SystemClock, SystemRng};
use crate::{listen, models};

/// How long a drain lets streams finish.
const DRAIN_DEADLINE: DurationMs = DurationMs::from_seconds(20);

/// What `sublet up` was asked for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UpOptions {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    /// `None` is SQLite in the data directory.
    pub database: Option<String>,
    pub currency: Currency,
    pub time_zone: String,
}

/// A running cloud.
pub struct RunningCloud {
    pub cloud: Cloud,
    pub gateway: Arc<Gateway>,
    pub engine: Arc<Engine>,
    pub address: SocketAddr,
    /// The secrets, if this start or an earlier one of this data directory made them.
    pub credentials: Option<Credentials>,
    /// True if this start created the cloud.
    pub is_new: bool,
    stop: watch::Sender<bool>,
    listener: JoinHandle<()>,
    _data: DataDirectory,
}

impl RunningCloud {
    /// Starts everything and serves.
    pub async fn start(options: &UpOptions) -> Result<Self> {
        let data = DataDirectory::open(&options.data_dir)?;
        let listener = listen::bind(options.listen).await?;
        let address = listener.local_addr().map_err(|error| Error::internal(error.to_string()))?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let rng: Arc<dyn Rng> = Arc::new(SystemRng);
        let ids = IdMint::new(Arc::clone(&clock), Arc::clone(&rng));
        let config = match &options.database {
            Some(url) => StoreConfig::Postgres(url.clone()),
            None => StoreConfig::Sqlite(data.join("sublet.db")),
        };
        let cloud = Cloud::open(Store::open(&config).await?, ids.clone()).await?;
        let engine = load_engine(&data, clock, rng).await?;
        let is_new = first_start(&cloud, &data, options, address, &engine).await?;
        let gateway = open_gateway(&cloud, &data, &ids, Arc::clone(&engine)).await?;
        let app = App {
            cloud: cloud.clone(),
            engine: Arc::clone(&engine) as Arc<dyn ModelEngine>,
            process: Arc::new(CloudProcess { cloud: cloud.clone(), gateway: Arc::clone(&gateway), engine: Arc::clone(&engine) }),
        };
        let router = router(&app, sublet_gateway::handlers(&gateway))?;
        let (stop, stopped) = watch::channel(false);
        let listener = tokio::spawn(listen::serve(listener, router, stopped));
        let credentials = data.credentials();
        Ok(Self { cloud, gateway, engine, address, credentials, is_new, stop, listener, _data: data })
    }

    /// Drains: streams finish or are settled, then everything stops.
    pub async fn shutdown(self) {
        let report = self.gateway.shutdown(DRAIN_DEADLINE).await;
        tracing::info!(?report, "the gateway has drained");
        self.stop.send_replace(true);
        if let Err(error) = self.listener.await {
            tracing::error!(%error, "the listener failed");
        }
        self.cloud.store().close().await;
    }
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

/// Creates the cloud's first tenants, keys and prices if that was not done before.
async fn first_start(
    cloud: &Cloud,
    data: &DataDirectory,
    options: &UpOptions,
    address: SocketAddr,
    engine: &Engine,
) -> Result<bool> {
    let start = FirstStart {
        currency: options.currency,
        time_zone: options.time_zone.clone(),
        models: engine.models().into_iter().map(|model| model.name).collect(),
        device_kinds: vec!["cpu".to_owned()],
    };
    let plan = cloud.plan_first_start(&start).await?;
    let mut is_new = false;
    if let Some(plan) = plan {
        // The secrets are on disk before they are in the database, so that a crash in between loses none.
        data.prepare_credentials(&credentials(&plan.keys(), address))?;
        is_new = cloud.apply_first_start(&plan).await?;
    }
    data.publish_credentials()?;
    cloud.ensure_prices(&start).await?;
    Ok(is_new)
}

fn credentials(keys: &FirstKeys, address: SocketAddr) -> Credentials {
    let base = format!("http://{address}");
    Credentials {
        api_base: format!("{base}/v1"),
        console_url: format!("{base}/console"),
        operator_key: keys.operator.reveal().to_owned(),
        admin_key: keys.admin.reveal().to_owned(),
        project_key: keys.project.reveal().to_owned(),
        internal_key: keys.internal.reveal().to_owned(),
        model: models::SHIPPED_MODEL.to_owned(),
    }
}

/// Opens this machine's gateway, settles what its last life left, and frees what it held.
async fn open_gateway(cloud: &Cloud, data: &DataDirectory, ids: &IdMint, engine: Arc<Engine>) -> Result<Arc<Gateway>> {
    let id = data.gateway_id(ids)?;
    let fence = cloud.start_gateway(&id).await?;
    let path = data.directory("journal")?;
    let journal = FileDirectory::open(path.clone()).map_err(|error| data_directory::failure(&path, &error))?;
    let ports = GatewayPorts {
        admission: Arc::new(GatewayPort::new(cloud.clone(), id.clone())),
        sink: Arc::new(cloud.clone()),
        engine,
        ids: ids.clone(),
        journal: Arc::new(journal),
    };
    let (gateway, report) = Gateway::open(GatewayConfig::new(id.clone(), fence), ports)?;
    let settled = gateway.recover().await?;
    let freed = cloud.close_fenced_slices(&id, fence).await?;
    tracing::info!(?report, settled, freed, "the gateway is open");
    Ok(gateway)
}
