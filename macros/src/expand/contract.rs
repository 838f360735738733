//! The constants of the contract, and a hidden type for each method that carries them.

use super::names::{self, Names, located, moved};
use crate::model::{
    Action, Codec, From, Kind, Method, Output, Provision, SettingValue, Source, Storage, Store,
    Write,
};
use crate::template::{Form, Token};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use std::time::Duration;

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
    let checks = same_answers(names);
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
        }

        impl ::core::fmt::Debug for #contract {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(Self::SPEC, f)
            }
        }

        #(#implementations)*
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
    let (hidden, cfgs) = (names.method(method), method.cfgs());
    let spec = spec(names, method);
    let (answer, error) = names.outcome(method);
    let args = args_struct(names, method);
    let handle = handle(names, method);
    let shared = shared_key_warnings(method);
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
        ..
    } = method;
    let subject = &subject.value;
    let queue_group = option(method.queue_group.as_ref().map(|group| quote!(#group)));
    let timeout = duration(method.timeout);
    let metadata = pairs(&method.metadata);
    let codec = match names.service.codec {
        Codec::Json => quote!(#private::Codec::Json),
        Codec::MessagePack => quote!(#private::Codec::MessagePack),
    };
    let stores = method.stores.iter().map(|store| store_spec(names, store));
    quote! {
        #private::MethodSpec {
            name: #name,
            subject: #subject,
            description: #description,
            queue_group: #queue_group,
            timeout: #timeout,
            metadata: #metadata,
            codec: #codec,
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
    let setting = |name: &str| option(store.setting(name).map(|value| setting(private, value)));
    let [history, ttl, description, replicas, storage] =
        ["history", "ttl", "description", "replicas", "storage"].map(setting);
    let [max_bytes, max_value_size, compression] =
        ["max_bytes", "max_value_size", "compression"].map(setting);
    let provision = match store.setting("provision") {
        Some(SettingValue::Provision(provision)) => *provision,
        _ => Provision::Create,
    };
    let provision = format_ident!("{provision:?}");
    let key = template(private, store);
    quote! {
        #private::StoreSpec {
            kind: #private::StoreKind::#kind,
            action: #private::StoreAction::#action,
            bucket: #private::BucketSpec {
                name: #name,
                history: #history,
                ttl: #ttl,
                description: #description,
                replicas: #replicas,
                storage: #storage,
                max_bytes: #max_bytes,
                max_value_size: #max_value_size,
                compression: #compression,
                provision: #private::Provision::#provision,
            },
            key: #key,
            write: #private::WriteMode::#write,
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

/// The body of several arguments: an object with their names. One struct both owns, for decoding, and refers, for encoding.
fn args_struct(names: &Names<'_>, method: &Method) -> TokenStream {
    if method.args.len() < 2 {
        return quote!();
    }
    let private = &names.private;
    let (args, cfgs) = (names.args(method), method.cfgs());
    let parameters: Vec<_> = (0..method.args.len())
        .map(|i| format_ident!("A{i}"))
        .collect();
    let fields = method.args.iter().zip(&parameters).map(|(arg, parameter)| {
        let ident = &arg.ident;
        quote!(#ident: #parameter)
    });
    let serde = crate::validate::path_text(&names.service.krate, quote!(::__private::serde));
    quote! {
        #(#cfgs)*
        #[doc(hidden)]
        #[::core::prelude::v1::derive(#private::serde::Serialize, #private::serde::Deserialize)]
        #[serde(crate = #serde)]
        struct #args<#(#parameters),*> { #(#fields),* }
    }
}

/// How the server answers.
fn handle(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    let (hidden, cfgs, service) = (names.method(method), method.cfgs(), &names.service.ident);
    let types = method
        .args
        .iter()
        .map(|arg| names::with_lifetime(&arg.ty, "'de"));
    let request = match method.args.len() {
        0 => quote!(()),
        1 => quote!(#(#types)*),
        _ => {
            let args = names.args(method);
            let (first, last) = names::ends(method);
            let (args, end) = (moved(quote!(#args), first), quote_spanned!(last=> >));
            quote!(#args<#(#types),* #end)
        }
    };
    let arguments = match &method.args[..] {
        [] => quote!(),
        [_] => quote!(request),
        several => {
            let fields = several.iter().map(|arg| &arg.ident);
            quote!(#(request.#fields),*)
        }
    };
    let ident = method.ident();
    let call = quote!(<S as #service>::#ident(service, #arguments));
    let call = match &method.output {
        Output::Result { .. } => call,
        Output::Other(ty) => {
            let pick = names.pick(ty);
            quote!(#private::settle::<#pick, _>(#call))
        }
    };
    let (request_keys, request_name) = fill(method, false);
    let (response_keys, response_name) = fill(method, true);
    let unused = if method.args.is_empty() {
        quote!(let _ = request;)
    } else {
        quote!()
    };
    quote! {
        #(#cfgs)*
        #[allow(deprecated)]
        impl<S: #service> #private::Handle<S> for #hidden {
            type Request<'de> = #request;

            fn request_keys(
                #request_name: &Self::Request<'_>,
                keys: &mut #private::Keys,
            ) -> ::core::result::Result<(), #private::KeyError> {
                #request_keys
            }

            fn response_keys(
                #response_name: &Self::Answer,
                keys: &mut #private::Keys,
            ) -> ::core::result::Result<(), #private::KeyError> {
                #response_keys
            }

            fn call<'a>(
                service: &'a S,
                request: Self::Request<'a>,
            ) -> impl ::core::future::Future<
                Output = ::core::result::Result<Self::Answer, Self::Error>
            > + ::core::marker::Send + 'a {
                #unused
                #call
            }
        }
    }
}

/// The captures of all stores, in order, as field accesses that an error underlines at the key.
fn fill(method: &Method, response: bool) -> (TokenStream, TokenStream) {
    let mut lines = Vec::new();
    for key in method.stores.iter().filter_map(|store| store.key.as_ref()) {
        for capture in &key.captures {
            // With the literal's own span the compiler would propose a field's name in place of the whole literal.
            let span = located(key.span);
            let fields: Vec<_> = capture
                .fields
                .iter()
                .map(|field| names::member(field, span))
                .collect();
            let line = match capture.from {
                From::Response if response => {
                    quote_spanned!(span=> keys.response(&answer #(.#fields)*)?;)
                }
                From::Argument(i) if !response => {
                    let base = match &method.args[..] {
                        [_] => quote_spanned!(span=> request),
                        several => {
                            let mut ident = several[i].ident.clone();
                            ident.set_span(span);
                            quote_spanned!(span=> request.#ident)
                        }
                    };
                    quote_spanned!(span=> keys.request(&#base #(.#fields)*)?;)
                }
                _ => continue,
            };
            lines.push(line);
        }
    }
    let name = if response { "answer" } else { "request" };
    if lines.is_empty() {
        return (
            quote!(let _ = keys; ::core::result::Result::Ok(())),
            quote!(_),
        );
    }
    let name = syn::Ident::new(name, Span::call_site());
    (
        quote!(#(#lines)* ::core::result::Result::Ok(())),
        quote!(#name),
    )
}

/// A warning where every answer overwrites the one before: there is none to be had from a macro, but for a use of
/// something deprecated.
fn shared_key_warnings(method: &Method) -> TokenStream {
    let mut warnings = Vec::new();
    for store in &method.stores {
        let Some(key) = &store.key else { continue };
        if store.shared_key || !key.captures.is_empty() || method.args.is_empty() {
            continue;
        }
        let note = format!(
            "the key `{0}` has no capture, so every answer overwrites the one before; put an argument into it (`{0}.<id>`), or write `shared_key = true` when it is meant",
            key.template.source
        );
        let span = located(key.span);
        let use_it = quote_spanned!(span=> SHARED_KEY);
        warnings.push(quote! {
            {
                #[deprecated(note = #note)]
                const SHARED_KEY: () = ();
                #use_it
            }
        });
    }
    quote!(#(#warnings;)*)
}

/// Asks the compiler whether two stores that share keys keep one type.
fn same_answers(names: &Names<'_>) -> TokenStream {
    if names.inert {
        return quote!();
    }
    let private = &names.private;
    let methods: Vec<&Method> = names.service.methods().collect();
    let checks = names.service.same_answers.iter().map(|same| {
        let (first, second) = (same.first, same.second);
        let answer = |method: usize, span: Span| moved(names.outcome(methods[method]).0, span);
        let at = |span: Span, one: usize, other: usize| {
            let (one, other) = (answer(one, span), answer(other, span));
            let span = located(span);
            quote_spanned!(span=> #private::assert_same_answer::<#one, #other>();)
        };
        let left = at(first.1, first.0, second.0);
        let right = at(second.1, second.0, first.0);
        quote!(#left #right)
    });
    quote!(const _: () = { #(#checks)* };)
}
