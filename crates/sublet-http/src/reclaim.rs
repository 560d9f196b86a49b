//! Orders by which the owner takes capacity back.

use std::num::NonZeroU32;

use sublet_api::money::Money;
use sublet_api::object::{ReclaimPreviewTag, ReclaimSummaryTag, ReclaimTag};
use sublet_api::reclaim as wire;
use sublet_cloud::data::{Need, OrderedDevice, Page, StoredVictim};
use sublet_cloud::reclaim::{NearbyOrder, NewReclaim, Owed, ReclaimPreview, ReclaimStatement, ReclaimSummary, owed_to};
use sublet_core::id::ReclaimId;
use sublet_core::reclaim::{Promises, ReclaimShape, ReclaimState};
use sublet_core::{DurationMs, Error, ErrorCode, Result};

use crate::App;
use crate::answer::{Answer, json, text_of};
use crate::context::{Context, once, page_answer, page_request};
use crate::wire::{count, money};

fn new_of(body: &wire::CreateReclaim) -> Result<NewReclaim> {
    let refuse = |param: &str, message: &str| Error::new(ErrorCode::InvalidRequest, message).param(param);
    let shape = match (body.whole_nodes, body.units_per_node) {
        (true, Some(_)) => return Err(refuse("units_per_node", "whole nodes have the units they have")),
        (true, None) => ReclaimShape::WholeNodes,
        (false, None) => ReclaimShape::Anywhere,
        (false, Some(units)) => {
            let units = NonZeroU32::new(units);
            ReclaimShape::PerNode(units.ok_or_else(|| refuse("units_per_node", "at least one unit on each machine"))?)
        }
    };
    let promises = if body.break_promises { Promises::MayBreak } else { Promises::Kept };
    let kind = body.kind.parse().map_err(|error: Error| error.param("kind"))?;
    let need = Need { kind, units: body.units, site: body.site.clone(), shape, by: body.by.0, promises };
    Ok(NewReclaim { need, until: body.until.map(|until| until.0) })
}

fn seconds(time: DurationMs) -> Result<u64> {
    count(time.seconds_ceil())
}

fn amounts(owed: &Owed) -> Vec<Money> {
    owed.iter().map(|(currency, amount)| money(*amount, *currency)).collect()
}

fn units(number: usize) -> Result<u32> {
    u32::try_from(number).map_err(|_| Error::internal("more devices than can be counted"))
}

fn victim_to_wire(victim: &StoredVictim) -> Result<wire::ReclaimVictim> {
    Ok(wire::ReclaimVictim {
        lease: victim.lease.clone(),
        organization: victim.organization.clone(),
        units: victim.units,
        notice: victim.notice,
        told_at: victim.end.tell_at.into(),
        ends_at: victim.end.deadline.into(),
        breaks_promise: victim.end.breaks_promise,
        owed: money(victim.owed, victim.currency),
        given: victim.given.map(|given| money(given, victim.currency)),
        lost_device_seconds: seconds(victim.lost)?,
        checkpoint_at: victim.checkpoint_at.map(Into::into),
    })
}

fn plan_to_wire<'a>(devices: impl Iterator<Item = &'a OrderedDevice>, victims: &[StoredVictim]) -> Result<wire::ReclaimPlan> {
    let device = |one: &OrderedDevice| wire::ReclaimedDevice {
        device: one.device.clone(),
        node: one.node.clone(),
        site: one.site.clone(),
        lease: one.lease.clone(),
        free_at: one.free_at.into(),
    };
    let devices: Vec<wire::ReclaimedDevice> = devices.map(device).collect();
    let is_taken = |one: &&wire::ReclaimedDevice| victims.iter().any(|victim| Some(&victim.lease) == one.lease.as_ref());
    let taken = devices.iter().filter(is_taken).count();
    let lost = victims.iter().fold(0, |sum: i64, victim| sum.saturating_add(victim.lost.millis()));
    Ok(wire::ReclaimPlan {
        free_anyway: units(devices.len() - taken)?,
        devices,
        victims: victims.iter().map(victim_to_wire).collect::<Result<_>>()?,
        owed: amounts(&owed_to(victims)?),
        lost_device_seconds: seconds(DurationMs::from_millis(lost))?,
    })
}

fn nearby_to_wire(nearby: &NearbyOrder) -> Result<wire::NearbyReclaim> {
    Ok(wire::NearbyReclaim {
        text: nearby.describe(),
        kind: nearby.need.kind.to_string(),
        units: nearby.need.units,
        by: nearby.need.by.into(),
        site: nearby.need.site.clone(),
        victims: units(nearby.victims)?,
        owed: amounts(&nearby.owed),
        lost_device_seconds: seconds(nearby.lost)?,
    })
}

