//! Rules of `#[kv_store(..)]`, `#[kv_cache(..)]`, `#[kv_evict(..)]`, `#[object_store(..)]` and `#[object_evict(..)]`, one at a
//! time. What two of them must agree on is in `conflicts`; what is the cache's own, in `cache`.

use super::{cache, key, when};
use crate::diag::Errors;
use crate::model::{
    Action, Arg, Kind, Output, Provision, RESERVED, Setting, SettingValue, Storage, Store, Write,
};
use crate::options::{self, Opt, Reader, Spanned};
use crate::parse::{AttrKind, MethodInput, OurAttr};
use crate::{text, value};
use syn::Ident;
use syn::ext::IdentExt as _;

const KV_STORE: &[&str] = &[
    "bucket",
    "key",
    "history",
    "ttl",
    "key_ttl",
    "limit_markers",
    "description",
    "replicas",
    "storage",
    "max_bytes",
    "max_value_size",
    "compression",
    "atomic",
    "fast_ingest",
    "write",
    "provision",
    "shared_key",
    "name",
    "when",
];
const KV_CACHE: &[&str] = &[
    "bucket",
    "key",
    "ttl",
    "single_flight",
    "stale_on_error",
    "cache_none",
    "cache_errors",
    "lookup_timeout",
    "description",
    "replicas",
    "storage",
    "max_bytes",
    "max_value_size",
    "compression",
    "atomic",
    "fast_ingest",
    "write",
    "provision",
    "shared_key",
    "name",
    "when",
];
/// Of a cache alone.
const CACHE_ONLY: &[&str] = &[
    "single_flight",
    "stale_on_error",
    "cache_none",
    "cache_errors",
    "lookup_timeout",
];
const OBJECT_STORE: &[&str] = &[
    "bucket",
    "key",
    "ttl",
    "description",
    "replicas",
    "storage",
    "max_bytes",
    "compression",
    "write",
    "provision",
    "shared_key",
    "name",
    "when",
];
const REQUIRED: &[&str] = &["bucket", "key"];
const EVICT: &[&str] = &["bucket", "key", "write", "when"];

/// All stores of one method.
pub(super) fn stores(
    input: &MethodInput,
    public: &Ident,
    args: &[Arg],
    output: &Output,
    errors: &mut Errors,
) -> Vec<Store> {
    let mut stores: Vec<(Store, &OurAttr)> = Vec::new();
    for attr in &input.ours {
        let (kind, action) = match attr.kind {
            AttrKind::Endpoint => continue,
            AttrKind::KvStore | AttrKind::KvCache => (Kind::Kv, Action::Put),
            AttrKind::KvEvict => (Kind::Kv, Action::Evict),
            AttrKind::ObjectStore => (Kind::Object, Action::Put),
            AttrKind::ObjectEvict => (Kind::Object, Action::Evict),
        };
        let store = store(attr, kind, action, input, args, output, errors);
        check_against_earlier(&store, attr, &stores, errors);
        stores.push((store, attr));
    }
    for (store, _) in &mut stores {
        if store.action == Action::Put && store.public.is_none() {
            store.public = Some((
                public.clone(),
                text::camel_case(&public.unraw().to_string()),
            ));
        }
    }
    stores.into_iter().map(|(store, _)| store).collect()
}

