//! Curves: how many units of a pool may be promised for how long, and what that leaves for customers.
//!
//! A curve comes from [`crate::estimate::follow`] and is data here. Headroom at a notice is the least,
//! over this and all shorter classes, of the class's level less what is committed for its term; so no
//! unit is promised beyond any level, whoever asked first.
//!
//! Invariants: without a curve that holds, a pool that is sold by curves sells nothing, and gives back only
//! what the owner needs; what the owner uses outside is never sold; what is surplus is never firm and never
//! the owner's own.
//!
//! Deliberately absent: where levels come from, and the owner's reserve ([`crate::reserve`]).

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sublet_core::device::{DeviceHealth, DeviceKind};
use sublet_core::error::{Error, ErrorCode};
use sublet_core::id::{LeaseId, SiteId};
use sublet_core::lease::Holder;
use sublet_core::notice::NoticeClass;
use sublet_core::{DurationMs, Timestamp};

use crate::estimate::terms::{CLASSES, index};
use crate::refusal::{AboveLevel, RefusalReason};
use crate::snapshot::{DeviceView, LeaseStage, LeaseView, Snapshot};

/// Devices that replace each other: of one kind, at one site.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Pool {
    pub kind: DeviceKind,
    pub site: SiteId,
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.kind, self.site)
    }
}

/// By what is sold to customers.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum SellingMode {
    /// The reserve rule alone; nothing is learned.
    #[default]
    Static,
    /// The reserve rule; curves are computed and shown.
    Shadow,
    /// The lesser of the reserve rule and the curve; surplus is given back.
    Learned,
    /// Customers get nothing new; curves are computed and shown.
    Nothing,
}

impl SellingMode {
    pub const ALL: [Self; 4] = [Self::Static, Self::Shadow, Self::Learned, Self::Nothing];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Static => "static",
            Self::Shadow => "shadow",
            Self::Learned => "learned",
            Self::Nothing => "nothing",
        }
    }
    /// Whether curves are computed.
    pub const fn learns(self) -> bool {
        match self {
            Self::Static => false,
            Self::Shadow | Self::Learned | Self::Nothing => true,
        }
    }
}

impl FromStr for SellingMode {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self, Error> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == text).ok_or_else(|| {
            let shown: String = text.chars().filter(|c| !c.is_control()).take(20).collect();
            Error::new(ErrorCode::InvalidRequest, format!("there is no selling mode '{shown}'"))
                .alternative("use one of static, shadow, learned, nothing")
        })
    }
}

/// Why a class has the level it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "why")]
pub enum LevelReason {
    /// The least that was idle within a window, less a part of capacity.
    OfCapacity { window_s: i64, margin_ppm: u64 },
    /// The least that was idle within a window, less a part of it.
    OfLeast { window_s: i64, margin_ppm: u64 },
    /// The class is sold after so much was seen.
    LittleSeen { seen_s: i64, needed_s: i64 },
    /// Too little was seen of the class to show that any rule keeps its limits.
    Unproven,
    /// Enough was seen, and no rule keeps the limits of the class.
    Withdrawn,
    /// A shorter class is not sold.
    ShorterNotSold,
    /// An outage ended a while ago; nothing is assumed right after one.
    AfterOutage,
    /// Nothing is known now.
    Outage,
}

impl fmt::Display for LevelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = |ppm: &u64| format!("{}.{} %", ppm / 10_000, ppm % 10_000 / 1_000);
        match self {
            Self::OfCapacity { window_s, margin_ppm } => {
                write!(f, "the least idle in {} minutes, less {} of capacity", window_s / 60, percent(margin_ppm))
            }
            Self::OfLeast { window_s, margin_ppm } => {
                write!(f, "the least idle in {} minutes, less {} of it", window_s / 60, percent(margin_ppm))
            }
            Self::LittleSeen { seen_s, needed_s } => {
                write!(f, "{} of {} hours of history were seen", seen_s / 3_600, needed_s / 3_600)
            }
            Self::Unproven => f.write_str("no rule has shown yet that it keeps the promises of this class here"),
            Self::Withdrawn => f.write_str("no rule keeps the promises of this class here"),
            Self::ShorterNotSold => f.write_str("a shorter class is not sold"),
            Self::AfterOutage => f.write_str("what is known of demand ended and began again within the last hour"),
            Self::Outage => f.write_str("the demand is not known now"),
        }
    }
}

/// One class of a curve.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Level {
    /// How many units may be promised for at least the class's term.
    pub units: u32,
    pub reason: LevelReason,
}

