//! See `sublet_proof::fuzzing::proof_bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_proof::fuzzing::proof_bundle(data));
