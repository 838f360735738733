//! Typed key-value buckets.

use super::error::StoreError;
use crate::wire::spec::StoreSpec;
use async_nats::jetstream::Context;
use std::marker::PhantomData;

/// A typed key-value bucket.
pub struct KvStore<T> {
    pub(crate) js: Context,
    pub(crate) spec: &'static StoreSpec,
    marker: PhantomData<fn() -> T>,
}

/// One key of a typed bucket.
pub struct KvKey<T> {
    pub(crate) store: KvStore<T>,
    pub(crate) key: String,
}

/// The keys of a typed bucket that match a filter.
pub struct KvSelection<T> {
    pub(crate) store: KvStore<T>,
    pub(crate) filter: String,
}

impl<T> Clone for KvStore<T> {
    fn clone(&self) -> Self {
        Self {
            js: self.js.clone(),
            spec: self.spec,
            marker: PhantomData,
        }
    }
}

impl<T> KvStore<T> {
    #[doc(hidden)]
    pub fn __from_spec(js: Context, spec: &'static StoreSpec) -> Self {
        Self {
            js,
            spec,
            marker: PhantomData,
        }
    }
    #[doc(hidden)]
    pub fn __key(&self, values: &[&dyn super::KeyToken]) -> Result<KvKey<T>, StoreError> {
        Ok(KvKey {
            store: self.clone(),
            key: self.spec.key.key(values)?,
        })
    }
    #[doc(hidden)]
    pub fn __selection(
        &self,
        values: &[&dyn super::KeyFilter],
    ) -> Result<KvSelection<T>, StoreError> {
        Ok(KvSelection {
            store: self.clone(),
            filter: self.spec.key.filter(values)?,
        })
    }
}
