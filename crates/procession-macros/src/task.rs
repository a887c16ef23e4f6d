//! `#[procession::task]`: a function becomes a constructor, a type and its `Task`.
//!
//! ```text
//!   fn thumb(path: PathBuf, size: u32, context: &Context) -> Result<Thumb, MyError> { … }
//!
//!   fn thumb(path: PathBuf, size: u32) -> thumb        the constructor, in the namespace of values
//!   struct thumb { path: PathBuf, size: u32 }          the arguments, in the namespace of types
//!   impl Task for thumb { … fn run … }                 has the function itself inside, and a static
//!                                                      in the section that a worker reads
//! ```

use proc_macro2::{Span, TokenStream};
use quote::{ToTokens, format_ident, quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Error, FnArg, Ident, Item, ItemFn, LitStr, Pat, PatType, Path, Result, ReturnType,
    Type,
};

use crate::attributes::{self, OfTask};
use crate::check::{self, Refusals};
use crate::options::Options;
use crate::recursion;

/// A function as a task.
struct TaskFunction {
    options: Options,
    attributes: OfTask,
    function: ItemFn,
    arguments: Vec<TaskArgument>,
    /// The parameters of the function as it was written, without attributes that became a field's.
    parameters: Vec<PatType>,
    /// What the function is called with.
    values: Vec<TokenStream>,
}

/// An argument that is sent.
struct TaskArgument {
    name: Ident,
    ty: Type,
    /// Of the field: `serde`, documentation.
    attributes: Vec<Attribute>,
}

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let options = Options::of_task(options)?;
    let mut function = match syn::parse2::<Item>(item.clone())? {
        Item::Fn(function) => function,
        _ => {
            return Err(Error::new_spanned(
                item,
                "`#[procession::task]` is for a function outside of `impl` blocks and traits",
            ));
        }
    };
    let mut refusals = Refusals::default();
    check::function(&function, &mut refusals);
    recursion::check(&function, &mut refusals);
    let attributes = OfTask::sort(std::mem::take(&mut function.attrs));
    let mut task = TaskFunction {
        options,
        attributes,
        function,
        arguments: Vec::new(),
        parameters: Vec::new(),
        values: Vec::new(),
    };
    for input in task.function.sig.inputs.clone() {
        if let FnArg::Typed(parameter) = input {
            task.add(parameter, &mut refusals);
        }
    }
    refusals.into_result()?;
    Ok(task.to_items())
}

