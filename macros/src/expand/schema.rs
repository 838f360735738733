//! `..Contract::asyncapi()`: what the methods say of themselves, behind the feature `schema`.
//!
//! The function is there for every trait, and only a call of it asks for a `JsonSchema` of the types: a bound without
//! parameters is checked at once, where it is written, and one under `for<'any>` where it is used.

use super::names::{self, Names};
use crate::model::Method;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{Ident, Type};

/// The function, for the contract's `impl`, and what it needs besides.
pub(super) fn expand(names: &Names<'_>) -> (TokenStream, TokenStream) {
    if !cfg!(feature = "schema") || names.inert {
        return (quote!(), quote!());
    }
    let Names {
        service, private, ..
    } = names;
    let vis = &service.vis;
    let methods: Vec<Ident> = service
        .methods()
        .map(|method| subject(names, method))
        .collect();
    let doc = "The contract as an AsyncAPI document, with a JSON Schema for every message. Every message has to \
               implement `JsonSchema`: `#[message(schema)]` derives it.";
    let function = quote! {
        #[doc = #doc]
        #[must_use]
        #vis fn asyncapi() -> #private::AsyncApi
        where
            #(for<'any> #methods: #private::Described,)*
        {
            let mut contract = #private::ContractBuilder::new(Self::SPEC);
            #(contract.method::<#methods>();)*
            contract.finish()
        }
    };
    let items = service.methods().map(|method| described(names, method));
    (function, quote!(#(#items)*))
}

/// The type that describes a method: the hidden one of the method, or the name that a `cfg` decides about.
fn subject(names: &Names<'_>, method: &Method) -> Ident {
    let hidden = names.method(method);
    if method.cfgs().is_empty() {
        hidden
    } else {
        format_ident!("{hidden}IfAny")
    }
}

fn described(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    let (hidden, cfgs) = (names.method(method), method.guards());
    let (answer, error) = names.outcome(method);
    let types: Vec<Type> = method
        .args
        .iter()
        .map(|arg| names::with_lifetime(&arg.ty, "'static"))
        .collect();
    let arguments = method.args.iter().map(|arg| {
        use syn::ext::IdentExt as _;
        arg.ident.unraw().to_string()
    });
    let items = method
        .upload
        .iter()
        .map(|upload| names::with_lifetime(&upload.item, "'static"));
    let items: Vec<Type> = items.collect();
    let answers = method.answers.iter();
    let ends: Vec<TokenStream> = answers
        .map(|answers| names.outcome_of(&answers.typed).1)
        .collect();
    let choice = choice(names, method);
    quote! {
        #choice

        #(#cfgs)*
        #[allow(deprecated)]
        impl #private::Described for #hidden
        where
            #(for<'any> #types: #private::schemars::JsonSchema,)*
            for<'any> #answer: #private::schemars::JsonSchema,
            for<'any> #error: #private::DescribeError,
            #(for<'any> #items: #private::schemars::JsonSchema,)*
            #(for<'any> #ends: #private::DescribeError,)*
        {
            fn describe(method: &mut #private::MethodBuilder<'_>) {
                #(method.argument::<#types>(#arguments);)*
                method.answer::<#answer>();
                method.error::<#error>();
                #(method.item::<#items>();)*
                #(method.item_error::<#ends>();)*
            }

            fn spec() -> ::core::option::Option<&'static #private::MethodSpec> {
                ::core::option::Option::Some(<Self as #private::Method>::SPEC)
            }
        }
    }
}

/// A bound cannot have a `cfg`, but what its name stands for can.
fn choice(names: &Names<'_>, method: &Method) -> TokenStream {
    let conditions: Vec<TokenStream> = method
        .cfgs()
        .iter()
        .filter_map(|cfg| match &cfg.meta {
            syn::Meta::List(list) => Some(list.tokens.clone()),
            _ => None,
        })
        .collect();
    if conditions.is_empty() {
        return quote!();
    }
    let private = &names.private;
    let (hidden, either) = (names.method(method), subject(names, method));
    quote! {
        #[cfg(all(#(#conditions),*))]
        #[doc(hidden)]
        type #either = #hidden;
        #[cfg(not(all(#(#conditions),*)))]
        #[doc(hidden)]
        type #either = #private::NoMethod;
    }
}
