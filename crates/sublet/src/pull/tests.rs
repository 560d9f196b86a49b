//! Pulls from a small hub on loopback that speaks what the hub's client needs.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use super::*;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_test";

/// Serves one model until it is dropped.
struct MockHub {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<()>>,
}

/// What is served, and which lies are told.
#[derive(Clone, Default)]
struct Served {
    files: BTreeMap<String, Vec<u8>>,
    /// The listing names this hash for the weights, whatever they are.
    wrong_hash: Option<String>,
    /// The tag of every small file.
    tag: Option<String>,
}

impl MockHub {
    fn start(served: Served) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let Some(request) = Request::read(&stream) else { break };
                seen.lock().unwrap().push(request.path.clone());
                let answer = served.answer(&request, address);
                stream.write_all(&answer).unwrap();
            }
        });
        Self { address, requests, thread: Some(thread) }
    }
    fn hub(&self) -> Hub {
        Hub::new(Some(format!("http://{}/", self.address)), Some(TOKEN.to_owned())).unwrap()
    }
    fn requests_for(&self, end: &str) -> usize {
        self.requests.lock().unwrap().iter().filter(|path| path.ends_with(end)).count()
    }
}

impl Drop for MockHub {
    fn drop(&mut self) {
        // A connection that asks nothing ends the thread.
        drop(TcpStream::connect(self.address));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Request {
    path: String,
    first: usize,
    last: Option<usize>,
    authorized: bool,
}

impl Request {
    /// `None` for a connection without a request.
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines().map_while(|line| line.ok()).take_while(|line| !line.is_empty());
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let headers: BTreeMap<String, String> =
            lines.filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_lowercase(), value.to_owned()))).collect();
        let range = headers.get("range").and_then(|range| range.strip_prefix("bytes=")).unwrap_or("0-");
        let (first, last) = range.split_once('-').unwrap();
        let authorized = headers.get("authorization").is_some_and(|value| *value == format!("Bearer {TOKEN}"));
        Some(Self { path, first: first.parse().unwrap(), last: last.parse().ok(), authorized })
    }
}

impl Served {
    fn answer(&self, request: &Request, address: SocketAddr) -> Vec<u8> {
        if !request.authorized {
            return answer("401 Unauthorized", &[], b"");
        }
        if request.path == "/api/models/acme/tiny/revision/main?blobs=true" {
            return answer("200 OK", &[], self.listing().as_bytes());
        }
        let resolve = format!("/acme/tiny/resolve/{COMMIT}/");
        let commit = ("x-repo-commit", COMMIT.to_owned());
        if let Some(name) = request.path.strip_prefix(&resolve)
            && let Some(bytes) = self.files.get(name)
        {
            // Large files are elsewhere, as on the real hub.
            if name.ends_with(".safetensors") || name.ends_with(".gguf") {
                let location = ("location", format!("http://{address}/large/{name}"));
                return answer("302 Found", &[commit, location, ("x-linked-etag", format!("\"{}\"", sha256(bytes)))], b"");
            }
            let tag = self.tag.clone().unwrap_or_else(|| format!("tag-{name}"));
            return part(bytes, request, &[commit, ("etag", format!("\"{tag}\""))]);
        }
        match request.path.strip_prefix("/large/").and_then(|name| self.files.get(name)) {
            Some(bytes) => part(bytes, request, &[]),
            None => answer("404 Not Found", &[], b""),
        }
    }
    fn listing(&self) -> String {
        let siblings: Vec<serde_json::Value> = self
            .files
            .iter()
            .map(|(name, bytes)| {
                let hash = self.wrong_hash.clone().unwrap_or_else(|| sha256(bytes));
                let lfs = name.ends_with(".safetensors").then(|| serde_json::json!({ "sha256": hash }));
                serde_json::json!({ "rfilename": name, "size": bytes.len(), "lfs": lfs })
            })
            .collect();
        serde_json::json!({ "sha": COMMIT, "siblings": siblings }).to_string()
    }
}

fn part(bytes: &[u8], request: &Request, headers: &[(&str, String)]) -> Vec<u8> {
    let end = request.last.map_or(bytes.len(), |last| last + 1);
    let range = ("content-range", format!("bytes {}-{}/{}", request.first, end - 1, bytes.len()));
    let headers: Vec<_> = headers.iter().cloned().chain([range]).collect();
    answer("206 Partial Content", &headers, &bytes[request.first..end])
}

