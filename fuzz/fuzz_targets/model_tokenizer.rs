//! See `sublet_engine::fuzzing::model_tokenizer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sublet_engine::fuzzing::model_tokenizer(data));
