use proptest::prelude::*;
use sublet_core::DurationMs;

use super::*;

const DAY: DurationMs = DurationMs::from_hours(24);

fn policy(reminders: &[u16], suspend_after: Option<u16>) -> DunningPolicy {
    DunningPolicy { reminders: reminders.to_vec(), suspend_after }
}

fn day(text: &str) -> Day {
    text.parse().unwrap()
}

fn debt(name: &str, due_on: &str) -> Debt {
    Debt {
        invoice: name.parse().unwrap(),
        due_on: day(due_on),
        amount: Nanos::new(1),
        reminded: None,
        delivered_on: None,
        is_paused: false,
    }
}

fn at(text: &str) -> Timestamp {
    let at: jiff::Timestamp = text.parse().unwrap();
    Timestamp::from_micros(at.as_microsecond())
}

/// What a plan says, in short, and what is known after it was done.
fn step(
    calendar: &BillingCalendar,
    (debts, is_suspended): (&mut [Debt], &mut bool),
    policy: &DunningPolicy,
    now: Timestamp,
) -> Vec<String> {
    let account = DunnedAccount { calendar, debts, is_paused: false, is_suspended: *is_suspended };
    let actions = plan_dunning(account, policy, now).unwrap();
    let mut said = Vec::new();
    for action in actions {
        said.push(match action {
            DunningAction::Remind { invoice, reminder } => {
                let debt = debts.iter_mut().find(|debt| debt.invoice == invoice).unwrap();
                (debt.reminded, debt.delivered_on) = (Some(reminder), Some(reminder.on));
                format!("{invoice}+{}", reminder.after_days)
            }
            DunningAction::Suspend => {
                *is_suspended = true;
                "suspend".to_owned()
            }
            DunningAction::Lift => {
                *is_suspended = false;
                "lift".to_owned()
            }
        });
    }
    said
}

#[test]
fn a_debt_is_reminded_of_and_then_suspends_its_account() {
    let calendar = BillingCalendar::new("UTC").unwrap();
    let policy = policy(&[3, 10], Some(15));
    let (mut debts, mut suspended) = (vec![debt("inv_b", "2026-03-02"), debt("inv_a", "2026-03-01")], false);
    let mut said = Vec::new();
    for days in 0..40 {
        let now = at("2026-02-25T12:00:00Z").plus(DurationMs::from_hours(24 * days));
        if days == 25 {
            debts[1].amount = Nanos::ZERO;
        }
        if days == 30 {
            debts[0].amount = Nanos::ZERO;
        }
        for _ in 0..2 {
            let actions = step(&calendar, (&mut debts, &mut suspended), &policy, now);
            said.extend(actions.into_iter().map(|action| format!("{} {action}", calendar.day_at(now).unwrap())));
        }
    }
    assert_eq!(
        said,
        [
            "2026-03-04 inv_a+3",
            "2026-03-05 inv_b+3",
            "2026-03-11 inv_a+10",
            "2026-03-12 inv_b+10",
            "2026-03-16 suspend",
            "2026-03-27 lift"
        ]
    );
}

#[test]
fn after_an_outage_there_is_one_reminder_and_all_of_the_grace() {
    let calendar = BillingCalendar::new("UTC").unwrap();
    let policy = policy(&[3, 10, 20], Some(30));
    let (mut debts, mut suspended) = (vec![debt("inv_a", "2026-03-01")], false);
    let mut says = |text: &str| step(&calendar, (&mut debts, &mut suspended), &policy, at(text));
    assert_eq!(says("2026-05-01T00:00:00Z"), ["inv_a+20"]);
    assert_eq!(says("2026-05-10T23:59:59Z"), Vec::<String>::new());
    assert_eq!(says("2026-05-11T00:00:00Z"), ["suspend"]);
}

#[test]
fn nobody_is_suspended_whom_the_last_reminder_did_not_reach() {
    let calendar = BillingCalendar::new("UTC").unwrap();
    let policy = policy(&[3, 10], Some(15));
    let reminded = |after_days| Some(Reminded { after_days, on: day("2026-03-11") });
    for (reminded, delivered_on, now, expected) in [
        (reminded(10), None, "2026-12-01T00:00:00Z", vec![]),
        (reminded(10), Some(day("2026-03-20")), "2026-03-24T23:59:59Z", vec![]),
        (reminded(10), Some(day("2026-03-20")), "2026-03-25T00:00:00Z", vec![DunningAction::Suspend]),
        (reminded(10), Some(day("2026-03-11")), "2026-03-16T00:00:00Z", vec![DunningAction::Suspend]),
    ] {
        let debts = [Debt { reminded, delivered_on, ..debt("inv_a", "2026-03-01") }];
        let account = DunnedAccount { calendar: &calendar, debts: &debts, is_paused: false, is_suspended: false };
        assert_eq!(plan_dunning(account, &policy, at(now)).unwrap(), expected, "{delivered_on:?} {now}");
    }
}

