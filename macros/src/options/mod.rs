//! Option lists, `name = value, flag, list(..)`: their syntax, and what is unknown or said twice. Values by kind are in
//! `reader`; whether a value is right, the rules in `validate` say.

mod reader;

use crate::diag::Errors;
use crate::text;
use proc_macro2::{Span, TokenStream, TokenTree};
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::parse::{Parse, ParseStream};
use syn::{Ident, LitStr, Token};

pub(crate) use reader::Reader;

/// One option as it was written.
#[derive(Clone)]
pub(crate) struct Opt {
    /// `bucket`, or the text of a literal name (`"x-y"` in metadata).
    pub(crate) name: String,
    pub(crate) name_tokens: TokenStream,
    pub(crate) value: Value,
}

#[derive(Clone)]
pub(crate) enum Value {
    /// A name alone.
    None,
    /// After `=`.
    Tokens(TokenStream),
    /// In parentheses.
    List(Vec<Opt>),
}

/// The options of one attribute, or what was wrong with its syntax.
#[derive(Clone, Default)]
pub(crate) struct Options(pub(crate) Vec<Opt>);

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Vec::new();
        while !input.is_empty() {
            options.push(input.parse()?);
            if input.is_empty() {
                break;
            }
            if !input.peek(Token![,]) {
                return Err(
                    input.error("options are separated by commas: `name = value, name = value`")
                );
            }
            input.parse::<Token![,]>()?;
        }
        Ok(Self(options))
    }
}

impl Parse for Opt {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let (name, name_tokens) = if input.peek(LitStr) {
            let literal: LitStr = input.parse()?;
            (literal.value(), literal.into_token_stream())
        } else if input.peek(Ident::peek_any) {
            let ident = Ident::parse_any(input)?;
            (ident.unraw().to_string(), ident.into_token_stream())
        } else {
            return Err(input.error("an option begins with its name: `name = value`"));
        };
        let value = if input.peek(syn::token::Paren) {
            let content;
            syn::parenthesized!(content in input);
            Value::List(content.parse::<Options>()?.0)
        } else if input.peek(Token![=]) {
            let equals: Token![=] = input.parse()?;
            let mut tokens = TokenStream::new();
            if input.peek(Token![|]) || input.peek(Token![||]) || input.peek(Token![move]) {
                // Commas stand in a closure, so where it ends its grammar has to say.
                tokens = input.parse::<syn::ExprClosure>()?.into_token_stream();
            }
            while !input.is_empty() && !input.peek(Token![,]) {
                if !tokens.is_empty() && input.peek(Ident::peek_any) && input.peek2(Token![=]) {
                    return Err(input.error("a comma is missing before this option"));
                }
                tokens.extend([input.parse::<TokenTree>()?]);
            }
            if tokens.is_empty() {
                return Err(syn::Error::new_spanned(
                    equals,
                    format!("`{name} =` wants a value after it"),
                ));
            }
            Value::Tokens(tokens)
        } else {
            Value::None
        };
        Ok(Self {
            name,
            name_tokens,
            value,
        })
    }
}

/// A value with the tokens it was written as.
#[derive(Clone)]
pub(crate) struct Spanned<T> {
    pub(crate) value: T,
    pub(crate) tokens: TokenStream,
}

impl<T> Spanned<T> {
    pub(crate) fn span(&self) -> Span {
        self.tokens
            .clone()
            .into_iter()
            .next()
            .map_or_else(Span::call_site, |token| token.span())
    }
}

/// Reports names that the attribute does not have, and names said twice. `elsewhere` explains options of other attributes.
pub(crate) fn check_names(
    options: &[Opt],
    attribute: &str,
    known: &[&str],
    elsewhere: &dyn Fn(&str) -> Option<String>,
    errors: &mut Errors,
) {
    for (i, option) in options.iter().enumerate() {
        let name = option.name.as_str();
        if !known.contains(&name) {
            let message = elsewhere(name).unwrap_or_else(|| {
                format!(
                    "`{attribute}` has no option `{name}`; {}its options are {}",
                    text::did_you_mean(name, known),
                    text::list(known)
                )
            });
            errors.at(&option.name_tokens, message);
        } else if let Some(first) = options[..i].iter().find(|other| other.name == name) {
            errors.between(
                (
                    &option.name_tokens,
                    format!("`{name}` is given twice; keep one of the two"),
                ),
                (&first.name_tokens, format!("`{name}` is given here first")),
            );
        }
    }
}
