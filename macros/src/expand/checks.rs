//! Rules that only the compiler can judge, as code that it refuses or warns about at the user's literal.

use super::names::{Names, located, moved};
use crate::model::Method;
use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};

/// A warning where every answer overwrites the one before: there is none to be had from a macro, but for a use of
/// something deprecated.
pub(super) fn shared_key_warnings(method: &Method) -> TokenStream {
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
pub(super) fn same_answers(names: &Names<'_>) -> TokenStream {
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
        // Where both exist.
        let (a, b) = (methods[first.0].cfgs(), methods[second.0].cfgs());
        let left = at(first.1, first.0, second.0);
        let right = at(second.1, second.0, first.0);
        quote!(#(#a)* #(#b)* { #left #right })
    });
    quote!(const _: () = { #(#checks)* };)
}
