//! One object: typed, as bytes, or as a stream of them.

use super::super::error::StoreError;
use super::upload::{Reader, delete, upload};
use super::{ObjectInfo, ObjectReader, ObjectStore, content_type_headers, info, reader};
use crate::wire::codec::Codec;
use async_nats::HeaderMap;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use tokio::io::AsyncRead;

/// One object of a typed store.
///
/// Writing replaces the object as a whole, and readers see either the old or the new one. An upload that fails, or whose
/// future is dropped, leaves the old one as it was.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "files".into(), ..Default::default() }).await?;
/// let files = nats_service::ObjectStore::<()>::bind(js, "files")?;
/// let object = files.object("a file")?;
/// object.put_reader(&b"its bytes"[..]).await?;
/// assert_eq!(object.bytes().await?.as_deref(), Some(&b"its bytes"[..]));
/// assert!(object.delete().await?);
/// assert!(object.info().await?.is_none());
/// # Ok(()) }
/// ```
pub struct ObjectKey<T> {
    store: ObjectStore<T>,
    name: String,
}

impl<T> Clone for ObjectKey<T> {
    fn clone(&self) -> Self {
        Self::new(self.store.clone(), self.name.clone())
    }
}

impl<T> fmt::Debug for ObjectKey<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectKey")
            .field("bucket", &self.store.bucket())
            .field("name", &self.name)
            .finish()
    }
}

/// A typed object: its value, and what is known of it besides.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoredObject<T> {
    /// The value.
    pub value: T,
    /// Size, digest, headers and so on.
    pub info: ObjectInfo,
}

impl<T> ObjectKey<T> {
    pub(super) fn new(store: ObjectStore<T>, name: String) -> Self {
        Self { store, name }
    }

    /// The object's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What is known of it; `None` when there is none, or it was deleted.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn info(&self) -> Result<Option<ObjectInfo>, StoreError> {
        let info = info::fetch(&self.store.stream, &self.name).await?;
        Ok(info.filter(|info| !info.deleted))
    }

    /// Stores all that the reader gives, in place of what is there. At most 4 MiB of it are in memory at a time.
    ///
    /// # Errors
    /// When the reader fails or a write is refused: then nothing has changed. After [`StoreError::Timeout`] the new object may
    /// be there.
    pub async fn put_reader(
        &self,
        reader: impl AsyncRead + Send + Unpin,
    ) -> Result<ObjectInfo, StoreError> {
        upload(
            &self.store.stream,
            &self.name,
            HeaderMap::new(),
            Reader(reader),
        )
        .await
    }

    /// Its bytes as they come; `None` when there is no such object.
    ///
    /// # Errors
    /// When the bucket cannot be read. What goes wrong later, the reader says.
    pub async fn reader(&self) -> Result<Option<ObjectReader>, StoreError> {
        reader::open(&self.store.stream, &self.name).await
    }

    /// All its bytes, verified; `None` when there is no such object.
    ///
    /// # Errors
    /// [`StoreError::Digest`] when they are damaged, [`StoreError::ObjectChanged`] when it was replaced meanwhile.
    pub async fn bytes(&self) -> Result<Option<Bytes>, StoreError> {
        match self.reader().await? {
            Some(reader) => Ok(Some(reader.into_bytes().await?)),
            None => Ok(None),
        }
    }

    /// Deletes it: whether there was one. Its metadata stays, marked as deleted, so that watchers see it.
    ///
    /// # Errors
    /// When a write is refused, or its outcome unknown.
    pub async fn delete(&self) -> Result<bool, StoreError> {
        delete(&self.store.stream, &self.name).await
    }
}

impl<T: Serialize> ObjectKey<T> {
    /// Stores the value, in place of what is there; its codec is in the object's `Content-Type`.
    ///
    /// # Errors
    /// As [`ObjectKey::put_reader`], and when the value cannot be encoded.
    pub async fn put(&self, value: &T) -> Result<ObjectInfo, StoreError> {
        let codec = self.store.codec;
        let bytes = codec.encode(value)?;
        let headers = content_type_headers(codec.content_type());
        upload(&self.store.stream, &self.name, headers, bytes).await
    }
}

impl<T: DeserializeOwned> ObjectKey<T> {
    /// The value, verified and decoded by what the object says of itself; `None` when there is no such object.
    ///
    /// # Errors
    /// As [`ObjectKey::bytes`], and [`StoreError::Undecodable`] when the bytes are no `T`.
    pub async fn get(&self) -> Result<Option<StoredObject<T>>, StoreError> {
        let Some(reader) = self.reader().await? else {
            return Ok(None);
        };
        let info = reader.info().clone();
        let bytes = reader.into_bytes().await?;
        let named = info.content_type().and_then(Codec::from_content_type);
        match named.unwrap_or(self.store.codec).decode(&bytes) {
            Ok(value) => Ok(Some(StoredObject { value, info })),
            Err(source) => Err(StoreError::Undecodable {
                key: info.name,
                revision: info.revision,
                source,
            }),
        }
    }
}
