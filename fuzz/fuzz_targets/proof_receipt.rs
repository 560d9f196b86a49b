//! See `sublet_proof::fuzzing::proof_receipt`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_proof::fuzzing::proof_receipt(data));
