//! Figures as people read them: amounts, quantities, instants.
//!
//! Every type writes HTML made of digits, signs and text of ours alone, so it needs no escaping.
//! What is shortened keeps its exact value in the element.

use std::fmt;

use askama::filters::HtmlSafe;
use sublet_cloud::data::{Interval, SkuName};
use sublet_core::{Bytes, Currency, DurationMs, Nanos, Timestamp};

/// Amounts below so many units keep decimals behind the smallest unit.
const LARGE_UNITS: u64 = 1_000;
/// Six decimals of an amount below one unit, four below [`LARGE_UNITS`].
const SMALL_STEP: i64 = 1_000;
const MIDDLE_STEP: i64 = 100_000;

/// Money: rounded to what matters, exact in its title.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount {
    pub nanos: Nanos,
    pub currency: Currency,
}

impl Amount {
    pub const fn new(nanos: Nanos, currency: Currency) -> Self {
        Self { nanos, currency }
    }
    /// The larger, the fewer decimals; what would round to nothing is shown whole.
    pub fn text(&self) -> String {
        let minor = self.currency.minor_unit().get();
        let step = match self.nanos.get().unsigned_abs() / 1_000_000_000 {
            0 => SMALL_STEP,
            units if units < LARGE_UNITS => MIDDLE_STEP,
            _ => minor,
        };
        let rounded = self.nanos.round_half_even(step).unwrap_or(self.nanos);
        let shown = if rounded.is_zero() { self.nanos } else { rounded };
        let text = shown.to_string();
        let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
        let (sign, digits) = whole.strip_prefix('-').map_or(("", whole), |digits| ("−", digits));
        let places = minor_places(minor);
        let dot = if places > 0 || !decimals.is_empty() { "." } else { "" };
        format!("{sign}{}{dot}{decimals:0<places$}", grouped(digits))
    }
}

/// Decimals of a smallest unit of `minor` nanos.
fn minor_places(minor: i64) -> usize {
    (0..9_u32)
        .find(|places| 1_000_000_000 / 10_i64.pow(*places) <= minor)
        .and_then(|places| usize::try_from(places).ok())
        .unwrap_or(9)
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (nanos, currency) = (self.nanos, self.currency);
        write!(
            f,
            "<data class=\"amount\" value=\"{nanos}\" title=\"{nanos} {currency}\">{}&#8239;<abbr>{currency}</abbr></data>",
            self.text()
        )
    }
}
impl HtmlSafe for Amount {}

/// `1234567` as `1,234,567`.
fn grouped(digits: &str) -> String {
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A whole number with its thousands apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Count(pub i64);

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "−" } else { "" };
        write!(f, "{sign}{}", grouped(&self.0.unsigned_abs().to_string()))
    }
}
impl HtmlSafe for Count {}

/// An instant in UTC; the whole of it is in the title.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct When(pub Timestamp);

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `15 Mar`, and the time of day, off the text of an instant: `2026-03-15T12:00:04.000000Z`.
fn parts(at: Timestamp) -> (String, String) {
    let text = at.to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    let mut fields = date.rsplit('-');
    let day = fields.next().unwrap_or("").trim_start_matches('0').to_owned();
    let month = fields.next().and_then(|month| month.parse::<usize>().ok()).and_then(|month| MONTHS.get(month.wrapping_sub(1)));
    (format!("{day} {}", month.copied().unwrap_or("")), time.get(..8).unwrap_or(time).to_owned())
}

impl fmt::Display for When {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (day, time) = parts(self.0);
        let at = self.0;
        write!(f, "<time datetime=\"{at}\" title=\"{at}\">{day} {time}</time>")
    }
}
impl HtmlSafe for When {}

/// A day, for the ends of periods.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Day(pub Timestamp);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.0;
        write!(f, "<time datetime=\"{at}\" title=\"{at}\">{}</time>", parts(at).0)
    }
}
impl HtmlSafe for Day {}

