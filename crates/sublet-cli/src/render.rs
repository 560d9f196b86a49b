//! Text for people: tables, money, instants, trees, errors. Pure: objects in, text out.

use sublet_api::money::Money;
use sublet_api::time::{Rfc3339, UnixSeconds};
use sublet_api::why::{FACT_DEPTH_MAX, Fact, Why};
use sublet_core::error::Error;
use sublet_core::id::SiteId;
use sublet_core::money::NANOS_PER_UNIT;
use sublet_core::notice::NoticeClass;
use sublet_core::runner::IsolationLevel;
use sublet_core::{DurationMs, Timestamp};

use crate::context::Style;

/// What stands where there is nothing.
pub const NOTHING: &str = "-";

/// Colours with a meaning.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Tone {
    Plain,
    Heading,
    Good,
    Bad,
    Quiet,
}

/// Wraps text in its tone's colour, if colours are wanted.
pub fn paint(text: &str, tone: Tone, style: Style) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Heading => "1",
        Tone::Good => "32",
        Tone::Bad => "31",
        Tone::Quiet => "2",
    };
    if style.color { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
}

/// Text from elsewhere, without characters that would steer the terminal.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// The tone of a state's name.
pub fn tone_of(state: &str) -> Tone {
    match state {
        "succeeded" | "active" | "running" | "ok" | "paid" | "open" => Tone::Good,
        "failed" | "revoked" | "suspended" | "lost" | "void" | "expired" => Tone::Bad,
        "ended" | "cancelled" | "archived" | "idle" => Tone::Quiet,
        _ => Tone::Plain,
    }
}

/// One cell of a table.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cell {
    text: String,
    tone: Tone,
    right: bool,
}

impl Cell {
    pub fn text(text: impl AsRef<str>) -> Self {
        Self { text: plain(text.as_ref()), tone: Tone::Plain, right: false }
    }
    /// Numbers stand on the right.
    pub fn number(text: impl ToString) -> Self {
        Self { text: text.to_string(), tone: Tone::Plain, right: true }
    }
    pub fn state(text: &str) -> Self {
        Self { text: plain(text), tone: tone_of(text), right: false }
    }
    pub fn optional<T: ToString>(value: Option<T>) -> Self {
        Self::text(value.map_or_else(|| NOTHING.to_owned(), |value| value.to_string()))
    }
}

/// Rows under headings, aligned.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<Cell>>,
    empty: &'static str,
}

impl Table {
    /// `empty` is said when there are no rows.
    pub fn new<const N: usize>(headings: [&'static str; N], empty: &'static str) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new(), empty }
    }
    /// Two columns: names and values.
    pub fn of_fields(fields: Vec<(&'static str, Cell)>) -> Self {
        let rows = fields.into_iter().map(|(name, cell)| vec![Cell { tone: Tone::Quiet, ..Cell::text(name) }, cell]);
        Self { headings: Vec::new(), rows: rows.collect(), empty: "" }
    }
    #[must_use]
    pub fn rows<const N: usize>(mut self, rows: impl IntoIterator<Item = [Cell; N]>) -> Self {
        self.rows.extend(rows.into_iter().map(Vec::from));
        self
    }

    pub fn render(&self, style: Style) -> String {
        if self.rows.is_empty() && !self.empty.is_empty() {
            return format!("{}\n", self.empty);
        }
        let heading = |text: &&'static str| Cell { tone: Tone::Heading, ..Cell::text(text.to_uppercase()) };
        let mut lines: Vec<Vec<Cell>> = Vec::new();
        if !self.headings.is_empty() {
            lines.push(self.headings.iter().map(heading).collect());
        }
        lines.extend(self.rows.iter().cloned());
        let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<usize> =
            (0..columns).map(|column| lines.iter().filter_map(|line| line.get(column)).map(width).max().unwrap_or(0)).collect();
        // A heading stands over its numbers.
        if let (false, Some(first)) = (self.headings.is_empty(), self.rows.first()) {
            for (cell, below) in lines[0].iter_mut().zip(first) {
                cell.right = below.right;
            }
        }
        lines.iter().map(|line| render_line(line, &widths, style)).collect()
    }
}

