//! The checker can fail: a record of a real run is falsified in one place, and the checker names the place and the rule.

use sublet_core::lease::EndReason;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Nanos};
use sublet_testkit::{Database, database};

use crate::check::{Rule, check};
use crate::days::{Plan, live};
use crate::record::{Got, Record};

/// Falsifies a record, and says of what the checker has to complain.
type Mutation = fn(&mut Record) -> Option<String>;

const MUTATIONS: [(&str, Rule, Mutation); 14] = [
    ("a notice was told too late", Rule::Compensation, told_too_late),
    ("a compensation is missing", Rule::Compensation, |record| record.compensations.pop().map(|one| one.subject)),
    ("a compensation was given twice", Rule::Compensation, |record| {
        let again = record.compensations.last()?.clone();
        record.compensations.push(again.clone());
        Some(again.subject)
    }),
    ("a compensation is one nano-unit too much", Rule::Compensation, |record| {
        let one = record.compensations.last_mut()?;
        one.amount = Nanos::new(one.amount.get() + 1);
        Some(one.subject.clone())
    }),
    ("somebody got what nobody owes", Rule::Compensation, |record| {
        let kept =
            record.leases.values().find(|row| row.notices.is_empty() || row.lease.state.reason() == Some(EndReason::JobEnded))?;
        let mut one = record.compensations.last()?.clone();
        one.subject = kept.lease.id.to_string();
        record.compensations.push(one);
        Some(kept.lease.id.to_string())
    }),
    ("work was stopped before its deadline", Rule::Notice, stopped_too_early),
    ("a firm lease was taken back", Rule::Firm, firm_taken_back),
    ("a device was in two leases", Rule::OneLease, |record| {
        let device = record.leases.values().find_map(|row| row.lease.devices.first().cloned())?;
        let mut had = record.leases.values_mut().filter(|row| row.lease.devices.contains(&device));
        let (_, other) = (had.next()?, had.next()?);
        other.lease.starts_at = record.devices.first()?.0.created_at;
        Some(device.to_string())
    }),
    ("a span is too short", Rule::Spans, |record| {
        let (device, spans) = record.devices.first_mut()?;
        let span = spans
            .iter_mut()
            .find(|span| span.ended_at.is_some_and(|at| at.since(span.started_at) > DurationMs::from_seconds(60)))?;
        span.ended_at = span.ended_at.map(|at| at.minus(DurationMs::from_millis(1)));
        Some(device.id.to_string())
    }),
    ("time was charged twice", Rule::Charges, |record| {
        let again = record.charges.last()?.clone();
        record.charges.push(again.clone());
        Some(again.source)
    }),
    ("time was metered and not charged", Rule::Charges, |record| record.charges.pop().map(|charge| charge.source)),
    ("an invoice says something else", Rule::Books, |record| {
        let content = &mut record.invoices.last_mut()?.invoice.content;
        content.subtotal = Nanos::new(content.subtotal.get() + 1);
        Some(record.invoices.last()?.invoice.id.to_string())
    }),
    ("an attempt began twice", Rule::Attempts, |record| {
        let (id, (begun, _)) = record.begun.iter_mut().find(|(_, (begun, _))| *begun == 1)?;
        *begun = 2;
        Some(id.to_string())
    }),
    ("the team waited longer than the longest notice", Rule::Guarantee, |record| {
        let had: Vec<_> = record.jobs.iter().filter(|job| !job.attempts.is_empty()).map(|job| &job.job.lease).collect();
        let waits = record.asked.iter().find_map(|asked| match &asked.got {
            Got::Waits { lease, .. } if had.contains(&lease) => Some(lease.clone()),
            Got::Waits { .. } | Got::AtOnce | Got::Refused { .. } => None,
        })?;
        let lease = &mut record.leases.get_mut(&waits)?.lease;
        lease.starts_at = lease.starts_at.plus(DurationMs::from_hours(30));
        Some(waits.to_string())
    }),
];

/// Of a lease that got its notice, the notice was half as long.
fn told_too_late(record: &mut Record) -> Option<String> {
    let paid: Vec<String> = record.compensations.iter().map(|one| one.subject.clone()).collect();
    let is_kept = |row: &&mut crate::record::LeaseRow| {
        let notice = row.lease.notice.notice().unwrap_or(DurationMs::ZERO);
        let [one] = row.notices.as_slice() else { return false };
        let had = one.deadline.since(one.told_at) >= notice && one.is_busy && one.reason == EndReason::Reclaimed;
        had && notice > DurationMs::ZERO && row.lease.ends_at.is_none() && !paid.contains(&row.lease.id.to_string())
    };
    // Of a minute's charges and more something is owed, whatever the class.
    let row = record.leases.values_mut().filter(is_kept).find(|row| row.lease.cost > Nanos::ZERO)?;
    let one = row.notices.first_mut()?;
    let half = DurationMs::from_millis(one.deadline.since(one.told_at).millis() / 2 + 1_000);
    one.told_at = one.deadline.minus(half.min(row.lease.notice.notice()?)).plus(DurationMs::from_millis(1));
    Some(row.lease.id.to_string())
}

fn stopped_too_early(record: &mut Record) -> Option<String> {
    let told = |row: &&mut crate::record::LeaseRow| row.notices.len() == 1 && row.notices[0].reason == EndReason::Reclaimed;
    let stopped: Vec<_> = record
        .jobs
        .iter()
        .filter(|job| job.job.state != sublet_core::job::JobState::Cancelled)
        .filter(|job| job.attempts.iter().any(|row| matches!(row.attempt.exit, Some(sublet_core::runner::Exit::Stopped { .. }))))
        .map(|job| job.job.lease.clone())
        .collect();
    let yielded = record.yielded.clone();
    let mut rows = record.leases.values_mut().filter(told);
    let row = rows.find(|row| stopped.contains(&row.lease.id) && !yielded.contains(&row.lease.id))?;
    row.notices[0].deadline = row.notices[0].deadline.plus(DurationMs::from_seconds(60));
    Some(row.lease.id.to_string())
}

fn firm_taken_back(record: &mut Record) -> Option<String> {
    let row = record
        .leases
        .values_mut()
        .find(|row| row.lease.holder == sublet_core::lease::Holder::External && !row.notices.is_empty())?;
    row.lease.notice = NoticeClass::Firm;
    row.notices[0].reason = EndReason::Reclaimed;
    Some(row.lease.id.to_string())
}

#[test]
fn whatever_is_falsified_is_named() {
    database::run(Database::sqlite_in_memory(), |cloud| {
        Box::pin(async move {
            let (record, _) = live(cloud, Plan { seed: 2, days: 3, history_days: 3 }).await;
            let (findings, _) = check(&record);
            assert_eq!(findings, vec![], "the record is as it was written");
            for (name, rule, falsify) in MUTATIONS {
                let mut falsified = record.clone();
                let subject = falsify(&mut falsified).unwrap_or_else(|| panic!("{name}: the run has nothing of the sort"));
                let (findings, _) = check(&falsified);
                let is_named = findings.iter().any(|finding| finding.rule == rule && finding.subject == subject);
                assert!(is_named, "{name}: {subject} is not named: {findings:#?}");
            }
        })
    });
}
