//! The checker's books: charges against metered time, invoices against charges, the ledger against both.

use std::collections::{BTreeMap, BTreeSet};

use sublet_core::Timestamp;
use sublet_core::lease::Holder;
use sublet_money::invoice::InvoiceState;
use sublet_money::sku::SkuFamily;
use sublet_store::attempt::AttemptInterval;
use sublet_store::charge::Charge;

use crate::check::{Findings, Rule, Sums};
use crate::owed::half_even;
use crate::record::{JobRow, Record};

const HOUR_MILLIS: i128 = 3_600_000;

pub fn check(record: &Record, found: &mut Findings, sums: &mut Sums) {
    let mut by_source: BTreeMap<&str, Vec<&Charge>> = BTreeMap::new();
    for charge in &record.charges {
        sums.charged_nanos += i128::from(charge.amount.get());
        by_source.entry(charge.source.as_str()).or_default().push(charge);
    }
    for job in &record.jobs {
        let charges = by_source.remove(job.job.id.as_str()).unwrap_or_default();
        check_job(record, job, charges, found);
    }
    for source in by_source.into_keys() {
        found.expect(false, Rule::Charges, &source, || "something is charged that is no job".to_owned());
    }
    check_intervals(record, found);
    check_lines(record, found);
    check_invoices(record, found);
    check_ledger(record, found);
}

/// Every charge is for time that was metered, none for time that another is for, and all together for all that is billed.
fn check_job(record: &Record, job: &JobRow, mut charges: Vec<&Charge>, found: &mut Findings) {
    let (id, units) = (&job.job.id, i128::from(record.leases[&job.job.lease].lease.units));
    charges.sort_by_key(|charge| charge.occurred_at);
    let mut until = Timestamp::from_micros(i64::MIN);
    for charge in &charges {
        let begins = charge.occurred_at;
        let millis = i128::from(charge.quantity.get());
        let ends = begins.micros() + i64::try_from(millis * 1_000 / units).expect("in range");
        found.expect(begins >= until, Rule::Charges, id, || format!("time from {begins} is charged twice"));
        until = Timestamp::from_micros(ends);
        let is_metered =
            metered(job).any(|interval| interval.is_billed() && interval.started_at <= begins && until <= interval.ended_at);
        found.expect(is_metered, Rule::Charges, id, || format!("{millis} ms from {begins} are charged and were not used"));
    }
    let charged: i128 = charges.iter().map(|charge| i128::from(charge.quantity.get())).sum();
    let billed: i128 = metered(job)
        .filter(|one| one.is_billed())
        .map(|one| i128::from(one.ended_at.micros() - one.started_at.micros()) / 1_000)
        .sum();
    found.expect(charged == billed, Rule::Charges, id, || format!("{charged} device-milliseconds are charged of {billed}"));
    for row in &job.attempts {
        let (Some(began), Some(ended)) = (row.attempt.started_at, row.attempt.ended_at) else { continue };
        let used: i64 = row.intervals.iter().map(|one| one.ended_at.micros() - one.started_at.micros()).sum();
        let ran = (ended.micros() - began.micros()) * i64::try_from(row.attempt.devices.len()).expect("few");
        found.expect(used == ran, Rule::Charges, id, || format!("{ran} device-microseconds were used and {used} metered"));
    }
}

fn metered(job: &JobRow) -> impl Iterator<Item = &AttemptInterval> {
    job.attempts.iter().flat_map(|row| &row.intervals)
}

/// No device is metered twice at once, and what is metered is the class of its span.
fn check_intervals(record: &Record, found: &mut Findings) {
    let mut of: BTreeMap<_, Vec<&AttemptInterval>> = BTreeMap::new();
    for interval in record.jobs.iter().flat_map(metered) {
        of.entry(&interval.device).or_default().push(interval);
    }
    for (device, spans) in &record.devices {
        let mut intervals = of.remove(&device.id).unwrap_or_default();
        intervals.sort_by_key(|one| (one.started_at, one.ended_at));
        for pair in intervals.windows(2) {
            found.expect(pair[0].ended_at <= pair[1].started_at, Rule::Charges, &device.id, || {
                format!("{} and {} meter it at once at {}", pair[0].attempt, pair[1].attempt, pair[1].started_at)
            });
        }
        let used: i64 = intervals.iter().map(|one| one.ended_at.micros() - one.started_at.micros()).sum();
        let is_used = |span: &&sublet_store::device::DeviceSpan| matches!(span.class.as_str(), "internal" | "lease" | "spot");
        let micros =
            |span: &sublet_store::device::DeviceSpan| span.ended_at.unwrap_or(record.until).micros() - span.started_at.micros();
        let spans: i64 = spans.iter().filter(is_used).map(micros).sum();
        found.expect(used == spans, Rule::Charges, &device.id, || format!("{used} microseconds are metered of {spans} in use"));
    }
}

