#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| retrieve_gateway_fuzz::check("text", input));
