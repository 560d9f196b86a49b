//! The backlog: what accepted contracts bring in months to come.
//!
//! A period's commitment and its fee are spread over its months by their days ([`crate::recognition`]), so months add up
//! to what is committed, exactly. What is *firm* nobody can leave any more; *planned* is what comes if nobody leaves, up
//! to the end of the running term: a renewal that nobody agreed to yet is no backlog.
//!
//! Deliberately absent: fees for leaving, and what was used already of a period that runs.

use sublet_core::Nanos;
use sublet_core::error::Result;

use crate::contract::{Agreement, MONTHS_MAX};
use crate::period::PeriodKey;
use crate::recognition::StraightLine;

/// What a month to come brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BacklogMonth {
    pub month: PeriodKey,
    pub firm: Nanos,
    pub planned: Nanos,
}

/// The months after the one that runs, as far as a contract goes by what is agreed now.
pub fn backlog(agreement: &Agreement, now: PeriodKey) -> Result<Vec<BacklogMonth>> {
    let exits = agreement.exits(now)?;
    let term_end = exits.iter().find(|exit| exit.is_term_end).map(|exit| exit.last_month);
    let Some(ends) = term_end.or(agreement.last_month()?) else { return Ok(Vec::new()) };
    let first_exit = exits.iter().filter(|exit| !exit.is_term_end).map(|exit| exit.last_month).min();
    let firm_until = first_exit.unwrap_or(ends);
    let starts = agreement.versions().first().map_or(now, |version| version.terms.starts);
    let (mut month, mut months) = (now.next()?.max(starts), Vec::new());
    // A term and the renewal that is running.
    for _ in 0..2 * MONTHS_MAX {
        if month > ends {
            break;
        }
        let Some((version, period)) = agreement.at(month)? else { break };
        let fee = version.terms.fee.map_or(Nanos::ZERO, |fee| fee.amount);
        let part = |amount| StraightLine { amount, first: period.first, last: period.last }.of_month(month);
        let planned = part(period.committed)?.checked_add(part(fee)?)?;
        let firm = if month <= firm_until { planned } else { Nanos::ZERO };
        months.push(BacklogMonth { month, firm, planned });
        month = month.next()?;
    }
    Ok(months)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sublet_core::Currency;

    use super::*;
    use crate::advance::FeeTerms;
    use crate::contract::{Commitment, ContractTerms, ExitTerms, Notice, RenewalTerms, TermsVersion};
    use crate::sku::SkuFamily;

    fn month(text: &str) -> PeriodKey {
        text.parse().unwrap()
    }
    fn cents(count: i64) -> Nanos {
        Nanos::new(count * 10_000_000)
    }

    fn terms(amounts: &[i64], period_months: u32, fee: i64) -> ContractTerms {
        ContractTerms {
            billed: None,
            commitments: (1..)
                .zip(amounts)
                .map(|(from_period, amount)| Commitment { from_period, amount: cents(*amount) })
                .collect(),
            covers: [SkuFamily::DeviceTime].into(),
            currency: Currency::EUR,
            exit: None,
            fee: (fee > 0).then(|| FeeTerms { amount: cents(fee) }),
            months: u32::try_from(amounts.len()).unwrap() * period_months,
            payment: None,
            period_months,
            pricing: None,
            quantities: None,
            renewal: None,
            roll_over_periods: 0,
            starts: month("2027-01"),
        }
    }
    fn agreed(terms: ContractTerms, notice: Option<Notice>) -> Agreement {
        Agreement::new(vec![TermsVersion::new(terms.starts, terms).unwrap()], notice).unwrap()
    }
    fn sums(agreement: &Agreement, now: &str) -> (Nanos, Nanos, usize) {
        let months = backlog(agreement, month(now)).unwrap();
        let sum = |of: fn(&BacklogMonth) -> Nanos| Nanos::checked_sum(months.iter().map(of)).unwrap();
        (sum(|month| month.firm), sum(|month| month.planned), months.len())
    }

    #[test]
    fn what_can_be_left_is_planned_and_not_firm() {
        let mut terms = terms(&[100, 200, 300, 400], 3, 0);
        terms.exit = Some(ExitTerms { after_periods: 2, fee_ppm: 0, notice_months: 1 });
        let agreement = agreed(terms.clone(), None);
        assert_eq!(sums(&agreement, "2026-12"), (cents(300), cents(1_000), 12));
        // When the first exit has passed, the next one bounds what is firm.
        assert_eq!(sums(&agreement, "2027-06"), (cents(300), cents(700), 6));
        let notice = Some(Notice { last_month: month("2027-06"), fee: Nanos::ZERO });
        assert_eq!(sums(&agreed(terms.clone(), notice), "2026-12"), (cents(300), cents(300), 6));
        assert_eq!(sums(&agreement, "2027-12"), (Nanos::ZERO, Nanos::ZERO, 0));
        // A renewal is none until it runs.
        terms.renewal = Some(RenewalTerms { months: 6, notice_months: 1 });
        let renewed = agreed(terms, None);
        assert_eq!(sums(&renewed, "2026-12").2, 12);
        assert_eq!(sums(&renewed, "2028-01").2, 5);
    }

    proptest! {
        /// Before it begins, the backlog of a contract is all that is committed, with all fees.
        #[test]
        fn months_add_up_to_what_is_agreed(
            amounts in prop::collection::vec(0_i64..1_000_000, 1..9),
            period_months in prop::sample::select(vec![1_u32, 2, 3, 4, 6, 12]),
            fee in 0_i64..10_000,
        ) {
            let terms = terms(&amounts, period_months, fee);
            let all = cents(amounts.iter().sum::<i64>() + fee * i64::try_from(amounts.len()).unwrap());
            let (firm, planned, months) = sums(&agreed(terms.clone(), None), "2026-12");
            prop_assert_eq!((firm, planned, months), (all, all, usize::try_from(terms.months).unwrap()));
        }
    }
}
