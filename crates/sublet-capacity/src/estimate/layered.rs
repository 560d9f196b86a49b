//! The default policy: idle units in layers, each promised as long as its level has been seen to last.
//!
//! For each notice class there is a set of *rules*, all of one form: promise the least that was idle
//! within a window behind now, less a margin: a part of capacity, or of that least. Every rule is followed in the shadow from the first
//! row on ([`super::shadow`]). Of the rules whose record keeps the class's limits, the one that would
//! have earned most is used; if there is none, the class is not sold. So the policy learns the pool's
//! rhythm, withdraws a class that cannot be kept, and no constant belongs to a series.
//!
//! That the highest demand of the recent past foretells the next is Bashir et al. (EuroSys 2021).
//! Choosing among rules by their records is prediction with expert advice (Cesa-Bianchi and Lugosi, 2006).
//!
//! Invariants: the past only; levels never rise with the class and never exceed what is idle.

mod reasons;

use sublet_core::notice::NoticeClass;

use super::baseline::share;
use super::demand::Step;
use super::replay::{Levels, Manner, SellingPolicy};
use super::shadow::{FADE_PARTS, Greatest, Least, Record};
use super::terms::{CLASSES, PPM, Terms, index, term_s};

const MINUTE_S: i64 = 60;
const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// Windows behind now, in seconds.
const WINDOWS_S: [i64; 12] = [
    5 * MINUTE_S,
    10 * MINUTE_S,
    20 * MINUTE_S,
    30 * MINUTE_S,
    HOUR_S,
    2 * HOUR_S,
    4 * HOUR_S,
    8 * HOUR_S,
    16 * HOUR_S,
    DAY_S,
    2 * DAY_S,
    4 * DAY_S,
];
/// Margins in parts per million of capacity, and behind them in parts per million of what was least.
const OF_CAPACITY_PPM: [u64; 16] =
    [0, 8_000, 12_000, 16_000, 20_000, 24_000, 32_000, 40_000, 50_000, 63_000, 80_000, 100_000, 125_000, 160_000, 200_000, 250_000];
const OF_LEAST_PPM: [u64; 8] = [125_000, 250_000, 375_000, 500_000, 625_000, 700_000, 775_000, 850_000];
const MARGINS: usize = OF_CAPACITY_PPM.len() + OF_LEAST_PPM.len();

/// What is left of the least by a margin.
fn less(least: u32, capacity: u32, margin: usize) -> u32 {
    let part = match margin.checked_sub(OF_CAPACITY_PPM.len()) {
        None => share(capacity, OF_CAPACITY_PPM[margin]),
        Some(place) => share(least, OF_LEAST_PPM[place]),
    };
    least.saturating_sub(part)
}

/// A class is sold after so many of its terms were seen, but at least and at most so long.
const EVIDENCE_TERMS: i64 = 48;
const EVIDENCE_MIN_S: i64 = 6 * HOUR_S;
const EVIDENCE_MAX_S: i64 = 14 * DAY_S;
/// A firm lease cannot be ended for internal demand: eight of its terms have to be seen.
const FIRM_EVIDENCE_TERMS: i64 = 8;
/// The margin is so many steps wider than the record asks for, from one hour of notice on.
const SPARE_STEPS: usize = 1;
/// Time between two choices of rules, in seconds.
const REVIEW_S: i64 = HOUR_S;

/// What the owner wants kept.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Collisions, in parts per million of internal unit-seconds.
    pub collision_ppm: u64,
    /// Broken promises of each class, in parts per million of its leases.
    pub broken_ppm: [u64; CLASSES],
    /// What an eviction costs, in seconds of a unit.
    pub eviction_s: u64,
    /// Time behind an outage in which nothing is sold, in seconds.
    pub caution_s: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            collision_ppm: 7,
            broken_ppm: [0, 50_000, 50_000, 10_000, 10_000, 0],
            eviction_s: HOUR_S.unsigned_abs() / 2,
            caution_s: HOUR_S,
        }
    }
}

/// A part of the policy, to see what it contributes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    Layers,
    Evidence,
    SpareMargin,
    EvictionCost,
    Caution,
    Extending,
    KeepingOn,
    Breaking,
}

