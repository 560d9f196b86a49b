//! What arrives and is not what was expected: quarantined, visible, answered.

use sublet_cloud::data::{IncomingProblem, IncomingState, TopUpState};
use sublet_cloud::incoming_payment::{IncomingAnswer, RowOutcome};
use sublet_core::payment::PaymentMethod;
use sublet_core::{Currency, ErrorCode, Nanos};
use sublet_testkit::on_both_databases;

use crate::{UNIT, World, operator};

on_both_databases! {
    async fn what_does_not_fit_is_quarantined_with_the_reason(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Bank, 50 * UNIT).await;
        let other = world.top_up(PaymentMethod::Bank, 60 * UNIT).await;
        let by_card = world.top_up(PaymentMethod::Stripe, 5 * UNIT).await;
        let reference = &top_up.reference;
        let rows = format!(
            "t1,49.99,EUR,{reference}\nt2,50.01,EUR,{reference}\nt3,50,USD,{reference}\nt4,50,EUR,RF18539007547034\n\
             t5,50,EUR,my money\nt6,110,EUR,{reference} and {}\nt7,5,EUR,{}\nt8,-3.50,EUR,fees\n",
            other.reference, by_card.reference
        );
        let problems = [
            IncomingProblem::Partial,
            IncomingProblem::Excess,
            IncomingProblem::WrongCurrency,
            IncomingProblem::UnknownReference,
            IncomingProblem::NoReference,
            IncomingProblem::SeveralReferences,
            IncomingProblem::OtherMethod,
        ];
        let mut expected: Vec<RowOutcome> = problems.into_iter().map(RowOutcome::Quarantined).collect();
        expected.push(RowOutcome::Outgoing);
        assert_eq!(world.import(&rows).await, expected);
        assert_eq!(world.see(&top_up).await.state, TopUpState::Pending);
        let kept: Vec<_> = world.quarantined().await.into_iter().map(|payment| payment.problem).collect();
        assert_eq!(kept, problems.map(Some));
        assert_eq!(world.funds().await, (0, 0), "nothing of it is credit");
        // What is right still is, and what comes twice is not.
        assert_eq!(world.import(&format!("t9,50,EUR,{reference}\n")).await, [RowOutcome::Matched(top_up.id.clone())]);
        let twice = world.import(&format!("t10,50,EUR,{reference}\n")).await;
        assert_eq!(twice, [RowOutcome::Quarantined(IncomingProblem::PaidAlready)]);
        assert_eq!(world.funds().await, (50 * UNIT, 50 * UNIT));
        world.check().await;
    }

    async fn an_operator_says_whose_money_it_is(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let bank = operator("key_bank");
        let top_up = world.top_up(PaymentMethod::Bank, 50 * UNIT).await;
        world.import(&format!("t1,20,EUR,{}\nt2,7,EUR,who am I\nt3,9,USD,x\n", top_up.reference)).await;
        let [partial, unknown, dollars] = <[_; 3]>::try_from(world.quarantined().await).expect("three");
        let credit = IncomingAnswer::Credit(world.organization.clone());
        let answer = (&credit, "they called");
        for _ in 0..2 {
            let answered = world.cloud.answer_incoming(&bank, &partial.id, answer).await.expect("answered");
            assert_eq!((answered.state, answered.answered_by.as_deref()), (IncomingState::Credited, Some("key_bank")));
        }
        assert_eq!(world.funds().await, (20 * UNIT, 20 * UNIT), "once");
        let named = world.see(&top_up).await;
        assert_eq!(named.state, TopUpState::Cancelled, "what was credited apart is not waited for");
        let error = world.cloud.answer_incoming(&bank, &dollars.id, answer).await.expect_err("another currency");
        assert_eq!(error.code(), ErrorCode::CurrencyMismatch);
        let back = (&IncomingAnswer::Return, "sent back as o-77");
        for id in [&dollars.id, &unknown.id] {
            assert_eq!(world.cloud.answer_incoming(&bank, id, back).await.expect("answered").state, IncomingState::Returned);
        }
        let error = world.cloud.answer_incoming(&bank, &unknown.id, answer).await.expect_err("answered otherwise");
        assert_eq!(error.code(), ErrorCode::Conflict);
        assert!(world.quarantined().await.is_empty());
        assert_eq!(world.cloud.answer_incoming(&world.admin, &unknown.id, back).await.expect_err("not theirs").code(), ErrorCode::WrongKeyPlane);
        world.check().await;
    }

    async fn a_statement_with_a_wrong_row_takes_nothing_in(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let top_up = world.top_up(PaymentMethod::Bank, UNIT).await;
        let rows = format!("t1,1,EUR,{}\nt2,x,EUR,y\n", top_up.reference);
        let error = world.try_import(&rows).await.expect_err("a wrong row");
        assert!(error.message().contains("line 3"), "{error}");
        assert_eq!(world.funds().await, (0, 0));
        // Banks' ids do not change what they name.
        world.import(&format!("t1,1,EUR,{}\n", top_up.reference)).await;
        let error = world.try_import(&format!("t1,2,EUR,{}\n", top_up.reference)).await.expect_err("another amount");
        assert_eq!(error.code(), ErrorCode::Conflict);
        assert_eq!(world.funds().await, (UNIT, UNIT));
    }

    async fn two_imports_of_one_statement_at_once_count_it_once(cloud: &TestCloud) {
        let world = World::start(cloud).await;
        let mut rows = String::new();
        for number in 0..8 {
            let top_up = world.top_up(PaymentMethod::Bank, UNIT).await;
            rows.push_str(&format!("t{number},1,EUR,{}\n", top_up.reference));
        }
        let content = format!("transaction_id,amount,currency,reference\n{rows}");
        let (other, call) = (world.another().await, sublet_cloud::idempotency::Call::once(operator("key_bank")));
        let render = |_: &Vec<sublet_cloud::incoming_payment::TakenRow>| Ok(String::new());
        let (first, second) = tokio::join!(
            world.cloud.import_statement(&call, &content, &render),
            other.import_statement(&call, &content, &render)
        );
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        world.import(&rows).await;
        assert_eq!(world.funds().await, (8 * UNIT, 8 * UNIT));
        assert_eq!(Nanos::new(UNIT).get() % Currency::EUR.minor_unit().get(), 0);
        world.check().await;
    }
}
