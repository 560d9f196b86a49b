//! A week of a replay as an SVG: what was in use, sold by class, and free, one column for ten minutes.

use std::fmt::Write;

use sublet_capacity::estimate::demand::Demand;
use sublet_capacity::estimate::replay::Moment;
use sublet_core::Timestamp;
use sublet_core::notice::NoticeClass;

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
const COLORS: [&str; 7] = ["#9aa0a6", "#08306b", "#08519c", "#2171b5", "#4292c6", "#9ecae1", "#deebf7"];
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

    pub(super) fn draw(mut self, policy: &str) -> String {
        self.fill_to_end();
        let most = self.capacity.iter().copied().max().unwrap_or(0).max(1);
        let across =
            |column: usize| LEFT + i64::try_from(column).unwrap_or(0) * WIDTH / i64::try_from(self.columns.len()).unwrap_or(1);
        let down =
            |units: u64| TOP + HEIGHT - i64::try_from(units.min(most)).unwrap_or(0) * HEIGHT / i64::try_from(most).unwrap_or(1);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{}\" height=\"{}\" font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
            LEFT + WIDTH + RIGHT,
            TOP + HEIGHT + 50
        );
        for band in (0..BANDS).rev() {
            let mut path = format!("M{LEFT} {}", TOP + HEIGHT);
            for (place, column) in self.columns.iter().enumerate() {
                let level = down(column[..=band].iter().sum());
                let _ = write!(path, "L{} {level}L{} {level}", across(place), across(place + 1));
            }
            let _ = writeln!(svg, "<path d=\"{path}L{} {}Z\" fill=\"{}\"/>", LEFT + WIDTH, TOP + HEIGHT, COLORS[band]);
        }
        let mut path = String::new();
        for (place, capacity) in self.capacity.iter().enumerate() {
            let start = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{start}{} {}L{} {}", across(place), down(*capacity), across(place + 1), down(*capacity));
        }
        let _ = writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke=\"#d62728\"/>");
        self.label(&mut svg, policy, most);
        svg.push_str("</svg>\n");
        svg
    }

    fn label(&self, svg: &mut String, policy: &str, most: u64) {
        let names = std::iter::once("internal").chain(NoticeClass::ALL.into_iter().rev().map(NoticeClass::as_str));
        for (place, (name, color)) in (0_i64..).zip(names.zip(COLORS)) {
            let x = LEFT + 230 + place * 100;
            let _ = writeln!(
                svg,
                "<rect x=\"{x}\" y=\"14\" width=\"12\" height=\"12\" fill=\"{color}\" stroke=\"#555\"/><text x=\"{}\" y=\"24\">{name}</text>",
                x + 18
            );
        }
        let _ = writeln!(svg, "<text x=\"{LEFT}\" y=\"24\">{policy}: units, red is capacity</text>");
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{most}</text><text x=\"{}\" y=\"{}\" text-anchor=\"end\">0</text>",
            LEFT - 6,
            TOP + 10,
            LEFT - 6,
            TOP + HEIGHT
        );
        self.label_days(svg);
    }

    /// A line where each day of the clock begins, and its name where that fits.
    fn label_days(&self, svg: &mut String) {
        let span_s = i64::try_from(self.columns.len()).unwrap_or(1) * COLUMN_S;
        let first = self.from_s.div_euclid(DAY_S) + i64::from(self.from_s.rem_euclid(DAY_S) > 0);
        for day in first..=(self.from_s + span_s).div_euclid(DAY_S) {
            let x = LEFT + (day * DAY_S - self.from_s) * WIDTH / span_s;
            let _ = writeln!(svg, "<path d=\"M{x} {TOP}V{}\" stroke=\"#0003\"/>", TOP + HEIGHT + 6);
            if x + LABEL_WIDTH <= LEFT + WIDTH + RIGHT {
                let _ = writeln!(svg, "<text x=\"{}\" y=\"{}\">{}</text>", x + 3, TOP + HEIGHT + 18, name_of(day));
            }
        }
    }
}

/// The date, if the clock counts from 1970; else the number of the day.
fn name_of(day: i64) -> String {
    let is_date = (SINCE_1970_MIN_S..SINCE_1970_MAX_S).contains(&(day * DAY_S));
    let date = Timestamp::from_seconds(day * DAY_S).to_string();
    if is_date { date.chars().take(10).collect() } else { format!("day {day}") }
}
