//! To whom products are sold: who is invited, who may go on, and that nothing that was said is forgotten.

use sublet_cloud::Actor;
use sublet_cloud::contract::ContractView;
use sublet_cloud::offering::{InvitationState, NewOffering, OfferingRecord};
use sublet_core::admission::Admission;
use sublet_core::id::OrganizationId;
use sublet_core::offering::{Offered, OfferingChange, OfferingState, Product};
use sublet_core::supply::Catalogue;
use sublet_core::usage::UsageSink;
use sublet_core::{DurationMs, ErrorCode, Result, Timestamp};
use sublet_store::PageRequest;
use sublet_testkit::database::MODEL;
use sublet_testkit::session::Session;
use sublet_testkit::{TestCloud, on_both_databases};

use crate::contracts::{admin_of, agreed, hash, offered};
use crate::months::{customer, month};
use crate::{UNIT, commitments};

fn model() -> Product {
    Product::Model(MODEL.into())
}

fn new(state: OfferingState, ends_at: Option<Timestamp>, used_within_days: Option<u32>) -> NewOffering {
    let change = OfferingChange { state, ends_at, successor: None };
    NewOffering { product: model(), change, used_within_days, note: String::new() }
}

async fn set(cloud: &TestCloud, new: &NewOffering) -> OfferingRecord {
    cloud.cloud.set_offering(&Actor::system(), new).await.expect("the offering is set")
}

async fn invite(cloud: &TestCloud, organization: &OrganizationId, wanted: InvitationState) -> Result<OfferingRecord> {
    cloud.cloud.set_invitation(&Actor::system(), &model(), organization, wanted).await
}

/// Whether the organization of a session may begin to use the model now, by a fresh look at its key.
async fn sees(session: &Session, secret: &sublet_core::key::Secret) -> &'static str {
    let access = session.port.authenticate(secret).await.expect("the key works");
    let now = session.cloud.clock().now();
    match session.cloud.offerings().find_model(MODEL).map_or(Offered::Open, |found| found.offered_to(&access.entitlements, now)) {
        Offered::Open => "open",
        Offered::Hidden => "hidden",
        Offered::Closed(_) => "closed",
        Offered::Ended(_) => "ended",
    }
}

/// One request of the session's key, charged.
async fn use_once(session: &Session) {
    let grant = session.grant(None, UNIT, UNIT).await.expect("credit is there");
    let report = session.cloud.settle(&[session.record(&grant.slice, 10, 10)]).await.expect("settled");
    assert_eq!(report.settled, 1);
    session.give_back(&grant.slice, 1).await.expect("returned");
}

fn days(count: i64) -> DurationMs {
    DurationMs::from_hours(24 * count)
}

