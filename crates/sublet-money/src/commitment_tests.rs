use proptest::prelude::*;
use sublet_core::Currency;
use sublet_core::admission::PriceVersion;

use super::*;
use crate::contract::{Commitment, Notice, TermsVersion};
use crate::invoice::ChargeSum;
use crate::sku::{PricingUnit, Quantity, QuantityChange, SkuFamily};

fn month(text: &str) -> PeriodKey {
    text.parse().unwrap()
}

/// Two months a period, over `amounts` of cents.
fn terms(amounts: &[i64], roll_over_periods: u32) -> ContractTerms {
    let commitments = (1..).zip(amounts).map(|(from_period, cents)| Commitment { from_period, amount: cent(*cents) });
    ContractTerms {
        billed: None,
        commitments: commitments.collect(),
        covers: [SkuFamily::ModelTokens].into(),
        currency: Currency::EUR,
        exit: None,
        fee: None,
        months: u32::try_from(amounts.len()).unwrap() * 2,
        payment: None,
        period_months: 2,
        pricing: None,
        quantities: None,
        renewal: None,
        roll_over_periods,
        starts: month("2027-01"),
    }
}

fn cent(count: i64) -> Nanos {
    Nanos::new(count * 10_000_000)
}

fn line(sku: &str, amount: Nanos) -> InvoiceLine {
    InvoiceLine {
        project: "proj_1".parse().unwrap(),
        sku: sku.parse().unwrap(),
        band: None,
        price_version: PriceVersion("v".into()),
        price: String::new(),
        quantity: QuantityChange::new(1),
        unit: PricingUnit::MillionTokens,
        charges: ChargeSum { count: 1, amount },
        late: None,
    }
}

/// Bills months of `uses` one after the other, as the cloud does: what each contract's part adds.
fn bill(agreement: &Agreement, uses: &[i64]) -> Vec<CommitmentLine> {
    let contract: ContractId = "ctr_1".parse().unwrap();
    let (mut settled, mut bills): (Vec<SettledPeriod>, Vec<CommitmentLine>) = (Vec::new(), Vec::new());
    for (months, cents) in (0..).zip(uses) {
        let at = month("2027-01").plus(months).unwrap();
        let lines = [line("tokens/output/m", cent(*cents)), line("device/n0/cpu", cent(7))];
        let Some((version, period)) = agreement.at(at).unwrap() else { break };
        let before = bills.iter().filter(|bill| bill.number == period.number).map(|bill| bill.counted);
        let counted = Nanos::checked_sum(before).unwrap();
        let earlier = Earlier { counted, quantity: Quantity::ZERO, settled: &settled };
        let made = CommitmentLine::new((&contract, agreement), at, &lines, earlier).unwrap().unwrap();
        made.verify((version, version), at, &lines).unwrap();
        if at == period.last {
            settled.push(SettledPeriod {
                number: period.number,
                shortfall: made.shortfall,
                roll_over_used: made.roll_over_used,
                missing: Quantity::ZERO,
                quantity_used: Quantity::ZERO,
                roll_over_periods: version.terms.roll_over_periods,
            });
        }
        bills.push(made);
    }
    bills
}

fn agreement(terms: ContractTerms) -> Agreement {
    Agreement::new(vec![TermsVersion::new(terms.starts, terms).unwrap()], None).unwrap()
}

#[test]
fn what_is_missing_is_charged_at_the_end_of_the_period() {
    let bills = bill(&agreement(terms(&[100, 100], 0)), &[30, 20, 80, 90]);
    let cents = |amount: Nanos| amount.get() / 10_000_000;
    let said: Vec<_> = bills.iter().map(|bill| (cents(bill.counted_before), cents(bill.counted), cents(bill.shortfall))).collect();
    // What is not covered does not count, and what is beyond one period's commitment does not help the next.
    assert_eq!(said, [(0, 30, 0), (30, 20, 50), (0, 80, 0), (80, 90, 0)]);
}

#[test]
fn what_was_missing_rolls_over_the_oldest_first_and_is_lost_after_its_time() {
    // 50 and 40 missing; then 60 beyond; then 70 beyond, of which 30 are left and in time.
    let uses = [50, 0, 60, 0, 160, 0, 170, 0];
    let bills = bill(&agreement(terms(&[100, 100, 100, 100], 2)), &uses);
    let ends: Vec<_> = bills.iter().skip(1).step_by(2).collect();
    let of = |pick: fn(&CommitmentLine) -> Nanos| ends.iter().map(|bill| pick(bill).get() / 10_000_000).collect::<Vec<_>>();
    assert_eq!(of(|bill| bill.shortfall), [50, 40, 0, 0]);
    assert_eq!(of(|bill| bill.roll_over), [0, 50, 90, 30]);
    assert_eq!(of(|bill| bill.roll_over_used), [0, 0, 60, 30]);
    assert_eq!(of(|bill| bill.amount().unwrap()), [50, 40, -60, -30]);
    // With one period's time, only the second shortfall is there in the third period, and nothing in the fourth.
    let bills = bill(&agreement(terms(&[100, 100, 100, 100], 1)), &uses);
    let used: Vec<_> = bills.iter().skip(1).step_by(2).map(|bill| bill.roll_over_used.get() / 10_000_000).collect();
    assert_eq!(used, [0, 0, 40, 0]);
}

