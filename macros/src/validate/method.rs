//! Rules of a method: its signature, and the options in `#[endpoint(..)]`.

use super::types::{Direction, check_message_type};
use super::{Defaults, context, service, store, streams};
use crate::diag::Errors;
use crate::model::{Answers, Arg, Helper, Item, Method, Output, RESERVED, Upload};
use crate::options::{self, Opt, Reader, Spanned};
use crate::parse::{AttrKind, MethodInput, OurAttr};
use crate::{text, value};
use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::ext::IdentExt as _;
use syn::{FnArg, Ident, Pat, PathArguments, ReceiverKind, ReturnType, Signature, Type};

const OPTIONS: &[&str] = &[
    "subject",
    "timeout",
    "metadata",
    "queue_group",
    "rename",
    "idempotent",
    "max_in_flight",
    "max_waiting",
    "max_waiting_bytes",
];

/// A method with a body of its own, and none of our attributes.
pub(super) fn helper(mut input: MethodInput, errors: &mut Errors) -> Item {
    check_cfg_attr(&mut input, errors);
    check_attributes(&mut input, errors);
    context::refuse_in_helper(&mut input.sig, errors);
    Item::Helper(Box::new(Helper {
        attrs: input.attrs,
        sig: input.sig,
        body: input.body,
    }))
}

pub(super) fn method(mut input: MethodInput, defaults: &Defaults, errors: &mut Errors) -> Method {
    check_cfg_attr(&mut input, errors);
    check_attributes(&mut input, errors);
    check_async(&input.sig, errors);
    check_receiver(&input.sig, errors);
    check_generics(&input.sig, errors);
    check_qualifiers(&input.sig, errors);
    let context = context::take(&mut input.sig, errors);
    let (args, upload) = arguments(&input, context.as_ref(), errors);
    let (output, answers) = output(&input.sig, errors);

    let options = endpoint_options(&input.ours, errors);
    let mut reader = Reader {
        options: &options,
        errors,
    };
    let rename = reader.parsed("rename", "\"other_name\"", |text| {
        value::name("an endpoint's name", text)?;
        let ident = text.replace('-', "_");
        if syn::parse_str::<Ident>(&ident).is_err() {
            return Err(format!(
                "`{text}` cannot be the name of a method, which the client and the stores make of it; choose one that can"
            ));
        }
        Ok(text.to_owned())
    });
    let subject = reader.parsed("subject", "\"save\"", |text| {
        value::subject(text).map(|()| text.to_owned())
    });
    let queue_group = reader.name_or_false("queue_group");
    let timeout = reader.duration("timeout");
    let metadata = reader.pairs("metadata");
    let idempotent = reader.flag("idempotent");
    let limits = limits(&mut reader);

    let ident = &input.sig.ident;
    let bare = ident.unraw().to_string();
    let name = rename
        .as_ref()
        .map_or(bare.as_str(), |rename| rename.value.as_str());
    let public = match &rename {
        Some(rename) => Ident::new(&rename.value.replace('-', "_"), rename.span()),
        None => ident.clone(),
    };
    let (name, name_tokens) = match &rename {
        Some(rename) => (name.to_owned(), rename.tokens.clone()),
        None => (name.to_owned(), ident.to_token_stream()),
    };
    check_name(&name, &name_tokens, rename.is_some(), errors);
    let subject_tokens = subject
        .as_ref()
        .map_or_else(|| name_tokens.clone(), |subject| subject.tokens.clone());
    let relative = subject.map_or_else(|| name.clone(), |subject| subject.value);
    let stores = store::stores(&input, &public, &args, &output, errors);
    if upload.is_some() || answers.is_some() {
        streams::check_options(&input, &options, idempotent, errors);
    }
    Method {
        camel: text::camel_case(&public.unraw().to_string()),
        public,
        subject: Spanned {
            value: format!("{}.{relative}", defaults.subject),
            tokens: subject_tokens,
        },
        name,
        description: service::description(&input.attrs),
        own_queue_group: queue_group.is_some(),
        queue_group: queue_group.map_or_else(|| defaults.queue_group.clone(), |group| group.value),
        timeout: timeout.map_or(defaults.timeout, |timeout| timeout.value),
        metadata,
        idempotent,
        limits,
        sig: input.sig,
        body: input.body,
        attrs: input.attrs,
        args,
        context: context.map(|marked| marked.argument),
        output,
        answers,
        upload,
        stores,
    }
}

