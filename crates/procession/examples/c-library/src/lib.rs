//! An example: a decoder in C with a bug, and a safe function that calls it. The function relies on what the
//! library documents, as most bindings do, so a broken image ends the process.

#![allow(unsafe_code, reason = "a library in C")]

unsafe extern "C" {
    fn decode_image(bytes: *const u8, length: usize) -> u32;
}

/// The sum of the pixels of an image. A broken image ends the process with SIGSEGV, one of less than four
/// bytes with SIGABRT, and one that begins with 254 by the call of a null pointer.
pub fn decode(image: &[u8]) -> u32 {
    // SAFETY: the library documents that it reads only within the image. This is wrong: it is the bug of the example.
    unsafe { decode_image(image.as_ptr(), image.len()) }
}
