//! Errors, gathered: one mistake must not hide another.

use proc_macro2::TokenStream;
use quote::ToTokens;

/// All that was found wrong so far.
#[derive(Default)]
pub(crate) struct Errors(Option<syn::Error>);

impl Errors {
    /// Adds one at these tokens.
    pub(crate) fn at(&mut self, tokens: impl ToTokens, message: impl std::fmt::Display) {
        self.push(syn::Error::new_spanned(tokens, message));
    }

    /// Adds one at each of two places, for a conflict.
    pub(crate) fn between(
        &mut self,
        (second, message): (impl ToTokens, impl std::fmt::Display),
        (first, note): (impl ToTokens, impl std::fmt::Display),
    ) {
        self.at(second, message);
        self.at(first, note);
    }

    pub(crate) fn push(&mut self, error: syn::Error) {
        match &mut self.0 {
            Some(all) => all.combine(error),
            none => *none = Some(error),
        }
    }

    /// Keeps the value, or the error.
    pub(crate) fn take<T>(&mut self, result: syn::Result<T>) -> Option<T> {
        result.map_err(|error| self.push(error)).ok()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// The tokens that make the compiler say them.
    pub(crate) fn into_tokens(self) -> TokenStream {
        self.0
            .map(|error| error.into_compile_error())
            .unwrap_or_default()
    }
}
