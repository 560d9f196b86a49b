//! The cloud's clock, and a test clock's jumps.

use sublet_api::clock as wire;
use sublet_api::object::ClockTag;
use sublet_cloud::clock::ClockReading;
use sublet_core::Result;

use crate::App;
use crate::answer::{Answer, json};
use crate::context::Context;

fn to_wire(reading: &ClockReading) -> wire::Clock {
    wire::Clock {
        object: ClockTag,
        now: reading.now.into(),
        is_test_clock: reading.ahead.is_some(),
        ahead_seconds: reading.ahead.map_or(0, |ahead| u64::try_from(ahead.millis() / 1_000).unwrap_or(0)),
        closed_months: reading.closing.closed,
        issued_invoices: reading.closing.issued,
        failed_accounts: reading.closing.failed,
    }
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    json(&to_wire(&app.cloud.read_clock(&context.actor).await?))
}

pub async fn set(app: App, context: Context) -> Result<Answer> {
    let body: wire::SetClock = context.body()?;
    // What was answered before the jump belongs to the time before it.
    app.process.settle().await?;
    json(&to_wire(&app.cloud.advance_clock(&context.actor, body.now.0).await.map_err(|error| error.param("now"))?))
}
