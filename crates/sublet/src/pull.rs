//! `sublet models pull hf:OWNER/NAME`: brings a model from a Hugging Face hub, ready to import.
//!
//! Everything comes from one commit, into a staging directory that a later pull goes on with. The
//! sizes and, where the hub names them, the SHA-256 of the files are checked before anything is
//! imported. One thread talks to the hub; the caller watches it, so that a silent hub, or one that
//! sends more than it said, ends the command.
//!
//! Deliberately absent: reading the environment (the binary passes [`Hub`]), the importing itself,
//! other places to pull from, and stopping the thread (the command ends right after a failure).

use std::io::{Read, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};

use hf_hub::api::Progress;
use hf_hub::api::sync::{Api, ApiBuilder, ApiError};
use hf_hub::{Cache, Repo, RepoType};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use sublet_core::{DurationMs, Error, ErrorCode, Result};

use crate::data_directory;

/// The hub when `HF_ENDPOINT` names none.
const ENDPOINT_DEFAULT: &str = "https://huggingface.co";
/// How long the hub may be silent.
const PATIENCE: DurationMs = DurationMs::from_seconds(60);
/// Most bytes of one pulled model: one terabyte.
const MODEL_BYTES_MAX: u64 = 1_000_000_000_000;
/// Most bytes of the hub's list of files.
const LISTING_BYTES_MAX: u64 = 16 << 20;
/// Most files of one pulled model.
const MODEL_FILES_MAX: usize = 1_000;
/// Unread messages between the thread and its watcher.
const NEWS_MAX: usize = 64;
/// Longest part of a name.
const NAME_BYTES_MAX: usize = 200;
/// How much of a file is hashed at a time, in bytes.
const HASH_BYTES: usize = 1 << 20;

/// Files beside the weights; the first two must be there.
const COMPANIONS: [&str; 6] = [
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
];
const COMPANIONS_NEEDED: usize = 2;
const WEIGHTS: &str = "model.safetensors";
const WEIGHTS_INDEX: &str = "model.safetensors.index.json";

/// A hub and what opens it.
#[derive(Clone)]
pub struct Hub {
    endpoint: String,
    token: Option<String>,
    patience: DurationMs,
}

impl Hub {
    /// From the values of `HF_ENDPOINT` and `HF_TOKEN`.
    pub fn new(endpoint: Option<String>, token: Option<String>) -> Result<Self> {
        let endpoint = endpoint.unwrap_or_else(|| ENDPOINT_DEFAULT.to_owned());
        if !(endpoint.starts_with("https://") || endpoint.starts_with("http://")) {
            return Err(Error::new(ErrorCode::Usage, format!("HF_ENDPOINT '{endpoint}' is not an http address")));
        }
        Ok(Self { endpoint: endpoint.trim_end_matches('/').to_owned(), token, patience: PATIENCE })
    }

    fn unreachable(&self, why: &dyn std::fmt::Display) -> Error {
        Error::new(ErrorCode::HubUnreachable, format!("the model hub at {} cannot be used: {why}", self.endpoint))
            .alternative("check the network, HF_ENDPOINT and the proxy, and repeat: what arrived is kept")
            .alternative("copy the model's files to the server's machine and use 'sublet models import PATH'")
    }
}

/// What to pull: a model, its revision, and perhaps one file of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wanted {
    owner: String,
    name: String,
    revision: String,
    file: Option<String>,
}

impl Wanted {
    /// Reads `hf:OWNER/NAME` and the options beside it.
    pub fn parse(source: &str, revision: Option<&str>, file: Option<&str>) -> Result<Self> {
        let usage = |what: String| Err(Error::new(ErrorCode::Usage, what).alternative("sublet models pull hf:OWNER/NAME"));
        let Some((owner, name)) = source.strip_prefix("hf:").and_then(|path| path.split_once('/')) else {
            return usage(format!("'{source}' does not name a model of a hub"));
        };
        let revision = revision.unwrap_or("main");
        let parts = [owner, name].into_iter().chain(revision.split('/')).chain(file);
        if let Some(bad) = parts.into_iter().find(|part| !is_plain(part)) {
            return usage(format!("'{bad}' cannot be part of a model's address"));
        }
        if file.is_some_and(|file| !file.ends_with(".gguf")) {
            return usage("--file names a .gguf file".to_owned());
        }
        let file = file.map(str::to_owned);
        Ok(Self { owner: owner.to_owned(), name: name.to_owned(), revision: revision.to_owned(), file })
    }

