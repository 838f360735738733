//! Encodings that users bring along: a trait with generic functions, and behind a `Codec` the same without the types.
//!
//! The erasure is `erased-serde`'s. It costs a virtual call for every field, which the encodings in the box do not pay.

use serde::de::{DeserializeSeed, Deserializer, Error as _};
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::error::Error;
use std::fmt;
use std::sync::RwLock;

use super::Codec;
use super::guard::{Guard, Guarded};

/// What an encoding's functions fail with.
pub type FormatError = Box<dyn Error + Send + Sync>;

/// An encoding of your own, for `#[nats_service(codec = my::Cbor)]`, `Server::with_codec`, `with_codec` of a client and of the
/// stores. Needs the feature `codecs`.
///
/// ```
/// use nats_service::{Codec, Format, FormatError, serde::Serialize, serde::de::DeserializeSeed};
///
/// /// JSON with line breaks, for people.
/// pub struct Pretty;
///
/// impl Format for Pretty {
///     const NAME: &'static str = "pretty JSON";
///     const CONTENT_TYPE: &'static str = "application/vnd.pretty+json";
///     const UNIT: &'static [u8] = b"null";
///
///     fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), FormatError> {
///         Ok(serde_json::to_writer_pretty(out, value)?)
///     }
///
///     fn decode<'de, S: DeserializeSeed<'de>>(bytes: &'de [u8], seed: S) -> Result<S::Value, FormatError> {
///         let mut deserializer = serde_json::Deserializer::from_slice(bytes);
///         let value = seed.deserialize(&mut deserializer)?;
///         deserializer.end()?; // nothing may follow
///         Ok(value)
///     }
/// }
///
/// let pretty = Codec::of::<Pretty>();
/// let bytes = pretty.encode(&[1, 2])?;
/// assert_eq!(&bytes[..], b"[\n  1,\n  2\n]");
/// assert_eq!(pretty.decode::<Vec<u8>>(&bytes)?, [1, 2]);
/// # Ok::<(), nats_service::CodecError>(())
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no encoding",
    label = "a codec is `\"json\"`, `\"msgpack\"`, or a type that implements `nats_service::Format`",
    note = "implement `nats_service::Format` for `{Self}`"
)]
pub trait Format: Send + Sync + 'static {
    /// What people call it; it stands in errors.
    const NAME: &'static str;

    /// The media type that stands in `Content-Type`, without parameters. It is how a reader knows the encoding: one that is in
    /// use already is refused.
    const CONTENT_TYPE: &'static str;

    /// What `()` is written as: a method without arguments may be called with an empty message, which then stands for this.
    const UNIT: &'static [u8];

    /// Writes `value` to the end of `out`.
    ///
    /// # Errors
    /// When it cannot be written in this encoding.
    fn encode<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), FormatError>;

    /// Reads the value that `seed` makes: `seed.deserialize(&mut deserializer)`, where `T::deserialize` would stand otherwise.
    ///
    /// The bytes come from the network: refuse what follows the value. Nesting deeper than 64 levels is refused for you.
    ///
    /// # Errors
    /// When the bytes are not such a value, or something follows it.
    fn decode<'de, S: DeserializeSeed<'de>>(
        bytes: &'de [u8],
        seed: S,
    ) -> Result<S::Value, FormatError>;
}

/// A [`Format`] without its type.
#[derive(Clone, Copy)]
pub struct CustomCodec(&'static Table);

struct Table {
    name: &'static str,
    content_type: &'static str,
    unit: &'static [u8],
    encode: fn(&dyn erased_serde::Serialize, &mut Vec<u8>) -> Result<(), FormatError>,
    decode: for<'de> fn(&'de [u8], &mut dyn Slot<'de>) -> Result<(), FormatError>,
}

trait Tabled {
    const TABLE: Table;
}

impl<F: Format> Tabled for F {
    const TABLE: Table = Table {
        name: F::NAME,
        content_type: F::CONTENT_TYPE,
        unit: F::UNIT,
        encode: |value, out| F::encode(value, out),
        decode: decode::<F>,
    };
}

/// Where a value goes whose type the format does not know.
trait Slot<'de> {
    fn fill(
        &mut self,
        deserializer: &mut dyn erased_serde::Deserializer<'de>,
    ) -> Result<(), erased_serde::Error>;
}

