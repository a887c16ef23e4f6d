//! A program that uses a library with a pool inside (`examples/library`). It owns `main`, and the tasks
//! are the library's.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    example_library::init(); // first: this program is the library's worker, too
    let texts = ["one two three", "four"].map(str::to_owned);
    println!("{:?}", example_library::count_words(&texts)?);
    Ok(())
}
