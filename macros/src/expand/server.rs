//! `..Server<S>`: what a server serves.

use super::names::Names;
use proc_macro2::TokenStream;
use quote::{format_ident, quote};

pub(super) fn expand(names: &Names<'_>) -> TokenStream {
    let Names {
        service,
        private,
        server,
        contract,
        inert,
        ..
    } = names;
    let (vis, ident, deprecated) = (&service.vis, &service.ident, &service.deprecated);
    let mounts = service.methods().filter(|_| !*inert).map(|method| {
        let (cfgs, hidden) = (method.cfgs(), names.method(method));
        let cached = method.stores.iter().any(|store| store.is_cache);
        let kind = match (method.streams(), cached) {
            (true, _) => "stream",
            (false, true) => "cached",
            (false, false) => "method",
        };
        let kind = format_ident!("{kind}");
        quote!(#(#cfgs)* { mount.#kind::<S, #hidden>(&self.service); })
    });
    let bound = names.bound();
    let doc = format!(
        "Serves an implementation of [`{ident}`]: give it to `nats_service::Server::serve`."
    );
    quote! {
        #[doc = #doc]
        #(#deprecated)*
        #[allow(dead_code)]
        #vis struct #server<S> {
            service: #private::std::sync::Arc<S>,
            layers: #private::Layers,
        }

        #[allow(dead_code, deprecated)]
        impl<S> #server<S> {
            /// Serves this one.
            #[must_use]
            #vis fn new(service: S) -> Self
            where
                S: #bound,
            {
                Self::from_arc(#private::std::sync::Arc::new(service))
            }

            /// Serves one that is shared with the rest of the program.
            #[must_use]
            #vis fn from_arc(service: #private::std::sync::Arc<S>) -> Self
            where
                S: #bound,
            {
                Self { service, layers: ::core::default::Default::default() }
            }

            /// Puts a layer of tower around every method. The first one is the outermost. Needs the feature `tower`.
            #[must_use]
            #vis fn layer(mut self, layer: impl #private::CallLayer) -> Self {
                self.layers.push(layer);
                self
            }
        }

        #[allow(deprecated)]
        impl<S> ::core::clone::Clone for #server<S> {
            fn clone(&self) -> Self {
                Self {
                    service: ::core::clone::Clone::clone(&self.service),
                    layers: ::core::clone::Clone::clone(&self.layers),
                }
            }
        }

        #[allow(deprecated)]
        impl<S> ::core::fmt::Debug for #server<S> {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                ::core::fmt::Debug::fmt(#contract::SPEC, f)
            }
        }

        #[allow(deprecated)]
        impl<S: #bound + ::core::marker::Send + ::core::marker::Sync + 'static> #private::Service for #server<S> {
            fn spec(&self) -> &'static #private::ServiceSpec {
                #contract::SPEC
            }

            fn mount(self, mount: &mut #private::Mount) {
                mount.layers(self.layers);
                #(#mounts)*
            }
        }
    }
}
