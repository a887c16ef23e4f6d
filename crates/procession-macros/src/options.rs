//! The options in the parentheses of an attribute: `#[procession::task(name = "thumb")]`.

use proc_macro2::TokenStream;
use syn::meta::ParseNestedMeta;
use syn::parse::Parser;
use syn::{Error, Ident, LitStr, Path, Result, parse_quote};

/// The options of all attributes.
pub(crate) struct Options {
    /// The path of the crate `procession`.
    pub krate: Path,
    /// The name of the task.
    pub name: Option<LitStr>,
    /// The variant of `procession::Encoding`.
    pub encoding: Option<Ident>,
}

impl Options {
    /// The options of `#[procession::task(…)]`.
    pub(crate) fn of_task(options: TokenStream) -> Result<Self> {
        Self::parse(options, |options, meta| {
            if meta.path.is_ident("name") {
                let name: LitStr = meta.value()?.parse()?;
                if name.value().is_empty() {
                    return Err(Error::new(name.span(), "the name of a task is not empty"));
                }
                options.name = Some(name);
            } else if meta.path.is_ident("encoding") {
                let value = meta.value()?;
                if value.peek(LitStr) {
                    let text: LitStr = value.parse()?;
                    return Err(Error::new(text.span(), "write `binary` or `json` without quotes"));
                }
                options.encoding = Some(encoding(&value.parse()?)?);
            } else {
                return Err(meta.error("the options of a task are `name`, `encoding` and `crate`"));
            }
            Ok(())
        })
    }

    /// The options of `#[procession::main(…)]` and `#[procession::test(…)]`.
    pub(crate) fn of_entry(options: TokenStream) -> Result<Self> {
        Self::parse(options, |_, meta| Err(meta.error("the only option is `crate`")))
    }

    fn parse(
        options: TokenStream,
        mut other: impl FnMut(&mut Self, ParseNestedMeta<'_>) -> Result<()>,
    ) -> Result<Self> {
        let mut parsed = Self { krate: parse_quote!(::procession), name: None, encoding: None };
        let parser = syn::meta::parser(|meta| {
            if meta.path.is_ident("crate") {
                let path: LitStr = meta.value()?.parse()?;
                parsed.krate = path.parse()?;
                Ok(())
            } else {
                other(&mut parsed, meta)
            }
        });
        parser.parse2(options)?;
        Ok(parsed)
    }
}

/// `binary`, `Binary` and `Encoding::Binary` mean the same.
fn encoding(path: &Path) -> Result<Ident> {
    let variant = path.segments.last().map(|segment| &segment.ident);
    let known = variant.and_then(|variant| match variant.to_string().as_str() {
        "json" | "Json" => Some(Ident::new("Json", variant.span())),
        "binary" | "Binary" => Some(Ident::new("Binary", variant.span())),
        _ => None,
    });
    known.ok_or_else(|| Error::new_spanned(path, "the encoding is `json` or `binary`"))
}
