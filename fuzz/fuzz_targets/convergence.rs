//! Any bytes, read as a story, leave all replicas as the model says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sds_proptests::fuzz::convergence(data));
