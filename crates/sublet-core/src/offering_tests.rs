use super::*;

fn product(text: &str) -> Product {
    text.parse().unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_seconds(seconds)
}

fn change(state: OfferingState) -> OfferingChange {
    OfferingChange { state, ends_at: None, successor: None }
}

fn retiring(ends_at: i64, successor: Option<&str>) -> OfferingChange {
    OfferingChange { state: OfferingState::Retiring, ends_at: Some(at(ends_at)), successor: successor.map(product) }
}

/// Changes one after the other, each a second after the one before.
fn after(changes: &[OfferingChange]) -> Option<Offering> {
    let mut now = 0;
    changes.iter().fold(None, |before, change| {
        now += 1;
        plan_change(&product("model/m"), before.as_ref(), change, at(now)).unwrap().or(before)
    })
}

fn entitlements(invited: &[&str], using: &[&str]) -> Entitlements {
    let set = |names: &[&str]| names.iter().copied().map(product).collect();
    Entitlements { invited: set(invited), using: set(using) }
}

#[test]
fn products_parse_back_and_notices_are_known_by_their_names() {
    for text in ["model/m", "model/org/m", "device/cpu", "device/firm/h100", "device/n15m/a/b", "device/maker/x1"] {
        assert_eq!(product(text).to_string(), text);
    }
    let at_notice = Product::Device { kind: "h100".parse().unwrap(), notice: Some(NoticeClass::Firm) };
    assert_eq!(product("device/firm/h100"), at_notice);
    for text in ["", "model", "model/", "device/", "device/firm/", "model/a b", "fee/setup", &format!("model/{}", "x".repeat(129))]
    {
        assert!(text.parse::<Product>().is_err(), "{text}");
    }
}

#[test]
fn each_state_is_open_to_whom_the_table_says() {
    use OfferingState::{Draft, Invited, Preview, Public};
    let (stranger, invited, using) = (entitlements(&[], &[]), entitlements(&["model/m"], &[]), entitlements(&[], &["model/m"]));
    let open = |changes: &[OfferingChange], now: i64| {
        let offering = after(changes).unwrap();
        [&stranger, &invited, &using].map(|entitlements| match offering.offered_to(entitlements, at(now)) {
            Offered::Open => "open",
            Offered::Hidden => "hidden",
            Offered::Closed(_) => "closed",
            Offered::Ended(_) => "ended",
        })
    };
    assert_eq!(open(&[change(Draft)], 5), ["hidden"; 3]);
    assert_eq!(open(&[change(Invited)], 5), ["hidden", "open", "open"]);
    assert_eq!(open(&[change(Preview)], 5), ["open"; 3]);
    assert_eq!(open(&[change(Draft), change(Public)], 5), ["open"; 3]);
    assert_eq!(open(&[retiring(9, None)], 8), ["closed", "closed", "open"]);
    assert_eq!(open(&[retiring(9, None)], 9), ["ended"; 3]);
    assert_eq!(open(&[change(OfferingState::Retired)], 2), ["ended"; 3]);
    // Who was never told of it does not learn of it by its end.
    assert_eq!(open(&[change(Invited), retiring(9, None)], 8), ["hidden", "closed", "open"]);
    assert_eq!(open(&[change(Invited), retiring(9, None)], 9), ["hidden", "ended", "ended"]);
    assert_eq!(open(&[change(Draft), change(OfferingState::Retired)], 9), ["hidden"; 3]);
}

#[test]
fn another_date_keeps_the_users_and_another_life_forgets_them() {
    let first = after(&[retiring(9, Some("model/n"))]).unwrap();
    assert_eq!((first.number, first.users_of), (1, Some(1)));
    let later = after(&[retiring(9, Some("model/n")), retiring(20, None)]).unwrap();
    assert_eq!((later.number, later.users_of), (2, Some(1)));
    assert_eq!(later.end, Some(End { at: at(20), successor: Some(product("model/n")) }));
    let again = after(&[retiring(9, None), change(OfferingState::Public), retiring(20, None)]).unwrap();
    assert_eq!((again.number, again.users_of), (3, Some(3)));
}

#[test]
fn what_is_the_case_already_is_no_change() {
    let public = change(OfferingState::Public);
    assert_eq!(plan_change(&product("model/m"), None, &public, at(1)).unwrap(), None);
    let draft = after(&[change(OfferingState::Draft)]);
    assert_eq!(plan_change(&product("model/m"), draft.as_ref(), &change(OfferingState::Draft), at(9)).unwrap(), None);
    let retired = after(&[change(OfferingState::Retired)]);
    assert_eq!(plan_change(&product("model/m"), retired.as_ref(), &change(OfferingState::Retired), at(9)).unwrap(), None);
}

#[test]
fn a_change_that_contradicts_itself_is_refused_with_its_field() {
    let with = |state, ends_at: Option<i64>, successor: Option<&str>| OfferingChange {
        state,
        ends_at: ends_at.map(at),
        successor: successor.map(product),
    };
    use OfferingState::{Draft, Invited, Public, Retired, Retiring};
    for (before, change, param) in [
        (vec![], with(Retiring, None, None), "ends_at"),
        (vec![], with(Retiring, Some(10), None), "ends_at"),
        (vec![], with(Public, Some(99), None), "ends_at"),
        (vec![], with(Retired, Some(99), None), "ends_at"),
        (vec![], with(Invited, None, Some("model/n")), "successor"),
        (vec![], with(Retiring, Some(99), Some("model/m")), "successor"),
        (vec![], with(Retiring, Some(99), Some("device/cpu")), "successor"),
        (vec![change(Draft)], with(Retiring, Some(99), None), "state"),
        (vec![change(Retired)], with(Retiring, Some(99), None), "state"),
        (vec![retiring(5, None)], with(Retiring, Some(99), None), "state"),
    ] {
        let error = plan_change(&product("model/m"), after(&before).as_ref(), &change, at(10)).expect_err(param);
        assert_eq!(error.param_name(), Some(param), "{change:?}: {error}");
    }
}

