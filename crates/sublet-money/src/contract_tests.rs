use proptest::prelude::*;

use super::*;

const EUR: i64 = 1_000_000_000;

fn month(text: &str) -> PeriodKey {
    text.parse().unwrap()
}

/// A year from January 2027 in quarters, 100 euros each, then 200.
fn terms() -> ContractTerms {
    ContractTerms {
        billed: None,
        commitments: vec![
            Commitment { from_period: 1, amount: Nanos::new(100 * EUR) },
            Commitment { from_period: 3, amount: Nanos::new(200 * EUR) },
        ],
        covers: [SkuFamily::ModelTokens].into(),
        currency: Currency::EUR,
        exit: Some(ExitTerms { after_periods: 2, fee_ppm: 500_000, notice_months: 1 }),
        fee: None,
        months: 12,
        payment: None,
        period_months: 3,
        pricing: None,
        quantities: None,
        renewal: Some(RenewalTerms { months: 6, notice_months: 2 }),
        roll_over_periods: 1,
        starts: month("2027-01"),
    }
}

fn agreement(terms: ContractTerms) -> Agreement {
    Agreement::new(vec![TermsVersion::new(terms.starts, terms).unwrap()], None).unwrap()
}

fn days(net_days: u16) -> Option<PaymentTerms> {
    Some(PaymentTerms { net_days, note: None })
}

#[test]
fn terms_that_contradict_themselves_are_refused() {
    let refused = |change: fn(&mut ContractTerms), param: &str| {
        let mut terms = terms();
        change(&mut terms);
        assert_eq!(terms.validate().expect_err(param).param_name(), Some(param));
    };
    terms().validate().unwrap();
    refused(|terms| terms.period_months = 5, "period_months");
    refused(|terms| terms.months = 0, "months");
    refused(|terms| terms.months = 13, "months");
    refused(|terms| terms.months = 123, "months");
    refused(|terms| terms.covers.clear(), "covers");
    refused(|terms| terms.commitments.clear(), "commitments");
    refused(|terms| terms.commitments.reverse(), "commitments");
    refused(|terms| terms.commitments[1].from_period = 1, "commitments");
    refused(|terms| terms.commitments[1].from_period = 5, "commitments");
    refused(|terms| terms.commitments[0].amount = Nanos::new(-EUR), "commitments");
    refused(|terms| terms.commitments[0].amount = Nanos::new(EUR + 1), "commitments");
    refused(|terms| terms.roll_over_periods = 121, "roll_over_periods");
    refused(|terms| terms.exit = Some(ExitTerms { after_periods: 4, fee_ppm: 0, notice_months: 1 }), "exit.after_periods");
    refused(|terms| terms.exit = Some(ExitTerms { after_periods: 0, fee_ppm: 0, notice_months: 1 }), "exit.after_periods");
    refused(|terms| terms.exit = Some(ExitTerms { after_periods: 1, fee_ppm: 1_000_001, notice_months: 1 }), "exit.fee_ppm");
    refused(|terms| terms.exit = Some(ExitTerms { after_periods: 1, fee_ppm: 0, notice_months: 12 }), "exit.notice_months");
    refused(|terms| terms.renewal = Some(RenewalTerms { months: 4, notice_months: 1 }), "renewal.months");
    refused(|terms| terms.payment = days(366), "payment.net_days");
    let mut large = terms();
    large.commitments = vec![Commitment { from_period: 1, amount: Nanos::new(9_000_000_000 * EUR) }];
    assert_eq!(large.validate().expect_err("more than an amount").code(), ErrorCode::AmountOverflow);
}

#[test]
fn the_canonical_form_names_the_terms() {
    let version = TermsVersion::new(month("2027-01"), terms()).unwrap();
    let text = version.canonical().unwrap();
    assert_eq!(TermsVersion::from_canonical(&text, &version.hash).unwrap(), version);
    assert!(TermsVersion::from_canonical(&text.replace("500000", "400000"), &version.hash).is_err());
    let other = text.replace(SCHEMA, "sublet-contract/2");
    assert!(TermsVersion::from_canonical(&other, &sha256_hex(&other)).is_err());
    // The same terms from another month on are another agreement.
    assert_ne!(TermsVersion::new(month("2027-04"), terms()).unwrap().hash, version.hash);
}

