//! The attribute macros of `nats-service`.

mod diag;
mod expand;
mod model;
mod options;
mod parse;
mod template;
mod text;
mod validate;
mod value;

use proc_macro::TokenStream;

/// Turns a trait into a NATS micro service, its client and its stores.
#[proc_macro_attribute]
pub fn nats_service(options: TokenStream, item: TokenStream) -> TokenStream {
    service(options.into(), item.into()).into()
}

fn service(
    options: proc_macro2::TokenStream,
    item: proc_macro2::TokenStream,
) -> proc_macro2::TokenStream {
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
