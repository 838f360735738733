//! How a value becomes the bytes of a body or of an entry, and back.
//!
//! Decoding refuses what is left over after the value, and nesting deeper than a message has any use for: both come
//! from the network.

#[cfg(feature = "codecs")]
mod custom;
#[cfg(feature = "codecs")]
mod guard;

#[cfg(feature = "codecs")]
pub use custom::{CodecTaken, CustomCodec, Format, FormatError};

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use std::cell::{Cell, RefCell};
use std::fmt;

/// The encoding of a body or of a stored value.
///
/// A service has one, named by `#[nats_service(codec = "..")]`; it is written into the `Content-Type` header of every
/// entry that the service stores, so that a reader in any language knows what the bytes are. Requests may be in any codec that
/// the service's process knows: those in the box, and those that were [registered](Self::register).
///
/// ```
/// use nats_service::Codec;
/// let bytes = Codec::Json.encode(&vec![1, 2, 3])?;
/// assert_eq!(&bytes[..], b"[1,2,3]");
/// assert_eq!(Codec::Json.decode::<Vec<u8>>(&bytes)?, [1, 2, 3]);
/// assert_eq!(Codec::Json.content_type(), "application/json");
/// # Ok::<(), nats_service::CodecError>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Codec {
    /// JSON, the default: any tool can read it.
    #[default]
    Json,
    /// MessagePack with field names (maps, not arrays, so that a field may be added). Needs the feature `msgpack`.
    #[cfg(feature = "msgpack")]
    MessagePack,
    /// One that implements `Format`, see [`Codec::of`]. Needs the feature `codecs`.
    #[cfg(feature = "codecs")]
    Custom(CustomCodec),
}

const IN_THE_BOX: &[Codec] = &[
    Codec::Json,
    #[cfg(feature = "msgpack")]
    Codec::MessagePack,
];

/// A value could not be encoded or decoded.
///
/// ```
/// let error = nats_service::Codec::Json.decode::<u8>(b"[").unwrap_err();
/// assert!(error.to_string().contains("JSON"));
/// ```
#[derive(Debug, Clone)]
pub struct CodecError {
    format: &'static str,
    doing: Doing,
    message: String,
}

#[derive(Debug, Clone, Copy)]
enum Doing {
    Encoding,
    Decoding,
    Choosing,
}

impl CodecError {
    fn new(format: &'static str, encoding: bool, message: &dyn fmt::Display) -> Self {
        let doing = match encoding {
            true => Doing::Encoding,
            false => Doing::Decoding,
        };
        let message = message.to_string();
        Self {
            format,
            doing,
            message,
        }
    }

    /// The bytes say that they are of a type that nobody here reads.
    pub(crate) fn unknown(content_type: &str, own: Codec) -> Self {
        let content_type = super::header::sanitize(content_type, 128);
        Self {
            format: own.name(),
            doing: Doing::Choosing,
            message: format!(
                "`{content_type}` is read by no codec here; there are `{}`",
                own.spoken().join("`, `")
            ),
        }
    }
}

impl fmt::Display for CodecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            format, message, ..
        } = self;
        match self.doing {
            Doing::Encoding => write!(f, "the value cannot be written as {format}: {message}"),
            Doing::Decoding => write!(f, "the bytes are not the expected {format}: {message}"),
            Doing::Choosing => f.write_str(message),
        }
    }
}

impl std::error::Error for CodecError {}

/// Bytes reserved at a time for small bodies; one allocation then serves many of them.
const CHUNK: usize = 16 * 1024;
/// Deeper nesting is refused: at 1,024 levels a debug build overflows its stack (measured).
#[cfg(feature = "msgpack")]
const MAX_DEPTH: usize = 64;

thread_local! {
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    static CHUNKS: RefCell<BytesMut> = RefCell::default();
}

