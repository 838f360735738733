//! The implementations.

use super::{ErrorType, Variant};
use proc_macro2::TokenStream;
use quote::quote;
use syn::Fields;
use syn::ext::IdentExt as _;

pub(super) fn expand(error: &ErrorType) -> TokenStream {
    let krate = &error.krate;
    let private = quote!(#krate::__private);
    let ident = &error.ident;
    let to_wire = error
        .variants
        .iter()
        .map(|variant| to_wire(error, variant, &private));
    let from_wire = error
        .variants
        .iter()
        .map(|variant| from_wire(error, variant, &private));
    let display = if error.display {
        display(error, &private)
    } else {
        quote!()
    };
    // A match on a reference to a type without values wants an arm.
    let subject = if error.variants.is_empty() {
        quote!(*self)
    } else {
        quote!(self)
    };
    let describe = describe(error, &private);
    quote! {
        #describe

        #[automatically_derived]
        impl #private::ServiceError for #ident {
            fn to_wire(&self) -> #private::Error {
                match #subject { #(#to_wire)* }
            }

            fn from_wire(
                error: #private::Error,
            ) -> ::core::result::Result<Self, #private::Error> {
                let restored: ::core::option::Option<Self> = match error.variant() {
                    #(#from_wire)*
                    _ => ::core::option::Option::None,
                };
                restored.ok_or(error)
            }
        }
        #display
    }
}

/// The implementations without their content, after an error.
pub(super) fn stub(error: &ErrorType) -> TokenStream {
    let krate = &error.krate;
    let private = quote!(#krate::__private);
    let ident = &error.ident;
    let display = if error.display {
        quote! {
            impl ::core::fmt::Display for #ident {
                fn fmt(&self, _: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                    ::core::unreachable!()
                }
            }
            impl ::core::error::Error for #ident {}
        }
    } else {
        quote!()
    };
    quote! {
        impl #private::ServiceError for #ident {
            fn to_wire(&self) -> #private::Error {
                ::core::unreachable!()
            }
            fn from_wire(_: #private::Error) -> ::core::result::Result<Self, #private::Error> {
                ::core::unreachable!()
            }
        }
        #display
    }
}