fn preview_to_wire(preview: &ReclaimPreview) -> Result<wire::ReclaimPreview> {
    let need = &preview.new.need;
    Ok(wire::ReclaimPreview {
        object: ReclaimPreviewTag,
        kind: need.kind.to_string(),
        units: need.units,
        by: need.by.into(),
        plan: plan_to_wire(preview.order.devices.iter(), &preview.victims)?,
        cheaper: preview.cheaper.iter().map(nearby_to_wire).collect::<Result<_>>()?,
        as_of: preview.as_of.into(),
    })
}

const fn status(state: ReclaimState) -> wire::ReclaimStatus {
    match state {
        ReclaimState::Placed => wire::ReclaimStatus::Placed,
        ReclaimState::Fulfilled => wire::ReclaimStatus::Fulfilled,
        ReclaimState::Cancelled => wire::ReclaimStatus::Cancelled,
        ReclaimState::Expired => wire::ReclaimStatus::Expired,
    }
}

const fn state(status: wire::ReclaimStatus) -> ReclaimState {
    match status {
        wire::ReclaimStatus::Placed => ReclaimState::Placed,
        wire::ReclaimStatus::Fulfilled => ReclaimState::Fulfilled,
        wire::ReclaimStatus::Cancelled => ReclaimState::Cancelled,
        wire::ReclaimStatus::Expired => ReclaimState::Expired,
    }
}

fn summary_to_wire(summary: &ReclaimSummary) -> wire::ReclaimSummary {
    let ReclaimSummary { reclaim, counts, victims, owed } = summary;
    wire::ReclaimSummary {
        object: ReclaimSummaryTag,
        id: reclaim.id.clone(),
        status: status(reclaim.state),
        kind: reclaim.need.kind.to_string(),
        units: reclaim.need.units,
        by: reclaim.need.by.into(),
        until: reclaim.until.map(Into::into),
        devices: counts.held,
        there: counts.there,
        lost: counts.lost,
        victims: *victims,
        owed: amounts(owed),
        created_at: reclaim.created_at.into(),
    }
}

fn to_wire(statement: &ReclaimStatement) -> Result<wire::Reclaim> {
    let reclaim = &statement.reclaim;
    let need = &reclaim.need;
    let units_per_node = match need.shape {
        ReclaimShape::PerNode(units) => Some(units.get()),
        ReclaimShape::Anywhere | ReclaimShape::WholeNodes => None,
    };
    Ok(wire::Reclaim {
        object: ReclaimTag,
        id: reclaim.id.clone(),
        status: status(reclaim.state),
        kind: need.kind.to_string(),
        units: need.units,
        by: need.by.into(),
        until: reclaim.until.map(Into::into),
        site: need.site.clone(),
        units_per_node,
        whole_nodes: need.shape == ReclaimShape::WholeNodes,
        break_promises: need.promises == Promises::MayBreak,
        there: statement.counts.there,
        lost: statement.counts.lost,
        plan: plan_to_wire(statement.devices.iter().map(|held| &held.device), &statement.victims)?,
        generation: count(reclaim.generation)?,
        created_by: reclaim.created_by.clone(),
        created_at: reclaim.created_at.into(),
        ended_at: reclaim.ended_at.map(Into::into),
    })
}

pub async fn preview(app: App, context: Context) -> Result<Answer> {
    let new = new_of(&context.body()?)?;
    json(&preview_to_wire(&app.compute.preview_reclaim(&context.actor, &new).await?)?)
}

pub async fn create(app: App, context: Context) -> Result<Answer> {
    let new = new_of(&context.body()?)?;
    let render = |statement: &ReclaimStatement| text_of(&to_wire(statement)?);
    once(app.compute.place_reclaim(&context.call()?, &new, &render).await?, |statement| to_wire(statement).ok())
}

pub async fn list(app: App, context: Context) -> Result<Answer> {
    let query: wire::ReclaimListQuery = context.query()?;
    let asked = query.page();
    let page = app.compute.list_reclaims(&context.actor, query.status.map(state), &page_request(&asked)?).await?;
    let items: Vec<wire::ReclaimSummary> = page.items.iter().map(summary_to_wire).collect();
    page_answer(&asked, Page { items, has_more: page.has_more }, |wire| wire, |wire| wire.id.to_string())
}

pub async fn get(app: App, context: Context) -> Result<Answer> {
    let id: ReclaimId = context.path("id")?;
    json(&to_wire(&app.compute.get_reclaim(&context.actor, &id).await?)?)
}

pub async fn cancel(app: App, context: Context) -> Result<Answer> {
    let id: ReclaimId = context.path("id")?;
    let generation = context.generation()?;
    json(&to_wire(&app.compute.cancel_reclaim(&context.actor, &id, generation).await?)?)
}