/// Encoders write many small pieces, which a `Vec` takes faster than anything else; what they have written is then copied in
/// one go into a chunk that many bodies share.
///
/// The memory is this thread's, and taken for as long as a value is written: a `Serialize` that itself encodes finds none,
/// and gets some of its own.
struct Scratch(Vec<u8>);

impl Scratch {
    fn take() -> Self {
        Self(SCRATCH.take())
    }

    fn into_bytes(mut self) -> Bytes {
        if self.0.len() > CHUNK {
            // A large body keeps its memory to itself, and hands none of it on to the small ones after it.
            return std::mem::take(&mut self.0).into();
        }
        CHUNKS.with_borrow_mut(|chunk| {
            if chunk.capacity() < self.0.len() {
                chunk.reserve(CHUNK);
            }
            chunk.extend_from_slice(&self.0);
            chunk.split().freeze()
        })
    }
}

impl Drop for Scratch {
    /// Hands the memory back, without what a failed or panicking encoder has left in it.
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.0);
        if memory.capacity() <= CHUNK {
            memory.clear();
            SCRATCH.set(memory);
        }
    }
}

/// A value as encoders see it: all that is compiled for a type is what its own `Serialize` needs.
pub(crate) trait Encode {
    fn json(&self, into: &mut Vec<u8>) -> Result<(), serde_json::Error>;
    #[cfg(feature = "msgpack")]
    fn msgpack(&self, into: &mut Vec<u8>) -> Result<(), rmp_serde::encode::Error>;
    #[cfg(feature = "codecs")]
    fn custom(&self, codec: CustomCodec, into: &mut Vec<u8>) -> Result<(), FormatError>;
}

impl<T: Serialize> Encode for T {
    fn json(&self, into: &mut Vec<u8>) -> Result<(), serde_json::Error> {
        self.serialize(&mut serde_json::Serializer::new(into))
    }

    #[cfg(feature = "msgpack")]
    fn msgpack(&self, into: &mut Vec<u8>) -> Result<(), rmp_serde::encode::Error> {
        rmp_serde::encode::write_named(into, self)
    }

    #[cfg(feature = "codecs")]
    fn custom(&self, codec: CustomCodec, into: &mut Vec<u8>) -> Result<(), FormatError> {
        codec.encode(self, into)
    }
}

