//! The attribute macros of `nats-service`. Use them through that crate, where each has examples that run.
//!
//! | macro | on | for |
//! |---|---|---|
//! | [`macro@nats_service`] | a trait | its service, client and stores |
//! | [`macro@endpoint`] | a method of it | the endpoint's subject, time-out, metadata, queue group, name |
//! | [`macro@kv_store`], [`macro@object_store`] | the same | keeping its answers |
//! | [`macro@kv_cache`] | the same | looking for its answer before it is called |
//! | [`macro@kv_evict`], [`macro@object_evict`] | the same | removing what is kept |
//! | [`macro@message`] | a struct or an enum | serde's derives without a dependency on serde |
//! | [`derive@ServiceError`] | an enum or a struct | errors that cross the wire with their fields |
//!
//! # How it is built
//!
//! Four stages, a module each. `parse` reads syntax and keeps spans; bodies of methods stay tokens. `validate` has every rule,
//! one function a rule, and reports all mistakes at once. `model` is what is left. `expand` writes it down, and cannot fail. After
//! an error the same names are written as stubs, so that the user sees that error and not forty others.

mod diag;
mod expand;
mod message;
mod model;
mod options;
mod parse;
mod service_error;
mod stray;
mod template;
#[cfg(test)]
mod tests;
mod text;
mod validate;
mod value;

use parse::AttrKind;
use proc_macro::TokenStream;
use proc_macro2::{Ident, TokenStream as Tokens, TokenTree};

/// Turns a trait into a NATS micro service, its client and its stores.
///
/// # Options
///
/// | option | value | default |
/// |---|---|---|
/// | `name` | letters, digits, `_`, `-` | the trait's name in snake_case |
/// | `version` | a semantic version, `"1.0.0"` | the version of your crate |
/// | `subject` | the prefix of all subjects, `"v1.profiles"` | the trait's name in snake_case |
/// | `description` | a string | the first paragraph of the trait's documentation |
/// | `queue_group` | a name, or `false`: every instance gets every request | `"q"` |
/// | `timeout` | a duration, `"500ms"`, `"5s"`, `"1h30m"` (ms, s, m, h, d, w) | `"5s"` |
/// | `codec` | `"json"`, or `"msgpack"` with the feature `msgpack`, or a type that implements `Format`, `my::Cbor`, with the feature `codecs` | `"json"` |
/// | `metadata` | pairs of strings: `metadata(owner = "team-a", "x-y" = "z")` | none |
/// | `crate` | a path, where `nats-service` is renamed or re-exported | `::nats_service` |
///
/// # The trait
///
/// `#[nats_service]` reads the attributes of its methods before the compiler looks for their names, so they want no `use`: one that
/// is there all the same is reported as unused.
///
/// Every method without a body, or with one of our attributes, is an endpoint: `async fn`, `&self`, and any of
///
/// - no argument: the body is empty;
/// - one argument: it is the body;
/// - several: the body is an object with their names, in MessagePack a map with their names.
///
/// One argument may be the call's context: `#[context] ctx: &Context`, in any place. It is no part of the body, and the
/// client's method does not have it.
///
/// Requests may borrow from their message: `&str`, `Cow<'_, str>`, `Request<'_>`. Answers are owned. A method that
/// returns a `Result`, under any name, can fail with its error; any other cannot. A method with a body and without one of our
/// attributes is an ordinary helper.
///
/// # What is made of `trait Profiles`
///
/// - the trait, with `Send + Sync + 'static` as supertraits, and futures that are `Send`; implement it with `async fn`;
/// - `ProfilesServer<S>`: `new(service)`, `from_arc(arc)`, for `Server::serve`;
/// - `ProfilesClient`: `new(nats)`, `with_jetstream(js)`, `with_timeout(duration)`, `with_retry(policy)`,
///   `with_header(name, value)`, `with_context(&ctx)`, `with_events(&events)`, `with_codec(codec)`,
///   `with_prefix(prefix)`, `local(service)`, `local_from(server)`, `stores()`, and every method as a `Call`; an argument of
///   an owned type is taken by value or by reference;
/// - `ProfilesStores`: `new(js)`, and for every method that keeps its answers a typed store, `ProfilesSaveProfileStore`, with
///   `at(..)` and `matching(..)` that take the captures of its key in order, named after the last part of each;
/// - `ProfilesContract`: the description that all of them share; with the feature `schema`, `asyncapi()` gives it as a document.
///
/// All have the trait's visibility. `cfg` on a method removes everything of it; its documentation and `deprecated` go to the
/// client's method and to the store too.
#[proc_macro_attribute]
pub fn nats_service(options: TokenStream, item: TokenStream) -> TokenStream {
    service(options.into(), item.into()).into()
}

