//! `#[derive(ServiceError)]`: an error's codes, its message, and its fields across the wire.
//!
//! The same stages as for a trait: `parse` reads attributes, the rules are here, `expand` cannot fail.

mod expand;
mod format;

use crate::diag::Errors;
use crate::options::{self, Opt, Options, Reader, Spanned, Value};
use crate::{text, validate};
use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Attribute, Data, DeriveInput, Fields, Ident};

/// The names of `nats_service::Code`; a case in `ui-tests` holds the two lists together.
pub(crate) const CODES: &[&str] = &[
    "InvalidArgument",
    "Unauthenticated",
    "PermissionDenied",
    "NotFound",
    "AlreadyExists",
    "Aborted",
    "FailedPrecondition",
    "OutOfRange",
    "ResourceExhausted",
    "Cancelled",
    "Internal",
    "DataLoss",
    "Unknown",
    "Unimplemented",
    "Unavailable",
    "DeadlineExceeded",
];

/// An error type.
struct ErrorType {
    krate: syn::Path,
    ident: Ident,
    is_enum: bool,
    variants: Vec<Variant>,
    /// Whether the text is ours: all variants have a `message`.
    display: bool,
}

/// A variant, or the one form of a struct.
struct Variant {
    ident: Ident,
    fields: Fields,
    cfgs: Vec<Attribute>,
    /// The first paragraph of its documentation.
    description: String,
    code: Option<Ident>,
    message: Option<Message>,
}

/// A message as a format string whose captures are bindings of ours.
struct Message {
    literal: syn::LitStr,
    /// The fields that it mentions, by number.
    used: Vec<usize>,
}

