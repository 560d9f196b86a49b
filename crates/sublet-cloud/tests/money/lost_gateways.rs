//! Gateways that do not come back, and journals that do.

use sublet_cloud::Actor;
use sublet_cloud::leakage::LeakKind;
use sublet_cloud::lost_gateway::{GatewayAnswer, SILENCE};
use sublet_core::usage::UsageSink;
use sublet_core::{DurationMs, ErrorCode, Nanos};
use sublet_money::balance::CustomerFunds;
use sublet_store::PageRequest;
use sublet_testkit::session::Session;
use sublet_testkit::tenant::actor;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::UNIT;

const LOST: (GatewayAnswer, &str) = (GatewayAnswer::Lost, "its machine burnt");
const WRITE_OFF: (GatewayAnswer, &str) = (GatewayAnswer::WriteOff, "its disk is gone");

async fn funds(cloud: &TestCloud, session: &Session) -> CustomerFunds {
    let verified = cloud.cloud.verify_ledger(&Actor::system()).await.expect("verified");
    assert!(verified.balanced(), "{:?}", verified.findings);
    let admin = actor(&cloud.cloud, &cloud.keys.admin).await;
    cloud.cloud.credit_balance(&admin, &session.access.organization).await.expect("a balance").funds
}

async fn findings(cloud: &TestCloud, kind: LeakKind) -> usize {
    let leaks = cloud.cloud.leakage(&Actor::system(), &[]).await.expect("a report").leaks;
    leaks.iter().filter(|leak| leak.kind == kind).count()
}

on_both_databases! {
    async fn a_lost_gateways_money_waits_in_suspense_and_is_written_off_once(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let before = funds(cloud, &session).await.available;
        let grant = session.grant(None, 2 * UNIT, 2 * UNIT).await.expect("credit is there");
        cloud.cloud.settle(&[session.record(&grant.slice, 1_000_000, 0)]).await.expect("settled");
        let (spent, rest) = (150_000_000, Nanos::new(2 * UNIT - 150_000_000));
        let answer = async |answer| cloud.cloud.answer_gateway(&Actor::system(), &session.gateway, answer).await;
        assert_eq!(answer(LOST).await.expect_err("it may serve").code(), ErrorCode::Conflict);
        assert_eq!(answer(WRITE_OFF).await.expect_err("it is not lost").code(), ErrorCode::Conflict);
        // Half its silence later it is heard of again.
        for _ in 0..2 {
            cloud.clock.advance(DurationMs::from_millis(SILENCE.millis() / 2));
            cloud.cloud.note_gateways().await.expect("noted");
        }
        assert_eq!(answer(LOST).await.expect_err("it serves").code(), ErrorCode::Conflict);
        assert_eq!(findings(cloud, LeakKind::LostSlice).await, 0);
        cloud.clock.advance(DurationMs::from_hours(2));
        assert_eq!(findings(cloud, LeakKind::LostSlice).await, 1);
        let lost = answer(LOST).await.expect("lost");
        assert_eq!((lost.slices, lost.moved.into_values().collect::<Vec<_>>()), (1, vec![rest]));
        assert_eq!(answer(LOST).await.expect("the same").slices, 0);
        let now = funds(cloud, &session).await;
        assert_eq!((now.sliced, now.suspense, now.captured), (Nanos::ZERO, rest, Nanos::new(spent)));
        assert_eq!((findings(cloud, LeakKind::LostSlice).await, findings(cloud, LeakKind::Suspense).await), (0, 1));
        assert_eq!(session.grant(None, 1, 1).await.expect_err("fenced").code(), ErrorCode::Conflict);
        assert_eq!(answer(WRITE_OFF).await.expect("written off").slices, 1);
        assert_eq!(answer(WRITE_OFF).await.expect("the same").slices, 0);
        let now = funds(cloud, &session).await;
        assert_eq!((now.suspense, now.available), (Nanos::ZERO, before.checked_sub(Nanos::new(spent)).expect("small")));
        assert_eq!(findings(cloud, LeakKind::Suspense).await, 0);
        // What its journal has after all is kept where an operator sees it.
        let report = cloud.cloud.settle(&[session.record(&grant.slice, 1, 1)]).await.expect("settled");
        assert_eq!((report.settled, report.quarantined), (0, 1));
        let deeds = cloud.cloud.list_audit(&Actor::system(), &PageRequest::default()).await.expect("a list").items;
        let of = |action: &str| deeds.iter().filter(|deed| deed.action == action && deed.target == "gw_1").count();
        assert_eq!((of("gateway.lost"), of("gateway.write_off")), (1, 1));
        let nobody = "gw_x".parse().expect("an id");
        assert_eq!(cloud.cloud.answer_gateway(&Actor::system(), &nobody, LOST).await.expect_err("none").code(), ErrorCode::NotFound);
    }

    async fn the_journal_of_a_lost_gateway_is_charged_from_suspense(cloud: &TestCloud) {
        let lost = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let before = funds(cloud, &lost).await.available;
        let grant = lost.grant(None, UNIT, UNIT).await.expect("credit is there");
        let journal = [lost.record(&grant.slice, 1_000_000, 0), lost.record(&grant.slice, 0, 1_000)];
        cloud.clock.advance(SILENCE);
        assert_eq!(cloud.cloud.answer_gateway(&Actor::system(), &lost.gateway, LOST).await.expect("lost").slices, 1);
        let again = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let error = cloud.cloud.answer_gateway(&Actor::system(), &lost.gateway, WRITE_OFF).await.expect_err("it settles its journal");
        assert_eq!(error.code(), ErrorCode::Conflict);
        for settled in [2, 0] {
            assert_eq!(cloud.cloud.settle(&journal).await.expect("settled").settled, settled);
        }
        let (spent, now) = (Nanos::new(150_000_000 + 600_000), funds(cloud, &lost).await);
        assert_eq!((now.suspense, now.captured), (Nanos::new(UNIT).checked_sub(spent).expect("small"), spent));
        assert_eq!(again.cloud.close_fenced_slices(&again.gateway, again.fence).await.expect("closed"), 1);
        let now = funds(cloud, &lost).await;
        assert_eq!((now.suspense, now.available), (Nanos::ZERO, before.checked_sub(spent).expect("small")));
        assert_eq!(findings(cloud, LeakKind::Suspense).await, 0);
        again.grant(None, 1, 1).await.expect("it serves again");
    }
}