fn width(cell: &Cell) -> usize {
    cell.text.chars().count()
}

fn render_line(line: &[Cell], widths: &[usize], style: Style) -> String {
    let mut text = String::new();
    for (index, (cell, room)) in line.iter().zip(widths).enumerate() {
        let padding = " ".repeat(room.saturating_sub(width(cell)));
        let painted = paint(&cell.text, cell.tone, style);
        let is_last = index + 1 == line.len();
        match (cell.right, is_last) {
            (true, _) => text.push_str(&format!("{padding}{painted}")),
            (false, true) => text.push_str(&painted),
            (false, false) => text.push_str(&format!("{painted}{padding}")),
        }
        if !is_last {
            text.push_str("  ");
        }
    }
    text.push('\n');
    text
}

/// The notice of device time, with the site and the isolation that a price is for.
pub fn kind_of_time(notice: Option<NoticeClass>, site: Option<&SiteId>, isolation: Option<IsolationLevel>) -> String {
    let notice = notice.map_or(NOTHING, |notice| notice.as_str());
    let parts = [Some(notice), site.map(SiteId::as_str), isolation.map(IsolationLevel::as_str)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// `12.50 EUR`: exact, with at least the currency's own decimals.
pub fn money(money: &Money) -> String {
    let amount = money.nanos().to_string();
    let (whole, fraction) = amount.split_once('.').unwrap_or((&amount, ""));
    let decimals = decimals_of(money.currency.minor_unit().get());
    let padded = format!("{fraction:0<decimals$}");
    if padded.is_empty() { format!("{whole} {}", money.currency) } else { format!("{whole}.{padded} {}", money.currency) }
}

fn decimals_of(minor_unit: i64) -> usize {
    let mut rest = NANOS_PER_UNIT / minor_unit.max(1);
    let mut decimals = 0;
    while rest > 1 {
        rest /= 10;
        decimals += 1;
    }
    decimals
}

/// `2026-03-01 12:00:00Z`.
pub fn instant(at: Timestamp) -> String {
    let text = at.to_string();
    let seconds = text.split('.').next().unwrap_or(&text);
    format!("{}Z", seconds.replace('T', " "))
}

pub fn unix(at: UnixSeconds) -> String {
    instant(at.into())
}

pub fn rfc3339(at: Option<Rfc3339>) -> String {
    at.map_or_else(|| NOTHING.to_owned(), |at| instant(at.0))
}

/// `1h 02m 03s`, or `1.234 s` below a minute.
pub fn duration(length: DurationMs) -> String {
    let millis = length.millis().max(0);
    let seconds = millis / 1_000;
    let (hours, minutes, rest) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
    match (hours, minutes) {
        (0, 0) => format!("{}.{:03} s", rest, millis % 1_000),
        (0, minutes) => format!("{minutes}m {rest:02}s"),
        (hours, minutes) => format!("{hours}h {minutes:02}m {rest:02}s"),
    }
}

/// A count of milliseconds from the wire as a length of time.
pub fn milliseconds(count: u64) -> String {
    duration(DurationMs::from_millis(i64::try_from(count).unwrap_or(i64::MAX)))
}

/// `64.0 MiB`, rounded down.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut unit = 0;
    let mut tenths = u128::from(count) * 10;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1_024;
        unit += 1;
    }
    match unit {
        0 => format!("{count} B"),
        _ => format!("{}.{} {}", tenths / 10, tenths % 10, units[unit]),
    }
}

/// An explanation as a tree.
pub fn why(why: &Why, style: Style) -> String {
    let mut text = format!("{}  {}\n", paint(&plain(&why.id), Tone::Heading, style), plain(&why.summary));
    if !why.rule.is_empty() {
        text.push_str(&format!("{} {}\n", paint("rule:", Tone::Quiet, style), plain(&why.rule)));
    }
    branches(&why.facts, "", style, &mut text);
    if !why.related.is_empty() {
        let related: Vec<String> = why.related.iter().map(|id| plain(id)).collect();
        text.push_str(&format!("{} {}\n", paint("see also:", Tone::Quiet, style), related.join(", ")));
    }
    text
}

