//! Responses that are kept because whoever asked for them said so, and the port behind which they lie.
//!
//! Invariants: nothing is kept that was not asked to be; a project sees its own only; how much of a
//! conversation goes on is bounded before any of it is read.
//!
//! Deliberately absent: how a response looks (`sublet-api`), how long it is kept and where (`sublet-cloud`).

use std::fmt;

use crate::BoxFuture;
use crate::admission::Access;
use crate::error::Result;
use crate::id::{KeyId, OrganizationId, ProjectId, ResponseId};
use crate::time::Timestamp;

/// Largest input that is kept with a response, in bytes of its items.
pub const KEPT_INPUT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest response that is kept with its input, in bytes.
pub const KEPT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Longest conversation that can be gone on from, in responses.
pub const TURNS_MAX: usize = 256;
/// Largest conversation that can be gone on from, in bytes: as much as a request may send by itself.
pub const TURNS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// A response to be kept.
#[derive(Clone, PartialEq, Eq)]
pub struct KeptResponse {
    pub id: ResponseId,
    pub organization: OrganizationId,
    pub project: ProjectId,
    /// The key that asked for it.
    pub key: KeyId,
    /// What it goes on from.
    pub previous: Option<ResponseId>,
    /// What it was asked: a JSON list of items, each with its id.
    pub input: String,
    /// The response object as it was answered.
    pub object: String,
    pub created_at: Timestamp,
}

impl KeptResponse {
    /// What keeping it takes.
    pub fn bytes(&self) -> usize {
        self.input.len().saturating_add(self.object.len())
    }
}

/// Content is not for logs.
impl fmt::Debug for KeptResponse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} with {} bytes", self.id, self.project, self.bytes())
    }
}

/// What was asked and answered once.
#[derive(Clone, PartialEq, Eq)]
pub struct Turn {
    pub id: ResponseId,
    /// A JSON list of items.
    pub input: String,
    /// The response object.
    pub object: String,
}

/// Content is not for logs.
impl fmt::Debug for Turn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with {} and {} bytes", self.id, self.input.len(), self.object.len())
    }
}

/// Where responses are kept.
pub trait ResponseStore: Send + Sync {
    /// Whether one more of this project would be kept. Asked before any money is held, so that a refusal costs nothing.
    fn check_room<'a>(&'a self, access: &'a Access) -> BoxFuture<'a, Result<()>>;
    /// Keeps a response: durable when it returns.
    fn keep<'a>(&'a self, response: &'a KeptResponse) -> BoxFuture<'a, Result<()>>;
    /// Takes back a response whose answer could not be completed. None is no error.
    fn take_back<'a>(&'a self, access: &'a Access, id: &'a ResponseId) -> BoxFuture<'a, Result<()>>;
    /// The conversation that ends with a response, oldest first.
    fn conversation<'a>(&'a self, access: &'a Access, last: &'a ResponseId) -> BoxFuture<'a, Result<Vec<Turn>>>;
    /// Those of these responses that are kept, in any order.
    fn turns<'a>(&'a self, access: &'a Access, ids: &'a [ResponseId]) -> BoxFuture<'a, Result<Vec<Turn>>>;
}
