//! Prices that change, that depend on the time, and those of a past month under another list.

use sublet_cloud::idempotency::Call;
use sublet_cloud::organization::NewOrganization;
use sublet_cloud::remote_model::{NewRemoteModel, NewReplica};
use sublet_cloud::supplier::NewCost;
use sublet_cloud::{Actor, Cloud};
use sublet_core::admission::{Admission, PriceVersion, SliceClosed, TokenUsage};
use sublet_core::organization::OrganizationClass;
use sublet_core::supplier::{Objection, PerMille, SupplierPolicy, SupplierTerms, TokenMeter};
use sublet_core::supply::{Audience, EngineKind, ReplicaSource};
use sublet_core::tier::ServiceTier;
use sublet_core::usage::{UsageRecord, UsageSink};
use sublet_core::{Currency, DurationMs, Nanos, TokenCount};
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_store::PageRequest;
use sublet_testkit::database::MODEL;
use sublet_testkit::prices::{band, by_time, per_unit, republish};
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{actor, created};
use sublet_testkit::{ManualClock, TestCloud, on_both_databases};

use crate::UNIT;

/// A version from now on in which everything of the version that this process knows costs twice as much.
pub async fn publish_at_double_price(cloud: &Cloud, clock: &ManualClock) -> PriceVersion {
    let doubled = |entry: &PriceEntry| match entry.model {
        PriceModel::PerUnit { price } => PriceEntry::per_unit(entry.sku.clone(), Nanos::new(price.get() * 2)),
        _ => entry.clone(),
    };
    republish(cloud, clock, doubled).await
}

/// The newest version with this flat price of each request of the model at the default tier, or with none.
fn with_flat_price(cloud: &Cloud, price: Option<i64>) -> PriceListDraft {
    let lists = cloud.prices().snapshot();
    let list = lists.values().next().expect("a list");
    let sku: SkuName = format!("requests/default/{MODEL}").parse().expect("a sku");
    let newest = list.versions().last().expect("a version").entries();
    let mut entries: Vec<PriceEntry> = newest.filter(|entry| entry.sku != sku).cloned().collect();
    entries.extend(price.map(|price| PriceEntry::per_unit(sku, Nanos::new(price))));
    PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: cloud.clock().now(), entries }
}

/// A version a second from now in which each request of the model costs so much besides its tokens.
async fn publish_flat_price(cloud: &TestCloud, price: i64) {
    publish_requests_at(cloud, Some(price)).await;
}

pub async fn publish_requests_at(cloud: &TestCloud, price: Option<i64>) {
    cloud.clock.advance(DurationMs::from_seconds(1));
    let draft = with_flat_price(&cloud.cloud, price);
    let name = cloud.cloud.prices().snapshot().values().next().expect("a list").name.clone();
    let (call, at) = (Call::once(Actor::system()), draft.effective_at);
    cloud.cloud.publish_prices(&call, &name, draft, at).await.expect("the list is published");
}

