//! Types that cannot be sent, an error without a text, and a function that was not called.

use procession::{Executor, Sequential};

struct Opaque;

#[procession::task]
fn takes(_: Opaque, _: Vec<Opaque>) {}

#[procession::task]
fn fails() -> Result<(), Opaque> {
    Ok(())
}

#[procession::task]
fn fine(_: u8) {}

fn main() {
    Sequential::new().submit(fine);
}
