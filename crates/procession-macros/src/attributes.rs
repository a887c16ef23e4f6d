//! Distributes the attributes of a function over the items that are made of it.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{Attribute, Meta, Token, parse_quote};

/// The attributes of a function that becomes a task.
#[derive(Default)]
pub(crate) struct OfTask {
    /// `cfg`: of every item that is made of the function.
    pub conditions: Vec<Attribute>,
    /// `allow` and the like: of every item that has types or code of the function.
    pub lints: Vec<Attribute>,
    /// What callers see: documentation, `deprecated`.
    pub of_constructor: Vec<Attribute>,
    /// All others, such as `inline` and those of other macros.
    pub of_body: Vec<Attribute>,
}

impl OfTask {
    pub(crate) fn sort(attributes: Vec<Attribute>) -> Self {
        let mut sorted = Self::default();
        for attribute in attributes.into_iter().flat_map(one_by_one) {
            let list = match name(&attribute).as_str() {
                "cfg" => &mut sorted.conditions,
                "allow" | "warn" | "deny" | "forbid" => &mut sorted.lints,
                "doc" | "deprecated" | "must_use" => &mut sorted.of_constructor,
                _ => &mut sorted.of_body,
            };
            list.push(attribute);
        }
        sorted
    }
}

/// Splits `cfg_attr(condition, one, other)`, so that each part can go where it belongs.
fn one_by_one(attribute: Attribute) -> Vec<Attribute> {
    let Some((condition, parts)) = conditional(&attribute) else { return vec![attribute] };
    parts.into_iter().map(|part| parse_quote!(#[cfg_attr(#condition, #part)])).collect()
}

/// The parts of a `cfg_attr`.
fn conditional(attribute: &Attribute) -> Option<(TokenStream, Vec<Meta>)> {
    if !attribute.path().is_ident("cfg_attr") {
        return None;
    }
    let parts = attribute.parse_args_with(Punctuated::<Meta, Token![,]>::parse_terminated).ok()?;
    let mut parts = parts.into_iter();
    let condition = parts.next()?;
    Some((condition.into_token_stream(), parts.collect()))
}

/// The name of an attribute; of a `cfg_attr` with one part, the name of that part.
pub(crate) fn name(attribute: &Attribute) -> String {
    let path = match conditional(attribute) {
        Some((_, parts)) if parts.len() == 1 => parts[0].path().clone(),
        _ => attribute.path().clone(),
    };
    let names: Vec<_> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
    names.join("::")
}
