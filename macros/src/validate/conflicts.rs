//! Rules that need two places: subjects, names, and what the stores of one bucket must agree on.
//!
//! Two methods that both stand under a `cfg` may exclude each other, so they are not compared. Whether a `cfg` holds is not
//! known here: settings of a method that is left out still count for its bucket, unless another names them otherwise.

use crate::diag::Errors;
use crate::model::{
    Action, Item, Kind, Method, Output, Provision, SameAnswer, Service, Setting, SettingValue,
    Store,
};
use quote::{ToTokens, quote};
use std::time::Duration;

pub(super) fn check(service: &mut Service, errors: &mut Errors) {
    check_subjects(service, errors);
    check_names(service, errors);
    check_store_names(service, errors);
    check_settings(service, errors);
    check_lifetimes(service, errors);
    service.same_answers = overlaps(service);
    merge_settings(service);
}

/// Every pair of methods that exist at the same time.
fn pairs(service: &Service) -> impl Iterator<Item = (&Method, &Method)> {
    let methods: Vec<&Method> = service.methods().collect();
    let mut pairs = Vec::new();
    for (i, second) in methods.iter().enumerate() {
        for first in &methods[..i] {
            if first.cfgs().is_empty() || second.cfgs().is_empty() {
                pairs.push((*first, *second));
            }
        }
    }
    pairs.into_iter()
}

fn check_subjects(service: &Service, errors: &mut Errors) {
    for (first, second) in pairs(service) {
        if first.subject.value == second.subject.value && first.ident() != second.ident() {
            errors.between(
                (
                    &second.subject.tokens,
                    format!(
                        "the subject `{}` is taken by `{}`, and a subject leads to one method; write `#[endpoint(subject = \"..\")]` on one of the two",
                        second.subject.value,
                        first.ident()
                    ),
                ),
                (
                    &first.subject.tokens,
                    format!("`{}` has the same subject", first.ident()),
                ),
            );
        }
    }
}

fn check_names(service: &Service, errors: &mut Errors) {
    let mut reported: Vec<&syn::Ident> = Vec::new();
    for (first, second) in pairs(service) {
        if reported.contains(&second.ident()) {
            continue;
        }
        // Methods of one name are the compiler's to report.
        if first.ident() == second.ident() {
            continue;
        }
        let message = if first.public == second.public {
            format!("the name `{}` is taken by another endpoint", second.public)
        } else if first.camel == second.camel {
            format!(
                "the types made of `{}` and `{}` would have one name, `{}{}..`",
                first.public, second.public, service.ident, second.camel
            )
        } else {
            continue;
        };
        reported.push(second.ident());
        errors.between(
            (
                &second.public,
                format!("{message}; write `#[endpoint(rename = \"..\")]` on one of the two"),
            ),
            (&first.public, "the other is here"),
        );
    }
}

/// Stores that were named, against all others: an accessor and a type are made of each.
fn check_store_names(service: &Service, errors: &mut Errors) {
    let stores: Vec<(&Method, &syn::Ident, &str)> = service
        .methods()
        .flat_map(|method| {
            let named = method.puts().filter_map(|(_, store)| store.public.as_ref());
            named.map(move |(ident, camel)| (method, ident, camel.as_str()))
        })
        .collect();
    let own = |method: &Method, ident: &syn::Ident| *ident == method.public;
    for (i, (method, ident, camel)) in stores.iter().enumerate() {
        let clash = stores[..i].iter().find(|(other, first, first_camel)| {
            // Two that are named after their methods are reported with those.
            let named = !own(method, ident) || !own(other, first);
            named && exist_together(other, method) && (ident == first || camel == first_camel)
        });
        if let Some((other, first, _)) = clash {
            let taken = if own(other, first) {
                format!("by the store of the method `{first}`")
            } else {
                format!("by a store of `{}`", other.ident())
            };
            errors.between(
                (
                    ident,
                    format!("the name `{ident}` is taken {taken}, and each store has an accessor and a type; choose another `name`"),
                ),
                (first, "the other is here"),
            );
        }
    }
}

/// Whether two methods can be there at the same time; one always is beside itself.
fn exist_together(a: &Method, b: &Method) -> bool {
    std::ptr::eq(a, b) || a.cfgs().is_empty() || b.cfgs().is_empty()
}

/// Whether two stores are of one bucket.
fn one_bucket(a: &Store, b: &Store) -> bool {
    let name = |store: &Store| store.bucket.as_ref().map(|bucket| bucket.value.clone());
    a.kind == b.kind && name(a).is_some() && name(a) == name(b)
}

fn puts(service: &Service) -> Vec<(usize, &Method, &Store)> {
    service
        .methods()
        .enumerate()
        .flat_map(|(i, method)| {
            let stores = method.stores.iter();
            stores
                .filter(|store| store.action == Action::Put)
                .map(move |store| (i, method, store))
        })
        .collect()
}

