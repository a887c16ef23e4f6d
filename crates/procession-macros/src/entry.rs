//! `#[procession::main]` and `#[procession::test]`: the function first serves as a worker, if its process was
//! started as one.

use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, Error, ItemFn, Path, Result};

use crate::attributes;
use crate::options::Options;

/// `#[procession::main]`.
pub(crate) fn main(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let Options { krate, .. } = Options::of_entry(options)?;
    let function: ItemFn = syn::parse2(item)?;
    let (outer, inner) = split(&function, &["cfg", "doc"]);
    let serve = quote!(#krate::worker::serve_if_asked(#krate::Registry::collected()););
    let body = after(&serve, &function, &inner, "#[procession::main]", "#[tokio::main]")?;
    Ok(quote!(#(#outer)* #body))
}

/// `#[procession::test]`.
pub(crate) fn test(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let Options { krate, .. } = Options::of_entry(options)?;
    let mut function: ItemFn = syn::parse2(item)?;
    function.attrs.retain(|attribute| !attribute.path().is_ident("test"));
    let outer = ["cfg", "doc", "ignore", "should_panic"];
    let (outer, inner) = split(&function, &outer);
    let serve = quote!(#krate::__private::serve_test(););
    let body = after(&serve, &function, &inner, "#[procession::test]", "#[tokio::test]")?;
    let conditions = outer.iter().filter(|it| attributes::name(it) == "cfg");
    let registration = registration(&krate, &function);
    Ok(quote! {
        #(#outer)*
        #[::core::prelude::v1::test]
        #body

        #(#conditions)*
        #[cfg(test)]
        #registration
    })
}

/// Tells pools by the name of which test a worker is started.
fn registration(krate: &Path, function: &ItemFn) -> TokenStream {
    let name = function.sig.ident.to_string();
    let private = quote!(#krate::__private);
    quote! {
        const _: () = {
            #[#private::linkme::distributed_slice(#private::TESTS)]
            #[linkme(crate = #private::linkme)]
            static TEST: &'static ::core::primitive::str =
                ::core::concat!(::core::module_path!(), "::", #name);
        };
    }
}

/// The attributes of the function itself, and those of the one inside of it.
fn split(function: &ItemFn, outer: &[&str]) -> (Vec<Attribute>, Vec<Attribute>) {
    let is_outer = |it: &Attribute| outer.contains(&attributes::name(it).as_str());
    function.attrs.iter().cloned().partition(is_outer)
}

/// The function with a statement before everything else. What other attributes make of the
/// function, such as a runtime, begins after it.
fn after(
    serve: &TokenStream,
    function: &ItemFn,
    inner: &[Attribute],
    this: &str,
    other: &str,
) -> Result<TokenStream> {
    let ItemFn { vis, sig, block, .. } = function;
    if !sig.inputs.is_empty() || !sig.generics.params.is_empty() {
        let error = format!("a function with `{this}` has neither arguments nor generics");
        return Err(Error::new_spanned(&sig.inputs, error));
    }
    if let Some(keyword) = &sig.asyncness
        && inner.is_empty()
    {
        let error = format!("`{this}` starts no runtime: put `{other}` or the like below it");
        return Err(Error::new_spanned(keyword, error));
    }
    let (name, output) = (&sig.ident, &sig.output);
    if inner.is_empty() {
        let statements = &block.stmts;
        return Ok(quote!(#vis #sig { #serve #(#statements)* }));
    }
    Ok(quote! {
        #[allow(unnameable_test_items)]
        #vis fn #name() #output {
            #serve
            #(#inner)*
            #sig #block
            #name()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_that_cannot_be_called_are_refused_with_the_reason() {
        let refused = |entry: Result<TokenStream>| entry.expect_err("a refusal").to_string();
        let reason = refused(main(
            quote!(),
            quote!(
                async fn main() {}
            ),
        ));
        assert!(reason.ends_with("put `#[tokio::main]` or the like below it"), "{reason}");
        let reason = refused(test(
            quote!(),
            quote!(
                async fn f() {}
            ),
        ));
        assert!(reason.ends_with("put `#[tokio::test]` or the like below it"), "{reason}");
        let reason = refused(test(
            quote!(),
            quote!(
                fn f(value: u8) {}
            ),
        ));
        assert!(reason.ends_with("has neither arguments nor generics"), "{reason}");
        let reason = refused(main(
            quote!(flavour = "x"),
            quote!(
                fn main() {}
            ),
        ));
        assert_eq!(reason, "the only option is `crate`");
    }
}
