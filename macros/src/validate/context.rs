//! Rules of `#[context] ctx: &Context`: which argument it is, and that it is one reference. Whether its type is a context,
//! the compiler says: the name of a type means nothing.

use crate::diag::Errors;
use crate::model::ContextArg;
use proc_macro2::TokenStream;
use quote::ToTokens as _;
use syn::{Attribute, FnArg, Meta, Signature, Type};

/// The marked argument of a method.
pub(super) struct Marked {
    /// Its place among all inputs, the receiver included.
    pub(super) input: usize,
    pub(super) argument: ContextArg,
}

/// Takes the marks off the arguments, and says which one carries it.
pub(super) fn take(sig: &mut Signature, errors: &mut Errors) -> Option<Marked> {
    let mut marked: Option<(Attribute, Marked)> = None;
    let mut arguments = 0;
    for (input, argument) in sig.inputs.iter_mut().enumerate() {
        let marks = take_marks(argument);
        let mut before = arguments;
        let ty = match argument {
            FnArg::Receiver(_) => None,
            FnArg::Typed(argument) => {
                arguments += 1;
                Some(&*argument.ty)
            }
        };
        for mark in marks {
            check_bare(&mark, errors);
            let Some(ty) = ty else {
                errors.at(
                    &mark,
                    "the receiver is the service; mark an argument: `#[context] ctx: &Context`",
                );
                continue;
            };
            if let Some((first, _)) = &marked {
                errors.between(
                    (
                        &mark,
                        "`#[context]` is given twice, and a call has one context; remove one of the two",
                    ),
                    (first, "`#[context]` is given here first"),
                );
                continue;
            }
            let argument = ContextArg {
                position: std::mem::take(&mut before),
                ty: referred(ty, errors),
            };
            marked = Some((mark, Marked { input, argument }));
        }
    }
    marked.map(|(_, marked)| marked)
}

/// A helper is called by whoever has its arguments, so nobody fills them in.
pub(super) fn refuse_in_helper(sig: &mut Signature, errors: &mut Errors) {
    for argument in &mut sig.inputs {
        for mark in take_marks(argument) {
            errors.at(
                &mark,
                "a method with a body is a helper, and is given its arguments by its caller; remove `#[context]`, or make it an endpoint with `#[endpoint]`",
            );
        }
    }
}

fn take_marks(argument: &mut FnArg) -> Vec<Attribute> {
    let attrs = match argument {
        FnArg::Receiver(receiver) => &mut receiver.attrs,
        FnArg::Typed(argument) => &mut argument.attrs,
    };
    let (marks, others) = std::mem::take(attrs).into_iter().partition(is_mark);
    *attrs = others;
    marks
}

/// Bare, or by a path of two, as our other attributes.
fn is_mark(attr: &Attribute) -> bool {
    let segments = &attr.path().segments;
    segments.len() <= 2 && segments.last().is_some_and(|last| last.ident == "context")
}

fn check_bare(mark: &Attribute, errors: &mut Errors) {
    let rest: TokenStream = match &mark.meta {
        Meta::Path(_) => return,
        Meta::List(list) => list.tokens.clone(),
        Meta::NameValue(pair) => pair.value.to_token_stream(),
    };
    let message = "`#[context]` has no options; write it alone";
    if rest.is_empty() {
        errors.at(mark, message);
    } else {
        errors.at(rest, message);
    }
}

/// What is behind the reference.
fn referred(ty: &Type, errors: &mut Errors) -> Type {
    let plain = match ty {
        Type::Group(group) => &*group.elem,
        Type::Paren(paren) => &*paren.elem,
        ty => ty,
    };
    let Type::Reference(reference) = plain else {
        errors.at(
            ty,
            "a context is lent for the time of the call; write `&Context`",
        );
        return ty.clone();
    };
    if let Some(token) = reference.mutability {
        errors.at(
            token,
            "a context is shared with what runs around the handler; remove `mut`, since what can be set is set through `&Context`",
        );
    }
    if let Some(lifetime) = &reference.lifetime {
        errors.at(
            lifetime,
            "a context is lent for the time of the call; remove the lifetime",
        );
    }
    (*reference.elem).clone()
}
