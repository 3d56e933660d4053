//! Bytes of a service table, as they are and under a right checksum.
#![no_main]

use shardwise_models_fuzz::{checks, container};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    checks::service_table(bytes).expect("their own answers");
    let mut sealed = bytes.to_vec();
    container::reseal_file(&mut sealed);
    checks::service_table(&sealed).expect("their own answers");
});