pub(crate) fn derive(input: TokenStream) -> TokenStream {
    let input: DeriveInput = match syn::parse2(input) {
        Ok(input) => input,
        Err(error) => return error.into_compile_error(),
    };
    let mut errors = Errors::default();
    check_generics(&input, &mut errors);
    let model = model(&input, &mut errors);
    if errors.is_empty() {
        return expand::expand(&model);
    }
    // An `impl` of a generic type wants bounds that nobody knows; a union has no `Display` to lean on.
    let named = !matches!(input.data, Data::Union(_));
    let stub = if named && input.generics.params.is_empty() {
        expand::stub(&model)
    } else {
        TokenStream::new()
    };
    let errors = errors.into_tokens();
    quote::quote!(#stub #errors)
}

fn check_generics(input: &DeriveInput, errors: &mut Errors) {
    if !input.generics.params.is_empty() {
        errors.at(
            &input.generics.params,
            "an error that crosses the wire has one type on both sides, so it has no parameters; write its fields with concrete types",
        );
    }
}

/// Reads and checks everything.
fn model(input: &DeriveInput, errors: &mut Errors) -> ErrorType {
    let container = attribute(&input.attrs, errors);
    let is_enum = !matches!(input.data, Data::Struct(_));
    let known: &[&str] = if is_enum {
        &["code", "crate"]
    } else {
        &["code", "message", "crate"]
    };
    let elsewhere = |name: &str| {
        (is_enum && name == "message").then(|| {
            "every variant has a message of its own; move `message` to the variants".to_owned()
        })
    };
    options::check_names(&container, "service_error", known, &elsewhere, errors);
    let default = code(&container, errors);
    let krate = Reader {
        options: &container,
        errors,
    }
    .path("crate", "::nats_service")
    .map_or_else(validate::default_crate, |path| path.value);

    let variants = match &input.data {
        Data::Struct(data) => {
            let message = message(&container, &data.fields, errors);
            vec![Variant {
                ident: input.ident.clone(),
                fields: data.fields.clone(),
                cfgs: Vec::new(),
                description: validate::description(&input.attrs),
                code: default.clone(),
                message,
            }]
        }
        Data::Enum(data) => data
            .variants
            .iter()
            .map(|variant| self::variant(variant, default.as_ref(), errors))
            .collect(),
        Data::Union(data) => {
            errors.at(
                data.union_token,
                "a union cannot be an error of a service; write an enum",
            );
            Vec::new()
        }
    };
    check_codes(&container, input, &variants, errors);
    let display =
        check_messages(input, &variants, errors) || (!errors.is_empty() && says_message(input));
    ErrorType {
        krate,
        ident: input.ident.clone(),
        is_enum,
        variants,
        display,
    }
}

fn variant(variant: &syn::Variant, default: Option<&Ident>, errors: &mut Errors) -> Variant {
    let options = attribute(&variant.attrs, errors);
    options::check_names(
        &options,
        "service_error",
        &["code", "message"],
        &|name| {
            (name == "crate").then(|| "`crate` is said once, on the enum; move it there".to_owned())
        },
        errors,
    );
    let own = code(&options, errors);
    // One that was given and is wrong is reported already; the default keeps it from being reported as missing.
    let given = options.iter().any(|option| option.name == "code");
    let code = own
        .or_else(|| default.cloned())
        .or_else(|| given.then(|| Ident::new("Unknown", variant.ident.span())));
    Variant {
        message: message(&options, &variant.fields, errors),
        description: validate::description(&variant.attrs),
        ident: variant.ident.clone(),
        fields: variant.fields.clone(),
        cfgs: variant
            .attrs
            .iter()
            .filter(|attr| attr.path().is_ident("cfg"))
            .cloned()
            .collect(),
        code,
    }
}

/// The options of all `#[service_error(..)]`.
fn attribute(attrs: &[Attribute], errors: &mut Errors) -> Vec<Opt> {
    let mut all = Vec::new();
    for attr in attrs
        .iter()
        .filter(|attr| attr.path().is_ident("service_error"))
    {
        match crate::parse::options(&attr.meta) {
            Ok(Options(options)) => all.extend(options),
            Err(error) => errors.push(error),
        }
    }
    all
}

fn code(options: &[Opt], errors: &mut Errors) -> Option<Ident> {
    let option = options.iter().find(|option| option.name == "code")?;
    let Value::Tokens(tokens) = &option.value else {
        errors.at(
            &option.name_tokens,
            "`code` wants a value; write `code = NotFound`",
        );
        return None;
    };
    let ident = match syn::parse2::<syn::Path>(tokens.clone()) {
        Ok(path) => path.segments.last().map(|last| last.ident.clone()),
        Err(_) => None,
    };
    let Some(ident) = ident else {
        errors.at(
            tokens,
            format!(
                "`code` is a name, without quotes: `code = NotFound`; the codes are {}",
                text::list(CODES)
            ),
        );
        return None;
    };
    let name = ident.to_string();
    if !CODES.contains(&name.as_str()) {
        errors.at(
            &ident,
            format!(
                "there is no code `{name}`; {}the codes are {}",
                text::did_you_mean(&name, CODES),
                text::list(CODES)
            ),
        );
        return None;
    }
    Some(ident)
}

fn message(options: &[Opt], fields: &Fields, errors: &mut Errors) -> Option<Message> {
    let literal: Spanned<String> =
        Reader { options, errors }.string("message", "\"no profile {id}\"")?;
    match format::message(&literal.value, fields) {
        Ok((text, used)) => Some(Message {
            literal: syn::LitStr::new(&text, literal.span()),
            used,
        }),
        Err(rule) => {
            errors.at(&literal.tokens, rule);
            // It was given, which is what the rule about all or none looks at.
            Some(Message {
                literal: syn::LitStr::new("", literal.span()),
                used: Vec::new(),
            })
        }
    }
}

/// Every variant has a code, of its own or by default.
fn check_codes(container: &[Opt], input: &DeriveInput, variants: &[Variant], errors: &mut Errors) {
    if container.iter().any(|option| option.name == "code") {
        return;
    }
    for variant in variants.iter().filter(|variant| variant.code.is_none()) {
        let whole = if matches!(input.data, Data::Enum(_)) {
            format!(", or a code for all on `{}`", input.ident)
        } else {
            String::new()
        };
        errors.at(
            &variant.ident,
            format!(
                "`{}` needs the code that callers see; write `#[service_error(code = NotFound)]` on it{whole}; the codes are {}",
                variant.ident,
                text::list(CODES)
            ),
        );
    }
}

/// Messages on all variants, or on none: half a `Display` cannot be generated.
fn check_messages(input: &DeriveInput, variants: &[Variant], errors: &mut Errors) -> bool {
    let Some(with) = variants.iter().find(|variant| variant.message.is_some()) else {
        return false;
    };
    for without in variants.iter().filter(|variant| variant.message.is_none()) {
        errors.at(
            &without.ident,
            format!(
                "`{0}` has no message, and `{1}` has one; write `#[service_error(message = \"..\")]` on it too, or on none, and implement `Display` for `{2}` yourself",
                without.ident, with.ident, input.ident
            ),
        );
    }
    true
}

/// Whether there is something like a message anywhere: then a stub has to have the text too.
fn says_message(input: &DeriveInput) -> bool {
    let mut ignored = Errors::default();
    let mut options = attribute(&input.attrs, &mut ignored);
    if let Data::Enum(data) = &input.data {
        for variant in &data.variants {
            options.extend(attribute(&variant.attrs, &mut ignored));
        }
    }
    options
        .iter()
        .any(|option| text::nearest(&option.name, &["message"]).is_some())
}

impl Variant {
    /// What a pattern binds the field of this number to.
    fn binding(&self, number: usize) -> Ident {
        quote::format_ident!("field_{number}", span = proc_macro2::Span::mixed_site())
    }

    /// The field's name, or its number.
    fn member(&self, number: usize) -> TokenStream {
        match self
            .fields
            .iter()
            .nth(number)
            .and_then(|field| field.ident.as_ref())
        {
            Some(ident) => ident.to_token_stream(),
            None => syn::Index::from(number).to_token_stream(),
        }
    }
}