#[test]
fn a_pause_of_a_debt_or_an_account_sends_nothing_and_lifts() {
    let calendar = BillingCalendar::new("UTC").unwrap();
    let policy = policy(&[3], Some(4));
    let reminded = Some(Reminded { after_days: 3, on: day("2026-03-04") });
    let owed = Debt { reminded, delivered_on: Some(day("2026-03-04")), ..debt("inv_a", "2026-03-01") };
    for (is_paused, account_is_paused, is_suspended, expected) in [
        (false, false, false, vec![DunningAction::Suspend]),
        (false, false, true, vec![]),
        (true, false, false, vec![]),
        (true, false, true, vec![DunningAction::Lift]),
        (false, true, true, vec![DunningAction::Lift]),
    ] {
        let debts = [Debt { is_paused, ..owed.clone() }];
        let account = DunnedAccount { calendar: &calendar, debts: &debts, is_paused: account_is_paused, is_suspended };
        assert_eq!(
            plan_dunning(account, &policy, at("2026-04-01T00:00:00Z")).unwrap(),
            expected,
            "{is_paused} {account_is_paused}"
        );
    }
}

#[test]
fn days_are_those_of_the_accounts_zone() {
    let policy = policy(&[1], None);
    // The night of the change of clocks, a zone far ahead, and a day that was left out.
    for (zone, due_on, before, after) in [
        ("Europe/Berlin", "2026-03-28", "2026-03-28T22:59:59Z", "2026-03-28T23:00:00Z"),
        ("Europe/Berlin", "2026-03-29", "2026-03-29T21:59:59Z", "2026-03-29T22:00:00Z"),
        ("America/New_York", "2026-10-31", "2026-11-01T03:59:59Z", "2026-11-01T04:00:00Z"),
        ("America/New_York", "2026-11-01", "2026-11-02T04:59:59Z", "2026-11-02T05:00:00Z"),
        ("Pacific/Kiritimati", "2026-03-01", "2026-03-01T09:59:59Z", "2026-03-01T10:00:00Z"),
        ("Pacific/Apia", "2011-12-29", "2011-12-30T09:59:59Z", "2011-12-30T10:00:00Z"),
    ] {
        let calendar = BillingCalendar::new(zone).unwrap();
        let debts = [debt("inv_a", due_on)];
        let plan = |now| {
            let account = DunnedAccount { calendar: &calendar, debts: &debts, is_paused: false, is_suspended: false };
            plan_dunning(account, &policy, at(now)).unwrap().len()
        };
        assert_eq!((plan(before), plan(after)), (0, 1), "{zone} {due_on}");
    }
}

#[test]
fn a_policy_reminds_before_it_suspends() {
    for (reminders, suspend_after, is_right) in [
        (vec![], None, true),
        (vec![3, 10, 20], Some(30), true),
        (vec![3], None, true),
        (vec![1], Some(2), true),
        (vec![], Some(30), false),
        (vec![3], Some(3), false),
        (vec![10, 3], None, false),
        (vec![3, 3], None, false),
        (vec![0], None, false),
        (vec![366], None, false),
        (vec![3], Some(366), false),
        ((1..=11).collect(), None, false),
    ] {
        let policy = DunningPolicy { reminders, suspend_after };
        assert_eq!(policy.validate().is_ok(), is_right, "{policy:?}");
    }
}

proptest! {
    /// However days are skipped and whatever is paid when: each reminder once and never early, no suspension without all
    /// of its grace, and none that outlives its reason.
    #[test]
    fn nobody_is_surprised(
        gaps in prop::collection::btree_set(1_u16..60, 1..5),
        grace in 1_u16..30,
        pauses in prop::collection::vec(1_i64..40, 1..40),
        pays_at in 0_usize..40,
    ) {
        let calendar = BillingCalendar::new("Europe/Berlin").unwrap();
        let reminders: Vec<u16> = gaps.into_iter().collect();
        let last = *reminders.last().unwrap();
        let policy = policy(&reminders, Some(last + grace));
        policy.validate().unwrap();
        let due_on = day("2026-02-20");
        let (mut debts, mut suspended) = (vec![debt("inv_a", "2026-02-20")], false);
        let (mut now, mut sent) = (at("2026-02-19T12:00:00Z"), Vec::<Reminded>::new());
        for (index, pause) in pauses.into_iter().enumerate() {
            now = now.plus(DurationMs::from_millis(DAY.millis() * pause));
            if index == pays_at {
                debts[0].amount = Nanos::ZERO;
            }
            let today = calendar.day_at(now).unwrap();
            let before = debts[0].reminded;
            let said = step(&calendar, (&mut debts, &mut suspended), &policy, now);
            prop_assert_eq!(step(&calendar, (&mut debts, &mut suspended), &policy, now), Vec::<String>::new(), "a repeat does nothing");
            if debts[0].reminded != before {
                let reminded = debts[0].reminded.unwrap();
                prop_assert!(due_on.plus_days(reminded.after_days).unwrap() <= today);
                prop_assert!(sent.last().is_none_or(|last| last.after_days < reminded.after_days));
                sent.push(reminded);
            }
            if said.iter().any(|action| action == "suspend") {
                let warned = sent.last().unwrap();
                prop_assert_eq!(warned.after_days, last);
                prop_assert!(warned.on.plus_days(grace).unwrap() <= today);
                prop_assert!(due_on.plus_days(last + grace).unwrap() <= today);
            }
            prop_assert!(!suspended || index < pays_at, "it outlived its reason");
        }
    }
}
