//! What must hold whatever happened: after a step, now and then, and at the end.

use std::collections::BTreeMap;

use sublet_cloud::Actor;
use sublet_cloud::credit::CreditBalance;
use sublet_core::id::{AttemptId, DeviceId, LeaseId, OrganizationId, RequestId};
use sublet_core::job::AttemptState;
use sublet_core::lease::{EndReason, LeaseState};
use sublet_core::{Currency, DurationMs, ErrorCode, Nanos, Result, Scope, Timestamp};
use sublet_money::account::CreditKind;
use sublet_money::period::PeriodKey;
use sublet_money::sku::SkuFamily;
use sublet_store::invoice::InvoiceFilter;
use sublet_store::lease::Lease;
use sublet_store::{PageRequest, Tx, attempt, charge, credit, device, hold, job, lease, ledger, organization, slice, usage};

use super::Simulation;

/// Rows of one page of a check.
const PAGE: i64 = 100;
/// Most charges of one job.
const CHARGES_MAX: i64 = 10_000;
/// The longest notice that is sold here, and how long its end may take: until then capacity is back.
const BACK_WITHIN: DurationMs = DurationMs::from_seconds(3_600 + 15);

/// After a long silence one pass stops what has to go, the next sees that it went, and hands over.
const PASSES_TO_HAND_OVER: u32 = 3;

fn sum(amounts: impl IntoIterator<Item = Nanos>) -> Nanos {
    Nanos::checked_sum(amounts).expect("simulated amounts are small")
}

impl Simulation {
    /// Cheap: of one tenant, and what the runner knows.
    pub(super) async fn check_step(&mut self) {
        self.runner.assert_no_device_is_shared();
        self.check_attempts();
        let tenant = self.below(self.tenants.len());
        self.check_limits(tenant).await;
        self.check_notice().await;
    }

    /// However often a job is interrupted and goes on, it runs once at a time.
    fn check_attempts(&self) {
        let mut running = BTreeMap::new();
        for attempt in self.runner.attempts().into_iter().filter(|attempt| attempt.ended_at.is_none()) {
            let other = running.insert(attempt.spec.job.clone(), attempt.spec.attempt.clone());
            assert_eq!(other, None, "{} runs twice at a time", attempt.spec.job);
        }
    }

    /// Everything that must hold at any time.
    pub(super) async fn check_all(&mut self) {
        for tenant in 0..self.tenants.len() {
            self.check_limits(tenant).await;
            self.check_money(tenant).await;
            self.check_lots(tenant).await;
        }
        let cloud = self.processes[self.below(2)].cloud.clone();
        let verification = cloud.verify_ledger(&Actor::system()).await.expect("the books can be read");
        assert!(verification.balanced(), "the books do not balance: {:#?}", verification.findings);
        self.check_usage().await;
        self.check_numbers().await;
        let (now, expected_leases) = (self.now(), self.running_leases());
        cloud
            .store()
            .read((now, expected_leases), |(now, running), tx| {
                Box::pin(async move {
                    check_spans(tx, *now).await?;
                    check_running(tx, running).await?;
                    check_metering(tx).await
                })
            })
            .await
            .expect("the fleet can be read");
    }

    /// Lots are parts of the credit that is there.
    async fn check_lots(&mut self, tenant: usize) {
        let cloud = self.processes[self.below(2)].cloud.clone();
        let read = cloud.store().read(&self.tenants[tenant].id, |id, tx| {
            Box::pin(async move {
                let limit = organization::get(tx, &Scope::Operator, id).await?.credit_limit;
                Ok((credit::list_lots(tx, id).await?, ledger::available(tx, id).await?, limit))
            })
        });
        let (lots, available, limit) = read.await.expect("lots can be read");
        let paid = sum([available.paid, limit]);
        if available.committed > Nanos::ZERO {
            self.did("credit of a contract is there");
        }
        let kinds = [
            (CreditKind::Paid, paid),
            (CreditKind::Promotional, available.promotional),
            (CreditKind::Committed, available.committed),
        ];
        for (kind, there) in kinds {
            let of_lots = sum(lots.iter().filter(|lot| lot.kind == kind).map(|lot| lot.remaining));
            assert!(of_lots <= there.max(Nanos::ZERO), "lots of {of_lots} {kind} credit, and there are {there}: {lots:?}");
        }
    }

