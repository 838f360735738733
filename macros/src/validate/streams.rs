//! Streams in a signature: `impl Stream<Item = T> + Send`, as an argument, and as what a method answers.
//!
//! Here `impl` says it all: every other message has one type, so nothing else can be meant. Whether the bound is a stream at
//! all, the compiler says.

use super::types::{Direction, check_message_type};
use crate::diag::Errors;
use crate::model::{Answers, Output, Upload};
use crate::options::Opt;
use crate::parse::{AttrKind, MethodInput};
use syn::{AssocType, GenericArgument, PathArguments, Type, TypeImplTrait, TypeParamBound};

/// `impl ..<Item = T> ..`: something of which there are many.
pub(super) fn of_many(ty: &Type) -> Option<(&TypeImplTrait, &Type)> {
    match ty {
        Type::Group(group) => of_many(&group.elem),
        Type::Paren(paren) => of_many(&paren.elem),
        Type::ImplTrait(many) => many.bounds.iter().find_map(item).map(|item| (many, item)),
        _ => None,
    }
}

/// Whether this is one, wherever it stands.
pub(super) fn is_of_many(many: &TypeImplTrait) -> bool {
    many.bounds.iter().any(|bound| item(bound).is_some())
}

fn item(bound: &TypeParamBound) -> Option<&Type> {
    let TypeParamBound::Trait(bound) = bound else {
        return None;
    };
    let PathArguments::AngleBracketed(arguments) = &bound.path.segments.last()?.arguments else {
        return None;
    };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::AssocType(AssocType { ident, ty, .. }) if ident == "Item" => Some(ty),
        _ => None,
    })
}

fn check_bounds(many: &TypeImplTrait, errors: &mut Errors) {
    let named = |name: &str| {
        many.bounds.iter().find(|bound| {
            matches!(bound, TypeParamBound::Trait(bound) if bound.path.segments.last().is_some_and(|last| last.ident == name))
        })
    };
    if let Some(bound) = named("Iterator") {
        errors.at(
            bound,
            "items come one after another over the network, so this is a `Stream<Item = ..>`; `stream::iter(..)` of futures-util makes one of an iterator",
        );
    } else if named("Send").is_none() {
        errors.at(
            many,
            "a stream moves between threads; write `impl Stream<Item = ..> + Send`",
        );
    }
}

/// The argument that is a stream, if this is one.
pub(super) fn upload(
    ident: &syn::Ident,
    ty: &Type,
    at: usize,
    before: Option<&Upload>,
    errors: &mut Errors,
) -> Option<Upload> {
    let (many, item) = of_many(ty)?;
    check_bounds(many, errors);
    check_message_type(item, Direction::Item, errors);
    if before.is_some() {
        errors.at(
            many,
            "a call sends one stream; let its items be an enum, if there is more than one kind",
        );
        return None;
    }
    Some(Upload {
        ident: ident.clone(),
        item: item.clone(),
        at,
    })
}

/// The stream that a method answers with, if it does: alone, or in a `Result`.
pub(super) fn answers(
    ty: &Type,
    result: Option<&(Type, Type)>,
    errors: &mut Errors,
) -> Option<(Answers, Output)> {
    let (stands, error) = match result {
        Some((ok, error)) => (ok, Some(error)),
        None => (ty, None),
    };
    let (many, item) = of_many(stands)?;
    check_bounds(many, errors);
    check_message_type(item, Direction::Answer, errors);
    if let Some(error) = error {
        check_message_type(error, Direction::Answer, errors);
    }
    let typed = super::method::output_of(item);
    let output = match error {
        Some(error) => Output::Result {
            ok: Box::new(item.clone()),
            err: Box::new(error.clone()),
        },
        None => Output::Other(Box::new(item.clone())),
    };
    let answers = Answers {
        typed,
        error: error.cloned(),
    };
    Some((answers, output))
}

/// What goes with one answer, and not with many.
pub(super) fn check_options(
    input: &MethodInput,
    options: &[Opt],
    idempotent: bool,
    errors: &mut Errors,
) {
    let kept = input
        .ours
        .iter()
        .filter(|attr| attr.kind != AttrKind::Endpoint);
    for attr in kept {
        errors.at(
            attr.tokens.path(),
            format!(
                "`#[{}]` is about one answer, and this method streams; remove it, and let the handler write what is to be kept, or add a method that answers once",
                attr.kind.name()
            ),
        );
    }
    let option = options.iter().find(|option| option.name == "idempotent");
    if let Some(option) = option.filter(|_| idempotent) {
        errors.at(
            &option.name_tokens,
            "a stream is not repeated by itself, since nobody knows how much of it was used; remove `idempotent`, and call again from where it broke",
        );
    }
}