/// What was agreed before terms could say when invoices are paid keeps its hash, and reads back.
#[test]
fn terms_say_by_when_invoices_of_their_months_are_paid() {
    let version = |from: &str, net_days: Option<u16>| {
        let payment = net_days.and_then(days);
        TermsVersion::new(month(from), ContractTerms { payment, renewal: None, ..terms() }).unwrap()
    };
    assert!(!version("2027-01", None).canonical().unwrap().contains("payment"));
    let first = version("2027-01", Some(60));
    assert_eq!(TermsVersion::from_canonical(&first.canonical().unwrap(), &first.hash).unwrap(), first);
    assert_ne!(first.hash, version("2027-01", Some(30)).hash);
    let versions = vec![first, version("2027-04", Some(0)), version("2027-10", None)];
    let agreement = Agreement::new(versions, None).unwrap();
    let at = |text: &str| agreement.payment_at(month(text)).unwrap().map(|payment| payment.net_days);
    let months = ["2026-12", "2027-01", "2027-03", "2027-04", "2027-09", "2027-10", "2028-01"];
    assert_eq!(months.map(at), [None, Some(60), Some(60), Some(0), Some(0), None, None]);
    let left = Notice { last_month: month("2027-06"), fee: Nanos::ZERO };
    let left = Agreement::new(agreement.versions().to_vec(), Some(left)).unwrap();
    assert_eq!(left.payment_at(month("2027-07")).unwrap(), None, "it ended");
}

#[test]
fn the_ramp_and_the_renewal_say_what_a_month_is_committed_to() {
    let agreement = agreement(terms());
    let at = |text: &str| agreement.at(month(text)).unwrap().map(|(_, period)| (period.number, period.committed.get() / EUR));
    for (text, expected) in [
        ("2026-12", None),
        ("2027-01", Some((1, 100))),
        ("2027-06", Some((2, 100))),
        ("2027-07", Some((3, 200))),
        ("2027-12", Some((4, 200))),
        ("2028-01", Some((5, 200))),
        ("2040-01", Some((53, 200))),
    ] {
        assert_eq!(at(text), expected, "{text}");
    }
    let mut once = terms();
    once.renewal = None;
    let once = self::agreement(once);
    assert_eq!(once.last_month().unwrap(), Some(month("2027-12")));
    assert!(once.at(month("2028-01")).unwrap().is_none());
}

#[test]
fn exits_say_when_by_when_and_at_what_cost() {
    let agreement = agreement(terms());
    let exits = |now: &str| {
        let list = agreement.exits(month(now)).unwrap();
        list.iter()
            .map(|exit| {
                (exit.last_month.to_string(), exit.notice_by.unwrap().to_string(), exit.fee.get() / EUR, exit.committed.get() / EUR)
            })
            .collect::<Vec<_>>()
    };
    let exit = |last: &str, by: &str, fee, committed| (last.to_owned(), by.to_owned(), fee, committed);
    // Half of what is left: 400 after the second quarter, 200 after the third, nothing at the end.
    let year = [exit("2027-06", "2027-05", 200, 200), exit("2027-09", "2027-08", 100, 400), exit("2027-12", "2027-10", 0, 600)];
    assert_eq!(exits("2026-06"), year);
    assert_eq!(exits("2027-02"), year);
    // In June it is too late for the second quarter.
    assert_eq!(exits("2027-06"), [exit("2027-09", "2027-08", 100, 300), exit("2027-12", "2027-10", 0, 500)]);
    // Past the notice for the term's end, the renewal's periods are left.
    assert_eq!(exits("2027-11"), [exit("2028-03", "2028-02", 100, 400), exit("2028-06", "2028-04", 0, 600)]);
}

