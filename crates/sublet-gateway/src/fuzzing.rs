//! The fuzz targets of this crate: functions of bytes that panic when something is wrong.
//!
//! They are beside what they are about, and there only for tests and fuzzers (`docs/fuzzing.md`).

pub use crate::dialect::fuzzing::{chat, completions, embeddings, messages, numbers, responses, tool_text, upstream_answer};
pub use crate::journal::fuzzing::{journal_bytes, journal_damage};
pub use crate::supply::fuzzing::{upstream_events, upstream_exchange};
pub use crate::supply::kv::fuzzing::kv_events;