    /// Settled and reserved stay within each limit, unless it was set below what was used already.
    async fn check_limits(&mut self, tenant: usize) {
        let cloud = self.processes[self.below(2)].cloud.clone();
        let limits = cloud.list_limits(&self.tenants[tenant].admin, None).await.expect("limits");
        for (limit, budget) in limits {
            let used = sum([budget.settled, budget.reserved]);
            assert!(!budget.settled.is_negative() && !budget.reserved.is_negative(), "{budget:?}");
            let key = (limit.subject.clone(), limit.window, budget.reference.starts_at);
            let last = (limit.subject.clone(), limit.window, Timestamp::from_micros(i64::MAX));
            let newest = self.expected.ceilings.range(..last).next_back().map(|(known, _)| known.clone());
            // The clock was set back into a window whose limit stood otherwise.
            if newest.is_some_and(|newest| newest.0 == key.0 && newest.1 == key.1 && newest.2 > key.2) {
                continue;
            }
            let ceiling = self.expected.ceilings.get(&key).copied().unwrap_or(limit.amount);
            assert!(used <= ceiling, "{} per {:?}: {used} used of {}, at most {ceiling} before", key.0, key.1, limit.amount);
            self.expected.ceilings.insert(key, limit.amount.max(used));
        }
    }

    /// Who is told to make room for the owner keeps the notice that was sold.
    async fn check_notice(&mut self) {
        let open = self.open_leases().await;
        let now = self.now();
        for lease in &open {
            let LeaseState::Ending { reason: EndReason::Reclaimed, deadline } = lease.state else { continue };
            if !self.expected.reclaimed.contains_key(&lease.id) {
                let sold = lease.notice.notice().expect("a firm lease is never reclaimed");
                let earliest = lease.ends_at.map_or(now.plus(sold), |window| window.min(now.plus(sold)));
                assert!(deadline >= earliest, "{} was sold {sold:?} of notice and ends by {deadline}", lease.id);
                self.expected.reclaimed.insert(lease.id.clone(), deadline);
            }
        }
    }

    async fn open_leases(&self) -> Vec<Lease> {
        let store = self.processes[0].cloud.store();
        store.read((), |(), tx| Box::pin(lease::list_open(tx))).await.expect("leases")
    }

    /// After a pass: the owner's teams have what was promised to them, once the notice is over.
    pub(super) async fn check_guarantees(&mut self) {
        let now = self.now();
        if self.is_anything_forgotten().await {
            return;
        }
        for lease in self.open_leases().await {
            if lease.state != LeaseState::Pending || now <= lease.created_at.plus(BACK_WITHIN) {
                continue;
            }
            let passes = self.expected.overdue.entry(lease.id.clone()).or_default();
            *passes += 1;
            assert!(*passes < PASSES_TO_HAND_OVER, "{} waits since {} for what was promised", lease.id, lease.created_at);
        }
    }

    /// Something ran that the runner does not know any more: it is given up only when that has been so for a while.
    async fn is_anything_forgotten(&self) -> bool {
        let store = self.processes[0].cloud.store();
        let running = store.read((), |(), tx| Box::pin(attempt::list_live(tx))).await.expect("attempts");
        let known = self.runner.live();
        running.iter().any(|attempt| attempt.state == AttemptState::Running && !known.contains(&attempt.id))
    }

