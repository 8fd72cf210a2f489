//! Frames whose fragments are put together.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    mitogen::fuzzing::assembler(bytes, 1 << 20);
});