/// All charges of a line together are its quantity at its price, rounded once.
fn check_lines(record: &Record, found: &mut Findings) {
    let mut prices: BTreeMap<(String, String), i128> = BTreeMap::new();
    for row in record.leases.values() {
        let lease = &row.lease;
        prices.insert((lease.sku.to_string(), lease.price_version.0.to_string()), i128::from(lease.price.get()));
    }
    let mut lines: BTreeMap<(String, String, String, String), (i128, i128)> = BTreeMap::new();
    for charge in record.charges.iter().filter(|charge| charge.sku.family() == SkuFamily::DeviceTime) {
        let (project, period) = (charge.project.to_string(), charge.period.to_string());
        let line = lines.entry((project, period, charge.sku.to_string(), charge.price_version.0.to_string())).or_default();
        *line = (line.0 + i128::from(charge.quantity.get()), line.1 + i128::from(charge.amount.get()));
    }
    for ((project, period, sku, version), (quantity, amount)) in lines {
        let price = prices.get(&(sku.clone(), version)).copied().unwrap_or(-1);
        let expected = half_even(quantity * price, HOUR_MILLIS);
        found.expect(expected == amount, Rule::Books, &project, || {
            format!("{quantity} device-milliseconds of {sku} in {period} cost {expected} and {amount} were charged")
        });
    }
}

/// Each invoice is the sum of the charges of its month, and every charge is in one.
fn check_invoices(record: &Record, found: &mut Findings) {
    let mut months: BTreeMap<(String, String), i128> = BTreeMap::new();
    let own: BTreeSet<_> = record
        .leases
        .values()
        .map(|row| &row.lease)
        .filter(|lease| lease.holder == Holder::Internal)
        .map(|lease| &lease.organization)
        .collect();
    // The owner's team gets no invoices.
    for charge in record.charges.iter().filter(|charge| !own.contains(&charge.organization)) {
        let period = charge.billed_in.unwrap_or(charge.period).to_string();
        *months.entry((charge.organization.to_string(), period)).or_default() += i128::from(charge.amount.get());
    }
    for stored in &record.invoices {
        let key = (stored.organization().to_string(), stored.period().to_string());
        let charged = months.remove(&key).unwrap_or(0);
        let subtotal = i128::from(stored.invoice.content.subtotal.get());
        found.expect(subtotal == charged, Rule::Books, &stored.invoice.id, || format!("it says {subtotal} of {charged} charged"));
        let lines: i128 = stored.invoice.content.lines.iter().map(|line| i128::from(line.charges.amount.get())).sum();
        found.expect(lines == subtotal, Rule::Books, &stored.invoice.id, || format!("its lines are {lines} of {subtotal}"));
        let is_issued = stored.invoice.state != InvoiceState::Draft && stored.invoice.number.is_some();
        found.expect(is_issued, Rule::Books, &stored.invoice.id, || "its month is over and it is a draft".to_owned());
    }
    for ((organization, period), charged) in months {
        found.expect(charged == 0, Rule::Books, &organization, || format!("{charged} of {period} are in no invoice"));
    }
}

/// Accounts are what was moved; income is what was charged; nothing is held any more.
fn check_ledger(record: &Record, found: &mut Findings) {
    let mut sums: BTreeMap<String, (i128, i128)> = BTreeMap::new();
    for transfer in record.entries.iter().flat_map(|entry| &entry.transfers) {
        let amount = i128::from(transfer.amount.get());
        sums.entry(transfer.debit.to_string()).or_default().0 += amount;
        sums.entry(transfer.credit.to_string()).or_default().1 += amount;
    }
    let (debits, credits) = sums.values().fold((0, 0), |sum: (i128, i128), one| (sum.0 + one.0, sum.1 + one.1));
    found.expect(debits == credits, Rule::Books, &"trial balance", || format!("{debits} debits and {credits} credits"));
    for stored in &record.accounts {
        let (name, totals) = (stored.account.to_string(), stored.totals);
        let stored = (i128::from(totals.debits.get()), i128::from(totals.credits.get()));
        let moved = sums.get(&name).copied().unwrap_or_default();
        found.expect(stored == moved, Rule::Books, &name, || format!("it says {stored:?} and {moved:?} were moved"));
        let is_set_aside = name.ends_with(":holds") || name.ends_with(":slices");
        found.expect(!is_set_aside || moved.0 == moved.1, Rule::Books, &name, || format!("{moved:?}: something is still held"));
    }
    let balance = |head: &str| -> i128 {
        sums.iter().filter(|(name, _)| name.starts_with(head)).map(|(_, (debits, credits))| credits - debits).sum()
    };
    let charged: i128 = record.charges.iter().map(|charge| i128::from(charge.amount.get())).sum();
    let income = balance("income:usage:");
    found.expect(income == charged, Rule::Books, &"income", || format!("{income} was earned of {charged} charged"));
    let given: i128 = record.compensations.iter().map(|one| i128::from(one.amount.get())).sum();
    let compensations = -balance("income:compensations:");
    found.expect(compensations == given, Rule::Books, &"compensations", || format!("{compensations} posted of {given} given"));
}
