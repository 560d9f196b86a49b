//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! There only for tests and fuzzers (`docs/fuzzing.md`).

use sublet_core::batch::LineEndpoint;

use crate::batch_input::{CUSTOM_ID_BYTES_MAX, LINE_BYTES_MAX, RawLine, Splitter, parse_line};

/// Lines behind which the reading begins again.
const LINES_LOOKED_AT_MAX: usize = 8;

/// The file of a batch: its lines are the same however it is read, also when the reading begins again
/// behind any of them, and a line that is taken can be stored and served.
pub fn batch_file(data: &[u8]) {
    let Some((step, file)) = data.split_first() else { return };
    let lines = split(Splitter::default(), file, usize::MAX);
    assert_eq!(split(Splitter::default(), file, usize::from(*step).max(1)), lines, "in pieces of {step}");
    for (index, line) in lines.iter().enumerate().take(LINES_LOOKED_AT_MAX) {
        let Some(bytes) = &line.bytes else { continue };
        let start = usize::try_from(line.starts_at_byte).expect("it is in the file");
        let end = start + bytes.len();
        assert_eq!(file.get(start..end), Some(bytes.as_slice()), "a line is where it says");
        let rest = file.get(end + 1..).unwrap_or_default();
        let behind = Splitter::behind(line.number, line.starts_at_byte + u64::try_from(bytes.len() + 1).unwrap_or(0));
        assert_eq!(split(behind, rest, usize::MAX), lines[index + 1..], "behind line {}", line.number);
        check_line(bytes);
    }
}

fn split(mut splitter: Splitter, file: &[u8], step: usize) -> Vec<RawLine> {
    let mut lines: Vec<RawLine> = file.chunks(step.min(file.len().max(1))).flat_map(|piece| splitter.feed(piece)).collect();
    lines.extend(splitter.finish());
    assert!(lines.iter().all(|line| line.bytes.as_ref().is_none_or(|bytes| bytes.len() <= LINE_BYTES_MAX)));
    lines
}

fn check_line(bytes: &[u8]) {
    for endpoint in [LineEndpoint::ChatCompletions, LineEndpoint::Completions, LineEndpoint::Responses] {
        match parse_line(bytes, endpoint) {
            Ok(line) => {
                assert!((1..=CUSTOM_ID_BYTES_MAX).contains(&line.custom_id.len()));
                assert!(!line.custom_id.contains(|letter: char| letter.is_control()));
                assert!(bytes.windows(line.body.len()).any(|part| part == line.body), "the body is as it came");
            }
            Err(error) => assert!((400..500).contains(&error.code().status()) && error.message().len() < 1_024, "{error:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    sublet_fuzz::tests!(Quick: batch_file);
}
