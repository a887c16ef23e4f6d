//! A decoder in C crashes on one of many images. That image is kept, and decoded again alone.
//!
//! ```text
//! cargo run --example kept_crash
//! PROCESSION_REPLAY=crashes/2026-….procession gdb -ex run target/debug/examples/kept_crash
//! ```

use procession::{Executor, ProcessPool};

#[procession::task]
fn decode(image: Vec<u8>) -> u32 {
    example_c_library::decode(&image)
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| "crashes".to_owned());
    let pool = ProcessPool::builder().workers(2).keep_crashes(dir).build()?;
    let images = [[0, 0, 0, 0, 1, 2, 3], [255, 255, 255, 255, 1, 2, 3], [0, 0, 0, 0, 4, 5, 6]];
    for result in pool.map(images.map(|image| decode(image.to_vec()))) {
        match result {
            Ok(sum) => println!("{sum}"),
            Err(error) => println!("{error}"), // "worker 1 (pid 4712) died of signal 11 (SIGSEGV) …"
        }
    }
    Ok(())
}
