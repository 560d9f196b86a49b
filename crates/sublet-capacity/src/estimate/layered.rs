//! The default policy: idle units in layers, each promised as long as its level has been seen to last.
//!
//! For each notice class there is a set of *rules* ([`super::rules`]), all of one form: promise what was
//! least idle within a window behind now, or a mixture of two such, less a margin. Every rule is followed
//! in the shadow from the first row on ([`super::shadow`]). Of the rules whose record keeps the class's
//! limits, the one that would have held most is used, at an hour's and a day's notice with a wider margin
//! than its record asks for; if there is none, the class is not sold. So the policy learns the pool's rhythm,
//! withdraws a class that cannot be kept, and no constant belongs to a series.
//!
//! A short record proves little: after `n` terms the next is worse than all of them with a probability of
//! about `1 / (n + 1)` (Laplace's rule of succession), so long promises grow with the terms seen.
//!
//! That the highest demand of the recent past foretells the next is Bashir et al. (EuroSys 2021).
//! Choosing among rules by their records is prediction with expert advice (Cesa-Bianchi and Lugosi, 2006).
//!
//! Invariants: the past only; levels never rise with the class and never exceed what is idle.

mod reasons;

use sublet_core::notice::NoticeClass;

use super::demand::Step;
use super::replay::{Levels, Manner, SellingPolicy};
use super::rules::{Base, Margin, WINDOWS, bases, margins, windows_s};
use super::shadow::{FADE_PARTS, Greatest, LEASE, Least, Record};
use super::terms::{CLASSES, PPM, Terms, index, term_s};

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 86_400;

/// A class is sold after so long at the earliest.
const EVIDENCE_MIN_S: i64 = 6 * HOUR_S;
/// A pool in which too few leases begin to show that one in a hundred breaks has shown it after so long without one.
const CALM_S: i64 = 30 * DAY_S;
/// After so many terms half of a base is promised at most, and more the more were seen.
const HALF_TERMS: i64 = 12;
/// The margin is so many steps wider than the record asks for, at an hour's and a day's notice.
const SPARE_STEPS: usize = 2;
/// Where a unit is missed for longer than this, in seconds, few jumps of demand use up what may collide,
/// so that a record shows little: the margin is a step wider, and less may have collided.
const MISSED_LONG_S: u128 = 10;
const MISSED_LONG_SPARE_STEPS: usize = 1;
const MISSED_LONG_LIMIT_PPM: u64 = 570_000;
/// A day's notice may use up the limit of so many times its own leases.
const SHARED_PARTS: u64 = 4;
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
    Mixing,
    Evidence,
    Succession,
    SpareMargin,
    SharedLimit,
    Firm,
    EvictionCost,
    Caution,
    Extending,
    KeepingOn,
    Breaking,
}

