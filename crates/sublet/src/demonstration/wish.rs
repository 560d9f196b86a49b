//! What simulated customers want, and when: pure, from a seed.
//!
//! Time is cut into windows, of a length that each customer has. In each there is a wish or none, at an instant of the
//! window; both come from a hash of seed, customer and window. So the wishes of a time are the same whenever they are
//! asked for, and there are at most as many as windows.

use sublet_core::notice::NoticeClass;
use sublet_runner::simulated::seed_of;

const HOUR_S: i64 = 3_600;
const DAY_S: i64 = 24 * HOUR_S;
/// Windows that are looked at in one call: what is further back is not wanted any more.
const WINDOWS_MAX: i64 = 64;

/// How somebody buys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Habit {
    /// Lets it run.
    RunsThrough,
    /// Often ends it sooner than planned.
    Cancels,
    /// Often goes on with another lease before the end.
    GoesOn,
    /// Saves its work each hour, and buys what is left if it is interrupted.
    BuysAgain,
}

/// A simulated customer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Character {
    pub name: &'static str,
    /// Kinds of devices that will do, the first asked for most often, and how many a machine has.
    kinds: &'static [(&'static str, u32)],
    units: (u32, u32),
    notice: NoticeClass,
    /// How long it is wanted: at least and at most.
    hours: (i64, i64),
    window_hours: i64,
    /// In how many of a hundred windows there is a wish.
    percent: u64,
    /// Wants nothing at night and at the end of a week.
    keeps_office_hours: bool,
    habit: Habit,
}

/// All of them. The shortest lease of each lives as long as its class has to.
pub const CUSTOMERS: [Character; 6] = [
    Character {
        name: "Lumen Studio",
        kinds: &[("l4", 4)],
        units: (1, 2),
        notice: NoticeClass::N15m,
        hours: (1, 4),
        window_hours: 1,
        percent: 70,
        keeps_office_hours: true,
        habit: Habit::Cancels,
    },
    Character {
        name: "Quarry Robotics",
        kinds: &[("h200", 8), ("a100", 4)],
        units: (2, 8),
        notice: NoticeClass::N2m,
        hours: (6, 20),
        window_hours: 3,
        percent: 75,
        keeps_office_hours: false,
        habit: Habit::BuysAgain,
    },
    Character {
        name: "Birch Analytics",
        kinds: &[("a100", 4), ("l4", 4), ("h200", 8)],
        units: (1, 4),
        notice: NoticeClass::N0,
        hours: (1, 6),
        window_hours: 1,
        percent: 65,
        keeps_office_hours: false,
        habit: Habit::BuysAgain,
    },
    Character {
        name: "Harbor Biotech",
        kinds: &[("a100", 4), ("h200", 8)],
        units: (1, 4),
        notice: NoticeClass::N1h,
        hours: (3, 10),
        window_hours: 3,
        percent: 70,
        keeps_office_hours: false,
        habit: Habit::GoesOn,
    },
    Character {
        name: "Tern Weather",
        kinds: &[("h200", 8), ("l4", 4)],
        units: (1, 4),
        notice: NoticeClass::N24h,
        hours: (26, 60),
        window_hours: 9,
        percent: 70,
        keeps_office_hours: false,
        habit: Habit::RunsThrough,
    },
    Character {
        name: "Kestrel Labs",
        kinds: &[("l4", 4)],
        units: (1, 1),
        notice: NoticeClass::Firm,
        hours: (169, 240),
        window_hours: 24,
        percent: 60,
        keeps_office_hours: false,
        habit: Habit::RunsThrough,
    },
];

/// Something that somebody wants at an instant.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Wish {
    /// Names it for ever.
    pub name: String,
    pub at_s: i64,
    /// The one that is wanted, and those that will do, each with its units.
    pub kinds: Vec<(String, u32)>,
    pub notice: NoticeClass,
    pub seconds: i64,
    pub habit: Habit,
    /// Ends it after so long, or goes on when so long has passed, by its habit.
    pub turns_after_s: Option<i64>,
}

/// What a customer wants after one instant and until another, oldest first.
pub fn wishes(seed: u64, customer: usize, (after_s, until_s): (i64, i64)) -> Vec<Wish> {
    let Some(character) = CUSTOMERS.get(customer) else { return Vec::new() };
    let length = character.window_hours * HOUR_S;
    let last = until_s.div_euclid(length);
    let first = after_s.div_euclid(length).max(last - WINDOWS_MAX);
    let all = (first..=last).filter_map(|window| wish_of(seed, character, window));
    all.filter(|wish| after_s < wish.at_s && wish.at_s <= until_s).collect()
}

