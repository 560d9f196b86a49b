//! The money path on both databases: slices, limits, settlement, holds, invoices, books.
#![cfg(test)]

mod budgets;
mod commitments;
mod compensations;
mod contract_prices;
mod contracts;
mod credits;
mod documents;
mod downloads;
mod drawdowns;
mod exports;
mod failures;
mod fees;
mod files;
mod lost_gateways;
mod metamorphic;
mod months;
mod offerings;
mod payment_terms;
mod prices;
mod project_fees;
mod proofs;
mod rerates;
mod schedules;
mod supporting;
mod tax_reports;
mod taxes;
mod webhooks;
mod year;

use sublet_cloud::hold::HoldOwner;
use sublet_cloud::idempotency::{Answer, Call};
use sublet_cloud::key::NewKey;
use sublet_cloud::limit::{LimitSubject, LimitTarget};
use sublet_cloud::{Actor, credit::NewCredit};
use sublet_core::admission::{Admission, ModelAccess, Narrowing, SliceClosed, SliceTarget, SpendClass, TokenUsage};
use sublet_core::id::SliceId;
use sublet_core::rate::{EndUser, EndUsers, RateLimits};
use sublet_core::usage::{UsageRecord, UsageSink};
use sublet_core::{DurationMs, ErrorCode, Nanos, TokenCount};
use sublet_money::account::CreditKind;
use sublet_money::credit_lot::CreditTerms;
use sublet_money::sku::SkuFamily;
use sublet_store::PageRequest;
use sublet_store::budget::BudgetWindow;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::{actor, created, pay_in};
use sublet_testkit::{TestCloud, on_both_databases};

use crate::prices::publish_at_double_price;

const UNIT: i64 = 1_000_000_000;

async fn set_limit(cloud: &TestCloud, subject: &LimitSubject, window: BudgetWindow, amount: i64) {
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    cloud.cloud.set_limit(&admin, subject, window, Nanos::new(amount)).await.expect("the limit is set");
}

