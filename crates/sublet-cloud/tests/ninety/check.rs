//! The checker: every promise over the whole run, from rows. It knows no sums, plans or judgements of the product.

use std::collections::{BTreeMap, BTreeSet};

use sublet_core::device::DeviceClass;
use sublet_core::id::LeaseId;
use sublet_core::lease::{EndReason, Holder, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::runner::Exit;
use sublet_core::{DurationMs, Timestamp};
use sublet_store::compensation::CompensationKind;

use crate::books;
use crate::owed::{early, interruption, is_broken, is_owners, owed};
use crate::record::{Got, JobRow, LeaseRow, Record};
use crate::site::{GRACE, SLACK};

/// Which promise was not kept.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rule {
    /// What the owner's team asked for is there when the longest notice is over that was sold of it.
    Guarantee,
    /// Work runs until the end that its holder was told.
    Notice,
    /// Who did not get its notice gets exactly what is owed, once, and nobody else gets anything.
    Compensation,
    /// A device is in one class at every instant.
    Spans,
    /// A device is in one lease at every instant.
    OneLease,
    /// Nobody but a fault or the stop of the cloud ends a firm lease.
    Firm,
    /// Time on devices is charged once, as it was used.
    Charges,
    /// The ledger and the invoices add up to the charges.
    Books,
    /// What runs was begun once and is known.
    Attempts,
}

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    pub rule: Rule,
    /// Of what: an id, or a name.
    pub subject: String,
    pub what: String,
}

/// What the run came to, by the checker's own sums.
#[derive(Default, Debug)]
pub struct Sums {
    pub class_millis: BTreeMap<DeviceClass, i64>,
    pub capacity_millis: i64,
    /// Units of the owner's team times how long they waited.
    pub waited_millis: i64,
    pub waits: u64,
    pub team_requests: u64,
    pub team_refused: u64,
    /// Leases that the owner interrupted, by reason; kept promises and broken ones, by class.
    pub interrupted: BTreeMap<&'static str, u64>,
    pub kept: BTreeMap<NoticeClass, u64>,
    pub broken: BTreeMap<NoticeClass, u64>,
    pub compensated_nanos: i128,
    /// Of that, for leaving early.
    pub early_nanos: i128,
    pub charged_nanos: i128,
    pub ended: BTreeMap<&'static str, u64>,
}

#[derive(Default)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    pub fn expect(&mut self, holds: bool, rule: Rule, subject: &dyn std::fmt::Display, what: impl FnOnce() -> String) {
        if !holds {
            self.0.push(Finding { rule, subject: subject.to_string(), what: what() });
        }
    }
}

/// Checks everything; no findings is what is wanted.
pub fn check(record: &Record) -> (Vec<Finding>, Sums) {
    let (mut found, mut sums) = (Findings::default(), Sums::default());
    check_guarantee(record, &mut found, &mut sums);
    check_promises(record, &mut found, &mut sums);
    check_spans(record, &mut found, &mut sums);
    check_one_lease(record, &mut found);
    check_attempts(record, &mut found);
    books::check(record, &mut found, &mut sums);
    (found.0, sums)
}

/// When it is due at the latest: an instant at which nobody looked counts as the next at which somebody did.
fn due(record: &Record, at: Timestamp) -> Timestamp {
    let away = record.down.iter().filter(|(from, until)| *from <= at && at <= *until);
    away.map(|(_, until)| until.plus(GRACE)).max().unwrap_or(at).plus(SLACK)
}

/// Leases on which something was placed.
fn begun(record: &Record) -> BTreeSet<&LeaseId> {
    record.jobs.iter().filter(|job| !job.attempts.is_empty()).map(|job| &job.job.lease).collect()
}