impl Part {
    pub const ALL: [(&'static str, Self); 12] = [
        ("default-without-layers", Self::Layers),
        ("default-without-mixing", Self::Mixing),
        ("default-without-evidence", Self::Evidence),
        ("default-without-succession", Self::Succession),
        ("default-without-spare-margin", Self::SpareMargin),
        ("default-without-shared-limit", Self::SharedLimit),
        ("default-without-firm", Self::Firm),
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
    least: [u32; WINDOWS],
    layers: Vec<Layer>,
    before_s: Option<i64>,
    /// The end of the last outage.
    known_since_s: Option<i64>,
    seen_s: i64,
    internal_s: u64,
    review_in_s: i64,
    fade_in_s: i64,
}

/// The rules of one class.
#[derive(Clone)]
struct Layer {
    class: NoticeClass,
    bases: Vec<Base>,
    margins: Vec<Margin>,
    /// Per base, the most that it promised within the class's term.
    reaches: Vec<Greatest>,
    /// By base, then margin.
    records: Vec<Record>,
    chosen: Option<Chosen>,
    /// Enough was seen, and it cannot be kept here.
    is_withdrawn: bool,
}

/// The rule in use.
#[derive(Clone, Copy)]
struct Chosen {
    base: Base,
    margin: Margin,
    /// Leases that its record sold, in parts of [`LEASE`].
    sold: u64,
}

impl Layer {
    fn new(class: NoticeClass) -> Self {
        let (bases, margins) = (bases(class), margins(class));
        Self {
            class,
            reaches: bases.iter().map(|_| Greatest::new(term_s(class))).collect(),
            records: vec![Record::default(); bases.len() * margins.len()],
            bases,
            margins,
            chosen: None,
            is_withdrawn: false,
        }
    }

    fn follow(&mut self, step: &Step, least: &[u32; WINDOWS], seconds: u64) {
        let has_term = self.class != NoticeClass::N0;
        let records = self.records.chunks_exact_mut(self.margins.len());
        for ((base, reach), records) in self.bases.iter().zip(&mut self.reaches).zip(records) {
            let reach = reach.push(step.at_s, base.of(least));
            for (margin, record) in self.margins.iter().zip(records) {
                record.follow(margin.less(reach, step.capacity), step.idle(), seconds, has_term);
            }
        }
    }

    /// Every rule with its record and the record of the margin that is so many steps narrower.
    fn rules(&self, spare: usize) -> impl Iterator<Item = (Base, Margin, &Record, &Record)> {
        let by_base = self.bases.iter().zip(self.records.chunks_exact(self.margins.len()));
        by_base.flat_map(move |(base, records)| {
            let wide = self.margins.iter().zip(records).skip(spare);
            let narrow = self.margins.iter().zip(records);
            // The first margins of the second kind have no narrower ones beside them.
            let pairs = wide.zip(narrow).filter(|((wide, _), (narrow, _))| wide.is_like(**narrow));
            pairs.map(|((margin, record), (_, narrower))| (*base, *margin, record, narrower))
        })
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
            windows: windows_s().into_iter().map(Least::new).collect(),
            least: [0; WINDOWS],
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
            Part::Layers
            | Part::Mixing
            | Part::Evidence
            | Part::Succession
            | Part::SpareMargin
            | Part::SharedLimit
            | Part::Firm
            | Part::Extending
            | Part::KeepingOn
            | Part::Breaking => {}
        }
        Self { without: Some(part), ..Self::with_limits(terms, limits) }
    }

    fn observe(&mut self, step: &Step, seconds: i64) {
        let weight = seconds.max(0).unsigned_abs();
        self.internal_s += weight * u64::from(step.in_use);
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
            let chosen = self.best(place);
            let is_withdrawn = chosen.is_none() && self.is_disproved(place);
            let layer = &mut self.layers[place];
            (layer.chosen, layer.is_withdrawn) = (chosen, is_withdrawn);
        }
    }

    /// Whether a record keeps the limits of its class. A rule of which little is known has not shown
    /// anything: where promises are hard to keep, it has to keep its limit even if the next lease is broken.
    fn keeps(&self, record: &Record, place: usize) -> bool {
        let class = self.layers[place].class;
        let is_hard = class == NoticeClass::N1h || class == NoticeClass::N24h;
        let is_calm = record.broken == 0 && self.seen_s >= CALM_S;
        let next = if is_hard && !is_calm && self.without != Some(Part::Evidence) { LEASE } else { 0 };
        !self.collides(record) && !self.breaks(record.broken + next, record, place)
    }

    /// Whether a unit for each promise that was broken, as long as it is missed, is more than may collide.
    fn collides(&self, record: &Record) -> bool {
        let missed_s = u128::from(record.broken / LEASE) * self.return_s;
        missed_s * u128::from(PPM) > u128::from(self.internal_s) * u128::from(self.collision_ppm())
    }

    /// Whether so many leases are more than may be broken of those that a record sold.
    fn breaks(&self, broken: u64, record: &Record, place: usize) -> bool {
        let class = self.layers[place].class;
        let allowed = u128::from(self.sold(record, class)) * u128::from(self.limits.broken_ppm[place]);
        class != NoticeClass::N0 && u128::from(broken) * u128::from(PPM) > allowed
    }

    /// Whether some rule was seen so often that its limits could bear a broken promise, and every such rule breaks them.
    /// A rule of which less was seen says nothing for or against its class.
    fn is_disproved(&self, place: usize) -> bool {
        let layer = &self.layers[place];
        let could_collide = u128::from(self.internal_s) * u128::from(self.collision_ppm()) >= self.return_s * u128::from(PPM);
        let (mut is_broken, mut is_open) = (false, false);
        for (.., record) in layer.rules(self.spare(layer.class)).filter(|(.., record)| record.held_s > 0) {
            let could_break = !self.breaks(LEASE, record, place);
            let breaks = could_break && self.breaks(record.broken, record, place) || could_collide && self.collides(record);
            is_broken |= breaks;
            is_open |= could_break && could_collide && !breaks;
        }
        is_broken && !is_open
    }

