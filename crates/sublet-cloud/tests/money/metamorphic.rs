//! The same use gives the same bill, however it comes to be known: in another order, in other parts, more than once, late.

use std::collections::BTreeMap;

use sublet_money::price_book::PriceEntry;
use sublet_money::price_model::{PriceModel, Tier};
use sublet_money::sku::Quantity;
use sublet_testkit::prices::republish;

use super::*;
use crate::months::{close, customer, issued, month};

/// Input and output tokens of one request.
type Use = (i64, i64);

/// Uses of a month, spread over its days; no two alike, and none a round number.
fn uses() -> Vec<Use> {
    (1..=24_i64).map(|day| (day * day * 40_009 % 500_009, day * 77_003 % 300_007)).collect()
}

/// What an account is billed, over all its invoices.
struct Billed {
    /// Tokens and amounts by sku.
    lines: BTreeMap<String, (i64, i64)>,
    /// The totals, less what the last one asked for ahead of exact charges.
    invoiced: i64,
}

async fn billed(cloud: &TestCloud, session: &Session) -> Billed {
    let mut lines = BTreeMap::<String, (i64, i64)>::new();
    let (mut total, mut carry) = (0, 0);
    for bill in issued(cloud, &session.access.organization).await {
        let content = &bill.invoice.content;
        for line in &content.lines {
            let (quantity, amount) = lines.entry(line.sku.to_string()).or_default();
            *quantity += line.quantity.get();
            *amount += line.charges.amount.get();
        }
        total += content.total.get();
        carry = content.carry_after.get();
    }
    Billed { lines, invoiced: total - carry }
}

/// How a month's records reach the books.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Delivery {
    InOneBatch,
    Backwards,
    InParts,
    ThreeTimes,
    AfterTheMonth,
}

const DELIVERIES: [Delivery; 5] =
    [Delivery::InOneBatch, Delivery::Backwards, Delivery::InParts, Delivery::ThreeTimes, Delivery::AfterTheMonth];

/// The uses as the records of a delivery.
fn records(session: &Session, slice: &SliceId, delivery: Delivery) -> Vec<UsageRecord> {
    let parts = |(input, output): Use| {
        if delivery == Delivery::InParts { vec![(input / 3, output), (input - input / 3, 0)] } else { vec![(input, output)] }
    };
    let mut records: Vec<_> =
        uses().into_iter().flat_map(parts).map(|(input, output)| session.record(slice, input, output)).collect();
    if delivery == Delivery::Backwards {
        records.reverse();
    }
    records
}

async fn deliver(cloud: &TestCloud, records: &[UsageRecord], delivery: Delivery) {
    let repeats = if delivery == Delivery::ThreeTimes { 3 } else { 1 };
    let step = if delivery == Delivery::InOneBatch { records.len() } else { 1 };
    for _ in 0..repeats {
        for some in records.chunks(step) {
            let report = cloud.cloud.settle(some).await.expect("settled");
            assert_eq!((report.settled + report.duplicate, report.quarantined), (u64::try_from(some.len()).expect("few"), 0));
        }
    }
}

async fn bills_of_one_use(cloud: &TestCloud, times: i64) -> Vec<Billed> {
    let tier = |up_to: Option<i64>, price: i64| Tier {
        up_to: up_to.map(|to| Quantity::new(to).expect("a bound")),
        price: Nanos::new(times * price),
    };
    // Tiers that the uses cross, at prices that divide into no whole nano-units.
    let tiers = vec![tier(Some(1_000_003), 999_983), tier(Some(2_000_003), 700_001), tier(None, 333_331)];
    let graduated = |entry: &PriceEntry| PriceEntry::new(entry.sku.clone(), PriceModel::Graduated { tiers: tiers.clone() });
    republish(&cloud.cloud, &cloud.clock, graduated).await;
    let mut late = Vec::new();
    let mut sessions = Vec::new();
    for delivery in DELIVERIES {
        let session = customer(cloud, &format!("{delivery:?}").to_lowercase(), "Europe/Berlin", 100 * UNIT).await;
        let slice = session.grant(None, 50 * UNIT, 50 * UNIT).await.expect("credit is there").slice;
        let mut records = records(&session, &slice, delivery);
        if delivery == Delivery::AfterTheMonth {
            late = records.split_off(records.len() / 2);
        }
        deliver(cloud, &records, delivery).await;
        sessions.push(session);
    }
    cloud.clock.set(month("Europe/Berlin", "2026-04").plus(DurationMs::from_hours(1)));
    close(&cloud.cloud).await;
    deliver(cloud, &late, Delivery::AfterTheMonth).await;
    cloud.clock.set(month("Europe/Berlin", "2026-05").plus(DurationMs::from_hours(1)));
    close(&cloud.cloud).await;
    let mut bills = Vec::new();
    for session in &sessions {
        bills.push(billed(cloud, session).await);
    }
    bills
}

on_both_databases! {
    async fn the_same_use_gives_the_same_bill_however_it_comes_to_be_known(cloud: &TestCloud) {
        let bills = bills_of_one_use(cloud, 1).await;
        let (input, output): (Vec<i64>, Vec<i64>) = uses().into_iter().unzip();
        let lines = &bills[0].lines;
        let quantities: Vec<i64> = lines.values().map(|(quantity, _)| *quantity).collect();
        assert_eq!(quantities, [input.iter().sum::<i64>(), output.iter().sum()], "all of it is billed");
        let sum: i64 = lines.values().map(|(_, amount)| *amount).sum();
        for (bill, delivery) in bills.iter().zip(DELIVERIES) {
            assert_eq!(bill.lines, *lines, "{delivery:?}");
            // Two invoices may round apart; what they carry makes up for it.
            assert_eq!(bill.invoiced, sum, "{delivery:?}");
        }
    }

    async fn prices_times_a_thousand_give_the_exact_bill_times_a_thousand(cloud: &TestCloud) {
        let bills = bills_of_one_use(cloud, 1_000).await;
        // In millionths of a nano-unit, at the prices before they were multiplied.
        let exact = |tokens: i64| -> i128 {
            let (mut left, mut cost) = (tokens, 0_i128);
            for (size, price) in [(1_000_003, 999_983), (1_000_000, 700_001), (i64::MAX, 333_331)] {
                let here = left.min(size);
                cost += i128::from(here) * i128::from(price);
                left -= here;
            }
            cost
        };
        for (quantity, amount) in bills.iter().flat_map(|bill| bill.lines.values()) {
            assert_eq!(i128::from(*amount), sublet_core::money::divide_half_even(exact(*quantity) * 1_000, 1_000_000));
        }
    }
}
