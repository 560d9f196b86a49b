//! The leases of one pool during a replay: what runs, what was given notice, what is being cleaned.
//!
//! Units are interchangeable, so leases are cohorts: a class, a beginning, and how many. A unit is in
//! one cohort at a time. Of a class, who began last is displaced first.

use sublet_core::notice::NoticeClass;

use super::terms::{CLASSES, Terms, index, term_s};

/// A notice that is over before this is over by the next decision.
const DUE_S: i64 = 60;

/// Leases of one class that began together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cohort {
    began_s: i64,
    units: u32,
}

/// Leases that were told when they end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Noticed {
    class: NoticeClass,
    began_s: i64,
    ends_s: i64,
    units: u32,
}

impl Noticed {
    fn end(&self, kind: EndKind, at_s: i64) -> End {
        End { kind, class: self.class, units: self.units, began_s: self.began_s, promised_s: self.ends_s, at_s }
    }
}

/// Units that nobody has until then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Returning {
    free_s: i64,
    units: u32,
}

/// What happened to units of one class, since the start.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counts {
    /// Leases that began, extensions into this class among them.
    pub sold: u64,
    /// Of them those that were shorter before.
    pub extended: u64,
    /// Leases that the owner ended, with notice or without.
    pub evicted: u64,
    /// Of them those whose promise was not kept.
    pub broken: u64,
}

/// How a lease ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EndKind {
    /// By the owner, as promised.
    Evicted,
    /// By the owner, before what was promised.
    Broken,
    /// Its window was over, or its job was done.
    Over,
}

/// Leases that ended together.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct End {
    pub kind: EndKind,
    pub class: NoticeClass,
    pub units: u32,
    pub began_s: i64,
    /// Until when they were promised at least, told or not.
    pub promised_s: i64,
    pub at_s: i64,
}

/// The leases of a pool.
#[derive(Clone, Debug, Default)]
pub struct Leases {
    /// By class, oldest first.
    open: [Vec<Cohort>; CLASSES],
    /// The sum of each of them: there may be thousands of cohorts, and they are asked for at every step.
    open_units: [u32; CLASSES],
    noticed: Vec<Noticed>,
    returning: Vec<Returning>,
    pub counts: [Counts; CLASSES],
    /// What broken promises cost, in seconds of list price and parts per million.
    pub compensation: u128,
    /// What ended since this was emptied.
    pub ends: Vec<End>,
}

impl Leases {
    /// Units that earn, by class; those under notice among them.
    pub fn running(&self) -> [u32; CLASSES] {
        let mut running = self.open_units;
        for noticed in &self.noticed {
            running[index(noticed.class)] += noticed.units;
        }
        running
    }

    pub fn running_total(&self) -> u32 {
        self.running().iter().sum()
    }

    /// Units that earn nothing and are not free either.
    pub fn returning_total(&self) -> u32 {
        self.returning.iter().map(|returning| returning.units).sum()
    }

    /// Units under notice.
    pub fn noticed_total(&self) -> u32 {
        self.noticed.iter().map(|noticed| noticed.units).sum()
    }

    /// Open leases of a class.
    pub fn open(&self, class: NoticeClass) -> u32 {
        self.open_units[index(class)]
    }

    /// Units that somebody may keep for at least the term of this class from now on. All firm leases
    /// count, however little of their window is left: until it is over nothing takes them back, so
    /// what is sold beside them has to last as well.
    pub fn committed(&self, class: NoticeClass, now_s: i64) -> u32 {
        let open: u32 = NoticeClass::ALL[index(class)..].iter().map(|longer| self.open(*longer)).sum();
        let noticed = self.noticed.iter().filter(|noticed| noticed.ends_s - now_s >= term_s(class));
        open + noticed.map(|noticed| noticed.units).sum::<u32>()
    }

    /// When the next lease ends or unit becomes free by itself.
    pub fn next_event_s(&self) -> Option<i64> {
        let firm = self.open[index(NoticeClass::Firm)].iter().map(firm_end);
        let noticed = self.noticed.iter().map(|noticed| noticed.ends_s);
        noticed.chain(self.returning.iter().map(|returning| returning.free_s)).chain(firm).min()
    }