impl Part {
    pub const ALL: [(&'static str, Self); 8] = [
        ("default-without-layers", Self::Layers),
        ("default-without-evidence", Self::Evidence),
        ("default-without-spare-margin", Self::SpareMargin),
        ("default-without-eviction-cost", Self::EvictionCost),
        ("default-without-caution", Self::Caution),
        ("default-without-extending", Self::Extending),
        ("default-without-keeping-on", Self::KeepingOn),
        ("default-without-breaking", Self::Breaking),
    ];
}

/// The policy with what it has learned of one pool.
#[derive(Clone)]
pub struct Layered {
    /// Seconds for which a unit that is short is missed.
    return_s: u128,
    limits: Limits,
    without: Option<Part>,
    windows: Vec<Least>,
    least: [u32; WINDOWS_S.len()],
    layers: Vec<Layer>,
    before_s: Option<i64>,
    /// The end of the last outage.
    known_since_s: Option<i64>,
    seen_s: i64,
    internal_s: u128,
    review_in_s: i64,
    fade_in_s: i64,
}

/// The rules of one class.
#[derive(Clone)]
struct Layer {
    class: NoticeClass,
    /// Per window, the most that it promised within the class's term.
    reaches: Vec<Greatest>,
    /// By window, then margin.
    records: Vec<[Record; MARGINS]>,
    chosen: Option<(usize, usize)>,
}

impl Layer {
    fn new(class: NoticeClass) -> Self {
        Self {
            class,
            reaches: WINDOWS_S.iter().map(|_| Greatest::new(term_s(class))).collect(),
            records: vec![[Record::default(); MARGINS]; WINDOWS_S.len()],
            chosen: None,
        }
    }

    fn has_term(&self) -> bool {
        self.class != NoticeClass::N0
    }

    fn all_records(&mut self) -> impl Iterator<Item = &mut Record> {
        self.records.iter_mut().flatten()
    }

    fn follow(&mut self, step: &Step, least: &[u32], seconds: u128) {
        let has_term = self.has_term();
        for ((least, reach), records) in least.iter().zip(&mut self.reaches).zip(&mut self.records) {
            let reach = reach.push(step.at_s, *least);
            for (margin, record) in records.iter_mut().enumerate() {
                record.follow(less(reach, step.capacity, margin), step.idle(), seconds, has_term);
            }
        }
    }
}

impl Layered {
    pub fn new(terms: &Terms) -> Self {
        Self::with_limits(terms, Limits::default())
    }

    pub fn with_limits(terms: &Terms, limits: Limits) -> Self {
        Self {
            return_s: u128::from(terms.kill_s) + u128::from(terms.reclaim_s),
            limits,
            without: None,
            windows: WINDOWS_S.iter().map(|window| Least::new(*window)).collect(),
            least: [0; WINDOWS_S.len()],
            layers: NoticeClass::ALL.into_iter().map(Layer::new).collect(),
            before_s: None,
            known_since_s: None,
            seen_s: 0,
            internal_s: 0,
            review_in_s: 0,
            fade_in_s: DAY_S,
        }
    }

    /// The policy without one of its parts.
    pub fn without(terms: &Terms, part: Part) -> Self {
        let mut limits = Limits::default();
        match part {
            Part::EvictionCost => limits.eviction_s = 0,
            Part::Caution => limits.caution_s = 0,
            Part::Layers | Part::Evidence | Part::SpareMargin | Part::Extending | Part::KeepingOn | Part::Breaking => {}
        }
        Self { without: Some(part), ..Self::with_limits(terms, limits) }
    }

    fn observe(&mut self, step: &Step, seconds: i64) {
        let weight = u128::try_from(seconds).unwrap_or(0);
        self.internal_s += weight * u128::from(step.in_use);
        for (least, window) in self.least.iter_mut().zip(&mut self.windows) {
            *least = window.push(step.at_s, step.idle());
        }
        for layer in &mut self.layers {
            layer.follow(step, &self.least, weight);
        }
    }

    /// Chooses each class's rule anew.
    fn review(&mut self) {
        for place in 0..self.layers.len() {
            self.layers[place].chosen = self.best(place);
        }
    }

    /// Whether a record keeps the limits of its class, even if so many more units had been short.
    fn keeps(&self, record: &Record, more: u64, place: usize) -> bool {
        let broken = u128::from(record.broken + more) * u128::from(PPM);
        let collides =
            u128::from(record.broken) * self.return_s * u128::from(PPM) > self.internal_s * u128::from(self.limits.collision_ppm);
        !collides && (place == 0 || broken <= u128::from(record.sold) * u128::from(self.limits.broken_ppm[place]))
    }

