//! The constants of the contract, and a hidden type for each method that carries them.

use super::names::Names;
use super::{checks, handle, schema};
use crate::model::{
    Action, Cache, Codec, Flight, From, Kind, Method, SettingValue, Source, Storage, Store, Write,
};
use crate::template::{Form, Token};
use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use std::time::Duration;
use syn::ext::IdentExt as _;

pub(super) fn expand(names: &Names<'_>) -> TokenStream {
    let Names {
        service,
        private,
        contract,
        inert,
        ..
    } = names;
    let (vis, name, description) = (&service.vis, &service.name, &service.description);
    let version = match &service.version {
        Some(version) => quote!(#version),
        None => quote!(::core::env!("CARGO_PKG_VERSION")),
    };
    let metadata = pairs(&service.metadata);
    let methods = service.methods().map(|method| {
        let (cfgs, hidden) = (method.cfgs(), names.method(method));
        quote!(#(#cfgs)* <#hidden as #private::Method>::SPEC,)
    });
    let methods = if *inert {
        quote!()
    } else {
        quote!(#(#methods)*)
    };
    let doc = format!(
        "The contract of [`{}`]: names, subjects, time-outs and stores, as the framework reads them.",
        service.ident
    );
    let doc_spec = "The description of the service and of all its methods.";
    let implementations = service
        .methods()
        .filter(|_| !*inert)
        .map(|method| implementation(names, method));
    let checks = checks::same_answers(names);
    let (asyncapi, described) = schema::expand(names);
    quote! {
        #[doc = #doc]
        #[allow(dead_code)]
        #vis struct #contract;

        #[allow(dead_code)]
        impl #contract {
            #[doc = #doc_spec]
            #vis const SPEC: &'static #private::ServiceSpec = &#private::ServiceSpec {
                name: #name,
                version: #version,
                description: #description,
                metadata: #metadata,
                methods: &[#methods],
            };

            #asyncapi
        }

        impl ::core::fmt::Debug for #contract {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(Self::SPEC, f)
            }
        }

        #(#implementations)*
        #described
        #checks
    }
}