/// Options of one endpoint, on a method of a [`macro@nats_service`] trait.
///
/// | option | value | default |
/// |---|---|---|
/// | `subject` | tokens after the service's prefix, `"render"` | the method's name |
/// | `timeout` | a duration, `"500ms"`, `"5s"`, `"1h30m"` | the service's |
/// | `metadata` | pairs of strings: `metadata(slow = "yes")` | none |
/// | `queue_group` | a name, or `false`: every instance gets every request | the service's |
/// | `rename` | the name in discovery, of the client's method and of the store | the method's name |
/// | `max_in_flight` | how many requests run at once | the server's |
/// | `max_waiting`, `max_waiting_bytes` | how many more wait for their turn, and with how many bytes (`"1MiB"`); the rest are refused | the server's |
/// | `idempotent` | alone: a call may happen twice, so a client may repeat one that failed for a moment | it may not |
#[proc_macro_attribute]
pub fn endpoint(_: TokenStream, item: TokenStream) -> TokenStream {
    stray::refuse(AttrKind::Endpoint, item.into()).into()
}

/// Keeps the answers of a method in a key-value bucket, and makes a typed store of it. Any number for a method, each
/// but one with a `name`.
///
/// | option | value | default |
/// |---|---|---|
/// | `bucket` | letters, digits, `_`, `-` | required |
/// | `key` | a template, `"user.<id>"` | required |
/// | `history` | revisions kept of a key, 1 to 64 | the server's, 1 |
/// | `ttl` | how long an entry lives, `"1h"`; at least 100 ms | for ever |
/// | `key_ttl` | `true`: keys may have times to live of their own, `KvKey::with_ttl`; server 2.11 | the server's, `false` |
/// | `limit_markers` | how long the mark stays that an entry leaves when it ends by itself, `"1m"`, so that watches hear of it; allows `key_ttl`, too; server 2.11 | none |
/// | `description` | a string, kept with the bucket | none |
/// | `replicas` | copies, 1 to 5 | the server's |
/// | `storage` | `"file"` or `"memory"` | `"file"` |
/// | `max_bytes` | the whole bucket's bound: bytes, or `"64MiB"` | none |
/// | `max_value_size` | one value's bound, headers included: bytes, or `"1MiB"` | none |
/// | `compression` | `true` or `false` | the server's |
/// | `atomic` | `true`: the bucket takes transactions, which needs nats-server 2.12 | `false` |
/// | `fast_ingest` | whether the bucket takes many writes in one batch, which needs nats-server 2.14. A bucket that has it is not served by an older server | `true` in new buckets where the server can |
/// | `write` | `"after_reply"`: reply, then write; `"before_reply"`: write, then reply; `"never"` | `"after_reply"` |
/// | `provision` | `"create"`, `"warn"`, `"update"`, `"none"`: what to do at start, see `Provision` | `"create"` |
/// | `shared_key` | `true`, when a key without captures is meant | `false` |
/// | `name` | the accessor of the typed store, where it is not to be the method's | the method's name |
/// | `when` | a closure that decides whether this answer is kept, see below | every answer is |
///
/// Settings belong to the bucket: two methods that keep answers in one bucket may say a setting once, or say the same.
///
/// # Keys
///
/// Tokens joined by dots. A capture fills a whole token, with the argument of its name, or with the field of that name where the
/// method has one argument. `{id}` means the same as `<id>`.
///
/// | capture | is |
/// |---|---|
/// | `<id>` | one token: strings, integers, `bool`, `char`, and any `KeyToken` |
/// | `<address.city>` | a field of a field, or of an argument |
/// | `<response.id>` | a field of the answer |
/// | `<mail:escaped>` | any text, encoded as one token |
/// | `<path..>` | several tokens, at the end |
///
/// A value that cannot stand in its place (a dot in one token, a wildcard, nothing at all) is refused before the handler runs.
///
/// # Conditions
///
/// `when` is a closure over references, and sees nothing of what stands around it but items by their paths.
///
/// | the method takes | forms |
/// |---|---|
/// | nothing | `when = \|response\| ..` |
/// | one argument | `when = \|request, response\| ..`, `when = \|response\| ..` |
/// | several, `a` and `b` | `when = \|a, b, response\| ..`, `when = \|response\| ..` |
///
/// It is asked once, after the handler has succeeded. One that looks at the request (a parameter that is not `_`) costs a second
/// decoding of it, since the handler has taken the first; one that looks at the answer alone costs nothing. A panic in it is a
/// handler's.
#[proc_macro_attribute]
pub fn kv_store(_: TokenStream, item: TokenStream) -> TokenStream {
    stray::refuse(AttrKind::KvStore, item.into()).into()
}

