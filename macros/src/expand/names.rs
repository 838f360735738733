//! The names of what is generated, and the types that several parts of it mention.

use crate::model::{Kind, Method, Output, Service};
use proc_macro2::{Group, Span, TokenStream, TokenTree};
use quote::{format_ident, quote};
use syn::ext::IdentExt as _;
use syn::visit_mut::VisitMut;
use syn::{Ident, Lifetime, Type};

/// What every part of the expansion needs.
pub(super) struct Names<'a> {
    pub(super) service: &'a Service,
    /// Bodies never run.
    pub(super) inert: bool,
    /// `::nats_service::__private`
    pub(super) private: TokenStream,
    pub(super) contract: Ident,
    pub(super) server: Ident,
    pub(super) client: Ident,
    pub(super) stores: Ident,
}

impl<'a> Names<'a> {
    pub(super) fn new(service: &'a Service, inert: bool) -> Self {
        let krate = &service.krate;
        let made = |suffix: &str| {
            let ident = &service.ident;
            format_ident!(
                "{}{suffix}",
                ident.unraw(),
                span = Span::call_site().located_at(ident.span())
            )
        };
        Self {
            service,
            inert,
            private: quote!(#krate::__private),
            contract: made("Contract"),
            server: made("Server"),
            client: made("Client"),
            stores: made("Stores"),
        }
    }

    fn of(&self, prefix: &str, camel: &str, suffix: &str) -> Ident {
        format_ident!(
            "{prefix}{}{camel}{suffix}",
            self.service.ident.unraw(),
            span = Span::call_site()
        )
    }

    /// The hidden type that stands for a method.
    pub(super) fn method(&self, method: &Method) -> Ident {
        self.of("__", &method.camel, "")
    }

    /// The hidden body of a method of several arguments.
    pub(super) fn args(&self, method: &Method) -> Ident {
        self.of("__ArgsOf", &method.camel, "")
    }

    /// The typed store that this part of a name belongs to.
    pub(super) fn store(&self, camel: &str) -> Ident {
        self.of("", camel, "Store")
    }

    /// What a service implements.
    pub(super) fn bound(&self) -> TokenStream {
        let ident = &self.service.ident;
        // A trait with parameters is an error already, and no bound can name it.
        match self.service.generics.params.is_empty() {
            true => quote!(#ident),
            false => quote!(::core::marker::Sized),
        }
    }

    /// The types of an answer and of an error: of a stream, those of an item, and of a failure to begin.
    pub(super) fn outcome(&self, method: &Method) -> (TokenStream, TokenStream) {
        let Some(answers) = &method.answers else {
            return self.outcome_of(&method.output);
        };
        let error = match &answers.error {
            Some(error) => quote!(#error),
            None => quote!(::core::convert::Infallible),
        };
        (self.outcome_of(&answers.typed).0, error)
    }

    /// The types of a value and of an error.
    pub(super) fn outcome_of(&self, output: &Output) -> (TokenStream, TokenStream) {
        match output {
            Output::Result { ok, err } => (quote!(#ok), quote!(#err)),
            Output::Other(ty) if is_unit(ty) => (quote!(()), quote!(::core::convert::Infallible)),
            Output::Other(ty) => {
                let private = &self.private;
                let pick = self.pick(ty);
                let outcome = quote!(#private::Outcome<#ty>);
                (
                    spanned_at(ty, &pick, &outcome, "Answer"),
                    spanned_at(ty, &pick, &outcome, "Error"),
                )
            }
        }
    }

    /// `Pick<true>` when the type is a `Result`, found by the compiler.
    pub(super) fn pick(&self, ty: &Type) -> TokenStream {
        let private = &self.private;
        quote!(#private::Pick<{ use #private::NoResult as _; <#private::Check<#ty>>::IS_RESULT }>)
    }

    /// `KvStore`, `KvKey`, `KvSelection`, or their siblings of objects.
    pub(super) fn engine(&self, kind: Kind, what: &str) -> TokenStream {
        let private = &self.private;
        let prefix = match kind {
            Kind::Kv => "Kv",
            Kind::Object => "Object",
        };
        let ident = format_ident!("{prefix}{what}");
        quote!(#private::#ident)
    }
}

/// A projection that an error underlines as the type it is made from, from its first token to its last.
fn spanned_at(ty: &Type, pick: &TokenStream, outcome: &TokenStream, name: &str) -> TokenStream {
    let (first, last) = ends_of(ty);
    let open = quote::quote_spanned!(first=> <);
    let name = Ident::new(name, last);
    quote!(#open #pick as #outcome>::#name)
}

/// Where a type begins and ends.
pub(super) fn ends_of(ty: &Type) -> (Span, Span) {
    let tokens: Vec<_> = quote!(#ty).into_iter().collect();
    let first = tokens
        .first()
        .map_or_else(Span::call_site, |token| token.span());
    let last = tokens
        .last()
        .map_or_else(Span::call_site, |token| token.span());
    (located(first), located(last))
}

/// Where the types of a method's arguments begin and end.
pub(super) fn ends(method: &Method) -> (Span, Span) {
    match &method.args[..] {
        [first, .., last] => (ends_of(&first.ty).0, ends_of(&last.ty).1),
        [one] => ends_of(&one.ty),
        [] => (Span::call_site(), Span::call_site()),
    }
}

/// The same tokens, meaning what they mean, in another place.
pub(super) fn moved(tokens: TokenStream, place: Span) -> TokenStream {
    let moved = tokens.into_iter().map(|mut token| {
        let span = place.resolved_at(token.span());
        if let TokenTree::Group(group) = &token {
            let inner = Group::new(group.delimiter(), moved(group.stream(), place));
            token = TokenTree::Group(inner);
        }
        token.set_span(span);
        token
    });
    moved.collect()
}

pub(super) fn is_unit(ty: &Type) -> bool {
    matches!(ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// The place of the user's token, with the names of generated code: lints then take it for what it is.
pub(super) fn located(span: Span) -> Span {
    span.resolved_at(Span::call_site())
}

/// The type with its elided lifetimes named.
pub(super) fn with_lifetime(ty: &Type, name: &str) -> Type {
    struct Namer<'n>(&'n str);
    impl VisitMut for Namer<'_> {
        fn visit_type_reference_mut(&mut self, ty: &mut syn::TypeReference) {
            if ty.lifetime.is_none() {
                ty.lifetime = Some(Lifetime::new(self.0, ty.and_token.span));
            }
            syn::visit_mut::visit_type_reference_mut(self, ty);
        }
        fn visit_lifetime_mut(&mut self, lifetime: &mut Lifetime) {
            if lifetime.ident == "_" {
                *lifetime = Lifetime::new(self.0, lifetime.span());
            }
        }
        // Lifetimes in there are its own.
        fn visit_type_fn_ptr_mut(&mut self, _: &mut syn::TypeFnPtr) {}
        fn visit_parenthesized_generic_arguments_mut(
            &mut self,
            _: &mut syn::ParenthesizedGenericArguments,
        ) {
        }
    }
    let mut ty = ty.clone();
    Namer(name).visit_type_mut(&mut ty);
    ty
}

/// A field's name, or the number of a tuple's.
pub(super) fn member(text: &str, span: Span) -> TokenStream {
    if let Ok(index) = text.parse::<u32>() {
        let index = syn::Index { index, span };
        return quote!(#index);
    }
    let ident = ident(text, span);
    quote!(#ident)
}

/// An identifier, raw where the word is a keyword. The grammar of captures has refused the four that cannot be raw.
pub(super) fn ident(text: &str, span: Span) -> Ident {
    match syn::parse_str::<Ident>(text) {
        Ok(_) => Ident::new(text, span),
        Err(_) => Ident::new_raw(text, span),
    }
}