    /// Ends what ends by now. A firm window that is over ends without an eviction.
    pub fn advance(&mut self, now_s: i64, terms: &Terms) {
        let clean = i64::from(terms.reclaim_s);
        let over: Vec<Noticed> = self.noticed.iter().filter(|noticed| noticed.ends_s <= now_s).copied().collect();
        self.noticed.retain(|noticed| noticed.ends_s > now_s);
        for noticed in over {
            self.counts[index(noticed.class)].evicted += u64::from(noticed.units);
            self.ends.push(noticed.end(EndKind::Evicted, noticed.ends_s));
            self.returning.push(Returning { free_s: noticed.ends_s + clean, units: noticed.units });
        }
        let firm = &mut self.open[index(NoticeClass::Firm)];
        let firm_units = &mut self.open_units[index(NoticeClass::Firm)];
        for cohort in firm.iter().filter(|cohort| firm_end(cohort) <= now_s) {
            let window =
                Noticed { class: NoticeClass::Firm, began_s: cohort.began_s, ends_s: firm_end(cohort), units: cohort.units };
            *firm_units -= cohort.units;
            self.ends.push(window.end(EndKind::Over, window.ends_s));
            self.returning.push(Returning { free_s: firm_end(cohort) + clean, units: cohort.units });
        }
        firm.retain(|cohort| firm_end(cohort) > now_s);
        self.returning.retain(|returning| returning.free_s > now_s);
    }

    /// An outage: all is lost, and nothing is owed for it.
    pub fn lose_all(&mut self) {
        self.open = Default::default();
        self.open_units = Default::default();
        self.noticed.clear();
        self.returning.clear();
    }

    pub fn sell(&mut self, class: NoticeClass, wanted: u32, now_s: i64) {
        if wanted > 0 {
            self.counts[index(class)].sold += u64::from(wanted);
            self.add(class, Cohort { began_s: now_s, units: wanted });
        }
    }

    fn add(&mut self, class: NoticeClass, cohort: Cohort) {
        self.open_units[index(class)] += cohort.units;
        self.open[index(class)].push(cohort);
    }

    /// Takes up to so many open leases of a class, youngest first.
    fn take(&mut self, class: NoticeClass, mut wanted: u32) -> Vec<Cohort> {
        let cohorts = &mut self.open[index(class)];
        let mut taken = Vec::new();
        while let Some(last) = cohorts.last_mut().filter(|_| wanted > 0) {
            let part = last.units.min(wanted);
            taken.push(Cohort { began_s: last.began_s, units: part });
            wanted -= part;
            last.units -= part;
            self.open_units[index(class)] -= part;
            if last.units == 0 {
                cohorts.pop();
            }
        }
        taken
    }

    /// Tells up to so many leases of a class that they end; `n0` is killed, `firm` is never told.
    pub fn give_notice(&mut self, class: NoticeClass, wanted: u32, now_s: i64, terms: &Terms) {
        match class {
            NoticeClass::Firm => {}
            NoticeClass::N0 => {
                for cohort in self.take(class, wanted) {
                    let told = Noticed { class, began_s: cohort.began_s, ends_s: now_s, units: cohort.units };
                    self.counts[0].evicted += u64::from(cohort.units);
                    self.ends.push(told.end(EndKind::Evicted, now_s));
                    self.kill(cohort.units, now_s, terms);
                }
            }
            NoticeClass::N2m | NoticeClass::N15m | NoticeClass::N1h | NoticeClass::N24h => {
                for cohort in self.take(class, wanted) {
                    let ends_s = now_s + term_s(class);
                    self.noticed.push(Noticed { class, began_s: cohort.began_s, ends_s, units: cohort.units });
                }
            }
        }
    }

    /// Takes notices back of leases that were told and have less left than this class promises, so
    /// that their holders go on in it, unless their notice is over by `goes_s`. Answers how many.
    pub fn keep_on(&mut self, class: NoticeClass, wanted: u32, (now_s, goes_s): (i64, i64)) -> u32 {
        let term = term_s(class);
        let is_meant = |noticed: &Noticed| noticed.class >= class && noticed.ends_s > goes_s && noticed.ends_s - now_s < term;
        self.reopen(class, wanted, is_meant)
    }

    /// Lets leases whose notice is about to be over go on without any, but for so many.
    pub fn keep_on_at_end(&mut self, but: u32, now_s: i64) {
        let is_due = |noticed: &Noticed| noticed.ends_s - now_s < DUE_S;
        let due: u32 = self.noticed.iter().filter(|noticed| is_due(noticed)).map(|noticed| noticed.units).sum();
        self.reopen(NoticeClass::N0, due.saturating_sub(but), is_due);
    }