/// The place of a value as decoders see it, see [`Encode`]. There is one in it when they have ended well.
pub(crate) trait Decode<'de> {
    fn json(&mut self, from: &mut Json<'de>) -> Result<(), serde_json::Error>;
    #[cfg(feature = "msgpack")]
    fn msgpack(&mut self, from: &mut MessagePack<'de>) -> Result<(), rmp_serde::decode::Error>;
    #[cfg(feature = "codecs")]
    fn custom(&mut self, codec: CustomCodec, from: &'de [u8]) -> Result<(), FormatError>;
}

type Json<'de> = serde_json::Deserializer<serde_json::de::SliceRead<'de>>;
#[cfg(feature = "msgpack")]
type MessagePack<'de> = rmp_serde::Deserializer<rmp_serde::decode::ReadRefReader<'de, [u8]>>;

impl<'de, T: Deserialize<'de>> Decode<'de> for Option<T> {
    fn json(&mut self, from: &mut Json<'de>) -> Result<(), serde_json::Error> {
        put(self, T::deserialize(from))
    }

    #[cfg(feature = "msgpack")]
    fn msgpack(&mut self, from: &mut MessagePack<'de>) -> Result<(), rmp_serde::decode::Error> {
        put(self, T::deserialize(from))
    }

    #[cfg(feature = "codecs")]
    fn custom(&mut self, codec: CustomCodec, from: &'de [u8]) -> Result<(), FormatError> {
        put(self, codec.decode(from))
    }
}

fn put<T, E>(place: &mut Option<T>, value: Result<T, E>) -> Result<(), E> {
    match value {
        Ok(value) => {
            *place = Some(value);
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What a decoder that has ended well has put there.
pub(crate) fn decoded<T>(value: Option<T>) -> T {
    match value {
        Some(value) => value,
        None => unreachable!("it was decoded"),
    }
}

impl Codec {
    /// Encodes `value`.
    ///
    /// # Errors
    /// When the type's own `Serialize` fails (a map whose keys are no strings, in JSON).
    pub fn encode<T: Serialize + ?Sized>(self, value: &T) -> Result<Bytes, CodecError> {
        self.encode_erased(&value)
    }

    /// The same, compiled once for all types.
    pub(crate) fn encode_erased(self, value: &dyn Encode) -> Result<Bytes, CodecError> {
        let mut scratch = Scratch::take();
        match self {
            Codec::Json => match value.json(&mut scratch.0) {
                Ok(()) => Ok(scratch.into_bytes()),
                Err(error) => Err(CodecError::new("JSON", true, &error)),
            },
            #[cfg(feature = "msgpack")]
            Codec::MessagePack => match value.msgpack(&mut scratch.0) {
                Ok(()) => Ok(scratch.into_bytes()),
                Err(error) => Err(CodecError::new("MessagePack", true, &error)),
            },
            #[cfg(feature = "codecs")]
            Codec::Custom(custom) => match value.custom(custom, &mut scratch.0) {
                Ok(()) => Ok(scratch.into_bytes()),
                Err(error) => Err(CodecError::new(custom.name(), true, &error)),
            },
        }
    }

    /// Decodes a value, which may borrow from `bytes`.
    ///
    /// # Errors
    /// When the bytes are not a `T`, something follows it, or it is nested too deep.
    pub fn decode<'de, T: Deserialize<'de>>(self, bytes: &'de [u8]) -> Result<T, CodecError> {
        let mut value = None;
        match self.decode_into(bytes, &mut value) {
            Ok(()) => Ok(decoded(value)),
            Err(error) => Err(error),
        }
    }

    /// The same, compiled once for all types.
    pub(crate) fn decode_into<'de>(
        self,
        bytes: &'de [u8],
        value: &mut dyn Decode<'de>,
    ) -> Result<(), CodecError> {
        match self {
            Codec::Json => {
                // It limits the depth to 128; what trails is asked for.
                let mut deserializer = serde_json::Deserializer::from_slice(bytes);
                value
                    .json(&mut deserializer)
                    .and_then(|()| deserializer.end())
                    .map_err(|error| CodecError::new("JSON", false, &error))
            }
            #[cfg(feature = "msgpack")]
            Codec::MessagePack => {
                let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
                deserializer.set_max_depth(MAX_DEPTH);
                value
                    .msgpack(&mut deserializer)
                    .map_err(|error| CodecError::new("MessagePack", false, &error))?;
                // There is no way to ask how much was read; only "no further marker" means that all of it was.
                match serde::de::IgnoredAny::deserialize(&mut deserializer) {
                    Err(rmp_serde::decode::Error::InvalidMarkerRead(_)) => Ok(()),
                    _ => Err(CodecError::new(
                        "MessagePack",
                        false,
                        &"something follows the value",
                    )),
                }
            }
            #[cfg(feature = "codecs")]
            Codec::Custom(custom) => value
                .custom(custom, bytes)
                .map_err(|error| CodecError::new(custom.name(), false, &error)),
        }
    }

    /// Decodes what says of itself that it is `said`. One that says nothing is in this codec; so, perhaps, is one whose type
    /// nobody knows, since other programs write `text/plain` over JSON.
    pub(crate) fn decode_named<'de, T: Deserialize<'de>>(
        self,
        said: Option<&str>,
        bytes: &'de [u8],
    ) -> Result<T, CodecError> {
        let Some(said) = said else {
            return self.decode(bytes);
        };
        match self.or_named(said) {
            Some(codec) => codec.decode(bytes),
            None => self
                .decode(bytes)
                .map_err(|_| CodecError::unknown(said, self)),
        }
    }

    /// `body`, or the encoding of `()` when there is none: a method without arguments is called with an empty message.
    pub(crate) fn body_or_unit(self, body: &[u8]) -> &[u8] {
        match self {
            _ if !body.is_empty() => body,
            Codec::Json => b"null",
            #[cfg(feature = "msgpack")]
            Codec::MessagePack => &[0xc0],
            #[cfg(feature = "codecs")]
            Codec::Custom(custom) => custom.unit(),
        }
    }

    /// What people call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Codec::Json => "JSON",
            #[cfg(feature = "msgpack")]
            Codec::MessagePack => "MessagePack",
            #[cfg(feature = "codecs")]
            Codec::Custom(custom) => custom.name(),
        }
    }

    /// The media type: what stands in `Content-Type`.
    #[must_use]
    pub const fn content_type(self) -> &'static str {
        match self {
            Codec::Json => "application/json",
            #[cfg(feature = "msgpack")]
            Codec::MessagePack => "application/msgpack",
            #[cfg(feature = "codecs")]
            Codec::Custom(custom) => custom.content_type(),
        }
    }

    /// The codec of a `Content-Type` header's value, if this process knows it; parameters (`; charset=utf-8`) are passed over.
    #[must_use]
    pub fn from_content_type(value: &str) -> Option<Self> {
        let media_type = media_type(value);
        let in_the_box = IN_THE_BOX.iter().find(|codec| codec.is(media_type));
        #[cfg(feature = "codecs")]
        if in_the_box.is_none() {
            return custom::known()
                .into_iter()
                .find(|codec| codec.is(media_type));
        }
        in_the_box.copied()
    }

    /// The codec of `said`, where this is one that needs no registration.
    pub(crate) fn or_named(self, said: &str) -> Option<Self> {
        match self.is(media_type(said)) {
            true => Some(self),
            false => Self::from_content_type(said),
        }
    }

    fn is(self, media_type: &str) -> bool {
        self.content_type().eq_ignore_ascii_case(media_type)
    }

    /// The codec of a type of yours.
    #[cfg(feature = "codecs")]
    #[must_use]
    pub const fn of<F: Format>() -> Self {
        Codec::Custom(CustomCodec::new::<F>())
    }

    /// Lets everything in this process read the codec where a request, a reply or a stored value names it. `Server::serve`,
    /// `Server::with_codec` and `with_codec` of a client do it by themselves; a program that only reads stores calls it.
    ///
    /// # Errors
    /// When its media type is another codec's already.
    #[cfg(feature = "codecs")]
    pub fn register(self) -> Result<(), CodecTaken> {
        custom::register(self)
    }

    /// What is understood where this is the service's own: the media types, this one first.
    pub(crate) fn spoken(self) -> Vec<&'static str> {
        let mut all = vec![self.content_type()];
        let mut add = |codec: &Codec| {
            if !codec.is(self.content_type()) {
                all.push(codec.content_type());
            }
        };
        IN_THE_BOX.iter().for_each(&mut add);
        #[cfg(feature = "codecs")]
        custom::known().iter().for_each(&mut add);
        all
    }

    /// The codec that a caller wants its answer in, by its `Accept` header: the one that it likes best of those that are
    /// spoken, and of several the first. `self` where anything is fine; `None` where nothing is.
    pub(crate) fn accepted(self, accept: &str) -> Option<Self> {
        let mut best: Option<(f32, Self)> = None;
        for wanted in accept.split(',') {
            let quality = wanted.split(';').skip(1).find_map(|parameter| {
                let (name, value) = parameter.split_once('=')?;
                let value: f32 = value.trim().parse().ok()?;
                name.trim().eq_ignore_ascii_case("q").then_some(value)
            });
            let quality = quality.unwrap_or(1.0);
            let codec = match media_type(wanted) {
                "*/*" | "application/*" => Some(self),
                _ => self.or_named(wanted),
            };
            let better = best.is_none_or(|(best, _)| quality > best);
            if let (Some(codec), true) = (codec, better && quality > 0.0) {
                best = Some((quality, codec));
            }
        }
        best.map(|(_, codec)| codec)
    }
}

