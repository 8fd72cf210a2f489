//! The head of one frame, and one number.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mitogen::fuzzing::header(bytes);
    mitogen::fuzzing::number(bytes);
});
