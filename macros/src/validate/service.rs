//! Rules of the trait itself and of the options in `#[nats_service(..)]`.

use super::Defaults;
use crate::diag::Errors;
use crate::model::{Codec, Service};
use crate::options::{self, Opt, Reader};
use crate::parse::TraitInput;
use crate::{text, value};
use proc_macro2::TokenStream;
use quote::{ToTokens, quote};
use std::time::Duration;
use syn::ext::IdentExt as _;
use syn::{Attribute, GenericParam, TypeParamBound};

pub(crate) const OPTIONS: &[&str] = &[
    "name",
    "version",
    "subject",
    "description",
    "queue_group",
    "timeout",
    "codec",
    "metadata",
    "crate",
];

/// The trait's own shape.
pub(super) fn check_trait(input: &TraitInput, errors: &mut Errors) {
    check_generics(input, errors);
    check_supertraits(input, errors);
    if let Some(token) = input.unsafety {
        errors.at(token, "a service is a safe trait; remove `unsafe`");
    }
    check_ours_on_trait(&input.attrs, errors);
}

fn check_generics(input: &TraitInput, errors: &mut Errors) {
    let generics = &input.generics;
    if !generics.params.is_empty() {
        let lifetimes = generics
            .params
            .iter()
            .all(|param| matches!(param, GenericParam::Lifetime(_)));
        let way_out = if lifetimes {
            "a request borrows with `'_`: `request: Request<'_>`"
        } else {
            "write a trait with concrete types, one for each type that you need"
        };
        errors.at(
            &generics.params,
            format!("a service has one wire contract, so its trait has no parameters; {way_out}"),
        );
    }
    if let Some(clause) = &generics.where_clause {
        errors.at(clause, "a service's trait has no `where` clause; remove it");
    }
}

fn check_supertraits(input: &TraitInput, errors: &mut Errors) {
    for bound in &input.supertraits {
        let allowed = match bound {
            TypeParamBound::Lifetime(lifetime) => lifetime.ident == "static",
            TypeParamBound::Trait(bound) => {
                let path = &bound.path;
                let std_path = path.segments.len() == 1
                    || path
                        .segments
                        .first()
                        .is_some_and(|first| first.ident == "std" || first.ident == "core");
                std_path
                    && path
                        .segments
                        .last()
                        .is_some_and(|last| last.ident == "Send" || last.ident == "Sync")
            }
            _ => false,
        };
        if !allowed {
            errors.at(
                bound,
                "a service's trait may have the supertraits `Send`, `Sync` and `'static`, which it has anyway; ask for more where you implement it",
            );
        }
    }
}

/// `#[kv_store]` beside `#[nats_service]`.
fn check_ours_on_trait(attrs: &[Attribute], errors: &mut Errors) {
    for attr in attrs {
        if let Some(kind) = crate::parse::AttrKind::of(attr) {
            errors.at(
                attr.path(),
                format!(
                    "`#[{0}]` belongs on a method of the trait; move it to the method whose answer it concerns",
                    kind.name()
                ),
            );
        }
    }
}

/// The description that doc comments make: their first paragraph, on one line.
pub(crate) fn description(attrs: &[Attribute]) -> String {
    let mut lines = Vec::new();
    for attr in attrs.iter().filter(|attr| attr.path().is_ident("doc")) {
        let syn::Meta::NameValue(pair) = &attr.meta else {
            continue;
        };
        let syn::Expr::Lit(syn::ExprLit {
            lit: syn::Lit::Str(text),
            ..
        }) = &pair.value
        else {
            continue;
        };
        // A block comment is one attribute of many lines.
        for line in text.value().lines() {
            let line = line.trim().trim_start_matches('*').trim_start();
            if line.is_empty() && !lines.is_empty() {
                return lines.join(" ");
            }
            if !line.is_empty() {
                lines.push(line.to_owned());
            }
        }
    }
    lines.join(" ")
}

