//! Where responses are kept in these tests: in memory, and only if a test lets it.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use sublet_core::admission::Access;
use sublet_core::id::ResponseId;
use sublet_core::response::{KeptResponse, ResponseStore, Turn};
use sublet_core::{BoxFuture, Error, ErrorCode, Result};
use tokio::sync::Notify;

#[derive(Default)]
pub struct Shelf {
    kept: Mutex<BTreeMap<ResponseId, KeptResponse>>,
    /// No more is taken.
    pub full: AtomicBool,
    /// Nothing can be written.
    pub away: AtomicBool,
    /// What is written is there, and nobody hears of it.
    pub answers_lost: AtomicBool,
    /// Writing waits for ever once this is set; `waiting` is told.
    pub slow: AtomicBool,
    pub waiting: Notify,
    pub takings_back: AtomicU64,
}

impl Shelf {
    pub fn all(&self) -> Vec<KeptResponse> {
        self.kept.lock().unwrap().values().cloned().collect()
    }

    pub fn find(&self, id: &str) -> Option<KeptResponse> {
        self.kept.lock().unwrap().get(&id.parse().unwrap()).cloned()
    }

    fn turn(&self, access: &Access, id: &ResponseId) -> Option<(Turn, Option<ResponseId>)> {
        let kept = self.kept.lock().unwrap();
        let found = kept.get(id).filter(|found| found.project == access.project)?;
        Some((Turn { id: id.clone(), input: found.input.clone(), object: found.object.clone() }, found.previous.clone()))
    }

    fn conversation_of(&self, access: &Access, last: &ResponseId) -> Result<Vec<Turn>> {
        let (mut turns, mut next) = (Vec::new(), Some(last.clone()));
        while let Some(id) = next {
            let found = self.turn(access, &id).ok_or_else(|| Error::previous_response_not_found(id.as_str()))?;
            turns.push(found.0);
            next = found.1;
        }
        turns.reverse();
        Ok(turns)
    }
}

impl ResponseStore for Shelf {
    fn check_room<'a>(&'a self, _: &'a Access) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if self.full.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorCode::StorageFull, "the shelf is full").param("store"));
            }
            Ok(())
        })
    }
    fn keep<'a>(&'a self, response: &'a KeptResponse) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            tokio::task::yield_now().await;
            if self.slow.load(Ordering::SeqCst) {
                self.waiting.notify_one();
                std::future::pending::<()>().await;
            }
            if self.away.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorCode::StoreUnavailable, "the shelf is away"));
            }
            let before = self.kept.lock().unwrap().insert(response.id.clone(), response.clone());
            assert_eq!(before, None, "a response was kept twice");
            if self.answers_lost.load(Ordering::SeqCst) {
                return Err(Error::new(ErrorCode::StoreUnavailable, "the connection broke before the answer"));
            }
            Ok(())
        })
    }
    fn take_back<'a>(&'a self, access: &'a Access, id: &'a ResponseId) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.takings_back.fetch_add(1, Ordering::SeqCst);
            self.kept.lock().unwrap().retain(|known, kept| known != id || kept.project != access.project);
            Ok(())
        })
    }
    fn conversation<'a>(&'a self, access: &'a Access, last: &'a ResponseId) -> BoxFuture<'a, Result<Vec<Turn>>> {
        Box::pin(async move { self.conversation_of(access, last) })
    }
    fn turns<'a>(&'a self, access: &'a Access, ids: &'a [ResponseId]) -> BoxFuture<'a, Result<Vec<Turn>>> {
        Box::pin(async move { Ok(ids.iter().filter_map(|id| self.turn(access, id).map(|found| found.0)).collect()) })
    }
}
