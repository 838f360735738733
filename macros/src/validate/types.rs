//! Rules of the types of messages, as far as their spelling tells. Whether they can be encoded, the compiler says.

use crate::diag::Errors;
use syn::Type;
use syn::visit::Visit;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Answer,
}

/// What the type of a message cannot hold.
pub(super) fn check_message_type(ty: &Type, direction: Direction, errors: &mut Errors) {
    struct Finder<'a> {
        direction: Direction,
        errors: &'a mut Errors,
    }
    impl<'ast> Visit<'ast> for Finder<'_> {
        fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
            self.errors.at(
                ty,
                "every message has one type, and `impl Trait` is many; name the type",
            );
        }
        fn visit_type_reference(&mut self, ty: &'ast syn::TypeReference) {
            match self.direction {
                Direction::Answer => {
                    self.errors.at(
                        ty,
                        "an answer is encoded after the call has ended, so it cannot borrow; return an owned type (`String` for `&str`)",
                    );
                }
                Direction::Request => {
                    if let Some(token) = ty.mutability {
                        self.errors
                            .at(token, "a request is read, not changed; remove `mut`");
                    }
                    syn::visit::visit_type_reference(self, ty);
                }
            }
        }
        fn visit_lifetime(&mut self, lifetime: &'ast syn::Lifetime) {
            match self.direction {
                Direction::Answer if lifetime.ident != "static" => self.errors.at(
                    lifetime,
                    "an answer is encoded after the call has ended, so it cannot borrow; return an owned type",
                ),
                Direction::Request if lifetime.ident != "_" => self.errors.at(
                    lifetime,
                    "a request borrows from its message, and from nothing else; write `'_`, or leave the lifetime of a reference out",
                ),
                _ => {}
            }
        }
        fn visit_path(&mut self, path: &'ast syn::Path) {
            if let Some(first) = path.segments.first().filter(|first| first.ident == "Self") {
                self.errors.at(
                    &first.ident,
                    "`Self` is known to the server alone, and a message has one type for both sides; name the type",
                );
            }
            syn::visit::visit_path(self, path);
        }
        // Lifetimes in there are its own.
        fn visit_type_fn_ptr(&mut self, _: &'ast syn::TypeFnPtr) {}
    }
    Finder { direction, errors }.visit_type(ty);
}
