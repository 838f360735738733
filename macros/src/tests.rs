//! Promises about every expansion, whatever the user wrote: only the given crate is named, nothing panics, the trait stays.

use proc_macro2::{TokenStream, TokenTree};
use quote::quote;

fn sample() -> TokenStream {
    quote! {
        /// Profiles.
        pub trait Profiles: Send {
            #[kv_store(bucket = "b", key = "user.<request.id>.<mail:escaped>.<path..>", history = 5, ttl = "1h", max_bytes = "64MiB")]
            #[kv_evict(bucket = "b", key = "old.<mail>")]
            #[endpoint(timeout = "1s", metadata(a = "b"))]
            async fn save(&self, request: Request<'_>, mail: &str, path: String) -> Result<Profile, Problem>;
            #[object_store(bucket = "o", key = "<response.id>", when = |_, answer| answer.ok)]
            #[kv_store(bucket = "c", key = "a", name = "copies", when = |request, answer| f::<A, B>(request, answer))]
            async fn render(&self, request: Request<'_>) -> ApiResult<Profile>;
            #[kv_cache(bucket = "k", key = "<id>", ttl = "1m", stale_on_error = "1h", cache_errors(NotFound = "1s"), single_flight = "cluster")]
            async fn find(&self, id: u64) -> Option<Profile>;
            async fn nothing(&self);
            async fn tail(&self, from: u64) -> Result<impl Stream<Item = Result<Line, Problem>> + Send, Problem>;
            async fn chat(&self, name: String, lines: impl Stream<Item = Line> + Send) -> impl Stream<Item = Line> + Send;
            async fn upload(&self, lines: impl Stream<Item = Line> + Send) -> u64;
            async fn told(&self, #[context] ctx: &Context, id: u64) -> u64;
            async fn helper<T>(&self, value: T) -> T { value }
        }
    }
}

/// Whether a token stream names this identifier anywhere.
fn names(tokens: &TokenStream, name: &str) -> bool {
    tokens.clone().into_iter().any(|token| match token {
        TokenTree::Group(group) => names(&group.stream(), name),
        TokenTree::Ident(ident) => ident == name,
        TokenTree::Literal(literal) => literal.to_string().starts_with(&format!("\"::{name}")),
        TokenTree::Punct(_) => false,
    })
}

#[test]
fn no_crate_is_named_but_the_one_that_was_given() {
    let expanded = crate::service(quote!(crate = my::framework), sample());
    assert!(!names(&expanded, "compile_error"), "{expanded}");
    assert!(!names(&expanded, "nats_service"), "{expanded}");
    assert!(names(&crate::service(quote!(), sample()), "nats_service"));

    let error = quote! {
        #[service_error(code = NotFound, message = "{id}", crate = my::framework)]
        struct Missing { id: u64 }
    };
    let expanded = crate::service_error::derive(error);
    assert!(
        !names(&expanded, "compile_error") && !names(&expanded, "nats_service"),
        "{expanded}"
    );

    let expanded = crate::message::expand(
        quote!(crate = my::framework),
        quote!(
            struct A;
        ),
    );
    assert!(
        !names(&expanded, "compile_error") && !names(&expanded, "nats_service"),
        "{expanded}"
    );
}

#[test]
fn only_our_attributes_are_taken_from_a_method() {
    let expanded = crate::service(
        quote!(),
        quote! {
            trait T {
                #[other::kv_store::of(a)]
                #[tracing::instrument]
                #[nats_service::endpoint(timeout = "1s")]
                async fn a(&self);
            }
        },
    );
    assert!(
        names(&expanded, "instrument") && names(&expanded, "other"),
        "{expanded}"
    );
    assert!(!names(&expanded, "endpoint"), "{expanded}");
}

/// Every way to leave one token out, to double it, or to put another in its place, at any depth.
fn damaged(tokens: &TokenStream) -> Vec<TokenStream> {
    let all: Vec<TokenTree> = tokens.clone().into_iter().collect();
    let mut out = Vec::new();
    for (i, token) in all.iter().enumerate() {
        let with = |middle: Vec<TokenTree>| -> TokenStream {
            let (before, after) = (&all[..i], &all[i + 1..]);
            before
                .iter()
                .cloned()
                .chain(middle)
                .chain(after.iter().cloned())
                .collect()
        };
        out.push(with(vec![]));
        out.push(with(vec![token.clone(), token.clone()]));
        for other in quote!(7 "<" self 'a = <) {
            out.push(with(vec![other]));
        }
        if let TokenTree::Group(group) = token {
            for inner in damaged(&group.stream()) {
                let group = proc_macro2::Group::new(group.delimiter(), inner);
                out.push(with(vec![group.into()]));
            }
        }
    }
    out
}

#[test]
fn no_damage_to_the_input_makes_the_macro_panic_or_lose_the_trait() {
    let inputs = damaged(&sample());
    assert!(inputs.len() > 1_000, "{}", inputs.len());
    for input in inputs {
        let keeps_trait = names(&input, "trait");
        let expanded = crate::service(quote!(), input);
        assert!(!keeps_trait || names(&expanded, "trait"), "{expanded}");
    }
    for options in damaged(&quote!(
        name = "a",
        metadata(a = "b", "c" = "d"),
        crate = a::b,
        timeout = "5s"
    )) {
        crate::service(options, sample());
    }
    let error = quote! {
        #[service_error(code = Internal)]
        enum Problem {
            #[service_error(code = NotFound, message = "{id} {0}")]
            Missing { id: u64 },
            #[service_error(message = "{0:?}")]
            Other(u8),
        }
    };
    for input in damaged(&error) {
        crate::service_error::derive(input);
    }
}

#[test]
fn after_an_error_the_names_are_still_there() {
    let expanded = crate::service(quote!(vesion = "1"), sample());
    assert!(names(&expanded, "compile_error"));
    for name in [
        "Profiles",
        "ProfilesContract",
        "ProfilesServer",
        "ProfilesClient",
        "ProfilesStores",
        "ProfilesSaveStore",
        "ProfilesRenderStore",
        "ProfilesCopiesStore",
        "ProfilesFindStore",
    ] {
        assert!(names(&expanded, name), "{name}");
    }
}