fn check_guarantee(record: &Record, found: &mut Findings, sums: &mut Sums) {
    let begun = begun(record);
    for asked in &record.asked {
        sums.team_requests += 1;
        match &asked.got {
            Got::AtOnce => {}
            Got::Refused { reachable } => {
                sums.team_refused += 1;
                found.expect(*reachable < asked.units, Rule::Guarantee, &asked.kind, || {
                    format!("{} units were refused at {}, and {reachable} could be had", asked.units, asked.at)
                });
            }
            Got::Waits { lease: id, notice } => {
                let lease = &record.leases[id].lease;
                let has_begun = lease.starts_at > lease.created_at || begun.contains(id);
                let until = if has_begun { lease.starts_at } else { lease.ended_at.unwrap_or(record.until) };
                let due = due(record, asked.at.plus(*notice).plus(GRACE));
                sums.waits += 1;
                sums.waited_millis += until.since(asked.at).millis() * i64::from(asked.units);
                // A device that was promised failed: the request ends, and is asked anew. The same if the team gave it up.
                let is_over = lease.state.is_final() && lease.state.reason() != Some(EndReason::Reclaimed);
                let is_kept = until <= due && (has_begun || is_over);
                found.expect(is_kept, Rule::Guarantee, id, || {
                    format!(
                        "{} units asked for at {} were due by {due} and came at {until}: {:?}",
                        asked.units, asked.at, lease.state
                    )
                });
            }
        }
    }
}

fn check_promises(record: &Record, found: &mut Findings, sums: &mut Sums) {
    let mut given: BTreeMap<(&str, bool), i64> = BTreeMap::new();
    for one in &record.compensations {
        sums.compensated_nanos += i128::from(one.amount.get());
        let is_early = one.kind == CompensationKind::Early;
        let twice = given.insert((one.subject.as_str(), is_early), one.amount.get()).is_some();
        found.expect(!twice, Rule::Compensation, &one.subject, || "it is made good twice".to_owned());
    }
    let jobs = by_lease(&record.jobs);
    let none = Vec::new();
    for (id, row) in &record.leases {
        let jobs = jobs.get(id).unwrap_or(&none);
        *sums.ended.entry(row.lease.state.reason().map_or("open", EndReason::as_str)).or_default() += 1;
        let owed = owed_to(record, row, jobs, sums);
        let got = given.remove(&(id.as_str(), false)).unwrap_or(0);
        found.expect(got == owed, Rule::Compensation, id, || {
            format!("{} nano-units are owed and {got} were given: {:?}, {:?}", owed, row.notices, row.lease.notice)
        });
        let (early, got) = (early_of(record, row, jobs), given.remove(&(id.as_str(), true)).unwrap_or(0));
        sums.early_nanos += i128::from(early);
        found.expect(got == early, Rule::Compensation, id, || {
            format!("{early} nano-units are owed for leaving early and {got} were given: {:?}", row.notices)
        });
        check_firm(row, found);
        check_notice(record, row, jobs, found);
    }
    for ((subject, _), amount) in given {
        found.expect(false, Rule::Compensation, &subject, || format!("{amount} nano-units were given, and it is no lease"));
    }
}

fn owed_to(record: &Record, row: &LeaseRow, jobs: &[&JobRow], sums: &mut Sums) -> i64 {
    let intervals = jobs.iter().flat_map(|job| &job.attempts).flat_map(|attempt| &attempt.intervals);
    let Some(end) = interruption(row, intervals.map(|interval| interval.ended_at).max()) else { return 0 };
    let sources: BTreeSet<&str> = jobs.iter().map(|job| job.job.id.as_str()).collect();
    let charges: Vec<_> = record.charges.iter().filter(|charge| sources.contains(charge.source.as_str())).collect();
    *sums.interrupted.entry(end.reason.as_str()).or_default() += 1;
    let by_class = if is_broken(&row.lease, end) { &mut sums.broken } else { &mut sums.kept };
    *by_class.entry(row.lease.notice).or_default() += 1;
    owed(&row.lease, end, record.rules.of(row.lease.notice), &charges).get()
}

fn early_of(record: &Record, row: &LeaseRow, jobs: &[&JobRow]) -> i64 {
    let attempts = jobs.iter().flat_map(|job| &job.attempts).map(|row| &row.attempt);
    let last = attempts.filter(|attempt| attempt.started_at.is_some()).max_by_key(|attempt| attempt.ended_at);
    let left = last.filter(|attempt| attempt.exit != Some(Exit::Lost)).and_then(|attempt| attempt.ended_at);
    early(row, left, record.rules.of(row.lease.notice)).min(row.lease.cost).get()
}