    async fn check_money(&mut self, tenant: usize) {
        let (id, deposited) = (self.tenants[tenant].id.clone(), self.tenants[tenant].deposited);
        let cloud = self.processes[0].cloud.clone();
        let balance = cloud.credit_balance(&Actor::system(), &id).await.expect("a balance that verifies");
        let CreditBalance { funds, .. } = balance;
        let made_good = self.check_compensations(&id).await;
        assert_eq!(funds.deposited, sum([deposited, made_good]), "{id}: each payment is taken once");
        let totals = cloud.store().read(&id, |id, tx| {
            Box::pin(async move {
                let charged = charge::organization_total(tx, id).await?.1;
                Ok((charged, slice::open_total(tx, id).await?, hold::open_total(tx, id).await?))
            })
        });
        let (charged, sliced, held) = totals.await.expect("totals");
        assert_eq!((funds.sliced, funds.held), (sliced, held));
        let periods: Vec<PeriodKey> = self.tenants[tenant].periods.iter().copied().collect();
        let (mut invoiced, mut lapsed) = (Vec::new(), Vec::new());
        for period in periods {
            let of_month = self.check_invoice(0, tenant, period).await;
            invoiced.push(of_month.0);
            lapsed.push(of_month.1);
        }
        let (invoiced, lapsed) = (sum(invoiced), sum(lapsed));
        if !lapsed.is_zero() {
            self.did("credit of a contract lapsed");
        }
        assert_eq!(funds.captured, sum([charged, lapsed]), "{id}: what was taken is what was charged, and what lapsed");
        assert_eq!(invoiced, charged, "{id}: every charge is in exactly one invoice");
    }

    /// What a tenant got for leases that the owner ended: each once of a kind, and none that still runs.
    async fn check_compensations(&self, id: &OrganizationId) -> Nanos {
        let cloud = &self.processes[0].cloud;
        let mut page = PageRequest { limit: Some(PAGE), ..PageRequest::default() };
        let mut given: BTreeMap<(LeaseId, &str), Nanos> = BTreeMap::new();
        loop {
            let found = cloud.list_compensations(&Actor::system(), Some(id), &page).await.expect("compensations");
            for one in &found.items {
                let lease: LeaseId = one.subject.parse().expect("a lease");
                let of = cloud.store().read(&lease, |lease, tx| Box::pin(lease::get(tx, &Scope::Operator, lease)));
                assert!(of.await.expect("the lease").state.is_final(), "{lease} still runs");
                assert!(
                    one.amount > Nanos::ZERO && given.insert((lease, one.kind.as_str()), one.amount).is_none(),
                    "{} is made good twice",
                    one.subject
                );
            }
            page.after = found.items.last().map(|one| one.id.to_string());
            if !found.has_more {
                return sum(given.into_values());
            }
        }
    }

    /// The invoice of a month is the sum of its charges, beside what a contract adds and takes off: those charges, and what
    /// lapsed of what was paid in advance.
    pub(super) async fn check_invoice(&self, process: usize, tenant: usize, period: PeriodKey) -> (Nanos, Nanos) {
        let tenant = &self.tenants[tenant];
        let cloud = &self.processes[process].cloud;
        let (subtotal, lapsed) = match cloud.draft_invoice(&tenant.admin, &tenant.id, Some(period)).await {
            Ok(bill) => {
                let content = &bill.invoice.content;
                let drawdown = content.commitment.as_ref().and_then(|line| line.drawdown.as_ref());
                let lapsed = drawdown.filter(|_| bill.invoice.number.is_some()).map_or(Nanos::ZERO, |part| part.lapsed);
                (content.subtotal.checked_sub(content.by_contract().expect("an amount")).expect("an amount"), lapsed)
            }
            Err(error) => {
                assert_eq!(error.code(), ErrorCode::NotFound, "{error}: a closed month without use has no invoice, any other has");
                (Nanos::ZERO, Nanos::ZERO)
            }
        };
        let total =
            cloud.store().read(&tenant.id, move |id, tx| Box::pin(charge::period_total(tx, id, period))).await.expect("a total");
        assert_eq!(subtotal, total.1, "{} of {}", period, tenant.id);
        (subtotal, lapsed)
    }

    /// Issued invoices have the numbers from one on, and say what their lines add up to.
    async fn check_numbers(&self) {
        let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let mut page = PageRequest { limit: Some(PAGE), ..PageRequest::default() };
        loop {
            let bills =
                self.processes[0].cloud.list_invoices(&Actor::system(), &InvoiceFilter::default(), &page).await.expect("invoices");
            for bill in &bills.items {
                bill.invoice.content.verify().expect("an invoice adds up");
                if let Some(number) = bill.invoice.number {
                    numbers.entry(number.series().to_string()).or_default().push(number.place());
                }
            }
            page.after = bills.items.last().map(|bill| bill.invoice.id.to_string());
            if !bills.has_more {
                break;
            }
        }
        for (series, mut places) in numbers {
            places.sort_unstable();
            assert!(places.iter().copied().zip(1..).all(|(place, expected)| place == expected), "{series} has gaps: {places:?}");
        }
    }

