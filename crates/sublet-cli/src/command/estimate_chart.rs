//! A week of a replay as a drawing: what was in use, sold by class, and free, one column for ten minutes.

use sublet_capacity::estimate::demand::Demand;
use sublet_capacity::estimate::replay::Moment;
use sublet_core::Timestamp;
use sublet_core::notice::NoticeClass;

use super::chart::{Color, Drawing, Point, Shape, Side};

const WEEK_S: i64 = 7 * 86_400;
const COLUMN_S: i64 = 600;
const WIDTH: i64 = 1_008;
const HEIGHT: i64 = 320;
const LEFT: i64 = 60;
const TOP: i64 = 40;
const RIGHT: i64 = 20;
/// What the name of a day takes at most.
const LABEL_WIDTH: i64 = 75;
const DAY_S: i64 = 86_400;
/// A clock between these counts from 1970: the years 2001 to 2100.
const SINCE_1970_MIN_S: i64 = 978_307_200;
const SINCE_1970_MAX_S: i64 = 4_102_444_800;
/// Internal use, then the classes from `firm` to `n0`.
const COLORS: [Color; 7] = [
    Color([0x9a, 0xa0, 0xa6]),
    Color([0x08, 0x30, 0x6b]),
    Color([0x08, 0x51, 0x9c]),
    Color([0x21, 0x71, 0xb5]),
    Color([0x42, 0x92, 0xc6]),
    Color([0x9e, 0xca, 0xe1]),
    Color([0xde, 0xeb, 0xf7]),
];
const CAPACITY_COLOR: Color = Color([0xd6, 0x27, 0x28]);
/// Beside the longest name of a policy.
const LEGEND: i64 = 350;
const LEGEND_PITCH: i64 = 95;
const SWATCH: i64 = 12;
const BANDS: usize = COLORS.len();

/// What is drawn: per column the units of each band, all pools together.
pub(super) struct Week {
    from_s: i64,
    columns: Vec<[u64; BANDS]>,
    capacity: Vec<u64>,
    /// The pool that is being told, from when on it has what.
    held: Option<(i64, [u32; 6])>,
}

impl Week {
    pub(super) fn new(demand: &Demand) -> Self {
        let span = demand.span_s().min(WEEK_S);
        let from_s = demand.end_s - span;
        let number = usize::try_from(span / COLUMN_S).unwrap_or(0).max(1);
        let mut week = Self { from_s, columns: vec![[0; BANDS]; number], capacity: vec![0; number], held: None };
        for pool in &demand.pools {
            for (place, step) in pool.steps.iter().enumerate() {
                let until = pool.steps.get(place + 1).map_or(demand.end_s, |next| next.at_s);
                for column in week.between(step.at_s, until) {
                    week.columns[column][0] += u64::from(step.in_use);
                    week.capacity[column] += u64::from(step.capacity);
                }
            }
        }
        week
    }

    /// The columns whose first instant lies in `[from, until)`.
    fn between(&self, from_s: i64, until_s: i64) -> std::ops::Range<usize> {
        let first = |at_s: i64| {
            usize::try_from(
                (at_s - self.from_s).max(0).div_euclid(COLUMN_S) + i64::from((at_s - self.from_s).max(0) % COLUMN_S > 0),
            )
            .unwrap_or(0)
        };
        let end = first(until_s).min(self.columns.len());
        first(from_s).min(end)..end
    }

    /// Moments of one pool come in order; time that goes back is the next pool's beginning.
    pub(super) fn add(&mut self, moment: &Moment<'_>) {
        if let Some((at_s, _)) = self.held.filter(|(at_s, _)| moment.at_s > *at_s) {
            self.fill(at_s, moment.at_s);
        } else {
            self.fill_to_end();
        }
        self.held = Some((moment.at_s, moment.running));
    }

    fn fill_to_end(&mut self) {
        if let Some((at_s, _)) = self.held {
            self.fill(at_s, i64::MAX / 2);
        }
    }

