//! What suppliers are owed, on both databases: costs, settlement, margins, books.
#![cfg(test)]

use sublet_cloud::Actor;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::organization::NewOrganization;
use sublet_cloud::remote_model::{NewRemoteModel, NewReplica, ReplicaChange};
use sublet_cloud::slice::GatewayPort;
use sublet_cloud::supplier::{NewCost, TermsChange};
use sublet_core::admission::{Access, Admission, SliceRequest, SliceReturn, SliceTarget, SpendClass, TokenUsage};
use sublet_core::id::{GatewayId, ModelId, OrganizationId, ReplicaId, RequestId, SliceId};
use sublet_core::money::divide_half_even;
use sublet_core::organization::OrganizationClass;
use sublet_core::supplier::{CostVersion, DataConsent, ExternalSupply, Purchase, SupplierPolicy, SupplierTerms};
use sublet_core::supply::{Audience, EngineKind, ReplicaSource};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{Measured, Outcome, UsageRecord, UsageSink};
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Timestamp, TokenCount};
use sublet_money::account::{AccountKind, CostKind, LedgerAccount};
use sublet_testkit::database::MODEL;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{TestCloud, on_both_databases};

/// Nano-units for a million tokens: fractions of a nano-unit for each.
const INPUT: i64 = 123_457_001;
const OUTPUT: i64 = 654_321_007;

fn operator() -> Call {
    Call::once(Actor::system())
}

/// A supplier with one replica.
struct Bought {
    supplier: OrganizationId,
    model: ModelId,
    replica: ReplicaId,
}

async fn supplier_in(cloud: &TestCloud, currency: Currency) -> OrganizationId {
    let (class, time_zone) = (OrganizationClass::Supplier, "America/New_York".to_owned());
    let new = NewOrganization { name: "Maker".to_owned(), class, currency, time_zone, credit_limit: Nanos::ZERO };
    created(cloud.cloud.create_organization(&operator(), &new).await).0.id
}

fn replica_of(model: &ModelId, supplier: Option<&OrganizationId>) -> NewReplica {
    let terms = |supplier: &OrganizationId| SupplierTerms {
        supplier: supplier.clone(),
        data: SupplierPolicy::default(),
        margin_min: Default::default(),
    };
    NewReplica {
        model: model.clone(),
        base_url: "http://127.0.0.1:9/v1".parse().unwrap(),
        upstream_model: "m".to_owned(),
        secret: None,
        engine: EngineKind::OpenAi,
        kv_events: None,
        in_flight_max: 1,
        source: if supplier.is_some() { ReplicaSource::Supplier } else { ReplicaSource::Fleet },
        terms: supplier.map(terms),
    }
}

async fn buy_from(cloud: &TestCloud, currency: Currency) -> Bought {
    let supplier = supplier_in(cloud, currency).await;
    let (context_window, audience) = (TokenCount::new(100), Audience::Everyone);
    let new = NewRemoteModel {
        name: "far/mini".to_owned(),
        owned_by: "maker".to_owned(),
        context_window,
        output_max: None,
        audience,
        tokenizer: None,
    };
    let model = created(cloud.cloud.create_remote_model(&operator(), new, &[]).await).id;
    let replica = created(cloud.cloud.create_replica(&operator(), replica_of(&model, Some(&supplier))).await).replica.id;
    Bought { supplier, model, replica }
}

fn cost_of(replica: &ReplicaId) -> NewCost {
    NewCost {
        replica: replica.clone(),
        currency: None,
        effective_at: None,
        input: Nanos::new(INPUT),
        cached_input: Some(Nanos::ZERO),
        output: Nanos::new(OUTPUT),
    }
}

async fn set_cost(cloud: &TestCloud, new: NewCost) -> CostVersion {
    created(cloud.cloud.set_cost(&operator(), new).await).cost.version().clone()
}

/// One gateway session that spends from one slice.
struct Session<'a> {
    cloud: &'a TestCloud,
    port: GatewayPort,
    gateway: GatewayId,
    fence: i64,
    access: std::sync::Arc<Access>,
    slice: SliceId,
}

impl<'a> Session<'a> {
    async fn start(cloud: &'a TestCloud) -> Self {
        let gateway: GatewayId = "gw_1".parse().unwrap();
        let fence = cloud.cloud.start_gateway(&gateway).await.unwrap();
        let port = GatewayPort::new(cloud.cloud.clone(), gateway.clone());
        let access = port.authenticate(&cloud.keys.project).await.unwrap();
        let slice: SliceId = cloud.cloud.ids().mint();
        let (key, unit) = (access.key.clone(), Nanos::new(1_000_000_000));
        let slice_target = SliceTarget::Open(slice.clone());
        let (gateway_id, class) = (gateway.clone(), SpendClass::default());
        let request =
            SliceRequest { gateway: gateway_id, fence, key, class, slice: slice_target, wanted: unit, least: unit, is_final: true };
        port.grant_slice(request).await.unwrap();
        Self { cloud, port, gateway, fence, access, slice }
    }

