#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| doorline_fuzz::engine::run(bytes));
