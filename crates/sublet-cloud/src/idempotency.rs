//! Calls that happen once: the answer is stored with the effect, under the caller's key.

use sublet_core::{BoxFuture, DurationMs, Error, ErrorCode, Result};
use sublet_store::Tx;
use sublet_store::idempotency::{self, IdempotentCall, StoredAnswer};

use crate::{Actor, Cloud};

/// Longest Idempotency-Key, in bytes.
pub const IDEMPOTENCY_KEY_MAX_BYTES: usize = 255;

/// How long an answer is kept for repeats of its call.
pub const IDEMPOTENCY_RETENTION: DurationMs = DurationMs::from_seconds(24 * 3_600);

/// A call that may be repeated by its caller.
#[derive(Clone, Debug)]
pub struct Call {
    pub actor: Actor,
    /// The operation's name, the caller's key and the hash of the request; `None` if the caller gave no key.
    pub idempotency: Option<IdempotentCall>,
}

impl Call {
    /// A call without an Idempotency-Key.
    pub fn once(actor: Actor) -> Self {
        Self { actor, idempotency: None }
    }
    /// A call under a key; keys of different actors and operations never meet.
    pub fn under_key(actor: Actor, operation: &str, key: &str, request: &str) -> Result<Self> {
        if key.is_empty() || key.len() > IDEMPOTENCY_KEY_MAX_BYTES {
            return Err(Error::new(
                ErrorCode::InvalidRequest,
                format!("an Idempotency-Key has between 1 and {IDEMPOTENCY_KEY_MAX_BYTES} bytes"),
            ));
        }
        let scope = format!("{}:{operation}", actor.name());
        let request_hash = sublet_store::key::hash_text(request);
        Ok(Self { actor, idempotency: Some(IdempotentCall { scope, key: key.to_owned(), request_hash }) })
    }
}

/// A created object, or the answer that was given for it before.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer<T> {
    New(T),
    /// The stored text that `render` made the first time.
    Replayed(String),
}

/// Turns a created object into the text that a repeat of the call gets.
pub type Render<T> = dyn Fn(&T) -> Result<String> + Send + Sync;

impl Cloud {
    /// Runs `work` in one writing transaction unless the same call was answered before.
    pub(crate) async fn once<C, T, F>(&self, call: &Call, render: &Render<T>, context: C, work: F) -> Result<Answer<T>>
    where
        C: Sync + Send,
        T: Send + Sync,
        F: for<'t> Fn(&'t C, &'t mut Tx) -> BoxFuture<'t, Result<T>> + Send + Sync,
    {
        let now = self.now();
        let outcome = self
            .store
            .write((context, &work, render, call), move |(context, work, render, call), tx| {
                Box::pin(async move {
                    let Some(key) = &call.idempotency else { return Ok(Answer::New(work(context, tx).await?)) };
                    if let Some(stored) = idempotency::find(tx, key).await? {
                        return Ok(Answer::Replayed(stored.response));
                    }
                    let value = work(context, tx).await?;
                    let answer = StoredAnswer { status: 200, response: render(&value)? };
                    idempotency::insert(tx, key, &answer, now).await?;
                    Ok(Answer::New(value))
                })
            })
            .await;
        outcome.map_err(|error| match (&call.idempotency, error.code()) {
            (Some(key), ErrorCode::Conflict) if error.private_context().iter().any(|text| text.contains("idempotency_keys")) => {
                Error::new(ErrorCode::IdempotencyInProgress, format!("a request with the Idempotency-Key '{}' is running", key.key))
            }
            _ => error,
        })
    }
}
