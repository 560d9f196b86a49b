//! Device time whose price depends on its site and its isolation.

use std::sync::Arc;

use sublet_cloud::Actor;
use sublet_cloud::compute::{Compute, ComputeSettings};
use sublet_cloud::contract::NewContract;
use sublet_cloud::data::Charge;
use sublet_cloud::idempotency::Call;
use sublet_cloud::job::Run;
use sublet_cloud::offering::NewOffering;
use sublet_cloud::quote::NewQuote;
use sublet_cloud::rerate::NewRerate;
use sublet_core::admission::PriceVersion;
use sublet_core::id::{RerateId, SiteId};
use sublet_core::job::JobState;
use sublet_core::notice::NoticeClass;
use sublet_core::offering::{OfferingChange, OfferingState};
use sublet_core::runner::{DeviceInfo, Exit, IsolationLevel};
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Timestamp};
use sublet_money::committed_quantity::{QuantityStep, QuantityTerms};
use sublet_money::contract::{Commitment, ContractTerms};
use sublet_money::contract_price::{Discount, Discounted, PriceProtection, PriceTerms};
use sublet_money::period::Interval;
use sublet_money::price_book::{PriceEntry, PriceListDraft};
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::{Quantity, SkuFamily, SkuName};
use sublet_store::PageRequest;
use sublet_store::charge;
use sublet_testkit::TestCloud;
use sublet_testkit::on_both_databases;
use sublet_testkit::prices::publish;
use sublet_testkit::runner::{FakeRunner, Manners, cpu_slots, sandbox};
use sublet_testkit::tenant::{actor, created};

use crate::bill::{bill, lines};
use crate::world::{World, command, wanted};

/// 1,000 nano-units for a device-millisecond.
pub const HOURLY: i64 = 3_600_000_000;
pub const GENERAL: &str = "device/n2m/cpu";
pub const BERLIN: &str = "device/site_berlin/n2m/cpu";

/// A fleet of two machines: the world's own, and one with two devices in Berlin.
pub struct Fleet<'a> {
    pub world: World<'a>,
    berlin: (Arc<FakeRunner>, Compute),
}

impl<'a> Fleet<'a> {
    pub async fn start(cloud: &'a TestCloud, prices: &[(&str, i64)]) -> Self {
        let world = World::start(cloud, 1, Manners::Prompt).await;
        let slot = |info: DeviceInfo| DeviceInfo { uuid: format!("berlin-{}", info.uuid), ..info };
        let slots = cpu_slots(2).into_iter().map(slot).collect();
        let runner = FakeRunner::named("berlin", cloud.clock.clone(), slots, (sandbox(), Manners::Prompt));
        let settings = ComputeSettings {
            site: Some("site_berlin".parse().expect("a site")),
            ..ComputeSettings::new("machine-2").expect("settings")
        };
        let compute = Compute::new(cloud.cloud.clone(), runner.clone(), settings);
        compute.register_devices().await.expect("the devices are registered");
        let fleet = Self { world, berlin: (runner, compute) };
        publish(&cloud.cloud, &cloud.clock, fleet.list(prices)).await;
        fleet
    }

    /// The prices in force with these for device time.
    pub fn list(&self, prices: &[(&str, i64)]) -> Vec<PriceEntry> {
        let lists = self.world.cloud.cloud.prices().snapshot();
        let newest = lists.values().next().and_then(|list| list.versions().last()).expect("a version").clone();
        let rest = newest.entries().filter(|entry| !matches!(entry.sku, SkuName::Device { .. })).cloned();
        rest.chain(prices.iter().map(|(name, price)| PriceEntry::per_unit(sku(name), Nanos::new(*price)))).collect()
    }

    async fn pass(&self) {
        self.world.pass().await;
        assert_eq!(self.berlin.1.reconcile().await.errors, Vec::new());
    }

    pub async fn live(&self, seconds: i64) {
        for _ in 0..seconds / 20 {
            self.world.cloud.clock.advance(DurationMs::from_seconds(20));
            self.world.runner.beat();
            self.berlin.0.beat();
            self.pass().await;
        }
    }

