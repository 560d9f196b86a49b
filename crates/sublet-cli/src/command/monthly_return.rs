//! `sublet report return`: a month on one page.

use sublet_api::money::Money;
use sublet_api::monthly_return::{ClassPromises, DeviceTime, PaybackPeriod, ReturnReport, UnfilledDemand, UnfilledKind};

use super::report::{share, shown};
use crate::context::Style;
use crate::render::{self, Cell, NOTHING, Table};

/// From so many thousandths on most of something is in one part of the week.
const MOST_PER_MILLE: i64 = 500;
const HOUR_MILLIS: u64 = 3_600_000;

pub(super) fn text(report: &ReturnReport, style: Style) -> String {
    let optional = |money: &Option<Money>| money.as_ref().map_or_else(|| Cell::number("unknown"), shown);
    let mut head = vec![
        ("month", Cell::text(&report.month)),
        ("currency", Cell::text(report.currency.as_str())),
        ("costs", Cell::text(report.cost_version.as_deref().unwrap_or("none are declared"))),
        ("earned", shown(&report.earned)),
        ("cost", shown(&report.cost)),
        ("margin", shown(&report.margin)),
        ("share", share(report.margin_permille)),
        ("earned without a cost", shown(&report.without_cost)),
        ("cost of unused time", optional(&report.unused_cost)),
        ("used by the owner", share(report.time.before_permille)),
        ("used with what was sold", share(report.time.after_permille)),
    ];
    head.extend(payback(&report.payback));
    let unfilled = &report.unfilled;
    let sentences: String = unfilled.kinds.iter().map(|kind| format!("\n{}", sentence(kind))).collect();
    let mut text = [Table::of_fields(head), kinds(report), promises(&report.promises)].map(|table| table.render(style)).join("\n");
    if unfilled.kinds.is_empty() {
        text.push_str("\nnothing that was asked for in this currency was left unfilled\n");
    } else {
        text.push_str(&format!("{sentences}\n\n{}", reasons(unfilled).render(style)));
    }
    for other in &unfilled.other_currencies {
        text.push_str(&format!("unfilled in {}: {} device-hours\n", other.currency, hours(other.device_milliseconds)));
    }
    if !unfilled.is_complete {
        text.push_str("more was asked for than is kept: the unfilled hours are at least these\n");
    }
    text
}

fn payback(payback: &PaybackPeriod) -> [(&'static str, Cell); 4] {
    let of = format!("{} of {}", payback.priced_devices, payback.devices);
    let months =
        payback.tenths_of_months.map_or_else(|| NOTHING.to_owned(), |tenths| format!("{}.{} months", tenths / 10, tenths % 10));
    [
        ("capital", shown(&payback.capital)),
        ("devices with a price", Cell::text(of)),
        ("cash a month", payback.monthly_cash.as_ref().map_or_else(|| Cell::number(NOTHING), shown)),
        ("paid back in", Cell::number(months)),
    ]
}

fn of_class(time: &DeviceTime, is_wanted: impl Fn(&str) -> bool) -> Cell {
    let millis = time.classes.iter().filter(|class| is_wanted(&class.class)).map(|class| class.milliseconds).sum();
    Cell::number(render::milliseconds(millis))
}

fn kinds(report: &ReturnReport) -> Table {
    let rows = report.kinds.iter().map(|kind| {
        let time = &kind.time;
        [
            Cell::text(&kind.kind),
            Cell::number(render::milliseconds(time.owned_milliseconds)),
            of_class(time, |class| class == "own_use" || class == "outside_use"),
            of_class(time, |class| class.starts_with("sold_")),
            of_class(time, |class| ["held", "drained", "reserved"].contains(&class)),
            of_class(time, |class| class == "idle"),
            of_class(time, |class| class == "unhealthy"),
            of_class(time, |class| class == "unknown"),
            share(time.before_permille),
            share(time.after_permille),
        ]
    });
    let headings = ["devices", "owned", "own use", "sold", "held", "idle", "unhealthy", "unknown", "before", "after"];
    Table::new(headings, "there are no devices").rows(rows)
}

fn promises(promises: &[ClassPromises]) -> Table {
    let rows = promises.iter().map(|of_class| {
        let given: Vec<String> = of_class.compensation.iter().map(render::money).collect();
        [
            Cell::text(of_class.notice.as_str()),
            Cell::number(of_class.ended),
            Cell::number(of_class.ended_by_owner),
            Cell::number(of_class.kept),
            Cell::number(of_class.broken),
            Cell::number(if given.is_empty() { NOTHING.to_owned() } else { given.join(", ") }),
        ]
    });
    let headings = ["sold with notice", "ended", "by the owner", "notice kept", "broken", "compensated"];
    Table::new(headings, "no lease ended").rows(rows)
}

/// `unfilled: 3,120 device-hours of h100 at 2.40 EUR or more, mostly weekday nights`.
fn sentence(kind: &UnfilledKind) -> String {
    let name = render::plain(&kind.kind);
    let at = kind.at.as_ref().map_or_else(
        || format!("unfilled: {} device-hours of {name}", hours(kind.device_milliseconds)),
        |at| format!("unfilled: {} device-hours of {name} at {} or more", hours(at.device_milliseconds), render::money(&at.price)),
    );
    let when = kind.densest.as_deref().zip(kind.densest_permille).map(|(part, share)| {
        let word = if share >= MOST_PER_MILLE { "mostly" } else { "more than elsewhere on" };
        format!(", {word} {} ({} %)", render::plain(part), share / 10)
    });
    format!("{at}{}", when.unwrap_or_default())
}

fn reasons(unfilled: &UnfilledDemand) -> Table {
    let rows = unfilled.kinds.iter().flat_map(|kind| {
        kind.reasons.iter().map(move |reason| {
            [Cell::text(&kind.kind), Cell::text(reason.reason.replace('_', " ")), Cell::number(hours(reason.device_milliseconds))]
        })
    });
    Table::new(["unfilled", "because", "device-hours"], "").rows(rows)
}

/// Tenths below a hundred, then whole hours with their thousands apart; rounded half up.
fn hours(millis: u64) -> String {
    let tenths = (millis + HOUR_MILLIS / 20) / (HOUR_MILLIS / 10);
    if tenths < 1_000 {
        return format!("{}.{}", tenths / 10, tenths % 10);
    }
    let digits = ((millis + HOUR_MILLIS / 2) / HOUR_MILLIS).to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hours_are_read_at_a_glance() {
        for (millis, text) in [
            (0, "0.0"),
            (180_000, "0.1"),
            (3_600_000 * 99, "99.0"),
            (3_600_000 * 3_120, "3,120"),
            (3_600_000 * 1_234_567, "1,234,567"),
        ] {
            assert_eq!(hours(millis), text);
        }
    }
}