/// A half-open period by the days it begins and ends on. Midnight in the account's zone may be another
/// day in UTC, so a quarter of a day is added before the day is read off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Span(pub Interval);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let noon = DurationMs::from_hours(12);
        let (first, last) = (self.0.starts_at.plus(noon), self.0.ends_at.minus(noon));
        let (starts_at, ends_at) = (self.0.starts_at, self.0.ends_at);
        let year = last.to_string();
        let (from, to) = (parts(first).0, parts(last).0);
        write!(f, "<span title=\"from {starts_at} until before {ends_at}\">{from} – {to} {}</span>", year.get(..4).unwrap_or(""))
    }
}
impl HtmlSafe for Span {}

/// `1 h 02 min`, `4.25 s`.
pub fn duration_text(duration: DurationMs) -> String {
    let millis = duration.millis();
    let (seconds, minutes, hours) = (millis / 1_000, millis / 60_000, millis / 3_600_000);
    match () {
        () if millis < 1_000 => format!("{millis} ms"),
        () if seconds < 60 => format!("{seconds}.{:02} s", millis % 1_000 / 10),
        () if minutes < 60 => format!("{minutes} min {:02} s", seconds % 60),
        () => format!("{hours} h {:02} min", minutes % 60),
    }
}

/// How much of a sku: tokens as they are, device time as time.
pub fn quantity_text(sku: &SkuName, quantity: i64) -> String {
    match sku {
        SkuName::Tokens { .. } => format!("{} tokens", Count(quantity)),
        SkuName::Requests { .. } => format!("{} requests", Count(quantity)),
        SkuName::Starts { .. } => format!("{} starts", Count(quantity)),
        SkuName::Fee { .. } => Count(quantity).to_string(),
        SkuName::ProjectMonth => format!("{} project-months", Count(quantity)),
        SkuName::FileStorage => format!("{} byte-hours", Count(quantity)),
        SkuName::FileEgress => format!("{} bytes", Count(quantity)),
        SkuName::Device { .. } if quantity < 0 => format!("−{}", duration_text(DurationMs::from_millis(quantity.saturating_neg()))),
        SkuName::Device { .. } => duration_text(DurationMs::from_millis(quantity)),
    }
}

/// What a sku is, in words.
pub fn sku_text(sku: &SkuName) -> String {
    sku.words()
}

/// `512 MiB`, rounded down.
pub fn bytes_text(bytes: Bytes) -> String {
    const STEPS: [(&str, i64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    let found = STEPS.iter().find(|(_, step)| bytes.get() >= *step);
    found.map_or_else(|| format!("{} bytes", bytes.get()), |(name, step)| format!("{} {name}", bytes.get() / step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_amount_shows_what_matters_and_keeps_the_rest() {
        for (nanos, currency, text) in [
            (0, "EUR", "0.00"),
            (1, "EUR", "0.000000001"),
            (1_234, "EUR", "0.000001"),
            (123_456_789, "EUR", "0.123457"),
            (-500_000_000, "EUR", "−0.50"),
            (24_995_750_001, "EUR", "24.9958"),
            (1_234_567_890_123, "EUR", "1,234.57"),
            (2_000_000_000, "JPY", "2"),
        ] {
            let amount = Amount::new(Nanos::new(nanos), currency.parse().unwrap());
            assert_eq!(amount.text(), text);
            assert!(amount.to_string().contains(&format!("value=\"{}\"", amount.nanos)), "{amount}");
        }
    }

    #[test]
    fn a_month_of_an_account_east_of_greenwich_reads_as_that_month() {
        let interval = Interval {
            starts_at: Timestamp::from_seconds(1_772_319_600), // 2026-02-28T23:00:00Z, midnight in Berlin
            ends_at: Timestamp::from_seconds(1_774_994_400),   // 2026-03-31T22:00:00Z
        };
        assert!(Span(interval).to_string().contains("1 Mar – 31 Mar 2026"), "{}", Span(interval));
    }

    #[test]
    fn times_and_numbers_are_short() {
        for (millis, text) in [(12, "12 ms"), (4_256, "4.25 s"), (62_000, "1 min 02 s"), (3_720_000, "1 h 02 min")] {
            assert_eq!(duration_text(DurationMs::from_millis(millis)), text);
        }
        assert_eq!(Count(-1_234_567).to_string(), "−1,234,567");
        assert!(When(Timestamp::from_seconds(1_773_576_000)).to_string().contains(">15 Mar 12:00:00<"));
        assert_eq!(bytes_text(Bytes::new(5 << 30)), "5 GiB");
    }
}
