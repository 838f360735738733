//! Messages: a format string over the fields of a variant. Captures are renamed to bindings of ours, so that a field of any
//! name works; what follows the `:` is the compiler's.

use crate::text;
use syn::Fields;
use syn::ext::IdentExt as _;

/// The format string with captures renamed, and the numbers of the fields in it.
pub(super) fn message(source: &str, fields: &Fields) -> Result<(String, Vec<usize>), String> {
    let names: Vec<String> = fields
        .iter()
        .enumerate()
        .map(|(i, field)| match &field.ident {
            Some(ident) => ident.unraw().to_string(),
            None => i.to_string(),
        })
        .collect();
    let mut out = String::new();
    let mut used = Vec::new();
    let mut rest = source;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, from) = rest.split_at(at);
        out.push_str(text);
        if let Some(after) = from.strip_prefix("{{").or_else(|| from.strip_prefix("}}")) {
            out.push_str(&from[..2]);
            rest = after;
            continue;
        }
        if from.starts_with('}') {
            return Err("a `}` stands alone; for the sign itself write `}}`".into());
        }
        let Some(end) = from.find('}') else {
            return Err(
                "a `{` is never closed; write `{field}`, or `{{` for the sign itself".into(),
            );
        };
        let inner = &from[1..end];
        rest = &from[end + 1..];
        let (name, spec) = match inner.split_once(':') {
            Some((name, spec)) => (name.trim(), Some(spec)),
            None => (inner.trim(), None),
        };
        let number = names.iter().position(|known| known == name);
        let Some(number) = number else {
            return Err(no_field(name, &names));
        };
        if spec.is_some_and(|spec| spec.contains('$') || spec.contains(".*")) {
            return Err(format!(
                "a width or precision in `{{{inner}}}` is a number; one that comes from another field is not supported"
            ));
        }
        if !used.contains(&number) {
            used.push(number);
        }
        out.push_str(&format!("{{field_{number}"));
        if let Some(spec) = spec {
            out.push(':');
            out.push_str(spec);
        }
        out.push('}');
    }
    out.push_str(rest);
    Ok((out, used))
}

fn no_field(name: &str, names: &[String]) -> String {
    if names.is_empty() {
        return format!(
            "`{{{name}}}` would be a field, and this variant has none; for the sign itself write `{{{{`"
        );
    }
    let known: Vec<&str> = names.iter().map(String::as_str).collect();
    if name.is_empty() {
        return format!("`{{}}` does not say which field; write `{{{}}}`", names[0]);
    }
    format!(
        "there is no field `{name}`; {}the fields are {}",
        text::did_you_mean(name, &known),
        text::list(&known)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named() -> Fields {
        let variant: syn::Variant = syn::parse_quote!(V { id: u8, r#type: u8 });
        variant.fields
    }

    #[test]
    fn captures_become_bindings() {
        assert_eq!(
            message("{{no}} {id:>5?} of {type}, {id}", &named()),
            Ok((
                "{{no}} {field_0:>5?} of {field_1}, {field_0}".to_owned(),
                vec![0, 1]
            ))
        );
        let tuple: syn::Variant = syn::parse_quote!(V(u8, u8));
        assert_eq!(
            message("{1}", &tuple.fields),
            Ok(("{field_1}".to_owned(), vec![1]))
        );
    }

    #[test]
    fn what_is_no_field_is_answered_with_those_that_are() {
        assert!(message("{di}", &named()).is_err_and(|m| m.contains("did you mean `id`")));
        assert!(message("{}", &named()).is_err_and(|m| m.contains("`{id}`")));
        assert!(message("{id", &named()).is_err());
        assert!(message("id}", &named()).is_err());
        assert!(message("{id:1$}", &named()).is_err());
        assert!(message("{id}", &Fields::Unit).is_err());
    }
}
