//! What happens at limits that do not simply stop, what limits tell, and what they foresee.

use std::sync::Arc;

use sublet_cloud::Actor;
use sublet_cloud::data::{AlertBasis, AlertRule, AtLimit, ForecastMethod, SpendAlert};
use sublet_cloud::limit::{LimitChange, LimitSubject};
use sublet_core::admission::SliceTarget;
use sublet_core::usage::UsageSink;
use sublet_core::{DurationMs, ErrorCode, Nanos, Timestamp};
use sublet_money::forecast::Hour;
use sublet_store::PageRequest;
use sublet_store::budget::{Budget, BudgetWindow, Periods};
use sublet_store::limit::{self, SpendLimit};
use sublet_store::spend_alert;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::actor;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::{UNIT, set_limit};

/// A million input tokens.
const MILLION: i64 = 150_000_000;

fn actual(percent: u16) -> AlertRule {
    AlertRule { basis: AlertBasis::Actual, percent }
}
fn forecast(percent: u16) -> AlertRule {
    AlertRule { basis: AlertBasis::Forecast, percent }
}
fn finish(overrun: i64) -> AtLimit {
    AtLimit::FinishThenStop { overrun_max: Nanos::new(overrun) }
}
fn change(amount: i64, at_limit: AtLimit, alerts: &[AlertRule]) -> LimitChange {
    LimitChange { amount: Nanos::new(amount), at_limit: Some(at_limit), alerts: Some(alerts.to_vec()) }
}

async fn set(cloud: &TestCloud, subject: &LimitSubject, window: BudgetWindow, change: LimitChange) {
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    cloud.cloud.set_limit(&admin, subject, window, change).await.expect("the limit is set");
}

async fn budget(cloud: &TestCloud, subject: &LimitSubject) -> Budget {
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    cloud.cloud.list_limits(&admin, Some(subject)).await.expect("limits").remove(0).1
}

/// Spends so many millions of input tokens, and leaves nothing reserved.
async fn spend(session: &Session, millions: i64) {
    let grant = session.grant(None, millions * MILLION, millions * MILLION).await.expect("credit is there");
    let report = session.cloud.settle(&[session.record(&grant.slice, millions * 1_000_000, 0)]).await.expect("settled");
    assert_eq!(report.settled, 1);
    session.give_back(&grant.slice, 1).await.expect("given back");
}

/// All alerts, oldest first.
async fn told(cloud: &TestCloud) -> Vec<SpendAlert> {
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    let mut page = cloud.cloud.list_spend_alerts(&admin, &PageRequest::default()).await.expect("a page").items;
    page.sort_by_key(|alert| (alert.created_at, alert.rule));
    page
}

fn rules(alerts: &[SpendAlert]) -> Vec<AlertRule> {
    alerts.iter().map(|alert| alert.rule).collect()
}

async fn look_later(cloud: &TestCloud, after: DurationMs) -> u64 {
    cloud.clock.advance(after);
    cloud.cloud.tell_spend_alerts().await.expect("looked")
}

const MINUTE: DurationMs = DurationMs::from_seconds(60);

