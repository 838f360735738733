//! `user.<id>` as the macro has parsed it: it builds keys and filters, and takes keys apart.

use super::rule::{KeyError, KeyRule, check_tokens, check_whole};
use super::token::{KeyFilter, KeyToken};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::borrow::Cow;

/// A key with captures, `user.<id>`, as the macro parsed and checked it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyTemplate {
    /// As it was written.
    pub source: &'static str,
    /// Literals, with their dots, and captures, in order.
    pub segments: &'static [Segment],
}

/// A part of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// Text, dots included.
    Literal(&'static str),
    /// A place to be filled.
    Capture(Capture),
}

/// A place in a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capture {
    /// As it was written: `id`, `address.city`, `response.id`.
    pub name: &'static str,
    /// How a value is written there.
    pub form: CaptureForm,
    /// Where the value comes from.
    pub source: KeySource,
}

/// How a value is written into a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaptureForm {
    /// `<id>`: one token, as it is.
    Token,
    /// `<id:escaped>`: any text, as base64url in one token.
    Escaped,
    /// `<path..>`: one or more tokens, as they are, at the end.
    Rest,
}

/// Where a captured value comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySource {
    /// Known before the call.
    Request,
    /// Known after it.
    Response,
}

impl Capture {
    /// Writes `value` at the end of `out`, if it may stand here.
    pub(super) fn write(&self, value: &str, out: &mut String) -> Result<(), KeyRule> {
        match self.form {
            CaptureForm::Token => check_tokens(value, false)?,
            CaptureForm::Rest => check_tokens(value, true)?,
            CaptureForm::Escaped if value.is_empty() => return Err(KeyRule::Empty),
            CaptureForm::Escaped => {
                URL_SAFE_NO_PAD.encode_string(value, out);
                return Ok(());
            }
        }
        out.push_str(value);
        Ok(())
    }

    pub(super) fn error(&self, template: &KeyTemplate, rule: KeyRule) -> KeyError {
        KeyError {
            field: Cow::Borrowed(self.name),
            template: template.source,
            rule,
        }
    }
}

impl KeyTemplate {
    /// The key with these values in its captures, in order.
    ///
    /// # Errors
    /// Names the capture whose value cannot stand there.
    pub fn key(&self, values: &[&dyn KeyToken]) -> Result<String, KeyError> {
        let mut values = values.iter();
        self.fill(|capture, out| match values.next() {
            Some(value) => capture.write(&value.key_token(), out),
            None => Err(KeyRule::Empty),
        })
    }

    /// The filter with these values in its captures; [`Any`] becomes a wildcard.
    ///
    /// # Errors
    /// Names the capture whose value cannot stand there.
    pub fn filter(&self, values: &[&dyn KeyFilter]) -> Result<String, KeyError> {
        let mut values = values.iter();
        self.fill(
            |capture, out| match values.next().and_then(|value| value.filter_token()) {
                Some(value) => capture.write(&value, out),
                None => {
                    out.push(if capture.form == CaptureForm::Rest {
                        '>'
                    } else {
                        '*'
                    });
                    Ok(())
                }
            },
        )
    }

    fn fill(
        &self,
        mut write: impl FnMut(&Capture, &mut String) -> Result<(), KeyRule>,
    ) -> Result<String, KeyError> {
        let mut out = String::with_capacity(self.source.len() + 32);
        for segment in self.segments {
            match segment {
                Segment::Literal(text) => out.push_str(text),
                Segment::Capture(capture) => {
                    write(capture, &mut out).map_err(|rule| capture.error(self, rule))?;
                    check_whole(&out).map_err(|rule| capture.error(self, rule))?;
                }
            }
        }
        Ok(out)
    }

    /// The values of the captures in `key`, in order and decoded; `None` when the key is not of this form.
    #[must_use]
    pub fn parse<'k>(&self, key: &'k str) -> Option<Vec<(&'static str, Cow<'k, str>)>> {
        let mut rest = key;
        let mut values = Vec::new();
        for segment in self.segments {
            match segment {
                Segment::Literal(text) => rest = rest.strip_prefix(text)?,
                Segment::Capture(capture) => {
                    let end = match capture.form {
                        CaptureForm::Rest => rest.len(),
                        _ => rest.find('.').unwrap_or(rest.len()),
                    };
                    let (value, after) = rest.split_at(end);
                    if value.is_empty() {
                        return None;
                    }
                    rest = after;
                    let value = match capture.form {
                        CaptureForm::Escaped => {
                            let bytes = URL_SAFE_NO_PAD.decode(value).ok()?;
                            Cow::Owned(String::from_utf8(bytes).ok()?)
                        }
                        _ => Cow::Borrowed(value),
                    };
                    values.push((capture.name, value));
                }
            }
        }
        rest.is_empty().then_some(values)
    }
}

/// The filter of every key of this form.
pub(crate) fn everything(template: &KeyTemplate) -> String {
    // Nothing is checked but the literals, which the macro has checked: as a filter, the source matches no key.
    let filter = template.filter(&[]);
    filter.unwrap_or_else(|_| template.source.to_owned())
}
