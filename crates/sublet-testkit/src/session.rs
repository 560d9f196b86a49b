//! A gateway's session, as its port sees the cloud.

use std::sync::Arc;

use sublet_cloud::Cloud;
use sublet_cloud::slice::GatewayPort;
use sublet_core::admission::{
    Access, Admission, PriceVersion, SliceClosed, SliceGrant, SliceRequest, SliceReturn, SliceTarget, SpendClass, TokenUsage,
};
use sublet_core::id::{GatewayId, RequestId, SliceId};
use sublet_core::key::Secret;
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{Measured, Outcome, UsageRecord};
use sublet_core::{Nanos, Result, TokenCount};

use crate::database::MODEL;

/// One gateway session over a cloud.
pub struct Session {
    pub cloud: Cloud,
    pub port: GatewayPort,
    pub gateway: GatewayId,
    pub fence: i64,
    pub access: Arc<Access>,
}

impl Session {
    pub async fn start(cloud: &Cloud, secret: &Secret, gateway: &str) -> Self {
        let gateway: GatewayId = gateway.parse().expect("an id");
        let fence = cloud.start_gateway(&gateway).await.expect("a session");
        let port = GatewayPort::new(cloud.clone(), gateway.clone());
        let access = port.authenticate(secret).await.expect("the key works");
        Self { cloud: cloud.clone(), port, gateway, fence, access }
    }
    pub async fn grant(&self, extend: Option<&SliceId>, least: i64, wanted: i64) -> Result<SliceGrant> {
        let slice = extend.cloned().map_or_else(|| SliceTarget::Open(self.cloud.ids().mint()), SliceTarget::Extend);
        self.grant_to(slice, least, wanted).await
    }
    /// More for a request that the slice admitted.
    pub async fn finish(&self, slice: &SliceId, amount: i64) -> Result<SliceGrant> {
        self.grant_to(SliceTarget::Finish(slice.clone()), amount, amount).await
    }
    /// A new slice, asked for by somebody who tries something else if it is refused.
    pub async fn try_grant(&self, amount: i64) -> Result<SliceGrant> {
        let (gateway, fence, key, class) = (self.gateway.clone(), self.fence, self.access.key.clone(), SpendClass::default());
        let (slice, least, wanted) = (SliceTarget::Open(self.cloud.ids().mint()), Nanos::new(amount), Nanos::new(amount));
        self.port.grant_slice(SliceRequest { gateway, fence, key, class, slice, wanted, least, is_final: false }).await
    }
    /// A new slice for some of the key's requests.
    pub async fn grant_for(&self, class: SpendClass, amount: i64) -> Result<SliceGrant> {
        let (gateway, fence, key) = (self.gateway.clone(), self.fence, self.access.key.clone());
        let (slice, least, wanted) = (SliceTarget::Open(self.cloud.ids().mint()), Nanos::new(amount), Nanos::new(amount));
        self.port.grant_slice(SliceRequest { gateway, fence, key, class, slice, wanted, least, is_final: true }).await
    }
    pub async fn grant_to(&self, slice: SliceTarget, least: i64, wanted: i64) -> Result<SliceGrant> {
        let (gateway, fence, key) = (self.gateway.clone(), self.fence, self.access.key.clone());
        let (least, wanted) = (Nanos::new(least), Nanos::new(wanted));
        self.port
            .grant_slice(SliceRequest { gateway, fence, key, class: SpendClass::default(), slice, wanted, least, is_final: true })
            .await
    }
    pub async fn give_back(&self, slice: &SliceId, records: i64) -> Result<SliceClosed> {
        self.port.return_slice(SliceReturn { slice: slice.clone(), fence: self.fence, records }).await
    }
    /// The version that a request would be priced by now.
    pub fn priced_by(&self) -> PriceVersion {
        let now = self.cloud.clock().now();
        self.port.prices(&self.access, (MODEL, ServiceTier::Default), now).expect("a price").version.clone()
    }
    pub fn record(&self, slice: &SliceId, input: i64, output: i64) -> UsageRecord {
        let now = self.cloud.clock().now();
        let prices = self.port.prices(&self.access, (MODEL, ServiceTier::Default), now).expect("a price");
        UsageRecord {
            tier: ServiceTier::Default,
            request: self.cloud.ids().mint::<RequestId>(),
            attempt: 1,
            gateway: self.gateway.clone(),
            fence: self.fence,
            slice: slice.clone(),
            key: self.access.key.clone(),
            project: self.access.project.clone(),
            organization: self.access.organization.clone(),
            model: MODEL.to_owned(),
            route: "/v1/chat/completions".to_owned(),
            price_version: prices.version.clone(),
            admitted_at: now,
            first_token_at: Some(now),
            finished_at: now,
            tokens: TokenUsage { input: TokenCount::new(input), cached_input: TokenCount::ZERO, output: TokenCount::new(output) },
            outcome: Outcome::Completed,
            measured: Measured::Engine,
            client_retry: 0,
            line: None,
            replica: None,
            purchases: Vec::new(),
        }
    }
}