impl TaskFunction {
    fn add(&mut self, mut parameter: PatType, refusals: &mut Refusals) {
        let (of_field, of_parameter): (Vec<_>, Vec<_>) =
            parameter.attrs.into_iter().partition(|attribute| {
                attribute.path().is_ident("serde") || attribute.path().is_ident("doc")
            });
        parameter.attrs = of_parameter;
        for attribute in &parameter.attrs {
            if attribute.path().is_ident("cfg") || attribute.path().is_ident("cfg_attr") {
                refusals.add(attribute, "the arguments of a task are the same in every build");
            }
        }
        if is_context(&parameter.ty, refusals) {
            self.values.push(quote!(__context));
        } else {
            check::argument(&parameter.ty, refusals);
            let name = match &*parameter.pat {
                Pat::Ident(it) if it.by_ref.is_none() && it.subpat.is_none() => it.ident.clone(),
                // `_`, or a pattern that takes the argument apart.
                other => format_ident!("argument{}", self.arguments.len(), span = other.span()),
            };
            self.values.push(quote!(#name));
            let ty = (*parameter.ty).clone();
            self.arguments.push(TaskArgument { name, ty, attributes: of_field });
        }
        self.parameters.push(parameter);
    }

    fn to_items(&self) -> TokenStream {
        let conditions = &self.attributes.conditions;
        let items = [self.constructor(), self.arguments(), self.implementation()];
        items.into_iter().map(|item| quote!(#(#conditions)* #item)).collect()
    }

    fn name(&self) -> &Ident {
        &self.function.sig.ident
    }

    fn constructor(&self) -> TokenStream {
        let (vis, name, lints) = (&self.function.vis, self.name(), &self.attributes.lints);
        let attributes = &self.attributes.of_constructor;
        let names: Vec<_> = self.arguments.iter().map(|argument| &argument.name).collect();
        let types = self.arguments.iter().map(|argument| &argument.ty);
        let has_its_own = attributes.iter().any(|it| attributes::name(it) == "must_use");
        let must_use = (!has_its_own)
            .then(|| quote!(#[must_use = "a task does nothing before an executor runs it"]));
        quote! {
            #(#attributes)*
            #(#lints)*
            #must_use
            #[allow(clippy::too_many_arguments)]
            #vis fn #name(#(#names: #types),*) -> #name {
                #name { #(#names),* }
            }
        }
    }

    fn arguments(&self) -> TokenStream {
        let (vis, name, lints) = (&self.function.vis, self.name(), &self.attributes.lints);
        let krate = &self.options.krate;
        let serde = quote!(#krate::__private::serde);
        let serde_path = path_text(&serde, Span::call_site());
        let doc = format!("The task that the function [`{name}()`] makes of its arguments.");
        let fields = self.arguments.iter().map(|TaskArgument { name, ty, attributes }| {
            // Encoded by functions of the library: if an argument does not meet their bounds, the compiler
            // reports that at its type.
            let way = path_text(&quote!(#krate::__private::argument), ty.span());
            let has_own_way = attributes.iter().any(|attribute| attribute.path().is_ident("serde"));
            let way = (!has_own_way).then(|| quote!(#[serde(with = #way)]));
            quote!(#(#attributes)* #way #name: #ty)
        });
        quote! {
            #[doc = #doc]
            #(#lints)*
            #[allow(non_camel_case_types, unreachable_pub)]
            #[derive(#serde::Serialize, #serde::Deserialize)]
            #[serde(crate = #serde_path)]
            #vis struct #name { #(#fields),* }
        }
    }

    fn implementation(&self) -> TokenStream {
        let (name, krate) = (self.name(), &self.options.krate);
        let (lints, of_body) = (&self.attributes.lints, &self.attributes.of_body);
        let task_name = match &self.options.name {
            Some(name) => quote!(#name),
            None => {
                let function = LitStr::new(&name.unraw().to_string(), name.span());
                quote!(::core::concat!(::core::module_path!(), "::", #function))
            }
        };
        let encoding = self.options.encoding.as_ref().map(|encoding| {
            quote! {
                const ENCODING: #krate::Encoding = #krate::Encoding::#encoding;
            }
        });
        let (output, end) = self.output(krate);
        let names = self.arguments.iter().map(|argument| &argument.name);
        let (parameters, values) = (&self.parameters, &self.values);
        let registration = self.registration();
        let (returns, block) = (&self.function.sig.output, &self.function.block);
        quote! {
            impl #krate::Task for #name {
                const NAME: &'static ::core::primitive::str = #task_name;
                #encoding
                type Output = #output;

                fn run(
                    self,
                    __context: &#krate::Context,
                ) -> ::core::result::Result<Self::Output, #krate::Failure> {
                    #(#lints)*
                    #[allow(clippy::too_many_arguments)]
                    #(#of_body)*
                    fn __procession_body(#(#parameters),*) #returns #block

                    #registration
                    ::core::hint::black_box(&__REGISTERED);

                    let #name { #(#names),* } = self;
                    let __returned = __procession_body(#(#values),*);
                    #end
                }
            }
        }
    }

    /// The type of the output, and what follows the call of the function.
    fn output(&self, krate: &Path) -> (TokenStream, TokenStream) {
        let private = quote!(#krate::__private);
        match &self.function.sig.output {
            ReturnType::Default => (quote!(()), quote!(::core::result::Result::Ok(__returned))),
            ReturnType::Type(_, ty) if check::is_result(ty) => {
                let output = quote_spanned! {ty.span()=>
                    <#ty as #private::Fallible>::Output
                };
                let convert = quote_spanned!(ty.span()=> (&&&&&kind).choose().convert(error));
                let end = quote! {
                    match #private::Fallible::into_result(__returned) {
                        ::core::result::Result::Ok(output) => ::core::result::Result::Ok(output),
                        ::core::result::Result::Err(error) => {
                            // The traits of the error select the conversion: see `failing`.
                            #[allow(unused_imports)]
                            use #private::failing::{
                                AsFailure as _, AsMessage as _, AsSource as _, AsTyped as _,
                                AsTypedMessage as _,
                            };
                            let kind = #private::failing::Kind::of(&error);
                            ::core::result::Result::Err(#convert)
                        }
                    }
                };
                (output, end)
            }
            ReturnType::Type(_, ty) => {
                let name = ty.to_token_stream().to_string().replace(' ', "");
                let reason = format!(
                    "`{name}` is a `Result` by another name: write `Result<_, _>` itself, or a path that \
                     ends in `Result`, so that its errors are errors of the task"
                );
                // The span is at the type, and of this macro, so that no lints of the caller apply.
                let span = Span::call_site().located_at(ty.span());
                let check = quote_spanned! {span=>
                    const _: () = {
                        #[allow(unused_imports)]
                        use #private::IsNoResult as _;
                        ::core::assert!(!#private::Probe::<#ty>::IS_RESULT, #reason);
                    };
                };
                (quote!(#ty), quote!(#check ::core::result::Result::Ok(__returned)))
            }
        }
    }

    /// Puts the task where `Registry::collected` finds it. The static is an item of `run`, which
    /// refers to it: so a linker that leaves out what nothing refers to keeps it with the task.
    fn registration(&self) -> TokenStream {
        let (name, krate) = (self.name(), &self.options.krate);
        let private = quote!(#krate::__private);
        quote! {
            #[#private::linkme::distributed_slice(#private::TASKS)]
            #[linkme(crate = #private::linkme)]
            static __REGISTERED: #private::Registered = #private::Registered::of::<#name>();
        }
    }
}

/// Whether the parameter is what the task may know about where it runs.
fn is_context(ty: &Type, refusals: &mut Refusals) -> bool {
    let Type::Reference(reference) = ty else { return false };
    let Type::Path(path) = &*reference.elem else { return false };
    let is_context = path.path.segments.last().is_some_and(|last| last.ident == "Context");
    if is_context && reference.mutability.is_some() {
        refusals.add(ty, "the context of a task is a `&Context`");
    }
    is_context
}

/// A path in the form in which serde's attributes take it.
fn path_text(path: &TokenStream, span: Span) -> LitStr {
    LitStr::new(&path.to_string().replace(' ', ""), span)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Why a function is refused.
    fn reasons(options: TokenStream, item: TokenStream) -> Vec<String> {
        let error = expand(options, item).expect_err("a refusal");
        error.into_iter().map(|error| error.to_string()).collect()
    }

    #[track_caller]
    fn is_refused(item: TokenStream, beginnings: &[&str]) {
        let reasons = reasons(quote!(), item);
        assert_eq!(reasons.len(), beginnings.len(), "{reasons:?}");
        for (reason, beginning) in reasons.iter().zip(beginnings) {
            assert!(reason.starts_with(beginning), "{reasons:?}");
        }
    }

    #[test]
    fn functions_that_no_worker_can_call_are_refused_with_the_reason() {
        is_refused(
            quote!(
                fn f<T>(value: T) -> T {}
            ),
            &["a task is not generic: "],
        );
        is_refused(
            quote!(
                fn f()
                where
                    u8: Copy,
                {
                }
            ),
            &["a task is not generic: "],
        );
        is_refused(
            quote!(
                async fn f() {}
            ),
            &["a task cannot be `async`: "],
        );
        is_refused(
            quote!(
                unsafe fn f() {}
            ),
            &["a task is not `unsafe`: "],
        );
        is_refused(
            quote!(
                const fn f() {}
            ),
            &["a task is not `const`: "],
        );
        is_refused(
            quote!(
                extern "C" fn f() {}
            ),
            &["a task is a Rust function: "],
        );
        is_refused(
            quote!(
                fn f(&self, by: u32) {}
            ),
            &["a task has no `self`: "],
        );
        let elsewhere = "`#[procession::task]` is for a function outside of `impl` blocks";
        is_refused(quote!(impl Counter {}), &[elsewhere]);
        is_refused(
            quote!(
                struct Counter;
            ),
            &[elsewhere],
        );
    }

    #[test]
    fn all_types_that_cannot_be_sent_are_refused_at_once_with_what_to_use() {
        is_refused(
            quote! {
                fn f(a: &str, b: &[u8], c: Vec<&'static str>, d: &mut Context, e: impl Copy, f: *const u8) -> ! {}
            },
            &[
                "a task returns a value: ",
                "an argument of a task is not a reference, since it is sent to another process: \
                 use `String`",
                "an argument of a task is not a reference, since it is sent to another process: \
                 use `Vec`, or `procession::Blob`",
                "a reference cannot be sent to another process: ",
                "the context of a task is a `&Context`",
                "a worker must know the type: ",
                "a pointer has no meaning in another process",
            ],
        );
        is_refused(
            quote!(
                fn f() -> &'static str {}
            ),
            &["a task returns a value of its own, "],
        );
        is_refused(
            quote!(
                fn f() -> impl Copy {}
            ),
            &["a worker must know the type: "],
        );
        is_refused(
            quote!(
                fn f(#[cfg(unix)] value: u8) {}
            ),
            &["the arguments of a task are the same in every build"],
        );
        is_refused(
            quote!(
                fn f(a: fn(u8) -> u8, b: Box<dyn Fn()>, c: procession::Context) {}
            ),
            &[
                "a function, closure or trait object cannot be sent",
                "a function, closure or trait object cannot be sent",
                "the context of a task is a reference: write `&Context`",
            ],
        );
    }

    #[test]
    fn options_that_mean_nothing_are_refused() {
        let reason = |options| {
            reasons(
                options,
                quote!(
                    fn f() {}
                ),
            )
            .remove(0)
        };
        assert_eq!(reason(quote!(encoding = xml)), "the encoding is `json` or `binary`");
        assert_eq!(reason(quote!(name = "")), "the name of a task is not empty");
        assert_eq!(
            reason(quote!(colour = "red")),
            "the options of a task are `name`, `encoding` and `crate`"
        );
    }
}