on_both_databases! {
    async fn an_invitation_acts_in_every_process_and_its_end_too(cloud: &TestCloud) {
        let other = cloud.another(7).await;
        let (here, there) = (Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await,
            Session::start(&other, &cloud.keys.project, "gw_2").await);
        let guest = here.access.organization.clone();
        let unsaid = invite(cloud, &guest, InvitationState::Invited).await.expect_err("it is public");
        assert_eq!(unsaid.code(), ErrorCode::NotFound);
        set(cloud, &new(OfferingState::Invited, None, None)).await;
        assert_eq!(sees(&here, &cloud.keys.project).await, "hidden");
        let epoch = there.port.access_epoch();
        use InvitationState::{Invited, Withdrawn};
        for (wanted, seen) in
            [(Invited, "open"), (Invited, "open"), (Withdrawn, "hidden"), (Withdrawn, "hidden"), (Invited, "open")]
        {
            let record = invite(cloud, &guest, wanted).await.expect("it is said");
            assert_eq!(record.invited.len(), usize::from(wanted == Invited));
            assert_eq!(sees(&here, &cloud.keys.project).await, seen);
            other.follow().await.expect("the other process looks");
            assert_eq!(sees(&there, &cloud.keys.project).await, seen);
            assert_eq!(sees(&here, &cloud.keys.internal).await, "hidden", "nobody else was invited");
        }
        assert!(there.port.access_epoch() > epoch, "gateways ask again who may do what");
        let nobody = "org_00000000000000000000000000".parse().expect("an id");
        let refused = invite(cloud, &nobody, Invited).await.expect_err("nobody");
        assert_eq!(refused.code(), ErrorCode::NotFound);
        let deeds = cloud.cloud.list_audit(&Actor::system(), &PageRequest { limit: Some(100), ..PageRequest::default() }).await;
        let deeds: Vec<_> = deeds.expect("a log").items.into_iter().map(|entry| entry.action).collect();
        let count = |action: &str| deeds.iter().filter(|deed| *deed == action).count();
        // What was the case already is no deed.
        assert_eq!((count("offering.set"), count("offering.invite"), count("offering.uninvite")), (1, 2, 1));
        other.store().close().await;
    }

    async fn who_used_it_before_may_go_on_until_the_end_and_nobody_else_begins(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        use_once(&session).await;
        cloud.clock.advance(days(40));
        let end = cloud.now().plus(days(10));
        let too_long_ago = set(cloud, &new(OfferingState::Retiring, Some(end), Some(39))).await;
        assert_eq!(too_long_ago.users, 0);
        assert_eq!(sees(&session, &cloud.keys.project).await, "closed");
        set(cloud, &new(OfferingState::Public, None, None)).await;
        assert_eq!(sees(&session, &cloud.keys.project).await, "open", "the earlier announcement means nothing any more");
        let record = set(cloud, &new(OfferingState::Retiring, Some(end), None)).await;
        assert_eq!((record.users, record.history.len()), (1, 3));
        assert_eq!((sees(&session, &cloud.keys.project).await, sees(&session, &cloud.keys.internal).await), ("open", "closed"));
        // Another date keeps who may go on, however long they paused.
        cloud.clock.advance(days(9));
        let record = set(cloud, &new(OfferingState::Retiring, Some(end.plus(days(300))), Some(1))).await;
        assert_eq!((record.users, sees(&session, &cloud.keys.project).await), (1, "open"));
        cloud.clock.advance(days(301));
        assert_eq!((sees(&session, &cloud.keys.project).await, sees(&session, &cloud.keys.internal).await), ("ended", "ended"));
        let record = cloud.cloud.get_offering(&Actor::system(), &model()).await.expect("its history");
        let said: Vec<_> = record.history.iter().map(|row| (row.offering.number, row.offering.state)).collect();
        use OfferingState::{Public, Retiring};
        assert_eq!(said, [(4, Retiring), (3, Retiring), (2, Public), (1, Retiring)], "no change was rewritten");
    }

    async fn who_is_not_invited_any_more_does_not_go_on_with_what_retires(cloud: &TestCloud) {
        let session = Session::start(&cloud.cloud, &cloud.keys.project, "gw_1").await;
        let guest = session.access.organization.clone();
        use_once(&session).await;
        let end = cloud.now().plus(days(10));
        set(cloud, &new(OfferingState::Invited, None, None)).await;
        invite(cloud, &guest, InvitationState::Invited).await.expect("invited");
        let record = set(cloud, &new(OfferingState::Retiring, Some(end), None)).await;
        assert_eq!((record.users, sees(&session, &cloud.keys.project).await), (1, "open"));
        for _ in 0..2 {
            let record = invite(cloud, &guest, InvitationState::Withdrawn).await.expect("withdrawn");
            assert_eq!((record.users, sees(&session, &cloud.keys.project).await), (0, "hidden"));
        }
        // Nor does it come back when the end is announced after that.
        set(cloud, &new(OfferingState::Invited, None, None)).await;
        let record = set(cloud, &new(OfferingState::Retiring, Some(end), None)).await;
        assert_eq!((record.users, sees(&session, &cloud.keys.project).await), (0, "hidden"));
        // Who goes on with what everybody knew of does so by its use, whatever became of an earlier invitation.
        set(cloud, &new(OfferingState::Public, None, None)).await;
        invite(cloud, &guest, InvitationState::Invited).await.expect("invited");
        set(cloud, &new(OfferingState::Retiring, Some(end), None)).await;
        let record = invite(cloud, &guest, InvitationState::Withdrawn).await.expect("withdrawn");
        assert_eq!((record.users, sees(&session, &cloud.keys.project).await), (1, "open"));
    }

    async fn what_a_contract_commits_to_a_quantity_of_is_kept_for_its_customer_as_long_as_it_runs(cloud: &TestCloud) {
        use InvitationState::{Invited, Withdrawn};
        let session = customer(cloud, "acme", "Europe/Berlin", 100 * UNIT).await;
        let guest = session.access.organization.clone();
        let contract = agreed(&cloud.cloud, &session, commitments::terms()).await;
        let over = month("Europe/Berlin", "2026-09");
        let before = Timestamp::from_micros(over.micros() - 1);
        let named = |refused: &sublet_core::Error| {
            assert_eq!(refused.code(), ErrorCode::Conflict);
            let way_out = format!("amend or end {contract} first");
            assert!(refused.message().contains(contract.as_str()) && refused.alternatives().contains(&way_out), "{refused}");
        };
        for (change, param, other_way) in [
            (new(OfferingState::Draft, None, None), "state", None),
            (new(OfferingState::Retired, None, None), "state", None),
            (new(OfferingState::Invited, None, None), "state", Some(format!("offerings invite {} {guest}", model()))),
            (new(OfferingState::Retiring, Some(before), None), "ends_at", Some(format!("an end at {over} or later"))),
        ] {
            let refused = cloud.cloud.set_offering(&Actor::system(), &change).await.expect_err(param);
            named(&refused);
            assert_eq!(refused.param_name(), Some(param), "{refused}");
            let says = |way: &String| refused.alternatives().iter().any(|alternative| alternative.contains(way));
            assert!(other_way.iter().all(says), "{refused:?}");
        }
        assert_eq!(cloud.cloud.list_offerings(&Actor::system()).await.expect("a list"), Vec::new());
        set(cloud, &new(OfferingState::Preview, None, None)).await;
        invite(cloud, &guest, Invited).await.expect("invited");
        set(cloud, &new(OfferingState::Invited, None, None)).await;
        named(&invite(cloud, &guest, Withdrawn).await.expect_err("it would pay for nothing"));
        // It goes on though it used nothing yet.
        let record = set(cloud, &new(OfferingState::Retiring, Some(over), None)).await;
        assert_eq!((record.users, record.invited.len()), (1, 1));
        named(&invite(cloud, &guest, Withdrawn).await.expect_err("it would pay for nothing"));
        cloud.clock.set(before);
        named(&cloud.cloud.set_offering(&Actor::system(), &new(OfferingState::Draft, None, None)).await.expect_err("it runs"));
        cloud.clock.set(over);
        set(cloud, &new(OfferingState::Draft, None, None)).await;
        invite(cloud, &guest, Withdrawn).await.expect("withdrawn");
    }

    async fn nobody_is_committed_to_a_quantity_of_what_is_not_sold_to_it_that_long(cloud: &TestCloud) {
        let session = customer(cloud, "acme", "Europe/Berlin", 100 * UNIT).await;
        let (guest, admin) = (session.access.organization.clone(), admin_of(&session));
        let refused = |outcome: Result<_>| {
            let error = outcome.map(|_: ContractView| ()).expect_err("it would pay for nothing");
            assert_eq!((error.code(), error.param_name()), (ErrorCode::Conflict, Some("terms.quantities.sku")), "{error}");
        };
        let too_early = Timestamp::from_micros(month("Europe/Berlin", "2026-09").micros() - 1);
        for change in [
            new(OfferingState::Draft, None, None),
            new(OfferingState::Invited, None, None),
            new(OfferingState::Retiring, Some(too_early), None),
        ] {
            set(cloud, &change).await;
            refused(offered(&cloud.cloud, &guest, commitments::terms()).await);
        }
        set(cloud, &new(OfferingState::Preview, None, None)).await;
        let view = offered(&cloud.cloud, &guest, commitments::terms()).await.expect("an offer");
        let accept = async || cloud.cloud.accept_contract(&admin, &view.contract.id, &hash(&view)).await;
        set(cloud, &new(OfferingState::Invited, None, None)).await;
        refused(accept().await);
        invite(cloud, &guest, InvitationState::Invited).await.expect("invited");
        accept().await.expect("it is sold to it now");
    }

    async fn a_change_that_is_wrong_leaves_nothing_behind(cloud: &TestCloud) {
        let now = cloud.now();
        let noted = |note: String| NewOffering { note, ..new(OfferingState::Draft, None, None) };
        for (wrong, param) in [
            (new(OfferingState::Retiring, None, None), "ends_at"),
            (new(OfferingState::Retiring, Some(now), None), "ends_at"),
            (new(OfferingState::Draft, Some(now.plus(days(1))), None), "ends_at"),
            (new(OfferingState::Retiring, Some(now.plus(days(1))), Some(0)), "used_within_days"),
            (new(OfferingState::Retiring, Some(now.plus(days(1))), Some(367)), "used_within_days"),
            (new(OfferingState::Draft, None, Some(30)), "used_within_days"),
            (noted("x".repeat(513)), "note"),
            (noted("two\nlines".to_owned()), "note"),
        ] {
            let refused = cloud.cloud.set_offering(&Actor::system(), &wrong).await.expect_err(param);
            assert_eq!((refused.code(), refused.param_name()), (ErrorCode::InvalidRequest, Some(param)));
        }
        assert_eq!(cloud.cloud.list_offerings(&Actor::system()).await.expect("a list"), Vec::new());
        let admin = sublet_testkit::tenant::actor(&cloud.cloud, &cloud.keys.admin).await;
        let refused = cloud.cloud.set_offering(&admin, &new(OfferingState::Draft, None, None)).await.expect_err("not theirs");
        assert_eq!(refused.code(), ErrorCode::WrongKeyPlane);
        assert_eq!(cloud.cloud.list_offerings(&admin).await.expect_err("not theirs").code(), ErrorCode::WrongKeyPlane);
    }

    async fn a_successor_is_known_to_everybody_as_long_as_it_is_named(cloud: &TestCloud) {
        let next: Product = "model/next".parse().expect("a product");
        let of = |product: &Product, state, successor: Option<&Product>| NewOffering {
            product: product.clone(),
            change: OfferingChange { state, ends_at: None, successor: successor.cloned() },
            used_within_days: None,
            note: String::new(),
        };
        set(cloud, &of(&next, OfferingState::Invited, None)).await;
        let retire = of(&model(), OfferingState::Retired, Some(&next));
        let refused = cloud.cloud.set_offering(&Actor::system(), &retire).await.expect_err("it would be told to all");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::Conflict, Some("successor")));
        set(cloud, &of(&next, OfferingState::Preview, None)).await;
        set(cloud, &retire).await;
        let hide = of(&next, OfferingState::Draft, None);
        let refused = cloud.cloud.set_offering(&Actor::system(), &hide).await.expect_err("it is told to all");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::Conflict, Some("state")));
        set(cloud, &new(OfferingState::Public, None, None)).await;
        set(cloud, &hide).await;

        // What is said of a kind counts for its notices.
        let [kind, part, before] = ["device/next", "device/n2m/next", "device/n2m/before"].map(|text| text.parse().expect("a product"));
        set(cloud, &of(&kind, OfferingState::Draft, None)).await;
        let retire = of(&before, OfferingState::Retired, Some(&part));
        let refused = cloud.cloud.set_offering(&Actor::system(), &retire).await.expect_err("it would be told to all");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::Conflict, Some("successor")));
        set(cloud, &of(&kind, OfferingState::Public, None)).await;
        set(cloud, &retire).await;
        let hide = of(&kind, OfferingState::Draft, None);
        let refused = cloud.cloud.set_offering(&Actor::system(), &hide).await.expect_err("it is told to all");
        assert_eq!((refused.code(), refused.param_name()), (ErrorCode::Conflict, Some("state")));
        set(cloud, &of(&part, OfferingState::Public, None)).await;
        set(cloud, &hide).await;
    }

    async fn two_changes_at_once_are_two_rows_one_after_the_other(cloud: &TestCloud) {
        let other = cloud.another(8).await;
        let (draft, invited) = (new(OfferingState::Draft, None, None), new(OfferingState::Invited, None, None));
        let system = Actor::system();
        let (one, two) = tokio::join!(cloud.cloud.set_offering(&system, &draft), other.set_offering(&system, &invited));
        one.expect("said");
        two.expect("said");
        let record = cloud.cloud.get_offering(&Actor::system(), &model()).await.expect("its history");
        assert_eq!(record.history.iter().map(|row| row.offering.number).collect::<Vec<_>>(), [2, 1]);
        other.store().close().await;
    }
}
