//! Delivering files: into a directory, or into a bucket of S3 and what speaks its protocol; and events to webhooks.
//!
//! Invariants: memory is a part of a file (8 MiB), whatever its length; secrets are read from their files when they are
//! needed, and are in no message.
//!
//! Deliberately absent: reading and removing what was delivered, credentials of machines (instance metadata, STS), and
//! compression.
#![deny(clippy::float_arithmetic)]

mod client;
mod directory;
mod s3;
mod signature;
mod webhook;

use std::path::PathBuf;
use std::sync::Arc;

use sublet_core::delivery::{Delivered, Delivery, DeliveryFailure, DeliveryPort, Target};
use sublet_core::supply::SecretSource;
use sublet_core::{BoxFuture, Clock, Result};

use client::Client;
pub use webhook::Webhooks;

/// Delivers to every kind of target.
pub struct Deliveries {
    root: PathBuf,
    client: Arc<Client>,
}

impl Deliveries {
    /// `root` is the directory that folders are below; it is created when something is delivered. `clock` has the real
    /// time, which stores of objects compare with theirs.
    pub fn new(root: PathBuf, secrets: Arc<dyn SecretSource>, clock: Arc<dyn Clock>) -> Result<Self> {
        Ok(Self { root, client: Arc::new(Client::new(secrets, clock)?) })
    }
}

impl DeliveryPort for Deliveries {
    fn begin<'a>(&'a self, file: &'a Delivered) -> BoxFuture<'a, Result<Box<dyn Delivery>, DeliveryFailure>> {
        Box::pin(async move {
            match &file.target {
                Target::Directory { folder } => directory::begin(&self.root, folder, file).await,
                Target::S3(bucket) => s3::begin(&self.client, bucket, file).await,
            }
        })
    }
}
