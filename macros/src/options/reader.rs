//! Values by their kind: strings, numbers, durations, sizes, choices, pairs, paths. One of another kind is reported, with the
//! form that was wanted.

use super::{Opt, Spanned, Value};
use crate::diag::Errors;
use crate::text;
use proc_macro2::TokenStream;
use std::time::Duration;
use syn::parse::Parser as _;
use syn::{Lit, LitInt, LitStr};

/// Typed access to checked options: a value of the wrong kind is reported, and then absent.
pub(crate) struct Reader<'a> {
    pub(crate) options: &'a [Opt],
    pub(crate) errors: &'a mut Errors,
}

impl Reader<'_> {
    fn tokens(&mut self, name: &str, form: &str) -> Option<TokenStream> {
        let option = self.options.iter().find(|option| option.name == name)?;
        if let Value::Tokens(tokens) = &option.value {
            return Some(tokens.clone());
        }
        self.errors.at(
            &option.name_tokens,
            format!("`{name}` wants a value; write `{name} = {form}`"),
        );
        None
    }

    fn literal(&mut self, name: &str, form: &str) -> Option<(Lit, TokenStream)> {
        let tokens = self.tokens(name, form)?;
        match syn::parse2::<Lit>(tokens.clone()) {
            Ok(literal) => Some((literal, tokens)),
            Err(_) => {
                self.wrong(&tokens, name, form, "a literal");
                None
            }
        }
    }

    fn wrong(&mut self, tokens: &TokenStream, name: &str, form: &str, kind: &str) {
        self.errors.at(
            tokens,
            format!("`{name}` wants {kind}; write `{name} = {form}`"),
        );
    }

    /// A string literal.
    pub(crate) fn string(&mut self, name: &str, form: &str) -> Option<Spanned<String>> {
        let (literal, tokens) = self.literal(name, form)?;
        if let Lit::Str(text) = literal {
            return Some(Spanned {
                value: text.value(),
                tokens,
            });
        }
        self.wrong(&tokens, name, form, "a string");
        None
    }

    /// A string literal that `check` turns into a value, or explains.
    pub(crate) fn parsed<T>(
        &mut self,
        name: &str,
        form: &str,
        check: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<Spanned<T>> {
        let text = self.string(name, form)?;
        match check(&text.value) {
            Ok(value) => Some(Spanned {
                value,
                tokens: text.tokens,
            }),
            Err(rule) => {
                self.errors.at(&text.tokens, rule);
                None
            }
        }
    }

    /// A duration, as a string.
    pub(crate) fn duration(&mut self, name: &str) -> Option<Spanned<Duration>> {
        let (literal, tokens) = self.literal(name, "\"5s\"")?;
        let problem = match literal {
            Lit::Str(text) => match crate::value::duration(&text.value()) {
                Ok(value) => return Some(Spanned { value, tokens }),
                Err(rule) => rule,
            },
            Lit::Int(number) if number.suffix().is_empty() => {
                format!(
                    "`{name}` wants a number with a unit; for seconds write `{name} = \"{}s\"`",
                    number.base10_digits()
                )
            }
            Lit::Int(number) => in_quotes(name, &number),
            _ => format!("`{name}` wants a duration; write `{name} = \"5s\"`"),
        };
        self.errors.at(&tokens, problem);
        None
    }

    /// A number within bounds.
    pub(crate) fn number(
        &mut self,
        name: &str,
        (low, high): (u64, u64),
        why: &str,
    ) -> Option<Spanned<u64>> {
        let tokens = self.tokens(name, &low.to_string())?;
        let rule = format!("`{name}` is a number from {low} to {high} ({why})");
        // `-1` is two tokens, and is best answered by the rule.
        if let Ok(Lit::Int(number)) = syn::parse2::<Lit>(tokens.clone())
            && number.suffix().is_empty()
        {
            match number.base10_parse::<u64>() {
                Ok(value) if (low..=high).contains(&value) => {
                    return Some(Spanned { value, tokens });
                }
                _ => {}
            }
        } else if let Ok(Lit::Str(text)) = syn::parse2::<Lit>(tokens.clone())
            && let Ok(number) = text.value().parse::<u64>()
        {
            self.errors.at(
                &tokens,
                format!(
                    "{rule}; write `{name} = {}`, without quotes",
                    number.clamp(low, high)
                ),
            );
            return None;
        }
        self.errors.at(&tokens, rule);
        None
    }

    /// A number of bytes, or a string with a unit.
    pub(crate) fn size(&mut self, name: &str) -> Option<Spanned<u64>> {
        let (literal, tokens) = self.literal(name, "\"64MiB\"")?;
        let size = match literal {
            Lit::Str(text) => crate::value::size(&text.value()),
            Lit::Int(number) if number.suffix().is_empty() => {
                crate::value::size(number.base10_digits())
            }
            Lit::Int(number) => Err(in_quotes(name, &number)),
            _ => crate::value::size(&tokens.to_string()),
        };
        match size {
            Ok(value) => Some(Spanned { value, tokens }),
            Err(rule) => {
                self.errors.at(&tokens, rule);
                None
            }
        }
    }

    /// `true` or `false`.
    pub(crate) fn boolean(&mut self, name: &str) -> Option<Spanned<bool>> {
        let (literal, tokens) = self.literal(name, "true")?;
        if let Lit::Bool(value) = literal {
            return Some(Spanned {
                value: value.value,
                tokens,
            });
        }
        self.wrong(&tokens, name, "true", "`true` or `false`");
        None
    }

    /// A name alone, or with `true` or `false`.
    pub(crate) fn flag(&mut self, name: &str) -> bool {
        let option = self.options.iter().find(|option| option.name == name);
        match option.map(|option| &option.value) {
            None => false,
            Some(Value::None) => true,
            Some(Value::Tokens(tokens)) => match syn::parse2::<syn::LitBool>(tokens.clone()) {
                Ok(literal) => literal.value,
                Err(_) => {
                    self.errors.at(
                        tokens,
                        format!("`{name}` is said or not said; write `{name}` alone"),
                    );
                    false
                }
            },
            Some(Value::List(_)) => {
                let option = option.map(|option| option.name_tokens.clone());
                self.errors.at(
                    option,
                    format!("`{name}` has no options of its own; write `{name}` alone"),
                );
                false
            }
        }
    }

    /// One of a list of strings, each with what it stands for and what it means.
    pub(crate) fn choice<T: Copy>(
        &mut self,
        name: &str,
        choices: &[(&str, T, &str)],
    ) -> Option<Spanned<T>> {
        let form = choices
            .first()
            .map(|first| format!("\"{}\"", first.0))
            .unwrap_or_default();
        let text = self.string(name, &form)?;
        if let Some((_, value, _)) = choices.iter().find(|choice| choice.0 == text.value) {
            return Some(Spanned {
                value: *value,
                tokens: text.tokens,
            });
        }
        let names: Vec<&str> = choices.iter().map(|choice| choice.0).collect();
        let near = text::nearest(&text.value, &names)
            .map(|near| format!("; did you mean `\"{near}\"`? It"))
            .unwrap_or_else(|| "; it".to_owned());
        let lines: Vec<String> = choices
            .iter()
            .map(|(name, _, meaning)| format!("\n  \"{name}\": {meaning}"))
            .collect();
        self.errors.at(
            &text.tokens,
            format!(
                "`{name}` cannot be `\"{}\"`{near} is one of{}",
                text.value,
                lines.concat()
            ),
        );
        None
    }

    /// `name = "q"` or `name = false`.
    pub(crate) fn name_or_false(&mut self, name: &str) -> Option<Spanned<Option<String>>> {
        let (literal, tokens) = self.literal(name, "\"q\"")?;
        match literal {
            Lit::Str(text) => match queue_group(&text.value()) {
                Ok(()) => Some(Spanned {
                    value: Some(text.value()),
                    tokens,
                }),
                Err(rule) => {
                    self.errors.at(&tokens, rule);
                    None
                }
            },
            Lit::Bool(off) if !off.value => Some(Spanned {
                value: None,
                tokens,
            }),
            _ => {
                self.errors.at(
                    &tokens,
                    format!("`{name}` is a name, or `false` when every instance is to get every request; write `{name} = \"q\"` or `{name} = false`"),
                );
                None
            }
        }
    }

    /// `metadata(owner = "team-a", "x-y" = "z")`.
    pub(crate) fn pairs(&mut self, name: &str) -> Vec<(String, String)> {
        let form = format!("{name}(owner = \"team-a\", \"x-y\" = \"z\")");
        let Some(option) = self.options.iter().find(|option| option.name == name) else {
            return Vec::new();
        };
        let Value::List(list) = &option.value else {
            self.errors.at(
                &option.name_tokens,
                format!("`{name}` is a list of pairs; write `{form}`"),
            );
            return Vec::new();
        };
        let mut pairs: Vec<(String, String)> = Vec::new();
        for pair in list {
            let value = match &pair.value {
                Value::Tokens(tokens) => syn::parse2::<LitStr>(tokens.clone()).map_err(|_| tokens),
                _ => Err(&pair.name_tokens),
            };
            match value {
                Ok(_) if pair.name.is_empty() => {
                    self.errors
                        .at(&pair.name_tokens, "a metadata name must not be empty");
                }
                Ok(_) if pairs.iter().any(|(known, _)| *known == pair.name) => {
                    self.errors.at(
                        &pair.name_tokens,
                        format!(
                            "`{}` is given twice in `{name}`; keep one of the two",
                            pair.name
                        ),
                    );
                }
                Ok(value) => pairs.push((pair.name.clone(), value.value())),
                Err(tokens) => self.errors.at(
                    tokens,
                    format!("metadata values are strings; write `{form}`"),
                ),
            }
        }
        pairs
    }

    /// A closure that was written out. What it takes and gives is not looked at.
    pub(crate) fn closure(&mut self, name: &str, form: &str) -> Option<Spanned<syn::ExprClosure>> {
        let tokens = self.tokens(name, form)?;
        match syn::parse2::<syn::ExprClosure>(tokens.clone()) {
            Ok(value) => Some(Spanned { value, tokens }),
            Err(_) => {
                self.wrong(&tokens, name, form, "a closure that gives a `bool`");
                None
            }
        }
    }

    /// A path, `crate = some::path`.
    pub(crate) fn path(&mut self, name: &str, form: &str) -> Option<Spanned<syn::Path>> {
        let tokens = self.tokens(name, form)?;
        match syn::Path::parse_mod_style.parse2(tokens.clone()) {
            Ok(value) => Some(Spanned { value, tokens }),
            Err(_) => {
                self.wrong(&tokens, name, form, "a path, without quotes");
                None
            }
        }
    }
}

/// `64MiB` is a literal to the compiler, of the number 64.
fn in_quotes(name: &str, number: &LitInt) -> String {
    format!("`{name}` wants quotes around a number with a unit; write `{name} = \"{number}\"`")
}

fn queue_group(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Err(
            "a queue group must not be empty; for none at all write `queue_group = false`".into(),
        );
    }
    match text
        .chars()
        .find(|c| c.is_whitespace() || c.is_control() || matches!(c, '*' | '>'))
    {
        Some(bad) => Err(format!(
            "a queue group cannot hold {bad:?}; use letters, digits, `_`, `-` and dots"
        )),
        None => Ok(()),
    }
}