    /// The name the model gets when none is given.
    pub fn name(&self) -> &str {
        &self.name
    }

    fn repository(&self, revision: &str) -> Repo {
        Repo::with_revision(format!("{}/{}", self.owner, self.name), RepoType::Model, revision.to_owned())
    }
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{} ({})", self.owner, self.name, self.revision)
    }
}

/// True for a name that stays inside its directory and its address.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= NAME_BYTES_MAX
        && !text.starts_with('.')
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

/// Where a pull keeps what arrived, under the data directory. One file of a model has a place of
/// its own: a directory with several cannot be imported.
pub fn staging(data_dir: &Path, wanted: &Wanted) -> PathBuf {
    let parts = [Some(&wanted.owner), Some(&wanted.name), wanted.file.as_ref()];
    let parts: Vec<&str> = parts.into_iter().flatten().map(String::as_str).collect();
    data_dir.join("pull").join(parts.join("--"))
}

/// What the thread tells its watcher.
enum News {
    File {
        name: String,
        bytes: u64,
    },
    Bytes(u64),
    /// Work without bytes, such as hashing.
    Alive,
    Done(Result<PathBuf>),
}

/// Brings the files into `staging` and returns the directory to import.
pub fn fetch(hub: &Hub, wanted: &Wanted, staging: &Path, progress: &mut dyn Write) -> Result<PathBuf> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(staging)
        .map_err(|error| data_directory::failure(staging, &error))?;
    let (sender, news) = sync_channel(NEWS_MAX);
    let worker = Worker { hub: hub.clone(), wanted: wanted.clone(), staging: staging.to_owned(), news: sender };
    std::thread::Builder::new()
        .name("pull".to_owned())
        .spawn(move || {
            let done = worker.run();
            // Nobody listens any more only after the watcher has given up.
            let _ = worker.news.send(News::Done(done));
        })
        .map_err(|error| Error::internal(format!("a thread could not start: {error}")))?;
    watch(hub, &news, progress)
}

/// Follows the thread until it is done, is silent for too long, or receives too much.
fn watch(hub: &Hub, news: &Receiver<News>, progress: &mut dyn Write) -> Result<PathBuf> {
    let mut meter = Meter::default();
    loop {
        let line = match news.recv_timeout(hub.patience.to_std()) {
            Ok(News::Done(done)) => return done,
            Ok(News::File { name, bytes }) => meter.begin(name, bytes)?,
            Ok(News::Bytes(bytes)) => meter.add(bytes).map_err(|what| hub.unreachable(&what))?,
            Ok(News::Alive) => None,
            Err(RecvTimeoutError::Timeout) => {
                return Err(hub.unreachable(&format!("nothing arrived for {} s", hub.patience.to_std().as_secs())));
            }
            Err(RecvTimeoutError::Disconnected) => return Err(Error::internal("the thread that pulls has ended")),
        };
        if let Some(line) = line {
            // Progress nobody can read is no reason to stop.
            let _ = writeln!(progress, "{line}");
        }
    }
}

/// Counts what arrives.
#[derive(Default)]
struct Meter {
    name: String,
    bytes: u64,
    received: u64,
    tenths: u64,
    total: u64,
}

impl Meter {
    fn begin(&mut self, name: String, bytes: u64) -> Result<Option<String>> {
        // The client announces a file twice.
        if name != self.name {
            self.total = self.total.saturating_add(bytes);
        }
        if self.total > MODEL_BYTES_MAX {
            return Err(too_large(self.total));
        }
        *self = Self { name, bytes, total: self.total, ..Self::default() };
        Ok(Some(format!("{}: {} bytes", self.name, self.bytes)))
    }

    fn add(&mut self, bytes: u64) -> std::result::Result<Option<String>, String> {
        self.received = self.received.saturating_add(bytes);
        if self.received > self.bytes {
            return Err(format!("it sends more than the {} bytes of {}", self.bytes, self.name));
        }
        let tenths = self.received.saturating_mul(10).checked_div(self.bytes).unwrap_or(10);
        if tenths == self.tenths {
            return Ok(None);
        }
        self.tenths = tenths;
        Ok(Some(format!("{}: {} % of {} bytes", self.name, tenths.saturating_mul(10), self.bytes)))
    }
}