on_both_databases! {
    async fn what_is_admitted_in_a_band_costs_its_price_whenever_it_is_settled(cloud: &TestCloud) {
        let night = || by_time(vec![band("night", &["12:10-12:20".to_owned()], per_unit(UNIT / 10))]);
        republish(&cloud.cloud, &cloud.clock, |entry| PriceEntry { time_of_use: night(), ..entry.clone() }).await;
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let mut records = Vec::new();
        for minutes in [9, 1, 9, 1] {
            cloud.clock.advance(DurationMs::from_seconds(minutes * 60));
            records.push(session.record(&grant.slice, 0, 1_000));
        }
        let asked = |at| {
            let prices = session.port.prices(&session.access, (MODEL, ServiceTier::Default), at).expect("a price");
            prices.output.nanos().get()
        };
        let by_day_and_by_night = [600_000_000, 100_000_000, 100_000_000, 600_000_000];
        assert_eq!(records.iter().map(|record| asked(record.admitted_at)).collect::<Vec<_>>(), by_day_and_by_night);
        // All are settled by day, in two batches.
        cloud.cloud.settle(&records[..3]).await.expect("settled");
        cloud.cloud.settle(&records).await.expect("settled");
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let organization = session.access.organization.clone();
        let drafted = cloud.cloud.draft_invoice(&admin, &organization, None).await.expect("a draft").invoice.content;
        let line = |line: &sublet_money::invoice::InvoiceLine| {
            let band = line.band.as_ref().map_or("-", |band| band.as_str()).to_owned();
            (band, line.quantity.get(), line.charges.amount.get(), line.price.clone())
        };
        let lines: Vec<_> = drafted.lines.iter().map(line).collect();
        assert_eq!(
            lines,
            [
                ("-".to_owned(), 2_000, 1_200_000, "0.6 EUR per 1M tokens".to_owned()),
                ("night".to_owned(), 2_000, 200_000, "0.1 EUR per 1M tokens".to_owned()),
            ]
        );
        let why = cloud.cloud.why(&admin, records[1].request.as_str()).await.expect("why");
        assert!(format!("{why:?}").contains("band of the price"), "{why:?}");
    }

    async fn a_month_is_seen_at_other_prices_and_nothing_changes(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let first = session.record(&grant.slice, 0, 1_000);
        publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        cloud.clock.advance(DurationMs::from_seconds(9 * 60));
        let second = session.record(&grant.slice, 0, 1_000);
        cloud.cloud.settle(&[first, second]).await.expect("settled");
        // A thousand at 0.60 for a million, and after the new list a thousand at 1.20.
        let charged = Nanos::new(600_000 + 1_200_000);
        let simulate = async |change: &dyn Fn(&PriceEntry) -> Option<PriceEntry>, period: Option<&str>| {
            let lists = cloud.cloud.prices().snapshot();
            let list = lists.values().next().expect("a list");
            let entries = list.versions().last().expect("a version").entries().filter_map(change).collect();
            let (list, currency, effective_at) = (list.id.clone(), list.currency, cloud.now());
            let draft = PriceListDraft { list, currency, effective_at, entries };
            let period = period.map(|period| period.parse().expect("a period"));
            cloud.cloud.simulate_prices(&Actor::system(), draft, period).await.expect("a simulation")
        };
        let is_output = |entry: &PriceEntry| entry.sku.to_string() == format!("tokens/output/{MODEL}");
        // Both versions' use is one line: 1,500 at the first tier and 500 at the second.
        let tiers = |entry: &PriceEntry| {
            let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(|to| Quantity::new(to).expect("a bound")), price: Nanos::new(price) };
            let tiers = vec![tier(Some(1_500), 1_000_000_000), tier(None, 200_000_000)];
            Some(if is_output(entry) { PriceEntry::new(entry.sku.clone(), PriceModel::Graduated { tiers }) } else { entry.clone() })
        };
        let tiered = simulate(&tiers, Some("2026-03")).await;
        assert_eq!((tiered.total.charged, tiered.total.would_be), (charged, Nanos::new(1_500_000 + 100_000)));
        let (customers, changed) = &tiered.customers;
        assert_eq!((*customers, changed.len()), (1, 1));
        assert_eq!((&changed[0].organization, changed[0].comparison), (&session.access.organization, tiered.total));
        // The second was admitted at 12:09, in a band that costs nothing.
        let night = || by_time(vec![band("night", &["12:05-12:10".to_owned()], per_unit(0))]);
        let by_night = |entry: &PriceEntry| Some(PriceEntry { time_of_use: night(), ..PriceEntry::new(entry.sku.clone(), per_unit(UNIT)) });
        let timed = simulate(&by_night, Some("2026-03")).await;
        assert_eq!((timed.total.charged, timed.total.would_be), (charged, Nanos::new(1_000_000)));
        assert_eq!(timed.skus.iter().map(|sku| sku.band.is_some()).collect::<Vec<_>>(), [false, true]);
        // What is not sold is told apart, and another month has nothing.
        let only_devices = |entry: &PriceEntry| Some(entry.clone()).filter(|entry| entry.sku.family() == SkuFamily::DeviceTime);
        let unsold = simulate(&only_devices, Some("2026-03")).await;
        assert_eq!((unsold.total.charged, unsold.total.would_be, unsold.not_sold), (Nanos::ZERO, Nanos::ZERO, charged));
        let before = simulate(&tiers, None).await;
        assert_eq!((before.period.to_string(), before.customers.0, before.skus.len()), ("2026-02".to_owned(), 0, 0));
        let lists = cloud.cloud.prices().snapshot();
        assert_eq!(lists.values().map(|list| list.versions().len()).sum::<usize>(), 2, "nothing was published");
    }

    async fn a_request_has_its_flat_price_once_whenever_and_however_often_it_is_settled(cloud: &TestCloud) {
        let (flat, session) = (2_000_000, Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await);
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let without = session.record(&grant.slice, 0, 1_000);
        publish_flat_price(cloud, flat).await;
        let with = [session.record(&grant.slice, 0, 1_000), session.record(&grant.slice, 0, 1_000)];
        let nothing = UsageRecord { tokens: TokenUsage::default(), ..session.record(&grant.slice, 0, 0) };
        let batch = [vec![without], with.to_vec(), vec![nothing]].concat();
        cloud.cloud.settle(&batch[..2]).await.expect("settled");
        cloud.cloud.settle(&batch).await.expect("settled");
        let (tokens, requests) = (3 * 600_000, 2 * flat);
        let released = session.give_back(&grant.slice, 4).await.expect("returned");
        assert_eq!(released, SliceClosed::Released(Nanos::new(UNIT - tokens - requests)));
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let organization = session.access.organization.clone();
        let drafted = cloud.cloud.draft_invoice(&admin, &organization, None).await.expect("a draft").invoice.content;
        let line = drafted.lines.iter().find(|line| line.sku.family() == SkuFamily::ModelRequests).expect("a line of requests");
        assert_eq!((line.quantity.get(), line.charges.amount.get(), line.price.as_str()), (2, requests, "0.002 EUR per request"));
        // Income is kept apart by family, and all of it adds up.
        let accounts = cloud.cloud.list_ledger_accounts(&Actor::system(), "").await.expect("accounts");
        for (family, income) in [(SkuFamily::ModelTokens, tokens), (SkuFamily::ModelRequests, requests)] {
            let path = format!("income:usage:{family}:{organization}");
            let found = accounts.iter().find(|account| account.account.to_string() == path).expect("an account");
            assert_eq!(found.totals.credits.get() - found.totals.debits.get(), income, "{path}");
        }
        let verified = cloud.cloud.verify_ledger(&Actor::system()).await.expect("verified");
        assert!(verified.balanced(), "{:?}", verified.findings);
    }

    async fn a_flat_price_beyond_the_slice_is_quarantined_and_not_dropped(cloud: &TestCloud) {
        publish_flat_price(cloud, UNIT).await;
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        // The tokens alone would fit.
        let report = cloud.cloud.settle(&[session.record(&grant.slice, 0, 1_000)]).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (0, 1));
    }

    async fn lines_that_are_too_much_together_are_quarantined_and_their_batch_goes_on(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let before = session.record(&grant.slice, 0, 1_000);
        publish_flat_price(cloud, i64::MAX).await;
        let report = cloud.cloud.settle(&[session.record(&grant.slice, 0, 1_000), before]).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (1, 1));
        let page = cloud.cloud.list_quarantine(&Actor::system(), &PageRequest::default()).await.expect("a page");
        let reason = page.items[0].quarantine.as_deref().expect("a reason");
        assert!(!reason.contains("has left"), "the sum is refused, and not what the slice lacks: {reason}");
        let released = session.give_back(&grant.slice, 2).await.expect("returned");
        assert_eq!(released, SliceClosed::Released(Nanos::new(UNIT - 600_000)), "a slice counts what is quarantined");
    }

    async fn a_new_flat_price_is_simulated_over_requests_that_had_none(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        // One without any output, one of each kind of token, and one after a flat price came.
        let first = [session.record(&grant.slice, 5, 0), session.record(&grant.slice, 5, 10)];
        let (requests, flat) = (3, 2_000_000);
        publish_flat_price(cloud, flat).await;
        let last = session.record(&grant.slice, 5, 10);
        cloud.cloud.settle(&[first.to_vec(), vec![last]].concat()).await.expect("settled");
        let tokens = 15 * 150 + 20 * 600;
        for (price, would_be) in [(Some(7), tokens + requests * 7), (Some(flat), tokens + requests * flat), (None, tokens)] {
            let draft = with_flat_price(&cloud.cloud, price);
            let simulated = cloud.cloud.simulate_prices(&Actor::system(), draft, Some("2026-03".parse().expect("a period"))).await;
            let simulated = simulated.expect("a simulation");
            assert_eq!((simulated.total.charged.get(), simulated.total.would_be.get()), (tokens + flat, would_be), "{price:?}");
            assert_eq!(simulated.not_sold, Nanos::ZERO);
        }
    }

    /// A supplier's server costs 0.65 for output and has to keep a tenth: 0.72 is below the floor, and 0.73 is not.
    async fn a_simulation_shows_suppliers_below_their_floor_at_each_tier_and_cheapest_hour(cloud: &TestCloud) {
        let operator = || Call::once(Actor::system());
        let (class, time_zone) = (OrganizationClass::Supplier, "UTC".to_owned());
        let new = NewOrganization { name: "Maker".to_owned(), class, currency: Currency::EUR, time_zone, credit_limit: Nanos::ZERO };
        let supplier = created(cloud.cloud.create_organization(&operator(), &new).await).0.id;
        let new = NewRemoteModel {
            name: "far/mini".to_owned(),
            owned_by: "maker".to_owned(),
            context_window: TokenCount::new(100),
            output_max: None,
            audience: Audience::Everyone,
            tokenizer: None,
        };
        let model = created(cloud.cloud.create_remote_model(&operator(), new, &[]).await).id;
        let replica = NewReplica {
            model,
            base_url: "http://127.0.0.1:9/v1".parse().expect("an address"),
            upstream_model: "m".to_owned(),
            secret: None,
            engine: EngineKind::OpenAi,
            kv_events: None,
            in_flight_max: 1,
            source: ReplicaSource::Supplier,
            terms: Some(SupplierTerms {
                supplier,
                data: SupplierPolicy::default(),
                margin_min: PerMille::try_from(100).expect("a share"),
            }),
        };
        let replica = created(cloud.cloud.create_replica(&operator(), replica).await).replica.id;
        let (input, cached_input, output) = (Nanos::new(UNIT / 10), Some(Nanos::ZERO), Nanos::new(650_000_000));
        let cost = NewCost { replica: replica.clone(), currency: None, effective_at: None, input, cached_input, output };
        created(cloud.cloud.set_cost(&operator(), cost).await);
        cloud.clock.advance(DurationMs::from_seconds(1));
        let lists = cloud.cloud.prices().snapshot();
        let list = lists.values().next().expect("a list");
        let floors = async |output: PriceEntry, flex: i64| {
            let price = |name: &str, price| PriceEntry::per_unit(name.parse().expect("a sku"), Nanos::new(price));
            let tokens = [("input", UNIT), ("cached_input", UNIT)].map(|(kind, of)| price(&format!("tokens/{kind}/far/mini"), of));
            let at_flex = [("input", UNIT), ("cached_input", UNIT), ("output", flex)]
                .map(|(kind, of)| price(&format!("tokens/flex/{kind}/far/mini"), of));
            let entries = tokens.into_iter().chain(at_flex).chain([output]).collect();
            let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: cloud.now(), entries };
            let simulated = cloud.cloud.simulate_prices(&Actor::system(), draft, None).await.expect("a simulation");
            let found = simulated.below_floor.iter().map(|below| {
                assert_eq!((below.model.as_str(), &below.replica), ("far/mini", &replica));
                (below.tier, below.objection)
            });
            found.collect::<Vec<_>>()
        };
        let output = |price| PriceEntry::per_unit("tokens/output/far/mini".parse().expect("a sku"), Nanos::new(price));
        let short = |tier| (tier, Objection::Margin(TokenMeter::Output));
        // 0.65 of 0.722222222 is a little more than nine tenths, and of 0.722222223 a little less.
        assert_eq!(floors(output(722_222_223), UNIT).await, []);
        assert_eq!(floors(output(722_222_222), UNIT).await, [short(ServiceTier::Default)]);
        assert_eq!(floors(output(UNIT), 722_222_222).await, [short(ServiceTier::Flex)]);
        let both = floors(output(UNIT / 2), UNIT / 2).await;
        assert!(both.len() == 2 && both.contains(&short(ServiceTier::Default)) && both.contains(&short(ServiceTier::Flex)), "{both:?}");
        // An hour of the week is enough, whenever it is asked.
        let night = by_time(vec![band("night", &["03:00-04:00".to_owned()], per_unit(UNIT / 2))]);
        assert_eq!(floors(PriceEntry { time_of_use: night, ..output(UNIT) }, UNIT).await, [short(ServiceTier::Default)]);
    }
}
