//! A manifest and the files beside it, packed into one byte string: as they are, and under a manifest that lists them.
#![no_main]

use shardwise_models_fuzz::{checks, container};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let (manifest, files) = container::unpack(bytes);
    checks::bundle(&manifest, &files).expect("their own answers");
    checks::bundle(&container::reseal(&manifest, &files), &files).expect("their own answers");
});
