//! See `sublet_http::fuzzing::upload_form`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_http::fuzzing::upload_form(data));
