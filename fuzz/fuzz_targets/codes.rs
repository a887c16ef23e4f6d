#![no_main]
//! Codes of countries, as typed.

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(code) = text.parse::<procession_cli::flags::codes::Code>()
    {
        assert_eq!(code.as_str().len(), 2);
    }
});
