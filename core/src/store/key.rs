//! Keys: the template, what may stand in a capture, and the three things a template is for: build a key, build a filter,
//! take a key apart.
//!
//! A value is never pasted into a key as it is. `user.<id>` with `7.admin` or `*` is refused, because one capture is one
//! token; so no two values share a key, and no value reaches another's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// The longest key, in bytes. A subject of 4,000 characters ends the connection (the server's control line).
pub(crate) const MAX_KEY: usize = 1024;

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

/// A value that can stand in a key.
///
/// Strings, integers, `bool` and `char` can. A type of your own says how:
///
/// ```
/// use nats_service::KeyToken;
/// use std::borrow::Cow;
///
/// struct OrderId(u64);
/// impl KeyToken for OrderId {
///     fn key_token(&self) -> Cow<'_, str> {
///         Cow::Owned(format!("o{}", self.0))
///     }
/// }
/// assert_eq!(OrderId(7).key_token(), "o7");
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be one token of a key",
    label = "a key cannot be made from this type",
    note = "strings, integers, `bool` and `char` can; for a type of your own, `impl nats_service::KeyToken for {Self}`"
)]
pub trait KeyToken {
    /// The text, unchecked: whoever builds the key checks it.
    fn key_token(&self) -> Cow<'_, str>;
}

impl KeyToken for str {
    fn key_token(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl KeyToken for String {
    fn key_token(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

impl KeyToken for Cow<'_, str> {
    fn key_token(&self) -> Cow<'_, str> {
        Cow::Borrowed(self)
    }
}

macro_rules! token_by_reference {
    ($($type:ty),+) => {$(
        impl<T: KeyToken + ?Sized> KeyToken for $type {
            fn key_token(&self) -> Cow<'_, str> {
                (**self).key_token()
            }
        }
    )+};
}
token_by_reference!(&T, Box<T>, Arc<T>, std::rc::Rc<T>);

macro_rules! token_by_display {
    ($($type:ty),+) => {$(
        impl KeyToken for $type {
            fn key_token(&self) -> Cow<'_, str> {
                Cow::Owned(self.to_string())
            }
        }
    )+};
}
token_by_display!(
    u8, u16, u32, u64, u128, usize, i8, i16, i32, i64, i128, isize, bool, char
);

/// A value for a place in a filter: a token, or [`Any`].
///
/// ```
/// use nats_service::{Any, KeyFilter};
/// assert_eq!("eu".filter_token().as_deref(), Some("eu"));
/// assert_eq!(Any.filter_token(), None);
/// ```
pub trait KeyFilter {
    /// The text; `None` stands for everything.
    fn filter_token(&self) -> Option<Cow<'_, str>>;
}

/// Everything, in a place of a filter.
///
/// ```
/// use nats_service::{Any, KeyFilter};
/// assert!(Any.filter_token().is_none());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Any;

impl KeyFilter for Any {
    fn filter_token(&self) -> Option<Cow<'_, str>> {
        None
    }
}

impl<T: KeyToken> KeyFilter for T {
    fn filter_token(&self) -> Option<Cow<'_, str>> {
        Some(self.key_token())
    }
}

