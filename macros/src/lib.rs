//! The attribute macros of `nats-service`.

mod diag;
mod expand;
mod message;
mod model;
mod options;
mod parse;
mod service_error;
mod template;
mod text;
mod validate;
mod value;

use proc_macro::TokenStream;
use proc_macro2::{Ident, TokenStream as Tokens, TokenTree};

/// Turns a trait into a NATS micro service, its client and its stores.
#[proc_macro_attribute]
pub fn nats_service(options: TokenStream, item: TokenStream) -> TokenStream {
    service(options.into(), item.into()).into()
}

/// Options of one endpoint.
#[proc_macro_attribute]
pub fn endpoint(_: TokenStream, item: TokenStream) -> TokenStream {
    stray("endpoint", item.into()).into()
}

/// Keeps the answers of a method in a key-value bucket.
#[proc_macro_attribute]
pub fn kv_store(_: TokenStream, item: TokenStream) -> TokenStream {
    stray("kv_store", item.into()).into()
}

/// Removes an entry of a key-value bucket after a successful call.
#[proc_macro_attribute]
pub fn kv_evict(_: TokenStream, item: TokenStream) -> TokenStream {
    stray("kv_evict", item.into()).into()
}

/// Keeps the answers of a method in an object store.
#[proc_macro_attribute]
pub fn object_store(_: TokenStream, item: TokenStream) -> TokenStream {
    stray("object_store", item.into()).into()
}

/// Removes an object after a successful call.
#[proc_macro_attribute]
pub fn object_evict(_: TokenStream, item: TokenStream) -> TokenStream {
    stray("object_evict", item.into()).into()
}

/// Derives serde's traits through `nats_service`.
#[proc_macro_attribute]
pub fn message(options: TokenStream, item: TokenStream) -> TokenStream {
    message::expand(options.into(), item.into()).into()
}

/// Makes an error type one that a service can answer with.
#[proc_macro_derive(ServiceError, attributes(service_error))]
pub fn derive_service_error(input: TokenStream) -> TokenStream {
    service_error::derive(input.into()).into()
}

/// The stages of `#[nats_service]`.
fn service(options: Tokens, item: Tokens) -> Tokens {
    let keyword = item_keyword(&item);
    if let Some(keyword) = keyword.filter(|keyword| keyword != "trait") {
        let error = syn::Error::new(keyword.span(), not_a_trait(&keyword)).into_compile_error();
        return quote::quote!(#item #error);
    }
    let input = match syn::parse2::<parse::TraitInput>(item.clone()) {
        Ok(input) => input,
        Err(error) => {
            let error = error.into_compile_error();
            return quote::quote!(#item #error);
        }
    };
    let (model, errors) = validate::validate(syn::parse2(options), input);
    let expanded = expand::expand(&model, !errors.is_empty());
    let errors = errors.into_tokens();
    quote::quote!(#expanded #errors)
}

fn not_a_trait(keyword: &Ident) -> String {
    let rule = "`#[nats_service]` goes on a trait, which is the contract";
    if keyword == "impl" {
        format!(
            "{rule}; an `impl` of such a trait needs no attribute, and its type is what the generated server takes"
        )
    } else {
        format!(
            "{rule}; write `trait Profiles {{ async fn save(&self, ..) -> ..; }}`, and implement it for your type"
        )
    }
}

/// One of our attributes where none of ours reads it.
fn stray(name: &str, item: Tokens) -> Tokens {
    let error = syn::Error::new(
        proc_macro2::Span::call_site(),
        format!("`#[{name}]` belongs on a method of a `#[nats_service]` trait"),
    )
    .into_compile_error();
    quote::quote!(#item #error)
}

/// The word that says what an item is: `struct`, `impl`, `trait`.
fn item_keyword(item: &Tokens) -> Option<Ident> {
    const WORDS: &[&str] = &[
        "struct",
        "enum",
        "union",
        "impl",
        "trait",
        "fn",
        "mod",
        "const",
        "static",
        "type",
        "use",
        "extern",
        "macro_rules",
        "let",
    ];
    item.clone().into_iter().find_map(|token| match token {
        TokenTree::Ident(ident) if WORDS.contains(&ident.to_string().as_str()) => Some(ident),
        _ => None,
    })
}
