//! The owner's view: declared costs, a month's margin, and what leaks.

use sublet_cloud::Actor;
use sublet_cloud::credit::NewCredit;
use sublet_cloud::data::{Figures, HourlyCost, SupplyCostDraft};
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::leakage::LeakKind;
use sublet_cloud::margin::MarginReport;
use sublet_core::device::DeviceClass;
use sublet_core::id::{OrganizationId, SiteId};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::usage::{UsageRecord, UsageSink};
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Result};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::CreditTerms;
use sublet_money::price_book::PriceListDraft;
use sublet_money::sku::Quantity;
use sublet_money::supply_cost::month_starts_at;
use sublet_testkit::database::MODEL;
use sublet_testkit::prices;
use sublet_testkit::runner::Manners;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::created;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::places::{BERLIN, Fleet, GENERAL, HOURLY, at, rate_anew};
use crate::world::{UNIT, World, command, wanted};

/// Costs from a month on: 1 kW at 0.30 (0.10 by night), an hour of depreciation for 0.01, and a model's tokens.
pub fn costs(month: &str, rest: &str) -> SupplyCostDraft {
    let text = format!(
        r#"{{"currency":"EUR","month":"{month}","energy":{{"per_kwh":"0.3","time_of_use":{{"zone":"UTC","bands":[
            {{"name":"night","windows":[{{"days":["mon","tue","wed","thu","fri","sat","sun"],"from":"13:00","until":"20:00"}}],
            "model":{{"type":"per_unit","price":"0.1"}}}}]}}}},
            "devices":[{{"kind":"cpu","power":{{"busy_watts":100,"idle_watts":10}},
            "depreciation":{{"price":"87.6","residual":"0","months":12}}}}],
            "models":[{{"model":"{MODEL}","input":"0.05","cached_input":"0","output":"{rest}"}}]}}"#
    );
    serde_json::from_str(&text).expect("costs")
}

pub async fn publish(cloud: &TestCloud, draft: SupplyCostDraft) -> Result<String> {
    match cloud.cloud.publish_supply_costs(&Call::once(Actor::system()), draft).await? {
        Answer::New(stored) => Ok(stored.cost.version().to_owned()),
        Answer::Replayed(text) => Ok(text),
    }
}

async fn report(cloud: &TestCloud, month: &str) -> MarginReport {
    let month = Some(month.parse().expect("a month"));
    cloud.cloud.margin_report(&Actor::system(), month, Some(Currency::EUR)).await.expect("a report")
}

/// A job of so many seconds, to its end.
async fn run_for(world: &World<'_>, actor: &Actor, seconds: i64) -> String {
    let run = world.run_as(actor, wanted(1, NoticeClass::N2m), command("x")).await.expect("a run");
    world.pass().await;
    world.live(seconds, 30).await;
    world.runner.exit(&world.attempt(&run.job.job.id).await, Exit::Code { code: 0 });
    world.pass().await;
    run.job.job.id.to_string()
}

async fn settle(cloud: &TestCloud, session: &Session, output: i64) -> UsageRecord {
    let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
    let record = session.record(&grant.slice, 0, output);
    let report = cloud.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
    assert_eq!(report.settled, 1);
    session.give_back(&grant.slice, 1).await.expect("given back");
    record
}

fn of(report: &MarginReport, sku: &str, internal: bool) -> Figures {
    let lines = report.made.lines.iter().filter(|line| line.internal == internal && line.sku.to_string() == sku);
    Figures::of(lines).expect("figures")
}

async fn execute(cloud: &TestCloud, sql: &'static str) {
    let done = cloud.cloud.store().write((), |(), tx| Box::pin(async move { tx.execute(sql, &[]).await })).await;
    assert!(done.expect("it is done") > 0, "nothing was changed by {sql}");
}

async fn leaks(cloud: &TestCloud, served: &[String]) -> Vec<LeakKind> {
    let found = cloud.cloud.leakage(&Actor::system(), served).await.expect("a report");
    let mut kinds: Vec<LeakKind> = found.leaks.iter().map(|leak| leak.kind).collect();
    kinds.dedup();
    kinds
}