/// One store at most that is named after the method, and no key twice.
fn check_against_earlier(
    store: &Store,
    attr: &OurAttr,
    earlier: &[(Store, &OurAttr)],
    errors: &mut Errors,
) {
    let unnamed = |store: &Store| store.action == Action::Put && store.public.is_none();
    if unnamed(store)
        && let Some((_, first)) = earlier.iter().find(|(other, _)| unnamed(other))
    {
        errors.between(
                (
                    attr.tokens.path(),
                    "a method that keeps its answer in several stores names all but one of them, since each has an accessor; add `name = \"..\"`",
                ),
                (first.tokens.path(), "this one is named after the method already"),
            );
    }
    if attr.kind == AttrKind::KvCache
        && let Some((_, first)) = earlier.iter().find(|(other, _)| other.is_cache)
    {
        errors.between(
            (
                attr.tokens.path(),
                "a call is looked up in one cache; keep one of the two",
            ),
            (first.tokens.path(), "the first is here"),
        );
    }
    let (Some(bucket), Some(key)) = (&store.bucket, &store.key) else {
        return;
    };
    for (other, other_attr) in earlier {
        let same_bucket = other.kind == store.kind
            && other
                .bucket
                .as_ref()
                .is_some_and(|other| other.value == bucket.value);
        let both_put = other.action == Action::Put && store.action == Action::Put;
        if same_bucket && both_put && other.is_cache != store.is_cache {
            errors.between(
                (
                    attr.tokens.path(),
                    "a cache keeps the answers itself, so in one bucket a method has either `kv_cache` or `kv_store`; keep one of the two",
                ),
                (other_attr.tokens.path(), "the other is here"),
            );
            continue;
        }
        if let Some(first) = other.key.as_ref().filter(|_| same_bucket)
            && first.template.tokens_alike(&key.template)
        {
            errors.between(
                    (
                        &key.tokens,
                        "this key of this bucket is stored or removed by the method already; remove one of the two",
                    ),
                    (&first.tokens, "the same key is named here"),
                );
        }
    }
}

fn store(
    attr: &OurAttr,
    kind: Kind,
    action: Action,
    input: &MethodInput,
    args: &[Arg],
    output: &Output,
    errors: &mut Errors,
) -> Store {
    let name = attr.kind.name();
    let is_cache = attr.kind == AttrKind::KvCache;
    let known = match (kind, action) {
        _ if is_cache => KV_CACHE,
        (Kind::Kv, Action::Put) => KV_STORE,
        (Kind::Object, Action::Put) => OBJECT_STORE,
        (_, Action::Evict) => EVICT,
    };
    let (options, readable) = match &attr.options {
        Ok(options) => (options.0.as_slice(), true),
        Err(error) => {
            errors.push(error.clone());
            (&[][..], false)
        }
    };
    options::check_names(
        options,
        name,
        known,
        &|option| elsewhere(option, attr.kind, kind, action),
        errors,
    );
    if readable {
        check_required(attr, options, input, args, errors);
    }
    let mut reader = Reader { options, errors };
    let bucket = reader.parsed("bucket", "\"user_profiles\"", |text| {
        value::name("a bucket's name", text).map(|()| text.to_owned())
    });
    let write = write(&mut reader, action, is_cache);
    let mut settings = match action {
        Action::Put => settings(&mut reader, kind, is_cache),
        Action::Evict => Vec::new(),
    };
    let shared_key = match action {
        Action::Put => reader
            .boolean("shared_key")
            .is_some_and(|shared| shared.value),
        Action::Evict => true,
    };
    let key = reader
        .string("key", "\"user.<id>\"")
        .and_then(|literal| key::key(&literal, args, output, reader.errors));
    let when = reader
        .closure("when", &when::form(args))
        .and_then(|closure| when::when(closure, args, reader.errors));
    // Of a cache it is how long an answer is fresh; how long the bucket keeps it, `conflicts` makes of that.
    let ttl = settings
        .iter()
        .position(|setting| is_cache && setting.name == "ttl");
    let fresh = ttl.map(|position| settings.remove(position));
    let cache = is_cache
        .then(|| cache::cache(&mut reader, attr, fresh))
        .flatten();
    let key = key.filter(|key| !is_cache || cache::check_key(key, args, reader.errors));
    if is_cache {
        cache::check_use(attr, output, reader.errors);
    }
    let public = match action {
        Action::Put => reader.parsed("name", "\"copies\"", accessor),
        Action::Evict => None,
    };
    let public = public.map(|name| {
        let ident = Ident::new(&name.value, name.span());
        (ident, text::camel_case(&name.value))
    });
    Store {
        kind,
        action,
        bucket,
        settings,
        key,
        write,
        shared_key,
        public,
        when,
        is_cache,
        cache,
    }
}

/// The name of a store is that of a method of `..Stores`.
fn accessor(text: &str) -> Result<String, String> {
    value::name("a store's name", text)?;
    if RESERVED.contains(&text) {
        return Err(format!(
            "the generated stores have a method `{text}` of their own; choose another name, `\"{text}_copy\"` say"
        ));
    }
    if syn::parse_str::<Ident>(text).is_err() {
        return Err(format!(
            "`{text}` cannot be the name of a method, which the stores make of it; choose one that can, in snake_case"
        ));
    }
    Ok(text.to_owned())
}

