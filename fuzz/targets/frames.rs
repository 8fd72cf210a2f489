//! A stream of bytes, however it is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mitogen::fuzzing::framer(bytes);
});