    /// Leases that share a limit: those of a day's notice are broken only after those of an hour's.
    fn sold(&self, record: &Record, class: NoticeClass) -> u64 {
        let shares = class == NoticeClass::N24h && self.without != Some(Part::SharedLimit);
        let shorter = self.layers[index(NoticeClass::N1h)].chosen.filter(|_| shares);
        record.sold + shorter.map_or(0, |chosen| chosen.sold.min(record.sold * SHARED_PARTS))
    }

    fn collision_ppm(&self) -> u64 {
        let part = if self.return_s > MISSED_LONG_S { MISSED_LONG_LIMIT_PPM } else { PPM };
        self.limits.collision_ppm * part / PPM
    }

    fn evidence_s(&self, class: NoticeClass) -> i64 {
        match class {
            _ if self.without == Some(Part::Evidence) => EVIDENCE_MIN_S,
            NoticeClass::N0 | NoticeClass::N2m => EVIDENCE_MIN_S,
            NoticeClass::N15m | NoticeClass::N1h => 12 * HOUR_S,
            NoticeClass::N24h => 2 * DAY_S,
            NoticeClass::Firm => 14 * DAY_S,
        }
    }

    fn spare(&self, class: NoticeClass) -> usize {
        match class {
            _ if self.without == Some(Part::SpareMargin) => 0,
            NoticeClass::N0 if self.return_s > MISSED_LONG_S => MISSED_LONG_SPARE_STEPS,
            NoticeClass::N1h | NoticeClass::N24h => SPARE_STEPS,
            // Of `firm` no promise of a record may be broken at all, and the terms seen keep most of the base back.
            NoticeClass::N0 | NoticeClass::N2m | NoticeClass::N15m | NoticeClass::Firm => 0,
        }
    }

    fn is_left_out(&self, class: NoticeClass) -> bool {
        match self.without {
            Some(Part::Layers) => class != NoticeClass::N0,
            Some(Part::Firm) => class == NoticeClass::Firm,
            _ => false,
        }
    }

    fn best(&self, place: usize) -> Option<Chosen> {
        let layer = &self.layers[place];
        if self.seen_s < self.evidence_s(layer.class) || self.is_left_out(layer.class) {
            return None;
        }
        let mut best = (0, None);
        for (base, margin, record, narrower) in layer.rules(self.spare(layer.class)) {
            let worth = self.worth(record, layer.class);
            let is_left_out = base.is_mixed() && self.without == Some(Part::Mixing);
            if worth > best.0 && !is_left_out && self.keeps(narrower, place) {
                best = (worth, Some(Chosen { base, margin, sold: record.sold }));
            }
        }
        best.1
    }

    /// What a rule's record earned: unit-seconds, less what its evictions cost where a unit is lost
    /// to customers altogether.
    fn worth(&self, record: &Record, class: NoticeClass) -> u64 {
        let evictions = if class == NoticeClass::N0 { record.ended / LEASE * self.limits.eviction_s } else { 0 };
        record.held_s.saturating_sub(evictions)
    }

    fn fade(&mut self) {
        self.internal_s -= self.internal_s / FADE_PARTS;
        self.layers.iter_mut().flat_map(|layer| &mut layer.records).for_each(Record::fade);
    }

    /// Time passes; `None` in an outage.
    fn pass(&mut self, step: &Step) -> Option<i64> {
        let before = self.before_s.replace(step.at_s);
        if !step.valid {
            if self.known_since_s.take().is_some() {
                self.layers.iter_mut().flat_map(|layer| &mut layer.records).for_each(Record::interrupt);
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
            let Some(Chosen { base, margin, .. }) = layer.chosen else { break };
            let base = base.of(&self.least);
            below = below.min(margin.less(base, step.capacity)).min(self.credible(base, layer.class));
            levels.0[index(layer.class)] = below;
        }
        levels
    }

    /// What the terms that were seen allow to promise of a base, from one hour of notice on.
    fn credible(&self, base: u32, class: NoticeClass) -> u32 {
        if term_s(class) < HOUR_S || self.without == Some(Part::Succession) {
            return base;
        }
        let terms = self.seen_s / term_s(class);
        u32::try_from(i64::from(base) * terms / (terms + HALF_TERMS)).unwrap_or(base)
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
            outlasts: false,
        }
    }
}