fn check_firm(row: &LeaseRow, found: &mut Findings) {
    if row.lease.notice != NoticeClass::Firm || row.lease.holder == Holder::Internal {
        return;
    }
    for notice in &row.notices {
        found.expect(notice.reason != EndReason::Reclaimed, Rule::Firm, &row.lease.id, || {
            format!("it was taken back at {} within its window", notice.told_at)
        });
    }
}

/// What was told is at least what was sold, unless it is paid for; and work runs until then.
fn check_notice(record: &Record, row: &LeaseRow, jobs: &[&JobRow], found: &mut Findings) {
    let told: Vec<_> = row.notices.iter().filter(|notice| is_owners(notice.reason)).collect();
    let (Some(end), Some(last)) = (told.last(), row.notices.last()) else { return };
    // Its holder, its money or its window ended it sooner, or the machine failed before anybody could be told.
    let ended_otherwise = !is_owners(last.reason) || end.reason == EndReason::DeviceLost;
    if ended_otherwise || record.yielded.contains(&row.lease.id) {
        return;
    }
    for attempt in jobs.iter().flat_map(|job| &job.attempts).map(|row| &row.attempt) {
        let is_cancelled =
            jobs.iter().any(|job| job.job.id == attempt.job && job.job.state == sublet_core::job::JobState::Cancelled);
        let (Some(Exit::Stopped { .. }), Some(ended_at)) = (&attempt.exit, attempt.ended_at) else { continue };
        found.expect(is_cancelled || ended_at >= end.deadline, Rule::Notice, &row.lease.id, || {
            format!("it was told {} and stopped at {ended_at}", end.deadline)
        });
    }
    let is_idle = jobs.iter().all(|job| job.attempts.is_empty());
    let released_early = row.lease.ended_at.is_some_and(|at| at < end.deadline) && !is_idle;
    let own_end =
        jobs.iter().any(|job| job.attempts.iter().any(|row| matches!(row.attempt.exit, Some(Exit::Code { .. } | Exit::Lost))));
    found.expect(!released_early || own_end, Rule::Notice, &row.lease.id, || {
        format!("it was told {} and ended at {:?}", end.deadline, row.lease.ended_at)
    });
}

/// Spans meet, from the first look at a device to now, and add up to that time.
fn check_spans(record: &Record, found: &mut Findings, sums: &mut Sums) {
    for (device, spans) in &record.devices {
        let mut at = device.created_at;
        for span in spans {
            found.expect(span.started_at == at, Rule::Spans, &device.id, || {
                format!("span {} begins at {} and the one before ends at {at}", span.number, span.started_at)
            });
            let until = span.ended_at.unwrap_or(record.until);
            found.expect(until >= span.started_at, Rule::Spans, &device.id, || format!("span {} runs backwards", span.number));
            *sums.class_millis.entry(span.class).or_default() += until.since(span.started_at).millis();
            check_span(record, span, found);
            at = until;
        }
        found.expect(at == record.until, Rule::Spans, &device.id, || format!("its spans end at {at}"));
        sums.capacity_millis += record.until.since(device.created_at).millis();
    }
    let classes: i64 = sums.class_millis.values().sum();
    found.expect(classes == sums.capacity_millis, Rule::Spans, &"all", || {
        format!("classes have {classes} of {} device-milliseconds", sums.capacity_millis)
    });
}

/// Whose time it is, is the lease's.
fn check_span(record: &Record, span: &sublet_store::device::DeviceSpan, found: &mut Findings) {
    let Some(id) = &span.lease else {
        let is_nobodys = matches!(span.class, DeviceClass::Idle | DeviceClass::Unhealthy | DeviceClass::Held);
        found.expect(is_nobodys, Rule::Spans, &span.device, || format!("span {} is {} and nobody's", span.number, span.class));
        return;
    };
    let Some(row) = record.leases.get(id) else {
        found.expect(false, Rule::Spans, &span.device, || format!("span {} is of {id}, which is not there", span.number));
        return;
    };
    let lease = &row.lease;
    let fits = match span.class {
        DeviceClass::Internal => lease.holder == Holder::Internal,
        DeviceClass::Spot => lease.holder == Holder::External && lease.notice == NoticeClass::N0,
        DeviceClass::Lease => lease.holder == Holder::External && lease.notice != NoticeClass::N0,
        DeviceClass::Held | DeviceClass::Drain => true,
        DeviceClass::Idle | DeviceClass::Unhealthy => false,
    };
    let is_its = lease.devices.contains(&span.device);
    let within =
        span.started_at >= lease.created_at && span.ended_at.unwrap_or(record.until) <= lease.ended_at.unwrap_or(record.until);
    found.expect(fits && is_its && within, Rule::Spans, &span.device, || {
        format!(
            "span {} from {} to {:?} is {} of {id}, which is from {} to {:?}",
            span.number, span.started_at, span.ended_at, span.class, lease.created_at, lease.ended_at
        )
    });
}

