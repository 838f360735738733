//! One object: typed, as bytes, or as a stream of them.

use super::super::error::StoreError;
use super::commit::{Expected, to_the_end};
use super::reader::{self, Part};
use super::upload::Upload;
use super::{ObjectInfo, ObjectLink, ObjectMeta, ObjectReader, ObjectStore, info, manage, rename};
use crate::store::stream::check_bucket;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fmt;
use std::ops::{Bound, RangeBounds};
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
        self.upload().read_from(reader).await
    }

    /// An upload with more to say about it: what the object is, on what condition, how far it is, how it goes on.
    pub fn upload(&self) -> Upload {
        Upload::new(&self.store.stream, &self.name)
    }

    /// Its bytes as they come; `None` when there is no such object. A link is followed, one step.
    ///
    /// # Errors
    /// When the bucket cannot be read, or it is a link that cannot be followed. What goes wrong later, the reader says.
    pub async fn reader(&self) -> Result<Option<ObjectReader>, StoreError> {
        reader::open(&self.store.stream, &self.name, Part::Whole).await
    }

    /// Some of its bytes as they come; no other chunks are fetched than those that they are in. What is beyond the object's
    /// end is left out.
    ///
    /// The digest is that of the whole object, so a range cannot be verified by it. What is made sure of: that all chunks are
    /// of the one version of the object that the reader's `info` tells, that none is missing, and the count of the bytes.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "files".into(), ..Default::default() }).await?;
    /// # use tokio::io::AsyncReadExt as _;
    /// # let files = nats_service::ObjectStore::<()>::bind(js, "files")?;
    /// let object = files.object("alphabet")?;
    /// object.put_reader(&b"abcdefghijklmnopqrstuvwxyz"[..]).await?;
    /// let mut text = String::new();
    /// object.range(23..).await?.ok_or("gone")?.read_to_string(&mut text).await?;
    /// assert_eq!(text, "xyz");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::Range`] when it begins beyond the object's end, and as [`reader`](Self::reader).
    pub async fn range(
        &self,
        range: impl RangeBounds<u64>,
    ) -> Result<Option<ObjectReader>, StoreError> {
        let start = match range.start_bound() {
            Bound::Included(&start) => start,
            Bound::Excluded(&before) => before.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let end = match range.end_bound() {
            Bound::Included(&last) => last.saturating_add(1),
            Bound::Excluded(&end) => end,
            Bound::Unbounded => u64::MAX,
        };
        reader::open(&self.store.stream, &self.name, Part::Range(start..end)).await
    }

    /// Goes on with a download: the bytes that come after those that are here already, verified all together.
    ///
    /// `prefix` is what an earlier download left, a file for instance; it is read to its end, for its length and its digest.
    /// When the object is another one by now, that comes out as [`StoreError::Digest`] in the end, or as
    /// [`StoreError::Range`] at once where it is shorter: then begin anew.
    ///
    /// # Errors
    /// [`StoreError::Source`] when the prefix cannot be read, and as [`reader`](Self::reader).
    pub async fn reader_after(
        &self,
        prefix: impl AsyncRead + Send + Unpin,
    ) -> Result<Option<ObjectReader>, StoreError> {
        let part = reader::after(prefix).await.map_err(StoreError::Source)?;
        reader::open(&self.store.stream, &self.name, part).await
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
    /// Links to it lead to nothing from then on. Of a link only the link is deleted.
    ///
    /// # Errors
    /// When a write is refused, or its outcome unknown.
    pub async fn delete(&self) -> Result<bool, StoreError> {
        self.delete_on(Expected::Anything).await
    }

    /// Deletes it where this is still its revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not, or the object is gone; and as [`delete`](Self::delete).
    pub async fn delete_if(&self, revision: u64) -> Result<(), StoreError> {
        self.delete_on(Expected::Revision(revision)).await.map(drop)
    }

    async fn delete_on(&self, expected: Expected) -> Result<bool, StoreError> {
        let (stream, name) = (self.store.stream.clone(), self.name.clone());
        to_the_end(async move { manage::delete(&stream, &name, expected).await }).await
    }

    /// Changes its description, headers and free pairs. What the closure leaves alone stays, and so do the bytes.
    ///
    /// When somebody else writes at the same time, the closure is called again, with what is there then.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "files".into(), ..Default::default() }).await?;
    /// # let files = nats_service::ObjectStore::<()>::bind(js, "files")?;
    /// # let object = files.object("a file")?;
    /// # object.put_reader(&b"its bytes"[..]).await?;
    /// let info = object.describe(|meta| {
    ///     meta.metadata.insert("reviewed".into(), "yes".into());
    /// }).await?;
    /// assert_eq!(info.metadata["reviewed"], "yes");
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`StoreError::ObjectNotFound`] when there is none, and when a write is refused.
    pub async fn describe(
        &self,
        change: impl FnMut(&mut ObjectMeta),
    ) -> Result<ObjectInfo, StoreError> {
        let stream = &self.store.stream;
        manage::describe(stream, &self.name, Expected::Anything, change).await
    }

    /// The same, where this is still its revision.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when it is not, and as [`describe`](Self::describe).
    pub async fn describe_if(
        &self,
        revision: u64,
        change: impl FnMut(&mut ObjectMeta),
    ) -> Result<ObjectInfo, StoreError> {
        let (stream, expected) = (&self.store.stream, Expected::Revision(revision));
        manage::describe(stream, &self.name, expected, change).await
    }

    /// Makes it a link to another object, of this bucket or another one: whoever reads it reads that, as it is by then.
    ///
    /// A link takes the place of nothing, or of another link. When its target is deleted, it leads to nothing; when it is
    /// overwritten, to the new bytes.
    ///
    /// # Errors
    /// [`StoreError::ObjectNotFound`] when there is no target; [`StoreError::Link`] when that is a link itself, or this object;
    /// [`StoreError::ObjectExists`] when there is an object of this name.
    pub async fn link_to<U>(&self, target: &ObjectKey<U>) -> Result<ObjectInfo, StoreError> {
        let link = ObjectLink {
            bucket: target.store.bucket().to_owned(),
            name: Some(target.name.clone()),
        };
        manage::link(&self.store.stream, &self.name, link).await
    }

    /// Makes it a link to a whole bucket. It has no bytes; its [`link`](ObjectInfo::link) says where it leads.
    ///
    /// # Errors
    /// [`StoreError::BucketName`], or [`StoreError::ObjectExists`] when there is an object of this name.
    pub async fn link_to_bucket(&self, bucket: &str) -> Result<ObjectInfo, StoreError> {
        check_bucket(bucket)?;
        let link = ObjectLink {
            bucket: bucket.to_owned(),
            name: None,
        };
        manage::link(&self.store.stream, &self.name, link).await
    }

    /// Gives it another name, and copies nothing: its metadata as it is there.
    ///
    /// In a bucket that takes [atomic](crate::BucketSettings::atomic) batches (nats-server 2.12) it is stored under the one name or the other, whatever happens.
    /// Elsewhere it has both for a moment. A process that is killed in that moment leaves both; the same rename, repeated, ends it.
    /// Links to the old name lead to nothing.
    ///
    /// # Errors
    /// [`StoreError::ObjectNotFound`] when there is no such object, [`StoreError::ObjectExists`] when there is one of the new
    /// name, [`StoreError::ObjectChanged`] when it was overwritten meanwhile: then it keeps its name.
    pub async fn rename(&self, name: impl Into<String>) -> Result<ObjectInfo, StoreError> {
        let new = name.into();
        info::check_name(&new)?;
        let (stream, old) = (self.store.stream.clone(), self.name.clone());
        to_the_end(async move { rename::rename(&stream, &old, &new).await }).await
    }
}