struct Wanted<T>(Option<T>);

impl<'de, T: Deserialize<'de>> Slot<'de> for Wanted<T> {
    fn fill(
        &mut self,
        deserializer: &mut dyn erased_serde::Deserializer<'de>,
    ) -> Result<(), erased_serde::Error> {
        self.0 = Some(T::deserialize(deserializer)?);
        Ok(())
    }
}

struct Seed<'s, 'de>(&'s mut dyn Slot<'de>, Guard<'s>);

impl<'de> DeserializeSeed<'de> for Seed<'_, 'de> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<(), D::Error> {
        let guarded = Guarded {
            inner,
            guard: self.1,
        };
        let mut erased = <dyn erased_serde::Deserializer<'de>>::erase(guarded);
        self.0.fill(&mut erased).map_err(D::Error::custom)
    }
}

/// Reads with a format, and says what was wrong first.
fn decode<'de, F: Format>(bytes: &'de [u8], slot: &mut dyn Slot<'de>) -> Result<(), FormatError> {
    let said = RefCell::new(None);
    let read = F::decode(bytes, Seed(slot, Guard::new(&said)));
    read.map_err(|error| match said.take() {
        Some(first) => first.into(),
        None => error,
    })
}

impl CustomCodec {
    pub(super) const fn new<F: Format>() -> Self {
        Self(&<F as Tabled>::TABLE)
    }

    pub(super) const fn name(self) -> &'static str {
        self.0.name
    }

    pub(super) const fn content_type(self) -> &'static str {
        self.0.content_type
    }

    pub(super) const fn unit(self) -> &'static [u8] {
        self.0.unit
    }

    pub(super) fn encode<T: Serialize + ?Sized>(
        self,
        value: &T,
        out: &mut Vec<u8>,
    ) -> Result<(), FormatError> {
        // A reference to it, since only what has a size can be a trait object.
        (self.0.encode)(&value, out)
    }

    pub(super) fn decode<'de, T: Deserialize<'de>>(
        self,
        bytes: &'de [u8],
    ) -> Result<T, FormatError> {
        let mut wanted = Wanted(None);
        (self.0.decode)(bytes, &mut wanted)?;
        wanted
            .0
            .ok_or_else(|| "the format has not used its seed".into())
    }
}

impl PartialEq for CustomCodec {
    fn eq(&self, other: &Self) -> bool {
        self.0.content_type == other.0.content_type && self.0.name == other.0.name
    }
}

impl Eq for CustomCodec {}

impl fmt::Debug for CustomCodec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

/// Two encodings claim one media type, so that nobody could tell which of them a body is written in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{content_type}` is {other} already, and cannot be {name} too: give the format a `CONTENT_TYPE` of its own"
)]
pub struct CodecTaken {
    content_type: &'static str,
    name: &'static str,
    other: &'static str,
}

/// Those that this process reads besides the ones in the box. A media type means the same everywhere, so there is one list.
static KNOWN: RwLock<Vec<Codec>> = RwLock::new(Vec::new());

pub(super) fn known() -> Vec<Codec> {
    KNOWN
        .read()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
        .clone()
}

pub(super) fn register(codec: Codec) -> Result<(), CodecTaken> {
    let mut known = KNOWN
        .write()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let content_type = codec.content_type();
    let same = |other: &&Codec| other.content_type().eq_ignore_ascii_case(content_type);
    let other = super::IN_THE_BOX.iter().chain(known.iter()).find(same);
    match other {
        None => known.push(codec),
        Some(other) if *other == codec => {}
        Some(other) => {
            return Err(CodecTaken {
                content_type,
                name: codec.name(),
                other: other.name(),
            });
        }
    }
    Ok(())
}
