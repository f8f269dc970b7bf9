//! Any bytes, read as a story of users of a store, leave it by its rules after every step.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sds_proptests::fuzz::store(data));