    /// Every settled record is charged once and for its tokens; lost ones are not charged.
    async fn check_usage(&self) {
        let store = self.processes[0].cloud.store();
        let none: Vec<_> =
            store.read(PageRequest::default(), |page, tx| Box::pin(usage::list_quarantined(tx, page))).await.expect("a page").items;
        assert!(none.is_empty(), "nothing that was served is in quarantine: {none:#?}");
        let settled = &self.expected;
        let checked = store.read(settled, |expected, tx| {
            Box::pin(async move {
                for request in &expected.settled {
                    let record = expected.acknowledged.get(request).expect("what is settled was acknowledged");
                    let events = usage::list_of_request(tx, &Scope::Operator, request).await?;
                    assert!(events.len() == 1 && events[0].record == *record, "{request}: {events:#?}");
                    check_charges(tx, request, &events[0]).await?;
                }
                for request in &expected.lost {
                    assert!(usage::list_of_request(tx, &Scope::Operator, request).await?.is_empty(), "{request} was lost");
                }
                Ok(())
            })
        });
        checked.await.expect("usage can be read");
    }

    fn running_leases(&self) -> BTreeMap<AttemptId, (LeaseId, Vec<DeviceId>)> {
        let attempts = self.runner.attempts().into_iter().filter(|attempt| attempt.ended_at.is_none());
        attempts.map(|attempt| (attempt.spec.attempt, (attempt.spec.lease, attempt.spec.devices))).collect()
    }

    /// What must hold once nothing runs any more.
    pub(super) async fn check_drained(&mut self) {
        assert_eq!(self.runner.live(), Vec::new(), "nothing runs");
        let again = self.runner.attempts().into_iter().filter(|attempt| !attempt.spec.continues.is_empty()).count();
        for _ in 0..again {
            self.did("a job goes on");
        }
        let unsettled: Vec<&RequestId> =
            self.expected.acknowledged.keys().filter(|request| !self.expected.settled.contains(*request)).collect();
        assert!(unsettled.is_empty(), "acknowledged and never settled: {unsettled:?}");
        let organizations: Vec<_> = self.tenants.iter().map(|tenant| tenant.id.clone()).collect();
        let store = self.processes[0].cloud.store();
        let checked = store.read(organizations, |organizations, tx| {
            Box::pin(async move {
                assert_eq!(lease::list_open(tx).await?, Vec::new());
                assert_eq!(job::list_open(tx).await?, Vec::new());
                assert_eq!(attempt::list_live(tx).await?, Vec::new());
                for organization in organizations {
                    let open = (slice::open_total(tx, organization).await?, hold::open_total(tx, organization).await?);
                    assert_eq!(open, (Nanos::ZERO, Nanos::ZERO), "{organization} has open slices or holds");
                }
                for device in device::list_all(tx).await? {
                    assert_eq!((device.lease, device.promised_to), (None, None), "{} is free", device.id);
                }
                Ok(())
            })
        });
        checked.await.expect("what is open can be read");
        for tenant in 0..self.tenants.len() {
            let limits = self.processes[0].cloud.list_limits(&self.tenants[tenant].admin, None).await.expect("limits");
            for (limit, budget) in limits {
                assert_eq!(budget.reserved, Nanos::ZERO, "{} per {:?} still reserves", limit.subject, limit.window);
            }
        }
    }
}

