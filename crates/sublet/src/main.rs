//! The binary: configuration, roles, wiring, life cycle.
//!
//! This crate alone reads the environment and the command line and makes real time and
//! randomness; everything else is given what it needs.

mod ahead_clock;
mod blob_folder;
mod data_directory;
mod demo;
mod demonstration;
mod fast_clock;
mod listen;
mod machines;
mod models;
mod process;
mod pull;
mod real;
mod secret_files;
mod shared_clock;
mod tokenizer_files;
mod up;

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use sublet_cli::command::model::{ModelCommand, PullArgs};
use sublet_cli::{Command, Context, Global, Style};
use sublet_cloud::billing::CLOSE_AFTER;
use sublet_cloud::data::DEFAULT_SELLER;
use sublet_cloud::file_room::FileLimits;
use sublet_cloud::response::KEPT_DAYS;
use sublet_core::id::SiteId;
use sublet_core::mail::MailAddress;
use sublet_core::supply::{BaseUrl, SecretName};
use sublet_core::{Currency, DurationMs, Error, ErrorCode, Result};
use sublet_mail::{SmtpConfig, SmtpLogin, SmtpServer};
use sublet_stripe::StripeConfig;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::demonstration::DemonstrationArguments;
use crate::real::SystemRng;
use crate::up::{MailOptions, RunningCloud, UpOptions};

/// Sell the AI infrastructure you are not using right now, and take it back the moment you need it.
#[derive(Parser)]
#[command(name = "sublet", version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: AnyCommand,
}

#[derive(Subcommand)]
enum AnyCommand {
    /// Run the whole cloud in this process
    Up(Box<UpArguments>),
    /// Play the whole story: idle capacity, tokens, a job, charges, an invoice that adds up
    Demo(DemoArguments),
    #[command(flatten)]
    Client(Box<Command>),
}

#[derive(Args)]
struct UpArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", env = "SUBLET_LISTEN")]
    listen: SocketAddr,
    /// PostgreSQL instead of SQLite in the data directory: postgres://user:password@host/database
    #[arg(long, env = "SUBLET_DATABASE")]
    database: Option<String>,
    /// Currency of the first organizations
    #[arg(long, default_value = "EUR")]
    currency: Currency,
    /// Time zone of the first organizations
    #[arg(long, default_value = "UTC")]
    time_zone: String,
    /// What this machine is called among the nodes, instead of its host name
    #[arg(long, value_name = "NAME", env = "SUBLET_NODE_NAME")]
    node_name: Option<String>,
    /// Where this machine is, as prices and quotes name it: where it was if not said, and site_local at first
    #[arg(long, value_name = "SITE", env = "SUBLET_SITE")]
    site: Option<SiteId>,
    /// Create a cloud whose machines are simulated, as this file describes them; for evaluation, never for real customers
    #[arg(long, value_name = "FILE", env = "SUBLET_FLEET", conflicts_with_all = ["node_name", "site"])]
    fleet: Option<PathBuf>,
    /// Where contents of files are kept, instead of in the data directory; processes that share it share files and batches
    #[arg(long, value_name = "DIR", env = "SUBLET_FILES")]
    files: Option<PathBuf>,
    #[command(flatten)]
    file_limits: FileArguments,
    /// How many days responses are kept whose requests say "store": true; 0 keeps none
    #[arg(
        long,
        value_name = "DAYS",
        default_value_t = KEPT_DAYS,
        value_parser = clap::value_parser!(u32).range(0..=3650),
        env = "SUBLET_KEEP_RESPONSES_DAYS"
    )]
    keep_responses_days: u32,
    /// Create a cloud whose time an operator can put forward (`sublet clock set`); for evaluation, never for real money
    #[arg(long, env = "SUBLET_TEST_CLOCK")]
    test_clock: bool,
    /// How many hours after its end a month is closed and its invoice issued
    #[arg(
        long,
        value_name = "HOURS",
        default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(0..=240),
        env = "SUBLET_CLOSE_AFTER_HOURS"
    )]
    close_after_hours: u32,
    /// Close months although nobody looked for them for more than 35 days: this cloud was off, and its clock is right
    #[arg(long)]
    resume_billing: bool,
    /// Who sells, as exports for finance name it
    #[arg(long, value_name = "NAME", default_value = DEFAULT_SELLER, env = "SUBLET_SELLER")]
    seller: String,
    #[command(flatten)]
    demonstration: DemonstrationArguments,
    #[command(flatten)]
    stripe: StripeArguments,
    #[command(flatten)]
    mail: MailArguments,
    /// What scheduled exports go below, instead of a folder of the data directory
    #[arg(long, value_name = "DIR", env = "SUBLET_EXPORTS")]
    exports: Option<PathBuf>,
    /// Let webhooks be at any address, also inside this network and without TLS
    #[arg(long, env = "SUBLET_WEBHOOKS_ANYWHERE")]
    webhooks_anywhere: bool,
    /// Diagnosis: sets this machine's clock wrong by so many milliseconds, as seen from this process
    #[arg(
        long,
        hide = true,
        value_name = "MILLISECONDS",
        default_value_t = 0,
        allow_negative_numbers = true,
        env = "SUBLET_TEST_CLOCK_SKEW_MS"
    )]
    test_clock_skew_ms: i64,
}