/// How many units may stay of what is committed for at least each class's term, where so many are not the owner's. What
/// was learned decides; where nothing has been shown yet, only what the owner needs is given back; in an outage nobody
/// knows what that is, so nothing is.
pub(crate) fn stays(levels: &[Level; CLASSES], idle: u32) -> [u32; CLASSES] {
    let mut is_withdrawn = false;
    levels.map(|level| {
        is_withdrawn |= level.reason == LevelReason::Withdrawn;
        match level.reason {
            LevelReason::OfCapacity { .. } | LevelReason::OfLeast { .. } | LevelReason::Withdrawn => level.units,
            LevelReason::ShorterNotSold if is_withdrawn => level.units,
            LevelReason::ShorterNotSold | LevelReason::LittleSeen { .. } | LevelReason::Unproven | LevelReason::AfterOutage => idle,
            LevelReason::Outage => u32::MAX,
        }
    })
}

/// What was computed for a pool.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub enum Curve {
    /// Nothing yet.
    #[default]
    Missing,
    /// It was not renewed in time.
    Stale,
    /// By class, shortest notice first; it holds now.
    Fresh([Level; CLASSES]),
}

/// What is known of a pool beyond its devices.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolView {
    /// Units that the owner uses outside, beyond devices that are cordoned: they look free and are not. Which ones
    /// nobody knows.
    pub outside: u32,
    pub curve: Curve,
}

/// By what is sold, and what is known for it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Selling {
    pub mode: SellingMode,
    /// The instant that the snapshot is of.
    pub at: Timestamp,
    pub pools: BTreeMap<Pool, PoolView>,
}

/// Leases of customers in one pool, with their units. A unit that is promised to somebody is the owner's already.
#[derive(Default)]
struct Sold<'a> {
    leases: Vec<(&'a LeaseView, u32)>,
    /// Healthy units that neither the owner's teams have nor anybody keeps for them.
    not_owners: u32,
    /// Healthy units that nobody has, and of them those that are kept for the owner's teams.
    idle: u32,
    held: u32,
}

impl Sold<'_> {
    /// Units that somebody may keep for at least the term of this class from now on, and all of `firm`: one whose window
    /// ends sooner is followed by the next.
    /// A lease that was just told is not committed for its own class any more.
    fn committed(&self, class: NoticeClass, now: Timestamp) -> u32 {
        let counts = |lease: &LeaseView| match (&lease.stage, lease.notice) {
            (LeaseStage::Ending { deadline, .. }, notice) => class < notice && deadline.since(now) >= class.minimum_term(),
            (_, notice) => notice >= class,
        };
        let counted = self.leases.iter().filter(|(lease, _)| counts(lease));
        counted.fold(0, |sum, (_, units)| sum.saturating_add(*units))
    }
    fn total(&self) -> u32 {
        self.leases.iter().fold(0, |sum, (_, units)| sum.saturating_add(*units))
    }
    /// Units that are not the owner's, where so many are used outside. Those look free: where nothing but what is kept
    /// for the owner's teams does, they are of that, and count once.
    fn left(&self, outside: u32) -> u32 {
        let of_held = outside.saturating_sub(self.idle - self.held).min(self.held);
        self.not_owners.saturating_sub(outside - of_held)
    }
}

/// What customers have of each pool's capacity, which is what is healthy there; of one kind, if one is named.
fn sold_by_pool<'a>(snapshot: &'a Snapshot, kind: Option<&DeviceKind>) -> BTreeMap<(&'a DeviceKind, &'a SiteId), Sold<'a>> {
    // Whatever the order in which it is walked: sums and sorted lists come of it.
    let mut held: HashMap<&LeaseId, (&SiteId, u32)> = HashMap::new();
    let mut pools: BTreeMap<_, Sold<'a>> = BTreeMap::new();
    let is_meant = |device: &&DeviceView| device.health == DeviceHealth::Healthy && kind.is_none_or(|kind| device.kind == *kind);
    for device in snapshot.devices.iter().filter(is_meant) {
        let is_owners = match (&device.promised_to, &device.used_by) {
            (Some(next), _) => snapshot.lease(next).is_some_and(|lease| lease.holder == Holder::Internal),
            (None, Some(lease)) => {
                held.entry(lease).or_insert((&device.site, 0)).1 += 1;
                false
            }
            (None, None) => device.held,
        };
        let pool = pools.entry((&device.kind, &device.site)).or_default();
        pool.not_owners += u32::from(!is_owners);
        pool.idle += u32::from(device.is_idle());
        pool.held += u32::from(device.is_idle() && device.held);
    }
    for (id, (site, units)) in held {
        let Some(lease) = snapshot.leases.get(id) else { continue };
        let pool = pools.entry((&lease.kind, site)).or_default();
        match lease.holder {
            Holder::External => pool.leases.push((lease, units)),
            Holder::Internal => pool.not_owners = pool.not_owners.saturating_sub(units),
        }
    }
    pools
}

/// How many more units a pool has for customers.
#[derive(Debug)]
pub(crate) struct Room {
    idle: u32,
    outside: u32,
    rule: RoomRule,
}