/// A media type without its parameters.
fn media_type(value: &str) -> &str {
    value.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Codec> {
        vec![
            Codec::Json,
            #[cfg(feature = "msgpack")]
            Codec::MessagePack,
        ]
    }

    #[test]
    fn a_value_comes_back_and_may_borrow_from_the_bytes() {
        for codec in all() {
            let bytes = codec.encode(&("abc", 7)).unwrap();
            assert_eq!(codec.decode::<(&str, u8)>(&bytes).unwrap(), ("abc", 7));
            assert_eq!(Codec::from_content_type(codec.content_type()), Some(codec));
        }
        assert_eq!(
            Codec::from_content_type("Application/JSON; charset=utf-8"),
            Some(Codec::Json)
        );
        assert_eq!(Codec::from_content_type("text/plain"), None);
    }

    #[test]
    fn an_answer_is_in_the_codec_that_its_caller_likes_best_of_those_that_are_spoken() {
        let accepted = |accept: &str| Codec::Json.accepted(accept).map(Codec::content_type);
        let json = Some("application/json");
        for accept in [
            "application/json",
            "*/*",
            "text/html, application/json;q=0.1",
            "application/*",
            "APPLICATION/JSON; charset=utf-8",
        ] {
            assert_eq!(accepted(accept), json, "{accept}");
        }
        for accept in ["", "text/html", "application/json;q=0", ",;,", "q=1"] {
            assert_eq!(accepted(accept), None, "{accept}");
        }
        #[cfg(feature = "msgpack")]
        {
            let msgpack = Some("application/msgpack");
            assert_eq!(accepted("application/msgpack, application/json"), msgpack);
            assert_eq!(
                accepted("application/json;q=0.5, application/msgpack"),
                msgpack
            );
            assert_eq!(accepted("application/msgpack;q=0.5, */*"), json);
        }
    }

    #[test]
    fn what_follows_the_value_is_refused() {
        for codec in all() {
            let mut bytes = codec.encode(&[7_u8]).unwrap().to_vec();
            bytes.extend_from_slice(&codec.encode(&[7_u8]).unwrap());
            assert!(codec.decode::<Vec<u8>>(&bytes).is_err(), "{codec:?}");
            assert!(codec.decode::<Vec<u8>>(&[]).is_err(), "{codec:?}");
        }
    }

    #[test]
    fn nesting_without_end_is_an_error_and_not_a_stack_overflow() {
        for (codec, open) in all().into_iter().zip([b'[', 0x91]) {
            let error = codec.decode::<serde::de::IgnoredAny>(&vec![open; 100_000]);
            assert!(error.is_err(), "{codec:?}");
        }
    }

    #[test]
    fn small_bodies_share_an_allocation_and_a_large_one_is_not_kept() {
        let first = Codec::Json.encode("a").unwrap();
        let large = Codec::Json.encode(&"x".repeat(10 * CHUNK)).unwrap();
        let last = Codec::Json.encode("b").unwrap();
        assert_eq!(
            (&first[..], large.len(), &last[..]),
            (&b"\"a\""[..], 10 * CHUNK + 2, &b"\"b\""[..])
        );
        assert!(Scratch::take().0.capacity() <= CHUNK);
    }

    #[test]
    fn a_failed_encoding_leaves_nothing_behind() {
        let no_keys = std::collections::HashMap::from([(vec![1], 1)]);
        assert!(Codec::Json.encode(&no_keys).is_err());
        assert_eq!(&Codec::Json.encode("a").unwrap()[..], b"\"a\"");
    }
}
