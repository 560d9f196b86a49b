//! `sublet why`.

use clap::Args;
use sublet_api::Plane;
use sublet_api::client::Client;
use sublet_api::why::Why;
use sublet_core::error::{Error, ErrorCode, Result};
use sublet_core::id::prefix_of;

use crate::Context;
use crate::render;

/// What to explain.
#[derive(Args, Debug)]
pub struct WhyArgs {
    /// An id: req_…, job_…, lease_…, quote_…, chg_…, inv_…
    pub id: String,
}

impl WhyArgs {
    pub(super) fn run(self, context: &mut Context<'_>) -> Result<()> {
        if prefix_of(&self.id).is_none() {
            return Err(Error::new(ErrorCode::InvalidId, format!("'{}' is not an id of this cloud", render::plain(&self.id)))
                .alternative("ids look like req_…, job_…, lease_…, quote_…, chg_… or inv_…"));
        }
        let why = ask(&context.client()?, &self.id)?;
        context.show_text(&why, render::why)
    }
}

/// Asks with the narrowest key that is there and can see the object.
fn ask(client: &Client, id: &str) -> Result<Why> {
    let mut outcome = Err(Error::new(ErrorCode::MissingApiKey, "this needs a key").alternative("give one with --data-dir"));
    for plane in [Plane::Project, Plane::Admin, Plane::Operator] {
        let answer = client.why(plane, id);
        match answer.as_ref().map_err(Error::code) {
            // Another plane may hold a key, or see further.
            Err(ErrorCode::MissingApiKey) if outcome.is_err() => {}
            Err(ErrorCode::NotFound | ErrorCode::PermissionDenied | ErrorCode::WrongKeyPlane) => outcome = answer,
            _ => return answer,
        }
    }
    outcome
}