/// What an endpoint holds at a time, where that is not for the server to say.
fn limits(reader: &mut Reader<'_>) -> [Option<u64>; 3] {
    let most = (1, 1 << 20);
    let running = reader.number("max_in_flight", most, "requests that run at once");
    let waiting = (0, 1 << 20);
    let waiting = reader.number("max_waiting", waiting, "requests that wait for their turn");
    let bytes = reader.size("max_waiting_bytes");
    [running, waiting, bytes].map(|limit| limit.map(|limit| limit.value))
}

/// `#[cfg_attr(.., kv_store(..))]`: we cannot know whether it is there. Taken out, or the compiler would report it too.
fn check_cfg_attr(input: &mut MethodInput, errors: &mut Errors) {
    input.attrs.retain(|attr| {
        let syn::Meta::List(list) = &attr.meta else {
            return true;
        };
        let ours = list.tokens.clone().into_iter().find_map(|token| match token {
            proc_macro2::TokenTree::Ident(ident) => {
                AttrKind::from_name(&ident.to_string()).map(|_| ident)
            }
            _ => None,
        });
        match ours {
            Some(ident) if list.path.is_ident("cfg_attr") => {
                errors.at(
                    &ident,
                    format!("`{ident}` cannot stand in `cfg_attr`, since the contract would depend on it; put `#[cfg(..)]` on the method, or use two methods"),
                );
                false
            }
            _ => true,
        }
    });
}

/// An attribute that is nearly one of ours. Taken out, or the compiler would report it too.
fn check_attributes(input: &mut MethodInput, errors: &mut Errors) {
    input.attrs.retain(|attr| {
        let Some(ident) = attr.path().get_ident() else {
            return true;
        };
        let name = ident.to_string();
        let near = AttrKind::NAMES
            .iter()
            .any(|known| text::distance(&name, known) <= 2);
        if !near {
            return true;
        }
        errors.at(
            ident,
            format!(
                "there is no attribute `{name}` for a method; {}there are {}",
                text::did_you_mean(&name, AttrKind::NAMES),
                text::list(AttrKind::NAMES)
            ),
        );
        false
    });
}

fn check_async(sig: &Signature, errors: &mut Errors) {
    if sig.asyncness.is_none() {
        errors.at(
            sig.fn_token,
            format!(
                "an endpoint is asynchronous; write `async fn {}`, or give a helper method a body",
                sig.ident
            ),
        );
    }
}

fn check_receiver(sig: &Signature, errors: &mut Errors) {
    let why = "handlers run side by side, so a method takes `&self`";
    match sig.inputs.first() {
        Some(FnArg::Receiver(receiver)) => match &receiver.kind {
            ReceiverKind::Reference(_, None, None) => {}
            ReceiverKind::Reference(_, _, Some(_)) => errors.at(
                receiver,
                format!("{why}; keep what changes behind a lock, an atomic or a pool"),
            ),
            ReceiverKind::Reference(..) => {
                errors.at(receiver, format!("{why}, without a lifetime"));
            }
            _ => errors.at(
                receiver,
                format!("{why}: there is one service for all calls; write `&self`"),
            ),
        },
        other => {
            let message = format!("{why} first; write `(&self, ..)`");
            match other {
                Some(first) => errors.at(first, message),
                None => errors.push(syn::Error::new(sig.paren_token.span.join(), message)),
            }
        }
    }
}

fn check_generics(sig: &Signature, errors: &mut Errors) {
    if !sig.generics.params.is_empty() {
        let lifetimes = sig.generics.lifetimes().count() == sig.generics.params.len();
        let way_out = if lifetimes {
            "borrow with `'_`: `request: Request<'_>`"
        } else {
            "write a method for each type"
        };
        errors.at(
            &sig.generics.params,
            format!("an endpoint has no parameters of this kind, since every message has one type; {way_out}"),
        );
    }
    if let Some(clause) = &sig.generics.where_clause {
        errors.at(
            clause,
            "an endpoint has no `where` clause, since every message has one type; remove it",
        );
    }
}

fn check_qualifiers(sig: &Signature, errors: &mut Errors) {
    if let syn::Safety::Unsafe(token) = &sig.safety {
        errors.at(
            token,
            "an endpoint is called by the network, so it is safe; remove `unsafe`",
        );
    }
    if let Some(token) = &sig.constness {
        errors.at(token, "an endpoint is not `const`; remove it");
    }
    if let Some(abi) = &sig.abi {
        errors.at(abi, "an endpoint has no ABI; remove it");
    }
}