/// Looks for the answer in a key-value bucket first, and calls the handler only where there is none: a read-through cache, with one
/// flight a key. One for a method; other stores of it are written when the handler is called.
///
/// | option | value | default |
/// |---|---|---|
/// | `bucket` | letters, digits, `_`, `-` | required |
/// | `key` | a template, as for [`macro@kv_store`], of the request alone | required |
/// | `ttl` | how long an answer is fresh, `"10m"`; at least 100 ms | required |
/// | `single_flight` | `"process"`: one handler call a key in an instance; `"cluster"`: among all instances | `"process"` |
/// | `stale_on_error` | how long after that it may still be given when the handler fails, `"1h"` | never |
/// | `cache_none` | how long an answer that is nothing (`None`) is kept, `"10s"` | not at all |
/// | `cache_errors` | the service's errors that are kept, and how long: `cache_errors(NotFound = "10s")` | none |
/// | `lookup_timeout` | how long a look into the bucket may take; then the handler is called | `"250ms"` |
/// | `write` | `"after_reply"`, or `"before_reply"`: the reply follows the write | `"after_reply"` |
/// | `when` | a closure that decides whether this answer is kept, as for [`macro@kv_store`] | every answer is |
/// | `name` | the accessor of the typed store | the method's name |
/// | `description`, `replicas`, `storage`, `max_bytes`, `max_value_size`, `compression`, `atomic`, `fast_ingest`, `provision`, `shared_key` | as for [`macro@kv_store`] | |
///
/// The bucket keeps entries for `ttl` and `stale_on_error` together; of several caches in it, for the longest.
#[proc_macro_attribute]
pub fn kv_cache(_: TokenStream, item: TokenStream) -> TokenStream {
    stray::refuse(AttrKind::KvCache, item.into()).into()
}

/// Removes an entry of a key-value bucket after a successful call. Any number for a method.
///
/// | option | value | default |
/// |---|---|---|
/// | `bucket` | letters, digits, `_`, `-` | required |
/// | `key` | a template, as for [`macro@kv_store`] | required |
/// | `write` | `"after_reply"` or `"before_reply"` | `"after_reply"` |
/// | `when` | a closure that decides whether this call removes it, as for [`macro@kv_store`] | every successful call does |
///
/// The bucket's settings are those of the methods that fill it; where none of the service does, it has to exist.
#[proc_macro_attribute]
pub fn kv_evict(_: TokenStream, item: TokenStream) -> TokenStream {
    stray::refuse(AttrKind::KvEvict, item.into()).into()
}

/// Keeps the answers of a method in an object store, which takes answers of any size. Any number for a method, each
/// but one with a `name`.
///
/// | option | value | default |
/// |---|---|---|
/// | `bucket` | letters, digits, `_`, `-` | required |
/// | `key` | a template, as for [`macro@kv_store`]: the object's name | required |
/// | `ttl` | how long an entry lives, `"1h"`; at least 100 ms | for ever |
/// | `description` | a string, kept with the bucket | none |
/// | `replicas` | copies, 1 to 5 | the server's |
/// | `storage` | `"file"` or `"memory"` | `"file"` |
/// | `max_bytes` | the whole bucket's bound: bytes, or `"64MiB"` | none |
/// | `compression` | `true` or `false` | the server's |
/// | `write` | `"after_reply"`: reply, then write; `"before_reply"`: write, then reply; `"never"` | `"after_reply"` |
/// | `provision` | `"create"`, `"warn"`, `"update"`, `"none"`: what to do at start, see `Provision` | `"create"` |
/// | `shared_key` | `true`, when a key without captures is meant | `false` |
/// | `name` | the accessor of the typed store, where it is not to be the method's | the method's name |
/// | `when` | a closure that decides whether this answer is kept, see below | every answer is |
///
/// Settings belong to the bucket: two methods that keep answers in one bucket may say a setting once, or say the same.
#[proc_macro_attribute]
pub fn object_store(_: TokenStream, item: TokenStream) -> TokenStream {
    stray::refuse(AttrKind::ObjectStore, item.into()).into()
}

/// Removes an object after a successful call. Any number for a method. The options are those of [`macro@kv_evict`].
#[proc_macro_attribute]
pub fn object_evict(_: TokenStream, item: TokenStream) -> TokenStream {
    stray::refuse(AttrKind::ObjectEvict, item.into()).into()
}

/// Derives `Serialize` and `Deserialize` for a request or an answer, through `nats_service`: for crates that do not depend on
/// serde themselves. Attributes of serde work as ever.
///
/// | option | value | default |
/// |---|---|---|
/// | `schema` | alone: derives `JsonSchema` too, with the feature `schema`; attributes of schemars work | not derived |
/// | `crate` | a path, where `nats-service` is renamed or re-exported | `::nats_service` |
#[proc_macro_attribute]
pub fn message(options: TokenStream, item: TokenStream) -> TokenStream {
    message::expand(options.into(), item.into()).into()
}

/// Makes an error type one that a service can answer with: its code and text for everybody, its variant and fields for callers
/// that know the type.
///
/// | option of `#[service_error(..)]` | on | value |
/// |---|---|---|
/// | `code` | a variant, a struct, or an enum as the default of its variants | a name of `Code`: `NotFound` |
/// | `message` | all variants, or a struct | a format string over the fields: `"no profile {id}"`, `"{0:?}"` |
/// | `crate` | the type | a path, where `nats-service` is renamed or re-exported |
///
/// With messages it implements `Display` and `Error`; without any these are yours, or another derive's. Fields are sent as JSON, so
/// they implement serde's traits; the error type itself need not. No type parameters.
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