    async fn end(&self, run: &Run) -> i64 {
        let attempt = self.world.attempt(&run.job.job.id).await;
        let there = self.berlin.0.live().contains(&attempt);
        let runner = if there { &self.berlin.0 } else { &self.world.runner };
        runner.exit(&attempt, Exit::Code { code: 0 });
        self.pass().await;
        let done = self.world.job(&run.job.job.id).await;
        assert_eq!(done.job.state, JobState::Succeeded);
        done.device_time.get()
    }

    /// A job of so many seconds: what it used in milliseconds, and what it cost.
    pub async fn run_for(&self, who: &Actor, quote: NewQuote, seconds: i64) -> (i64, i64) {
        let run = self.world.run_as(who, quote, command("x")).await.expect("a run");
        self.pass().await;
        self.live(seconds).await;
        let used = self.end(&run).await;
        (used, self.world.job(&run.job.job.id).await.cost.get())
    }

    async fn charges(&self, source: &str) -> Vec<Charge> {
        let read = self.world.cloud.cloud.store().read(source, |source, tx| Box::pin(charge::list_of(tx, source, 1_000)));
        read.await.expect("charges")
    }
}

fn sku(name: &str) -> SkuName {
    name.parse().expect("a sku")
}
pub fn at(site: &str) -> NewQuote {
    NewQuote { site: Some(site.parse().expect("a site")), ..wanted(1, NoticeClass::N2m) }
}

