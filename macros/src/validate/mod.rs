//! The second stage: every rule, one function a rule, and all independent mistakes at once.
//!
//! Always gives a model, because the names in it are needed for stubs; it may be expanded in full when there were no errors.

mod cache;
mod conflicts;
mod context;
mod key;
mod method;
mod service;
mod store;
mod streams;
mod types;
mod when;

pub(crate) use service::{crate_of, default_crate, description, path_text};

use crate::diag::Errors;
use crate::model::{Item, Service};
use crate::options::Options;
use crate::parse::{Item as ItemInput, TraitInput};
use syn::TraitItem;

/// What all methods of a service share.
pub(crate) struct Defaults {
    pub(crate) subject: String,
    pub(crate) timeout: std::time::Duration,
    pub(crate) queue_group: Option<String>,
}

pub(crate) fn validate(options: syn::Result<Options>, input: TraitInput) -> (Service, Errors) {
    let mut errors = Errors::default();
    let options = errors.take(options).unwrap_or_default();
    service::check_trait(&input, &mut errors);
    let (mut service, defaults) = service::service(&options.0, &input, &mut errors);
    for item in input.items {
        let item = match item {
            ItemInput::Other(other) => {
                check_other(&other, &mut errors);
                Item::Other(other)
            }
            ItemInput::Method(input) if input.body.is_some() && input.ours.is_empty() => {
                method::helper(*input, &mut errors)
            }
            ItemInput::Method(input) => {
                Item::Endpoint(Box::new(method::method(*input, &defaults, &mut errors)))
            }
        };
        service.items.push(item);
    }
    conflicts::check(&mut service, &mut errors);
    (service, errors)
}

/// Only methods are part of a contract; what has a value of its own may stand beside them.
fn check_other(item: &TraitItem, errors: &mut Errors) {
    match item {
        TraitItem::Type(item) => errors.at(
            &item.ident,
            "an associated type is not part of a contract, since every message has one type; name the type in the methods",
        ),
        TraitItem::Const(item) if item.default.is_none() => errors.at(
            &item.ident,
            "an associated constant without a value is not part of a contract; give it a value, or make it a method",
        ),
        TraitItem::Macro(item) => errors.at(
            &item.mac.path,
            "methods that a macro writes would not become endpoints; write them out",
        ),
        _ => {}
    }
}
