//! What is to be generated. Once `validate` reports no error, every value here is right: names are names, captures lead
//! somewhere, settings of one bucket agree.
//!
//! With errors the same model still describes names and signatures, and `expand` then makes stubs of them.

use crate::options::Spanned;
use crate::template::{Form, Template};
use proc_macro2::{Span, TokenStream};
use std::time::Duration;
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Generics, Ident, Signature, Token, TraitItem, Type, TypeParamBound, Visibility,
};

pub(crate) struct Service {
    /// The path of `nats_service`.
    pub(crate) krate: syn::Path,
    pub(crate) vis: Visibility,
    pub(crate) trait_token: Token![trait],
    pub(crate) brace: syn::token::Brace,
    pub(crate) ident: Ident,
    pub(crate) attrs: Vec<Attribute>,
    /// `deprecated` and `allow`, for what a user names. A `cfg` is gone before we see it.
    pub(crate) deprecated: Vec<Attribute>,
    /// Only of a broken trait; a service has none.
    pub(crate) generics: Generics,
    /// As they were written.
    pub(crate) supertraits: Punctuated<TypeParamBound, Token![+]>,
    pub(crate) name: String,
    /// `None` for the version of the user's crate.
    pub(crate) version: Option<String>,
    pub(crate) description: String,
    pub(crate) metadata: Vec<(String, String)>,
    pub(crate) codec: Codec,
    pub(crate) items: Vec<Item>,
    /// Pairs of stores in one bucket with overlapping keys: the compiler compares their types, at both literals.
    pub(crate) same_answers: Vec<SameAnswer>,
}

pub(crate) enum Codec {
    Json,
    MessagePack,
    /// A type of the user's.
    Own(syn::Path),
}

pub(crate) enum Item {
    Endpoint(Box<Method>),
    /// A method with a default body.
    Helper(Box<Helper>),
    Other(Box<TraitItem>),
}

pub(crate) struct Helper {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) sig: Signature,
    pub(crate) body: Option<TokenStream>,
}

pub(crate) struct Method {
    /// The trait's method.
    pub(crate) sig: Signature,
    pub(crate) body: Option<TokenStream>,
    pub(crate) attrs: Vec<Attribute>,
    /// The client's method and the stores' accessor.
    pub(crate) public: Ident,
    /// Part of the names of generated types: `SaveProfile`.
    pub(crate) camel: String,
    pub(crate) name: String,
    pub(crate) subject: Spanned<String>,
    pub(crate) description: String,
    pub(crate) queue_group: Option<String>,
    /// The method says it, and not the service.
    pub(crate) own_queue_group: bool,
    pub(crate) timeout: Duration,
    pub(crate) idempotent: bool,
    pub(crate) metadata: Vec<(String, String)>,
    /// `max_in_flight`, `max_waiting`, `max_waiting_bytes`.
    pub(crate) limits: [Option<u64>; 3],
    /// The body's parts.
    pub(crate) args: Vec<Arg>,
    /// The argument that the framework fills in, which is no part of the body.
    pub(crate) context: Option<ContextArg>,
    /// Of a method that answers with a stream, with the item in place of the stream.
    pub(crate) output: Output,
    /// The stream that it answers with.
    pub(crate) answers: Option<Answers>,
    /// The argument that is a stream; it is none of `args`.
    pub(crate) upload: Option<Upload>,
    pub(crate) stores: Vec<Store>,
}

/// A stream of answers.
pub(crate) struct Answers {
    /// What it stands for.
    pub(crate) typed: Output,
    /// What the handler may fail with before it begins.
    pub(crate) error: Option<Type>,
}

/// A stream of requests.
pub(crate) struct Upload {
    pub(crate) ident: Ident,
    pub(crate) item: Type,
    /// How many other arguments stand before it.
    pub(crate) at: usize,
}

pub(crate) struct Arg {
    pub(crate) ident: Ident,
    pub(crate) ty: Type,
}

/// `#[context] ctx: &Context`
pub(crate) struct ContextArg {
    /// How many of `args` stand before it.
    pub(crate) position: usize,
    /// What is behind the reference; the compiler says whether it is a context.
    pub(crate) ty: Type,
}

/// What the method returns.
pub(crate) enum Output {
    /// `..::Result<T, E>`, as written.
    Result { ok: Box<Type>, err: Box<Type> },
    /// Anything else, an alias of `Result` included: the type itself says which.
    Other(Box<Type>),
}

pub(crate) struct Store {
    pub(crate) kind: Kind,
    pub(crate) action: Action,
    pub(crate) bucket: Option<Spanned<String>>,
    /// What this attribute says of the bucket, and after `validate` what any of its service does.
    pub(crate) settings: Vec<Setting>,
    pub(crate) key: Option<Key>,
    pub(crate) write: Write,
    pub(crate) shared_key: bool,
    /// The accessor of the typed store, and the part of its type's name. Nothing for what only removes.
    pub(crate) public: Option<(Ident, String)>,
    pub(crate) when: Option<When>,
    pub(crate) is_cache: bool,
    /// There when it is one and nothing is wrong with it.
    pub(crate) cache: Option<Cache>,
}