/// Why an option that another attribute has is not one of this.
fn elsewhere(option: &str, attribute: AttrKind, kind: Kind, action: Action) -> Option<String> {
    let settings = KV_STORE.contains(&option) || OBJECT_STORE.contains(&option);
    if attribute == AttrKind::KvCache && option == "history" {
        return Some("`history` is for `#[kv_store]` only: a cache keeps the latest answer of a key; remove it".into());
    }
    if CACHE_ONLY.contains(&option) {
        return Some(format!(
            "`{option}` is for `#[kv_cache]` only, which looks into the bucket before the call; use that attribute, or remove the option"
        ));
    }
    match (kind, action, option) {
        (_, Action::Evict, "name") => Some("an eviction has no typed store, so there is nothing to name; remove `name`".into()),
        (_, Action::Evict, "shared_key") => Some("`shared_key` is not needed here: removing one key on every call is what it says".into()),
        (_, Action::Evict, _) if settings => Some(format!(
            "`{option}` is a setting of the bucket, and stands where the bucket is filled: in `#[{}]`",
            kind.store_attribute()
        )),
        (Kind::Object, Action::Put, "history") => Some(
            "`history` is for `#[kv_store]` only: an object store keeps the latest object of a name; remove it, or put a version into the key".into(),
        ),
        (Kind::Object, Action::Put, "max_value_size") => Some(
            "`max_value_size` is for `#[kv_store]` only: an object is stored in chunks and may be of any size; bound the whole bucket with `max_bytes`".into(),
        ),
        (Kind::Object, Action::Put, "key_ttl" | "limit_markers") => Some(format!(
            "`{option}` is for `#[kv_store]` only: objects have no times to live of their own; let them all live as long with `ttl`"
        )),
        (Kind::Object, Action::Put, "atomic" | "fast_ingest") => Some(format!(
            "`{option}` is for `#[kv_store]` only: an object is written in chunks, one object at a time; remove it"
        )),
        (_, _, "bucket_name") => Some("the bucket is named by `bucket`; write `bucket = \"..\"`".into()),
        (_, _, "max_age" | "expires") => Some("how long an entry lives is `ttl`; write `ttl = \"1h\"`".into()),
        _ => None,
    }
}

fn check_required(
    attr: &OurAttr,
    options: &[Opt],
    input: &MethodInput,
    args: &[Arg],
    errors: &mut Errors,
) {
    // A misspelt one is there, and reported.
    let has = |name: &str| {
        let is = |option: &Opt| {
            option.name == name || text::nearest(&option.name, REQUIRED) == Some(name)
        };
        options.iter().any(is)
    };
    let name = attr.kind.name();
    if !has("bucket") {
        errors.at(
            attr.tokens.path(),
            format!("`#[{name}]` needs the bucket; add `bucket = \"user_profiles\"`, say"),
        );
    }
    if !has("key") {
        let method = &input.sig.ident;
        let example = match args {
            [] => format!("`key = \"{method}\"`, say"),
            [one] => format!(
                "`key = \"{method}.<field>\"` with a field of `{0}`, or `key = \"{method}.<{0}>\"` when that is the key itself",
                one.ident
            ),
            several => {
                let names: Vec<String> = several
                    .iter()
                    .map(|arg| format!("<{}>", arg.ident))
                    .collect();
                format!("`key = \"{method}.{}\"`, say", names.join("."))
            }
        };
        errors.at(
            attr.tokens.path(),
            format!("`#[{name}]` needs the key of the entry; add {example}"),
        );
    }
}

fn write(reader: &mut Reader<'_>, action: Action, is_cache: bool) -> Write {
    let store = [
        (
            "after_reply",
            Write::AfterReply,
            "reply, then write; the default",
        ),
        (
            "before_reply",
            Write::BeforeReply,
            "write, wait for the acknowledgement, then reply",
        ),
        (
            "never",
            Write::Never,
            "write nothing; just the typed store is generated",
        ),
    ];
    let choices = match action {
        // A cache that is never written is none.
        Action::Put if is_cache => &store[..2],
        Action::Put => &store[..],
        Action::Evict => &store[..2],
    };
    reader
        .choice("write", choices)
        .map_or(Write::AfterReply, |write| write.value)
}