/// How customers pay by Stripe. Secrets are files in the folder `secrets` of the data directory, named here.
#[derive(Args)]
struct StripeArguments {
    /// Offer payments by Stripe: the name of the secret that has the API's key
    #[arg(
        long,
        value_name = "SECRET",
        requires = "stripe_webhook_secret",
        requires = "stripe_return_url",
        env = "SUBLET_STRIPE_KEY"
    )]
    stripe_key: Option<SecretName>,
    /// The name of the secret that has the signing secret of the webhook /webhooks/stripe
    #[arg(long, value_name = "SECRET", requires = "stripe_key", env = "SUBLET_STRIPE_WEBHOOK_SECRET")]
    stripe_webhook_secret: Option<SecretName>,
    /// Where customers come back to from Stripe's page
    #[arg(long, value_name = "URL", requires = "stripe_key", env = "SUBLET_STRIPE_RETURN_URL")]
    stripe_return_url: Option<String>,
    /// Another server that speaks Stripe's API, for tests
    #[arg(long, hide = true, value_name = "URL", default_value = "https://api.stripe.com", env = "SUBLET_STRIPE_API")]
    stripe_api: BaseUrl,
}

/// How long a call of Stripe may take.
const STRIPE_TIMEOUT: Duration = Duration::from_secs(30);

impl StripeArguments {
    fn config(self) -> Option<StripeConfig> {
        Some(StripeConfig {
            api_base: self.stripe_api,
            api_key: self.stripe_key?,
            webhook_secret: self.stripe_webhook_secret?,
            return_url: self.stripe_return_url?,
            timeout: STRIPE_TIMEOUT,
        })
    }
}

/// How mail goes out: into the folder `mail` of the data directory, or to a server.
#[derive(Args)]
struct MailArguments {
    /// Hand mail in at a server: smtps:// (TLS), smtp:// (STARTTLS), or smtp+plain:// for one on this machine
    #[arg(long, value_name = "URL", requires = "mail_from", env = "SUBLET_SMTP")]
    smtp: Option<SmtpServer>,
    /// As whom
    #[arg(long, value_name = "NAME", requires = "smtp", requires = "smtp_password", env = "SUBLET_SMTP_USER")]
    smtp_user: Option<String>,
    /// The name of the secret that has the password
    #[arg(long, value_name = "SECRET", requires = "smtp_user", env = "SUBLET_SMTP_PASSWORD")]
    smtp_password: Option<SecretName>,
    /// Whom mail is from
    #[arg(long, value_name = "ADDRESS", default_value = MAIL_FROM, env = "SUBLET_MAIL_FROM")]
    mail_from: MailAddress,
    /// Where the operator reads mail; the seller's contact if left out
    #[arg(long, value_name = "ADDRESS", env = "SUBLET_MAIL_OPERATOR")]
    mail_operator: Option<MailAddress>,
}

/// Whom mail in a folder is from, if nothing else is said.
const MAIL_FROM: &str = "sublet@localhost";
/// How long a server for mail may take for one answer.
const SMTP_TIMEOUT: Duration = Duration::from_secs(30);

impl MailArguments {
    fn options(self) -> MailOptions {
        let login = self.smtp_user.zip(self.smtp_password).map(|(user, password)| SmtpLogin { user, password });
        let smtp = self.smtp.map(|server| SmtpConfig { server, login, timeout: SMTP_TIMEOUT });
        MailOptions { smtp, from: self.mail_from, operator: self.mail_operator }
    }

