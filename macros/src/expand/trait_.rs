//! The trait itself, without our attributes and with futures that can be sent between threads.
//!
//! It has no `#[diagnostic::on_unimplemented]`: under `#![no_implicit_prelude]` the name `diagnostic` leads nowhere, and what
//! the compiler says of a missing implementation by itself is clear.

use super::names::Names;
use crate::model::{Item, Method};
use proc_macro2::{Delimiter, Group, Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::{Attribute, FnArg, Ident, Lifetime, Pat, ReturnType, Signature};

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
    // What the user wrote stays: an import that only it needs is then used, and after an error the bound is still there.
    let more = if service.supertraits.is_empty() {
        quote!()
    } else {
        let bounds = &service.supertraits;
        quote!(#bounds +)
    };
    // Where a header and a body end, lints look too: with spans of ours they would underline our attribute.
    let statics = Lifetime::new("'static", ident.span());
    let mut body = TokenStream::new();
    service
        .brace
        .surround(&mut body, |body| body.extend(quote!(#(#items)*)));
    quote! {
        #(#attrs)*
        #vis #keyword #ident #generics: #more ::core::marker::Send + ::core::marker::Sync + #statics #clause #body
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
    let (output, end) = match &sig.output {
        ReturnType::Default => (quote!(()), sig.paren_token.span.close()),
        ReturnType::Type(_, ty) => {
            let output = quote!(#ty);
            let last = output.clone().into_iter().last();
            let end = last.map_or_else(Span::call_site, |token| token.span());
            (output, end)
        }
    };
    // A signature that ends where the user's does: a lint about the method then underlines it, and not our attribute.
    let send = Ident::new("Send", end);
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
    let (rest, allow) = match body {
        Some(body) => {
            let mut block = Group::new(Delimiter::Brace, quote!(async move #body));
            let first = body.clone().into_iter().next();
            block.set_span(first.map_or(end, |token| token.span()));
            (quote!(#block), quote!(#[allow(clippy::manual_async_fn)]))
        }
        None => (quote_spanned!(end=> ;), quote!()),
    };
    quote! {
        #(#attrs)*
        #allow
        #constness #safety #abi #fn_token #ident #generics (#(#inputs),*)
            -> impl ::core::future::Future<Output = #output> + ::core::marker::#send
        #clause #rest
    }
}