async fn agree(fleet: &Fleet<'_>, pricing: PriceTerms, quantities: Option<QuantityTerms>) {
    let cloud = fleet.world.cloud;
    let (organization, _) = fleet.world.customer.project().expect("a project");
    let amounts = quantities.is_none();
    let terms = ContractTerms {
        billed: None,
        commitments: if amounts { vec![Commitment { from_period: 1, amount: Nanos::ZERO }] } else { Vec::new() },
        covers: if amounts { [SkuFamily::DeviceTime].into() } else { [].into() },
        currency: Currency::EUR,
        exit: None,
        fee: None,
        months: 1,
        payment: None,
        period_months: 1,
        pricing: Some(pricing),
        quantities,
        renewal: None,
        roll_over_periods: 0,
        starts: "2026-03".parse().expect("a month"),
    };
    let new = NewContract { organization: organization.clone(), name: "places".to_owned(), terms, expires_at: None };
    let offer = created(cloud.cloud.offer_contract(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    let hash = &offer.contract.offers[0].version.hash;
    cloud.cloud.accept_contract(&admin, &offer.contract.id, hash).await.expect("accepted");
}

/// Rates what was used since an instant by another version.
pub async fn rate_anew(fleet: &Fleet<'_>, starts_at: Timestamp, (of, to): (PriceVersion, PriceVersion)) -> RerateId {
    let cloud = &fleet.world.cloud.cloud;
    let interval = Interval { starts_at, ends_at: fleet.world.cloud.now() };
    let new = NewRerate { of, to, interval, organization: None, reason: "another price".to_owned() };
    let simulated = created(cloud.simulate_rerate(&Call::once(Actor::system()), &new, &|_| Ok(String::new())).await);
    cloud.apply_rerate(&Actor::system(), &simulated.rerate.id).await.expect("applied").rerate.id
}

/// What was charged for the month's device time in all, and what each name of it would be at other prices.
async fn simulate(fleet: &Fleet<'_>, prices: &[(&str, i64)]) -> (i64, Vec<(String, Option<i64>)>) {
    let cloud = fleet.world.cloud;
    let lists = cloud.cloud.prices().snapshot();
    let list = lists.values().next().expect("a list");
    let entries = fleet.list(prices);
    let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: cloud.now(), entries };
    let month = Some("2026-03".parse().expect("a month"));
    let simulated = cloud.cloud.simulate_prices(&Actor::system(), draft, month).await.expect("a simulation");
    let would_be = simulated.skus.iter().map(|sku| (sku.sku.to_string(), sku.would_be.map(Nanos::get))).collect();
    (simulated.total.charged.get() + simulated.not_sold.get(), would_be)
}

on_both_databases! {
    async fn time_costs_what_its_site_costs_from_the_quote_to_the_bill(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, 2 * HOURLY)]).await;
        let quote = fleet.world.quote(&at("site_berlin")).await.expect("a quote");
        assert_eq!((quote.terms.price_per_hour.get(), quote.terms.hold.get()), (2 * HOURLY, 195_000 * 2_000 + 1));
        let lease = fleet.world.accept(&quote).await.expect("a lease").lease;
        assert_eq!((lease.sku.to_string().as_str(), lease.site.as_str()), (BERLIN, "site_berlin"));
        fleet.world.compute.end_lease(&fleet.world.customer, &lease.id, None).await.expect("ended");
        fleet.pass().await;
        // Where no site is named it is the cheapest that has room, and its price is what is said.
        let anywhere = wanted(1, NoticeClass::N2m);
        let run = fleet.world.run(anywhere.clone(), command("x")).await.expect("a run");
        assert_eq!(run.lease.lease.site.as_str(), "site_local");
        let next = fleet.world.quote(&anywhere).await.expect("a quote");
        assert_eq!((next.terms.site.as_str(), next.terms.price_per_hour.get()), ("site_berlin", 2 * HOURLY));
        let cheap = NewQuote { max_price: Some(Nanos::new(HOURLY)), ..anywhere };
        let refused = fleet.world.quote(&cheap).await.expect_err("only the dear site has room");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::PriceAboveMaximum, Some("maximum_price")));
        fleet.pass().await;
        fleet.live(300).await;
        let here = fleet.end(&run).await;
        let (there, cost) = fleet.run_for(&fleet.world.customer, at("site_berlin"), 200).await;
        assert_eq!(cost, there * 2_000);
        fleet.world.assert_invariants().await;
        let lines = lines(&bill(fleet.world.cloud).await.0);
        assert_eq!(lines, [(GENERAL.to_owned(), here * 1_000), (BERLIN.to_owned(), there * 2_000)]);
    }

    async fn what_is_shown_and_what_is_refused_says_the_price_of_each_site(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, 2 * HOURLY), ("device/n0/cpu", HOURLY / 2)]).await;
        let rows = fleet.world.compute.list_availability(&fleet.world.customer).await.expect("rows");
        let shown: Vec<_> = rows
            .iter()
            .map(|row| (row.sku.to_string(), row.site.as_ref().map(|site| site.to_string()), [row.available_units, row.total_units]))
            .collect();
        let site = |name: &str| Some(name.to_owned());
        assert_eq!(shown, [
            ("device/n0/cpu".to_owned(), None, [2, 3]),
            (BERLIN.to_owned(), site("site_berlin"), [2, 2]),
            (GENERAL.to_owned(), site("site_local"), [1, 1]),
        ]);
        let refused = fleet.world.quote(&NewQuote { units: 2, ..at("site_local") }).await.expect_err("too many");
        assert_eq!(refused.alternatives(), [
            "ask for 1 units: 3.6 EUR per device-hour at site_local",
            "ask at site site_berlin: 7.2 EUR per device-hour at site_berlin",
        ]);
        let refused = fleet.world.quote(&wanted(3, NoticeClass::N2m)).await.expect_err("too many");
        assert_eq!(refused.alternatives(), ["ask for 2 units: 7.2 EUR per device-hour at site_berlin"]);
        // What would be refused for its price is not named.
        let cheap = NewQuote { units: 2, max_price: Some(Nanos::new(HOURLY)), ..at("site_local") };
        let refused = fleet.world.quote(&cheap).await.expect_err("too many");
        assert_eq!(refused.alternatives(), ["ask for 1 units: 3.6 EUR per device-hour at site_local"]);
        // What is sold in Berlin alone is not leased elsewhere, and never moved there in silence.
        publish(&cloud.cloud, &cloud.clock, fleet.list(&[(BERLIN, 2 * HOURLY)])).await;
        let refused = fleet.world.quote(&at("site_local")).await.expect_err("not sold here");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::UnknownPrice, Some("site")));
        assert_eq!(refused.alternatives(), ["ask at another site: 7.2 EUR per device-hour at site_berlin"]);
        let quote = fleet.world.quote(&wanted(1, NoticeClass::N2m)).await.expect("anywhere is there");
        assert_eq!(quote.terms.site.as_str(), "site_berlin");
    }

    async fn what_is_named_instead_of_a_site_without_a_price_is_free_and_affordable(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(BERLIN, 2 * HOURLY)]).await;
        let cheap = NewQuote { max_price: Some(Nanos::new(HOURLY)), ..at("site_local") };
        for (quote, named) in [(at("site_local"), 1), (cheap, 0)] {
            let refused = fleet.world.quote(&quote).await.expect_err("not sold here");
            assert_eq!((refused.code(), refused.alternatives().len()), (ErrorCode::UnknownPrice, named), "{refused:?}");
        }
        for _ in 0..2 {
            fleet.world.run(at("site_berlin"), command("x")).await.expect("a run");
        }
        let refused = fleet.world.quote(&at("site_local")).await.expect_err("not sold here");
        assert_eq!((refused.code(), refused.alternatives().len()), (ErrorCode::UnknownPrice, 0), "Berlin is full: {refused:?}");
    }

    async fn of_sites_that_cost_the_same_the_fullest_machine_is_taken(cloud: &TestCloud) {
        // The names differ, and Berlin comes first by name; the machine here has one device and Berlin two.
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, HOURLY)]).await;
        let quote = fleet.world.quote(&wanted(1, NoticeClass::N2m)).await.expect("a quote");
        assert_eq!(quote.terms.site.as_str(), "site_local");
        let quote = fleet.world.quote(&wanted(2, NoticeClass::N2m)).await.expect("a quote");
        assert_eq!(quote.terms.site.as_str(), "site_berlin");
    }

    async fn isolation_is_priced_as_it_is_demanded_and_not_as_it_is_achieved(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), ("device/sandbox/n2m/cpu", 3 * HOURLY)]).await;
        let (customer, team) = (&fleet.world.customer, &fleet.world.team);
        // The owner demands a sandbox for customers, so that is what they buy, whatever less they ask for.
        for isolation in [None, Some(IsolationLevel::Process), Some(IsolationLevel::Sandbox)] {
            let quote = fleet.world.quote(&NewQuote { isolation, ..wanted(1, NoticeClass::N2m) }).await.expect("a quote");
            assert_eq!((quote.terms.price_per_hour.get(), quote.terms.isolation), (3 * HOURLY, IsolationLevel::Sandbox));
        }
        let (used, cost) = fleet.run_for(customer, wanted(1, NoticeClass::N2m), 100).await;
        assert_eq!(cost, used * 3_000);
        // The machine achieves a sandbox for everybody; the team pays for one only if it asks for one.
        let (used, cost) = fleet.run_for(team, wanted(1, NoticeClass::N2m), 100).await;
        assert_eq!(cost, used * 1_000);
        let sandboxed = NewQuote { isolation: Some(IsolationLevel::Sandbox), ..wanted(1, NoticeClass::N2m) };
        let (used, cost) = fleet.run_for(team, sandboxed.clone(), 100).await;
        assert_eq!(cost, used * 3_000);
        publish(&cloud.cloud, &cloud.clock, fleet.list(&[("device/sandbox/n2m/cpu", HOURLY)])).await;
        let call = Call::once(team.clone());
        let refused = fleet.world.compute.create_quote(&call, &wanted(1, NoticeClass::N2m), &|_| Ok(String::new())).await;
        let refused = refused.expect_err("what is not kept apart has no price");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::UnknownPrice, Some("isolation")));
        assert_eq!(refused.alternatives(), ["ask for isolation sandbox: 3.6 EUR per device-hour"]);
        fleet.world.run_as(team, sandboxed, command("x")).await.expect("as it says");
    }

    async fn a_list_that_leaves_a_place_two_prices_is_refused(cloud: &TestCloud) {
        let prices = [(GENERAL, HOURLY), (BERLIN, HOURLY), ("device/sandbox/n2m/cpu", HOURLY)];
        let fleet = Fleet::start(cloud, &prices[..1]).await;
        let lists = cloud.cloud.prices().snapshot();
        let list = lists.values().next().expect("a list");
        let now = cloud.now().plus(DurationMs::from_seconds(1));
        let draft = |entries| PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: now, entries };
        let call = Call::once(Actor::system());
        let refused = cloud.cloud.publish_prices(&call, &list.name, draft(fleet.list(&prices)), cloud.now()).await;
        let refused = refused.expect_err("which of two?");
        assert_eq!(refused.code(), ErrorCode::InvalidPrice);
        assert_eq!(refused.alternatives(), ["price device/site_berlin/sandbox/n2m/cpu too"]);
    }

    async fn a_discount_and_a_quantity_of_a_kind_are_of_all_its_sites(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, 2 * HOURLY)]).await;
        let (before, cost) = fleet.run_for(&fleet.world.customer, at("site_berlin"), 100).await;
        assert_eq!(cost, before * 2_000);
        let pricing = PriceTerms {
            fixed: vec![PriceEntry::per_unit(sku(GENERAL), Nanos::new(HOURLY / 2))],
            discounts: vec![Discount { off_ppm: 100_000, on: Discounted::Notice(NoticeClass::N0) }],
            ..PriceTerms::default()
        };
        let steps = vec![QuantityStep { from_period: 1, quantity: Quantity::new(3_600_000).expect("an hour") }];
        agree(&fleet, pricing, Some(QuantityTerms { overage: None, sku: sku(GENERAL), steps })).await;
        let mut used = before;
        for site in ["site_berlin", "site_local"] {
            let (millis, cost) = fleet.run_for(&fleet.world.customer, at(site), 100).await;
            assert_eq!(cost, millis * 500, "{site}");
            used += millis;
        }
        let (content, _) = bill(fleet.world.cloud).await;
        let quantity = content.commitment.and_then(|part| part.quantity).expect("a quantity");
        assert_eq!((quantity.counted.get(), quantity.missing.get()), (used, 3_600_000 - used));
    }

    async fn a_protected_price_by_quantity_is_not_split_by_a_new_price_of_a_site(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[]).await;
        let tiered = |name: &str, price: i64| {
            let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(|up_to| Quantity::new(up_to).expect("so many")), price };
            let tiers = vec![tier(Some(100_000), Nanos::new(price)), tier(None, Nanos::new(price / 2))];
            PriceEntry::new(sku(name), PriceModel::Graduated { tiers })
        };
        let with = |entries: Vec<PriceEntry>| fleet.list(&[]).into_iter().chain(entries).collect::<Vec<_>>();
        let old = publish(&cloud.cloud, &cloud.clock, with(vec![tiered(GENERAL, HOURLY)])).await;
        let protection = Some(PriceProtection { list: old, until: None });
        agree(&fleet, PriceTerms { protection, ..PriceTerms::default() }, None).await;
        publish(&cloud.cloud, &cloud.clock, with(vec![tiered(GENERAL, HOURLY), tiered(BERLIN, HOURLY)])).await;
        let (there, _) = fleet.run_for(&fleet.world.customer, at("site_berlin"), 100).await;
        let (here, _) = fleet.run_for(&fleet.world.customer, at("site_local"), 100).await;
        let lines = lines(&bill(fleet.world.cloud).await.0);
        assert_eq!(lines, [(GENERAL.to_owned(), 100_000 * 1_000 + (here + there - 100_000) * 500)]);
    }

    async fn a_list_that_would_split_a_fixed_price_by_quantity_is_refused_with_the_contract(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, HOURLY)]).await;
        let tier = |up_to: Option<i64>, price| Tier { up_to: up_to.map(|up_to| Quantity::new(up_to).expect("so many")), price };
        let tiers = vec![tier(Some(100_000), Nanos::new(HOURLY)), tier(None, Nanos::new(HOURLY / 2))];
        let fixed = vec![PriceEntry::new(sku(GENERAL), PriceModel::Graduated { tiers })];
        agree(&fleet, PriceTerms { fixed, ..PriceTerms::default() }, None).await;
        let lists = cloud.cloud.prices().snapshot();
        let list = lists.values().next().expect("a list");
        let entries = fleet.list(&[(BERLIN, HOURLY), ("device/site_local/n2m/cpu", HOURLY)]);
        let effective_at = cloud.now().plus(DurationMs::from_seconds(1));
        let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at, entries };
        let refused = cloud.cloud.publish_prices(&Call::once(Actor::system()), &list.name, draft, cloud.now()).await;
        let refused = refused.expect_err("two lines would begin anew");
        let named = refused.alternatives().iter().any(|said| said.starts_with("amend the contract ctr_"));
        assert!(named, "{refused:?} {:?}", refused.alternatives());
    }

    async fn time_is_discounted_at_the_site_that_has_a_price(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, 2 * HOURLY)]).await;
        let on = |name: &str, off_ppm| Discount { off_ppm, on: Discounted::Sku(sku(name)) };
        let discounts = vec![on(GENERAL, 100_000), on("device/site_local/n2m/cpu", 250_000)];
        agree(&fleet, PriceTerms { discounts, ..PriceTerms::default() }, None).await;
        let (there, dear) = fleet.run_for(&fleet.world.customer, at("site_berlin"), 100).await;
        assert_eq!(dear, there * 1_800);
        let (here, cheap) = fleet.run_for(&fleet.world.customer, at("site_local"), 100).await;
        assert_eq!(cheap, here * 750);
        let lines = lines(&bill(fleet.world.cloud).await.0);
        assert_eq!(lines, [(BERLIN.to_owned(), dear), ("device/site_local/n2m/cpu".to_owned(), cheap)]);
    }

    async fn a_past_month_is_simulated_and_rated_anew_by_the_price_of_each_site(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY)]).await;
        let starts_at = cloud.now();
        let of = cloud.cloud.prices().snapshot().values().next().and_then(|list| list.versions().last().cloned()).expect("a list");
        let (here, _) = fleet.run_for(&fleet.world.customer, at("site_local"), 200).await;
        let (there, _) = fleet.run_for(&fleet.world.customer, at("site_berlin"), 100).await;
        let prices = [(GENERAL, HOURLY), (BERLIN, HOURLY / 4)];
        let (_, would_be) = simulate(&fleet, &prices).await;
        assert_eq!(would_be, [(GENERAL.to_owned(), Some(here * 1_000)), (BERLIN.to_owned(), Some(there * 250))]);
        let to = publish(&cloud.cloud, &cloud.clock, fleet.list(&prices)).await;
        let applied = rate_anew(&fleet, starts_at, (of.version().clone(), to)).await;
        let moved = fleet.charges(applied.as_str()).await;
        let mut moved: Vec<_> = moved.iter().map(|charge| (charge.sku.to_string(), charge.quantity.get(), charge.amount.get())).collect();
        moved.sort();
        assert_eq!(moved, [
            (GENERAL.to_owned(), -(here + there), -(here + there) * 1_000),
            (GENERAL.to_owned(), here, here * 1_000),
            (BERLIN.to_owned(), there, there * 250),
        ]);
        let lines = lines(&bill(fleet.world.cloud).await.0);
        assert_eq!(lines.iter().map(|(_, amount)| amount).sum::<i64>(), here * 1_000 + there * 250);
    }

    async fn a_simulation_counts_all_use_once_after_it_was_rated_anew_under_another_name(cloud: &TestCloud) {
        let (general, apart) = ([(GENERAL, HOURLY)], [(GENERAL, HOURLY), (BERLIN, HOURLY / 4)]);
        let fleet = Fleet::start(cloud, &general).await;
        let starts_at = cloud.now();
        let in_force = || cloud.cloud.prices().snapshot().values().next().and_then(|list| list.versions().last().cloned());
        let of = in_force().expect("a list").version().clone();
        let (here, _) = fleet.run_for(&fleet.world.customer, at("site_local"), 200).await;
        let (there, _) = fleet.run_for(&fleet.world.customer, at("site_berlin"), 100).await;
        let by_site = vec![(GENERAL.to_owned(), Some(here * 1_000)), (BERLIN.to_owned(), Some(there * 250))];
        let to = publish(&cloud.cloud, &cloud.clock, fleet.list(&apart)).await;
        rate_anew(&fleet, starts_at, (of, to.clone())).await;
        let charged = here * 1_000 + there * 250;
        assert_eq!(simulate(&fleet, &apart).await, (charged, by_site.clone()), "from the general name to the site's");
        let all = vec![(GENERAL.to_owned(), Some((here + there) * 1_000))];
        assert_eq!(simulate(&fleet, &general).await, (charged, all));
        // What was leased by the name of the site, and is on the general line since.
        let starts_at = cloud.now();
        let (later, _) = fleet.run_for(&fleet.world.customer, at("site_berlin"), 100).await;
        let back = publish(&cloud.cloud, &cloud.clock, fleet.list(&[(GENERAL, HOURLY / 8)])).await;
        rate_anew(&fleet, starts_at, (to, back)).await;
        let by_site = vec![by_site[0].clone(), (BERLIN.to_owned(), Some((there + later) * 250))];
        assert_eq!(simulate(&fleet, &apart).await, (charged + later * 125, by_site), "and back");
    }

    async fn a_team_that_may_displace_customers_goes_where_it_need_not(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, 2 * HOURLY)]).await;
        let (team, anywhere) = (&fleet.world.team, wanted(1, NoticeClass::N2m));
        fleet.world.run(at("site_local"), command("x")).await.expect("a run");
        let there = fleet.world.run_as(team, anywhere.clone(), command("x")).await.expect("a run");
        assert_eq!(there.lease.lease.site.as_str(), "site_berlin", "dearer, and free");
        fleet.world.run_as(team, anywhere.clone(), command("x")).await.expect("a run");
        let displaces = fleet.world.run_as(team, anywhere, command("x")).await.expect("a run");
        assert_eq!(displaces.lease.lease.site.as_str(), "site_local", "nothing is free any more");
    }

    async fn a_machine_moves_once_nothing_of_it_is_leased(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, 2 * HOURLY)]).await;
        let restarted = |site: Option<&str>| {
            let site: Option<SiteId> = site.map(|site| site.parse().expect("a site"));
            let settings = ComputeSettings { site, ..ComputeSettings::new("machine-2").expect("settings") };
            Compute::new(cloud.cloud.clone(), fleet.berlin.0.clone(), settings)
        };
        let moved = |site| restarted(Some(site));
        let run = fleet.world.run(at("site_berlin"), command("x")).await.expect("a run");
        let refused = moved("site_paris").register_devices().await.expect_err("leased in Berlin");
        assert_eq!((refused.code(), refused.alternatives().len()), (ErrorCode::Conflict, 1), "{refused}");
        // Who names no site means the one where it is, leased or not.
        restarted(None).register_devices().await.expect("it is where it was");
        fleet.pass().await;
        fleet.live(40).await;
        fleet.end(&run).await;
        fleet.pass().await;
        restarted(None).register_devices().await.expect("it is where it was");
        let moves = async || {
            let entries = cloud.cloud.list_audit(&Actor::system(), &PageRequest { limit: Some(100), ..PageRequest::default() }).await;
            let entries = entries.expect("the log").items.into_iter().filter(|entry| entry.action == "node.move");
            entries.map(|entry| entry.detail).collect::<Vec<_>>()
        };
        assert_eq!(moves().await, Vec::<String>::new());
        moved("site_paris").register_devices().await.expect("it moved");
        assert_eq!(moves().await, ["machine-2 from site_berlin to site_paris"]);
        restarted(None).register_devices().await.expect("it is in Paris");
        let quote = fleet.world.quote(&at("site_paris")).await.expect("a quote");
        assert_eq!(quote.terms.price_per_hour.get(), HOURLY);
        let refused = fleet.world.quote(&at("site_berlin")).await.expect_err("nothing is left there");
        assert_eq!(refused.code(), ErrorCode::PolicyRefused);
    }

    async fn who_used_a_kind_at_one_site_goes_on_with_all_of_it(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), (BERLIN, HOURLY)]).await;
        fleet.run_for(&fleet.world.customer, at("site_berlin"), 40).await;
        let say = |product: &str, state, ends_at| NewOffering {
            product: product.parse().expect("a product"),
            change: OfferingChange { state, ends_at, successor: None },
            used_within_days: None,
            note: String::new(),
        };
        let end = cloud.now().plus(DurationMs::from_hours(24));
        let retires = say("device/cpu", OfferingState::Retiring, Some(end));
        let record = cloud.cloud.set_offering(&Actor::system(), &retires).await.expect("it is said");
        assert_eq!(record.users, 1);
        let window = Some(DurationMs::from_seconds(600));
        for site in ["site_berlin", "site_local"] {
            fleet.world.quote(&NewQuote { max_duration: window, ..at(site) }).await.expect("it may go on");
            let team = fleet.world.run_as(&fleet.world.team, NewQuote { max_duration: window, ..at(site) }, command("x")).await;
            assert_eq!(team.expect_err("it never used it").code(), ErrorCode::PolicyRefused, "{site}");
        }
    }
}
