//! Compile-fail and compile-pass cases live in `cases/`, see `tests/ui.rs`.