/// The fourth to the fifteenth month since the beginning of 2026.
fn month_name(place: i64) -> String {
    if place <= 12 { format!("2026-{place:02}") } else { format!("2027-{:02}", place - 12) }
}

/// Where the one kind of device has a depreciation, the owner's team is paid half a unit for an hour of it instead.
fn with_transfer_price(mut draft: SupplyCostDraft) -> SupplyCostDraft {
    draft.devices[0].depreciation = None;
    draft.devices[0].transfer_price = Some(HourlyCost(Nanos::new(UNIT / 2)));
    draft
}

/// What was earned at home, in Berlin, and at no site, once it is seen that this is all of it.
fn by_site(made: &MarginReport) -> [Figures; 3] {
    let (mut sum, whole) = (Figures::default(), made.figures(false).expect("figures"));
    for figures in made.made.sites.values() {
        assert_eq!(figures.quantity, Quantity::ZERO);
        sum.revenue = sum.revenue.checked_add(figures.revenue).expect("a sum");
        sum.without_cost = sum.without_cost.checked_add(figures.without_cost).expect("a sum");
        sum.costs.add(&figures.costs).expect("a sum");
    }
    assert_eq!(Figures { quantity: whole.quantity, ..sum }, whole, "sites add up to {}", made.month);
    [Some("site_local"), Some("site_berlin"), None].map(|site| {
        let site: Option<SiteId> = site.map(|site| site.parse().expect("a site"));
        made.made.sites.get(&site).copied().unwrap_or_default()
    })
}

/// What makes each kind of leak, and what mends it.
fn breaks() -> Vec<(LeakKind, &'static str, &'static str)> {
    let text = include_str!("../../../sublet-store/tests/leaks.sql");
    let one = |part: &'static str| {
        let (name, statements) = part.split_once('\n').expect("a name");
        let (wrong, mended) = statements.split_once(";\n").expect("two statements");
        let kind = LeakKind::ALL.into_iter().find(|kind| kind.as_str() == name).expect("a kind of leak");
        (kind, wrong, mended.trim().trim_end_matches(';'))
    };
    text.split("\n\n-- ").skip(1).map(one).collect()
}