async fn check_charges(tx: &mut Tx, request: &RequestId, event: &usage::UsageEvent) -> Result<()> {
    let charges = charge::list_of(tx, request.as_str(), CHARGES_MAX).await?;
    assert_eq!(sum(charges.iter().map(|charge| charge.amount)), event.amount, "{request}");
    let of = |family| charges.iter().filter(move |charge| charge.sku.family() == family).map(|charge| charge.quantity.get());
    let tokens = event.record.tokens.total().get();
    assert_eq!(of(SkuFamily::ModelTokens).sum::<i64>(), tokens, "{request} is charged for its tokens");
    // The list in dollars has a flat price of requests.
    let is_flat = event.currency == Currency::USD && tokens > 0 && !charges.is_empty();
    assert_eq!(of(SkuFamily::ModelRequests).sum::<i64>(), i64::from(is_flat), "{request} is one request");
    for charge in &charges {
        assert_eq!(charge.price_version, event.record.price_version);
    }
    Ok(())
}

/// Each device is in exactly one class at every instant: its spans meet, and their times add up.
async fn check_spans(tx: &mut Tx, now: Timestamp) -> Result<()> {
    let mut capacity = 0;
    for device in device::list_all(tx).await? {
        let (mut after, mut end) = (0, device.created_at);
        loop {
            let spans = device::list_spans(tx, &device.id, after).await?;
            let Some(last) = spans.last() else { break };
            after = last.number;
            for span in &spans {
                assert_eq!(span.started_at, end, "{} has a gap or an overlap", device.id);
                end = span.ended_at.unwrap_or(Timestamp::from_micros(i64::MAX));
                assert!(end >= span.started_at, "{} has a span that ends before it begins", device.id);
            }
        }
        assert_eq!(end, Timestamp::from_micros(i64::MAX), "{} does nothing now", device.id);
        capacity += now.micros().saturating_sub(device.created_at.micros()).max(0);
    }
    let by_class = device::time_by_class(tx, Timestamp::EPOCH, now).await?;
    let sum: i64 = by_class.iter().map(|(_, millis)| millis).sum();
    let rounding = i64::try_from(by_class.len()).expect("a small count");
    let capacity = capacity.div_euclid(1_000);
    assert!((capacity - rounding..=capacity).contains(&sum), "{by_class:?} of {capacity}");
    Ok(())
}

/// What runs has a lease, and that lease has its devices.
async fn check_running(tx: &mut Tx, running: &BTreeMap<AttemptId, (LeaseId, Vec<DeviceId>)>) -> Result<()> {
    for (attempt, (lease, devices)) in running {
        for id in devices {
            let device = device::get(tx, id).await?;
            assert_eq!(device.lease.as_ref(), Some(lease), "{attempt} runs on {id}");
        }
        assert!(hold::find_open(tx, lease.as_str()).await?.is_some(), "{attempt} runs without a hold");
    }
    Ok(())
}

/// Intervals of a device never overlap, and every job is charged for exactly its billed intervals.
async fn check_metering(tx: &mut Tx) -> Result<()> {
    for device in device::list_all(tx).await? {
        let intervals = attempt::list_intervals_of_device(tx, &device.id).await?;
        for pair in intervals.windows(2) {
            assert!(pair[0].ended_at <= pair[1].started_at, "{pair:?}");
        }
    }
    let mut page = PageRequest { limit: Some(PAGE), ..PageRequest::default() };
    loop {
        let jobs = job::list(tx, &Scope::Operator, &job::JobFilter::default(), &page).await?;
        for job in &jobs.items {
            let mut billed = 0;
            for attempt in attempt::list_of(tx, &job.id).await? {
                let intervals = attempt::list_intervals(tx, &attempt.id).await?;
                billed +=
                    intervals.iter().filter(|interval| interval.is_billed()).map(attempt::AttemptInterval::millis).sum::<i64>();
            }
            let charges = charge::list_of(tx, job.id.as_str(), CHARGES_MAX).await?;
            let charged: i64 = charges.iter().map(|charge| charge.quantity.get()).sum();
            assert_eq!(charged, billed, "{} is charged for what it used", job.id);
            let lease = lease::get(tx, &Scope::Operator, &job.lease).await?;
            assert!(lease.max_cost.is_none_or(|max_cost| lease.cost <= max_cost), "{} costs more than its maximum", lease.id);
        }
        let Some(last) = jobs.items.last().filter(|_| jobs.has_more) else { return Ok(()) };
        page.after = Some(last.id.to_string());
    }
}
