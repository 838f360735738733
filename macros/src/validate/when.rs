//! Rules of `when = |request, response| ..`: a closure that is written out, with the parameters that the method gives it. What
//! they are and what it returns, the compiler checks.

use crate::diag::Errors;
use crate::model::{Arg, When};
use crate::options::Spanned;
use quote::ToTokens;
use syn::punctuated::Punctuated;
use syn::{ExprClosure, Pat};

/// The form of the option for a method, as its user would write it.
pub(super) fn form(args: &[Arg]) -> String {
    let names: Vec<String> = match args {
        [] => vec![],
        [_] => vec!["request".to_owned()],
        several => several.iter().map(|arg| arg.ident.to_string()).collect(),
    };
    let names: String = names.iter().map(|name| format!("{name}, ")).collect();
    format!("|{names}response| ..")
}

/// Takes the closure apart, as far as its parameters go.
pub(super) fn when(
    closure: Spanned<ExprClosure>,
    args: &[Arg],
    errors: &mut Errors,
) -> Option<When> {
    let mut closure = closure.value;
    if let Some(token) = &closure.asyncness {
        errors.at(
            token,
            "`when` is asked once, at once, between the answer and its reply, so it cannot wait; remove `async`",
        );
        return None;
    }
    let count = closure.inputs.len();
    if count != 1 && count != args.len() + 1 {
        let alone = if args.is_empty() {
            "the answer".to_owned()
        } else {
            let given = if args.len() == 1 {
                "the request"
            } else {
                "each argument"
            };
            format!(
                "references to {given} and to the answer, or the answer alone (`|response| ..`)"
            )
        };
        errors.at(
            closure_head(&closure),
            format!(
                "the closure of `when` takes {alone}, and this one takes {count}; write `when = {}`",
                form(args)
            ),
        );
        return None;
    }
    let request = closure.inputs.iter().take(count - 1);
    let reads_request = request.into_iter().any(|pattern| !is_wild(pattern));
    if !reads_request && count > 1 {
        // What it does not look at need not be there.
        let answer = closure.inputs.pop();
        closure.inputs = answer.into_iter().collect::<Punctuated<_, _>>();
    }
    Some(When {
        closure,
        reads_request,
    })
}

/// The parameters with their bars: what is wrong when there are too many.
fn closure_head(closure: &ExprClosure) -> impl ToTokens + use<> {
    let (open, inputs, close) = (&closure.inputs_begin, &closure.inputs, &closure.inputs_end);
    quote::quote!(#open #inputs #close)
}

fn is_wild(pattern: &Pat) -> bool {
    match pattern {
        Pat::Wild(_) => true,
        Pat::Type(typed) => is_wild(&typed.pat),
        _ => false,
    }
}
