//! What the headers of an answer say of limits.

use http::{HeaderMap, HeaderName, HeaderValue};
use sublet_core::{DurationMs, Timestamp};

use super::meter::Left;
use crate::dialect::Envelope;

/// The tightest limit of each kind, at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct RateReport {
    pub at: Option<Timestamp>,
    pub requests: Option<Left>,
    pub tokens: Option<Left>,
}

const OPENAI: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit-requests"),
        HeaderName::from_static("x-ratelimit-remaining-requests"),
        HeaderName::from_static("x-ratelimit-reset-requests"),
    ],
    [
        HeaderName::from_static("x-ratelimit-limit-tokens"),
        HeaderName::from_static("x-ratelimit-remaining-tokens"),
        HeaderName::from_static("x-ratelimit-reset-tokens"),
    ],
];

const ANTHROPIC: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("anthropic-ratelimit-requests-limit"),
        HeaderName::from_static("anthropic-ratelimit-requests-remaining"),
        HeaderName::from_static("anthropic-ratelimit-requests-reset"),
    ],
    [
        HeaderName::from_static("anthropic-ratelimit-tokens-limit"),
        HeaderName::from_static("anthropic-ratelimit-tokens-remaining"),
        HeaderName::from_static("anthropic-ratelimit-tokens-reset"),
    ],
];

impl RateReport {
    /// Adds what one more limit leaves.
    pub fn add(&mut self, left: Left, is_tokens: bool) {
        let known = if is_tokens { &mut self.tokens } else { &mut self.requests };
        if known.is_none_or(|known| (left.remaining, left.limit) < (known.remaining, known.limit)) {
            *known = Some(left);
        }
    }

    /// A limit that is not set has no header: there is no truthful number for it.
    pub fn write(&self, headers: &mut HeaderMap, envelope: Envelope) {
        let Some(at) = self.at else { return };
        for (kind, left) in [self.requests, self.tokens].into_iter().enumerate() {
            let Some(left) = left else { continue };
            write(headers, &OPENAI[kind], left, &duration_text(left.reset));
            if envelope == Envelope::Anthropic {
                write(headers, &ANTHROPIC[kind], left, &at.plus(left.reset).to_string());
            }
        }
    }
}

fn write(headers: &mut HeaderMap, names: &[HeaderName; 3], left: Left, reset: &str) {
    headers.insert(names[0].clone(), HeaderValue::from(left.limit));
    headers.insert(names[1].clone(), HeaderValue::from(left.remaining));
    if let Ok(reset) = HeaderValue::from_str(reset) {
        headers.insert(names[2].clone(), reset);
    }
}

/// A duration as OpenAI writes it: `250ms`, `1s`, `6m0s`.
fn duration_text(duration: DurationMs) -> String {
    let millis = duration.millis();
    if millis > 0 && millis < 1_000 {
        return format!("{millis}ms");
    }
    let seconds = duration.seconds_ceil();
    match (seconds / 3_600, seconds % 3_600 / 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_those_of_the_tightest_limit_in_the_words_of_the_client() {
        let left = |limit, remaining, reset| Left { limit, remaining, reset: DurationMs::from_millis(reset) };
        let mut report = RateReport { at: Some(Timestamp::from_seconds(0)), ..RateReport::default() };
        report.add(left(600, 599, 100), false);
        report.add(left(60, 0, 70_000), true);
        report.add(left(1_000_000, 5, 7_322_000), true);
        let read = |names: &[[HeaderName; 3]; 2], envelope| -> Vec<String> {
            let mut headers = HeaderMap::new();
            report.write(&mut headers, envelope);
            let text = |name: &HeaderName| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
            names.iter().flatten().map(text).collect()
        };
        assert_eq!(read(&OPENAI, Envelope::OpenAi), ["600", "599", "100ms", "60", "0", "1m10s"]);
        assert_eq!(
            read(&ANTHROPIC, Envelope::Anthropic),
            ["600", "599", "1970-01-01T00:00:00.100000Z", "60", "0", "1970-01-01T00:01:10.000000Z"]
        );
        assert_eq!(read(&ANTHROPIC, Envelope::OpenAi), [""; 6]);
        assert_eq!(duration_text(DurationMs::from_seconds(7_322)), "2h2m2s");
    }
}