fn settings(reader: &mut Reader<'_>, kind: Kind, is_cache: bool) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut add = |name: &'static str, value: Option<Spanned<SettingValue>>| {
        if let Some(Spanned { value, tokens }) = value {
            settings.push(Setting {
                name,
                value,
                tokens,
            });
        }
    };
    if kind == Kind::Kv && !is_cache {
        let history = reader.number(
            "history",
            (1, 64),
            "the revisions kept of a key; the server keeps no more than 64",
        );
        add(
            "history",
            history.map(|value| value.map(SettingValue::Number)),
        );
    }
    if kind == Kind::Kv {
        let key_ttl = reader.boolean("key_ttl");
        let without = key_ttl.as_ref().is_some_and(|allowed| !allowed.value);
        add(
            "key_ttl",
            key_ttl.map(|value| value.map(SettingValue::Bool)),
        );
        let markers = reader.duration("limit_markers").filter(|stay| {
            let whole = stay.value.as_secs() > 0 && stay.value.subsec_nanos() == 0;
            if !whole {
                reader.errors.at(
                    &stay.tokens,
                    "the server counts whole seconds here, and at least one; write `limit_markers = \"1m\"`",
                );
            } else if without {
                reader.errors.at(
                    &stay.tokens,
                    "limit markers need times to live of keys; remove `key_ttl = false`",
                );
            }
            whole
        });
        add(
            "limit_markers",
            markers.map(|value| value.map(SettingValue::Duration)),
        );
        let bound = reader.size("max_value_size").filter(|size| {
            let fits = i32::try_from(size.value).is_ok();
            if !fits {
                reader.errors.at(
                    &size.tokens,
                    "one value cannot have 2 GiB; for large answers use `#[object_store]`",
                );
            }
            fits
        });
        add(
            "max_value_size",
            bound.map(|value| value.map(SettingValue::Number)),
        );
    }
    let ttl = reader.duration("ttl").filter(|ttl| {
        let fits = ttl.value.as_millis() >= 100;
        if !fits {
            reader.errors.at(
                &ttl.tokens,
                "the server takes no `ttl` below 100 milliseconds; write `ttl = \"100ms\"` or more",
            );
        }
        fits
    });
    add("ttl", ttl.map(|value| value.map(SettingValue::Duration)));
    let text = reader.string("description", "\"what it holds\"");
    add(
        "description",
        text.map(|value| value.map(SettingValue::Text)),
    );
    let replicas = reader.number(
        "replicas",
        (1, 5),
        "the copies of the bucket; 3 survive the loss of one node",
    );
    add(
        "replicas",
        replicas.map(|value| value.map(SettingValue::Number)),
    );
    let storage = reader.choice(
        "storage",
        &[
            ("file", Storage::File, "on disk; the default"),
            ("memory", Storage::Memory, "gone when the server stops"),
        ],
    );
    add(
        "storage",
        storage.map(|value| value.map(SettingValue::Storage)),
    );
    let bound = reader.size("max_bytes");
    add(
        "max_bytes",
        bound.map(|value| value.map(SettingValue::Number)),
    );
    let compression = reader.boolean("compression");
    add(
        "compression",
        compression.map(|value| value.map(SettingValue::Bool)),
    );
    let atomic = reader.boolean("atomic");
    add("atomic", atomic.map(|value| value.map(SettingValue::Bool)));
    let ingest = reader.boolean("fast_ingest");
    add(
        "fast_ingest",
        ingest.map(|value| value.map(SettingValue::Bool)),
    );
    let provision = reader.choice(
        "provision",
        &[
            (
                "create",
                Provision::Create,
                "make it when missing, refuse to start when it differs; the default",
            ),
            (
                "warn",
                Provision::Warn,
                "make it when missing, log a warning when it differs",
            ),
            (
                "update",
                Provision::Update,
                "make it when missing, otherwise change the settings named here",
            ),
            ("none", Provision::None, "only bind to one that exists"),
        ],
    );
    add(
        "provision",
        provision.map(|value| value.map(SettingValue::Provision)),
    );
    settings
}

impl<T> Spanned<T> {
    fn map<U>(self, f: impl FnOnce(T) -> U) -> Spanned<U> {
        Spanned {
            value: f(self.value),
            tokens: self.tokens,
        }
    }
}
