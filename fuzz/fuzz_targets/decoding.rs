//! Any bytes, with a checksum that fits, are refused or decoded, and taken in as the model says.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sds_proptests::fuzz::decoding(data));
