use proptest::prelude::*;
use sublet_core::Currency;

use super::*;
use crate::contract::{Commitment, Notice};
use crate::sku::SkuFamily;

fn month(text: &str) -> PeriodKey {
    text.parse().unwrap()
}
fn cents(count: i64) -> Nanos {
    Nanos::new(count * 10_000_000)
}

fn terms(fee: Option<i64>, months: u32, period_months: u32) -> ContractTerms {
    ContractTerms {
        billed: None,
        commitments: vec![Commitment { from_period: 1, amount: Nanos::ZERO }],
        covers: [SkuFamily::DeviceTime].into(),
        currency: Currency::EUR,
        exit: None,
        fee: fee.map(|fee| FeeTerms { amount: cents(fee) }),
        months,
        payment: None,
        period_months,
        pricing: None,
        quantities: None,
        renewal: None,
        roll_over_periods: 0,
        starts: month("2027-01"),
    }
}

fn version(from: &str, terms: ContractTerms) -> TermsVersion {
    TermsVersion::new(month(from), terms).unwrap()
}

/// What each month's invoice from December 2026 on bills, and for which period.
fn billed(agreement: &Agreement, months: u32) -> Vec<(String, u32, i64)> {
    let contract = "ctr_1".parse().unwrap();
    let month = |index| month("2026-12").plus(index).unwrap();
    let line = |index| AdvanceLine::new((&contract, agreement), month(index)).unwrap();
    (0..months)
        .filter_map(|index| Some((month(index), line(index)?)))
        .map(|(at, line)| (at.to_string(), line.number, line.fee.get() / 10_000_000))
        .collect()
}

#[test]
fn a_fee_is_billed_with_the_month_before_its_period() {
    let agreed = Agreement::new(vec![version("2027-01", terms(Some(300), 6, 3))], None).unwrap();
    let want = [("2026-12".to_owned(), 1, 300), ("2027-03".to_owned(), 2, 300)];
    assert_eq!(billed(&agreed, 24), want);
    // Who leaves pays for no period after the last one; an amendment changes none that began.
    let notice = Some(Notice { last_month: month("2027-03"), fee: Nanos::ZERO });
    let left = Agreement::new(agreed.versions().to_vec(), notice).unwrap();
    assert_eq!(billed(&left, 24), want[..1]);
    let amended = vec![version("2027-01", terms(Some(300), 6, 3)), version("2027-04", terms(Some(500), 6, 3))];
    let amended = Agreement::new(amended, None).unwrap();
    assert_eq!(billed(&amended, 24), [want[0].clone(), ("2027-03".to_owned(), 2, 500)]);
}

#[test]
fn a_line_that_was_changed_is_refused() {
    let version = version("2027-01", terms(Some(300), 6, 3));
    let agreed = Agreement::new(vec![version.clone()], None).unwrap();
    let line = AdvanceLine::new((&"ctr_1".parse().unwrap(), &agreed), month("2027-03")).unwrap().unwrap();
    line.verify(&version, month("2027-03")).unwrap();
    assert!(line.verify(&version, month("2027-02")).is_err());
    let changes: [fn(&mut AdvanceLine); 4] = [
        |line| line.number += 1,
        |line| line.first = month("2027-05"),
        |line| line.last = month("2027-05"),
        |line| line.fee = cents(299),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut changed = line.clone();
        change(&mut changed);
        assert!(changed.verify(&version, month("2027-03")).is_err(), "change {index}");
    }
}

#[test]
fn a_fee_that_cannot_be_billed_is_refused() {
    let refused = |fee: Nanos| {
        let mut terms = terms(None, 6, 3);
        terms.fee = Some(FeeTerms { amount: fee });
        TermsVersion::new(terms.starts, terms).unwrap_err().param_name().map(str::to_owned)
    };
    for fee in [Nanos::ZERO, cents(-1), Nanos::new(1), cents(i64::MAX / 10_000_000)] {
        assert_eq!(refused(fee).as_deref(), Some("fee"), "{fee}");
    }
}

proptest! {
    /// Whatever is amended in the middle: each period is billed once at most, and what its months earn is what was billed.
    #[test]
    fn amendments_move_only_what_is_not_billed_yet(
        (period_months, periods) in prop::sample::select(vec![(1_u32, 6_u32), (2, 5), (3, 4), (6, 3), (12, 2)]),
        fees in prop::collection::vec(prop::option::of(1_i64..100_000), 2),
        amended_from in 1_u32..6,
    ) {
        let (months, at) = (period_months * periods, amended_from.min(periods - 1));
        let from = month("2027-01").plus(at * period_months).unwrap();
        let first = version("2027-01", terms(fees[0], months, period_months));
        let before = Agreement::new(vec![first.clone()], None).unwrap();
        let after = Agreement::new(vec![first, version(&from.to_string(), terms(fees[1], months, period_months))], None).unwrap();
        let made = billed(&after, months + 13);
        let count = |fee: Option<i64>, periods: u32| fee.map_or(0, |_| periods);
        prop_assert_eq!(u32::try_from(made.len()).unwrap(), count(fees[0], at) + count(fees[1], periods - at));
        let earlier = |lines: Vec<(String, u32, i64)>| lines.into_iter().filter(|line| line.1 <= at).collect::<Vec<_>>();
        prop_assert_eq!(earlier(made.clone()), earlier(billed(&before, months + 13)));
        let contract = "ctr_1".parse().unwrap();
        for (billed_in, _, fee) in made {
            let line = AdvanceLine::new((&contract, &after), month(&billed_in)).unwrap().unwrap();
            let earned = (0..months + 13).map(|index| line.schedule().of_month(month("2026-12").plus(index).unwrap()).unwrap());
            prop_assert_eq!(Nanos::checked_sum(earned).unwrap(), cents(fee));
        }
    }
}
