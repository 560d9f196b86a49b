//! A store of objects that listens on loopback and speaks as much of S3's protocol as deliveries need. It computes every
//! signature again from what it received, keeps parts until an upload is completed, and can be told to fail.
//!
//! Deliberately absent: everything that is not writing whole objects.

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use ring::{digest, hmac};
use sublet_core::Clock;
use sublet_core::delivery::{Bucket, DeliveryPort};
use sublet_delivery::Deliveries;

use crate::asked::Asked;
use crate::secret::KnownSecrets;

pub const BUCKET: &str = "finance";
const ACCESS_KEY: &str = "AKIDTEST";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+secret";
const REGION: &str = "eu-test-1";
const SECRETS: KnownSecrets = KnownSecrets(&[("finance", SECRET), ("wrong", "another secret")]);
/// All parts but the last have at least so many bytes.
const PART_BYTES_MIN: usize = 5 * 1024 * 1024;

/// The real port, with a root for directories.
pub fn deliveries(root: PathBuf, clock: Arc<dyn Clock>) -> Arc<dyn DeliveryPort> {
    Arc::new(Deliveries::new(root, Arc::new(SECRETS), clock).expect("a port"))
}

/// How the next request to change something fails.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StoreTrouble {
    /// It does not.
    None,
    /// This status with this code; nothing is done.
    Refuse(u16, &'static str),
    /// Done, and the answer is lost.
    LoseAnswer,
    /// Status 200 and an error in the body; nothing is done.
    LateError,
}

#[derive(Default)]
struct Upload {
    key: String,
    parts: BTreeMap<usize, Vec<u8>>,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Vec<u8>>,
    uploads: BTreeMap<String, Upload>,
    troubles: VecDeque<StoreTrouble>,
    seen: Vec<String>,
    uploads_begun: usize,
}

/// The server. It listens until the test's process ends.
#[derive(Clone)]
pub struct FakeS3 {
    state: Arc<Mutex<State>>,
    address: String,
}

type Said = (u16, Vec<(&'static str, String)>, String);

fn xml(body: String) -> Said {
    (200, Vec::new(), format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{body}"))
}

fn error(status: u16, code: &str) -> Said {
    (status, Vec::new(), format!("<Error><Code>{code}</Code><Message>you shall not</Message></Error>"))
}

impl FakeS3 {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port of loopback");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let fake = Self { state: Arc::default(), address };
        let serving = fake.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                thread::spawn(move || serving.serve(stream));
            }
        });
        fake
    }

    /// Its bucket, with a prefix.
    pub fn bucket(&self, prefix: &str) -> Bucket {
        Bucket {
            endpoint: self.address.parse().expect("an address"),
            region: REGION.parse().expect("a region"),
            bucket: BUCKET.parse().expect("a name"),
            prefix: prefix.parse().expect("a folder"),
            access_key_id: ACCESS_KEY.parse().expect("an id"),
            secret: "finance".parse().expect("a name"),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked with it")
    }

    /// The next request to change something fails in this way; those after it in the ways that are said afterwards.
    pub fn fail_next(&self, trouble: StoreTrouble) {
        self.state().troubles.push_back(trouble);
    }
    pub fn object(&self, key: &str) -> Option<Vec<u8>> {
        self.state().objects.get(key).cloned()
    }
    pub fn keys(&self) -> Vec<String> {
        self.state().objects.keys().cloned().collect()
    }
    /// Uploads that were neither completed nor aborted.
    pub fn unfinished(&self) -> usize {
        self.state().uploads.len()
    }
    /// Every request so far, as `METHOD path?query`.
    pub fn seen(&self) -> Vec<String> {
        self.state().seen.clone()
    }

    fn serve(&self, stream: TcpStream) {
        let mut reader = BufReader::new(stream);
        while let Some(asked) = Asked::read(&mut reader) {
            let mut state = self.state();
            state.seen.push(format!("{} {}?{}", asked.method, asked.path, asked.query));
            let trouble = if asked.method == "GET" { None } else { state.troubles.pop_front() };
            let (status, headers, body) = match (check(&asked), trouble) {
                (Err(code), _) => error(403, code),
                (Ok(()), Some(StoreTrouble::Refuse(status, code))) => error(status, code),
                (Ok(()), Some(StoreTrouble::LateError)) => xml("<Error><Code>InternalError</Code></Error>".to_owned()),
                (Ok(()), Some(StoreTrouble::LoseAnswer | StoreTrouble::None) | None) => state.answer(&asked),
            };
            drop(state);
            if trouble == Some(StoreTrouble::LoseAnswer) {
                return;
            }
            let mut head = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n", body.len());
            for (name, value) in headers {
                head.push_str(&format!("{name}: {value}\r\n"));
            }
            let stream = reader.get_mut();
            if stream.write_all(format!("{head}\r\n{body}").as_bytes()).is_err() {
                return;
            }
        }
    }
}

