//! Compiles the decoder.

fn main() {
    println!("cargo::rerun-if-changed=src/decoder.c");
    // Unwind tables let a crash be told with the functions of C; on most systems they are the default.
    cc::Build::new().file("src/decoder.c").flag("-funwind-tables").compile("decoder");
}