on_both_databases! {
    async fn what_was_admitted_finishes_within_the_overrun_and_later_work_is_refused(cloud: &TestCloud) {
        let session = Arc::new(Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await);
        let subject = LimitSubject::Project(session.access.project.clone());
        set(cloud, &subject, BudgetWindow::Month, change(5 * UNIT, finish(3 * UNIT), &[])).await;
        let all = |calls: Vec<SliceTarget>| {
            let session = Arc::clone(&session);
            async move {
                let tasks: Vec<_> = calls
                    .into_iter()
                    .map(|target| {
                        let session = Arc::clone(&session);
                        tokio::spawn(async move { session.grant_to(target, UNIT, UNIT).await })
                    })
                    .collect();
                let (mut granted, mut refused) = (Vec::new(), 0);
                for task in tasks {
                    match task.await.expect("no panic") {
                        Ok(grant) => granted.push(grant),
                        Err(error) => {
                            assert_eq!(error.code(), ErrorCode::InsufficientQuota, "{error:?}");
                            refused += 1;
                        }
                    }
                }
                (granted, refused)
            }
        };
        let (admitted, refused) = all((0..16).map(|_| SliceTarget::Open(session.cloud.ids().mint())).collect()).await;
        assert_eq!((admitted.len(), refused), (5, 11), "new work ends at the limit");
        assert!(admitted.iter().all(|grant| grant.closed_to_new.is_none()));
        // All five need more to finish, and the overrun is enough for three.
        let (finished, refused) = all(admitted.iter().map(|grant| SliceTarget::Finish(grant.slice.clone())).collect()).await;
        assert_eq!((finished.len(), refused), (3, 2), "never more than was said");
        for grant in &finished {
            let told = grant.closed_to_new.as_ref().expect("new work is told why");
            assert!(told.message().contains(session.access.project.as_str()), "{told}");
        }
        let (more, refused) = all(admitted.iter().map(|grant| SliceTarget::Extend(grant.slice.clone())).collect()).await;
        assert_eq!((more.len(), refused), (0, 5), "new work in an open slice is new work");
        let at_most = budget(cloud, &subject).await;
        assert_eq!(at_most.reserved, Nanos::new(8 * UNIT));
        assert!(at_most.reached_at.is_some());
        for grant in &admitted {
            session.give_back(&grant.slice, 0).await.expect("given back");
        }
        session.grant(None, 5 * UNIT, 5 * UNIT).await.expect("what was not spent is there again, up to the limit");
        session.grant(None, 1, 1).await.expect_err("and not beyond");
    }

    async fn a_soft_limit_counts_and_stops_nothing_and_hides_no_other_limit(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let organization = LimitSubject::Organization(session.access.organization.clone());
        let project = LimitSubject::Project(session.access.project.clone());
        set(cloud, &organization, BudgetWindow::Month, change(MILLION, AtLimit::Soft, &[actual(100)])).await;
        spend(&session, 3).await;
        let soft = budget(cloud, &organization).await;
        assert_eq!((soft.settled, soft.left(), soft.reached_at), (Nanos::new(3 * MILLION), Nanos::ZERO, None));
        set(cloud, &project, BudgetWindow::Month, change(4 * MILLION, finish(2 * MILLION), &[])).await;
        set_limit(cloud, &LimitSubject::Key(session.access.key.clone()), BudgetWindow::Month, 5 * MILLION).await;
        let grant = session.grant(None, MILLION, MILLION).await.expect("of all limits");
        // The key's limit is hard: the project's overrun is not for it.
        session.finish(&grant.slice, MILLION).await.expect("the key has two left");
        let error = session.finish(&grant.slice, 1).await.expect_err("the hard limit stops");
        assert!(error.message().contains(session.access.key.as_str()), "{error}");
    }

    async fn a_threshold_is_told_once_by_however_many_processes_and_again_in_the_next_window(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let subject = LimitSubject::Project(session.access.project.clone());
        let alerts = [actual(50), actual(80), actual(100), actual(150)];
        set(cloud, &subject, BudgetWindow::Month, change(10 * MILLION, AtLimit::Soft, &alerts)).await;
        assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 0);
        spend(&session, 4).await;
        assert_eq!(look_later(cloud, MINUTE).await, 0);
        spend(&session, 1).await;
        let (one, two) = (cloud.another(7).await, cloud.another(8).await);
        cloud.clock.advance(MINUTE);
        let (first, second) = tokio::join!(one.tell_spend_alerts(), two.tell_spend_alerts());
        assert_eq!(first.expect("looked") + second.expect("looked"), 1);
        assert_eq!(rules(&told(cloud).await), [actual(50)]);
        spend(&session, 5).await;
        cloud.clock.advance(MINUTE);
        let (first, second) = tokio::join!(one.tell_spend_alerts(), two.tell_spend_alerts());
        assert_eq!(first.expect("looked") + second.expect("looked"), 2, "two thresholds at once are two alerts");
        // A process that starts later finds what was told.
        cloud.clock.advance(MINUTE);
        assert_eq!(cloud.another(9).await.tell_spend_alerts().await.expect("looked"), 0);
        // A limit that is raised is another limit: its parts are told anew, once.
        set(cloud, &subject, BudgetWindow::Month, Nanos::new(20 * MILLION).into()).await;
        assert_eq!(look_later(cloud, MINUTE).await, 1);
        assert_eq!(look_later(cloud, MINUTE).await, 0);
        let last = told(cloud).await.pop().expect("an alert");
        assert_eq!((last.rule, last.amount, last.settled), (actual(50), Nanos::new(20 * MILLION), Nanos::new(10 * MILLION)));
        cloud.clock.set(last.ends_at.expect("an end"));
        assert_eq!(look_later(cloud, MINUTE).await, 0, "a new month begins at zero");
        // The slices of the month before are over.
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_2").await;
        spend(&session, 10).await;
        assert_eq!(look_later(cloud, MINUTE).await, 1);
        assert_eq!(told(cloud).await.len(), 5);
        let mail = cloud.cloud.list_mail(&Actor::system(), None, &PageRequest::default()).await.expect("mail").items;
        assert_eq!(mail.len(), 5, "each alert is one mail");
        assert!(mail.iter().all(|mail| mail.kind == "spend_alert" && mail.organization.as_ref() == Some(&session.access.organization)));
        assert!(mail.iter().any(|mail| mail.text.contains("has reached 80 percent spent.\n\nSpent: 1.5 EUR\n")), "{mail:?}");
    }

    async fn a_limit_that_stopped_work_is_reached_though_the_next_piece_did_not_fit(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let subject = LimitSubject::Key(session.access.key.clone());
        set(cloud, &subject, BudgetWindow::Month, change(2 * MILLION + 5, AtLimit::Hard, &[actual(90), actual(100)])).await;
        spend(&session, 1).await;
        assert_eq!(look_later(cloud, MINUTE).await, 0);
        session.try_grant(2 * MILLION).await.expect_err("it does not fit");
        assert_eq!(look_later(cloud, MINUTE).await, 0, "whoever asked tries something else");
        session.grant(None, 2 * MILLION, 2 * MILLION).await.expect_err("it does not fit");
        assert_eq!(look_later(cloud, MINUTE).await, 1);
        let alert = told(cloud).await.remove(0);
        assert_eq!((alert.rule, alert.settled), (actual(100), Nanos::new(MILLION)));
        assert_eq!(budget(cloud, &subject).await.reached_at, Some(alert.created_at.minus(MINUTE)));
        assert!(alert.is_refusal());
        let mail = cloud.cloud.list_mail(&Actor::system(), None, &PageRequest::default()).await.expect("mail").items;
        assert!(mail[0].subject.starts_with("Something was refused for lack of money"), "{mail:?}");
        assert!(mail[0].text.contains("49 percent are spent.\n\nSpent: 0.15 EUR\n"), "{mail:?}");
    }

    async fn what_was_settled_after_the_last_look_of_a_day_is_told_when_the_day_is_over(cloud: &TestCloud) {
        // The day of this account on which clocks are put forward: 23 hours.
        let at = |hour: i64| Timestamp::from_seconds(1_774_738_800).plus(DurationMs::from_hours(hour));
        cloud.clock.set(at(0));
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let subject = LimitSubject::Project(session.access.project.clone());
        set(cloud, &subject, BudgetWindow::Day, change(MILLION, AtLimit::Soft, &[actual(100)])).await;
        assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 0);
        cloud.clock.set(at(23).minus(DurationMs::from_millis(1)));
        spend(&session, 1).await;
        cloud.clock.set(at(23));
        assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 1);
        let alert = told(cloud).await.remove(0);
        assert_eq!((alert.budget.starts_at, alert.ends_at), (at(0), Some(at(23))));
        assert_eq!(look_later(cloud, MINUTE).await, 0);
    }

    async fn what_began_in_a_day_and_was_settled_after_it_is_told_too(cloud: &TestCloud) {
        // Two days of this account with 24 hours each.
        let at = |hour: i64| Timestamp::from_seconds(1_774_908_000).plus(DurationMs::from_hours(hour));
        cloud.clock.set(at(23));
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let subject = LimitSubject::Project(session.access.project.clone());
        set(cloud, &subject, BudgetWindow::Day, change(2 * MILLION, AtLimit::Soft, &[actual(50)])).await;
        let (first, second) = (session.grant(None, MILLION, MILLION).await, session.grant(None, MILLION, MILLION).await);
        let (first, second) = (first.expect("a slice"), second.expect("a slice"));
        assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 0);
        let starts_at = budget(cloud, &subject).await.reference.starts_at;
        let ends_at = budget(cloud, &subject).await.ends_at.expect("an end");
        cloud.clock.set(ends_at);
        for _ in 0..3 {
            assert_eq!(look_later(cloud, MINUTE).await, 0, "nothing is settled");
        }
        session.cloud.settle(&[session.record(&first.slice, 1_000_000, 0)]).await.expect("settled");
        assert_eq!(look_later(cloud, MINUTE).await, 1);
        assert_eq!(told(cloud).await[0].budget.starts_at, starts_at);
        session.give_back(&first.slice, 1).await.expect("given back");
        // The day after is not passed over, though that one was looked at until it was over.
        let next_at = ends_at.plus(DurationMs::from_hours(24));
        cloud.clock.set(next_at.minus(DurationMs::from_millis(1)));
        spend(&session, 1).await;
        cloud.clock.set(next_at);
        assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 0, "the first day is done");
        assert_eq!(look_later(cloud, MINUTE).await, 1, "the second is looked at");
        assert_eq!(told(cloud).await[1].budget.starts_at, ends_at);
        session.give_back(&second.slice, 0).await.expect("given back");
    }

    async fn however_many_limits_are_due_all_are_looked_at(cloud: &TestCloud) {
        const LIMITS: usize = 450;
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let (organization, created_at) = (session.access.organization.clone(), cloud.cloud.clock().now());
        let day = (created_at, created_at.plus(DurationMs::from_hours(24)));
        let written = cloud.cloud.store().write(organization, move |organization, tx| {
            Box::pin(async move {
                for number in 0..LIMITS {
                    let limit = SpendLimit {
                        subject: format!("key_{number}"),
                        window: BudgetWindow::Day,
                        organization: organization.clone(),
                        amount: Nanos::new(MILLION),
                        at_limit: AtLimit::Soft,
                        alerts: vec![actual(100)],
                        created_at,
                    };
                    limit::set(tx, &limit, &Periods { day, month: day }).await?;
                }
                Ok(())
            })
        });
        written.await.expect("written");
        assert_eq!(cloud.cloud.tell_spend_alerts().await.expect("looked"), 0);
        let left = cloud.cloud.store().read(created_at, |now, tx| Box::pin(spend_alert::due(tx, *now, 1))).await;
        assert_eq!(left.expect("limits"), [], "all were looked at");
    }

    async fn a_limit_that_tells_again_begins_anew(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let subject = LimitSubject::Project(session.access.project.clone());
        set(cloud, &subject, BudgetWindow::Day, change(MILLION, AtLimit::Hard, &[actual(100)])).await;
        assert_eq!(look_later(cloud, MINUTE).await, 0);
        let seen = budget(cloud, &subject).await.reference;
        set(cloud, &subject, BudgetWindow::Day, change(MILLION, AtLimit::Hard, &[])).await;
        spend(&session, 1).await;
        cloud.clock.advance(DurationMs::from_hours(60 * 24));
        set(cloud, &subject, BudgetWindow::Day, change(MILLION, AtLimit::Hard, &[actual(100)])).await;
        for _ in 0..2 {
            assert_eq!(look_later(cloud, MINUTE).await, 0, "what was spent when nobody asked is not told months later");
        }
        let store = cloud.cloud.store();
        let samples = store.read(seen, |seen, tx| Box::pin(spend_alert::samples(tx, seen, Hour::from_number(0)))).await;
        assert_eq!(samples.expect("samples").len(), 1, "of this time only");
    }

    async fn what_is_not_said_stays_and_what_cannot_be_kept_changes_nothing(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let subject = LimitSubject::Project(session.access.project.clone());
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        set(cloud, &subject, BudgetWindow::Month, change(10, finish(5), &[actual(100), forecast(100)])).await;
        set_limit(cloud, &subject, BudgetWindow::Month, 20).await;
        let is = || async { cloud.cloud.list_limits(&admin, Some(&subject)).await.expect("limits").remove(0).0 };
        let limit = is().await;
        assert_eq!((limit.amount, limit.at_limit), (Nanos::new(20), finish(5)));
        assert_eq!(limit.alerts, [actual(100), forecast(100)].to_vec());
        for (window, wrong, param) in [
            (BudgetWindow::Month, change(20, AtLimit::Soft, &[]), "alerts"),
            (BudgetWindow::Month, change(20, finish(0), &[]), "overrun_max"),
            (BudgetWindow::Month, change(20, AtLimit::Hard, &[actual(101)]), "alerts"),
            (BudgetWindow::Total, change(20, AtLimit::Hard, &[forecast(100)]), "alerts"),
            // The alerts that are there are parts of the amount.
            (BudgetWindow::Month, Nanos::ZERO.into(), "alerts"),
        ] {
            let error = cloud.cloud.set_limit(&admin, &subject, window, wrong).await.expect_err("it cannot be kept");
            assert_eq!(error.param_name(), Some(param), "{error:?}");
        }
        let limits = cloud.cloud.list_limits(&admin, Some(&subject)).await.expect("limits");
        assert_eq!(limits.len(), 1);
        assert_eq!(limits[0].0, limit);
    }

    async fn a_forecast_follows_the_hours_and_its_alert_comes_before_the_money_is_gone(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let subject = LimitSubject::Project(session.access.project.clone());
        let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
        // April of an account in Berlin has 720 hours, and begins at ten in the evening UTC.
        cloud.clock.set(Timestamp::from_seconds(1_774_994_400));
        let limit = 500 * MILLION / 1_000;
        set(cloud, &subject, BudgetWindow::Month, change(limit, AtLimit::Soft, &[actual(100), forecast(100)])).await;
        let grant = session.grant(None, UNIT, UNIT).await.expect("a slice");
        let foreseen = || async {
            let mut limits = cloud.cloud.forecast_limits(&admin, Some(&subject)).await.expect("forecasts");
            limits.remove(0).forecast
        };
        assert_eq!(foreseen().await, None, "nothing is known yet");
        let mut first = None;
        for hour in 0..15 * 24 {
            cloud.clock.advance(DurationMs::from_millis(3_600_000));
            let record = session.record(&grant.slice, 1_000, 0);
            assert_eq!(session.cloud.settle(&[record]).await.expect("settled").settled, 1);
            if cloud.cloud.tell_spend_alerts().await.expect("looked") > 0 {
                first.get_or_insert(hour + 1);
            }
        }
        // A thousand an hour for 720 hours is more than the limit; a twelfth of the month has to be over to say so.
        assert_eq!(first, Some(60));
        let forecast_now = foreseen().await.expect("enough is known");
        assert_eq!(forecast_now.method, ForecastMethod::WeeklyProfile);
        assert_eq!(forecast_now.expected, Nanos::new(720 * MILLION / 1_000));
        assert_eq!((forecast_now.low, forecast_now.high), (forecast_now.expected, forecast_now.expected), "every hour was the same");
        let alerts = told(cloud).await;
        assert_eq!(rules(&alerts), [forecast(100)]);
        assert_eq!(alerts[0].forecast, Some(Nanos::new(720 * MILLION / 1_000)));
        session.give_back(&grant.slice, 15 * 24).await.expect("given back");
    }
}