fn too_large(bytes: u64) -> Error {
    Error::new(ErrorCode::ModelFileInvalid, format!("the model has {bytes} bytes, more than the {MODEL_BYTES_MAX} that are pulled"))
}

/// The hub's description of a revision, as far as it is used.
#[derive(Deserialize)]
struct Listing {
    sha: String,
    siblings: Vec<Sibling>,
}

#[derive(Deserialize)]
struct Sibling {
    rfilename: String,
    size: Option<u64>,
    lfs: Option<LargeFile>,
}

#[derive(Deserialize)]
struct LargeFile {
    sha256: Option<String>,
}

/// The thread that talks to the hub.
struct Worker {
    hub: Hub,
    wanted: Wanted,
    staging: PathBuf,
    news: SyncSender<News>,
}

impl Worker {
    fn run(&self) -> Result<PathBuf> {
        let api = ApiBuilder::from_cache(Cache::new(self.staging.clone()))
            .with_endpoint(self.hub.endpoint.clone())
            .with_token(self.hub.token.clone())
            .with_progress(false)
            .build()
            .map_err(|error| self.failed(&error))?;
        let listing = self.listing(&api)?;
        let chosen = choose(&listing, &self.wanted)?;
        let mut directory = None;
        for sibling in &chosen {
            let path = self.download(&api, &listing.sha, sibling)?;
            self.check(&path, sibling)?;
            directory = path.parent().map(Path::to_owned);
        }
        directory.ok_or_else(|| Error::internal("no file was chosen"))
    }

    fn listing(&self, api: &Api) -> Result<Listing> {
        let repository = api.repo(self.wanted.repository(&self.wanted.revision));
        let answer = repository.info_request().query("blobs", "true").call();
        let mut answer = answer.map_err(|error| self.failed(&Box::new(error).into()))?;
        let text = answer.body_mut().with_config().limit(LISTING_BYTES_MAX).read_to_string();
        let text = text.map_err(|error| self.failed(&Box::new(error).into()))?;
        let listing: Listing = serde_json::from_str(&text)
            .map_err(|error| self.hub.unreachable(&format!("its list of files is not understood: {error}")))?;
        if !is_plain(&listing.sha) {
            return Err(self.hub.unreachable(&"it names no commit"));
        }
        Ok(listing)
    }

    /// One file, from the staging directory if it is there already.
    fn download(&self, api: &Api, commit: &str, sibling: &Sibling) -> Result<PathBuf> {
        let repository = self.wanted.repository(commit);
        if let Some(path) = Cache::new(self.staging.clone()).repo(repository.clone()).get(&sibling.rfilename) {
            return Ok(path);
        }
        let repository = api.repo(repository);
        // The client makes paths of these two; a name from outside must not lead out of the directory.
        let about = api.metadata(&repository.url(&sibling.rfilename)).map_err(|error| self.failed(&error))?;
        if !is_plain(about.etag()) || about.commit_hash() != commit {
            return Err(self.hub.unreachable(&format!("it answers for {} with another commit or a bad tag", sibling.rfilename)));
        }
        repository.download_with_progress(&sibling.rfilename, Teller(self.news.clone())).map_err(|error| {
            if cannot_go_on(&error) {
                let part = Cache::new(self.staging.clone()).repo(self.wanted.repository(commit)).blob_path(about.etag());
                // If it is not there, the repeat begins anew in any case.
                let _ = std::fs::remove_file(part.with_extension("part"));
            }
            self.failed(&error)
        })
    }

    /// A file of another size or content than the hub said is removed, so that a repeat brings it anew.
    fn check(&self, path: &Path, sibling: &Sibling) -> Result<()> {
        let failed = |error: std::io::Error| data_directory::failure(path, &error);
        let blob = std::fs::canonicalize(path).map_err(failed)?;
        let size_differs = sibling.size.is_some_and(|size| std::fs::metadata(&blob).map_or(true, |found| found.len() != size));
        let expected = sibling.lfs.as_ref().and_then(|lfs| lfs.sha256.as_ref());
        let hash_differs = match expected {
            Some(expected) if !size_differs => !self.sha256(&blob).map_err(failed)?.eq_ignore_ascii_case(expected),
            Some(_) | None => false,
        };
        if !size_differs && !hash_differs {
            return Ok(());
        }
        std::fs::remove_file(path).and_then(|()| std::fs::remove_file(&blob)).map_err(failed)?;
        Err(self.hub.unreachable(&format!("{} arrived damaged and was removed", sibling.rfilename)))
    }

