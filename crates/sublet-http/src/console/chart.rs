//! Charts as SVG: bars and meters, with the figures in words for those who do not see them.
//!
//! Lengths are in thousandths of the chart; colours come from the style sheet by class. Labels are
//! escaped here, because charts are written past the templates.

use std::fmt::{self, Write};

use askama::filters::HtmlSafe;
use sublet_core::money::divide_half_even;

/// Finished SVG.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Svg(String);

impl fmt::Display for Svg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl HtmlSafe for Svg {}

/// A part of a whole, with the class that colours it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Part {
    pub class: &'static str,
    pub label: String,
    pub value: i64,
}

impl Part {
    pub fn new(class: &'static str, label: impl Into<String>, value: i64) -> Self {
        Self { class, label: label.into(), value: value.max(0) }
    }
}

/// Text inside markup and attributes.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            other => safe.push(other),
        }
    }
    safe
}

/// `value` of `whole` in thousandths, half to even, at most all of it.
fn thousandths(value: i64, whole: i64) -> i64 {
    if whole <= 0 {
        return 0;
    }
    let share = divide_half_even(i128::from(value.max(0)) * 1_000, i128::from(whole));
    i64::try_from(share).unwrap_or(1_000).min(1_000)
}

/// Parts of a whole side by side. What is missing to the whole stays empty.
pub fn meter(whole: i64, parts: &[Part], description: &str) -> Svg {
    meter_with_mark(whole, parts, None, description)
}

/// As [`meter`], with a line at a part of the whole.
pub fn meter_with_mark(whole: i64, parts: &[Part], mark: Option<i64>, description: &str) -> Svg {
    let mut svg = format!(
        "<svg class=\"meter\" viewBox=\"0 0 1000 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        escaped(description)
    );
    svg.push_str("<rect class=\"track\" width=\"1000\" height=\"10\"/>");
    let mut done = 0_i64;
    for part in parts {
        let start = thousandths(done, whole);
        done = done.saturating_add(part.value);
        let width = thousandths(done, whole) - start;
        if part.value > 0 {
            // What exists is visible, however little it is.
            write_bar(&mut svg, part, (start, width.max(3)));
        }
    }
    if let Some(mark) = mark {
        let at = thousandths(mark, whole).min(996);
        // Writing to a string cannot fail.
        let _ = write!(svg, "<rect class=\"mark\" x=\"{at}\" width=\"4\" height=\"10\"/>");
    }
    svg.push_str("</svg>");
    Svg(svg)
}

fn write_bar(svg: &mut String, part: &Part, (start, width): (i64, i64)) {
    let (class, label) = (part.class, escaped(&part.label));
    // Writing to a string cannot fail.
    let _ = write!(svg, "<rect class=\"{class}\" x=\"{start}\" width=\"{width}\" height=\"10\"><title>{label}</title></rect>");
}

/// Bars beside each other, the last one being now.
pub fn bars(values: &[Part], description: &str) -> Svg {
    const STEP: i64 = 20;
    const HEIGHT: i64 = 80;
    let highest = values.iter().map(|part| part.value).max().unwrap_or(0);
    let width = i64::try_from(values.len()).unwrap_or(0) * STEP;
    let mut svg = format!(
        "<svg class=\"bars\" viewBox=\"0 0 {width} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"{}\">",
        escaped(description)
    );
    let mut left = 0_i64;
    for part in values {
        let share = thousandths(part.value, highest);
        // Empty days keep a line, so that the axis can be seen.
        let height = i64::try_from(divide_half_even(i128::from(share * HEIGHT), 1_000)).unwrap_or(0).max(1);
        let (top, x, wide, label) = (HEIGHT - height, left + 2, STEP - 4, escaped(&part.label));
        let class = if part.value == 0 { "empty" } else { part.class };
        let _ = write!(svg, "<g><rect class=\"hover\" x=\"{left}\" width=\"{STEP}\" height=\"{HEIGHT}\"/>");
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"{top}\" width=\"{wide}\" height=\"{height}\"/><title>{label}</title></g>"
        );
        left += STEP;
    }
    svg.push_str("</svg>");
    Svg(svg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_lie_side_by_side_and_fill_the_whole() {
        let svg = meter(3, &[Part::new("a", "one", 1), Part::new("b", "two", 2)], "all").to_string();
        assert!(svg.contains("class=\"a\" x=\"0\" width=\"333\"") && svg.contains("class=\"b\" x=\"333\" width=\"667\""), "{svg}");
        assert!(!meter(0, &[Part::new("a", "one", 0)], "").to_string().contains("class=\"a\""));
    }

    #[test]
    fn a_mark_is_where_its_part_of_the_whole_ends() {
        let svg = meter_with_mark(10, &[Part::new("a", "one", 10)], Some(4), "all").to_string();
        assert!(svg.contains("class=\"mark\" x=\"400\""), "{svg}");
        assert!(!meter(10, &[], "all").to_string().contains("mark"));
    }

    #[test]
    fn labels_are_escaped() {
        let svg = bars(&[Part::new("a", "<script>&\"'", 1)], "\"><script>").to_string();
        assert!(!svg.contains("<script>") && svg.contains("&lt;script&gt;&amp;&quot;&#39;"), "{svg}");
    }
}
