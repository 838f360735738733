//! Rules of the options that only `#[kv_cache(..)]` has. What it shares with `#[kv_store(..)]` is in `store`; what the bucket must
//! be like for it, in `conflicts`.

use crate::diag::Errors;
use crate::model::{Arg, Cache, Flight, Key, Output, Setting, SettingValue};
use crate::options::{Opt, Reader, Spanned, Value};
use crate::parse::OurAttr;
use crate::service_error::CODES;
use crate::{text, value};
use quote::ToTokens;
use std::time::Duration;
use syn::Type;

/// How long a look into the bucket may take where the attribute does not say.
const LOOKUP: Duration = Duration::from_millis(250);

const ERRORS_FORM: &str = "cache_errors(NotFound = \"10s\")";

/// Reads what is the cache's own; `None` after a mistake without which nothing can be said.
pub(super) fn cache(
    reader: &mut Reader<'_>,
    attr: &OurAttr,
    ttl: Option<Setting>,
) -> Option<Cache> {
    let said = |name: &str| reader.options.iter().any(|option| option.name == name);
    if !said("ttl") && attr.options.is_ok() {
        let near = |option: &Opt| text::nearest(&option.name, &["ttl"]).is_some();
        if !reader.options.iter().any(near) {
            reader.errors.at(
                attr.tokens.path(),
                "`#[kv_cache]` needs how long an answer is fresh; add `ttl = \"10m\"`, say",
            );
        }
    }
    let fresh = ttl.and_then(|ttl| match ttl.value {
        SettingValue::Duration(value) => Some(Spanned {
            value,
            tokens: ttl.tokens,
        }),
        _ => None,
    });
    let stale = reader.duration("stale_on_error").map(|stale| stale.value);
    let none = reader.duration("cache_none");
    let none = none.filter(|none| not_longer(none, "cache_none", fresh.as_ref(), reader.errors));
    let errors = errors(reader, fresh.as_ref());
    let lookup = reader.duration("lookup_timeout");
    let flight = reader.choice(
        "single_flight",
        &[
            (
                "process",
                Flight::Process,
                "one handler call a key in each instance; the default",
            ),
            (
                "cluster",
                Flight::Cluster,
                "one among all instances, by a claim in the bucket: for handlers that cost more than two writes",
            ),
        ],
    );
    fresh.map(|fresh| Cache {
        fresh,
        stale,
        none: none.map(|none| none.value),
        errors,
        lookup: lookup.map_or(LOOKUP, |lookup| lookup.value),
        flight: flight.map_or(Flight::Process, |flight| flight.value),
    })
}

/// What says that there is nothing lives no longer than what says something.
fn not_longer(
    short: &Spanned<Duration>,
    name: &str,
    fresh: Option<&Spanned<Duration>>,
    errors: &mut Errors,
) -> bool {
    let Some(fresh) = fresh.filter(|fresh| fresh.value < short.value) else {
        return true;
    };
    errors.between(
        (
            &short.tokens,
            format!(
                "`{name}` is for a short time, and this is longer than the `ttl` of answers; write `{}` or less",
                fresh.tokens
            ),
        ),
        (&fresh.tokens, "answers are fresh for this long"),
    );
    false
}

/// `cache_errors(NotFound = "10s", PermissionDenied = "1s")`.
fn errors(reader: &mut Reader<'_>, fresh: Option<&Spanned<Duration>>) -> Vec<(String, Duration)> {
    let options = reader.options;
    let Some(option) = options.iter().find(|option| option.name == "cache_errors") else {
        return Vec::new();
    };
    let Value::List(list) = &option.value else {
        reader.errors.at(
            &option.name_tokens,
            format!("`cache_errors` is a list of codes, each with how long its errors are kept; write `{ERRORS_FORM}`"),
        );
        return Vec::new();
    };
    let mut found: Vec<(String, Duration)> = Vec::new();
    for item in list {
        let code = item.name.as_str();
        if !CODES.contains(&code) {
            reader.errors.at(
                &item.name_tokens,
                format!(
                    "there is no code `{code}`; {}the codes are {}",
                    text::did_you_mean(code, CODES),
                    text::list(CODES)
                ),
            );
            continue;
        }
        if found.iter().any(|(known, _)| known == code) {
            reader.errors.at(
                &item.name_tokens,
                format!("`{code}` is given twice in `cache_errors`; keep one of the two"),
            );
            continue;
        }
        let tokens = match &item.value {
            Value::Tokens(tokens) => tokens.clone(),
            _ => item.name_tokens.clone(),
        };
        let duration = match syn::parse2::<syn::LitStr>(tokens.clone()) {
            Ok(literal) => value::duration(&literal.value()),
            Err(_) => Err(format!(
                "how long an error is kept is a duration; write `{ERRORS_FORM}`"
            )),
        };
        match duration {
            Ok(value) => {
                let duration = Spanned { value, tokens };
                if not_longer(&duration, "cache_errors", fresh, reader.errors) {
                    found.push((code.to_owned(), value));
                }
            }
            Err(rule) => reader.errors.at(&tokens, rule),
        }
    }
    found
}

/// What is looked up must be known before the call, and there must be something to keep.
pub(super) fn check_use(attr: &OurAttr, output: &Output, errors: &mut Errors) {
    let (Output::Result { ok: ty, .. } | Output::Other(ty)) = output;
    if matches!(&**ty, Type::Tuple(tuple) if tuple.elems.is_empty()) {
        errors.at(
            attr.tokens.path(),
            "this method answers nothing, so there is nothing to cache; remove `#[kv_cache]`, or return what is to be kept",
        );
    }
}

/// A key that reads the answer cannot be looked up. `true` when it is fine.
pub(super) fn check_key(key: &Key, args: &[Arg], errors: &mut Errors) -> bool {
    let Some(capture) = key
        .captures
        .iter()
        .find(|capture| !capture.from.is_request())
    else {
        return true;
    };
    let way_out = match args {
        [] => "write a key without captures, or give the method an argument".to_owned(),
        [one] => format!("use what the request has, `<{}>` say", one.ident),
        [first, ..] => format!("use an argument, `<{}>` say", first.ident),
    };
    errors.at(
        key.tokens.to_token_stream(),
        format!(
            "`<{}>` reads the answer, and the key of a cache is looked up before there is one; {way_out}",
            capture.name
        ),
    );
    false
}