impl<T: Serialize> ObjectKey<T> {
    /// Stores the value, in place of what is there; its codec is in the object's `Content-Type`.
    ///
    /// # Errors
    /// As [`ObjectKey::put_reader`], and when the value cannot be encoded.
    pub async fn put(&self, value: &T) -> Result<ObjectInfo, StoreError> {
        self.encoded(self.upload(), value).await
    }

    /// Stores the value where there is no object of this name, or a deleted one.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when there is one, and as [`put`](Self::put).
    pub async fn create(&self, value: &T) -> Result<ObjectInfo, StoreError> {
        self.encoded(self.upload().if_absent(), value).await
    }

    /// Stores the value in place of this revision of the object.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when that is not the current one, and as [`put`](Self::put).
    pub async fn update(&self, value: &T, revision: u64) -> Result<ObjectInfo, StoreError> {
        self.encoded(self.upload().if_revision(revision), value)
            .await
    }

    async fn encoded(&self, upload: Upload, value: &T) -> Result<ObjectInfo, StoreError> {
        let codec = self.store.codec;
        let bytes = codec.encode(value)?;
        upload.content_type(codec.content_type()).bytes(bytes).await
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
        match self.store.codec.decode_named(info.content_type(), &bytes) {
            Ok(value) => Ok(Some(StoredObject { value, info })),
            Err(source) => Err(StoreError::Undecodable {
                key: info.name,
                revision: info.revision,
                source,
            }),
        }
    }
}
