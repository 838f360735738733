//! Rules of a key: its grammar, and where its captures come from. That a field exists, and can be a token, the compiler
//! says at the literal.

use crate::diag::Errors;
use crate::model::{Arg, From, Key, Output, Source};
use crate::options::Spanned;
use crate::template::{self, Broken, Capture, Template};
use crate::text;
use syn::Type;
use syn::ext::IdentExt as _;

/// Reads a key and finds its captures' sources.
pub(super) fn key(
    literal: &Spanned<String>,
    args: &[Arg],
    output: &Output,
    errors: &mut Errors,
) -> Option<Key> {
    let template = match template::parse(&literal.value) {
        Ok(template) => template,
        Err(broken) => {
            errors.at(&literal.tokens, template::show(&literal.value, &broken));
            return None;
        }
    };
    let mut fine = true;
    let mut captures = Vec::new();
    for capture in template.captures() {
        match source(capture, args, output) {
            Ok((from, fields)) => captures.push(Source {
                name: capture.name.clone(),
                form: capture.form,
                from,
                fields,
                parameter: String::new(),
            }),
            Err(rule) => {
                fine = false;
                let broken = Broken {
                    rule,
                    at: capture.at,
                };
                errors.at(&literal.tokens, template::show(&literal.value, &broken));
            }
        }
    }
    if !fine {
        return None;
    }
    name_parameters(&template, &mut captures);
    Some(Key {
        span: literal.span(),
        tokens: literal.tokens.clone(),
        template,
        captures,
    })
}

fn source(capture: &Capture, args: &[Arg], output: &Output) -> Result<(From, Vec<String>), String> {
    let name = &capture.name;
    // The grammar sees to it that there is a first part.
    let Some((first, fields)) = capture.path.split_first() else {
        return Err("a capture needs a name".into());
    };
    if let Some(i) = args.iter().position(|arg| arg.ident.unraw() == *first) {
        return Ok((From::Argument(i), fields.to_vec()));
    }
    if first == "response" {
        if answers_nothing(output) {
            return Err(format!(
                "`<{name}>` reads the answer, and this method answers nothing; use an argument, or return what the key needs"
            ));
        }
        return Ok((From::Response, fields.to_vec()));
    }
    match args {
        [_] => Ok((From::Argument(0), capture.path.clone())),
        [] => Err(format!(
            "`<{name}>` is an argument, and this method takes none; add one, read the answer (`<response.{name}>`), or write a key without captures"
        )),
        several => {
            let names: Vec<String> = several
                .iter()
                .map(|arg| arg.ident.unraw().to_string())
                .collect();
            let known: Vec<&str> = names.iter().map(String::as_str).collect();
            Err(format!(
                "there is no argument `{first}`; {}the arguments are {}, and a field of one is `<{}.{first}>`",
                text::did_you_mean(first, &known),
                text::list(&known),
                names[0]
            ))
        }
    }
}

fn answers_nothing(output: &Output) -> bool {
    let (Output::Result { ok: ty, .. } | Output::Other(ty)) = output;
    matches!(&**ty, Type::Tuple(tuple) if tuple.elems.is_empty())
}

/// Names parameters after the last part of their capture, and after the whole where that is not enough.
fn name_parameters(template: &Template, captures: &mut [Source]) {
    let paths: Vec<&Vec<String>> = template.captures().map(|capture| &capture.path).collect();
    let parameter = |path: &[String]| {
        let joined = path.join("_");
        if joined.starts_with(|c: char| c.is_ascii_digit()) {
            format!("value_{joined}")
        } else {
            joined
        }
    };
    for (i, path) in paths.iter().enumerate() {
        let last = path.last().map(std::slice::from_ref).unwrap_or_default();
        let clash = paths
            .iter()
            .any(|other| other != path && (other.last() == path.last()));
        captures[i].parameter = parameter(if clash { path.as_slice() } else { last });
    }
    // `a_b` and `a.b` in one template: numbers keep them apart.
    for i in 1..captures.len() {
        let taken =
            (0..i).any(|j| paths[j] != paths[i] && captures[j].parameter == captures[i].parameter);
        if taken {
            captures[i].parameter.push_str(&format!("_{}", i + 1));
        }
    }
}