on_both_databases! {
    async fn a_month_s_margin_is_its_ledger_s_to_the_last_unit(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        let version = publish(cloud, costs("2026-03", "0.2")).await.expect("published");
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let team = Session::start(&cloud.cloud, &cloud.keys.internal, "gw_2").await;
        settle(cloud, &session, 1_000_000).await;
        settle(cloud, &team, 500_000).await;
        // From noon: an hour by day and half an hour by night.
        run_for(&world, &world.customer, 5_400).await;
        run_for(&world, &world.team, 600).await;
        let promotional = NewCredit { organization: session.access.organization.clone(), kind: CreditKind::Promotional,
            amount: Nanos::new(UNIT), currency: None, reference: "gift".to_owned(), terms: CreditTerms::default() };
        created(cloud.cloud.grant_credit(&Call::once(Actor::system()), &promotional, &|_| Ok(String::new())).await);
        let made = report(cloud, "2026-03").await;
        assert_eq!(made.costs.as_ref().map(|costs| costs.version()), Some(version.as_str()));
        let (sold, used) = (made.figures(false).expect("figures"), made.figures(true).expect("figures"));
        assert_eq!(made.agreement.recognised, made.agreement.booked);
        assert_eq!(made.agreement.posted, sold.revenue.checked_add(used.revenue).expect("a sum"));
        let tokens = of(&made, &format!("tokens/output/{MODEL}"), false);
        assert_eq!((tokens.revenue.get(), tokens.costs.models.get()), (600_000_000, 200_000_000));
        assert_eq!(of(&made, &format!("tokens/output/{MODEL}"), true).costs.models.get(), 100_000_000);
        let time = of(&made, "device/n2m/cpu", false);
        let hours = i128::from(time.quantity.get());
        // A cent an hour, and 0.1 kW at 0.30 until one o'clock and at 0.10 after it.
        let exact = |nanos: i64| hours * i128::from(nanos) / 3_600_000;
        assert!((exact(10_000_000) - i128::from(time.costs.device.depreciation.get())).abs() <= 3, "{time:?}");
        let by_day_only = exact(30_000_000);
        let power = i128::from(time.costs.device.power.get());
        assert!(power < by_day_only && power > by_day_only / 3, "{power} of {by_day_only}");
        // The first customer was welcomed with 25.
        let contra = made.contra[0];
        assert_eq!((contra.promotions.get(), contra.refunds), (26 * UNIT, Nanos::ZERO));
        let margin = sold.revenue.get() - 26 * UNIT - sold.costs.total().expect("a sum").get();
        assert_eq!(made.gross_margin().expect("a margin").get(), margin);
        let cpu = &made.utilisation[&"cpu".parse().expect("a kind")];
        assert!(cpu.of(&[DeviceClass::Lease]) > 5_390_000 && cpu.of(&[DeviceClass::Internal]) > 590_000, "{cpu:?}");
        assert!(cpu.unused_cost.is_some_and(|cost| cost > Nanos::ZERO));
        assert_eq!(report(cloud, "2026-02").await.figures(false).expect("figures"), Figures::default());
    }

    async fn a_year_of_months_adds_up_to_the_income_accounts(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let mut revenue = Nanos::ZERO;
        for place in 4..=15_i64 {
            let name = month_name(place);
            // An hour before the month begins in UTC it has begun in Berlin.
            let starts_at = month_starts_at(name.parse().expect("a month")).expect("a month");
            cloud.clock.set(starts_at.minus(DurationMs::from_hours(1)));
            publish(cloud, costs(&name, &format!("0.{place:02}"))).await.expect("published");
            for tokens in [1, 33_333 * place, 7] {
                settle(cloud, &session, tokens).await;
            }
        }
        for place in 4..=15_i64 {
            let name = month_name(place);
            let made = report(cloud, &name).await;
            let sold = made.figures(false).expect("figures");
            assert_eq!(by_site(&made).map(|site| site.revenue), [Nanos::ZERO, Nanos::ZERO, sold.revenue]);
            assert_eq!(sold.quantity.get(), 33_333 * place + 8, "{name}");
            let exact = i128::from(sold.quantity.get()) * i128::from(place) * 10_000_000;
            let cost = sublet_core::money::divide_half_even(exact, 1_000_000);
            assert_eq!(i128::from(sold.costs.models.get()), cost, "each month has its own costs");
            revenue = revenue.checked_add(sold.revenue).expect("a sum");
            assert_eq!(made.agreement.recognised, made.agreement.booked);
        }
        assert_eq!(report(cloud, "2026-04").await.agreement.booked, revenue);
    }

    async fn sites_add_up_to_the_revenue_and_the_costs_of_each_month_of_a_year(cloud: &TestCloud) {
        let fleet = Fleet::start(cloud, &[(GENERAL, HOURLY), ("starts/cpu", UNIT / 100)]).await;
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let (customer, team) = (&fleet.world.customer, &fleet.world.team);
        let (mut ran, mut last) = (Vec::new(), None);
        for place in 4..=15_i64 {
            let starts_at = month_starts_at(month_name(place).parse().expect("a month")).expect("a month");
            cloud.clock.set(starts_at.minus(DurationMs::from_hours(1)));
            fleet.live(20).await;
            let declared = costs(&month_name(place), "0.2");
            publish(cloud, if place % 2 == 0 { with_transfer_price(declared) } else { declared }).await.expect("published");
            // One name of time at both sites, and since the tenth month a name for each.
            if place == 10 {
                last = Some(prices::publish(&cloud.cloud, &cloud.clock, fleet.list(&[(GENERAL, HOURLY), (BERLIN, 2 * HOURLY)])).await);
            }
            settle(cloud, &session, 333 * place).await;
            let (_, here) = fleet.run_for(customer, at("site_local"), 20 * place).await;
            let (_, there) = fleet.run_for(customer, at("site_berlin"), 40).await;
            fleet.run_for(team, at("site_berlin"), 20).await;
            ran.push((place, [here, there]));
        }
        let mut all = Nanos::ZERO;
        for (place, [here, there]) in &ran {
            let made = report(cloud, &month_name(*place)).await;
            let sites = by_site(&made);
            let tokens = of(&made, &format!("tokens/output/{MODEL}"), false);
            assert_eq!(sites.map(|site| site.revenue.get()), [*here, *there, tokens.revenue.get()], "{place}");
            let [local, berlin, none] = sites.map(|site| site.costs.device);
            let paid = |cost: Nanos| cost > Nanos::ZERO;
            assert!(local.power > berlin.power && paid(berlin.power) && none.total().expect("a sum").is_zero(), "{sites:?}");
            assert_eq!([local, berlin].map(|cost| paid(cost.transfer_price)), [place % 2 == 0; 2], "{sites:?}");
            assert_eq!([local, berlin].map(|cost| paid(cost.depreciation)), [place % 2 == 1; 2], "{sites:?}");
            let used = [false, true].map(|internal| made.figures(internal).expect("figures").revenue);
            all = Nanos::checked_sum([all, used[0], used[1]]).expect("a sum");
            assert_eq!(made.agreement.recognised, made.agreement.booked);
        }
        assert_eq!(report(cloud, "2026-04").await.agreement.booked, all);
        let before = by_site(&report(cloud, "2027-03").await);
        let cheaper = prices::publish(&cloud.cloud, &cloud.clock, fleet.list(&[(GENERAL, HOURLY / 2), (BERLIN, HOURLY / 2)])).await;
        let since = month_starts_at("2027-03".parse().expect("a month")).expect("a month").minus(DurationMs::from_hours(1));
        rate_anew(&fleet, since, (last.expect("a version"), cheaper)).await;
        let [local, berlin, none] = by_site(&report(cloud, "2027-03").await);
        assert_eq!([local.revenue, berlin.revenue], [before[0].revenue, before[1].revenue], "jobs stay where they ran");
        assert!(none.revenue < before[2].revenue, "what was rated anew is of no job");
    }

    async fn costs_are_for_the_last_months_and_the_last_said_holds(cloud: &TestCloud) {
        let first = publish(cloud, costs("2026-03", "0.1")).await.expect("published");
        let second = publish(cloud, costs("2026-03", "0.2")).await.expect("published");
        publish(cloud, costs("2026-06", "0.3")).await.expect("published");
        let listed = cloud.cloud.list_supply_costs(&Actor::system()).await.expect("versions");
        let chain: Vec<_> = listed.iter().map(|stored| (stored.number, stored.cost.content().replaces.clone())).collect();
        assert_eq!(chain[..2], [(1, None), (2, Some(first.clone()))]);
        let in_force = async |month: &str| {
            let found = cloud.cloud.find_supply_costs(&Actor::system(), Currency::EUR, month.parse().expect("a month")).await;
            found.expect("asked").map(|stored| stored.cost.version().to_owned())
        };
        assert_eq!((in_force("2026-02").await, in_force("2026-05").await), (None, Some(second)));
        let usd = SupplyCostDraft { currency: Currency::USD, ..costs("2026-03", "0.1") };
        assert_eq!(publish(cloud, usd).await.expect_err("nothing is sold in it").code(), ErrorCode::CurrencyMismatch);
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        settle(cloud, &session, 10).await;
        // The first look opens an account, the second closes its month.
        cloud.cloud.close_months().await.expect("looked");
        cloud.clock.set(month_starts_at("2026-04".parse().expect("a month")).expect("a month").plus(DurationMs::from_hours(2)));
        assert_eq!(cloud.cloud.close_months().await.expect("looked").closed, 1);
        publish(cloud, costs("2026-03", "0.4")).await.expect("a bill for energy that came late");
        let late = publish(cloud, costs("2025-12", "0.4")).await.expect_err("too long ago");
        assert_eq!((late.code(), late.param_name()), (ErrorCode::InvalidPrice, Some("effective_at")));
        assert_eq!(late.alternatives(), ["2026-01"]);
        let customer = sublet_testkit::tenant::actor(&cloud.cloud, &cloud.keys.admin).await;
        assert!(cloud.cloud.margin_report(&customer, None, None).await.is_err(), "no customer sees it");
        assert!(cloud.cloud.list_supply_costs(&customer).await.is_err());
    }

    async fn prices_below_their_cost_are_named_and_not_refused(cloud: &TestCloud) {
        // Output is sold for 0.60.
        publish(cloud, costs("2026-03", "0.75")).await.expect("published");
        let lists = cloud.cloud.prices().snapshot();
        let list = lists.values().next().expect("a list");
        let version = list.versions().last().expect("a version");
        let entries = version.entries().cloned().collect();
        let draft = PriceListDraft { list: list.id.clone(), currency: list.currency, effective_at: cloud.now(), entries };
        let simulated = cloud.cloud.simulate_prices(&Actor::system(), draft, None).await.expect("a simulation");
        let output = format!("tokens/output/{MODEL}");
        let below = simulated.below_cost.iter().find(|below| below.sku.to_string() == output).expect("it is below");
        assert_eq!((below.price.get(), below.cost.get(), below.short.get()), (600_000_000, 750_000_000, 150_000_000));
        assert_eq!(cloud.cloud.prices_below_cost(&Actor::system(), version, cloud.now()).await.expect("asked"), simulated.below_cost);
    }

    async fn each_kind_of_leak_is_found_and_nothing_when_all_is_well(cloud: &TestCloud) {
        let world = World::start(cloud, 2, Manners::Prompt).await;
        crate::starts::publish_start(&world, Some(UNIT / 4)).await;
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        settle(cloud, &session, 100).await;
        run_for(&world, &world.customer, 60).await;
        let running = world.run(wanted(1, NoticeClass::N2m), command("x")).await.expect("a run");
        world.pass().await;
        world.live(30, 10).await;
        let open = session.grant(None, 10, 10).await.expect("credit is there");
        let served = [MODEL.to_owned()];
        assert_eq!(leaks(cloud, &served).await, []);
        for (kind, wrong, mended) in breaks() {
            execute(cloud, wrong).await;
            let found = leaks(cloud, &served).await;
            assert!(found.contains(&kind), "{kind:?} in {found:?}");
            execute(cloud, mended).await;
            assert_eq!(leaks(cloud, &served).await, [], "after {kind:?}");
        }
        let unpriced = [MODEL.to_owned(), "unheard-of".to_owned()];
        let found = cloud.cloud.leakage(&Actor::system(), &unpriced).await.expect("a report").leaks;
        assert_eq!(found.iter().map(|leak| (leak.kind, leak.id.as_str())).collect::<Vec<_>>(), [(LeakKind::ModelWithoutPrice, "unheard-of")]);
        let mut ahead = session.record(&open.slice, 0, 1_000_000);
        ahead.admitted_at = cloud.now().plus(DurationMs::from_hours(48));
        assert_eq!(cloud.cloud.settle(std::slice::from_ref(&ahead)).await.expect("settled").quarantined, 1);
        let found = cloud.cloud.leakage(&Actor::system(), &served).await.expect("a report").leaks;
        let [leak] = &found[..] else { panic!("{found:?}") };
        assert_eq!((leak.kind, leak.id.as_str()), (LeakKind::QuarantinedUsage, ahead.request.as_str()));
        assert_eq!(leak.at_stake, Some((Nanos::new(600_000_000), Currency::EUR)));
        assert_eq!(leak.organization.as_ref().map(OrganizationId::as_str), Some(session.access.organization.as_str()));
        let covered = breaks().len() + 2;
        assert_eq!(covered, LeakKind::ALL.len(), "every kind has its break");
        world.runner.exit(&world.attempt(&running.job.job.id).await, Exit::Code { code: 0 });
        world.pass().await;
    }
}