fn wish_of(seed: u64, character: &Character, window: i64) -> Option<Wish> {
    let name = format!("{}-{window}", character.name.replace(' ', "-").to_lowercase());
    let draw = |what: &str, below: i64| {
        let drawn = seed_of(seed, &format!("{name}/{what}")) % below.unsigned_abs().max(1);
        i64::try_from(drawn).unwrap_or(0)
    };
    if draw("whether", 100) >= i64::try_from(character.percent).unwrap_or(100) {
        return None;
    }
    let length = character.window_hours * HOUR_S;
    let at_s = window * length + draw("when", length);
    if character.keeps_office_hours && !is_office_hour(at_s) {
        return None;
    }
    let (least, most) = (i64::from(character.units.0), i64::from(character.units.1));
    let units = u32::try_from(least + draw("units", most - least + 1)).unwrap_or(1);
    let mut kinds: Vec<(String, u32)> = character.kinds.iter().map(|(kind, most)| ((*kind).to_owned(), units.min(*most))).collect();
    // The first kind half of the time, and any at other times.
    let other = if draw("first", 2) == 0 { 0 } else { draw("which", i64::try_from(kinds.len()).unwrap_or(1)) };
    kinds.rotate_left(usize::try_from(other).unwrap_or(0));
    let (least, most) = (character.hours.0 * HOUR_S, character.hours.1 * HOUR_S);
    let seconds = least + draw("seconds", most - least + 1);
    let turns_after_s = match character.habit {
        Habit::Cancels if draw("turns", 2) == 0 => Some(seconds / 4 + draw("turn", seconds / 2)),
        Habit::GoesOn if draw("turns", 2) == 0 => Some(seconds - seconds / 8),
        Habit::Cancels | Habit::GoesOn | Habit::RunsThrough | Habit::BuysAgain => None,
    };
    let (notice, habit) = (character.notice, character.habit);
    Some(Wish { name, at_s, kinds, notice, seconds, habit, turns_after_s })
}

/// Monday to Friday from 7 to 19 in UTC: the first day of 1970 was a Thursday.
fn is_office_hour(at_s: i64) -> bool {
    (at_s.div_euclid(DAY_S) + 3).rem_euclid(7) < 5 && (7..19).contains(&(at_s.rem_euclid(DAY_S) / HOUR_S))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MONDAY_S: i64 = 1_767_571_200;

    fn of(seed: u64, customer: usize, days: i64) -> Vec<Wish> {
        // A customer's windows are looked at some at a time.
        (0..days * 4)
            .flat_map(|quarter| {
                let from = MONDAY_S + quarter * DAY_S / 4;
                wishes(seed, customer, (from - 1, from + DAY_S / 4 - 1))
            })
            .collect()
    }

    #[test]
    fn wishes_follow_from_the_seed_and_not_from_when_they_are_asked_for() {
        for customer in 0..CUSTOMERS.len() {
            let whole = of(3, customer, 8);
            let asked: Vec<Wish> = (0..8 * 1_440)
                .flat_map(|minute| wishes(3, customer, (MONDAY_S - 1 + minute * 60, MONDAY_S - 1 + (minute + 1) * 60)))
                .collect();
            assert_eq!(asked, whole);
            assert_ne!(of(4, customer, 8), whole);
            let names: std::collections::BTreeSet<&str> = whole.iter().map(|wish| wish.name.as_str()).collect();
            assert_eq!(names.len(), whole.len(), "each has a name of its own");
        }
    }

    #[test]
    fn every_wish_is_within_its_customers_bounds_and_its_class() {
        for (customer, character) in CUSTOMERS.iter().enumerate() {
            let wishes = of(1, customer, 60);
            let most = usize::try_from(60 * 24 / character.window_hours).unwrap();
            assert!(wishes.len() > most / 6 && wishes.len() <= most, "{}: {} wishes", character.name, wishes.len());
            for wish in &wishes {
                let fits = |(kind, units): &(String, u32)| {
                    character.kinds.iter().any(|(known, most)| known == kind && units <= most) && *units <= character.units.1
                };
                assert!(wish.kinds.len() == character.kinds.len() && wish.kinds.iter().all(fits), "{wish:?}");
                assert!((character.hours.0 * HOUR_S..=character.hours.1 * HOUR_S).contains(&wish.seconds));
                let least = wish.notice.notice().map_or(7 * DAY_S, |notice| notice.millis() / 1_000);
                assert!(wish.seconds >= least, "a lease of {} lives that long", wish.notice);
                assert!(wish.turns_after_s.is_none_or(|after| after < wish.seconds));
                assert!(!character.keeps_office_hours || is_office_hour(wish.at_s));
            }
            assert!(
                character.kinds.iter().all(|(kind, _)| wishes.iter().any(|wish| wish.kinds[0].0 == *kind)),
                "{}",
                character.name
            );
        }
        let day: usize = (0..CUSTOMERS.len()).map(|customer| of(1, customer, 60).len()).sum::<usize>() / 60;
        assert!((25..60).contains(&day), "{day} wishes a day");
    }
}