fn answer(status: &str, headers: &[(&str, String)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    [text.as_bytes(), body].concat()
}

fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Bytes that are no text and longer than any buffer on the way.
fn noise(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|index| (index.wrapping_mul(31) ^ (index >> 7)).to_le_bytes()[0] ^ seed).collect()
}

fn model(weights: &[&str]) -> Served {
    let small = ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "README.md"];
    let small = small.iter().map(|name| (name.to_string(), format!("{{\"{name}\":1}}").into_bytes()));
    let large = weights.iter().zip(1..).map(|(name, seed)| (name.to_string(), noise(seed, 300_000)));
    Served { files: small.chain(large).collect(), ..Served::default() }
}

fn wanted() -> Wanted {
    Wanted::parse("hf:acme/tiny", None, None).unwrap()
}

/// The names and contents of a directory of files.
fn contents(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.map(|entry| (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())).collect()
}

#[test]
fn every_file_of_the_model_arrives_byte_for_byte_and_nothing_else() {
    for weights in [
        &["model.safetensors"][..],
        &["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"],
    ] {
        let served = model(weights);
        let mock = MockHub::start(served.clone());
        let temporary = tempfile::tempdir().unwrap();
        let mut progress = Vec::new();
        let directory = fetch(&mock.hub(), &wanted(), &temporary.path().join("pull"), &mut progress).unwrap();
        let mut expected = served.files.clone();
        expected.remove("README.md");
        assert!(contents(&directory) == expected, "{weights:?}");
        let progress = String::from_utf8(progress).unwrap();
        assert!(progress.contains(&format!("{}: 100 % of 300000 bytes", weights[0])), "{progress}");
    }
}

#[test]
fn one_gguf_file_is_a_model() {
    let served = model(&["tiny-q8.gguf", "tiny-q4.gguf"]);
    let mock = MockHub::start(served.clone());
    let temporary = tempfile::tempdir().unwrap();
    let error = fetch(&mock.hub(), &wanted(), temporary.path(), &mut Vec::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::ModelFileInvalid);
    assert_eq!(error.alternatives(), ["--file tiny-q4.gguf", "--file tiny-q8.gguf"]);
    let one = Wanted::parse("hf:acme/tiny", None, Some("tiny-q8.gguf")).unwrap();
    let staging = staging(temporary.path(), &one);
    assert_ne!(staging, super::staging(temporary.path(), &wanted()));
    let directory = fetch(&mock.hub(), &one, &staging, &mut Vec::new()).unwrap();
    assert!(contents(&directory) == BTreeMap::from([("tiny-q8.gguf".to_owned(), served.files["tiny-q8.gguf"].clone())]));
}

#[test]
fn a_repeat_brings_only_what_is_missing_and_goes_on_where_it_broke_off() {
    let served = model(&["model.safetensors"]);
    let weights = &served.files["model.safetensors"];
    let mock = MockHub::start(served.clone());
    let temporary = tempfile::tempdir().unwrap();
    let directory = fetch(&mock.hub(), &wanted(), temporary.path(), &mut Vec::new()).unwrap();
    // As if the connection had broken after 100,000 bytes of the weights.
    let blobs = directory.parent().unwrap().parent().unwrap().join("blobs");
    std::fs::remove_file(directory.join("model.safetensors")).unwrap();
    std::fs::remove_file(blobs.join(sha256(weights))).unwrap();
    std::fs::write(blobs.join(sha256(weights)).with_extension("part"), &weights[..100_000]).unwrap();
    let mut progress = Vec::new();
    fetch(&mock.hub(), &wanted(), temporary.path(), &mut progress).unwrap();
    assert!(std::fs::read(directory.join("model.safetensors")).unwrap() == *weights);
    assert!(!String::from_utf8(progress).unwrap().contains("model.safetensors: 10 %"));
    // Two files end so; each was asked for its size twice, by us and by the client, and for its content once.
    assert_eq!(mock.requests_for("config.json"), 6);
}