#[test]
fn exits_are_priced_by_what_is_agreed_for_later() {
    let (first, mut less) = (terms(), terms());
    less.commitments.push(Commitment { from_period: 4, amount: Nanos::new(20 * EUR) });
    let versions = [(month("2027-01"), first.clone()), (month("2027-10"), less)];
    let agreed = Agreement::new(versions.map(|(from, terms)| TermsVersion::new(from, terms).unwrap()).to_vec(), None).unwrap();
    let fees = |agreement: &Agreement| {
        agreement.exits(month("2027-01")).unwrap().iter().map(|exit| exit.fee.get() / EUR).collect::<Vec<_>>()
    };
    // After the second quarter 200 and 20 are left, after the third 20.
    assert_eq!(fees(&agreed), [110, 10, 0]);
    // A longer term binds from when it is agreed: the end of the first year is none any more.
    let mut longer = first.clone();
    longer.months = 24;
    let versions = [(month("2027-01"), first), (month("2028-01"), longer)];
    let agreed = Agreement::new(versions.map(|(from, terms)| TermsVersion::new(from, terms).unwrap()).to_vec(), None).unwrap();
    assert_eq!(fees(&agreed), [600, 500, 400, 300, 200, 100, 0]);
}

#[test]
fn terms_whose_renewals_are_no_amount_are_not_offered() {
    let mut large = terms();
    large.commitments = vec![Commitment { from_period: 1, amount: Nanos::new(2_000_000_000 * EUR) }];
    large.validate().unwrap();
    assert_eq!(TermsVersion::new(large.starts, large).expect_err("two terms").code(), ErrorCode::AmountOverflow);
}

#[test]
fn far_ends_are_found() {
    let mut long = terms();
    (long.months, long.period_months, long.exit) = (120, 1, None);
    long.commitments.truncate(1);
    long.renewal = Some(RenewalTerms { months: 120, notice_months: 119 });
    let exits = agreement(long).exits(month("2031-12")).unwrap();
    assert_eq!(exits.iter().map(|exit| exit.last_month.to_string()).collect::<Vec<_>>(), ["2046-12"]);
}

#[test]
fn notice_is_given_for_a_month_that_can_be_left() {
    let agreement = agreement(terms());
    let notice = agreement.give_notice(month("2027-09"), month("2027-02")).unwrap();
    assert_eq!((notice.last_month, notice.fee), (month("2027-09"), Nanos::new(100 * EUR)));
    let refused = agreement.give_notice(month("2027-08"), month("2027-02")).expect_err("no period ends then");
    assert_eq!(refused.alternatives(), ["2027-06", "2027-09", "2027-12"]);
    let left = Agreement::new(agreement.versions().to_vec(), Some(notice)).unwrap();
    assert!(left.at(month("2027-09")).unwrap().is_some());
    assert!(left.at(month("2027-10")).unwrap().is_none());
    assert!(left.exits(month("2027-03")).unwrap().is_empty());
    let mut ends = terms();
    ends.renewal = None;
    let ends = self::agreement(ends);
    let by_itself = ends.give_notice(month("2027-12"), month("2027-02")).expect_err("no notice is needed");
    assert!(by_itself.alternatives()[0].contains("by itself"));
}

#[test]
fn an_amendment_changes_only_what_has_not_begun() {
    let agreement = agreement(terms());
    let amended = |from: &str, now: &str, change: fn(&mut ContractTerms)| {
        let mut terms = terms();
        change(&mut terms);
        let version = TermsVersion::new(month(from), terms).unwrap();
        agreement.check_amendment(&version, month(now)).map_err(|error| error.param_name().unwrap_or("-").to_owned())
    };
    let raise = |terms: &mut ContractTerms| terms.commitments[1].amount = Nanos::new(300 * EUR);
    assert_eq!(amended("2027-07", "2027-04", raise), Ok(()));
    assert_eq!(amended("2027-07", "2027-04", |terms| terms.months = 24), Ok(()));
    assert_eq!(amended("2027-07", "2027-07", raise), Err("from".to_owned()));
    assert_eq!(amended("2027-08", "2027-04", raise), Err("from".to_owned()));
    // Period 3 would change, which is before it.
    assert_eq!(amended("2027-10", "2027-04", raise), Err("commitments".to_owned()));
    assert_eq!(amended("2027-07", "2027-04", |terms| terms.starts = month("2027-04")), Err("starts".to_owned()));
    assert_eq!(amended("2027-07", "2027-04", |terms| terms.period_months = 1), Err("period_months".to_owned()));
    assert_eq!(amended("2027-07", "2027-04", |terms| terms.currency = Currency::USD), Err("currency".to_owned()));
}

