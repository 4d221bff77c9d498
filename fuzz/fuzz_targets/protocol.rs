//! `cargo fuzz run protocol`: see `src/lib.rs`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| docket_fuzz::protocol(bytes));
