//! The trait itself, without our attributes and with futures that can be sent between threads.
//!
//! It has no `#[diagnostic::on_unimplemented]`: under `#![no_implicit_prelude]` the name `diagnostic` leads nowhere, and what
//! the compiler says of a missing implementation by itself is clear.

use super::names::Names;
use crate::model::{Item, Method};
use proc_macro2::TokenStream;
use quote::quote;
use syn::{Attribute, FnArg, Pat, ReturnType, Signature};

pub(super) fn expand(names: &Names<'_>) -> TokenStream {
    let service = names.service;
    let (vis, ident, attrs, generics) = (
        &service.vis,
        &service.ident,
        &service.attrs,
        &service.generics,
    );
    let (clause, keyword) = (&generics.where_clause, &service.trait_token);
    let items = service.items.iter().map(|item| match item {
        Item::Endpoint(method) => endpoint(method),
        Item::Helper(helper) => method(&helper.attrs, &helper.sig, helper.body.as_ref(), true),
        Item::Other(item) => quote!(#item),
    });
    // A bound that is not allowed stays, or the user's implementation would not compile for want of it.
    let more = if names.inert && !service.supertraits.is_empty() {
        let bounds = &service.supertraits;
        quote!(+ #bounds)
    } else {
        quote!()
    };
    quote! {
        #(#attrs)*
        #vis #keyword #ident #generics: ::core::marker::Send + ::core::marker::Sync + 'static #more #clause {
            #(#items)*
        }
    }
}

fn endpoint(input: &Method) -> TokenStream {
    method(
        &input.attrs,
        &input.sig,
        input.body.as_ref(),
        input.sig.asyncness.is_some(),
    )
}

/// An `async fn` as a function that returns a future, and any other as it is.
fn method(
    attrs: &[Attribute],
    sig: &Signature,
    body: Option<&TokenStream>,
    transform: bool,
) -> TokenStream {
    if sig.asyncness.is_none() || !transform {
        let end = body.map_or_else(|| quote!(;), |body| quote!(#body));
        return quote!(#(#attrs)* #sig #end);
    }
    let output = match &sig.output {
        ReturnType::Default => quote!(()),
        ReturnType::Type(_, ty) => quote!(#ty),
    };
    let Signature {
        constness,
        safety,
        abi,
        fn_token,
        ident,
        generics,
        inputs,
        ..
    } = sig;
    let clause = &generics.where_clause;
    let inputs = inputs.iter().enumerate().map(|(i, input)| match input {
        // A pattern is reported already, and the compiler would do it again.
        FnArg::Typed(arg) if body.is_none() && !matches!(&*arg.pat, Pat::Ident(_)) => {
            let (name, ty) = (quote::format_ident!("argument_{i}"), &arg.ty);
            quote!(#name: #ty)
        }
        input => quote!(#input),
    });
    let (end, allow) = match body {
        Some(body) => (
            quote!({ async move #body }),
            quote!(#[allow(clippy::manual_async_fn)]),
        ),
        None => (quote!(;), quote!()),
    };
    quote! {
        #(#attrs)*
        #allow
        #constness #safety #abi #fn_token #ident #generics (#(#inputs),*)
            -> impl ::core::future::Future<Output = #output> + ::core::marker::Send
        #clause #end
    }
}