#[test]
fn leaving_costs_its_fee_with_the_last_month() {
    let mut terms = terms(&[100, 100, 300], 0);
    terms.exit = Some(crate::contract::ExitTerms { after_periods: 1, fee_ppm: 250_000, notice_months: 1 });
    let version = TermsVersion::new(terms.starts, terms.clone()).unwrap();
    let agreed = Agreement::new(vec![version.clone()], None).unwrap();
    let notice = agreed.give_notice(month("2027-04"), month("2027-02")).unwrap();
    assert_eq!(notice, Notice { last_month: month("2027-04"), fee: cent(75) });
    let left = Agreement::new(vec![version], Some(notice)).unwrap();
    let bills = bill(&left, &[100, 0, 40, 60, 1_000, 1_000]);
    assert_eq!(bills.len(), 4);
    assert_eq!(bills.iter().map(|bill| bill.amount().unwrap()).collect::<Vec<_>>(), [cent(0), cent(0), cent(0), cent(75)]);
    let mut cheaper = bills[3].clone();
    cheaper.exit_fee = cent(74);
    let lines = [line("tokens/output/m", cent(60))];
    let version = TermsVersion::new(terms.starts, terms).unwrap();
    assert!(cheaper.verify((&version, &version), month("2027-04"), &lines).is_err());
}

#[test]
fn a_part_that_was_changed_is_refused() {
    let terms = terms(&[100, 100], 2);
    let version = TermsVersion::new(terms.starts, terms.clone()).unwrap();
    let agreed = agreement(terms);
    let bills = bill(&agreed, &[30, 20, 80, 90]);
    let lines = |cents: i64| [line("tokens/output/m", cent(cents)), line("device/n0/cpu", cent(7))];
    let changes: [fn(&mut CommitmentLine); 10] = [
        |part| part.number += 1,
        |part| part.first = part.last,
        |part| part.last = part.first,
        |part| part.committed = cent(99),
        |part| part.counted = cent(21),
        |part| part.shortfall = cent(49),
        |part| part.roll_over_used = cent(1),
        |part| part.exit_fee = cent(1),
        |part| part.roll_over = cent(-1),
        |part| part.fee_terms = Some(String::new()),
    ];
    for (index, change) in changes.into_iter().enumerate() {
        let mut part = bills[1].clone();
        change(&mut part);
        assert!(part.verify((&version, &version), month("2027-02"), &lines(20)).is_err(), "change {index}");
    }
    let mut early = bills[0].clone();
    early.counted_before = cent(5);
    assert!(early.verify((&version, &version), month("2027-01"), &lines(30)).is_err());
    let mut early = bills[0].clone();
    early.shortfall = cent(70);
    assert!(early.verify((&version, &version), month("2027-01"), &lines(30)).is_err());
}

/// Known failure: what is missing is compared month by month, so a month of much use does not make up for one of
/// little. Kept to show that the test above sees it.
fn naive_shortfalls(committed: i64, uses: &[i64]) -> i64 {
    uses.iter().map(|used| (committed / 2 - used).max(0)).sum()
}

#[test]
fn a_period_is_settled_as_one() {
    let uses = [10, 90];
    assert_ne!(naive_shortfalls(100, &uses), 0);
    let bills = bill(&agreement(terms(&[100], 0)), &uses);
    assert!(bills.iter().all(|bill| bill.amount().unwrap().is_zero()));
}

proptest! {
    /// Whatever is used: all that is invoiced is what was used beyond or up to the commitments and their shortfalls, no
    /// more is given back than was charged, and without roll-over each period costs its commitment at least.
    #[test]
    fn shortfalls_and_roll_overs_add_up(
        commitments in prop::collection::vec(0_i64..1_000, 1..8),
        uses in prop::collection::vec(0_i64..1_500, 16),
        roll_over_periods in 0_u32..4,
    ) {
        let agreed = agreement(terms(&commitments, roll_over_periods));
        let bills = bill(&agreed, &uses[..commitments.len() * 2]);
        prop_assert_eq!(bills.len(), commitments.len() * 2);
        let (mut charged, mut returned) = (Nanos::ZERO, Nanos::ZERO);
        for (index, pair) in bills.chunks(2).enumerate() {
            let (committed, used) = (cent(commitments[index]), cent(uses[index * 2] + uses[index * 2 + 1]));
            let [open, end] = pair else { panic!("two months") };
            prop_assert!(open.amount().unwrap().is_zero());
            prop_assert_eq!(end.total_counted().unwrap(), used);
            let costs = used.checked_add(end.amount().unwrap()).unwrap();
            prop_assert!(costs >= committed && costs <= used.max(committed));
            prop_assert!(end.shortfall.is_zero() || end.roll_over_used.is_zero());
            charged = charged.checked_add(end.shortfall).unwrap();
            returned = returned.checked_add(end.roll_over_used).unwrap();
            prop_assert!(returned <= charged);
            if roll_over_periods == 0 {
                prop_assert_eq!(costs, used.max(committed));
            }
        }
    }

    /// How use is spread over the months of a period does not change what the period costs.
    #[test]
    fn use_may_fall_in_any_month_of_the_period(used in 0_i64..2_000, first in 0_i64..2_000, committed in 0_i64..1_500) {
        let first = first.min(used);
        let cost = |uses: &[i64]| {
            bill(&agreement(terms(&[committed], 0)), uses).iter().map(|bill| bill.amount().unwrap().get()).sum::<i64>()
        };
        prop_assert_eq!(cost(&[first, used - first]), cost(&[0, used]));
    }
}