impl State {
    fn answer(&mut self, asked: &Asked) -> Said {
        let Some(key) = asked.path.strip_prefix(&format!("/{BUCKET}")) else { return error(404, "NoSuchBucket") };
        let key = key.trim_start_matches('/').to_owned();
        match (asked.method.as_str(), asked.query("uploads"), asked.query("uploadId"), asked.query("partNumber")) {
            ("GET", Some(_), None, None) if key.is_empty() => self.list(&asked.query("prefix").unwrap_or_default()),
            ("POST", Some(_), None, None) => {
                self.uploads_begun += 1;
                let id = format!("upload/{}+=", self.uploads_begun);
                self.uploads.insert(id.clone(), Upload { key, parts: BTreeMap::new() });
                xml(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
            }
            ("PUT", None, Some(id), Some(number)) => {
                let number: usize = number.parse().expect("a number");
                let Some(upload) = self.uploads.get_mut(&id).filter(|upload| upload.key == key) else {
                    return error(404, "NoSuchUpload");
                };
                upload.parts.insert(number, asked.body.clone());
                (200, vec![("ETag", etag(&asked.body))], String::new())
            }
            ("POST", None, Some(id), None) => self.complete(&key, &id, &asked.body),
            ("DELETE", None, Some(id), None) => match self.uploads.remove(&id) {
                Some(_) => (204, Vec::new(), String::new()),
                None => error(404, "NoSuchUpload"),
            },
            _ => error(501, "NotImplemented"),
        }
    }

    fn list(&self, prefix: &str) -> Said {
        let uploads = self.uploads.iter().filter(|(_, upload)| upload.key.starts_with(prefix));
        let listed: String =
            uploads.map(|(id, upload)| format!("<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>", upload.key)).collect();
        xml(format!("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated>{listed}</ListMultipartUploadsResult>"))
    }

    fn complete(&mut self, key: &str, id: &str, body: &[u8]) -> Said {
        let Some(upload) = self.uploads.get(id).filter(|upload| upload.key == key) else { return error(404, "NoSuchUpload") };
        let parts: Vec<&Vec<u8>> = upload.parts.values().collect();
        let named: String = upload
            .parts
            .iter()
            .map(|(number, part)| {
                let etag = etag(part).replace('"', "&quot;");
                format!("<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>")
            })
            .collect();
        if !String::from_utf8_lossy(body).contains(&named) || upload.parts.keys().copied().ne(1..=parts.len()) {
            return error(400, "InvalidPart");
        }
        if parts.iter().rev().skip(1).any(|part| part.len() < PART_BYTES_MIN) {
            return error(400, "EntityTooSmall");
        }
        let whole: Vec<u8> = parts.into_iter().flatten().copied().collect();
        self.uploads.remove(id);
        self.objects.insert(key.to_owned(), whole);
        xml("<CompleteMultipartUploadResult><ETag>&quot;whole&quot;</ETag></CompleteMultipartUploadResult>".to_owned())
    }
}

fn etag(body: &[u8]) -> String {
    format!("\"{}\"", sha256(body))
}

/// Computes the signature again, of what came.
fn check(asked: &Asked) -> Result<(), &'static str> {
    if asked.header("x-amz-content-sha256") != sha256(&asked.body) {
        return Err("XAmzContentSHA256Mismatch");
    }
    let authorization = asked.header("authorization");
    let part = |name: &str| {
        let start = authorization.find(name).map_or(authorization.len(), |at| at + name.len());
        authorization[start..].split(',').next().unwrap_or_default()
    };
    let (credential, names, signature) = (part("Credential="), part("SignedHeaders="), part("Signature="));
    let Some((ACCESS_KEY, scope)) = credential.split_once('/') else { return Err("InvalidAccessKeyId") };
    let mut query: Vec<&str> = asked.query.split('&').filter(|pair| !pair.is_empty()).collect();
    query.sort_unstable();
    let headers: String = names.split(';').map(|name| format!("{name}:{}\n", asked.header(name))).collect();
    let content = asked.header("x-amz-content-sha256");
    let canonical = [asked.method.as_str(), &asked.path, &query.join("&"), &headers, names, content].join("\n");
    let date = asked.header("x-amz-date");
    let text = ["AWS4-HMAC-SHA256", date, scope, &sha256(canonical.as_bytes())].join("\n");
    let mut key = format!("AWS4{SECRET}").into_bytes();
    for word in scope.split('/') {
        key = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), word.as_bytes()).as_ref().to_vec();
    }
    let expected = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &key), text.as_bytes());
    let names_all = ["host", "x-amz-content-sha256", "x-amz-date"].iter().all(|name| names.split(';').any(|known| known == *name));
    let right = names_all
        && scope == format!("{}/{REGION}/s3/aws4_request", date.get(..8).unwrap_or_default())
        && hexadecimal(expected.as_ref()) == signature;
    if right { Ok(()) } else { Err("SignatureDoesNotMatch") }
}

fn sha256(bytes: &[u8]) -> String {
    hexadecimal(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