#[derive(Debug)]
enum RoomRule {
    /// What is free.
    Free,
    Nothing,
    NoCurve,
    Curve(Box<Bounds>),
}

/// What may be promised, and what is.
#[derive(Debug)]
struct Bounds {
    levels: [Level; CLASSES],
    committed: [u32; CLASSES],
}

impl Room {
    fn free(&self) -> u32 {
        self.idle.saturating_sub(self.outside)
    }

    /// Units at a notice.
    pub fn units(&self, notice: NoticeClass) -> u32 {
        match &self.rule {
            RoomRule::Free => self.free(),
            RoomRule::Nothing | RoomRule::NoCurve => 0,
            RoomRule::Curve(bounds) => self.free().min(bounds.tightest(notice).1),
        }
    }

    /// Why there are no more.
    pub fn refusal(&self, notice: NoticeClass) -> RefusalReason {
        let outside = RefusalReason::UsedOutside { idle: self.idle, outside: self.outside };
        match &self.rule {
            RoomRule::Free => outside,
            RoomRule::Nothing => RefusalReason::NothingSold,
            RoomRule::NoCurve => RefusalReason::NoCurve,
            RoomRule::Curve(bounds) => {
                let (class, headroom) = bounds.tightest(notice);
                if self.free() < headroom {
                    return outside;
                }
                let Level { units, reason } = bounds.levels[index(class)];
                let sold = bounds.committed[index(class)];
                RefusalReason::AboveLevel(Box::new(AboveLevel { class, level: units, sold, headroom, reason }))
            }
        }
    }
}

impl Bounds {
    /// The class up to this notice that leaves the least, and how much.
    fn tightest(&self, notice: NoticeClass) -> (NoticeClass, u32) {
        let mut least = (NoticeClass::N0, u32::MAX);
        for class in NoticeClass::ALL.into_iter().filter(|class| *class <= notice) {
            let left = self.levels[index(class)].units.saturating_sub(self.committed[index(class)]);
            if left < least.1 {
                least = (class, left);
            }
        }
        least
    }
}

/// What each site has of a kind. `None` where the reserve rule is all that bounds it. The owner's teams are bound by what
/// is used outside alone.
pub(crate) fn rooms<'a>(snapshot: &'a Snapshot, kind: &DeviceKind, holder: Holder) -> Option<BTreeMap<&'a SiteId, Room>> {
    let selling = &snapshot.selling;
    let mode = match holder {
        Holder::External => selling.mode,
        Holder::Internal => SellingMode::Static,
    };
    let is_bound = match mode {
        SellingMode::Learned | SellingMode::Nothing => true,
        SellingMode::Static | SellingMode::Shadow => {
            selling.pools.iter().any(|(pool, view)| pool.kind == *kind && view.outside > 0)
        }
    };
    if !is_bound {
        return None;
    }
    let sold = if mode == SellingMode::Learned { sold_by_pool(snapshot, Some(kind)) } else { BTreeMap::new() };
    let mut rooms: BTreeMap<&SiteId, Room> = BTreeMap::new();
    for device in snapshot.devices.iter().filter(|device| device.kind == *kind) {
        let room = rooms.entry(&device.site).or_insert_with(|| {
            let pool = Pool { kind: kind.clone(), site: device.site.clone() };
            let view = selling.pools.get(&pool).copied().unwrap_or_default();
            let rule = match (mode, view.curve) {
                (SellingMode::Static | SellingMode::Shadow, _) => RoomRule::Free,
                (SellingMode::Nothing, _) => RoomRule::Nothing,
                (SellingMode::Learned, Curve::Missing | Curve::Stale) => RoomRule::NoCurve,
                (SellingMode::Learned, Curve::Fresh(levels)) => {
                    let committed = committed(sold.get(&(kind, &device.site)), selling.at);
                    RoomRule::Curve(Box::new(Bounds { levels, committed }))
                }
            };
            Room { idle: 0, outside: view.outside, rule }
        });
        room.idle += u32::from(device.is_idle() && (!device.held || holder == Holder::Internal));
    }
    Some(rooms)
}

/// What is committed for each class; whatever still runs counts for the shortest.
fn committed(sold: Option<&Sold<'_>>, now: Timestamp) -> [u32; CLASSES] {
    let Some(sold) = sold else { return [0; CLASSES] };
    NoticeClass::ALL.map(|class| if class == NoticeClass::N0 { sold.total() } else { sold.committed(class, now) })
}

/// Units of a pool in leases of customers, by class; those under notice among them.
pub fn sold_by_class(snapshot: &Snapshot, pool: &Pool) -> [u32; CLASSES] {
    let mut units = [0; CLASSES];
    for device in snapshot.devices.iter().filter(|device| device.kind == pool.kind && device.site == pool.site) {
        let lease = device.used_by.as_ref().and_then(|id| snapshot.leases.get(id));
        if let Some(lease) = lease.filter(|lease| lease.holder == Holder::External) {
            units[index(lease.notice)] += 1;
        }
    }
    units
}