    /// A rule of which little is known has not shown anything: where promises are hard to keep,
    /// it has to keep its limit even if the next lease is broken.
    fn has_shown(&self, record: &Record, place: usize) -> bool {
        let class = self.layers[place].class;
        let is_hard = class == NoticeClass::N1h || class == NoticeClass::N24h;
        self.keeps(record, u64::from(is_hard && self.without != Some(Part::Evidence)), place)
    }

    fn evidence_s(&self, class: NoticeClass) -> i64 {
        match class {
            _ if self.without == Some(Part::Evidence) => EVIDENCE_MIN_S,
            NoticeClass::Firm => FIRM_EVIDENCE_TERMS * term_s(class),
            NoticeClass::N0 | NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h => {
                (EVIDENCE_TERMS * term_s(class)).clamp(EVIDENCE_MIN_S, EVIDENCE_MAX_S)
            }
        }
    }

    fn spare(&self, place: usize) -> usize {
        let is_long = place >= index(NoticeClass::N1h) && self.without != Some(Part::SpareMargin);
        if is_long { SPARE_STEPS } else { 0 }
    }

    fn best(&self, place: usize) -> Option<(usize, usize)> {
        let layer = &self.layers[place];
        if self.seen_s < self.evidence_s(layer.class) || (place > 0 && self.without == Some(Part::Layers)) {
            return None;
        }
        let spare = self.spare(place);
        let mut best = (0, None);
        for (window, records) in layer.records.iter().enumerate() {
            // The first margin of the second kind has no narrower one beside it.
            for margin in (spare..MARGINS).filter(|margin| *margin != OF_CAPACITY_PPM.len() || spare == 0) {
                let worth = self.worth(&records[margin], place);
                if worth > best.0 && self.has_shown(&records[margin - spare], place) {
                    best = (worth, Some((window, margin)));
                }
            }
        }
        best.1
    }

    /// What a rule's record earned: unit-seconds, less what its evictions cost where a unit is lost
    /// to customers altogether.
    fn worth(&self, record: &Record, place: usize) -> u128 {
        let evictions = if place == 0 { u128::from(record.ended) * u128::from(self.limits.eviction_s) } else { 0 };
        record.held_s.saturating_sub(evictions)
    }

    fn fade(&mut self) {
        self.internal_s -= self.internal_s / u128::from(FADE_PARTS);
        self.layers.iter_mut().flat_map(Layer::all_records).for_each(Record::fade);
    }

    /// Time passes; `None` in an outage.
    fn pass(&mut self, step: &Step) -> Option<i64> {
        let before = self.before_s.replace(step.at_s);
        if !step.valid {
            if self.known_since_s.take().is_some() {
                self.layers.iter_mut().flat_map(Layer::all_records).for_each(Record::interrupt);
            }
            return None;
        }
        let known_since = *self.known_since_s.get_or_insert(step.at_s);
        Some(before.filter(|before| *before >= known_since).map_or(0, |before| step.at_s - before))
    }

    /// What the chosen rules promise now.
    fn promise(&self, step: &Step) -> Levels {
        let mut levels = Levels::default();
        let mut below = step.idle();
        for layer in &self.layers {
            let Some((window, margin)) = layer.chosen else { break };
            below = below.min(less(self.least[window], step.capacity, margin));
            levels.0[index(layer.class)] = below;
        }
        levels
    }
}

impl SellingPolicy for Layered {
    fn levels(&mut self, step: &Step) -> Levels {
        let Some(seconds) = self.pass(step) else { return Levels::default() };
        self.seen_s += seconds;
        self.observe(step, seconds);
        self.review_in_s -= seconds;
        if self.review_in_s <= 0 {
            self.review();
            self.review_in_s = REVIEW_S;
        }
        self.fade_in_s -= seconds;
        if self.fade_in_s <= 0 {
            self.fade();
            self.fade_in_s = DAY_S;
        }
        let is_early = self.known_since_s.is_some_and(|since| step.at_s - since < self.limits.caution_s);
        if is_early { Levels::default() } else { self.promise(step) }
    }

    fn manner(&self) -> Manner {
        Manner {
            breaks: self.without != Some(Part::Breaking),
            keeps_on: self.without != Some(Part::KeepingOn),
            extends: self.without != Some(Part::Extending),
        }
    }
}
