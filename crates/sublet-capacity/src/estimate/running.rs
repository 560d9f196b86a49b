//! The jobs that have leases, in orders that find the next one to end without looking at all.

use std::collections::BTreeSet;

use sublet_core::notice::NoticeClass;

use super::leases::{End, EndKind};
use super::terms::{CLASSES, Terms, index, term_s};

/// A notice that is over before this is over by the next decision.
const DUE_S: i64 = 60;
/// Jobs of a class that are offered a longer notice at one decision.
const OFFERED_MAX: usize = 1_000;

/// A job with its lease.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Held {
    pub(super) job: usize,
    pub(super) units: u32,
    pub(super) class: NoticeClass,
    /// When the lease of this class began.
    pub(super) began_s: i64,
    /// When the job went to work.
    pub(super) ran_since_s: i64,
    /// When it will be done.
    pub(super) finish_s: i64,
    /// When its notice is over, if it was told.
    pub(super) told_s: Option<i64>,
}

impl Held {
    /// When it ends by itself or by its notice.
    pub(super) fn over_s(&self) -> i64 {
        self.told_s.map_or(self.finish_s, |told| told.min(self.finish_s))
    }

    pub(super) fn end(&self, kind: EndKind, at_s: i64, promised_s: i64) -> End {
        End { kind, class: self.class, units: self.units, began_s: self.began_s, promised_s, at_s }
    }
}

/// The jobs of a pool that run.
#[derive(Debug, Default)]
pub(super) struct Running {
    /// By the job's place.
    held: Vec<Option<Held>>,
    /// Not told: by beginning of the lease, then the job's place.
    open: [BTreeSet<(i64, usize)>; CLASSES],
    open_units: [u32; CLASSES],
    told: BTreeSet<(i64, usize)>,
    told_units: [u32; CLASSES],
    ends: BTreeSet<(i64, usize)>,
    returning: BTreeSet<(i64, u32)>,
    returning_units: u32,
}

impl Running {
    pub(super) fn by_class(&self) -> [u32; CLASSES] {
        let mut sum = self.open_units;
        sum.iter_mut().zip(self.told_units).for_each(|(sum, told)| *sum += told);
        sum
    }

    pub(super) fn total(&self) -> u32 {
        self.by_class().iter().sum()
    }

    pub(super) fn returning_total(&self) -> u32 {
        self.returning_units
    }

    /// Units that somebody may keep for at least the term of this class from now on.
    pub(super) fn committed(&self, class: NoticeClass, now_s: i64) -> u32 {
        let open: u32 = self.open_units[index(class)..].iter().sum();
        let told = self.told.range((now_s + term_s(class), 0)..);
        open + told.filter_map(|(_, job)| self.find(*job)).map(|held| held.units).sum::<u32>()
    }

    fn find(&self, job: usize) -> Option<&Held> {
        self.held.get(job).and_then(Option::as_ref)
    }

    pub(super) fn start(&mut self, held: Held) {
        if self.held.len() <= held.job {
            self.held.resize(held.job + 1, None);
        }
        match held.told_s {
            None => {
                self.open[index(held.class)].insert((held.began_s, held.job));
                self.open_units[index(held.class)] += held.units;
            }
            Some(told_s) => {
                self.told.insert((told_s, held.job));
                self.told_units[index(held.class)] += held.units;
            }
        }
        self.ends.insert((held.over_s(), held.job));
        self.held[held.job] = Some(held);
    }

    pub(super) fn remove(&mut self, held: &Held) {
        match held.told_s {
            None => {
                self.open[index(held.class)].remove(&(held.began_s, held.job));
                self.open_units[index(held.class)] -= held.units;
            }
            Some(told_s) => {
                self.told.remove(&(told_s, held.job));
                self.told_units[index(held.class)] -= held.units;
            }
        }
        self.ends.remove(&(held.over_s(), held.job));
        self.held[held.job] = None;
    }

    fn change(&mut self, held: &Held, changed: Held) {
        self.remove(held);
        self.start(changed);
    }

    pub(super) fn tell(&mut self, held: &Held, ends_s: i64) {
        self.change(held, Held { told_s: Some(ends_s), ..*held });
    }

    /// Takes out the next job that is over by then.
    pub(super) fn first_over(&mut self, now_s: i64) -> Option<Held> {
        let (_, job) = self.ends.first().copied().filter(|(over_s, _)| *over_s <= now_s)?;
        let held = *self.find(job)?;
        self.remove(&held);
        Some(held)
    }

    /// Takes out all jobs, in their order, and forgets what is being cleaned.
    pub(super) fn lose_all(&mut self) -> Vec<Held> {
        std::mem::take(self).held.into_iter().flatten().collect()
    }

    pub(super) fn return_later(&mut self, free_s: i64, units: u32) {
        // Several may return at once: the sum is kept.
        let same = self.returning.range((free_s, 0)..=(free_s, u32::MAX)).next().copied();
        let before = same.map_or(0, |(_, units)| units);
        if let Some(same) = same {
            self.returning.remove(&same);
        }
        self.returning.insert((free_s, before + units));
        self.returning_units += units;
    }

    pub(super) fn free_returned(&mut self, now_s: i64) {
        while let Some((free_s, units)) = self.returning.first().copied().filter(|(free_s, _)| *free_s <= now_s) {
            self.returning.remove(&(free_s, units));
            self.returning_units -= units;
        }
    }

    pub(super) fn next_event_s(&self) -> Option<i64> {
        let over = self.ends.first().map(|(over_s, _)| *over_s);
        let free = self.returning.first().map(|(free_s, _)| *free_s);
        over.into_iter().chain(free).min()
    }