#[test]
fn contracts_in_the_same_months_overlap() {
    let (first, mut later) = (terms(), terms());
    later.starts = month("2028-01");
    let mut ends = first.clone();
    ends.renewal = None;
    let (renewed, ended, later) = (agreement(first), agreement(ends), agreement(later));
    assert!(renewed.overlaps(&later).unwrap() && later.overlaps(&renewed).unwrap());
    assert!(!ended.overlaps(&later).unwrap() && !later.overlaps(&ended).unwrap());
    assert!(ended.overlaps(&renewed).unwrap());
}

proptest! {
    /// Every month of a contract is in exactly one of its periods, and periods follow each other without a gap.
    #[test]
    fn periods_tile_the_term(start in 0_u32..600, length in prop::sample::select(PERIOD_MONTHS.to_vec()), count in 1_u32..10) {
        let mut terms = terms();
        (terms.starts, terms.period_months, terms.months) = (month("2000-01").plus(start).unwrap(), length, length * count);
        (terms.exit, terms.renewal) = (None, None);
        terms.commitments.truncate(1);
        let agreement = agreement(terms.clone());
        let mut expected = None;
        for months in 0..terms.months {
            let month = terms.starts.plus(months).unwrap();
            let (_, period) = agreement.at(month).unwrap().unwrap();
            prop_assert!(period.first <= month && month <= period.last);
            prop_assert_eq!(period.number, months / length + 1);
            if let Some(next) = expected.filter(|_| period.first == month) {
                prop_assert_eq!(next, month);
            }
            expected = Some(period.last.next().unwrap());
        }
        prop_assert!(agreement.at(terms.starts.plus(terms.months).unwrap()).unwrap().is_none());
        prop_assert!(agreement.at(terms.starts.minus(1).unwrap()).unwrap().is_none());
    }

    /// Months are added and taken away as they are counted.
    #[test]
    fn months_add_up(start in 0_u32..2_000, months in 0_u32..1_000) {
        let from = month("1950-01").plus(start).unwrap();
        let to = from.plus(months).unwrap();
        prop_assert_eq!(to.since(from), Some(months));
        prop_assert_eq!(to.minus(months).unwrap(), from);
        prop_assert_eq!(from.since(to), if months == 0 { Some(0) } else { None });
    }

    /// Leaving at a later period never costs more than leaving earlier, and at the term's end it is free.
    #[test]
    fn fees_fall_towards_the_end(amounts in prop::collection::vec(0_i64..100_000, 2..12), fee_ppm in 0_u32..=1_000_000) {
        let mut terms = terms();
        terms.commitments = (1..).zip(&amounts).map(|(from_period, cents)| Commitment { from_period, amount: Nanos::new(cents * 10_000_000) }).collect();
        let periods = u32::try_from(amounts.len()).unwrap();
        terms.months = periods * 3;
        terms.exit = Some(ExitTerms { after_periods: 1, fee_ppm, notice_months: 0 });
        let exits = agreement(terms).exits(month("2027-01")).unwrap();
        prop_assert_eq!(exits.len(), amounts.len());
        prop_assert!(exits.windows(2).all(|pair| pair[0].fee >= pair[1].fee && pair[0].committed <= pair[1].committed));
        prop_assert!(exits.last().is_some_and(|exit| exit.is_term_end && exit.fee.is_zero()));
    }
}