impl Variant {
    fn path(&self, error: &ErrorType) -> TokenStream {
        let ident = &self.ident;
        if error.is_enum {
            quote!(Self::#ident)
        } else {
            quote!(Self)
        }
    }

    /// A pattern of some fields. Braces fit every kind of variant.
    fn pattern(&self, error: &ErrorType, fields: &[usize]) -> TokenStream {
        let path = self.path(error);
        let bindings = fields.iter().map(|&number| {
            let (member, binding) = (self.member(number), self.binding(number));
            quote!(#member: #binding)
        });
        quote!(#path { #(#bindings,)* .. })
    }

    fn all(&self) -> Vec<usize> {
        (0..self.fields.len()).collect()
    }
}

fn to_wire(error: &ErrorType, variant: &Variant, private: &TokenStream) -> TokenStream {
    let cfgs = &variant.cfgs;
    let all = variant.all();
    let pattern = variant.pattern(error, &all);
    let name = variant.ident.unraw().to_string();
    // Without errors every variant has one.
    let code = variant.code.iter();
    let values = all.iter().map(|&number| {
        let (binding, field) = (variant.binding(number), &variant.fields.iter().nth(number));
        let ty = field.map(|field| &field.ty);
        quote!(#private::error_field::<#ty>(#binding))
    });
    let details = match &variant.fields {
        Fields::Unit => quote!(),
        Fields::Named(named) => {
            let names = named
                .named
                .iter()
                .flat_map(|field| &field.ident)
                .map(|ident| ident.unraw().to_string());
            quote!(.with_details(#private::error_object([#((#names, #values)),*])))
        }
        Fields::Unnamed(_) => quote!(.with_details(#private::error_array([#(#values),*]))),
    };
    quote! {
        #(#cfgs)*
        #pattern => #private::Error::new(
            #private::Code::#(#code)*,
            #private::std::string::ToString::to_string(self),
        )
        .with_variant(#name)
        #details,
    }
}

fn from_wire(error: &ErrorType, variant: &Variant, private: &TokenStream) -> TokenStream {
    let cfgs = &variant.cfgs;
    let path = variant.path(error);
    let name = variant.ident.unraw().to_string();
    let all = variant.all();
    let values = all.iter().map(|&number| {
        let member = variant.member(number);
        let index = match variant
            .fields
            .iter()
            .nth(number)
            .and_then(|field| field.ident.as_ref())
        {
            Some(ident) => {
                let name = ident.unraw().to_string();
                quote!(#name)
            }
            None => quote!(#number),
        };
        let ty = variant.fields.iter().nth(number).map(|field| &field.ty);
        quote!(#member: #private::restore_field::<#ty>(&error, #index)?)
    });
    let value = if all.is_empty() {
        quote!(::core::option::Option::Some(#path {}))
    } else {
        // A closure for its `?`.
        quote!((|| ::core::option::Option::Some(#path { #(#values),* }))())
    };
    quote! {
        #(#cfgs)*
        ::core::option::Option::Some(#name) => #value,
    }
}

/// What the variants are, for the contract's document. The bounds are checked where it is asked for, and not here.
fn describe(error: &ErrorType, private: &TokenStream) -> TokenStream {
    if !cfg!(feature = "schema") {
        return quote!();
    }
    let ident = &error.ident;
    // A bound cannot have a `cfg`: of a variant that has one, the fields are left out.
    let fields = |variant: &Variant| match variant.cfgs.is_empty() {
        true => variant.fields.iter().cloned().collect(),
        false => Vec::new(),
    };
    let types = error.variants.iter().flat_map(fields).map(|field| field.ty);
    let variants = error.variants.iter().map(|variant| {
        let (cfgs, description) = (&variant.cfgs, &variant.description);
        let name = variant.ident.unraw().to_string();
        let code = variant.code.iter();
        let fields = fields(variant).into_iter().map(|field| {
            let ty = &field.ty;
            match &field.ident {
                Some(ident) => {
                    let name = ident.unraw().to_string();
                    quote!(.field::<#ty>(generator, #name))
                }
                None => quote!(.item::<#ty>(generator)),
            }
        });
        quote! {
            #(#cfgs)*
            #private::ErrorVariant::new(#name, #private::Code::#(#code)*, #description) #(#fields)*,
        }
    });
    quote! {
        #[automatically_derived]
        impl #private::DescribeError for #ident
        where
            #(for<'any> #types: #private::schemars::JsonSchema,)*
        {
            fn variants(
                generator: &mut #private::schemars::SchemaGenerator,
            ) -> #private::std::vec::Vec<#private::ErrorVariant> {
                let _ = &generator;
                #private::std::vec::Vec::from([#(#variants)*])
            }
        }
    }
}

fn display(error: &ErrorType, private: &TokenStream) -> TokenStream {
    let ident = &error.ident;
    let source = source(error, private);
    let arms = error.variants.iter().map(|variant| {
        let cfgs = &variant.cfgs;
        let Some(message) = &variant.message else {
            return quote!();
        };
        let pattern = variant.pattern(error, &message.used);
        let literal = &message.literal;
        let arguments = message.used.iter().map(|&number| {
            let name = quote::format_ident!("field_{number}");
            let binding = variant.binding(number);
            quote!(#name = #binding)
        });
        quote!(#(#cfgs)* #pattern => ::core::write!(f, #literal, #(#arguments),*),)
    });
    quote! {
        #[automatically_derived]
        impl ::core::fmt::Display for #ident {
            fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> ::core::fmt::Result {
                match self { #(#arms)* }
            }
        }

        #[automatically_derived]
        impl ::core::error::Error for #ident {
            #source
        }
    }
}

/// What lies behind the error: the field whose type is `Cause`, which a function of the runtime finds.
fn source(error: &ErrorType, private: &TokenStream) -> TokenStream {
    let with_fields = error.variants.iter();
    let with_fields = with_fields.filter(|variant| !variant.fields.is_empty());
    let arms: Vec<_> = with_fields
        .map(|variant| {
            let (cfgs, all) = (&variant.cfgs, variant.all());
            let pattern = variant.pattern(error, &all);
            let fields = all.iter().map(|&number| {
                let binding = variant.binding(number);
                quote!(.or_else(|| #private::cause(#binding)))
            });
            quote!(#(#cfgs)* #pattern => ::core::option::Option::None #(#fields)*,)
        })
        .collect();
    if arms.is_empty() {
        return quote!();
    }
    quote! {
        fn source(&self) -> ::core::option::Option<&(dyn ::core::error::Error + 'static)> {
            #[allow(unreachable_patterns)]
            match self {
                #(#arms)*
                _ => ::core::option::Option::None,
            }
        }
    }
}
