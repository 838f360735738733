//! The first stage: from tokens to what the user wrote, with its spans. Meaning is not looked at, and bodies of methods
//! stay tokens: what stands in them is none of our business, and may be syntax that is newer than this crate.

use crate::options::Options;
use proc_macro2::TokenStream;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{
    Attribute, Generics, Ident, Meta, Signature, Token, TraitItem, TypeParamBound, Visibility,
};

/// An annotated trait.
pub(crate) struct TraitInput {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) vis: Visibility,
    pub(crate) unsafety: Option<Token![unsafe]>,
    pub(crate) trait_token: Token![trait],
    pub(crate) ident: Ident,
    pub(crate) generics: Generics,
    pub(crate) supertraits: Punctuated<TypeParamBound, Token![+]>,
    pub(crate) brace: syn::token::Brace,
    pub(crate) items: Vec<Item>,
}

/// What stands in the trait.
pub(crate) enum Item {
    Method(Box<MethodInput>),
    Other(Box<TraitItem>),
}

/// A method, with our attributes taken out of its own.
pub(crate) struct MethodInput {
    pub(crate) attrs: Vec<Attribute>,
    pub(crate) ours: Vec<OurAttr>,
    pub(crate) sig: Signature,
    /// The default body, braces and all.
    pub(crate) body: Option<TokenStream>,
}

/// One of our attributes.
pub(crate) struct OurAttr {
    pub(crate) kind: AttrKind,
    /// `kv_store(..)`, for an error about the whole.
    pub(crate) tokens: Meta,
    pub(crate) options: syn::Result<Options>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AttrKind {
    Endpoint,
    KvStore,
    KvCache,
    KvEvict,
    ObjectStore,
    ObjectEvict,
}

impl AttrKind {
    pub(crate) const NAMES: &'static [&'static str] = &[
        "endpoint",
        "kv_store",
        "kv_cache",
        "kv_evict",
        "object_store",
        "object_evict",
    ];

    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Some(match name {
            "endpoint" => Self::Endpoint,
            "kv_store" => Self::KvStore,
            "kv_cache" => Self::KvCache,
            "kv_evict" => Self::KvEvict,
            "object_store" => Self::ObjectStore,
            "object_evict" => Self::ObjectEvict,
            _ => return None,
        })
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Endpoint => "endpoint",
            Self::KvStore => "kv_store",
            Self::KvCache => "kv_cache",
            Self::KvEvict => "kv_evict",
            Self::ObjectStore => "object_store",
            Self::ObjectEvict => "object_evict",
        }
    }

    /// The one that this attribute is. Bare, or by a path of two: deeper paths are somebody else's.
    pub(crate) fn of(attr: &Attribute) -> Option<Self> {
        let path = attr.path();
        if path.segments.len() > 2 {
            return None;
        }
        path.segments
            .last()
            .and_then(|last| Self::from_name(&last.ident.to_string()))
    }
}

impl Parse for TraitInput {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut attrs = input.call(Attribute::parse_outer)?;
        let vis = input.parse()?;
        let unsafety = input.parse()?;
        let trait_token = input.parse()?;
        let ident = input.parse()?;
        let mut generics: Generics = input.parse()?;
        let mut supertraits = Punctuated::new();
        if input.parse::<Option<Token![:]>>()?.is_some() {
            while !input.peek(Token![where]) && !input.peek(syn::token::Brace) {
                supertraits.push_value(input.parse()?);
                if !input.peek(Token![+]) {
                    break;
                }
                supertraits.push_punct(input.parse()?);
            }
        }
        generics.where_clause = input.parse()?;
        let content;
        let brace = syn::braced!(content in input);
        attrs.extend(content.call(Attribute::parse_inner)?);
        let mut items = Vec::new();
        while !content.is_empty() {
            items.push(content.parse()?);
        }
        Ok(Self {
            attrs,
            vis,
            unsafety,
            trait_token,
            ident,
            generics,
            supertraits,
            brace,
            items,
        })
    }
}

impl Parse for Item {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let ahead = input.fork();
        ahead.call(Attribute::parse_outer)?;
        let constant = ahead.peek(Token![const])
            && !ahead.peek2(Token![fn])
            && !ahead.peek2(Token![async])
            && !ahead.peek2(Token![unsafe])
            && !ahead.peek2(Token![extern]);
        let method = ahead.peek(Token![fn])
            || ahead.peek(Token![async])
            || ahead.peek(Token![unsafe])
            || ahead.peek(Token![extern])
            || (ahead.peek(Token![const]) && !constant);
        if !method {
            return Ok(Item::Other(Box::new(input.parse()?)));
        }
        let all = input.call(Attribute::parse_outer)?;
        let sig = input.parse()?;
        let body = if input.peek(Token![;]) {
            input.parse::<Token![;]>()?;
            None
        } else {
            let group: proc_macro2::Group = input.parse()?;
            Some(TokenStream::from(proc_macro2::TokenTree::from(group)))
        };
        let mut attrs = Vec::new();
        let mut ours = Vec::new();
        for attr in all {
            match AttrKind::of(&attr) {
                Some(kind) => ours.push(OurAttr {
                    kind,
                    options: options(&attr.meta),
                    tokens: attr.meta,
                }),
                None => attrs.push(attr),
            }
        }
        Ok(Item::Method(Box::new(MethodInput {
            attrs,
            ours,
            sig,
            body,
        })))
    }
}

/// The options in the parentheses of an attribute.
pub(crate) fn options(meta: &Meta) -> syn::Result<Options> {
    match meta {
        Meta::Path(_) => Ok(Options::default()),
        Meta::List(list) => syn::parse2(list.tokens.clone()),
        Meta::NameValue(pair) => Err(syn::Error::new_spanned(
            pair.eq_token,
            "options stand in parentheses: `#[name(option = value)]`",
        )),
    }
}
