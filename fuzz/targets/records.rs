//! Records of a log.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mitogen::fuzzing::records(bytes);
});
