//! Days one after the other: ticks, instants at which something is due between them, and what is checked at each.

use std::collections::{BTreeMap, BTreeSet};

use sublet_cloud::Actor;
use sublet_cloud::data::{DemandStep, ReserveRule, SellingMode};
use sublet_core::id::{DeviceId, LeaseId, ReclaimId};
use sublet_core::lease::{EndReason, Holder, LeaseState};
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};
use sublet_store::{attempt, reclaim};
use sublet_testkit::{SeededRng, TestCloud};

use crate::owner::{Surge, rhythm, surge};
use crate::record::{Asked, Record};
use crate::site::{Dice, GRACE, Look, POOLS, Site, pool};

/// How long it is between two looks in which nothing is due.
pub const TICK: DurationMs = DurationMs::from_seconds(1_800);
const TICKS_PER_DAY: i64 = 48;
const TICKS_PER_HOUR: i64 = 2;
/// Two days before the clocks of Europe change, and four before a month ends: 2026-03-28T00:00:00Z.
const FROM: Timestamp = Timestamp::from_seconds(1_774_656_000);
/// Ticks of a day between which what the reserve rule leaves is sold.
const SHADOW_FROM: i64 = 12;
const SHADOW_UNTIL: i64 = 20;
/// How often all books are added up on the way.
const DAYS_BETWEEN_AUDITS: i64 = 7;
/// Instants between two ticks.
const INSTANTS_MAX: usize = 500;
/// Seconds until the policy has heard its history.
const LEARNING_MAX: usize = 2_000;
/// Rows of one import.
const ROWS_AT_ONCE: usize = 1_000;
/// Days on which the control plane is started anew at noon, with how many minutes it is away.
const RESTARTS: [(i64, i64); 4] = [(1, 0), (2, 30), (8, 10), (21, 90)];
/// Until all months are over in every time zone.
const AFTER_ALL: DurationMs = DurationMs::from_hours(24 * 33);
/// Looks until all is over that was told to end.
const LOOKS_TO_END: usize = 40;

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub seed: u64,
    pub days: i64,
    /// Of the owner's demand before the first day.
    pub history_days: i64,
}

/// What a reader wants to see.
#[derive(Default, Debug)]
pub struct Figures {
    pub wanted: u64,
    pub bought: BTreeMap<NoticeClass, u64>,
    pub refused: BTreeMap<&'static str, u64>,
    pub cancelled: u64,
    pub extended: u64,
    pub restarts: u64,
    pub orders_refused: u64,
    pub outside_millis: i64,
    pub outside_collided_millis: i64,
    pub passes: u64,
}

pub struct Days<'a> {
    pub site: Site<'a>,
    pub dice: Dice,
    plan: Plan,
    pub figures: Figures,
    pub asked: Vec<Asked>,
    pub orders: Vec<ReclaimId>,
    pub yielded: BTreeSet<LeaseId>,
    pub queued: [u32; 3],
    pub outside: [u32; 3],
    down: Vec<(Timestamp, Timestamp)>,
    /// The clock of the calendar: ticks from the first, whatever the clock is set to.
    tick: i64,
}

/// Shows the way back to a failure.
impl Drop for Days<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let (Plan { seed, days, .. }, now) = (self.plan, self.site.now());
            eprintln!(
                "seed {seed} failed at {now}, tick {} of {days} days; replay it: SUBLET_SEED={seed} SUBLET_DAYS={days}",
                self.tick
            );
        }
    }
}

/// Lives through the days, ends everything, and answers what was written.
pub async fn live(cloud: &TestCloud, plan: Plan) -> (Record, Figures) {
    cloud.clock.set(FROM);
    let site = Site::start(cloud, plan.seed).await;
    let mut days = Days {
        site,
        dice: Dice(SeededRng::new(plan.seed)),
        plan,
        figures: Figures::default(),
        asked: Vec::new(),
        orders: Vec::new(),
        yielded: BTreeSet::new(),
        queued: [0; 3],
        outside: [0; 3],
        down: Vec::new(),
        tick: 0,
    };
    days.begin().await;
    for day in 0..plan.days {
        days.live_day(day).await;
        days.tell(day).await;
    }
    days.end().await
}

