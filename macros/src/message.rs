//! `#[message]`: serde's derives for users who depend on nothing but `nats-service`, and `JsonSchema` where that is asked
//! for. It adds them, and nothing else.

use crate::diag::Errors;
use crate::options::{self, Opt, Options, Value};
use crate::validate::{crate_of, path_text};
use proc_macro2::TokenStream;
use quote::quote;

/// The derive of `JsonSchema`. Not with every message: its fields may be of types that have none.
fn schema(options: &[Opt], krate: &syn::Path, errors: &mut Errors) -> TokenStream {
    let Some(option) = options.iter().find(|option| option.name == "schema") else {
        return quote!();
    };
    if !matches!(option.value, Value::None) {
        errors.at(
            &option.name_tokens,
            "`schema` stands alone: `#[message(schema)]`",
        );
        return quote!();
    }
    if !cfg!(feature = "schema") {
        errors.at(
            &option.name_tokens,
            "`#[message(schema)]` needs the feature `schema`; switch it on in Cargo.toml: `nats-service = { version = \"..\", features = [\"schema\"] }`",
        );
        return quote!();
    }
    let schemars = path_text(krate, quote!(::schemars));
    quote! {
        #[::core::prelude::v1::derive(#krate::schemars::JsonSchema)]
        #[schemars(crate = #schemars)]
    }
}

pub(crate) fn expand(options: TokenStream, item: TokenStream) -> TokenStream {
    let mut errors = Errors::default();
    let options = errors
        .take(syn::parse2::<Options>(options))
        .unwrap_or_default();
    options::check_names(
        &options.0,
        "message",
        &["schema", "crate"],
        &|_| None,
        &mut errors,
    );
    let keyword = crate::item_keyword(&item);
    if !keyword
        .as_ref()
        .is_some_and(|ident| ident == "struct" || ident == "enum")
    {
        let message =
            "`#[message]` goes on a struct or an enum, which then can be a request or an answer";
        match keyword {
            Some(keyword) => errors.at(keyword, message),
            None => errors.push(syn::Error::new(proc_macro2::Span::call_site(), message)),
        }
        let errors = errors.into_tokens();
        return quote!(#item #errors);
    }
    let krate = crate_of(&options.0);
    let schema = schema(&options.0, &krate, &mut errors);
    let serde = path_text(&krate, quote!(::serde));
    let errors = errors.into_tokens();
    quote! {
        #[::core::prelude::v1::derive(#krate::serde::Serialize, #krate::serde::Deserialize)]
        #[serde(crate = #serde)]
        #schema
        #item
        #errors
    }
}