/// Reads the options.
pub(super) fn service(
    options: &[Opt],
    input: &TraitInput,
    errors: &mut Errors,
) -> (Service, Defaults) {
    options::check_names(
        options,
        "nats_service",
        OPTIONS,
        &|name| {
            (name == "rename").then(|| {
                "a service is named by `name`; `rename` is an option of `#[endpoint]`".to_owned()
            })
        },
        errors,
    );
    let bare = input.ident.unraw().to_string();
    let snake = text::snake_case(&bare);
    let mut reader = Reader { options, errors };
    let name = reader.parsed("name", "\"profiles\"", |text| {
        value::name("a service's name", text).map(|()| text.to_owned())
    });
    let version = reader.parsed("version", "\"1.0.0\"", |text| {
        value::semver(text).map(|()| text.to_owned())
    });
    let subject = reader.parsed("subject", "\"profiles\"", |text| {
        value::subject(text).map(|()| text.to_owned())
    });
    let text = reader.string("description", "\"what it is for\"");
    let queue_group = reader.name_or_false("queue_group");
    let timeout = reader.duration("timeout");
    let codec = codec(&mut reader);
    let metadata = reader.pairs("metadata");
    let krate = reader.path("crate", "::nats_service");
    let said = |name: &str| options.iter().any(|option| option.name == name);
    let fully_named = said("name") && said("subject");
    if !snake.is_ascii() && !fully_named {
        let rule = format!(
            "the service and its subjects are named after the trait, in ASCII; name them: `#[nats_service(name = \"..\", subject = \"..\")]`, since `{bare}` is not"
        );
        errors.at(&input.ident, rule);
    }
    let service = Service {
        krate: krate.map_or_else(default_crate, |path| path.value),
        vis: input.vis.clone(),
        trait_token: input.trait_token,
        brace: input.brace,
        ident: input.ident.clone(),
        attrs: without_ours(&input.attrs),
        deprecated: input
            .attrs
            .iter()
            .filter(|attr| attr.path().is_ident("deprecated") || attr.path().is_ident("allow"))
            .cloned()
            .collect(),
        generics: input.generics.clone(),
        supertraits: input.supertraits.clone(),
        name: name.map_or_else(|| snake.clone(), |name| name.value),
        version: version.map(|version| version.value),
        description: text.map_or_else(|| description(&input.attrs), |text| text.value),
        metadata,
        codec,
        items: Vec::new(),
        same_answers: Vec::new(),
    };
    let defaults = Defaults {
        subject: subject.map_or(snake, |subject| subject.value),
        timeout: timeout.map_or(Duration::from_secs(5), |timeout| timeout.value),
        queue_group: queue_group.map_or_else(|| Some("q".to_owned()), |group| group.value),
    };
    (service, defaults)
}

fn codec(reader: &mut Reader<'_>) -> Codec {
    let literal = reader.options.iter().any(|option| {
        option.name == "codec"
            && match &option.value {
                options::Value::Tokens(tokens) => syn::parse2::<syn::Path>(tokens.clone()).is_err(),
                _ => true,
            }
    });
    if !literal && let Some(path) = reader.path("codec", "my::Cbor") {
        if !cfg!(feature = "codecs") {
            reader.errors.at(
                &path.tokens,
                "an encoding of your own needs the feature `codecs`; switch it on in Cargo.toml: `nats-service = { version = \"..\", features = [\"codecs\"] }`",
            );
        }
        return Codec::Own(path.value);
    }
    // The value says whether it is MessagePack.
    let choices = [
        ("json", false, "readable by any tool; the default"),
        (
            "msgpack",
            true,
            "MessagePack with field names, smaller; needs the feature `msgpack`",
        ),
    ];
    let Some(codec) = reader.choice("codec", &choices).filter(|codec| codec.value) else {
        return Codec::Json;
    };
    if !cfg!(feature = "msgpack") {
        reader.errors.at(
            &codec.tokens,
            "`codec = \"msgpack\"` needs the feature `msgpack`; switch it on in Cargo.toml: `nats-service = { version = \"..\", features = [\"msgpack\"] }`",
        );
    }
    Codec::MessagePack
}

fn without_ours(attrs: &[Attribute]) -> Vec<Attribute> {
    attrs
        .iter()
        .filter(|attr| crate::parse::AttrKind::of(attr).is_none())
        .cloned()
        .collect()
}

pub(crate) fn default_crate() -> syn::Path {
    syn::parse_quote!(::nats_service)
}

/// The path that `crate = ..` names, where nothing else of the options is needed.
pub(crate) fn crate_of(options: &[Opt]) -> syn::Path {
    let mut ignored = Errors::default();
    let mut reader = Reader {
        options,
        errors: &mut ignored,
    };
    reader
        .path("crate", "::nats_service")
        .map_or_else(default_crate, |path| path.value)
}

/// A path as a string literal, the form that `#[serde(crate = "..")]` takes.
pub(crate) fn path_text(path: &syn::Path, rest: TokenStream) -> String {
    let tokens = path.to_token_stream();
    quote!(#tokens #rest).to_string().replace(' ', "")
}
