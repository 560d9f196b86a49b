//! See `sublet_engine::fuzzing::model_safetensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_engine::fuzzing::model_safetensors(data));
