//! See `sublet_proof::fuzzing::proof_texts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_proof::fuzzing::proof_texts(data));