/// The parts of the body: every argument but the marked one.
fn arguments(
    input: &MethodInput,
    context: Option<&context::Marked>,
    errors: &mut Errors,
) -> (Vec<Arg>, Option<Upload>) {
    let mut args: Vec<Arg> = Vec::new();
    let mut upload = None;
    for (i, arg) in input.sig.inputs.iter().enumerate() {
        let FnArg::Typed(arg) = arg else { continue };
        if context.is_some_and(|context| context.input == i) {
            continue;
        }
        let ident = match &*arg.pat {
            Pat::Ident(pat)
                if pat.by_ref.is_none()
                    && pat.subpat.is_none()
                    && (pat.mutability.is_none() || input.body.is_some()) =>
            {
                pat.ident.clone()
            }
            pat => {
                errors.at(
                    pat,
                    "an argument has a name, which keys and bodies of several arguments use; write `name: Type`",
                );
                quote::format_ident!("argument_{i}")
            }
        };
        if streams::of_many(&arg.ty).is_some() {
            let stream = streams::upload(&ident, &arg.ty, args.len(), upload.as_ref(), errors);
            upload = upload.or(stream);
            continue;
        }
        check_message_type(&arg.ty, Direction::Request, errors);
        args.push(Arg {
            ident,
            ty: (*arg.ty).clone(),
        });
    }
    (args, upload)
}

fn output(sig: &Signature, errors: &mut Errors) -> (Output, Option<Answers>) {
    let ReturnType::Type(_, ty) = &sig.output else {
        return (Output::Other(Box::new(syn::parse_quote!(()))), None);
    };
    if let Some((answers, output)) = streams::answers(ty, result_arguments(ty).as_ref(), errors) {
        return (output, Some(answers));
    }
    check_message_type(ty, Direction::Answer, errors);
    (output_of(ty), None)
}

pub(super) fn output_of(ty: &Type) -> Output {
    match result_arguments(ty) {
        Some((ok, err)) => Output::Result {
            ok: Box::new(ok),
            err: Box::new(err),
        },
        None => Output::Other(Box::new(ty.clone())),
    }
}

/// `T` and `E` where the type is written `..Result<T, E>`: only for readable signatures, the compiler checks that it is one.
fn result_arguments(ty: &Type) -> Option<(Type, Type)> {
    let ty = match ty {
        Type::Group(group) => &*group.elem,
        Type::Paren(paren) => &*paren.elem,
        ty => ty,
    };
    let Type::Path(path) = ty else { return None };
    let last = path.path.segments.last()?;
    let PathArguments::AngleBracketed(arguments) = &last.arguments else {
        return None;
    };
    let mut arguments = arguments.args.iter();
    match (arguments.next(), arguments.next(), arguments.next()) {
        (Some(syn::GenericArgument::Type(ok)), Some(syn::GenericArgument::Type(err)), None)
            if last.ident == "Result" && path.qself.is_none() =>
        {
            Some((ok.clone(), err.clone()))
        }
        _ => None,
    }
}

/// The options of the one `#[endpoint(..)]`.
fn endpoint_options(ours: &[OurAttr], errors: &mut Errors) -> Vec<Opt> {
    let mut all = ours.iter().filter(|attr| attr.kind == AttrKind::Endpoint);
    let Some(first) = all.next() else {
        return Vec::new();
    };
    for more in all {
        errors.between(
            (
                more.tokens.path(),
                "`#[endpoint]` is given twice; write all options in one",
            ),
            (first.tokens.path(), "`#[endpoint]` is given here first"),
        );
    }
    let options = match &first.options {
        Ok(options) => options.0.clone(),
        Err(error) => {
            errors.push(error.clone());
            Vec::new()
        }
    };
    options::check_names(
        &options,
        "endpoint",
        OPTIONS,
        &|name| match name {
            "name" => Some(
                "an endpoint is named after its method; for another name write `rename = \"..\"`"
                    .into(),
            ),
            "description" => Some(
                "an endpoint is described by the doc comment of its method; write `/// ..`".into(),
            ),
            "codec" | "version" => Some(format!(
                "`{name}` is the same for the whole service; write `#[nats_service({name} = \"..\")]`"
            )),
            _ => None,
        },
        errors,
    );
    options
}

fn check_name(name: &str, tokens: &TokenStream, renamed: bool, errors: &mut Errors) {
    let method = name.replace('-', "_");
    if RESERVED.contains(&method.as_str()) {
        let proposal = format!("call_{method}");
        let way_out = if renamed {
            format!("choose another, `\"{proposal}\"` say")
        } else {
            format!("write `#[endpoint(rename = \"{proposal}\")]` on it")
        };
        errors.at(
            tokens,
            format!("the generated client or its stores have a method `{method}` of their own; {way_out}"),
        );
    } else if !name.is_ascii() {
        errors.at(
            tokens,
            "the names of endpoints are ASCII; write `#[endpoint(rename = \"..\")]` on the method",
        );
    }
}