on_both_databases! {
    async fn a_used_slice_becomes_charges_and_its_rest_is_available_again(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, 2 * UNIT).await.expect("credit is there");
        assert_eq!(grant.added, Nanos::new(2 * UNIT));
        let records = [session.record(&grant.slice, 1_000, 500), session.record(&grant.slice, 1, 1)];
        let report = session.cloud.settle(&records).await.expect("settled");
        assert_eq!((report.settled, report.duplicate, report.quarantined), (2, 0, 0));
        let released = session.give_back(&grant.slice, 2).await.expect("returned");
        // 1,001 input tokens at 0.15 and 501 output tokens at 0.60 for a million.
        let spent = 1_001 * 150 + 501 * 600;
        assert_eq!(released, SliceClosed::Released(Nanos::new(2 * UNIT - spent)));
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let balance = cloud.cloud.credit_balance(&admin, &session.access.organization).await.expect("a balance");
        assert_eq!(balance.funds.captured, Nanos::new(spent));
        assert_eq!(balance.funds.sliced, Nanos::ZERO);
    }

    async fn settling_again_changes_nothing_and_other_figures_are_an_error(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let record = session.record(&grant.slice, 10, 10);
        for expected in [(1, 0, 0), (0, 1, 0)] {
            let report = session.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
            assert_eq!((report.settled, report.duplicate, report.quarantined), expected);
        }
        let forged = UsageRecord { tokens: TokenUsage { output: TokenCount::new(9_999), ..record.tokens }, ..record.clone() };
        for _ in 0..2 {
            let report = session.cloud.settle(&[forged.clone(), forged.clone()]).await.expect("settled");
            assert_eq!(report.quarantined, 2);
        }
        let usage = session.cloud.get_request(&Actor::system(), &record.request).await.expect("the request");
        assert_eq!(usage.events[0].record, record);
        assert_eq!(session.give_back(&grant.slice, 3).await.expect("asked"), SliceClosed::Waiting, "two bodies are two records");
        let unspent = Nanos::new(UNIT - 10 * (150 + 600));
        assert_eq!(session.give_back(&grant.slice, 2).await.expect("asked"), SliceClosed::Released(unspent));
    }

    async fn concurrent_grants_never_exceed_the_tightest_nested_limit(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        set_limit(cloud, &LimitSubject::Organization(session.access.organization.clone()), BudgetWindow::Month, 9 * UNIT).await;
        set_limit(cloud, &LimitSubject::Project(session.access.project.clone()), BudgetWindow::Day, 5 * UNIT).await;
        set_limit(cloud, &LimitSubject::Key(session.access.key.clone()), BudgetWindow::Total, 7 * UNIT).await;
        let session = std::sync::Arc::new(session);
        let attempts: Vec<_> = (0..16)
            .map(|_| {
                let session = session.clone();
                tokio::spawn(async move { session.grant(None, UNIT, UNIT).await })
            })
            .collect();
        let mut granted = 0;
        for attempt in attempts {
            match attempt.await.expect("no panic") {
                Ok(grant) => granted += grant.added.get(),
                Err(error) => {
                    assert_eq!(error.code(), ErrorCode::InsufficientQuota, "{error:?}");
                    assert!(error.message().contains(session.access.project.as_str()), "the refusal names the limit: {error}");
                }
            }
        }
        assert_eq!(granted, 5 * UNIT);
    }

    async fn a_slice_asked_for_again_under_its_name_is_the_same_slice(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        set_limit(cloud, &LimitSubject::Key(session.access.key.clone()), BudgetWindow::Total, 10).await;
        let name: SliceId = session.cloud.ids().mint();
        let open = |least, wanted| session.grant_to(SliceTarget::Open(name.clone()), least, wanted);
        let first = open(4, 4).await.expect("granted");
        // The first answer was lost: what it gave is all there for the next who asks, though others have the rest.
        session.grant(None, 6, 6).await.expect("the rest");
        let again = open(3, 8).await.expect("the same");
        assert_eq!((again.slice, again.added, again.granted), (first.slice.clone(), Nanos::new(4), Nanos::new(4)));
        assert_eq!(open(5, 5).await.expect_err("one more is not there").code(), ErrorCode::InsufficientQuota);
        assert_eq!(session.give_back(&name, 0).await.expect("asked"), SliceClosed::Released(Nanos::new(4)));
        assert_eq!(open(3, 3).await.expect_err("it is closed").code(), ErrorCode::Conflict);
        let other = Session::start(&cloud.cloud, &cloud.keys.project, "gw_2").await;
        let stolen = other.grant_to(SliceTarget::Open(name.clone()), 1, 1).await;
        assert_eq!(stolen.expect_err("it is another gateway's").code(), ErrorCode::Conflict);
    }

    async fn a_refusal_names_the_limit_what_was_needed_and_what_is_left(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        set_limit(cloud, &LimitSubject::Key(session.access.key.clone()), BudgetWindow::Month, UNIT / 2).await;
        let error = session.grant(None, UNIT, UNIT).await.expect_err("too much");
        for part in [session.access.key.as_str(), "0.5 a month", "1 needed", "0.5 left"] {
            assert!(error.message().contains(part), "{part}: {error}");
        }
        assert!(error.alternatives()[0].contains("2026-03-31T22:00:00"), "{:?}", error.alternatives());
    }

    async fn a_limit_on_some_requests_leaves_the_others_alone(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let project = LimitSubject::Project(session.access.project.clone());
        let target = |model: Option<&str>, end_users| LimitTarget {
            subject: project.clone(),
            requests: Narrowing { model: model.map(Into::into), end_users },
        };
        let set = async |target: &LimitTarget, amount| {
            cloud.cloud.set_limit(&admin, target.clone(), BudgetWindow::Day, Nanos::new(amount)).await.expect("the limit is set");
        };
        let (by_model, each) = (target(Some("m"), EndUsers::All), target(None, EndUsers::Each));
        set(&by_model, 10).await;
        set(&each, 6).await;
        set(&target(Some("m"), EndUsers::One("bob".into())), 2).await;
        let class = |model: Option<&str>, user: Option<&str>| SpendClass {
            model: model.map(Into::into),
            end_user: user.map(|name| EndUser { name: name.to_owned(), mark: format!("mark of {name}") }),
        };
        let (ann, bob) = (Some("ann"), Some("bob"));
        session.grant(None, UNIT, UNIT).await.expect("other requests are not limited");
        let open = session.grant_for(class(Some("m"), ann), 6).await.expect("of both limits");
        session.grant_for(class(None, ann), 1).await.expect_err("six are all that ann has");
        session.grant_for(class(None, bob), 4).await.expect("bob has his own");
        session.grant_for(class(Some("m"), bob), 3).await.expect_err("bob has two for this model");
        session.grant_for(class(Some("m"), Some("cem")), 5).await.expect_err("four are left for the model");
        session.grant_for(class(Some("m"), bob), 2).await.expect("of three limits");
        let refused = session.grant_for(class(None, ann), 1).await.expect_err("six are all that ann has");
        assert_eq!(refused.param_name(), Some("user"));
        let refused = session.grant_for(class(Some("m"), Some("cem")), 3).await.expect_err("two are left");
        assert_eq!(refused.param_name(), Some("model"));
        assert!(refused.message().contains(&format!("{} model=m (0.00000001 a day)", session.access.project)), "{refused}");
        assert_eq!(session.give_back(&open.slice, 0).await.expect("asked"), SliceClosed::Released(Nanos::new(6)));
        session.grant_for(class(Some("m"), ann), 6).await.expect("all of it is back");
        // A change reaches the budgets of those who have spent already, a removal leaves nothing behind.
        set(&each, 7).await;
        session.grant_for(class(None, ann), 1).await.expect("one more");
        session.grant_for(class(None, ann), 1).await.expect_err("and no more than that");
        let listed = cloud.cloud.list_limits(&admin, Some(&project)).await.expect("limits");
        assert_eq!(listed.len(), 3, "{listed:?}");
        assert_eq!(session.port.authenticate(&cloud.keys.project).await.expect("works").narrow_limits.len(), 3);
        let before = session.grant_for(class(Some("m"), None), 1).await.expect("of the model's limit");
        for target in [&each, &by_model] {
            cloud.cloud.remove_limit(&admin, target.clone(), BudgetWindow::Day).await.expect("removed");
        }
        let free = session.grant_for(class(None, ann), UNIT).await.expect("no limit any more");
        // A limit of the same name is another limit: what is open since before it has nothing to do with it.
        set(&each, 5).await;
        set(&by_model, 5).await;
        let after = session.grant_for(class(Some("m"), ann), 5).await.expect("all of both");
        for slice in [&before.slice, &free.slice, &after.slice] {
            session.give_back(slice, 0).await.expect("given back");
        }
        let again = session.grant_for(class(Some("m"), ann), 5).await.expect("all of both again");
        session.grant_for(class(Some("m"), None), 1).await.expect_err("of five for the model");
        session.give_back(&again.slice, 0).await.expect("given back");
        for (wrong, param) in [(target(Some("a b"), EndUsers::All), "model"), (target(None, EndUsers::One("".into())), "end_user")] {
            let error = cloud.cloud.set_limit(&admin, wrong, BudgetWindow::Day, Nanos::new(1)).await.expect_err("wrong");
            assert_eq!((error.code(), error.param_name()), (ErrorCode::InvalidRequest, Some(param)));
        }
    }

    async fn a_daily_limit_starts_anew_at_midnight_of_the_account(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        set_limit(cloud, &LimitSubject::Project(session.access.project.clone()), BudgetWindow::Day, UNIT).await;
        let first = session.grant(None, UNIT, UNIT).await.expect("the whole day's limit");
        assert_eq!(first.window_ends_at.expect("a window").to_string(), "2026-03-15T23:00:00.000000Z");
        session.grant(None, 1, 1).await.expect_err("used up");
        cloud.clock.set(first.window_ends_at.expect("a window"));
        session.grant(None, UNIT, UNIT).await.expect("a new day");
        // What is still open of yesterday counts towards yesterday.
        session.grant(Some(&first.slice), 1, 1).await.expect_err("yesterday is used up");
    }

    async fn a_limit_set_later_counts_what_is_open_and_what_was_spent_before(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        session.cloud.settle(&[session.record(&grant.slice, 1_000_000, 0)]).await.expect("settled");
        let subject = LimitSubject::Project(session.access.project.clone());
        set_limit(cloud, &subject, BudgetWindow::Month, UNIT).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let limits = cloud.cloud.list_limits(&admin, Some(&subject)).await.expect("limits");
        assert_eq!((limits[0].1.settled, limits[0].1.reserved), (Nanos::new(150_000_000), Nanos::new(850_000_000)));
        session.grant(None, 1, 1).await.expect_err("all of it is reserved");
        session.give_back(&grant.slice, 1).await.expect("returned");
        assert_eq!(session.grant(None, 1, 850_000_000).await.expect("free again").added, Nanos::new(425_000_000));
        cloud.cloud.remove_limit(&admin, &subject, BudgetWindow::Month).await.expect("removed");
        session.grant(None, 2 * UNIT, 2 * UNIT).await.expect("no limit any more");
    }

    async fn credit_is_a_hard_stop_without_any_limit(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let error = session.grant(None, 26 * UNIT, 26 * UNIT).await.expect_err("only 25 of welcome credit");
        assert_eq!(error.code(), ErrorCode::InsufficientQuota);
        pay_in(&cloud.cloud, &session.access.organization, Nanos::new(UNIT)).await;
        let grant = session.grant(None, 26 * UNIT, 26 * UNIT).await.expect("25 promotional and 1 paid");
        assert_eq!(grant.available, Some(Nanos::ZERO));
        session.grant(None, 1, 1).await.expect_err("nothing is left");
    }

    async fn a_later_session_fences_off_the_earlier_one_and_frees_its_slices(cloud: &TestCloud) {
        let earlier = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = earlier.grant(None, 10 * UNIT, 10 * UNIT).await.expect("credit is there");
        let record = earlier.record(&grant.slice, 100, 100);
        let later = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        assert_eq!(earlier.grant(None, 1, 1).await.expect_err("fenced").code(), ErrorCode::Conflict);
        // The journal of the earlier session is settled first, then the rest goes back.
        assert_eq!(later.cloud.settle(&[record]).await.expect("settled").settled, 1);
        assert_eq!(later.cloud.close_fenced_slices(&later.gateway, later.fence).await.expect("closed"), 1);
        let late = earlier.record(&grant.slice, 1, 1);
        let report = later.cloud.settle(&[late]).await.expect("settled");
        assert_eq!(report.quarantined, 1, "a record against a closed slice is kept and visible, not charged");
        later.grant(None, 20 * UNIT, 20 * UNIT).await.expect("the rest is free");
    }

    async fn a_slice_waits_for_its_records_before_it_closes(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        assert_eq!(session.give_back(&grant.slice, 1).await.expect("asked"), SliceClosed::Waiting);
        session.cloud.settle(&[session.record(&grant.slice, 1, 1)]).await.expect("settled");
        assert!(matches!(session.give_back(&grant.slice, 1).await.expect("asked"), SliceClosed::Released(_)));
        assert_eq!(session.give_back(&grant.slice, 1).await.expect("asked"), SliceClosed::Released(Nanos::ZERO));
    }

    async fn usage_beyond_a_slice_or_without_a_price_is_quarantined_not_zero(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, 1_000, 1_000).await.expect("credit is there");
        let too_much = session.record(&grant.slice, 1_000_000, 0);
        let mut unpriced = session.record(&grant.slice, 1, 1);
        unpriced.model = "no-such-model".to_owned();
        let report = session.cloud.settle(&[too_much, unpriced]).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (0, 2));
        let page = cloud.cloud.list_quarantine(&Actor::system(), &PageRequest::default()).await.expect("a page");
        assert_eq!(page.items.len(), 2);
        assert!(page.items.iter().all(|event| event.quarantine.is_some()));
        // They do not keep the rest of their slice.
        assert_eq!(session.give_back(&grant.slice, 2).await.expect("asked"), SliceClosed::Released(Nanos::new(1_000)));
    }

    async fn a_revoked_key_stops_at_once(cloud: &TestCloud) {
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let (_, project_id) = project.project().expect("a project");
        let new = NewKey { name: "second".to_owned(), models: ModelAccess::All, rates: RateLimits::default(), expires_at: None };
        let created = created(cloud.cloud.create_project_key(&Call::once(admin.clone()), project_id, &new).await);
        let session = Session::start(&cloud.cloud, &created.secret, "gw_1").await;
        let slice = session.grant(None, 1, 1).await.expect("a slice").slice;
        let epoch = session.port.access_epoch();
        cloud.cloud.revoke_key(&admin, &created.key.id).await.expect("revoked");
        assert!(session.port.access_epoch() > epoch, "caches of access are told");
        let error = session.port.authenticate(&created.secret).await.expect_err("revoked");
        assert_eq!(error.code(), ErrorCode::InvalidApiKey);
        assert_eq!(session.grant(None, 1, 1).await.expect_err("revoked").code(), ErrorCode::InvalidApiKey);
        assert_eq!(session.grant(Some(&slice), 1, 1).await.expect_err("revoked").code(), ErrorCode::InvalidApiKey);
        session.give_back(&slice, 0).await.expect("given back");
    }

    async fn a_key_revoked_in_one_process_stops_in_the_others(cloud: &TestCloud) {
        let other = cloud.another(2).await;
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let session = Session::start(&other, &cloud.keys.project, "gw_2").await;
        let epoch = session.port.access_epoch();
        other.follow().await.expect("followed");
        assert_eq!(session.port.access_epoch(), epoch, "nothing has changed, so caches stay");
        cloud.cloud.revoke_key(&admin, project.key.as_ref().expect("a key")).await.expect("revoked");
        other.follow().await.expect("followed");
        assert!(session.port.access_epoch() > epoch, "caches of access are told");
        assert!(session.port.authenticate(&cloud.keys.project).await.is_err(), "the key is refused");
    }

    async fn n_a_request_keeps_the_price_it_was_admitted_at_and_the_rest_is_released_at_it(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let before = session.record(&grant.slice, 1_000, 500);
        publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        let after = session.record(&grant.slice, 1_000, 500);
        assert_ne!(before.price_version, after.price_version);
        assert_eq!(session.cloud.settle(&[after, before]).await.expect("settled").settled, 2);
        let once = 1_000 * 150 + 500 * 600;
        let released = session.give_back(&grant.slice, 2).await.expect("returned");
        assert_eq!(released, SliceClosed::Released(Nanos::new(UNIT - 3 * once)), "each at its own price, and nothing is lost");
    }

    async fn prices_published_by_one_process_are_the_others_prices(cloud: &TestCloud) {
        let other = cloud.another(2).await;
        let session = Session::start(&other, &cloud.keys.project, "gw_2").await;
        let old = session.priced_by();
        let version = publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        assert_eq!(session.priced_by(), old, "it has not looked yet");
        let slice = session.grant(None, 1, UNIT).await.expect("a slice").slice;
        assert_eq!(session.priced_by(), version, "it looks at each slice");
        // A third process settles what was admitted under the new version, which it has not read yet.
        let third = cloud.another(3).await;
        let last = publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        other.follow().await.expect("followed");
        let record = session.record(&slice, 10, 10);
        assert_eq!(record.price_version, last);
        let report = third.settle(&[record]).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (1, 0));
    }

    async fn two_processes_that_publish_do_not_take_each_others_number(cloud: &TestCloud) {
        let other = cloud.another(2).await;
        publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        publish_at_double_price(&other, &cloud.clock).await;
        publish_at_double_price(&cloud.cloud, &cloud.clock).await;
        let lists = cloud.cloud.prices().snapshot();
        assert_eq!(lists.values().map(|list| list.versions().len()).collect::<Vec<_>>(), [4]);
    }

    async fn a_top_up_repeated_under_its_key_credits_once(cloud: &TestCloud) {
        let operator = actor(&cloud.cloud, &cloud.keys.operator).await;
        let new = NewCredit {
            organization: cloud.keys.external_organization.clone(),
            kind: CreditKind::Paid,
            amount: Nanos::new(UNIT),
            currency: None,
            reference: "transfer 1".to_owned(),
            terms: CreditTerms::default(),
        };
        let call = Call::under_key(operator.clone(), "credit.grant", "abc", "body").expect("a call");
        let render = |grant: &sublet_store::credit::CreditGrant| Ok(grant.id.to_string());
        let first = created(cloud.cloud.grant_credit(&call, &new, &render).await);
        let again = cloud.cloud.grant_credit(&call, &new, &render).await.expect("the stored answer");
        assert_eq!(again, Answer::Replayed(first.id.to_string()));
        let other = Call::under_key(operator, "credit.grant", "abc", "another body").expect("a call");
        let error = cloud.cloud.grant_credit(&other, &new, &render).await.expect_err("another body");
        assert_eq!(error.code(), ErrorCode::IdempotencyMismatch);
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let balance = cloud.cloud.credit_balance(&admin, &cloud.keys.external_organization).await.expect("a balance");
        assert_eq!(balance.funds.deposited, Nanos::new(26 * UNIT));
    }

    async fn a_hold_is_captured_in_parts_and_its_rest_goes_back(cloud: &TestCloud) {
        let project = actor(&cloud.cloud, &cloud.keys.project).await;
        let (organization, project_id) = project.project().expect("a project");
        set_limit(cloud, &LimitSubject::Project(project_id.clone()), BudgetWindow::Month, 3 * UNIT).await;
        let owner = HoldOwner {
            organization: organization.clone(),
            project: project_id.clone(),
            key: project.key.clone(),
            subject: "lease_1".to_owned(),
            family: SkuFamily::DeviceTime,
        };
        let now = cloud.now();
        let context = (&cloud.cloud, &owner);
        cloud.cloud.store().write(context, move |(cloud, owner), tx| Box::pin(async move {
            cloud.place_hold(tx, owner, Nanos::new(2 * UNIT), now).await.map(|_| ())
        })).await.expect("placed");
        let error = cloud.cloud.store().write(context, move |(cloud, owner), tx| Box::pin(async move {
            let hold = sublet_store::hold::find_open(tx, &owner.subject).await?.expect("the hold");
            cloud.extend_hold(tx, &hold, Nanos::new(2 * UNIT), now).await
        })).await.expect_err("beyond the limit");
        assert_eq!(error.code(), ErrorCode::InsufficientQuota);
        cloud.cloud.store().write(context, move |(cloud, owner), tx| Box::pin(async move {
            let hold = sublet_store::hold::find_open(tx, &owner.subject).await?.expect("the hold");
            cloud.extend_hold(tx, &hold, Nanos::new(UNIT), now).await?;
            let hold = sublet_store::hold::find_open(tx, &owner.subject).await?.expect("the hold");
            let too_much = (SkuFamily::DeviceTime, Nanos::new(4 * UNIT));
            assert!(cloud.capture_hold(tx, &hold, too_much, now).await.is_err(), "nothing runs beyond its hold");
            Ok(())
        })).await.expect("extended");
        cloud.cloud.store().write(context, move |(cloud, owner), tx| Box::pin(async move {
            cloud.release_hold(tx, &owner.subject, now).await?;
            cloud.release_hold(tx, &owner.subject, now).await
        })).await.expect("released");
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let balance = cloud.cloud.credit_balance(&admin, organization).await.expect("a balance");
        assert_eq!((balance.funds.held, balance.funds.available), (Nanos::ZERO, Nanos::new(25 * UNIT)));
    }

    async fn the_invoice_is_the_sum_of_its_charges_and_drafting_again_gives_the_same(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let records: Vec<_> = (1..=40).map(|n| session.record(&grant.slice, n * 7, n * 3)).collect();
        session.cloud.settle(&records).await.expect("settled");
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let organization = &session.access.organization;
        let first = cloud.cloud.draft_invoice(&admin, organization, None).await.expect("a draft");
        let again = cloud.cloud.draft_invoice(&admin, organization, None).await.expect("a draft");
        assert_eq!(first, again);
        let expected: i64 = (1..=40).map(|n| n * 7 * 150 + n * 3 * 600).sum();
        let content = &first.invoice.content;
        assert_eq!(content.subtotal, Nanos::new(expected));
        let usage = cloud.cloud.usage(&admin, None).await.expect("usage");
        assert_eq!(usage.total, content.subtotal);
        let why = cloud.cloud.why(&admin, first.invoice.id.as_str()).await.expect("why");
        assert!(why.summary.contains("Example customer"), "{}", why.summary);
    }

    async fn no_tenant_sees_anothers_requests_keys_or_invoices(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        let record = session.record(&grant.slice, 5, 5);
        session.cloud.settle(std::slice::from_ref(&record)).await.expect("settled");
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        let bill = cloud.cloud.draft_invoice(&admin, &session.access.organization, None).await.expect("a draft");
        let own = session.cloud.get_request(&actor(&cloud.cloud, &cloud.keys.project).await, &record.request).await.expect("own");
        let stranger = actor(&cloud.cloud, &cloud.keys.internal).await;
        for id in [record.request.as_str(), own.charges[0].id.as_str(), bill.invoice.id.as_str()] {
            let error = cloud.cloud.why(&stranger, id).await.expect_err("of another tenant");
            assert!(matches!(error.code(), ErrorCode::NotFound | ErrorCode::WrongKeyPlane), "{id}: {error:?}");
        }
        let error = cloud.cloud.draft_invoice(&stranger, &session.access.organization, None).await.expect_err("of another tenant");
        assert_eq!(error.code(), ErrorCode::WrongKeyPlane);
    }

    async fn the_exported_journal_holds_every_transfer(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
        session.cloud.settle(&[session.record(&grant.slice, 5, 5)]).await.expect("settled");
        let mut export = cloud.cloud.export_ledger(&Actor::system(), sublet_money::export::JournalFormat::Beancount).expect("an export");
        let mut text = String::new();
        while let Some(piece) = export.next().await.expect("a piece") {
            text.push_str(&piece);
        }
        for part in ["credit_granted", "slice_granted", "usage_captured", "0.000003750 EUR"] {
            assert!(text.contains(part), "{part} is missing:\n{text}");
        }
    }
}

#[test]
fn the_duration_of_a_day_is_not_assumed() {
    // Guards the helper used above: 2026-03-29 has 23 hours in Berlin.
    let noon = sublet_core::Timestamp::from_seconds(1_774_778_400);
    let periods = sublet_cloud::budget::periods_at("Europe/Berlin", noon).expect("periods");
    assert_eq!(periods.day.1.since(periods.day.0), DurationMs::from_hours(23));
}