    fn fill(&mut self, from_s: i64, until_s: i64) {
        let running = self.held.map_or([0; 6], |(_, running)| running);
        for column in self.between(from_s, until_s) {
            for (band, units) in self.columns[column][1..].iter_mut().zip(running.iter().rev()) {
                *band += u64::from(*units);
            }
        }
    }

    pub(super) fn draw(mut self, policy: &str) -> Drawing {
        self.fill_to_end();
        let most = self.capacity.iter().copied().max().unwrap_or(0).max(1);
        let columns = i64::try_from(self.columns.len()).unwrap_or(1);
        let down =
            |units: u64| TOP + HEIGHT - i64::try_from(units.min(most)).unwrap_or(0) * HEIGHT / i64::try_from(most).unwrap_or(1);
        let edges: Vec<i64> = (0..=columns).map(|column| LEFT + column * WIDTH / columns).collect();
        let mut shapes: Vec<Shape> = Vec::new();
        for band in (0..BANDS).rev() {
            let levels = self.columns.iter().map(|column| down(column[..=band].iter().sum())).collect();
            shapes.push(Shape::Columns { edges: edges.clone(), levels, base: TOP + HEIGHT, color: COLORS[band] });
        }
        let levels = self.capacity.iter().map(|capacity| down(*capacity)).collect();
        shapes.push(Shape::Steps { edges, levels, color: CAPACITY_COLOR });
        label(&mut shapes, policy, most);
        self.label_days(&mut shapes);
        Drawing { width: LEFT + WIDTH + RIGHT, height: TOP + HEIGHT + 50, shapes }
    }

    /// A line where each day of the clock begins, and its name where that fits.
    fn label_days(&self, shapes: &mut Vec<Shape>) {
        let span_s = i64::try_from(self.columns.len()).unwrap_or(1) * COLUMN_S;
        let first = self.from_s.div_euclid(DAY_S) + i64::from(self.from_s.rem_euclid(DAY_S) > 0);
        for day in first..=(self.from_s + span_s).div_euclid(DAY_S) {
            let x = LEFT + (day * DAY_S - self.from_s) * WIDTH / span_s;
            shapes.push(Shape::Down { from: Point { x, y: TOP }, until: TOP + HEIGHT + 6 });
            if x + LABEL_WIDTH <= LEFT + WIDTH + RIGHT {
                shapes.push(words((x + 3, TOP + HEIGHT + 18), Side::Left, name_of(day)));
            }
        }
    }
}

fn words((x, y): (i64, i64), side: Side, text: impl Into<String>) -> Shape {
    Shape::Words { at: Point { x, y }, side, text: text.into() }
}

fn label(shapes: &mut Vec<Shape>, policy: &str, most: u64) {
    let names = std::iter::once("internal").chain(NoticeClass::ALL.into_iter().rev().map(NoticeClass::as_str));
    for (place, (name, color)) in (0_i64..).zip(names.zip(COLORS)) {
        let x = LEFT + LEGEND + place * LEGEND_PITCH;
        shapes.push(Shape::Swatch { at: Point { x, y: 14 }, size: SWATCH, color });
        shapes.push(words((x + SWATCH + 6, 24), Side::Left, name));
    }
    shapes.push(words((LEFT, 24), Side::Left, format!("{policy}: units, red is capacity")));
    shapes.push(words((LEFT - 6, TOP + 10), Side::Right, most.to_string()));
    shapes.push(words((LEFT - 6, TOP + HEIGHT), Side::Right, "0"));
}

/// The date, if the clock counts from 1970; else the number of the day.
fn name_of(day: i64) -> String {
    let is_date = (SINCE_1970_MIN_S..SINCE_1970_MAX_S).contains(&(day * DAY_S));
    let date = Timestamp::from_seconds(day * DAY_S).to_string();
    if is_date { date.chars().take(10).collect() } else { format!("day {day}") }
}
