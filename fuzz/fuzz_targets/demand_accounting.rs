//! See `sublet_capacity::fuzzing::demand_accounting`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_capacity::fuzzing::demand_accounting(data));