    fn sha256(&self, path: &Path) -> std::io::Result<String> {
        let mut file = std::fs::File::open(path)?;
        let mut hasher = Sha256::new();
        let mut buffer = vec![0; HASH_BYTES];
        loop {
            let read = file.read(&mut buffer)?;
            let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else { break };
            hasher.update(bytes);
            // Without a watcher there is nobody to keep waiting.
            let _ = self.news.send(News::Alive);
        }
        Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// What a failure of the client means.
    fn failed(&self, error: &ApiError) -> Error {
        match error {
            ApiError::RequestError(request) => match **request {
                ureq::Error::StatusCode(status @ (401 | 403 | 404)) => Error::new(
                    ErrorCode::ModelNotFound,
                    format!("the model hub at {} answers {status} for {}", self.hub.endpoint, self.wanted),
                )
                .alternative("check owner, name and revision")
                .alternative("set HF_TOKEN if the model is private, or accept its terms on the hub's page"),
                _ => self.hub.unreachable(request),
            },
            ApiError::IoError(error) if is_local(error) => data_directory::failure(&self.staging, error),
            other => self.hub.unreachable(other),
        }
    }
}

/// True if what arrived before is too much to go on from.
fn cannot_go_on(error: &ApiError) -> bool {
    match error {
        ApiError::InvalidResume => true,
        ApiError::RequestError(request) => matches!(**request, ureq::Error::StatusCode(416)),
        _ => false,
    }
}

/// True for failures of this machine's disk, which share a type with those of the connection.
fn is_local(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(
        error.kind(),
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem
    )
}

/// Hands the client's progress on.
struct Teller(SyncSender<News>);

impl Teller {
    fn tell(&self, news: News) {
        // Without a watcher there is nobody to tell.
        let _ = self.0.send(news);
    }
}

impl Progress for Teller {
    fn init(&mut self, size: usize, filename: &str) {
        self.tell(News::File { name: filename.to_owned(), bytes: u64::try_from(size).unwrap_or(u64::MAX) });
    }
    fn update(&mut self, size: usize) {
        self.tell(News::Bytes(u64::try_from(size).unwrap_or(u64::MAX)));
    }
    fn finish(&mut self) {}
}

/// The files that make the model: one named file, or the configuration and all weights.
fn choose<'a>(listing: &'a Listing, wanted: &Wanted) -> Result<Vec<&'a Sibling>> {
    let find = |name: &str| listing.siblings.iter().find(|sibling| sibling.rfilename == name);
    let missing = |name: &str| {
        let problem = Error::new(ErrorCode::ModelFileInvalid, format!("{wanted} has no {name}"));
        gguf_files(listing).into_iter().fold(problem, |error, file| error.alternative(format!("--file {file}")))
    };
    if let Some(file) = &wanted.file {
        return Ok(vec![find(file).ok_or_else(|| missing(file))?]);
    }
    if let Some(name) = COMPANIONS.iter().take(COMPANIONS_NEEDED).find(|name| find(name).is_none()) {
        return Err(missing(name));
    }
    let mut chosen: Vec<&Sibling> = COMPANIONS.iter().filter_map(|name| find(name)).collect();
    match (find(WEIGHTS), find(WEIGHTS_INDEX)) {
        (Some(weights), _) => chosen.push(weights),
        (None, Some(index)) => {
            chosen.push(index);
            chosen.extend(listing.siblings.iter().filter(|sibling| is_shard(&sibling.rfilename)));
        }
        (None, None) => return Err(missing(WEIGHTS)),
    }
    let total = chosen.iter().filter_map(|sibling| sibling.size).fold(0, u64::saturating_add);
    if total > MODEL_BYTES_MAX {
        return Err(too_large(total));
    }
    if chosen.len() > MODEL_FILES_MAX {
        return Err(Error::new(ErrorCode::ModelFileInvalid, format!("{wanted} has more than {MODEL_FILES_MAX} files")));
    }
    Ok(chosen)
}

fn is_shard(name: &str) -> bool {
    is_plain(name) && name.starts_with("model-") && name.ends_with(".safetensors")
}

/// The first few files that could be named instead.
fn gguf_files(listing: &Listing) -> Vec<&str> {
    let names = listing.siblings.iter().map(|sibling| sibling.rfilename.as_str());
    names.filter(|name| is_plain(name) && name.ends_with(".gguf")).take(5).collect()
}

#[cfg(test)]
mod tests;