/// A value that cannot stand where a key wants it.
///
/// ```
/// use nats_service::{KeyError, KeyRule};
/// let error = nats_service::check_key("user.a b").unwrap_err();
/// assert_eq!(error.rule(), KeyRule::Character(' '));
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyError {
    field: Cow<'static, str>,
    template: &'static str,
    rule: KeyRule,
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

fn check_tokens(text: &str, dots: bool) -> Result<(), KeyRule> {
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

fn check_whole(key: &str) -> Result<(), KeyRule> {
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

impl Capture {
    /// Writes `value` at the end of `out`, if it may stand here.
    fn write(&self, value: &str, out: &mut String) -> Result<(), KeyRule> {
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

    fn error(&self, template: &KeyTemplate, rule: KeyRule) -> KeyError {
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

/// The keys of one call while they are being made: first from the request, then, where a template says so, from the answer.
#[derive(Debug)]
pub struct Keys {
    building: Vec<Building>,
    /// Which of `building` is next to be filled, in either pass.
    current: usize,
}

#[derive(Debug)]
struct Building {
    template: KeyTemplate,
    key: String,
    next: usize,
    /// Where captures of the answer belong, as byte positions in `key`, and which they are.
    gaps: std::collections::VecDeque<(usize, Capture)>,
}

impl Building {
    /// Copies literals, and remembers gaps, up to the next capture of the request.
    fn advance(&mut self) -> Option<Capture> {
        while let Some(segment) = self.template.segments.get(self.next) {
            self.next += 1;
            match segment {
                Segment::Literal(text) => self.key.push_str(text),
                Segment::Capture(capture) if capture.source == KeySource::Response => {
                    self.gaps.push_back((self.key.len(), *capture));
                }
                Segment::Capture(capture) => return Some(*capture),
            }
        }
        None
    }
}

impl Keys {
    /// Begins the keys of these templates.
    pub fn new(templates: impl IntoIterator<Item = KeyTemplate>) -> Self {
        let building = templates
            .into_iter()
            .map(|template| Building {
                template,
                key: String::with_capacity(template.source.len() + 32),
                next: 0,
                gaps: std::collections::VecDeque::new(),
            })
            .collect();
        Self {
            building,
            current: 0,
        }
    }

    /// Fills the next capture that comes from the request: template by template, capture by capture.
    ///
    /// # Errors
    /// Names the capture and the rule.
    pub fn request<T: KeyToken + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        while let Some(building) = self.building.get_mut(self.current) {
            let Some(capture) = building.advance() else {
                self.current += 1;
                continue;
            };
            return capture
                .write(&value.key_token(), &mut building.key)
                .and_then(|()| check_whole(&building.key))
                .map_err(|rule| capture.error(&building.template, rule));
        }
        debug_assert!(false, "more request captures than the templates have");
        Ok(())
    }

    /// Ends the pass over the request.
    pub fn request_done(&mut self) {
        for building in &mut self.building {
            let left = building.advance();
            debug_assert!(left.is_none(), "a request capture was not filled");
        }
        self.current = 0;
    }

    /// Fills the next capture that comes from the answer.
    ///
    /// # Errors
    /// Names the capture and the rule.
    pub fn response<T: KeyToken + ?Sized>(&mut self, value: &T) -> Result<(), KeyError> {
        while let Some(building) = self.building.get_mut(self.current) {
            let Some((position, capture)) = building.gaps.pop_front() else {
                self.current += 1;
                continue;
            };
            let mut token = String::new();
            return capture
                .write(&value.key_token(), &mut token)
                .and_then(|()| {
                    building.key.insert_str(position, &token);
                    for (later, _) in &mut building.gaps {
                        *later += token.len();
                    }
                    check_whole(&building.key)
                })
                .map_err(|rule| capture.error(&building.template, rule));
        }
        debug_assert!(false, "more response captures than the templates have");
        Ok(())
    }

    /// The finished keys, one for each template.
    #[must_use]
    pub fn finish(self) -> Vec<String> {
        self.building
            .into_iter()
            .map(|building| building.key)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn capture(name: &'static str, form: CaptureForm, source: KeySource) -> Segment {
        Segment::Capture(Capture { name, form, source })
    }

    const TENANT: KeyTemplate = KeyTemplate {
        source: "user.<region>.<id>",
        segments: &[
            Segment::Literal("user."),
            capture("region", CaptureForm::Token, KeySource::Request),
            Segment::Literal("."),
            capture("id", CaptureForm::Token, KeySource::Request),
        ],
    };
    const MADE: KeyTemplate = KeyTemplate {
        source: "<response.id>.<mail:escaped>.<response.path..>",
        segments: &[
            capture("response.id", CaptureForm::Token, KeySource::Response),
            Segment::Literal("."),
            capture("mail", CaptureForm::Escaped, KeySource::Request),
            Segment::Literal("."),
            capture("response.path", CaptureForm::Rest, KeySource::Response),
        ],
    };

    #[test]
    fn no_value_can_leave_its_token() {
        let rule = |id: &str| TENANT.key(&[&"eu", &id]).unwrap_err().rule();
        assert_eq!(rule(""), KeyRule::Empty);
        assert_eq!(rule("7.admin"), KeyRule::Dot);
        assert_eq!(rule("*"), KeyRule::Wildcard);
        assert_eq!(rule(">"), KeyRule::Wildcard);
        assert_eq!(rule("a b"), KeyRule::Character(' '));
        assert_eq!(rule("a\r\n"), KeyRule::Character('\r'));
        assert_eq!(rule("ü"), KeyRule::Character('ü'));
        assert_eq!(rule(&"x".repeat(1025)), KeyRule::TooLong);
        assert_eq!(TENANT.key(&[&"eu", &7_u64]).unwrap(), "user.eu.7");
    }

    #[test]
    fn a_filter_holds_only_the_wildcards_it_was_asked_for() {
        assert_eq!(TENANT.filter(&[&"eu", &Any]).unwrap(), "user.eu.*");
        assert_eq!(
            TENANT.filter(&[&"*", &Any]).unwrap_err().rule(),
            KeyRule::Wildcard
        );
        assert_eq!(MADE.filter(&[&Any, &"a@b", &Any]).unwrap(), "*.YUBi.>");
    }

    #[test]
    fn a_key_is_taken_apart_as_it_was_made() {
        assert_eq!(
            TENANT.parse("user.eu.7").unwrap(),
            [("region", Cow::Borrowed("eu")), ("id", Cow::Borrowed("7"))]
        );
        assert_eq!(TENANT.parse("user.eu"), None);
        assert_eq!(TENANT.parse("user.eu.7.x"), None);
        let parts = MADE.parse("9.YUBi.x.y").unwrap();
        assert_eq!(parts[1], ("mail", Cow::Borrowed("a@b")));
        assert_eq!(parts[2], ("response.path", Cow::Borrowed("x.y")));
    }

    #[test]
    fn captures_of_the_answer_are_filled_in_after_those_of_the_request() {
        let mut keys = Keys::new([TENANT, MADE]);
        keys.request("eu").unwrap();
        keys.request(&7).unwrap();
        keys.request("a@b").unwrap();
        keys.request_done();
        keys.response(&9).unwrap();
        keys.response("x.y").unwrap();
        assert_eq!(keys.finish(), ["user.eu.7", "9.YUBi.x.y"]);
    }

    #[test]
    fn a_reserved_or_broken_raw_key_is_refused() {
        assert_eq!(check_key("_kv.x").unwrap_err().rule(), KeyRule::Reserved);
        assert_eq!(check_key("a..b").unwrap_err().rule(), KeyRule::Empty);
        assert_eq!(check_key("a.*").unwrap_err().rule(), KeyRule::Wildcard);
        assert!(check_key("a/b=c.d-e_f").is_ok());
    }
}
