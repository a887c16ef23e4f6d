//! What a program becomes that started a `Command` for each item, so that a crash costs only that item. The
//! work is a function of this program, and two processes do it all.

use std::path::PathBuf;
use std::process;

use procession::{Executor, ProcessPool, as_completed};

/// Was the `main` of a program of its own, which had the path as its argument.
#[procession::task]
fn convert(path: PathBuf) -> Result<String, String> {
    let name = path.file_stem().ok_or("a path without a name")?.to_string_lossy();
    if name == "broken" {
        process::abort(); // the library that does the work has a bug
    }
    eprintln!("converting {name}"); // arrives at `on_output`
    Ok(format!("{name}.webp"))
}

#[procession::main]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let pool = ProcessPool::builder().workers(2).on_output(|_| {}).build()?;
    let paths = ["a.png", "broken.png", "c.png", "/"];
    let futures = paths.into_iter().map(|path| {
        let future = pool.submit(convert(path.into()));
        future.map(move |converted| format!("{path}: {converted}"))
    });
    let (done, failed): (Vec<_>, Vec<_>) =
        as_completed(futures).map(|future| future.result()).partition(Result::is_ok);
    println!("{} converted, {} failed", done.len(), failed.len());
    Ok(())
}