    /// A folder of the data directory.
    fn none() -> MailOptions {
        MailOptions { smtp: None, from: MAIL_FROM.parse().expect("an address"), operator: None }
    }
}

/// What files may fill.
#[derive(Args)]
struct FileArguments {
    /// Files that a project keeps, at most
    #[arg(
        long,
        value_name = "N",
        default_value_t = FileLimits::default().project_files_max,
        value_parser = clap::value_parser!(u32).range(1..=1_000_000),
        env = "SUBLET_PROJECT_FILES"
    )]
    project_files: u32,
    /// What the files of a project come to, at most, in MiB
    #[arg(
        long,
        value_name = "MIB",
        default_value_t = FileLimits::default().project_bytes_max / MIB,
        value_parser = clap::value_parser!(u64).range(1..=1_073_741_824),
        env = "SUBLET_PROJECT_FILES_MIB"
    )]
    project_files_mib: u64,
    /// Files that are uploaded at once, at most; a quarter of them by one project
    #[arg(
        long,
        value_name = "N",
        default_value_t = FileLimits::default().uploads_max,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        env = "SUBLET_UPLOADS"
    )]
    uploads: u32,
}

/// Bytes of a mebibyte.
const MIB: u64 = 1024 * 1024;

impl FileArguments {
    fn limits(&self) -> FileLimits {
        FileLimits {
            project_files_max: self.project_files,
            project_bytes_max: self.project_files_mib.saturating_mul(MIB),
            uploads_max: self.uploads,
        }
    }
}

#[derive(Args)]
struct DemoArguments {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:8080", env = "SUBLET_LISTEN")]
    listen: SocketAddr,
    /// End after the story instead of serving on
    #[arg(long)]
    exit: bool,
}

/// Where data is when nothing else is said.
const DEFAULT_DATA_DIR: &str = "sublet-data";

/// Says where a panic was, and not its words: those of a library may quote what a customer wrote.
fn say_panic(panic: &std::panic::PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let thread = std::thread::current().name().unwrap_or("without a name").to_owned();
    let _nobody_to_tell =
        writeln!(std::io::stderr(), "thread {thread} panicked at {place}\n{}", std::backtrace::Backtrace::capture());
}

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(say_panic));
    sublet_runner::shim::main_if_requested();
    let arguments = Arguments::parse();
    let data_dir = arguments.global.data_dir.clone().or_else(|| environment("SUBLET_DATA_DIR").map(PathBuf::from));
    let data_dir = data_dir.unwrap_or_else(|| PathBuf::from(DEFAULT_DATA_DIR));
    match arguments.command {
        AnyCommand::Up(up) => {
            let up = *up;
            let options = UpOptions {
                data_dir,
                listen: up.listen,
                database: up.database,
                currency: up.currency,
                time_zone: up.time_zone,
                node_name: up.node_name,
                site: up.site,
                fleet: up.fleet,
                demonstration: up.demonstration.options(),
                files: up.files,
                file_limits: up.file_limits.limits(),
                responses_kept_for: days(up.keep_responses_days),
                clock_skew: DurationMs::from_millis(up.test_clock_skew_ms),
                test_clock: up.test_clock,
                close_after: DurationMs::from_hours(i64::from(up.close_after_hours)),
                resume_billing: up.resume_billing,
                seller: up.seller,
                stripe: up.stripe.config(),
                mail: up.mail.options(),
                exports: up.exports,
                webhooks_anywhere: up.webhooks_anywhere,
            };
            finish(serve(&options, &After::Serve))
        }
        AnyCommand::Demo(demo) => {
            let options = UpOptions {
                data_dir,
                listen: demo.listen,
                database: None,
                currency: Currency::EUR,
                time_zone: "UTC".to_owned(),
                node_name: None,
                site: None,
                fleet: None,
                demonstration: None,
                files: None,
                file_limits: FileLimits::default(),
                responses_kept_for: days(KEPT_DAYS),
                clock_skew: DurationMs::ZERO,
                test_clock: false,
                close_after: CLOSE_AFTER,
                resume_billing: false,
                seller: DEFAULT_SELLER.to_owned(),
                stripe: None,
                mail: MailArguments::none(),
                exports: None,
                webhooks_anywhere: false,
            };
            finish(serve(&options, if demo.exit { &After::TellAndExit } else { &After::TellAndServe }))
        }
        AnyCommand::Client(command) => match *command {
            Command::Models(ModelCommand::Pull(wanted)) => match pull(&wanted, &data_dir) {
                Ok(pulled) => pulled.import(|import| client(&arguments.global, data_dir, Command::Models(import))),
                Err(error) => finish(Err(error)),
            },
            command => client(&arguments.global, data_dir, command),
        },
    }
}

