//! What a publisher must never do to the gateway that listens to it.

use futures_util::FutureExt;

use super::residence::{Residence, Tokens};
use super::wire;
use super::zmtp::{Subscriber, greeting};

/// Messages of one input.
const MESSAGES_MAX: usize = 1_000;
/// What a publisher says first; the search begins behind it.
const READY: &[u8] = b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x03PUB";

/// A connection to a publisher from its first message on; then the same bytes as one batch.
pub fn kv_events(data: &[u8]) {
    let said = [greeting().as_slice(), READY, data].concat();
    let mut residence = Residence::default();
    let listened = async {
        let stream = tokio::io::join(said.as_slice(), tokio::io::sink());
        let Ok(mut subscriber) = Subscriber::open(stream).await else { return };
        for _ in 0..MESSAGES_MAX {
            let Ok(parts) = subscriber.next().await else { return };
            let Some((number, batch)) = wire::message(parts) else { return };
            let Some(batch) = wire::read(&batch) else { return };
            residence.take(number, batch);
            residence.check();
        }
    };
    assert!(listened.now_or_never().is_some(), "what is there is read without waiting");
    let mut alone = Residence::default();
    if let Some(batch) = wire::read(data) {
        alone.take(0, batch);
        alone.check();
    }
    let prompt = Tokens::new(vec![1, 2, 3, 4], "pepper".into());
    for mut residence in [residence, alone] {
        if let Some(shape) = residence.shape(true) {
            assert!(residence.cached(&prompt.beginnings(shape), shape).tokens <= 4, "no more of a prompt is there than it has");
        }
    }
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: kv_events);
}