fn branches(facts: &[Fact], indent: &str, style: Style, text: &mut String) {
    // Three characters per level, so the indentation bounds the depth.
    if indent.chars().count() >= 3 * FACT_DEPTH_MAX {
        return;
    }
    let room = facts.iter().map(|fact| fact.label.chars().count()).max().unwrap_or(0);
    for (index, fact) in facts.iter().enumerate() {
        let (branch, below) = if index + 1 == facts.len() { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        let padding = " ".repeat(room.saturating_sub(fact.label.chars().count()));
        let label = paint(&plain(&fact.label), Tone::Quiet, style);
        text.push_str(&format!("{indent}{branch}{label}{padding}  {}\n", plain(&fact.value)));
        branches(&fact.parts, &format!("{indent}{below}"), style, text);
    }
}

/// An error with its remedy, for standard error.
pub fn error(error: &Error, style: Style) -> String {
    let mut text = format!("{} {}\n", paint("error:", Tone::Bad, style), plain(error.message()));
    if let Some(param) = error.param_name() {
        text.push_str(&format!("  field: {}\n", plain(param)));
    }
    for alternative in error.alternatives() {
        text.push_str(&format!("  try: {}\n", plain(alternative)));
    }
    if let Some(after) = error.retry_after_hint() {
        text.push_str(&format!("  again in: {}\n", duration(after)));
    }
    for context in error.private_context() {
        text.push_str(&format!("  {} {}\n", paint("detail:", Tone::Quiet, style), plain(context)));
    }
    text.push_str(&paint(&format!("  more: sublet explain {}", error.code()), Tone::Quiet, style));
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use sublet_core::money::{Currency, Nanos};

    #[test]
    fn money_shows_every_digit_and_at_least_the_currency_s_own() {
        let yen: Currency = "JPY".parse().unwrap();
        for (nanos, currency, text) in [
            (0, Currency::EUR, "0.00 EUR"),
            (12_500_000_000, Currency::EUR, "12.50 EUR"),
            (1, Currency::EUR, "0.000000001 EUR"),
            (-1_230_000_000, Currency::USD, "-1.23 USD"),
            (7_000_000_000, yen, "7 JPY"),
            (500_000_000, yen, "0.5 JPY"),
        ] {
            assert_eq!(money(&Money::new(Nanos::new(nanos), currency)), text);
        }
    }

    #[test]
    fn lengths_and_sizes_read_like_people_say_them() {
        for (millis, text) in [(0, "0.000 s"), (1_234, "1.234 s"), (62_000, "1m 02s"), (3_723_999, "1h 02m 03s")] {
            assert_eq!(duration(DurationMs::from_millis(millis)), text);
        }
        for (count, text) in [(0, "0 B"), (1_023, "1023 B"), (1_024, "1.0 KiB"), (1_572_864, "1.5 MiB"), (u64::MAX, "16383.9 PiB")]
        {
            assert_eq!(bytes(count), text);
        }
    }

    #[test]
    fn text_from_elsewhere_cannot_steer_the_terminal() {
        let table = Table::new(["name"], "").rows([[Cell::text("a\u{1b}[31mb\nc")]]);
        assert_eq!(table.render(Style::default()), "NAME\na\u{fffd}[31mb\u{fffd}c\n");
    }

    #[test]
    fn colours_do_not_move_columns() {
        let table =
            Table::new(["id", "n"], "").rows([[Cell::state("failed"), Cell::number(7)], [Cell::text("x"), Cell::number(12)]]);
        let plain_text = table.render(Style::default());
        let mut coloured = table.render(Style { color: true, ..Style::default() });
        for code in ["\u{1b}[1m", "\u{1b}[31m", "\u{1b}[0m"] {
            coloured = coloured.replace(code, "");
        }
        assert_eq!(plain_text, coloured);
        assert_eq!(plain_text, "ID       N\nfailed   7\nx       12\n");
    }
}
