//! See `sublet_engine::fuzzing::chat_template`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_engine::fuzzing::chat_template(data));
