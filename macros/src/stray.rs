//! One of our attributes where no `#[nats_service]` has read it. What it stands on tells what is missing.

use crate::parse::{AttrKind, Item, MethodInput};
use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::parse::{ParseStream, Parser as _};
use syn::{Attribute, Visibility};

/// The item as it was, and what to do about the attribute.
pub(crate) fn refuse(kind: AttrKind, item: TokenStream) -> TokenStream {
    let error = syn::Error::new(Span::call_site(), advice(kind, &item)).into_compile_error();
    quote!(#item #error)
}

fn advice(kind: AttrKind, item: &TokenStream) -> String {
    let name = kind.name();
    let rule = format!("`#[{name}]` belongs on a method of a `#[nats_service]` trait");
    match method(item) {
        Some(MethodInput { body: None, .. }) => format!(
            "`#[{name}]` is read by `#[nats_service]`, and this method's trait does not have it; write `#[nats_service]` above the trait"
        ),
        Some(MethodInput { sig, .. }) if sig.receiver().is_some() => format!(
            "{rule}; in an `impl`, move it to the method of the trait; in a trait, write `#[nats_service]` above that"
        ),
        _ if crate::item_keyword(item).is_some_and(|word| word == "trait") => {
            format!("{rule}, and not on the trait itself; move it to the method that it concerns")
        }
        _ => rule,
    }
}

fn method(item: &TokenStream) -> Option<MethodInput> {
    let read = |input: ParseStream<'_>| {
        input.call(Attribute::parse_outer)?;
        input.parse::<Visibility>()?;
        input.parse()
    };
    match read.parse2(item.clone()) {
        Ok(Item::Method(method)) => Some(*method),
        _ => None,
    }
}
