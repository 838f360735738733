//! `..Stores` and a typed store for each method whose answer is kept.

use super::names::{self, Names};
use crate::model::{Method, Source, Store};
use proc_macro2::{Ident, Span, TokenStream};
use quote::quote;

/// One typed store.
struct Kept<'a> {
    method: &'a Method,
    /// Its place among the method's.
    index: usize,
    store: &'a Store,
    public: &'a Ident,
    typed: Ident,
}

pub(super) fn expand(names: &Names<'_>) -> TokenStream {
    let Names {
        service,
        private,
        stores,
        ..
    } = names;
    let (vis, ident, deprecated) = (&service.vis, &service.ident, &service.deprecated);
    let kept = kept(names);
    let accessors = kept.iter().map(|kept| accessor(names, kept));
    let types = kept.iter().map(|kept| typed_store(names, kept));
    let doc = format!(
        "The answers of the service [`{ident}`] that are kept, read straight from their buckets. Needs no running service."
    );
    let debug = stores.to_string();
    quote! {
        #[doc = #doc]
        #(#deprecated)*
        #[allow(dead_code)]
        #vis struct #stores {
            js: #private::JetStream,
        }

        #[allow(dead_code, deprecated)]
        impl #stores {
            /// On this JetStream context.
            #[must_use]
            #vis fn new(js: #private::JetStream) -> Self {
                Self { js }
            }

            #(#accessors)*
        }

        #[allow(deprecated)]
        impl ::core::clone::Clone for #stores {
            fn clone(&self) -> Self {
                Self { js: ::core::clone::Clone::clone(&self.js) }
            }
        }

        #[allow(deprecated)]
        impl ::core::fmt::Debug for #stores {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#debug).finish_non_exhaustive()
            }
        }

        #(#types)*
    }
}

/// The typed stores, and after an error only those whose names are free.
fn kept<'a>(names: &'a Names<'_>) -> Vec<Kept<'a>> {
    let service = names.service;
    let methods = service.named(names.inert).into_iter();
    let mut kept: Vec<Kept<'_>> = Vec::new();
    for method in methods.filter(|_| service.generics.params.is_empty()) {
        for (index, store) in method.puts() {
            let Some((public, camel)) = &store.public else {
                continue;
            };
            let typed = names.store(camel);
            let taken = kept.iter().any(|other| {
                other.typed == typed
                    && (other.method.cfgs().is_empty() || std::ptr::eq(other.method, method))
            });
            if !names.inert || !taken {
                kept.push(Kept {
                    method,
                    index,
                    store,
                    public,
                    typed,
                });
            }
        }
    }
    kept
}

fn accessor(names: &Names<'_>, kept: &Kept<'_>) -> TokenStream {
    let Kept {
        method,
        index,
        store,
        public,
        typed,
    } = kept;
    let (private, vis) = (&names.private, &names.service.vis);
    let (cfgs, docs, deprecated) = (method.guards(), method.docs(), method.deprecated());
    let mut doc = format!("The store of its answers: {}.", place(store));
    if !docs.is_empty() {
        doc.insert(0, '\n');
    }
    let body = if names.inert {
        quote!(::core::unreachable!())
    } else {
        let (engine, hidden) = (names.engine(store.kind, "Store"), names.method(method));
        quote! {
            #typed {
                store: #engine::__from_spec(
                    ::core::clone::Clone::clone(&self.js),
                    &<#hidden as #private::Method>::SPEC.stores[#index],
                    <#hidden as #private::Method>::SPEC.codec,
                ),
            }
        }
    };
    quote! {
        #(#cfgs)*
        #(#docs)*
        #[doc = #doc]
        #(#deprecated)*
        #[must_use]
        #vis fn #public(&self) -> #typed {
            #body
        }
    }
}

/// The bucket and the key, for documentation.
fn place(store: &Store) -> String {
    let bucket = store
        .bucket
        .as_ref()
        .map(|bucket| bucket.value.as_str())
        .unwrap_or_default();
    let key = store
        .key
        .as_ref()
        .map(|key| key.template.source.as_str())
        .unwrap_or_default();
    format!("bucket `{bucket}`, key `{key}`")
}

fn typed_store(names: &Names<'_>, kept: &Kept<'_>) -> TokenStream {
    let Kept {
        method,
        store,
        typed,
        ..
    } = kept;
    let (vis, cfgs) = (&names.service.vis, method.guards());
    let (answer, _) = names.outcome(method);
    let engine = names.engine(store.kind, "Store");
    let doc = format!(
        "The answers of [`{}::{}`]: {}.",
        names.service.ident,
        method.ident(),
        place(store)
    );
    let keys = keys(names, store, &answer);
    let debug = typed.to_string();
    quote! {
        #(#cfgs)*
        #[doc = #doc]
        #[allow(dead_code)]
        #vis struct #typed {
            store: #engine<#answer>,
        }

        #(#cfgs)*
        #[allow(dead_code)]
        impl #typed {
            #keys
        }

        #(#cfgs)*
        impl ::core::ops::Deref for #typed {
            type Target = #engine<#answer>;

            fn deref(&self) -> &Self::Target {
                &self.store
            }
        }

        #(#cfgs)*
        impl ::core::clone::Clone for #typed {
            fn clone(&self) -> Self {
                Self { store: ::core::clone::Clone::clone(&self.store) }
            }
        }

        #(#cfgs)*
        impl ::core::fmt::Debug for #typed {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                f.debug_struct(#debug).finish_non_exhaustive()
            }
        }
    }
}

/// `at` and `matching`, with a parameter for each capture; one that stands twice in a key is given once.
fn keys(names: &Names<'_>, store: &Store, answer: &TokenStream) -> TokenStream {
    let Some(key) = &store.key else {
        return quote!();
    };
    let (private, vis) = (&names.private, &names.service.vis);
    let (one, many) = (
        names.engine(store.kind, "Key"),
        names.engine(store.kind, "Selection"),
    );
    let ident = |capture: &Source| names::ident(&capture.parameter, Span::call_site());
    let values: Vec<_> = key.captures.iter().map(ident).collect();
    let mut parameters = Vec::new();
    for value in &values {
        if !parameters.contains(value) {
            parameters.push(value.clone());
        }
    }
    let source = &key.template.source;
    let at_doc = format!("The entry under `{source}`.");
    let (at, matching) = if names.inert {
        (
            quote!(let _ = (#(&#parameters,)*); ::core::unreachable!()),
            quote!(let _ = (#(&#parameters,)*); ::core::unreachable!()),
        )
    } else {
        (
            quote!(self.store.__key(&[#(&#values),*])),
            quote!(self.store.__selection(&[#(&#values),*])),
        )
    };
    let selection = if values.is_empty() {
        quote!()
    } else {
        let doc = format!(
            "The entries under `{source}` with these values, where `nats_service::Any` stands for all."
        );
        quote! {
            #[doc = #doc]
            ///
            /// # Errors
            /// When a value cannot stand in its place of the key.
            #vis fn matching(&self, #(#parameters: impl #private::KeyFilter),*)
                -> ::core::result::Result<#many<#answer>, #private::StoreError>
            {
                #matching
            }
        }
    };
    quote! {
        #[doc = #at_doc]
        ///
        /// # Errors
        /// When a value cannot stand in its place of the key.
        #vis fn at(&self, #(#parameters: impl #private::KeyToken),*)
            -> ::core::result::Result<#one<#answer>, #private::StoreError>
        {
            #at
        }

        #selection
    }
}
