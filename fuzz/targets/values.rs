//! The bytes of values of every codec.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mitogen::fuzzing::values(bytes);
});
