//! Responses that were asked to be kept. Implements the gateway's port to them.
//!
//! Invariants: what is kept ends by itself, and is not read after its end even if nobody swept it; a
//! project's responses are bounded in number and in bytes; their content is in no log and no audit entry.

use sublet_core::admission::Access;
use sublet_core::id::ResponseId;
use sublet_core::response::{KEPT_BYTES_MAX, KeptResponse, ResponseStore, TURNS_BYTES_MAX, TURNS_MAX, Turn};
use sublet_core::{BoxFuture, Bytes, DurationMs, Error, ErrorCode, Result, Scope};
use sublet_store::response::{self, Kept, Link};

use crate::audit::Deed;
use crate::{Action, Actor, Cloud};

/// Responses that a project keeps at most.
pub const PROJECT_RESPONSES_MAX: i64 = 100_000;
/// What the responses of a project come to at most.
pub const PROJECT_RESPONSES_BYTES_MAX: Bytes = Bytes::new(1024 * 1024 * 1024);
/// How long a response is kept unless the operator says otherwise.
pub const KEPT_DAYS: u32 = 30;
/// Expired responses that are deleted in one transaction.
const DELETED_PER_STEP: i64 = 100;

/// The responses of a cloud, as a gateway keeps and reads them.
#[derive(Clone)]
pub struct ResponsePort {
    cloud: Cloud,
    /// Zero keeps none.
    kept_for: DurationMs,
}

impl ResponsePort {
    /// Keeps responses for so long; with zero, none.
    pub fn new(cloud: Cloud, kept_for: DurationMs) -> Self {
        Self { cloud, kept_for }
    }

    async fn room(&self, access: &Access) -> Result<()> {
        if self.kept_for == DurationMs::ZERO {
            let error = Error::new(ErrorCode::UnsupportedField, "this cloud keeps no responses: its operator has turned that off");
            return Err(error.param("store").alternative("send 'store': false"));
        }
        let kept = self.cloud.store.read(access, |access, tx| Box::pin(response::count(tx, &access.project))).await?;
        check_room(&kept)
    }

    async fn write(&self, response: &KeptResponse) -> Result<()> {
        if response.bytes() > KEPT_BYTES_MAX {
            let message = format!("a response is kept with its input up to {KEPT_BYTES_MAX} bytes, and this one is larger");
            return Err(Error::new(ErrorCode::BodyTooLarge, message).alternative("send 'store': false"));
        }
        let expires_at = self.cloud.now().plus(self.kept_for);
        self.cloud.store.write(response, move |response, tx| Box::pin(response::insert(tx, response, expires_at))).await
    }

    async fn read_conversation(&self, access: &Access, last: &ResponseId) -> Result<Vec<Turn>> {
        let (now, scope) = (self.cloud.now(), scope_of(access));
        let links_max = i64::try_from(TURNS_MAX).unwrap_or(i64::MAX).saturating_add(1);
        self.cloud
            .store
            .read((scope, last), move |(scope, last), tx| {
                Box::pin(async move {
                    let links = response::list_links(tx, scope, last, now, links_max).await?;
                    let ids = in_order(last, &links)?;
                    response::list_turns(tx, scope, &ids, now).await
                })
            })
            .await
    }

    async fn read_turns(&self, access: &Access, ids: &[ResponseId]) -> Result<Vec<Turn>> {
        let (now, scope) = (self.cloud.now(), scope_of(access));
        self.cloud
            .store
            .read((scope, ids), move |(scope, ids), tx| {
                Box::pin(async move {
                    let mut links = Vec::with_capacity(ids.len());
                    for id in *ids {
                        links.extend(response::list_links(tx, scope, id, now, 1).await?);
                    }
                    if is_too_much(&links) {
                        let message = format!(
                            "the items that an input refers to are of up to {TURNS_MAX} responses and {TURNS_BYTES_MAX} bytes"
                        );
                        return Err(Error::new(ErrorCode::InvalidRequest, message).param("input").alternative("send whole items"));
                    }
                    response::list_turns(tx, scope, ids, now).await
                })
            })
            .await
    }
}

/// Whether so many responses are too much to be read for one request.
fn is_too_much(links: &[Link]) -> bool {
    let bytes = links.iter().fold(0, |sum, link| link.bytes.get().saturating_add(sum));
    links.len() > TURNS_MAX || usize::try_from(bytes).map_or(true, |bytes| bytes > TURNS_BYTES_MAX)
}

/// A project with less than it may keep may keep one more: what is under way may go a little beyond.
fn check_room(kept: &Kept) -> Result<()> {
    if kept.responses < PROJECT_RESPONSES_MAX && kept.bytes < PROJECT_RESPONSES_BYTES_MAX {
        return Ok(());
    }
    let message = format!(
        "this project keeps {} responses of {} bytes together; it may keep {PROJECT_RESPONSES_MAX} and {PROJECT_RESPONSES_BYTES_MAX} bytes",
        kept.responses, kept.bytes
    );
    Err(Error::new(ErrorCode::StorageFull, message)
        .param("store")
        .alternative("send 'store': false")
        .alternative("DELETE /v1/responses/{id} for responses that are not needed; they also end by themselves"))
}