/// Leases that are beyond what may stay in their pools, with the earliest end that their notice allows: of
/// each class the youngest, and of those only what is needed.
pub(crate) fn surplus(snapshot: &Snapshot, now: Timestamp) -> BTreeMap<&LeaseId, Timestamp> {
    let mut ends = BTreeMap::new();
    if snapshot.selling.mode != SellingMode::Learned {
        return ends;
    }
    for ((kind, site), sold) in sold_by_pool(snapshot, None) {
        let pool = Pool { kind: kind.clone(), site: site.clone() };
        let view = snapshot.selling.pools.get(&pool).copied().unwrap_or_default();
        let idle = sold.left(view.outside);
        let stays = match view.curve {
            Curve::Fresh(levels) => stays(&levels, idle),
            Curve::Missing | Curve::Stale => [idle; CLASSES],
        };
        for class in NoticeClass::ALL.into_iter().filter(|class| *class != NoticeClass::Firm).rev() {
            let beyond = sold.committed(class, now).saturating_sub(stays[index(class)]);
            ends.extend(youngest(&sold, class, beyond).into_iter().filter_map(|lease| {
                let deadline = lease.reclaim_deadline(now)?;
                Some((&lease.id, deadline))
            }));
        }
    }
    ends
}

/// The leases of a class that began last and are so many units together, without those that are not needed.
fn youngest<'a>(sold: &Sold<'a>, class: NoticeClass, wanted: u32) -> Vec<&'a LeaseView> {
    let is_open = |(lease, _): &&(&LeaseView, u32)| lease.notice == class && lease.stage == LeaseStage::Active;
    let mut open: Vec<(&LeaseView, u32)> = sold.leases.iter().filter(is_open).copied().collect();
    open.sort_by(|(a, _), (b, _)| (b.starts_at, &b.id).cmp(&(a.starts_at, &a.id)));
    let mut freed = 0;
    let mut chosen: Vec<(&LeaseView, u32)> = Vec::new();
    for (lease, units) in open {
        if freed >= wanted {
            break;
        }
        freed += units;
        chosen.push((lease, units));
    }
    for place in (0..chosen.len()).rev() {
        if freed - chosen[place].1 >= wanted {
            freed -= chosen[place].1;
            chosen.remove(place);
        }
    }
    chosen.into_iter().map(|(lease, _)| lease).collect()
}

/// Where the units of one pool are, as the policy hears of them.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct PoolFigures {
    /// Healthy units.
    pub capacity: u32,
    /// In leases of the owner's teams, promised to one, or held for them by an order.
    pub internal: u32,
    pub cordoned: u32,
    /// Of the cordoned ones, those that no lease has.
    pub set_aside: u32,
    pub lost: u32,
    /// Free, not promised.
    pub idle: u32,
}

impl PoolFigures {
    /// Healthy or not.
    pub const fn total(&self) -> u32 {
        self.capacity.saturating_add(self.cordoned).saturating_add(self.lost)
    }

    /// Units of the capacity that are used outside, where so many are reported: cordoning says which devices those are,
    /// and they count once.
    pub const fn used_outside(&self, reported: u32) -> u32 {
        reported.saturating_sub(self.set_aside)
    }
}

/// The figures of every pool there are devices of.
pub fn pool_figures(devices: &[DeviceView], is_internal: impl Fn(&LeaseId) -> bool) -> BTreeMap<Pool, PoolFigures> {
    let mut pools: BTreeMap<(&DeviceKind, &SiteId), PoolFigures> = BTreeMap::new();
    for device in devices {
        let figures = pools.entry((&device.kind, &device.site)).or_default();
        match device.health {
            DeviceHealth::Healthy => {}
            DeviceHealth::Cordoned => {
                figures.cordoned += 1;
                figures.set_aside += u32::from(device.used_by.is_none());
            }
            DeviceHealth::Lost => figures.lost += 1,
        }
        if device.health == DeviceHealth::Healthy {
            figures.capacity += 1;
            let users = [&device.used_by, &device.promised_to];
            // What an order holds for the owner's teams is theirs before they come.
            let is_held = device.held && device.is_idle();
            figures.internal += u32::from(is_held || users.into_iter().flatten().any(&is_internal));
            figures.idle += u32::from(device.is_idle() && !is_held);
        }
    }
    pools.into_iter().map(|((kind, site), figures)| (Pool { kind: kind.clone(), site: site.clone() }, figures)).collect()
}

/// Longest that a curve holds without being computed anew.
pub const CURVE_LIFE: DurationMs = DurationMs::from_seconds(300);
