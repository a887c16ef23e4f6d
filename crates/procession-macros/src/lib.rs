//! The attributes of the crate `procession`, which re-exports and documents them: `task`, `main` and
//! `test`.

mod attributes;
mod check;
mod entry;
mod options;
mod recursion;
mod task;

use proc_macro::TokenStream;

/// Makes a function a task; see `procession::task`.
#[proc_macro_attribute]
pub fn task(options: TokenStream, item: TokenStream) -> TokenStream {
    task::expand(options.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes the program its own worker; see `procession::main`.
#[proc_macro_attribute]
pub fn main(options: TokenStream, item: TokenStream) -> TokenStream {
    let entry = entry::main(options.into(), item.into());
    entry.unwrap_or_else(syn::Error::into_compile_error).into()
}

/// Makes the test program its own worker; see `procession::test`.
#[proc_macro_attribute]
pub fn test(options: TokenStream, item: TokenStream) -> TokenStream {
    let entry = entry::test(options.into(), item.into());
    entry.unwrap_or_else(syn::Error::into_compile_error).into()
}
