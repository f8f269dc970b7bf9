//! Any bytes, read as a story of devices, lines and disks, come to rest with nothing lost.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sds_proptests::fuzz::simulation(data));