    /// A request that was served by a supplier, and charged for so many tokens.
    fn record(&self, charged: (i64, i64), purchases: Vec<Purchase>) -> UsageRecord {
        let now = self.cloud.now();
        let prices = self.port.prices(&self.access, (MODEL, ServiceTier::Default), now).unwrap();
        UsageRecord {
            tier: ServiceTier::Default,
            request: self.cloud.cloud.ids().mint::<RequestId>(),
            attempt: 1,
            gateway: self.gateway.clone(),
            fence: self.fence,
            slice: self.slice.clone(),
            key: self.access.key.clone(),
            project: self.access.project.clone(),
            organization: self.access.organization.clone(),
            model: MODEL.to_owned(),
            route: "/v1/chat/completions".to_owned(),
            price_version: prices.version.clone(),
            admitted_at: now,
            first_token_at: Some(now),
            finished_at: now,
            tokens: tokens(charged),
            outcome: Outcome::Completed,
            measured: Measured::Engine,
            client_retry: 0,
            line: None,
            replica: purchases.last().map(|bought| bought.replica.clone()),
            purchases,
        }
    }

    async fn settle(&self, records: &[UsageRecord]) -> (u64, u64, u64) {
        let report = self.cloud.cloud.settle(records).await.unwrap();
        (report.settled, report.duplicate, report.quarantined)
    }

    async fn owed_to(&self, supplier: &OrganizationId) -> [i64; 2] {
        let accounts = self.cloud.cloud.list_ledger_accounts(&Actor::system(), "").await.unwrap();
        [AccountKind::Costs(CostKind::Upstream), AccountKind::AccruedCosts(CostKind::Upstream)].map(|kind| {
            let account = LedgerAccount::customer(kind, supplier);
            let found = accounts.iter().find(|stored| stored.account == account);
            found.map_or(0, |stored| stored.totals.balance(kind.normal_side()).unwrap().get())
        })
    }
}

fn tokens((input, output): (i64, i64)) -> TokenUsage {
    TokenUsage { input: TokenCount::new(input), cached_input: TokenCount::ZERO, output: TokenCount::new(output) }
}

fn purchase(replica: &ReplicaId, cost: &CostVersion, bought: (i64, i64)) -> Purchase {
    Purchase { replica: replica.clone(), cost: cost.clone(), tokens: tokens(bought), measured: Measured::Engine }
}

/// What tokens of a line cost when they are rounded once.
fn rounded(price: i64, count: i64) -> i64 {
    i64::try_from(divide_half_even(i128::from(price) * i128::from(count), 1_000_000)).unwrap()
}

const EVER: (Timestamp, Timestamp) = (Timestamp::EPOCH, Timestamp::from_seconds(10_000_000_000));

