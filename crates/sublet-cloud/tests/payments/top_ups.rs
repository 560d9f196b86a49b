//! Top-ups: created once, credited once, cancelled, expired.

use sublet_cloud::data::{IncomingProblem, TopUpState};
use sublet_cloud::idempotency::Call;
use sublet_cloud::incoming_payment::RowOutcome;
use sublet_cloud::top_up::PENDING_MAX;
use sublet_core::payment::PaymentMethod;
use sublet_core::{DurationMs, ErrorCode, Nanos};
use sublet_store::PageRequest;
use sublet_testkit::on_both_databases;

use crate::{UNIT, World, new, operator};

/// A wallet behind an endpoint that does what it is told each time it is told.
#[derive(Default)]
struct NaiveWallet(i64);

impl NaiveWallet {
    fn top_up(&mut self, amount: i64) {
        self.0 += amount;
    }
}

on_both_databases! {
    /// Known failure: a top-up endpoint without idempotency credits twice.
    async fn a_top_up_that_is_asked_for_twice_is_credited_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let mut naive = NaiveWallet::default();
        let mut ids = Vec::new();
        // The answer to the first call is lost, and the client repeats it.
        for _ in 0..2 {
            naive.top_up(40 * UNIT);
            let call = Call::under_key(world.admin.clone(), "CreateTopUp", "key-1", "40").expect("a call");
            ids.push(world.cloud.create_top_up(&call, &new(PaymentMethod::Bank, 40 * UNIT)).await.expect("a top-up"));
        }
        assert_eq!(ids[0], ids[1]);
        // The statement is taken in twice, too, and once more with rows that are new.
        let row = format!("bank-1,40.00,EUR,thank you {}\n", ids[0].reference);
        naive.top_up(40 * UNIT);
        assert_eq!(world.import(&row).await, [RowOutcome::Matched(ids[0].id.clone())]);
        assert_eq!(world.import(&row).await, [RowOutcome::Known]);
        let more = format!("{row}bank-2,1.00,EUR,hello\n");
        assert_eq!(world.import(&more).await, [RowOutcome::Known, RowOutcome::Quarantined(IncomingProblem::NoReference)]);
        assert_eq!(world.see(&ids[0]).await.state, TopUpState::Succeeded);
        assert_eq!(naive.0, 120 * UNIT, "the naive wallet has it once for each call");
        assert_eq!(world.funds().await, (40 * UNIT, 40 * UNIT));
        world.check().await;
    }

    async fn what_cannot_be_paid_in_is_refused(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let call = Call::once(world.admin.clone());
        for (units, code) in [(0, ErrorCode::InvalidAmount), (-UNIT, ErrorCode::InvalidAmount), (1, ErrorCode::InvalidAmount)] {
            let error = world.cloud.create_top_up(&call, &new(PaymentMethod::Bank, units)).await.expect_err("refused");
            assert_eq!(error.code(), code, "{units}");
        }
        let dollars = sublet_cloud::top_up::NewTopUp { currency: sublet_core::Currency::USD, ..new(PaymentMethod::Bank, UNIT) };
        let error = world.cloud.create_top_up(&call, &dollars).await.expect_err("refused");
        assert_eq!(error.code(), ErrorCode::CurrencyMismatch);
        let much = new(PaymentMethod::Stripe, 2_000_000 * UNIT);
        assert_eq!(world.cloud.create_top_up(&call, &much).await.expect_err("refused").code(), ErrorCode::InvalidAmount);
        // A cloud without Stripe says so, and the operator pays nothing in.
        let without = world.test.another(9).await;
        let error = without.create_top_up(&call, &new(PaymentMethod::Stripe, UNIT)).await.expect_err("refused");
        assert_eq!(error.code(), ErrorCode::NotOffered);
        let by_operator = Call::once(operator("key_a"));
        let error = world.cloud.create_top_up(&by_operator, &new(PaymentMethod::Bank, UNIT)).await.expect_err("refused");
        assert_eq!(error.code(), ErrorCode::WrongKeyPlane);
        for _ in 0..PENDING_MAX {
            world.top_up(PaymentMethod::Bank, UNIT).await;
        }
        let error = world.cloud.create_top_up(&call, &new(PaymentMethod::Bank, UNIT)).await.expect_err("too many");
        assert_eq!(error.code(), ErrorCode::Conflict);
    }

    async fn a_transfer_that_nobody_makes_expires_and_one_that_comes_late_waits_for_the_operator(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let (late, called_off) = (world.top_up(PaymentMethod::Bank, UNIT).await, world.top_up(PaymentMethod::Bank, 2 * UNIT).await);
        assert_eq!(world.cloud.cancel_top_up(&world.admin, &called_off.id).await.expect("cancelled").state, TopUpState::Cancelled);
        let again = world.cloud.cancel_top_up(&world.admin, &called_off.id).await.expect("again");
        assert_eq!(again.state, TopUpState::Cancelled);
        world.test.clock.advance(DurationMs::from_hours(24 * 30 + 1));
        for _ in 0..3 {
            world.cloud.reconcile_payments().await.expect("reconciled");
        }
        assert_eq!(world.see(&late).await.state, TopUpState::Expired);
        assert!(world.cloud.cancel_top_up(&world.admin, &late.id).await.is_err());
        let rows = format!("t1,1,EUR,{}\nt2,2,EUR,{}\n", late.reference, called_off.reference);
        assert_eq!(world.import(&rows).await, [const { RowOutcome::Quarantined(IncomingProblem::NotPending) }; 2]);
        assert_eq!(world.funds().await, (0, 0));
        world.check().await;
    }

    async fn customers_see_their_own(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let own = world.top_up(PaymentMethod::Bank, UNIT).await;
        let page = PageRequest::default();
        let seen = world.cloud.list_top_ups(&world.admin, (None, None), &page).await.expect("a page").items;
        assert_eq!(seen.iter().map(|top_up| &top_up.id).collect::<Vec<_>>(), [&own.id]);
        let internal = sublet_testkit::tenant::actor(&world.cloud, &world.test.keys.internal).await;
        let other = sublet_cloud::Actor {
            plane: sublet_core::key::KeyPlane::Admin,
            scope: sublet_core::Scope::Organization(internal.scope.organization().expect("one").clone()),
            ..internal
        };
        assert_eq!(world.cloud.get_top_up(&other, &own.id).await.expect_err("hidden").code(), ErrorCode::NotFound);
        assert_eq!(world.cloud.cancel_top_up(&other, &own.id).await.expect_err("hidden").code(), ErrorCode::NotFound);
        assert!(world.cloud.list_top_ups(&other, (None, None), &page).await.expect("a page").items.is_empty());
        let all = world.cloud.list_top_ups(&operator("key_a"), (Some(&world.organization), Some(TopUpState::Pending)), &page).await;
        assert_eq!(all.expect("a page").items[0].amount, Nanos::new(UNIT));
    }
}