#[test]
fn the_most_exact_offering_of_a_device_counts_alone() {
    let of = |text: &str, state| plan_change(&product(text), None, &change(state), at(1)).unwrap().unwrap();
    let all = Offerings::new([of("device/cpu", OfferingState::Draft), of("device/n0/cpu", OfferingState::Preview)]);
    let kind = "cpu".parse().unwrap();
    let state = |notice| all.find_device(&kind, notice).map(|offering| offering.state);
    assert_eq!(state(NoticeClass::N0), Some(OfferingState::Preview));
    assert_eq!(state(NoticeClass::Firm), Some(OfferingState::Draft));
    assert_eq!(all.find_device(&"gpu".parse().unwrap(), NoticeClass::N0), None);
    assert_eq!(all.find_model("cpu"), None);
}

#[test]
fn what_is_said_first_of_one_notice_goes_on_from_what_is_said_of_the_kind() {
    let (kind, one) = (product("device/cpu"), product("device/n0/cpu"));
    assert_eq!((one.general(), kind.general(), product("model/m").general()), (Some(kind.clone()), None, None));
    let said = |changes: &[OfferingChange]| {
        let next = |before: Option<Offering>, change| plan_change(&kind, before.as_ref(), change, at(1)).unwrap().or(before);
        changes.iter().fold(None, next)
    };
    let first = |changes: &[OfferingChange], change| plan_change(&one, said(changes).as_ref(), &change, at(2));
    let (draft, invited, retired) = (change(OfferingState::Draft), change(OfferingState::Invited), change(OfferingState::Retired));
    let stranger = entitlements(&[], &[]);
    for (before, now) in [
        (vec![invited.clone()], retiring(9, Some("device/gpu"))),
        (vec![invited.clone()], retired.clone()),
        (vec![draft.clone()], retired),
        (vec![invited, retiring(8, None)], retiring(9, None)),
    ] {
        let after = first(&before, now).unwrap().expect("news");
        assert_eq!((after.number, after.offered_to(&stranger, at(3))), (1, Offered::Hidden), "{after:?}");
    }
    assert_eq!(first(std::slice::from_ref(&draft), retiring(9, None)).expect_err("a draft").param_name(), Some("state"));
    // Its own users are looked for: the kind's list is another one.
    let earlier = first(&[change(OfferingState::Public), retiring(20, Some("device/gpu"))], retiring(9, None)).unwrap().unwrap();
    assert_eq!(earlier.users_of, Some(1));
    assert_eq!(earlier.end, Some(End { at: at(9), successor: Some(product("device/gpu")) }));
    // The kind may change; what was said of the notice stays.
    let alone = first(std::slice::from_ref(&draft), draft.clone()).unwrap().expect("news");
    assert_eq!((alone.product, alone.state), (one.clone(), OfferingState::Draft));
    assert!(first(&[draft], change(OfferingState::Public)).unwrap().is_some());
    assert_eq!(first(&[], change(OfferingState::Public)).unwrap(), None);
}

/// Every life of four changes, each tried in every state.
#[test]
fn in_every_life_strangers_are_let_in_by_preview_and_public_alone_and_learn_nothing_before() {
    let changes: Vec<OfferingChange> = OfferingState::ALL
        .iter()
        .map(|state| if *state == OfferingState::Retiring { retiring(3, None) } else { change(*state) })
        .collect();
    let (mut lives, mut seen) = (0, 0);
    for life in 0..changes.len().pow(4) {
        let (mut offering, mut was_known): (Option<Offering>, bool) = (None, true);
        for (second, step) in (0..4).map(|power| life / changes.len().pow(power) % changes.len()).enumerate() {
            let now = at(i64::try_from(second).unwrap() + 1);
            // What is refused changes nothing.
            let Ok(planned) = plan_change(&product("model/m"), offering.as_ref(), &changes[step], now) else { continue };
            let Some(after) = planned else { continue };
            assert_eq!(after.number, offering.as_ref().map_or(0, |before| before.number) + 1);
            let is_over = matches!(after.state, OfferingState::Retiring | OfferingState::Retired);
            was_known = if is_over { was_known } else { after.reach == Reach::Everyone };
            for later in 0..3 {
                let now = at(now.seconds() + later);
                let (state, sale) = (after.state_at(now), after.offered_to(&entitlements(&[], &[]), now));
                assert_eq!(sale == Offered::Open, matches!(state, OfferingState::Preview | OfferingState::Public), "{after:?}");
                assert_eq!(sale != Offered::Hidden, was_known, "{after:?}");
                // Who may go on can do so until the end, and an announced end is never without one.
                let users = after.offered_to(&entitlements(&["model/m"], &["model/m"]), now);
                assert_eq!(users == Offered::Open, !matches!(state, OfferingState::Draft | OfferingState::Retired), "{after:?}");
                assert_eq!(after.announced_end(now).is_some(), state == OfferingState::Retiring);
                seen += 1;
            }
            offering = Some(after);
        }
        lives += 1;
    }
    assert!(lives == 1_296 && seen > 6_000, "{lives} lives, {seen} moments");
}