impl Days<'_> {
    async fn begin(&mut self) {
        self.site.pass().await;
        for index in 0..POOLS.len() {
            self.import(index).await;
        }
        let reserve = ReserveRule { minimum_units: 1, fraction_thousandths: 50 };
        self.site.compute().set_reserve(&Actor::system(), reserve).await.expect("set");
        self.sell_by(SellingMode::Learned).await;
        self.learn().await;
    }

    async fn sell_by(&self, mode: SellingMode) {
        self.site.compute().set_selling_mode(&Actor::system(), mode).await.expect("set");
    }

    /// One morning in ten what the reserve rule leaves is sold, also for long; what was learned takes over again at ten.
    async fn choose_mode(&self, day: i64, tick: i64) {
        match (day % 10, tick) {
            (0, SHADOW_FROM) => self.sell_by(SellingMode::Shadow).await,
            (0, SHADOW_UNTIL) => self.sell_by(SellingMode::Learned).await,
            _ => {}
        }
    }

    /// What the pool looked like before: its rhythm with some noise.
    async fn import(&mut self, index: usize) {
        let end_s = self.site.now().seconds() - 900;
        let capacity = POOLS[index].2;
        let quarters = self.plan.history_days * 96;
        let row = |quarter: i64| {
            let at_s = end_s - (quarters - quarter) * 900;
            let usual = rhythm(index, Timestamp::from_seconds(at_s)) + self.dice.number(0, 3);
            DemandStep { at_s, capacity, in_use: usual.saturating_sub(1).min(capacity), queued: 0, valid: true }
        };
        let rows: Vec<DemandStep> = (0..quarters).map(row).collect();
        for chunk in rows.chunks(ROWS_AT_ONCE) {
            self.site.compute().import_demand(&Actor::system(), &pool(index), chunk).await.expect("imported");
        }
    }

    /// Until the policy has heard all there is.
    async fn learn(&mut self) {
        for _ in 0..LEARNING_MAX {
            let pools = self.site.compute().list_pools(&Actor::system()).await.expect("pools");
            if pools.iter().all(sublet_cloud::demand::PoolStatement::is_fresh) {
                return;
            }
            self.site.cloud.clock.advance(DurationMs::from_seconds(1));
            self.pass().await;
        }
        panic!("it is not learned");
    }

    async fn pass(&mut self) {
        self.figures.passes += 1;
        self.site.pass().await;
    }

    fn hour(&self) -> i64 {
        self.tick % TICKS_PER_DAY / TICKS_PER_HOUR
    }

    pub fn surge(&self, index: usize) -> Surge {
        surge(index, self.tick / TICKS_PER_DAY, self.hour())
    }

    async fn live_day(&mut self, day: i64) {
        self.pay_in().await;
        for tick in 0..TICKS_PER_DAY {
            self.tick = day * TICKS_PER_DAY + tick;
            if tick == TICKS_PER_DAY / 2 {
                self.be_interrupted(day).await;
            }
            self.choose_mode(day, tick).await;
            // First, so that the curve is as old as a live one.
            self.pass().await;
            self.report().await;
            self.follow_team().await;
            if tick % TICKS_PER_HOUR == 0 {
                self.order(day, self.hour()).await;
            }
            self.follow_customers().await;
            self.pass().await;
            self.check().await;
            self.wait(self.site.now().plus(TICK)).await;
        }
        let control = self.site.control().clone();
        control.expire_credit().await.expect("credit that is over is looked for");
        assert_eq!(control.close_months().await.expect("months are looked at").failed, 0);
        // It reads all that was ever posted.
        if day % DAYS_BETWEEN_AUDITS == 0 {
            self.site.cloud.assert_books_balance().await;
        }
    }

    /// What happens to the control plane and to its clock.
    async fn be_interrupted(&mut self, day: i64) {
        let before = self.site.now();
        if let Some((_, minutes)) = RESTARTS.into_iter().find(|(on, _)| *on == day) {
            self.site.restart(DurationMs::from_seconds(minutes * 60)).await;
            self.figures.restarts += 1;
            self.pass().await;
            self.learn().await;
        }
        match day % 6 {
            // Nobody looks for a while, and the clock is set back.
            5 => self.site.cloud.clock.advance(DurationMs::from_seconds(1_500)),
            4 => self.site.cloud.clock.set(before.minus(DurationMs::from_seconds(40))),
            _ => {}
        }
        self.pass().await;
        self.down.push((before.min(self.site.now()), before.max(self.site.now())));
    }

    /// Time goes by, with a look at every instant at which something is due.
    async fn wait(&mut self, until: Timestamp) {
        for _ in 0..INSTANTS_MAX {
            let due = self.next_due().await.filter(|due| *due < until);
            self.site.cloud.clock.set(due.unwrap_or(until));
            if due.is_none() {
                return;
            }
            self.pass().await;
        }
        panic!("more than {INSTANTS_MAX} instants in one tick");
    }

    /// When the next lease has to stop, is killed, or is to be told by an order.
    async fn next_due(&self) -> Option<Timestamp> {
        let now = self.site.now();
        let read = self.site.control().store().read(now, |now, tx| {
            Box::pin(async move {
                let ends = reclaim::list_ordered_ends(tx, *now).await?;
                let orders = reclaim::list_open(tx).await?;
                let open = sublet_store::lease::list_open(tx).await?;
                let of_leases = open.iter().filter_map(|lease| lease.state.deadline());
                let of_leases = of_leases.flat_map(|deadline| [deadline, deadline.plus(GRACE)]);
                let of_orders = ends.values().flat_map(|end| [end.tell_at, end.deadline]);
                let all = of_leases.chain(of_orders).chain(orders.iter().filter_map(|order| order.until));
                Ok(all.filter(|at| at > now).min())
            })
        });
        read.await.expect("what is due can be read")
    }

    /// What must hold at every step: no device in two leases, nothing at the runner that nobody knows.
    async fn check(&mut self) {
        let look = self.site.look().await;
        check_devices(&look);
        self.count_outside(&look);
        let at_runner = self.site.at_runner();
        let live = self.site.control().store().read((), |(), tx| Box::pin(attempt::list_live(tx))).await.expect("attempts");
        let known: BTreeSet<_> = live.into_iter().map(|attempt| attempt.id).collect();
        for id in at_runner {
            assert!(known.contains(&id), "{id} runs and nobody knows it");
        }
        self.site.follow_runner();
    }

    async fn tell(&self, day: i64) {
        let look = self.site.look().await;
        let sold: u32 = look.leases.iter().filter(|lease| lease.holder == Holder::External).map(|lease| lease.units).sum();
        let own: u32 = look.leases.iter().filter(|lease| lease.holder == Holder::Internal).map(|lease| lease.units).sum();
        let Figures { wanted, bought, passes, .. } = &self.figures;
        let bought: u64 = bought.values().sum();
        eprintln!("day {day}: {sold} units sold and {own} the owner's at midnight; {bought} of {wanted} bought, {passes} looks");
    }

    /// The cloud stops: everybody is told, everything ends, the months are closed.
    async fn end(mut self) -> (Record, Figures) {
        self.site.compute().drain(DurationMs::from_seconds(30)).await.expect("it stops");
        for _ in 0..LOOKS_TO_END {
            self.pass().await;
            if self.site.look().await.leases.is_empty() {
                break;
            }
            self.site.cloud.clock.advance(DurationMs::from_seconds(5));
        }
        self.site.follow_runner();
        assert_eq!(self.site.at_runner(), vec![], "nothing runs any more");
        let ended_at = self.site.now();
        self.site.cloud.clock.advance(AFTER_ALL);
        assert_eq!(self.site.control().close_months().await.expect("months are looked at").failed, 0);
        self.site.cloud.assert_books_balance().await;
        let record = Record::read(self.site.control()).await;
        let (begun, asked, down) =
            (std::mem::take(&mut self.site.begun), std::mem::take(&mut self.asked), std::mem::take(&mut self.down));
        self.site.control().store().close().await;
        let (yielded, ended_at) = (std::mem::take(&mut self.yielded), Some(ended_at));
        (Record { begun, asked, down, yielded, ended_at, ..record }, std::mem::take(&mut self.figures))
    }
}

/// Every device is in the lease that says so and in no other.
fn check_devices(look: &Look) {
    let mut of: BTreeMap<&DeviceId, &LeaseId> = BTreeMap::new();
    for lease in &look.leases {
        // It waits for its devices, or never got them.
        let waits = lease.state == LeaseState::Pending;
        let is_lost = lease.state.reason() == Some(EndReason::DeviceLost);
        for id in lease.devices.iter().filter(|_| !waits) {
            let device = look.devices.iter().find(|device| device.id == *id).expect("a device");
            if device.lease.as_ref() == Some(&lease.id) {
                let other = of.insert(id, &lease.id);
                assert_eq!(other, None, "{id} is in two leases");
            } else {
                assert!(is_lost || device.promised_to.as_ref() == Some(&lease.id), "{id} is not in {}", lease.id);
            }
        }
    }
    for device in &look.devices {
        assert_eq!(device.lease.as_ref(), of.get(&device.id).copied(), "{} is in a lease that has ended", device.id);
    }
}