fn days(days: u32) -> DurationMs {
    DurationMs::from_hours(i64::from(days) * 24)
}

#[allow(clippy::disallowed_methods, reason = "the one place that reads the environment")]
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn client(global: &Global, data_dir: PathBuf, command: Command) -> ExitCode {
    let from_environment = ["SUBLET_API_KEY", "SUBLET_ADMIN_KEY", "SUBLET_OPERATOR_KEY"].into_iter().filter_map(environment);
    let texts = from_environment.chain(global.key.iter().cloned());
    let keys = match sublet_cli::credentials::keys_by_plane(texts) {
        Ok(keys) => keys,
        Err(error) => return finish(Err(error)),
    };
    let stdout = std::io::stdout();
    let coloured = stdout.is_terminal() && environment("NO_COLOR").is_none();
    let status = sublet_cli::run_to_status(
        command,
        &mut Context {
            url: global.url.clone().or_else(|| environment("SUBLET_URL")),
            keys,
            data_dir,
            json: global.json,
            style: Style { color: coloured, interactive: std::io::stdin().is_terminal(), live: std::io::stderr().is_terminal() },
            input: &mut std::io::stdin().lock(),
            out: &mut stdout.lock(),
            err: &mut std::io::stderr(),
            rng: &SystemRng::default(),
            pause: &std::thread::sleep,
        },
    );
    ExitCode::from(status.0)
}

/// A model that has arrived and is not imported yet.
struct Pulled {
    staging: PathBuf,
    path: PathBuf,
    name: String,
}

impl Pulled {
    /// Imports it; what was imported is not kept twice.
    fn import(self, run: impl FnOnce(ModelCommand) -> ExitCode) -> ExitCode {
        let status = run(ModelCommand::Import { path: self.path, name: Some(self.name) });
        if status == ExitCode::SUCCESS {
            // What is left of it costs disk, and nothing else.
            let _ = std::fs::remove_dir_all(&self.staging);
        }
        status
    }
}

fn pull(wanted: &PullArgs, data_dir: &Path) -> Result<Pulled> {
    let model = pull::Wanted::parse(&wanted.source, wanted.revision.as_deref(), wanted.file.as_deref())?;
    let hub = pull::Hub::new(environment("HF_ENDPOINT"), environment("HF_TOKEN"))?;
    let staging = pull::staging(data_dir, &model);
    let path = pull::fetch(&hub, &model, &staging, &mut std::io::stderr())?;
    let name = wanted.name.clone().unwrap_or_else(|| model.name().to_owned());
    Ok(Pulled { staging, path, name })
}

/// Prints an error with what would work, and gives its exit status.
fn finish(outcome: Result<()>) -> ExitCode {
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    let mut text = format!("error: {} ({})\n", error.message(), error.code());
    for alternative in error.alternatives() {
        text.push_str(&format!("  try: {alternative}\n"));
    }
    if error.code() == ErrorCode::Internal {
        text.push_str(&format!("  {}\n", error.private_context().join("; ")));
    }
    // When standard error takes no text, the exit status has to do.
    let _ = std::io::stderr().write_all(text.as_bytes());
    ExitCode::from(error.code().exit_status())
}

/// What to do once the cloud serves.
enum After {
    Serve,
    TellAndServe,
    TellAndExit,
}

fn serve(options: &UpOptions, after: &After) -> Result<()> {
    start_logging(if matches!(after, After::Serve) { "info,sqlx=warn" } else { "warn" });
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal(format!("the runtime could not start: {error}")))?;
    let outcome = runtime.block_on(async {
        // Before anything answers: whoever sees the cloud ready may tell it to stop.
        let mut signals = Signals::watch()?;
        let running = tokio::select! {
            running = RunningCloud::start(options) => running?,
            () = signals.received() => {
                tracing::info!("stopped while starting; the next start goes on from here");
                return Ok(());
            }
        };
        let outcome = tokio::select! {
            outcome = act(&running, options, after) => outcome,
            () = signals.received() => Ok(()),
        };
        tracing::info!("stopping: streams finish, jobs get their notice, usage is settled");
        running.shutdown().await;
        outcome
    });
    // A story that was interrupted may still hold its thread.
    runtime.shutdown_background();
    outcome
}

