//! See `sublet_capacity::fuzzing::demand_listing`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_capacity::fuzzing::demand_listing(data));
