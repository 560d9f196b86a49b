//! Keeps an answer that was asked to be kept, before it is complete.
//!
//! The order: the engine is done; the response is durable in its store; the usage record is durable; the
//! answer ends. What fails in between ends the answer with an error, and what was delivered before it is
//! charged: all of a stream, nothing of what was to be one object. A response whose record could not be
//! written is taken back. A process that dies in between leaves a response that nobody was told of or that
//! was not charged, and that ends by itself.

use std::future::Future;
use std::sync::Arc;

use sublet_core::admission::Access;
use sublet_core::id::{RequestId, ResponseId};
use sublet_core::response::{KEPT_INPUT_BYTES_MAX, KeptResponse, ResponseStore};
use sublet_core::{DurationMs, Error, ErrorCode, Result, Timestamp};

use crate::dialect::Draft;
use crate::gateway::Gateway;

/// How long an answer waits until it is kept.
const KEEP_WAIT: DurationMs = DurationMs::from_seconds(10);
/// How long an answer that failed waits until what was kept of it is taken back.
const TAKE_BACK_WAIT: DurationMs = DurationMs::from_seconds(2);

/// A response that is to be kept.
pub(crate) struct Keeping {
    store: Arc<dyn ResponseStore>,
    access: Arc<Access>,
    response: KeptResponse,
}

impl Keeping {
    /// Checks that it can be kept, before any money is held.
    pub async fn prepare(gateway: &Gateway, access: &Arc<Access>, request: (&RequestId, Timestamp), draft: Draft) -> Result<Self> {
        let previous = draft.previous.clone();
        let input = String::from_utf8(draft.into_input(request.0)).map_err(|_| Error::internal("an input is not UTF-8"))?;
        if input.len() > KEPT_INPUT_BYTES_MAX {
            let message = format!("an input of {} bytes is not kept; the most is {KEPT_INPUT_BYTES_MAX}", input.len());
            return Err(Error::new(ErrorCode::BodyTooLarge, message).param("store").alternative("send 'store': false"));
        }
        gateway.responses.check_room(access).await?;
        let response = KeptResponse {
            id: ResponseId::of(request.0),
            organization: access.organization.clone(),
            project: access.project.clone(),
            key: access.key.clone(),
            previous,
            input,
            object: String::new(),
            created_at: request.1,
        };
        Ok(Self { store: Arc::clone(&gateway.responses), access: Arc::clone(access), response })
    }

    /// Keeps the answer; durable when it returns. After an error it is not kept, or will be taken for not kept.
    pub async fn keep(&mut self, object: Vec<u8>) -> Result<()> {
        self.response.object = String::from_utf8(object).map_err(|_| Error::internal("an answer is not UTF-8"))?;
        let kept = within(KEEP_WAIT, self.store.keep(&self.response)).await;
        let Err(error) = kept else { return Ok(()) };
        if matches!(error.code(), ErrorCode::StoreUnavailable | ErrorCode::Internal) {
            // It may be what came back that was lost.
            self.take_back().await;
        }
        Err(not_kept(error))
    }

    /// Takes it back, as well as that can be done now: the answer has failed already.
    pub async fn take_back(&self) {
        let taken = within(TAKE_BACK_WAIT, self.store.take_back(&self.access, &self.response.id)).await;
        if let Err(error) = taken {
            tracing::warn!(response = %self.response.id, ?error, "a response that was not completed may be kept until it expires");
        }
    }
}

async fn within(wait: DurationMs, work: impl Future<Output = Result<()>>) -> Result<()> {
    let late =
        || Error::new(ErrorCode::StoreUnavailable, "the database did not answer in time").retry_after(DurationMs::from_seconds(1));
    tokio::time::timeout(wait.to_std(), work).await.unwrap_or_else(|_| Err(late()))
}

/// The answer was made and is not completed: whoever asked for it to be kept goes on from it.
fn not_kept(error: Error) -> Error {
    let message = format!(
        "the response could not be kept, so it was not completed; what was delivered of it is charged: {}",
        error.message()
    );
    let mut told = Error::new(error.code(), message).param("store");
    for alternative in error.alternatives() {
        told = told.alternative(alternative);
    }
    if let Some(wait) = error.retry_after_hint() {
        told = told.retry_after(wait);
    }
    for context in error.private_context() {
        told = told.context(context);
    }
    if error.alternatives().is_empty() { told.alternative("repeat with 'store': false") } else { told }
}
