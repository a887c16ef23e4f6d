//! Refuses functions that cannot be tasks. The compiler shows all reasons at once, each at its place.

use quote::ToTokens;
use syn::{
    Error, FnArg, GenericArgument, ItemFn, PathArguments, Result, ReturnType, Type, TypeReference,
};

/// Collects errors, so that all of them are reported.
#[derive(Default)]
pub(crate) struct Refusals(Option<Error>);

impl Refusals {
    pub(crate) fn add(&mut self, at: impl ToTokens, reason: &str) {
        let error = Error::new_spanned(at, reason);
        match &mut self.0 {
            Some(errors) => errors.combine(error),
            none => *none = Some(error),
        }
    }

    pub(crate) fn into_result(self) -> Result<()> {
        self.0.map_or(Ok(()), Err)
    }
}

/// The kinds of functions that are refused, whatever their parameters are.
pub(crate) fn function(function: &ItemFn, refusals: &mut Refusals) {
    let signature = &function.sig;
    if let Some(keyword) = &signature.asyncness {
        refusals.add(
            keyword,
            "a task cannot be `async`: a worker has no async runtime. Call `block_on` of a runtime \
             inside of it",
        );
    }
    if let Some(keyword) = &signature.constness {
        refusals.add(keyword, "a task is not `const`: it runs in another process");
    }
    if !matches!(signature.safety, syn::Safety::Default) {
        refusals.add(
            &signature.safety,
            "a task is not `unsafe`: an executor calls it. Use an `unsafe` block inside of it",
        );
    }
    if let Some(abi) = &signature.abi {
        refusals.add(abi, "a task is a Rust function: call those of other languages inside of it");
    }
    if let Some(variadic) = &signature.variadic {
        refusals.add(variadic, "a task has a fixed number of arguments");
    }
    let generics = &signature.generics;
    if !generics.params.is_empty() || generics.where_clause.is_some() {
        refusals.add(
            if generics.params.is_empty() {
                generics.where_clause.to_token_stream()
            } else {
                generics.params.to_token_stream()
            },
            "a task is not generic: a worker finds it by its name, and must have it for each type. \
             Write one function for each type, or implement `procession::Task` for a generic type \
             by hand",
        );
    }
    for input in &signature.inputs {
        if let FnArg::Receiver(receiver) = input {
            refusals.add(
                receiver,
                "a task has no `self`: use a function outside of `impl` blocks, with the value as \
                 an argument",
            );
        }
    }
    match &signature.output {
        // The type of a `Result` is not checked: its error is sent as a `Failure`.
        ReturnType::Type(_, output) if is_result(output) => {}
        ReturnType::Type(_, output) => self::output(output, refusals),
        ReturnType::Default => {}
    }
}

/// Whether the function may fail: aliases such as `io::Result` have that name, too.
pub(crate) fn is_result(ty: &Type) -> bool {
    match ty {
        Type::Path(path) => path.path.segments.last().is_some_and(|last| last.ident == "Result"),
        Type::Group(group) => is_result(&group.elem),
        Type::Paren(paren) => is_result(&paren.elem),
        _ => false,
    }
}

fn output(output: &Type, refusals: &mut Refusals) {
    match output {
        Type::Never(never) => refusals.add(
            never,
            "a task returns a value: `-> ()`, or no type, if the function never returns",
        ),
        Type::Reference(reference) => {
            let reason = format!(
                "a task returns a value of its own, which is sent to another process: {}",
                owned(reference)
            );
            refusals.add(reference, &reason);
        }
        other => unsendable(other, refusals),
    }
}

/// Refuses the type of an argument.
pub(crate) fn argument(ty: &Type, refusals: &mut Refusals) {
    match ty {
        Type::Reference(reference) => {
            let reason = format!(
                "an argument of a task is not a reference, since it is sent to another process: {}. \
                 Only the context is one, as `&Context` by that name",
                owned(reference)
            );
            refusals.add(reference, &reason);
        }
        Type::Path(path) if is_named_context(path) => {
            refusals.add(ty, "the context of a task is a reference: write `&Context`");
        }
        other => unsendable(other, refusals),
    }
}

fn is_named_context(path: &syn::TypePath) -> bool {
    let mut segments = path.path.segments.iter().rev();
    let is_context = segments.next().is_some_and(|last| last.ident == "Context");
    is_context && segments.next().is_none_or(|krate| krate.ident == "procession")
}

/// What to use in place of a reference.
fn owned(reference: &TypeReference) -> String {
    let name = match &*reference.elem {
        Type::Slice(_) => "Vec".to_owned(),
        Type::Path(path) => {
            path.path.segments.last().map_or_else(String::new, |last| last.ident.to_string())
        }
        _ => String::new(),
    };
    match name.as_str() {
        "str" => "use `String`".to_owned(),
        "Path" => "use `PathBuf`".to_owned(),
        "OsStr" => "use `OsString`".to_owned(),
        "Vec" => "use `Vec`, or `procession::Blob` for many bytes".to_owned(),
        _ => "use the type itself".to_owned(),
    }
}

/// Refuses what no serialization can send, at any depth.
fn unsendable(ty: &Type, refusals: &mut Refusals) {
    match ty {
        Type::ImplTrait(it) => {
            refusals.add(it, "a worker must know the type: write the name of one type");
        }
        Type::Reference(it) => {
            refusals.add(it, "a reference cannot be sent to another process: use an owned type");
        }
        Type::FnPtr(_) | Type::TraitObject(_) => refusals.add(
            ty,
            "a function, closure or trait object cannot be sent to another process: send an enum \
             that names the work",
        ),
        Type::Ptr(it) => refusals.add(it, "a pointer has no meaning in another process"),
        Type::Array(it) => unsendable(&it.elem, refusals),
        Type::Group(it) => unsendable(&it.elem, refusals),
        Type::Paren(it) => unsendable(&it.elem, refusals),
        Type::Slice(it) => unsendable(&it.elem, refusals),
        Type::Tuple(it) => it.elems.iter().for_each(|elem| unsendable(elem, refusals)),
        Type::Path(it) => {
            for segment in &it.path.segments {
                if let PathArguments::AngleBracketed(arguments) = &segment.arguments {
                    for argument in &arguments.args {
                        if let GenericArgument::Type(ty) = argument {
                            unsendable(ty, refusals);
                        }
                    }
                }
            }
        }
        _ => {}
    }
}