on_both_databases! {
    async fn purchases_add_up_to_their_lines_however_they_are_batched_and_repeated(cloud: &TestCloud) {
        let bought = buy_from(cloud, Currency::EUR).await;
        let cost = set_cost(cloud, cost_of(&bought.replica)).await;
        let session = Session::start(cloud).await;
        let sizes: Vec<(i64, i64)> = (1..40).map(|step| (step * 37 % 101 + 1, step * 53 % 89 + 1)).collect();
        let records: Vec<UsageRecord> =
            sizes.iter().map(|size| session.record(*size, vec![purchase(&bought.replica, &cost, *size)])).collect();
        // The first ones alone, then a batch with some of them again, then the others from the last to the first.
        assert_eq!(session.settle(&records[..1]).await, (1, 0, 0));
        assert_eq!(session.settle(&records[..17]).await, (16, 1, 0));
        let rest: Vec<UsageRecord> = records[17..].iter().rev().cloned().collect();
        assert_eq!(session.settle(&rest).await, (22, 0, 0));
        assert_eq!(session.settle(&records).await, (0, 39, 0));
        let (input, output) = sizes.iter().fold((0, 0), |sum, size| (sum.0 + size.0, sum.1 + size.1));
        let owed = rounded(INPUT, input) + rounded(OUTPUT, output);
        assert_eq!(session.owed_to(&bought.supplier).await, [owed, owed]);
        let margins = cloud.cloud.margins(&Actor::system(), EVER.0, EVER.1).await.unwrap();
        let [line] = margins.as_slice() else { panic!("{margins:?}") };
        assert_eq!((line.purchases, line.unsold, line.input_tokens, line.output_tokens), (39, 0, input, output));
        assert_eq!((line.cost, line.revenue), (Nanos::new(owed), Nanos::new(input * 150 + output * 600)));
    }

    async fn a_failure_that_counted_is_our_cost_and_nobodys_charge(cloud: &TestCloud) {
        let bought = buy_from(cloud, Currency::EUR).await;
        let cost = set_cost(cloud, cost_of(&bought.replica)).await;
        let session = Session::start(cloud).await;
        let failed = session.record((0, 0), vec![purchase(&bought.replica, &cost, (1_000, 10))]);
        let failed = UsageRecord { replica: None, outcome: Outcome::ServerStopped, ..failed };
        assert_eq!(session.settle(std::slice::from_ref(&failed)).await, (1, 0, 0));
        assert_eq!(session.settle(std::slice::from_ref(&failed)).await, (0, 1, 0));
        let owed = rounded(INPUT, 1_000) + rounded(OUTPUT, 10);
        assert_eq!(session.owed_to(&bought.supplier).await, [owed, owed]);
        let line = cloud.cloud.margins(&Actor::system(), EVER.0, EVER.1).await.unwrap().remove(0);
        assert_eq!((line.purchases, line.unsold, line.revenue), (1, 1, Nanos::ZERO));
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let usage = cloud.cloud.usage(&project, None).await.unwrap();
        assert_eq!((usage.total, usage.models.len()), (Nanos::ZERO, 0), "it is no usage of the customer");
        let returned = SliceReturn { slice: session.slice.clone(), fence: session.fence, records: 1 };
        assert!(session.port.return_slice(returned).await.is_ok(), "its record counts in the slice");
        let why = cloud.cloud.why(&Actor::system(), failed.request.as_str()).await.unwrap();
        assert!(why.facts.iter().any(|fact| fact.label == "owed" && fact.value.contains("EUR")), "{why:?}");
        let own = cloud.cloud.why(&project, failed.request.as_str()).await.unwrap();
        assert!(own.facts.iter().all(|fact| fact.label != "owed"), "costs are not the customer's business");
    }

    async fn what_has_no_known_cost_waits_and_is_never_free(cloud: &TestCloud) {
        let bought = buy_from(cloud, Currency::EUR).await;
        let cost = set_cost(cloud, cost_of(&bought.replica)).await;
        let session = Session::start(cloud).await;
        let unknown = session.record((10, 10), vec![purchase(&bought.replica, &CostVersion("0".into()), (10, 10))]);
        let other: ReplicaId = "rep_0".parse().unwrap();
        let foreign = session.record((10, 10), vec![purchase(&other, &cost, (10, 10))]);
        let good = session.record((10, 10), vec![purchase(&bought.replica, &cost, (10, 10))]);
        assert_eq!(session.settle(&[unknown, good, foreign]).await, (1, 0, 2));
        let owed = rounded(INPUT, 10) + rounded(OUTPUT, 10);
        assert_eq!(session.owed_to(&bought.supplier).await, [owed, owed]);
    }

    async fn a_new_cost_begins_a_new_line_and_the_past_keeps_its_own(cloud: &TestCloud) {
        let bought = buy_from(cloud, Currency::EUR).await;
        let first = set_cost(cloud, cost_of(&bought.replica)).await;
        let session = Session::start(cloud).await;
        cloud.clock.advance(DurationMs::from_seconds(1));
        let second = set_cost(cloud, NewCost { input: Nanos::new(2 * INPUT), ..cost_of(&bought.replica) }).await;
        let records = [&first, &second, &first].map(|cost| session.record((7, 0), vec![purchase(&bought.replica, cost, (7, 0))]));
        assert_eq!(session.settle(&records).await, (3, 0, 0));
        let owed = rounded(INPUT, 14) + rounded(2 * INPUT, 7);
        assert_eq!(session.owed_to(&bought.supplier).await, [owed, owed]);
        let versions = cloud.cloud.list_costs(&Actor::system(), &bought.replica).await.unwrap();
        assert_eq!(versions.iter().map(|stored| stored.cost.version()).collect::<Vec<_>>(), [&first, &second]);
        // Gone is the replica, not what it cost.
        cloud.cloud.delete_replica(&Actor::system(), &bought.replica).await.unwrap();
        let late = session.record((7, 0), vec![purchase(&bought.replica, &second, (7, 0))]);
        assert_eq!(session.settle(&[late]).await, (1, 0, 0));
    }

    async fn what_is_wrong_with_a_cost_or_its_terms_is_said(cloud: &TestCloud) {
        let bought = buy_from(cloud, Currency::EUR).await;
        let refused = async |new: NewCost| cloud.cloud.set_cost(&operator(), new).await.err().map(|error| error.code());
        let cost = || cost_of(&bought.replica);
        let usd = NewCost { currency: Some(Currency::USD), ..cost() };
        assert_eq!(refused(usd).await, Some(ErrorCode::CurrencyMismatch));
        let past = NewCost { effective_at: Some(Timestamp::EPOCH), ..cost() };
        assert_eq!(refused(past).await, Some(ErrorCode::InvalidPrice));
        assert_eq!(refused(NewCost { output: Nanos::new(-1), ..cost() }).await, Some(ErrorCode::InvalidPrice));
        set_cost(cloud, cost()).await;
        assert_eq!(refused(cost()).await, Some(ErrorCode::InvalidPrice), "another one at the same instant");
        let own = created(cloud.cloud.create_replica(&operator(), replica_of(&bought.model, None)).await).replica.id;
        assert_eq!(refused(cost_of(&own)).await, Some(ErrorCode::Conflict));
        // Nothing is sold in the currency of this one.
        let foreign = supplier_in(cloud, Currency::USD).await;
        let foreign = created(cloud.cloud.create_replica(&operator(), replica_of(&bought.model, Some(&foreign))).await).replica.id;
        assert_eq!(refused(cost_of(&foreign)).await, Some(ErrorCode::CurrencyMismatch));

        let make = async |new: NewReplica| cloud.cloud.create_replica(&operator(), new).await.err().map(|error| error.code());
        let nameless = NewReplica { terms: None, ..replica_of(&bought.model, Some(&bought.supplier)) };
        assert_eq!(make(nameless).await, Some(ErrorCode::InvalidRequest));
        let customer = cloud.keys.external_organization.clone();
        assert_eq!(make(replica_of(&bought.model, Some(&customer))).await, Some(ErrorCode::InvalidRequest));
        let change = async |id: &ReplicaId, supplier: &OrganizationId| {
            let terms = TermsChange { supplier: Some(supplier.clone()), ..TermsChange::default() };
            let change = ReplicaChange { terms, ..ReplicaChange::default() };
            cloud.cloud.change_replica(&Actor::system(), id, change).await.err().map(|error| error.code())
        };
        assert_eq!(change(&bought.replica, &customer).await, Some(ErrorCode::Conflict));
        assert_eq!(change(&own, &bought.supplier).await, Some(ErrorCode::Conflict));
        assert_eq!(change(&bought.replica, &bought.supplier).await, None);
    }

    async fn a_call_that_is_repeated_sets_one_cost(cloud: &TestCloud) {
        let bought = buy_from(cloud, Currency::EUR).await;
        let call = Call::under_key(Actor::system(), "SetReplicaCost", "k", "same").unwrap();
        let first = created(cloud.cloud.set_cost(&call, cost_of(&bought.replica)).await);
        let again = cloud.cloud.set_cost(&call, cost_of(&bought.replica)).await.unwrap();
        assert_eq!(again, Answer::Replayed(first.cost.version().0.to_string()));
    }

    async fn only_an_organizations_own_admin_says_who_may_see_its_data(cloud: &TestCloud) {
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let any = DataConsent { external: ExternalSupply::Any, regions: vec!["eu".parse().unwrap(), "eu".parse().unwrap()] };
        for other in [&project, &Actor::system()] {
            assert_eq!(cloud.cloud.set_data_consent(other, any.clone()).await.unwrap_err().code(), ErrorCode::WrongKeyPlane);
        }
        let gateway: GatewayId = "gw_1".parse().unwrap();
        cloud.cloud.start_gateway(&gateway).await.unwrap();
        let port = GatewayPort::new(cloud.cloud.clone(), gateway);
        assert_eq!(port.authenticate(&cloud.keys.project).await.unwrap().data, DataConsent::default());
        let epoch = port.access_epoch();
        let changed = cloud.cloud.set_data_consent(&admin, any).await.unwrap();
        assert_eq!((changed.data.external, changed.data.regions.len()), (ExternalSupply::Any, 1));
        assert!(port.access_epoch() > epoch, "gateways ask again");
        assert_eq!(port.authenticate(&cloud.keys.project).await.unwrap().data, changed.data);
    }
}
