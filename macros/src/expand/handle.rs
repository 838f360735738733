//! The server's side of a method: the body, the keys that it and the answer give, and the call.

use super::names::{self, Names, located, moved};
use crate::model::{Arg, ContextArg, From, Method, Output, Upload, When};
use proc_macro2::{Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};

/// The body of several arguments: an object with their names. One struct both owns, for decoding, and refers, for encoding.
pub(super) fn args_struct(names: &Names<'_>, method: &Method) -> TokenStream {
    if method.args.len() < 2 {
        return quote!();
    }
    let private = &names.private;
    let (args, cfgs) = (names.args(method), method.guards());
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

/// What a handler is called with.
struct Given {
    /// The type of the body.
    request: TokenStream,
    /// The call of the method, where `service`, `request`, `requests` and `context` are what they say.
    call: TokenStream,
    /// The name of the context's parameter.
    context: TokenStream,
}

fn given(names: &Names<'_>, method: &Method) -> Given {
    let private = &names.private;
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
    let mut arguments: Vec<TokenStream> = match &method.args[..] {
        [] => Vec::new(),
        [_] => vec![quote!(request)],
        several => {
            let fields = several.iter().map(|arg| &arg.ident);
            fields.map(|field| quote!(request.#field)).collect()
        }
    };
    if let Some(upload) = &method.upload {
        arguments.insert(upload.at, quote!(requests));
    }
    let context = match &method.context {
        None => quote!(_),
        Some(ContextArg { position, ty }) => {
            // An error about the type underlines it.
            let (first, last) = names::ends_of(ty);
            let (open, end) = (
                moved(quote!(#private::context::<), first),
                quote_spanned!(last=> >),
            );
            arguments.insert(*position, quote!(#open #ty #end (context)));
            quote!(context)
        }
    };
    let (service, ident) = (&names.service.ident, method.ident());
    Given {
        request,
        call: quote!(<S as #service>::#ident(service, #(#arguments),*)),
        context,
    }
}

/// How the server answers where a side streams.
pub(super) fn stream(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    let (hidden, cfgs, service) = (names.method(method), method.guards(), &names.service.ident);
    let Given {
        request,
        call,
        context,
    } = given(names, method);
    let requests = match &method.upload {
        Some(Upload { item, .. }) => quote!(let requests = side.requests::<#item>();),
        None => quote!(),
    };
    let open = match &method.answers {
        Some(answers) => {
            let pick = match &answers.typed {
                Output::Result { .. } => quote!(#private::Pick<true>),
                Output::Other(ty) => names.pick(ty),
            };
            let call = match &answers.error {
                Some(_) => call,
                None => quote!(#private::infallible(#call)),
            };
            quote!(side.items::<#pick, _, _>(#call))
        }
        None => {
            let call = match &method.output {
                Output::Result { .. } => call,
                Output::Other(ty) => {
                    let pick = names.pick(ty);
                    quote!(#private::settle::<#pick, _>(#call))
                }
            };
            quote!(side.answer(#call))
        }
    };
    quote! {
        #(#cfgs)*
        #[allow(deprecated)]
        impl<S: #service> #private::HandleStream<S> for #hidden {
            type Request<'de> = #request where S: 'de;

            #[allow(unused_variables)]
            fn open<'a>(
                service: &'a S,
                request: Self::Request<'a>,
                #context: ::core::option::Option<&'a #private::Context>,
                side: #private::Side,
            ) -> #private::Opening<'a> {
                #requests
                #open
            }
        }
    }
}

/// How the server answers.
pub(super) fn handle(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    let (hidden, cfgs, service) = (names.method(method), method.guards(), &names.service.ident);
    let Given {
        request,
        call,
        context,
    } = given(names, method);
    let (returned, split) = match &method.output {
        Output::Result { .. } => (
            quote!(::core::result::Result<Self::Answer, Self::Error>),
            quote!(returned),
        ),
        Output::Other(ty) => {
            let pick = names.pick(ty);
            (
                quote!(#ty),
                quote!(<#pick as #private::Outcome<#ty>>::split(returned)),
            )
        }
    };
    let (request_keys, request_name) = fill(method, false);
    let (response_keys, response_name) = fill(method, true);
    let (conditions, response_name, sent) = match conditions(names, method) {
        Some(conditions) => (conditions, quote!(answer), quote!(sent)),
        None => (quote!(), response_name, quote!(_)),
    };
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
            type Returned = #returned;

            fn request_keys(
                #request_name: &Self::Request<'_>,
                keys: &mut #private::Keys,
            ) -> ::core::result::Result<(), #private::KeyError> {
                #request_keys
            }

            fn response_keys(
                #response_name: &Self::Answer,
                #sent: #private::Sent<'_>,
                keys: &mut #private::Keys,
            ) -> ::core::result::Result<(), #private::Error> {
                #conditions
                #response_keys
            }

            fn call<'a>(
                service: &'a S,
                request: Self::Request<'a>,
                #context: ::core::option::Option<&#private::Context>,
            ) -> impl ::core::future::Future<Output = Self::Returned> + ::core::marker::Send {
                #unused
                #call
            }

            fn split(
                returned: Self::Returned,
            ) -> ::core::result::Result<Self::Answer, Self::Error> {
                #split
            }
        }
    }
}

/// Asks the closures of `when`, before the answer's captures: a store that is left out needs no key.
fn conditions(names: &Names<'_>, method: &Method) -> Option<TokenStream> {
    let private = &names.private;
    let conditional: Vec<(usize, &When)> = method
        .stores
        .iter()
        .enumerate()
        .filter_map(|(i, store)| store.when.as_ref().map(|when| (i, when)))
        .collect();
    if conditional.is_empty() {
        return None;
    }
    let reads_request = conditional.iter().any(|(_, when)| when.reads_request);
    let hidden = names.method(method);
    let asked = conditional.iter().map(|(i, when)| {
        let closure = &when.closure;
        let (types, values) = match &method.args[..] {
            _ if !when.reads_request => (quote!(), quote!()),
            [Arg { ty, .. }] => (quote!(&#ty,), quote!(&request,)),
            several => {
                let types = several.iter().map(|arg| &arg.ty);
                let fields = several.iter().map(|arg| &arg.ident);
                (quote!(#(&#types,)*), quote!(#(&request.#fields,)*))
            }
        };
        // A constant sees nothing of what stands around it, and gives the closure's parameters their types.
        quote! {
            {
                const WHEN: fn(#types &<#hidden as #private::Method>::Answer) -> bool = #closure;
                if !WHEN(#values answer) {
                    keys.skip(#i);
                }
            }
        }
    });
    let request = if reads_request {
        quote!(let request: Self::Request<'_> = sent.decode()?;)
    } else {
        quote!(let _ = sent;)
    };
    Some(quote! {
        #request
        #(#asked)*
    })
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