/// Leases of one device follow each other.
fn check_one_lease(record: &Record, found: &mut Findings) {
    let mut had: BTreeMap<_, Vec<(Timestamp, Timestamp, &LeaseId)>> = BTreeMap::new();
    let begun = begun(record);
    let waited: BTreeSet<&LeaseId> = record
        .asked
        .iter()
        .filter_map(|asked| match &asked.got {
            Got::Waits { lease, .. } => Some(lease),
            Got::AtOnce | Got::Refused { .. } => None,
        })
        .collect();
    for (id, row) in &record.leases {
        let lease = &row.lease;
        // What never got the devices that it waited for had none.
        let never_had = waited.contains(id) && lease.starts_at == lease.created_at && !begun.contains(id);
        if never_had || lease.state == LeaseState::Pending {
            continue;
        }
        for device in &lease.devices {
            had.entry(device).or_default().push((lease.starts_at, lease.ended_at.unwrap_or(record.until), id));
        }
    }
    for (device, mut leases) in had {
        leases.sort();
        for pair in leases.windows(2) {
            found.expect(pair[0].1 <= pair[1].0, Rule::OneLease, device, || {
                format!("{} and {} have it at once: {pair:?}", pair[0].2, pair[1].2)
            });
        }
    }
}

fn check_attempts(record: &Record, found: &mut Findings) {
    let known: BTreeSet<_> = record.jobs.iter().flat_map(|job| &job.attempts).map(|row| &row.attempt.id).collect();
    for (id, (begun, ended)) in &record.begun {
        found.expect(*begun <= 1 && *ended == 1, Rule::Attempts, id, || format!("it began {begun} times and ended {ended} times"));
        found.expect(known.contains(id), Rule::Attempts, id, || "the runner had it and no row says so".to_owned());
    }
    for row in record.jobs.iter().flat_map(|job| &job.attempts) {
        let (attempt, ran) = (&row.attempt, record.begun.get(&row.attempt.id).is_some_and(|(begun, _)| *begun > 0));
        found.expect(attempt.ended_at.is_some(), Rule::Attempts, &attempt.id, || "it has not ended".to_owned());
        found.expect(ran == attempt.started_at.is_some(), Rule::Attempts, &attempt.id, || {
            format!("it ran by {:?}", attempt.started_at)
        });
    }
    for row in record.leases.values() {
        found.expect(row.lease.state.is_final(), Rule::Attempts, &row.lease.id, || format!("it is {}", row.lease.state.as_str()));
    }
}

pub fn by_lease(jobs: &[JobRow]) -> BTreeMap<LeaseId, Vec<&JobRow>> {
    let mut map: BTreeMap<LeaseId, Vec<&JobRow>> = BTreeMap::new();
    for job in jobs {
        map.entry(job.job.lease.clone()).or_default().push(job);
    }
    map
}

/// Parts per million of the owner's device time that it waited for.
pub fn collision_ppm(sums: &Sums) -> i64 {
    let used = sums.class_millis.get(&DeviceClass::Internal).copied().unwrap_or(0);
    let all = used + sums.waited_millis;
    if all == 0 { 0 } else { i64::try_from(i128::from(sums.waited_millis) * 1_000_000 / i128::from(all)).expect("small") }
}

pub fn hours(millis: i64) -> i64 {
    DurationMs::from_millis(millis).millis() / 3_600_000
}