/// Settings belong to the bucket: two attributes may not differ.
fn check_settings(service: &Service, errors: &mut Errors) {
    let puts = puts(service);
    for (i, (_, second_method, second)) in puts.iter().enumerate() {
        let exclusive = |first: &Method| !exist_together(first, second_method);
        for setting in &second.settings {
            let differs = |(_, method, first): &&(usize, &Method, &Store)| {
                !exclusive(method)
                    && one_bucket(first, second)
                    && first
                        .setting(setting.name)
                        .is_some_and(|value| *value != setting.value)
            };
            let Some((_, first_method, first)) = puts[..i].iter().find(differs) else {
                continue;
            };
            let Some(other) = first
                .settings
                .iter()
                .find(|other| other.name == setting.name)
            else {
                continue;
            };
            let bucket = second
                .bucket
                .as_ref()
                .map(|bucket| bucket.value.as_str())
                .unwrap_or_default();
            let name = setting.name;
            errors.between(
                (
                    &setting.tokens,
                    format!(
                        "settings belong to the bucket, and for `{bucket}` the method `{}` says `{name} = {}`; say it once, or the same in both",
                        first_method.ident(),
                        other.tokens
                    ),
                ),
                (
                    &other.tokens,
                    format!("`{}` says `{name} = {}`", second_method.ident(), setting.tokens),
                ),
            );
        }
    }
}

/// A bucket that somebody gives a lifetime must keep entries for as long as its caches look for them.
fn check_lifetimes(service: &Service, errors: &mut Errors) {
    let puts = puts(service);
    for (_, cached, store) in &puts {
        let Some(cache) = &store.cache else { continue };
        let shorter = puts.iter().find_map(|(_, method, other)| {
            let together = exist_together(cached, method) && one_bucket(store, other);
            let ttl = other.settings.iter().find(|setting| setting.name == "ttl");
            let ttl = ttl.filter(|_| together)?;
            match &ttl.value {
                SettingValue::Duration(value) if *value < cache.kept() => Some((method, ttl)),
                _ => None,
            }
        });
        if let Some((method, ttl)) = shorter {
            errors.between(
                (
                    &cache.fresh.tokens,
                    format!(
                        "entries of this bucket live for {} by `{}`, which is not as long as this cache looks for them (`ttl` and `stale_on_error`); give it a bucket of its own, or shorten one of the two",
                        ttl.tokens,
                        method.ident()
                    ),
                ),
                (&ttl.tokens, "entries live for this long"),
            );
        }
    }
}

/// Gives every store of a bucket what any of them says.
fn merge_settings(service: &mut Service) {
    let mut merged: Vec<(Kind, String, Vec<Setting>)> = Vec::new();
    // As long as the longest of its caches needs; what a store says of the lifetime is longer, or an error.
    let mut kept: Vec<(String, Duration)> = Vec::new();
    for (_, _, store) in puts(service) {
        if let (Some(bucket), Some(cache)) = (&store.bucket, &store.cache) {
            match kept.iter_mut().find(|(name, _)| *name == bucket.value) {
                Some((_, longest)) => *longest = cache.kept().max(*longest),
                None => kept.push((bucket.value.clone(), cache.kept())),
            }
        }
    }
    for (_, _, store) in puts(service) {
        let Some(bucket) = &store.bucket else {
            continue;
        };
        let position = merged
            .iter()
            .position(|(kind, name, _)| *kind == store.kind && *name == bucket.value);
        let position = position.unwrap_or_else(|| {
            merged.push((store.kind, bucket.value.clone(), Vec::new()));
            merged.len() - 1
        });
        let settings = &mut merged[position].2;
        for setting in &store.settings {
            if !settings.iter().any(|known| known.name == setting.name) {
                settings.push(setting.clone());
            }
        }
    }
    for (bucket, longest) in kept {
        let settings = merged
            .iter_mut()
            .find(|(kind, name, _)| *kind == Kind::Kv && *name == bucket);
        if let Some((_, _, settings)) = settings
            && !settings.iter().any(|setting| setting.name == "ttl")
        {
            settings.push(Setting {
                name: "ttl",
                value: SettingValue::Duration(longest),
                tokens: quote!(),
            });
        }
    }
    for item in &mut service.items {
        let Item::Endpoint(method) = item else {
            continue;
        };
        for store in &mut method.stores {
            let Some(bucket) = &store.bucket else {
                continue;
            };
            let known = merged
                .iter()
                .find(|(kind, name, _)| *kind == store.kind && *name == bucket.value);
            store.settings = match known {
                Some((_, _, settings)) => {
                    let mut all = store.settings.clone();
                    let more = settings
                        .iter()
                        .filter(|setting| store.setting(setting.name).is_none());
                    all.extend(more.cloned());
                    all
                }
                // Nobody here fills it, so nobody here knows how it is to be made.
                None => vec![Setting {
                    name: "provision",
                    value: SettingValue::Provision(Provision::None),
                    tokens: quote!(),
                }],
            };
        }
    }
}

/// Stores of one bucket whose keys cannot be told apart. Whether their types differ, the compiler knows better than their
/// spelling does; it is asked only where the spelling differs.
fn overlaps(service: &Service) -> Vec<SameAnswer> {
    let puts = puts(service);
    let mut found = Vec::new();
    for (i, (second_index, second_method, second)) in puts.iter().enumerate() {
        for (first_index, first_method, first) in &puts[..i] {
            let (Some(a), Some(b)) = (&first.key, &second.key) else {
                continue;
            };
            if one_bucket(first, second)
                && a.template.overlaps(&b.template)
                && spelling(first_method) != spelling(second_method)
            {
                found.push(SameAnswer {
                    first: (*first_index, a.span),
                    second: (*second_index, b.span),
                });
            }
        }
    }
    found
}

fn spelling(method: &Method) -> String {
    match &method.output {
        Output::Result { ok, .. } => ok.to_token_stream().to_string(),
        Output::Other(ty) => ty.to_token_stream().to_string(),
    }
}
