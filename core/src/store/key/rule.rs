//! The grammar of keys, and what to say of a text that is against it.

use std::borrow::Cow;
use std::fmt;

/// The longest key, in bytes. A subject of 4,000 characters ends the connection (the server's control line).
const MAX_KEY: usize = 1024;

/// A value that cannot stand where a key wants it.
///
/// ```
/// use nats_service::{KeyError, KeyRule};
/// let error = nats_service::check_key("user.a b").unwrap_err();
/// assert_eq!(error.rule(), KeyRule::Character(' '));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    pub(super) field: Cow<'static, str>,
    /// Empty for a key that was given whole.
    pub(super) template: &'static str,
    pub(super) rule: KeyRule,
}

/// The rule that a value breaks.
///
/// ```
/// assert!(nats_service::KeyRule::Dot.to_string().contains("dot"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum KeyRule {
    /// Nothing at all, or nothing between two dots.
    Empty,
    /// A dot in a place for one token.
    Dot,
    /// `*` or `>`.
    Wildcard,
    /// A character outside `[-_/=A-Za-z0-9]`.
    Character(char),
    /// The whole key has more than 1,024 bytes.
    TooLong,
    /// `_kv` at the start is the server's.
    Reserved,
}

impl fmt::Display for KeyRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyRule::Empty => f.write_str("a token must not be empty"),
            KeyRule::Dot => f.write_str("a dot is not allowed, it would make two tokens of one"),
            KeyRule::Wildcard => f.write_str("the wildcards `*` and `>` are not allowed"),
            KeyRule::Character(c) if c.is_whitespace() => {
                write!(
                    f,
                    "white space ({c:?}) is not allowed, only letters, digits and -_/= of ASCII"
                )
            }
            KeyRule::Character(':') => f.write_str(
                "the character ':' is not allowed, only letters, digits and -_/= of ASCII; what it separates elsewhere, a dot separates in a key",
            ),
            KeyRule::Character(c) => {
                write!(
                    f,
                    "the character {c:?} is not allowed, only letters, digits and -_/= of ASCII"
                )
            }
            KeyRule::TooLong => write!(f, "the whole key would have more than {MAX_KEY} bytes"),
            KeyRule::Reserved => f.write_str("a key must not begin with `_kv`, which is reserved"),
        }
    }
}

impl KeyError {
    /// The capture, or `key` for a key that was given whole.
    #[must_use]
    pub fn field(&self) -> &str {
        &self.field
    }

    /// What it breaks.
    #[must_use]
    pub fn rule(&self) -> KeyRule {
        self.rule
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            field,
            template,
            rule,
        } = self;
        if template.is_empty() {
            write!(f, "`{field}` is no key: {rule}")
        } else {
            write!(f, "`{field}` cannot stand in the key `{template}`: {rule}")
        }
    }
}

impl std::error::Error for KeyError {}

impl From<KeyError> for crate::Error {
    /// `InvalidArgument`, with the field and the rule for a program to read.
    fn from(error: KeyError) -> Self {
        let details = serde_json::json!({ "field": error.field, "rule": error.rule.to_string() });
        crate::Error::invalid_argument(error.to_string()).with_details(details)
    }
}

const fn in_alphabet(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'/' | b'=')
}

pub(super) fn check_tokens(text: &str, dots: bool) -> Result<(), KeyRule> {
    if text.is_empty() {
        return Err(KeyRule::Empty);
    }
    for c in text.chars() {
        match c {
            '.' if dots => {}
            '.' => return Err(KeyRule::Dot),
            '*' | '>' => return Err(KeyRule::Wildcard),
            c if c.is_ascii() && in_alphabet(c as u8) => {}
            c => return Err(KeyRule::Character(c)),
        }
    }
    if dots && text.split('.').any(str::is_empty) {
        return Err(KeyRule::Empty);
    }
    Ok(())
}

pub(super) fn check_whole(key: &str) -> Result<(), KeyRule> {
    if key.len() > MAX_KEY {
        return Err(KeyRule::TooLong);
    }
    if key.starts_with("_kv") {
        return Err(KeyRule::Reserved);
    }
    Ok(())
}

/// Checks a key that was given whole, by the grammar of KV keys.
///
/// # Errors
/// Names the rule that it breaks.
///
/// ```
/// assert!(nats_service::check_key("user.abc").is_ok());
/// assert!(nats_service::check_key("user..abc").is_err());
/// ```
pub fn check_key(key: &str) -> Result<(), KeyError> {
    check_tokens(key, true)
        .and_then(|()| check_whole(key))
        .map_err(|rule| KeyError {
            field: Cow::Borrowed("key"),
            template: "",
            rule,
        })
}
