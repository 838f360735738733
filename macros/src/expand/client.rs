//! `..Client`: the methods of the trait, as calls.

use super::names::{Names, ends, is_unit, moved, with_lifetime};
use crate::model::{Arg, Method, Output, Upload};
use proc_macro2::TokenStream;
use quote::quote;
use syn::Type;

pub(super) fn expand(names: &Names<'_>) -> TokenStream {
    let Names {
        service,
        private,
        client,
        server,
        stores,
        ..
    } = names;
    let bound = names.bound();
    let (vis, ident, deprecated) = (&service.vis, &service.ident, &service.deprecated);
    // Types of a trait with parameters mean nothing outside it.
    let methods = service
        .named(names.inert)
        .into_iter()
        .filter(|_| service.generics.params.is_empty())
        .map(|method| call(names, method));
    let doc = format!("Calls the service [`{ident}`]. A clone shares its connection.");
    let debug = client.to_string();
    quote! {
        #[doc = #doc]
        #(#deprecated)*
        #[allow(dead_code)]
        #vis struct #client {
            core: #private::ClientCore,
        }

        #[allow(dead_code, deprecated)]
        impl #client {
            /// Calls over this connection.
            #[must_use]
            #vis fn new(nats: #private::Client) -> Self {
                Self { core: #private::ClientCore::new(nats) }
            }

            /// Calls this implementation, in this process and with no server, through encoding and decoding: for unit
            /// tests. Its calls are made within a tokio runtime. There is no JetStream.
            #[must_use]
            #vis fn local<S: #bound + ::core::marker::Send + ::core::marker::Sync + 'static>(service: S) -> Self {
                Self::local_from(#server::new(service))
            }

            /// The same, for one that is prepared to be served.
            #[must_use]
            #vis fn local_from<S: #bound + ::core::marker::Send + ::core::marker::Sync + 'static>(server: #server<S>) -> Self {
                Self { core: #private::local(server) }
            }

            /// Adds JetStream, which the stores and answers that are kept as objects need.
            #[must_use]
            #vis fn with_jetstream(self, js: #private::JetStream) -> Self {
                Self { core: self.core.with_jetstream(js) }
            }

            /// Waits this long for every answer, instead of what the trait says.
            #[must_use]
            #vis fn with_timeout(self, timeout: ::core::time::Duration) -> Self {
                Self { core: self.core.with_timeout(timeout) }
            }

            /// Repeats calls that may happen twice by this policy, instead of the default one.
            #[must_use]
            #vis fn with_retry(self, policy: #private::Retry) -> Self {
                Self { core: self.core.with_retry(policy) }
            }

            /// Sends this header with every call; one call adds its own with `Call::header`.
            ///
            /// # Errors
            /// When the name or the value cannot stand in a header, or the name is the framework's.
            #vis fn with_header(
                self,
                name: &::core::primitive::str,
                value: &::core::primitive::str,
            ) -> ::core::result::Result<Self, #private::HeaderError> {
                match self.core.with_header(name, value) {
                    ::core::result::Result::Ok(core) => ::core::result::Result::Ok(Self { core }),
                    ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
                }
            }

            /// Calls on behalf of the call that a handler is serving: no call waits for longer than that one's caller does.
            #[must_use]
            #vis fn with_context(&self, context: &#private::Context) -> Self {
                Self { core: self.core.with_context(context) }
            }

            /// Lets its calls see what the NATS server says to the connection: one that is denied then fails at once.
            #[must_use]
            #vis fn with_events(self, events: &#private::ConnectionEvents) -> Self {
                Self { core: self.core.with_events(events) }
            }

            /// Puts a layer of tower around every call. The first one is the outermost. Needs the feature `tower`.
            #[must_use]
            #vis fn layer(self, layer: impl #private::CallLayer) -> Self {
                Self { core: self.core.layer(layer) }
            }

            /// Writes requests in this codec instead of the service's own, and gets answers in it.
            #[must_use]
            #vis fn with_codec(self, codec: #private::Codec) -> Self {
                Self { core: self.core.with_codec(codec) }
            }

            /// Calls the deployment whose server has put its subjects under this prefix (`Server::prefix`). Buckets have no
            /// prefix: the stores are the same.
            ///
            /// # Errors
            /// When it cannot stand in a subject.
            #vis fn with_prefix(
                self,
                prefix: &::core::primitive::str,
            ) -> ::core::result::Result<Self, #private::PrefixError> {
                match self.core.with_prefix(prefix) {
                    ::core::result::Result::Ok(core) => ::core::result::Result::Ok(Self { core }),
                    ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
                }
            }

            /// The stores that hold the answers.
            ///
            /// # Errors
            /// When the client was not given JetStream, see `with_jetstream`.
            #vis fn stores(&self) -> ::core::result::Result<#stores, #private::StoreError> {
                match self.core.jetstream() {
                    ::core::result::Result::Ok(js) => ::core::result::Result::Ok(#stores::new(js)),
                    ::core::result::Result::Err(error) => ::core::result::Result::Err(error),
                }
            }

            #(#methods)*
        }

        #[allow(deprecated)]
        impl ::core::clone::Clone for #client {
            fn clone(&self) -> Self {
                Self { core: ::core::clone::Clone::clone(&self.core) }
            }
        }

        #[allow(deprecated)]
        impl ::core::fmt::Debug for #client {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#debug).field("core", &self.core).finish()
            }
        }
    }
}