#[test]
fn a_damaged_file_is_refused_and_not_kept() {
    let mock = MockHub::start(Served { wrong_hash: Some("0".repeat(64)), ..model(&["model.safetensors"]) });
    let temporary = tempfile::tempdir().unwrap();
    for _ in 0..2 {
        let error = fetch(&mock.hub(), &wanted(), temporary.path(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::HubUnreachable);
        assert!(error.message().ends_with("model.safetensors arrived damaged and was removed"), "{error}");
    }
}

#[test]
fn a_tag_that_leads_out_of_the_directory_is_refused() {
    let mock = MockHub::start(Served { tag: Some("../../../../outside".to_owned()), ..model(&["model.safetensors"]) });
    let temporary = tempfile::tempdir().unwrap();
    let error = fetch(&mock.hub(), &wanted(), &temporary.path().join("a/b/c"), &mut Vec::new()).unwrap_err();
    assert_eq!(error.code(), ErrorCode::HubUnreachable);
    assert!(contents(&temporary.path().join("a/b/c")).is_empty());
}

#[test]
fn an_unreachable_hub_says_what_to_do() {
    // Nothing listens on a port that was just given back.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let hub = Hub::new(Some(format!("http://{address}")), None).unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let error = fetch(&hub, &wanted(), temporary.path(), &mut Vec::new()).unwrap_err();
    assert_eq!((error.code(), error.code().exit_status()), (ErrorCode::HubUnreachable, 9));
    assert!(error.message().contains(&address.to_string()), "{error}");
    assert!(error.alternatives().iter().any(|what| what.contains("sublet models import PATH")));
}

#[test]
fn an_unknown_model_and_a_missing_token_are_not_called_unreachable() {
    let mock = MockHub::start(model(&["model.safetensors"]));
    let temporary = tempfile::tempdir().unwrap();
    let other = Wanted::parse("hf:acme/other", None, None).unwrap();
    let stranger = Hub { token: None, ..mock.hub() };
    for (hub, model, status) in [(mock.hub(), other, "404"), (stranger, wanted(), "401")] {
        let error = fetch(&hub, &model, temporary.path(), &mut Vec::new()).unwrap_err();
        assert_eq!(error.code(), ErrorCode::ModelNotFound);
        assert!(error.message().contains(status) && error.alternatives().iter().any(|what| what.contains("HF_TOKEN")), "{error}");
    }
}

#[test]
fn silence_and_more_than_was_announced_end_a_pull() {
    let hub = Hub { patience: DurationMs::from_millis(0), ..Hub::new(None, None).unwrap() };
    let (_sender, silent) = sync_channel(NEWS_MAX);
    let error = watch(&hub, &silent, &mut Vec::new()).unwrap_err();
    assert!(error.message().contains("nothing arrived"), "{error}");
    let (sender, news) = sync_channel(NEWS_MAX);
    for bytes in [News::File { name: "a".to_owned(), bytes: 10 }, News::Bytes(10), News::Bytes(1)] {
        sender.send(bytes).unwrap();
    }
    let error = watch(&hub, &news, &mut Vec::new()).unwrap_err();
    assert!(error.message().ends_with("it sends more than the 10 bytes of a"), "{error}");
    let (sender, news) = sync_channel(NEWS_MAX);
    sender.send(News::File { name: "a".to_owned(), bytes: MODEL_BYTES_MAX + 1 }).unwrap();
    assert_eq!(watch(&hub, &news, &mut Vec::new()).unwrap_err().code(), ErrorCode::ModelFileInvalid);
}

#[test]
fn an_address_names_owner_and_model_and_stays_inside() {
    let good = Wanted::parse("hf:acme/Tiny-1.5B", Some("refs/pr/1"), Some("a.gguf")).unwrap();
    assert_eq!((good.name(), good.to_string().as_str()), ("Tiny-1.5B", "acme/Tiny-1.5B (refs/pr/1)"));
    for (source, revision, file) in [
        ("acme/tiny", None, None),
        ("hf:tiny", None, None),
        ("hf:acme/a/b", None, None),
        ("hf:../tiny", None, None),
        ("hf:acme/", None, None),
        ("hf:acme/tiny", Some("../x"), None),
        ("hf:acme/tiny", Some("a?b"), None),
        ("hf:acme/tiny", None, Some("model.bin")),
        ("hf:acme/tiny", None, Some("dir/a.gguf")),
    ] {
        let error = Wanted::parse(source, revision, file).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Usage, "{source} {revision:?} {file:?}");
    }
}