    fn reopen(&mut self, class: NoticeClass, mut wanted: u32, is_meant: impl Fn(&Noticed) -> bool) -> u32 {
        let before = wanted;
        for place in (0..self.noticed.len()).rev() {
            let noticed = &mut self.noticed[place];
            if wanted == 0 || !is_meant(noticed) {
                continue;
            }
            let part = noticed.units.min(wanted);
            wanted -= part;
            noticed.units -= part;
            let cohort = Cohort { began_s: noticed.began_s, units: part };
            self.add(class, cohort);
        }
        self.noticed.retain(|noticed| noticed.units > 0);
        before - wanted
    }

    /// Gives up to so many leases of one class a longer notice; nobody is interrupted.
    pub fn extend(&mut self, from: NoticeClass, to: NoticeClass, wanted: u32, now_s: i64) -> u32 {
        let units: u32 = self.take(from, wanted).iter().map(|cohort| cohort.units).sum();
        self.counts[index(to)].extended += u64::from(units);
        self.sell(to, units, now_s);
        units
    }

    /// Takes up to so many units at once: `n0` keeps its promise, the others' are broken, the shortest
    /// notice first, those under notice before the open ones; as many fewer as are over before a kill would
    /// free a unit. Answers how many units it could not take.
    pub fn take_back(&mut self, wanted: u32, now_s: i64, terms: &Terms) -> u32 {
        let mut wanted = wanted.saturating_sub(self.over_by(now_s + i64::from(terms.kill_s)));
        let ended = wanted.min(self.open(NoticeClass::N0));
        self.give_notice(NoticeClass::N0, ended, now_s, terms);
        wanted -= ended;
        for class in [NoticeClass::N2m, NoticeClass::N15m, NoticeClass::N1h, NoticeClass::N24h] {
            if wanted == 0 {
                break;
            }
            wanted -= self.break_noticed(class, wanted, now_s, terms);
            for cohort in self.take(class, wanted) {
                wanted -= cohort.units;
                let told = Noticed { class, began_s: cohort.began_s, ends_s: now_s + term_s(class), units: cohort.units };
                self.record_broken(told, now_s, terms);
            }
        }
        wanted
    }

    /// Units whose notice or window is over by then.
    fn over_by(&self, at_s: i64) -> u32 {
        let noticed = self.noticed.iter().filter(|noticed| noticed.ends_s <= at_s).map(|noticed| noticed.units);
        let firm = self.open[index(NoticeClass::Firm)].iter().filter(|cohort| firm_end(cohort) <= at_s).map(|cohort| cohort.units);
        noticed.chain(firm).sum()
    }

    fn break_noticed(&mut self, class: NoticeClass, mut wanted: u32, now_s: i64, terms: &Terms) -> u32 {
        let before = wanted;
        for place in 0..self.noticed.len() {
            let noticed = self.noticed[place];
            let part = noticed.units.min(wanted);
            // Who is gone by itself before a kill would free the unit is let go on.
            if noticed.class != class || part == 0 || noticed.ends_s - now_s <= i64::from(terms.kill_s) {
                continue;
            }
            wanted -= part;
            self.noticed[place].units -= part;
            self.record_broken(Noticed { units: part, ..noticed }, now_s, terms);
        }
        self.noticed.retain(|noticed| noticed.units > 0);
        before - wanted
    }

    fn record_broken(&mut self, lease: Noticed, now_s: i64, terms: &Terms) {
        let counts = &mut self.counts[index(lease.class)];
        counts.evicted += u64::from(lease.units);
        counts.broken += u64::from(lease.units);
        let each = terms.compensation(lease.class, now_s - lease.began_s, lease.ends_s - now_s);
        self.compensation += each * u128::from(lease.units);
        self.ends.push(lease.end(EndKind::Broken, now_s));
        self.kill(lease.units, now_s, terms);
    }

    fn kill(&mut self, units: u32, now_s: i64, terms: &Terms) {
        if units > 0 {
            let free_s = now_s + i64::from(terms.kill_s) + i64::from(terms.reclaim_s);
            self.returning.push(Returning { free_s, units });
        }
    }
}

fn firm_end(cohort: &Cohort) -> i64 {
    cohort.began_s + term_s(NoticeClass::Firm)
}