fn call(names: &Names<'_>, method: &Method) -> TokenStream {
    let Names {
        service, private, ..
    } = names;
    let (vis, public) = (&service.vis, &method.public);
    let (cfgs, docs, deprecated) = (method.guards(), method.docs(), method.deprecated());
    let mut doc = format!("Calls `{}`: await it.", method.subject.value);
    if !docs.is_empty() {
        doc.insert(0, '\n');
    }
    let head = quote!(#(#cfgs)* #(#docs)* #[doc = #doc] #(#deprecated)*);
    if names.inert {
        return stub(names, method, &head);
    }
    let parameters = method.args.iter().map(|Arg { ident, ty }| {
        let parameter = parameter(names, ty);
        quote!(#ident: #parameter)
    });
    let mut parameters: Vec<_> = parameters.collect();
    let mut uploaded = quote!(::core::option::Option::None);
    if let Some(upload) = &method.upload {
        let (ident, stream) = (&upload.ident, stream(names, upload));
        parameters.insert(upload.at, quote!(#ident: #stream));
        let hidden = names.method(method);
        let codec = quote!(self.core.codec(<#hidden as #private::Method>::SPEC));
        uploaded = quote!(#private::Uploaded::new(#codec, #ident));
    }
    let (hidden, borrowed) = (names.method(method), borrowed(method));
    let body = match &method.args[..] {
        [] => quote!(#private::Body::of(&())),
        [Arg { ident, ty }] if as_it_is(ty) => quote!(#private::Body::of(&#ident)),
        [Arg { ident, ty }] => {
            let ty = with_lifetime(ty, LIFETIME);
            quote!(#private::Argument::<#ty>::body(&#ident))
        }
        several => {
            let args = names.args(method);
            let fields = several.iter().map(|arg| {
                let (ident, part) = (&arg.ident, part(names, arg));
                quote!(#ident: #part)
            });
            // An error about a type underlines the arguments.
            let (first, last) = ends(method);
            let (args, fields) = (
                moved(quote!(&#args), first),
                moved(quote!({ #(#fields),* }), last),
            );
            quote!(#private::Body::of(#args #fields))
        }
    };
    let call = match &method.answers {
        Some(answers) => {
            let error = names.outcome_of(&answers.typed).1;
            quote!(stream::<#hidden, #error>(#body, #uploaded))
        }
        None if method.upload.is_some() => quote!(upload::<#hidden>(#body, #uploaded)),
        None => quote!(call::<#hidden, _>(#body)),
    };
    let returned = returned(names, method);
    quote! {
        #head
        #vis fn #public #borrowed (&self, #(#parameters),*) -> #returned {
            self.core.#call
        }
    }
}

/// What a call of the method is.
fn returned(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    let (answer, error) = names.outcome(method);
    match &method.answers {
        Some(answers) => {
            let of_items = names.outcome_of(&answers.typed).1;
            quote!(#private::StreamCall<#answer, #of_items, #error>)
        }
        None if method.upload.is_some() => quote!(#private::UploadCall<#answer, #error>),
        None => {
            let reach = reach(names, method);
            quote!(#private::Call<#answer, #error #reach>)
        }
    }
}

/// The parameter of a stream of requests.
fn stream(names: &Names<'_>, upload: &Upload) -> TokenStream {
    let (private, item) = (&names.private, &upload.item);
    quote!(impl #private::Stream<Item = #item> + ::core::marker::Send + 'static)
}

/// The method without a body, as near to the real one as its signature allows.
fn stub(names: &Names<'_>, method: &Method, head: &TokenStream) -> TokenStream {
    let Names {
        service, private, ..
    } = names;
    let (vis, public, generics) = (&service.vis, &method.public, &method.sig.generics);
    let clause = &generics.where_clause;
    let plain = generics.params.is_empty();
    let returned = match &method.output {
        // A constant cannot ask what a parameter is.
        Output::Other(ty) if !plain => {
            let reach = reach(names, method);
            quote!(#private::Call<#ty, ::core::convert::Infallible #reach>)
        }
        _ => returned(names, method),
    };
    let arguments = method.args.iter().map(|arg| {
        let Arg { ty, .. } = arg;
        if as_it_is(ty) || !plain || quote!(#ty).to_string().contains("impl ") {
            return quote!(_: #ty);
        }
        let parameter = parameter(names, ty);
        quote!(_: #parameter)
    });
    let mut arguments: Vec<_> = arguments.collect();
    if let Some(upload) = &method.upload {
        let stream = stream(names, upload);
        arguments.insert(upload.at, quote!(_: #stream));
    }
    let generics = if plain {
        borrowed(method)
    } else {
        quote!(#generics)
    };
    quote! {
        #head
        #vis fn #public #generics (&self, #(#arguments),*) -> #returned #clause {
            ::core::unreachable!()
        }
    }
}

/// Who gets the requests, where it is not one of the instances.
fn reach(names: &Names<'_>, method: &Method) -> TokenStream {
    let private = &names.private;
    match method.queue_group {
        Some(_) => quote!(),
        None => quote!(, #private::EveryInstance),
    }
}

/// A reference, or a value of no size, is taken as it is; of anything else the caller may keep its own.
fn as_it_is(ty: &Type) -> bool {
    matches!(ty, Type::Reference(_)) || is_unit(ty)
}

/// `impl Trait` has no anonymous lifetimes, so what a request borrows gets a name.
const LIFETIME: &str = "'request";

/// The declaration of that name, where it is used.
fn borrowed(method: &Method) -> TokenStream {
    let uses = method
        .args
        .iter()
        .any(|arg| !as_it_is(&arg.ty) && with_lifetime(&arg.ty, LIFETIME) != arg.ty);
    if uses { quote!(<'request>) } else { quote!() }
}

fn parameter(names: &Names<'_>, ty: &Type) -> TokenStream {
    if as_it_is(ty) {
        return quote!(#ty);
    }
    let (private, ty) = (&names.private, with_lifetime(ty, LIFETIME));
    quote!(impl #private::Argument<#ty>)
}

/// One of several arguments in the body.
fn part(names: &Names<'_>, arg: &Arg) -> TokenStream {
    let Arg { ident, ty } = arg;
    if as_it_is(ty) {
        return quote!(&#ident);
    }
    let (private, ty) = (&names.private, with_lifetime(ty, LIFETIME));
    quote!(#private::Argument::<#ty>::part(&#ident))
}
