//! Bounds for what a format of a user's reads: nesting, and the text of an error.
//!
//! The types between a format and a value are erased, and at each level of nesting an error becomes a text and an error again.
//! A format that quotes the texts of others doubles its escapes each time: at a depth of 64 there would be no end to it. So
//! the first text is kept aside, and what travels through the levels is always the same few words.

use serde::de::{
    DeserializeSeed, Deserializer, EnumAccess, Error, MapAccess, SeqAccess, VariantAccess, Visitor,
};
use std::cell::RefCell;
use std::fmt;

/// As for MessagePack.
const MAX_DEPTH: usize = 64;
const MAX_TEXT: usize = 512;

/// What all levels of one value share, and how deep this one may go.
#[derive(Clone, Copy)]
pub(super) struct Guard<'g> {
    depth: usize,
    said: &'g RefCell<Option<String>>,
}

impl<'g> Guard<'g> {
    pub(super) fn new(said: &'g RefCell<Option<String>>) -> Self {
        Self {
            depth: MAX_DEPTH,
            said,
        }
    }

    fn fail<E: Error>(self, error: E) -> E {
        let mut said = self.said.borrow_mut();
        if said.is_none() {
            let mut text = error.to_string();
            let end = (0..=MAX_TEXT.min(text.len()))
                .rev()
                .find(|end| text.is_char_boundary(*end));
            text.truncate(end.unwrap_or_default());
            *said = Some(text);
        }
        E::custom("it does not fit")
    }

    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(self.fail(E::custom("it is nested too deep"))),
        }
    }
}

/// Whatever serde hands from a format to a value and back, with the guard beside it.
pub(super) struct Guarded<'g, T> {
    pub(super) inner: T,
    pub(super) guard: Guard<'g>,
}

impl<'g, T> Guarded<'g, T> {
    fn with<U>(&self, inner: U) -> Guarded<'g, U> {
        let guard = self.guard;
        Guarded { inner, guard }
    }
}

macro_rules! deserialize {
    ($($method:ident($($argument:ident: $ty:ty),*))*) => { $(
        fn $method<V: Visitor<'de>>(self, $($argument: $ty,)* visitor: V) -> Result<V::Value, D::Error> {
            let (visitor, guard) = (self.with(visitor), self.guard);
            self.inner.$method($($argument,)* visitor).map_err(|error| guard.fail(error))
        }
    )* };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Guarded<'_, D> {
    type Error = D::Error;

    deserialize! {
        deserialize_any() deserialize_bool()
        deserialize_i8() deserialize_i16() deserialize_i32() deserialize_i64() deserialize_i128()
        deserialize_u8() deserialize_u16() deserialize_u32() deserialize_u64() deserialize_u128()
        deserialize_f32() deserialize_f64() deserialize_char()
        deserialize_str() deserialize_string() deserialize_bytes() deserialize_byte_buf()
        deserialize_option() deserialize_unit() deserialize_unit_struct(name: &'static str)
        deserialize_newtype_struct(name: &'static str)
        deserialize_seq() deserialize_tuple(len: usize)
        deserialize_tuple_struct(name: &'static str, len: usize)
        deserialize_map()
        deserialize_struct(name: &'static str, fields: &'static [&'static str])
        deserialize_enum(name: &'static str, variants: &'static [&'static str])
        deserialize_identifier() deserialize_ignored_any()
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

macro_rules! visit {
    ($($method:ident: $ty:ty)*) => { $(
        fn $method<E: Error>(self, value: $ty) -> Result<V::Value, E> {
            self.inner.$method(value)
        }
    )* };
}

macro_rules! enter {
    ($($method:ident: $access:ident)*) => { $(
        fn $method<A: $access<'de>>(self, access: A) -> Result<V::Value, A::Error> {
            let guard = self.guard.deeper()?;
            let access = Guarded { inner: access, guard };
            self.inner.$method(access).map_err(|error| guard.fail(error))
        }
    )* };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for Guarded<'_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visit! {
        visit_bool: bool visit_i8: i8 visit_i16: i16 visit_i32: i32 visit_i64: i64 visit_i128: i128
        visit_u8: u8 visit_u16: u16 visit_u32: u32 visit_u64: u64 visit_u128: u128
        visit_f32: f32 visit_f64: f64 visit_char: char
        visit_str: &str visit_borrowed_str: &'de str visit_string: String
        visit_bytes: &[u8] visit_borrowed_bytes: &'de [u8] visit_byte_buf: Vec<u8>
    }

    fn visit_none<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    enter! {
        visit_some: Deserializer visit_newtype_struct: Deserializer
        visit_seq: SeqAccess visit_map: MapAccess visit_enum: EnumAccess
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for Guarded<'_, S> {
    type Value = S::Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<S::Value, D::Error> {
        let deserializer = self.with(deserializer);
        self.inner.deserialize(deserializer)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let (seed, guard) = (self.with(seed), self.guard);
        let element = self.inner.next_element_seed(seed);
        element.map_err(|error| guard.fail(error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        let (seed, guard) = (self.with(seed), self.guard);
        let key = self.inner.next_key_seed(seed);
        key.map_err(|error| guard.fail(error))
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let (seed, guard) = (self.with(seed), self.guard);
        let value = self.inner.next_value_seed(seed);
        value.map_err(|error| guard.fail(error))
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint()
    }
}

impl<'de, 'g, A: EnumAccess<'de>> EnumAccess<'de> for Guarded<'g, A> {
    type Error = A::Error;
    type Variant = Guarded<'g, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let (seed, guard) = (self.with(seed), self.guard);
        match self.inner.variant_seed(seed) {
            Ok((value, inner)) => Ok((value, Guarded { inner, guard })),
            Err(error) => Err(guard.fail(error)),
        }
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for Guarded<'_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(self, len: usize, visitor: V) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.tuple_variant(len, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