/// What `#[kv_cache(..)]` says beyond a store.
pub(crate) struct Cache {
    /// `ttl`
    pub(crate) fresh: Spanned<Duration>,
    pub(crate) stale: Option<Duration>,
    pub(crate) none: Option<Duration>,
    /// Names of codes.
    pub(crate) errors: Vec<(String, Duration)>,
    pub(crate) lookup: Duration,
    pub(crate) flight: Flight,
}

/// Among whom one call of a key is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flight {
    Process,
    Cluster,
}

/// `when = |request, response| ..`
pub(crate) struct When {
    /// With a parameter for each argument and one for the answer, or with the one alone.
    pub(crate) closure: syn::ExprClosure,
    pub(crate) reads_request: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Kv,
    Object,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Put,
    Evict,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Write {
    AfterReply,
    BeforeReply,
    Never,
}

/// One setting of a bucket.
#[derive(Clone)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) value: SettingValue,
    pub(crate) tokens: TokenStream,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SettingValue {
    Number(u64),
    Duration(Duration),
    Text(String),
    Storage(Storage),
    Bool(bool),
    Provision(Provision),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    File,
    Memory,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Provision {
    Create,
    Warn,
    Update,
    None,
}

/// A template whose captures lead somewhere.
#[derive(Clone)]
pub(crate) struct Key {
    pub(crate) template: Template,
    /// The literal.
    pub(crate) tokens: TokenStream,
    pub(crate) span: Span,
    pub(crate) captures: Vec<Source>,
}

/// Where a captured value comes from.
#[derive(Clone)]
pub(crate) struct Source {
    pub(crate) name: String,
    pub(crate) form: Form,
    pub(crate) from: From,
    /// Fields, from there on.
    pub(crate) fields: Vec<String>,
    /// The parameter of `at` and `matching`.
    pub(crate) parameter: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The argument of this number.
    Argument(usize),
    Response,
}

impl From {
    pub(crate) fn is_request(self) -> bool {
        matches!(self, From::Argument(_))
    }
}

/// Two stores whose answers must be of one type.
pub(crate) struct SameAnswer {
    pub(crate) first: (usize, Span),
    pub(crate) second: (usize, Span),
}

/// Names of the generated client and stores, or methods that every type has and that one of ours would hide.
pub(crate) const RESERVED: &[&str] = &[
    "new",
    "with_jetstream",
    "with_timeout",
    "with_retry",
    "with_header",
    "with_context",
    "local",
    "local_from",
    "layer",
    "with_events",
    "with_codec",
    "with_prefix",
    "stores",
    "clone",
];

impl Service {
    /// The methods, and after an error only those whose generated names are free.
    pub(crate) fn named(&self, inert: bool) -> Vec<&Method> {
        let mut named: Vec<&Method> = Vec::new();
        for method in self.methods() {
            let taken = RESERVED.contains(&method.public.to_string().as_str())
                || named
                    .iter()
                    .any(|other| other.camel == method.camel && other.cfgs().is_empty());
            if !inert || !taken {
                named.push(method);
            }
        }
        named
    }

    pub(crate) fn methods(&self) -> impl Iterator<Item = &Method> {
        self.items.iter().filter_map(|item| match item {
            Item::Endpoint(method) => Some(&**method),
            _ => None,
        })
    }
}

impl Method {
    pub(crate) fn streams(&self) -> bool {
        self.answers.is_some() || self.upload.is_some()
    }

    pub(crate) fn ident(&self) -> &Ident {
        &self.sig.ident
    }

    fn attrs_named<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Attribute> {
        self.attrs
            .iter()
            .filter(move |attr| attr.path().is_ident(name))
    }

    /// On everything that is made of the method.
    pub(crate) fn cfgs(&self) -> Vec<&Attribute> {
        self.attrs_named("cfg").collect()
    }

    /// On items of its own: `cfg`, and the lints that it allows, since its types are named there again.
    pub(crate) fn guards(&self) -> Vec<&Attribute> {
        self.attrs_named("cfg")
            .chain(self.attrs_named("allow"))
            .collect()
    }

    /// On what a user calls.
    pub(crate) fn deprecated(&self) -> Vec<&Attribute> {
        self.attrs_named("deprecated").collect()
    }

    pub(crate) fn docs(&self) -> Vec<&Attribute> {
        self.attrs_named("doc").collect()
    }

    /// The stores that keep its answer, with their places among all.
    pub(crate) fn puts(&self) -> impl Iterator<Item = (usize, &Store)> {
        self.stores
            .iter()
            .enumerate()
            .filter(|(_, store)| store.action == Action::Put)
    }
}

impl Store {
    pub(crate) fn setting(&self, name: &str) -> Option<&SettingValue> {
        self.settings
            .iter()
            .find(|setting| setting.name == name)
            .map(|setting| &setting.value)
    }
}

impl Cache {
    /// How long its entries have to stay in the bucket.
    pub(crate) fn kept(&self) -> Duration {
        self.fresh.value + self.stale.unwrap_or_default()
    }
}

impl Kind {
    pub(crate) fn store_attribute(self) -> &'static str {
        match self {
            Kind::Kv => "kv_store",
            Kind::Object => "object_store",
        }
    }
}
