//! The last stage: from the model to tokens. It cannot fail, and decides nothing.
//!
//! What is the same for every method is a generic function of `nats_service::__private`; what is written here is constants and
//! one call each. After an error the same names and signatures are written with bodies that never run, so that the
//! rest of the user's crate compiles as if there were none.

mod checks;
mod client;
mod contract;
mod handle;
mod names;
mod schema;
mod server;
mod stores;
mod trait_;

use crate::model::Service;
use names::Names;
use proc_macro2::TokenStream;
use quote::quote;

/// Everything that a trait becomes. `inert` after an error.
pub(crate) fn expand(service: &Service, inert: bool) -> TokenStream {
    let names = Names::new(service, inert);
    let parts = [
        trait_::expand(&names),
        contract::expand(&names),
        server::expand(&names),
        client::expand(&names),
        stores::expand(&names),
    ];
    quote!(#(#parts)*)
}