/// Does what was asked for; serving on ends with a signal only.
async fn act(running: &RunningCloud, options: &UpOptions, after: &After) -> Result<()> {
    match after {
        After::TellAndExit => return tell(running).await,
        After::TellAndServe => tell(running).await?,
        After::Serve => {}
    }
    greet(running, options);
    std::future::pending().await
}

/// Plays the demo against the running cloud, as an outside client.
async fn tell(running: &RunningCloud) -> Result<()> {
    let credentials = running.credentials.clone().ok_or_else(|| {
        Error::new(ErrorCode::Usage, "this data directory has no credentials.json to play the demo with")
            .alternative("choose a new directory with --data-dir")
    })?;
    let story = move || demo::Story::new(&credentials, &mut std::io::stdout()).and_then(demo::Story::tell);
    tokio::task::spawn_blocking(story).await.map_err(|error| Error::internal(format!("the demo failed: {error}")))?
}

/// SIGTERM and Ctrl-C. From when they are watched, they end nothing by themselves.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn watch() -> Result<Self> {
        let failed = |error: std::io::Error| Error::internal(format!("signals cannot be watched: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

fn start_logging(default: &str) {
    let filter = environment("SUBLET_LOG").unwrap_or_else(|| default.to_owned());
    let builder = tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::new(filter))
        .with_writer(std::io::stderr)
        // Where standard error takes no text, as on a full disk, saying so there would end the task that logs.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    // A second start in one process keeps the first logger.
    let _ =
        if environment("SUBLET_LOG_FORMAT").as_deref() == Some("json") { builder.json().try_init() } else { builder.try_init() };
}

/// Says where everything is and what to do next.
fn greet(running: &RunningCloud, options: &UpOptions) {
    let base = format!("http://{}", running.address);
    let directory = options.data_dir.display();
    let mut text = format!("\n  Sublet serves at {base}\n");
    if let Some(credentials) = &running.credentials {
        text.push_str(&format!(
            "  keys and addresses   {directory}/credentials.json\n  console              {}\n",
            credentials.console_url
        ));
        text.push_str(&format!(
            "\n  try:\n    curl {base}/v1/chat/completions -H \"authorization: Bearer {}\" \\\n      -d '{{\"model\":\"{}\",\"messages\":[{{\"role\":\"user\",\"content\":\"Hello\"}}]}}'\n",
            if running.is_new { credentials.project_key.as_str() } else { "$PROJECT_KEY" },
            credentials.model
        ));
    }
    text.push_str(&format!("    sublet chat --data-dir {directory}\n"));
    if running.machines.simulated().is_none() {
        text.push_str(&format!("    sublet run --data-dir {directory} -- echo hello\n"));
    }
    text.push('\n');
    if let Some(demonstration) = &running.demonstration {
        text.push_str(&demonstration.greeting(&options.data_dir));
    }
    if let Some(fleet) = running.machines.simulated() {
        let machines: u32 = fleet.pools.iter().map(|pool| pool.machines).sum();
        text.push_str(&format!(
            "  Its {machines} machines ({}) are simulated: what is sold on them runs nothing. Try\n    \
             sublet run --data-dir {directory} --sku {} -- simulate --seconds 60\n\n",
            fleet.kinds().join(", "),
            fleet.kinds().first().map_or("", String::as_str),
        ));
    }
    let (offered, taken) = (running.registration.offered.len(), &running.registration.taken);
    if let Some(node) = taken.first() {
        text.push_str(&format!(
            "  {} of {} machines are not offered from here, as '{}', which the process with the runner '{}' offers.\n",
            taken.len(),
            offered + taken.len(),
            node.name,
            node.runner
        ));
        if running.machines.simulated().is_none() {
            text.push_str("  If that is another machine of the same name, start with --node-name NAME.\n");
        }
        text.push('\n');
    }
    let _ = std::io::stderr().write_all(text.as_bytes());
}
