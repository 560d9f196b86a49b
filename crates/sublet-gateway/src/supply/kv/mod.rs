//! What replicas say of their own caches: vLLM and SGLang publish over ZeroMQ which blocks of tokens they keep.
//!
//! Each replica that publishes is followed by a task of its own, which connects again after failures. What it is told
//! is an index that requests are looked up in; without it, or while nobody tells anything, the gateway's own memory of
//! what it sent where is all there is.

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod residence;
mod wire;
mod zmtp;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use sublet_core::kv_events::KvEvents;
use tokio::io::BufReader;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::routing::Cached;
use residence::Residence;
pub(crate) use residence::Tokens;
use zmtp::Subscriber;

/// How long connecting and shaking hands may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Pauses between two tries, doubling from the first to the last.
const PAUSE_MIN: Duration = Duration::from_millis(250);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// A subscriber only listens: whether somebody is there is asked after so much silence, and so often.
const SILENCE_MAX: Duration = Duration::from_secs(30);
const ASKED_EVERY: Duration = Duration::from_secs(5);
/// Batches are read one at a time: what a hostile one becomes in memory is a hundred times its bytes.
static READING: Semaphore = Semaphore::const_new(1);

/// Follows one replica until it is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    residence: Arc<Mutex<Residence>>,
    task: JoinHandle<()>,
}

impl Follower {
    /// `None` where nothing can run beside the caller.
    pub fn start(replica: &str, endpoint: &KvEvents) -> Option<Self> {
        let runtime = tokio::runtime::Handle::try_current().ok()?;
        let residence = Arc::<Mutex<Residence>>::default();
        let task = runtime.spawn(follow(replica.to_owned(), endpoint.clone(), Arc::clone(&residence)));
        Some(Self { residence, task })
    }

    /// How many tokens it has in all.
    pub fn cached_tokens(&self) -> Option<u64> {
        lock(&self.residence).tokens()
    }

    /// How much of a prompt the replica says that it has. `is_salted` if it was told whose prompts are.
    pub fn cached(&self, prompt: &Tokens, is_salted: bool) -> Option<Cached> {
        let shape = lock(&self.residence).shape(is_salted)?;
        // Hashed while nobody waits for the lock.
        let beginnings = prompt.beginnings(shape);
        Some(lock(&self.residence).cached(&beginnings, shape))
    }

    /// The replica failed: what it said is not believed before it says something again.
    pub fn doubt(&self) {
        lock(&self.residence).doubt();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn lock(residence: &Mutex<Residence>) -> MutexGuard<'_, Residence> {
    residence.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(replica: String, endpoint: KvEvents, residence: Arc<Mutex<Residence>>) {
    let mut pause = PAUSE_MIN;
    loop {
        let connected = timeout(CONNECT_WAIT, connect(&endpoint)).await;
        let why = match connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into())) {
            Ok(mut subscriber) => {
                tracing::info!(replica, "a replica says what its cache has");
                let (why, taken) = read(&mut subscriber, &residence).await;
                if taken {
                    pause = PAUSE_MIN;
                }
                why
            }
            Err(error) => error,
        };
        lock(&residence).disconnected();
        tracing::warn!(replica, error = %why, "a replica does not say what its cache has");
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect(endpoint: &KvEvents) -> std::io::Result<Subscriber<BufReader<TcpStream>>> {
    let stream = TcpStream::connect((endpoint.host(), endpoint.port())).await?;
    SockRef::from(&stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE_MAX).with_interval(ASKED_EVERY))?;
    Subscriber::open(BufReader::new(stream)).await
}

/// Reads until that fails, and says whether anything was understood.
async fn read(subscriber: &mut Subscriber<BufReader<TcpStream>>, residence: &Mutex<Residence>) -> (std::io::Error, bool) {
    let mut taken = false;
    loop {
        let parts = match subscriber.next().await {
            Ok(parts) => parts,
            Err(error) => return (error, taken),
        };
        let Some((number, batch)) = wire::message(parts) else { return (wrong("a message of another shape"), taken) };
        let permit = READING.acquire().await;
        let read = tokio::task::spawn_blocking(move || wire::read(&batch)).await;
        drop(permit);
        let Ok(Some(batch)) = read else { return (wrong("a batch that is none"), taken) };
        lock(residence).take(number, batch);
        taken = true;
    }
}

fn wrong(what: &str) -> std::io::Error {
    std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned())
}
