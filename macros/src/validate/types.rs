//! Rules of the types of messages, as far as their spelling tells. Whether they can be encoded, the compiler says.

use crate::diag::Errors;
use syn::Type;
use syn::visit::Visit;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Answer,
    /// Of a stream of requests.
    Item,
}

const ITEM: &str = "an item of a stream outlives its message, so it cannot borrow; use an owned type (`String` for `&str`)";

/// What the type of a message cannot hold.
pub(super) fn check_message_type(ty: &Type, direction: Direction, errors: &mut Errors) {
    struct Finder<'a> {
        direction: Direction,
        errors: &'a mut Errors,
    }
    impl<'ast> Visit<'ast> for Finder<'_> {
        fn visit_type_impl_trait(&mut self, ty: &'ast syn::TypeImplTrait) {
            let text = match super::streams::is_of_many(ty) {
                true => {
                    "a stream stands alone: as an argument, as the answer, or in `Result<impl Stream<..> + Send, E>`"
                }
                false => "every message has one type, and `impl Trait` is many; name the type",
            };
            self.errors.at(ty, text);
        }
        fn visit_type_reference(&mut self, ty: &'ast syn::TypeReference) {
            match self.direction {
                Direction::Answer => {
                    self.errors.at(
                        ty,
                        "an answer is encoded after the call has ended, so it cannot borrow; return an owned type (`String` for `&str`)",
                    );
                }
                Direction::Item => self.errors.at(ty, ITEM),
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
                Direction::Item if lifetime.ident != "static" => self.errors.at(lifetime, ITEM),
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