/// The responses of a conversation, oldest first, if all of it is there and it is not too long.
fn in_order(last: &ResponseId, links: &[Link]) -> Result<Vec<ResponseId>> {
    let missing = match links.last() {
        None => Some(last),
        Some(first) => first.previous.as_ref(),
    };
    if is_too_much(links) {
        let message = format!("a conversation is gone on from up to {TURNS_MAX} responses and {TURNS_BYTES_MAX} bytes");
        return Err(Error::new(ErrorCode::InvalidRequest, message)
            .param("previous_response_id")
            .alternative("send what matters of the conversation as items of 'input', without 'previous_response_id'"));
    }
    match missing {
        Some(missing) => Err(Error::previous_response_not_found(missing.as_str())),
        None => Ok(links.iter().rev().map(|link| link.id.clone()).collect()),
    }
}

fn scope_of(access: &Access) -> Scope {
    Scope::Project { organization: access.organization.clone(), project: access.project.clone() }
}

impl ResponseStore for ResponsePort {
    fn check_room<'a>(&'a self, access: &'a Access) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.room(access))
    }
    fn keep<'a>(&'a self, response: &'a KeptResponse) -> BoxFuture<'a, Result<()>> {
        Box::pin(self.write(response))
    }
    fn take_back<'a>(&'a self, access: &'a Access, id: &'a ResponseId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let scope = scope_of(access);
            let write = self.cloud.store.write((scope, id), |(scope, id), tx| Box::pin(response::delete(tx, scope, id)));
            write.await.map(|_was_there| ())
        })
    }
    fn conversation<'a>(&'a self, access: &'a Access, last: &'a ResponseId) -> BoxFuture<'a, Result<Vec<Turn>>> {
        Box::pin(self.read_conversation(access, last))
    }
    fn turns<'a>(&'a self, access: &'a Access, ids: &'a [ResponseId]) -> BoxFuture<'a, Result<Vec<Turn>>> {
        Box::pin(self.read_turns(access, ids))
    }
}

impl Cloud {
    /// A response that is kept, with what it was asked.
    pub async fn get_response(&self, actor: &Actor, id: &ResponseId) -> Result<Turn> {
        actor.require(Action::UseModels)?;
        let now = self.now();
        self.store.read((actor, id), move |(actor, id), tx| Box::pin(response::get(tx, &actor.scope, id, now))).await
    }

    /// Forgets a response at once.
    pub async fn delete_response(&self, actor: &Actor, id: &ResponseId) -> Result<()> {
        actor.require(Action::UseModels)?;
        let (organization, _) = actor.project()?;
        let now = self.now();
        self.store
            .write((self, actor, organization, id), move |(cloud, actor, organization, id), tx| {
                Box::pin(async move {
                    // What has expired is gone for its owner already.
                    let kept = response::get(tx, &actor.scope, id, now).await?;
                    response::delete(tx, &actor.scope, id).await?;
                    let detail = format!("{} bytes", kept.input.len().saturating_add(kept.object.len()));
                    let deed = Deed { organization: Some(organization), action: "response.delete", target: id.as_str(), detail };
                    cloud.record(tx, actor, deed, now).await
                })
            })
            .await
    }

    /// Deletes what has expired, step by step; says how many.
    pub async fn sweep_responses(&self) -> Result<u64> {
        let now = self.now();
        let mut swept: u64 = 0;
        loop {
            let write = self.store.write((), move |(), tx| Box::pin(response::delete_expired(tx, now, DELETED_PER_STEP)));
            let deleted = write.await?;
            swept = swept.saturating_add(deleted);
            if i64::try_from(deleted).is_ok_and(|deleted| deleted < DELETED_PER_STEP) {
                return Ok(swept);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(id: &str, previous: Option<&str>, bytes: i64) -> Link {
        Link { id: id.parse().unwrap(), previous: previous.map(|id| id.parse().unwrap()), bytes: Bytes::new(bytes) }
    }

    #[test]
    fn a_conversation_is_whole_and_bounded_or_refused() {
        let last: ResponseId = "resp_c".parse().unwrap();
        let whole = [link("resp_c", Some("resp_b"), 1), link("resp_b", None, 1)];
        assert_eq!(in_order(&last, &whole).unwrap().iter().map(ResponseId::as_str).collect::<Vec<_>>(), ["resp_b", "resp_c"]);
        let long: Vec<Link> = (0..=TURNS_MAX).map(|_| link("resp_c", Some("resp_c"), 1)).collect();
        let large = [link("resp_c", None, i64::try_from(TURNS_BYTES_MAX).unwrap() + 1)];
        for (links, code, said) in [
            (&[][..], ErrorCode::PreviousResponseNotFound, "resp_c"),
            (&whole[..1], ErrorCode::PreviousResponseNotFound, "resp_b"),
            (&long, ErrorCode::InvalidRequest, "256"),
            (&large, ErrorCode::InvalidRequest, "8388608"),
        ] {
            let error = in_order(&last, links).unwrap_err();
            assert_eq!((error.code(), error.param_name()), (code, Some("previous_response_id")));
            assert!(error.message().contains(said) && !error.alternatives().is_empty(), "{error}");
        }
        assert!(in_order(&last, &long[1..]).is_err(), "its first one is not there");
    }

    #[test]
    fn a_full_project_is_told_what_works() {
        let kept = |responses, bytes| Kept { responses, bytes: Bytes::new(bytes) };
        assert!(check_room(&kept(PROJECT_RESPONSES_MAX - 1, PROJECT_RESPONSES_BYTES_MAX.get() - 1)).is_ok());
        for full in [kept(PROJECT_RESPONSES_MAX, 0), kept(1, PROJECT_RESPONSES_BYTES_MAX.get())] {
            let error = check_room(&full).unwrap_err();
            assert_eq!((error.code(), error.param_name(), error.alternatives().len()), (ErrorCode::StorageFull, Some("store"), 2));
        }
    }
}