    /// The jobs of a class that were not told and began last, as many as give back so many units.
    pub(super) fn youngest(&self, class: NoticeClass, wanted: u32) -> Vec<Held> {
        let mut chosen = Vec::new();
        self.choose(self.open[index(class)].iter().rev().map(|(_, job)| *job), wanted, &mut chosen);
        needed(chosen, wanted)
    }

    /// Whom internal demand displaces at once: the shortest notice first, of a class those that were told
    /// first, but nobody who is gone by then anyway, and nobody whose units those leave.
    pub(super) fn displaced(&self, wanted: u32, now_s: i64, terms: &Terms) -> Vec<Held> {
        let gone_s = now_s + i64::from(terms.kill_s);
        let going = self.ends.range(..(gone_s + 1, 0)).filter_map(|(_, job)| self.find(*job));
        let wanted = wanted.saturating_sub(going.map(|held| held.units).sum());
        let stays = |job: &usize| self.find(*job).is_some_and(|held| held.over_s() > gone_s);
        let mut chosen = Vec::new();
        for class in [NoticeClass::N0, NoticeClass::N2m, NoticeClass::N15m, NoticeClass::N1h, NoticeClass::N24h] {
            let told = self.told.iter().map(|(_, job)| *job).filter(stays);
            let told = told.filter(|job| self.find(*job).is_some_and(|held| held.class == class));
            self.choose(told, wanted, &mut chosen);
            self.choose(self.open[index(class)].iter().rev().map(|(_, job)| *job).filter(stays), wanted, &mut chosen);
        }
        needed(chosen, wanted)
    }

    fn choose(&self, jobs: impl Iterator<Item = usize>, wanted: u32, chosen: &mut Vec<Held>) {
        let mut sum: u32 = chosen.iter().map(|held| held.units).sum();
        let mut jobs = jobs.filter_map(|job| self.find(job));
        while let Some(held) = jobs.next().filter(|_| sum < wanted) {
            sum += held.units;
            chosen.push(*held);
        }
    }

    /// Lets jobs that were told and have less left than this class promises go on in it, if they run that
    /// long and the notice is not over by `goes_s`. A class that they did not count in has to miss their units.
    pub(super) fn keep_on(&mut self, class: NoticeClass, mut missing: [u32; CLASSES], (now_s, goes_s): (i64, i64)) {
        let term = term_s(class);
        let told = self.told.range((goes_s + 1, 0)..).take_while(|(told_s, _)| *told_s < now_s + term);
        let told = told.map(|(told_s, job)| (*told_s, *job)).collect::<Vec<_>>();
        for (told_s, job) in told.into_iter().rev() {
            let meant = self.find(job).filter(|held| held.class >= class && held.finish_s - now_s >= term);
            let Some(held) = meant.copied() else { continue };
            let counted = NoticeClass::ALL.iter().take_while(|shorter| now_s + term_s(**shorter) <= told_s).count();
            if take(&mut missing[counted..=index(class)], held.units) {
                self.change(&held, Held { class, told_s: None, ..held });
            }
        }
    }

    /// Lets jobs whose notice is about to be over go on without any, but for so many units.
    pub(super) fn keep_on_at_end(&mut self, but: u32, now_s: i64) {
        let due: Vec<Held> = self.told.range(..(now_s + DUE_S, 0)).filter_map(|(_, job)| self.find(*job)).copied().collect();
        let units: u32 = due.iter().map(|held| held.units).sum();
        self.reopen(&due, NoticeClass::N0, units.saturating_sub(but));
    }

    fn reopen(&mut self, meant: &[Held], class: NoticeClass, wanted: u32) {
        let mut reopened = 0;
        for held in meant {
            if reopened + held.units <= wanted {
                reopened += held.units;
                self.change(held, Held { class, told_s: None, ..*held });
            }
        }
    }

    /// Gives jobs of shorter notice, the longest first, this one's, if they run that long and every class
    /// on the way misses their units. Answers how many units.
    pub(super) fn extend(&mut self, to: NoticeClass, mut missing: [u32; CLASSES], now_s: i64) -> u32 {
        let mut extended = 0;
        for shorter in NoticeClass::ALL[..index(to)].iter().rev() {
            let way = index(*shorter) + 1..=index(to);
            if missing[way.clone()].contains(&0) {
                break;
            }
            let jobs = self.open[index(*shorter)].iter().rev().take(OFFERED_MAX).filter_map(|(_, job)| self.find(*job));
            let long: Vec<Held> = jobs.filter(|held| held.finish_s - now_s >= term_s(to)).copied().collect();
            for held in long {
                if take(&mut missing[way.clone()], held.units) {
                    extended += held.units;
                    self.change(&held, Held { class: to, began_s: now_s, ..held });
                }
            }
        }
        extended
    }
}

/// Takes so many units from each, if each has them.
fn take(missing: &mut [u32], units: u32) -> bool {
    let has_room = missing.iter().all(|missing| *missing >= units);
    if has_room {
        missing.iter_mut().for_each(|missing| *missing -= units);
    }
    has_room
}

/// Without those that turned out to be more than is wanted: the first chosen are spared first.
fn needed(chosen: Vec<Held>, wanted: u32) -> Vec<Held> {
    let mut spare = chosen.iter().map(|held| held.units).sum::<u32>().saturating_sub(wanted);
    let mut kept = chosen;
    kept.retain(|held| {
        let is_spared = held.units <= spare;
        spare -= if is_spared { held.units } else { 0 };
        !is_spared
    });
    kept
}