fn pairs(pairs: &[(String, String)]) -> TokenStream {
    let pairs = pairs.iter().map(|(name, value)| quote!((#name, #value)));
    quote!(&[#(#pairs),*])
}

/// The hidden type of one method.
fn implementation(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    let (hidden, cfgs) = (names.method(method), method.guards());
    let spec = spec(names, method);
    let (answer, error) = names.outcome(method);
    let args = handle::args_struct(names, method);
    let handle = match method.streams() {
        true => handle::stream(names, method),
        false => handle::handle(names, method),
    };
    let shared = checks::shared_key_warnings(method);
    quote! {
        #(#cfgs)*
        #[doc(hidden)]
        enum #hidden {}

        #(#cfgs)*
        impl #private::Method for #hidden {
            const SPEC: &'static #private::MethodSpec = &#spec;
            type Answer = #answer;
            type Error = #error;
        }

        #args
        #handle
        #(#cfgs)*
        const _: () = { #shared };
    }
}

fn spec(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    let Method {
        name,
        subject,
        description,
        idempotent,
        ..
    } = method;
    let subject = &subject.value;
    let queue_group = option(method.queue_group.as_ref().map(|group| quote!(#group)));
    let own_queue_group = method.own_queue_group;
    let timeout = duration(method.timeout);
    let context = method.context.is_some();
    let [max_in_flight, max_waiting, max_waiting_bytes] = method.limits.map(|limit| {
        // Without a suffix: the field's type is the number's.
        let limit = limit.map(proc_macro2::Literal::u64_unsuffixed);
        option(limit.map(|limit| quote!(#limit)))
    });
    let metadata = pairs(&method.metadata);
    let codec = match &names.service.codec {
        Codec::Json => quote!(#private::Codec::Json),
        Codec::MessagePack => quote!(#private::Codec::MessagePack),
        // Without the feature the path is an error already.
        Codec::Own(_) if !cfg!(feature = "codecs") => quote!(#private::Codec::Json),
        Codec::Own(path) => quote!(#private::Codec::of::<#path>()),
    };
    let stream = match (&method.answers, &method.upload) {
        (None, None) => quote!(None),
        (Some(_), None) => quote!(Answers),
        (None, Some(_)) => quote!(Requests),
        (Some(_), Some(_)) => quote!(Both),
    };
    let stores = method.stores.iter().map(|store| store_spec(names, store));
    quote! {
        #private::MethodSpec {
            name: #name,
            subject: #subject,
            description: #description,
            queue_group: #queue_group,
            own_queue_group: #own_queue_group,
            timeout: #timeout,
            idempotent: #idempotent,
            metadata: #metadata,
            codec: #codec,
            max_in_flight: #max_in_flight,
            max_waiting: #max_waiting,
            max_waiting_bytes: #max_waiting_bytes,
            context: #context,
            stream: #private::StreamMode::#stream,
            stores: &[#(#stores),*],
        }
    }
}

fn option(value: Option<TokenStream>) -> TokenStream {
    match value {
        Some(value) => quote!(::core::option::Option::Some(#value)),
        None => quote!(::core::option::Option::None),
    }
}

fn duration(duration: Duration) -> TokenStream {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    quote!(::core::time::Duration::from_millis(#millis))
}

fn store_spec(names: &Names<'_>, store: &Store) -> TokenStream {
    let private = &names.private;
    let kind = match store.kind {
        Kind::Kv => quote!(Kv),
        Kind::Object => quote!(Object),
    };
    let action = match store.action {
        Action::Put => quote!(Put),
        Action::Evict => quote!(Evict),
    };
    let write = match store.write {
        Write::AfterReply => quote!(AfterReply),
        Write::BeforeReply => quote!(BeforeReply),
        Write::Never => quote!(Never),
    };
    let name = store
        .bucket
        .as_ref()
        .map(|bucket| bucket.value.as_str())
        .unwrap_or_default();
    let provision = store.setting("provision").map_or_else(
        || quote!(#private::Provision::Create),
        |value| setting(private, value),
    );
    let setting = |name: &str| option(store.setting(name).map(|value| setting(private, value)));
    let [history, ttl, description, replicas, storage] =
        ["history", "ttl", "description", "replicas", "storage"].map(setting);
    let [max_bytes, max_value_size, compression, atomic] =
        ["max_bytes", "max_value_size", "compression", "atomic"].map(setting);
    let [key_ttl, limit_markers, fast_ingest] =
        ["key_ttl", "limit_markers", "fast_ingest"].map(setting);
    let key = template(private, store);
    let public = store.public.as_ref().map(|(ident, _)| ident.unraw());
    let accessor = public.map(|ident| ident.to_string()).unwrap_or_default();
    let conditional = store.when.is_some();
    let cache = option(store.cache.as_ref().map(|cache| cache_spec(private, cache)));
    quote! {
        #private::StoreSpec {
            name: #accessor,
            kind: #private::StoreKind::#kind,
            action: #private::StoreAction::#action,
            bucket: #private::BucketSpec {
                name: #name,
                history: #history,
                ttl: #ttl,
                key_ttl: #key_ttl,
                limit_markers: #limit_markers,
                description: #description,
                replicas: #replicas,
                storage: #storage,
                max_bytes: #max_bytes,
                max_value_size: #max_value_size,
                compression: #compression,
                atomic: #atomic,
                fast_ingest: #fast_ingest,
                provision: #provision,
            },
            key: #key,
            write: #private::WriteMode::#write,
            conditional: #conditional,
            cache: #cache,
        }
    }
}

fn cache_spec(private: &TokenStream, cache: &Cache) -> TokenStream {
    let (fresh, lookup) = (duration(cache.fresh.value), duration(cache.lookup));
    let (stale, none) = (
        option(cache.stale.map(duration)),
        option(cache.none.map(duration)),
    );
    let errors = cache.errors.iter().map(|(code, kept)| {
        let (code, kept) = (format_ident!("{code}"), duration(*kept));
        quote!((#private::Code::#code, #kept))
    });
    let flight = match cache.flight {
        Flight::Process => quote!(Process),
        Flight::Cluster => quote!(Cluster),
    };
    quote! {
        #private::CacheSpec {
            fresh: #fresh,
            stale: #stale,
            none: #none,
            errors: &[#(#errors),*],
            lookup_timeout: #lookup,
            flight: #private::SingleFlight::#flight,
        }
    }
}

fn setting(private: &TokenStream, value: &SettingValue) -> TokenStream {
    match value {
        SettingValue::Number(number) => {
            // Without a suffix: the field's type is the number's.
            let number = proc_macro2::Literal::u64_unsuffixed(*number);
            quote!(#number)
        }
        SettingValue::Duration(value) => duration(*value),
        SettingValue::Text(text) => quote!(#text),
        SettingValue::Storage(Storage::File) => quote!(#private::Storage::File),
        SettingValue::Storage(Storage::Memory) => quote!(#private::Storage::Memory),
        SettingValue::Bool(value) => quote!(#value),
        SettingValue::Provision(provision) => {
            let provision = format_ident!("{provision:?}");
            quote!(#private::Provision::#provision)
        }
    }
}

/// The template as segments: literals with the dots around them, and captures.
fn template(private: &TokenStream, store: &Store) -> TokenStream {
    let Some(key) = &store.key else {
        return quote!(#private::KeyTemplate { source: "", segments: &[] });
    };
    let mut segments = Vec::new();
    let mut text = String::new();
    let mut captures = key.captures.iter();
    for (i, token) in key.template.tokens.iter().enumerate() {
        if i > 0 {
            text.push('.');
        }
        match (token, captures.as_slice().first()) {
            (Token::Capture(_), Some(capture)) => {
                captures.next();
                if !text.is_empty() {
                    segments.push(quote!(#private::Segment::Literal(#text)));
                    text.clear();
                }
                segments.push(capture_spec(private, capture));
            }
            (Token::Literal(literal), _) => text.push_str(literal),
            // There are as many sources as captures.
            (Token::Capture(_), None) => {}
        }
    }
    if !text.is_empty() {
        segments.push(quote!(#private::Segment::Literal(#text)));
    }
    let source = &key.template.source;
    quote!(#private::KeyTemplate { source: #source, segments: &[#(#segments),*] })
}

fn capture_spec(private: &TokenStream, capture: &Source) -> TokenStream {
    let name = &capture.name;
    let form = match capture.form {
        Form::Token => quote!(Token),
        Form::Escaped => quote!(Escaped),
        Form::Rest => quote!(Rest),
    };
    let source = match capture.from {
        From::Argument(_) => quote!(Request),
        From::Response => quote!(Response),
    };
    quote! {
        #private::Segment::Capture(#private::Capture {
            name: #name,
            form: #private::CaptureForm::#form,
            source: #private::KeySource::#source,
        })
    }
}
