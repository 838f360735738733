//! Typed object stores: chunks on `$O.<bucket>.C.<nuid>` and metadata on `$O.<bucket>.M.<name>` in the stream
//! `OBJ_<bucket>` (ADR-20).
//!
//! Writing is in `upload` (cutting in `source`, what is on its way in `window`, going on in `resume`), reading in `reader` (what is
//! on its way in `fetch`, ranges in `locate`); the metadata in `info`, publishing it in `commit`, changing it in `manage`; bytes
//! with many names in `content`, those with none in `orphans`; many objects in `selection`. A store binds to a bucket that is
//! there.

mod commit;
mod content;
mod fetch;
mod info;
mod key;
mod locate;
mod manage;
mod orphans;
mod progress;
mod reader;
mod rename;
mod resume;
mod selection;
mod source;
mod upload;
mod window;

pub use info::{ObjectInfo, ObjectLink, ObjectMeta, ObjectStatus};
pub use key::{ObjectKey, StoredObject};
pub use orphans::RemovedOrphans;
pub use progress::Progress;
pub use reader::ObjectReader;
pub use resume::{UploadToken, UploadTokenError};
pub use selection::{ObjectEvent, ObjectList, ObjectSelection, ObjectWatch};
pub use upload::Upload;

use super::error::{Refusal, StoreError};
use super::key::{KeyTemplate, everything};
use super::stream::{Stream, check_bucket};
use crate::telemetry::Trace;
use crate::wire::codec::Codec;
use crate::wire::spec::{StoreKind, StoreSpec};
use async_nats::jetstream::Context;
use bytes::Bytes;
use commit::Expected;
use reader::Part;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;
use tokio::io::AsyncRead;

/// A typed object store: like a [`KvStore`](crate::KvStore), for values of any size.
///
/// It is a handle: cheap to clone, and nothing is sent before an object is read or written.
///
/// Bound by [`bind`](Self::bind) it is the whole bucket. A method's store has only the names of that method's form in its
/// [`list`](Self::list) and [`watch`](Self::watch); a name that is given whole is of the bucket.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "reports".into(), ..Default::default() }).await?;
/// use nats_service::ObjectStore;
///
/// let reports = ObjectStore::<Vec<String>>::bind(js, "reports")?;
/// let january = reports.object("2026/january")?;
/// january.put(&vec!["a line".to_owned()]).await?;
/// let report = january.get().await?.ok_or("gone")?;
/// assert_eq!(report.value, ["a line"]);
/// assert_eq!(report.info.size, 10);
/// # Ok(()) }
/// ```
pub struct ObjectStore<T> {
    stream: Stream,
    codec: Codec,
    template: Option<&'static KeyTemplate>,
    marker: PhantomData<fn() -> T>,
}

impl<T> Clone for ObjectStore<T> {
    fn clone(&self) -> Self {
        Self {
            stream: self.stream.clone(),
            ..*self
        }
    }
}

impl<T> fmt::Debug for ObjectStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectStore")
            .field("bucket", &self.bucket())
            .field("codec", &self.codec)
            .finish_non_exhaustive()
    }
}

impl<T> ObjectStore<T> {
    /// Binds to a bucket by its name. Nothing is sent: whether it exists, the first request shows.
    ///
    /// # Errors
    /// [`StoreError::BucketName`] when the name is none.
    pub fn bind(js: Context, bucket: impl Into<String>) -> Result<Self, StoreError> {
        let bucket = bucket.into();
        check_bucket(&bucket)?;
        Ok(Self::new(js, &bucket, Codec::default(), None))
    }

    /// Makes a bucket that is missing; one that is there is compared in what is named, and left alone or changed as
    /// [`BucketSettings::provision`](super::BucketSettings::provision) says.
    ///
    /// ```
    /// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = nats_service_testkit::TestServer::start().await?;
    /// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
    /// use nats_service::{BucketSettings, ObjectStore};
    ///
    /// let settings = BucketSettings::new("files").max_bytes(1 << 30).compression(true);
    /// let files = ObjectStore::<()>::create(js.clone(), settings).await?;
    /// files.object("a.txt")?.put_reader(&b"text"[..]).await?;
    ///
    /// // An object has one revision: there is no history to set.
    /// assert!(ObjectStore::<()>::create(js, BucketSettings::new("files").history(5)).await.is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// See [`ProvisionError`](super::ProvisionError); `Setting` for one that only KV buckets have.
    pub async fn create(
        js: Context,
        settings: super::BucketSettings,
    ) -> Result<Self, super::ProvisionError> {
        settings.check_objects()?;
        let (bound, _) = super::bucket::make(&js, StoreKind::Object, &settings).await?;
        Ok(Self::new(js, &bound.name, Codec::default(), None))
    }

    /// Writes values in this codec, and reads those that do not say what they are in it. JSON unless it is set.
    #[must_use]
    pub fn with_codec(mut self, codec: Codec) -> Self {
        self.codec = codec;
        self
    }

    fn new(
        js: Context,
        bucket: &str,
        codec: Codec,
        template: Option<&'static KeyTemplate>,
    ) -> Self {
        Self {
            stream: stream(js, bucket),
            codec,
            template,
            marker: PhantomData,
        }
    }

    #[doc(hidden)]
    pub fn __from_spec(js: Context, spec: &'static StoreSpec, codec: Codec) -> Self {
        Self::new(js, spec.bucket.name, codec, Some(&spec.key))
    }

    #[doc(hidden)]
    pub fn __key(&self, values: &[&dyn super::KeyToken]) -> Result<ObjectKey<T>, StoreError> {
        let name = match self.template {
            Some(template) => template.key(values)?,
            // Generated code always has a template; a bare store takes its first value as the whole name.
            None => {
                let first = values.first().map(|value| value.key_token().into_owned());
                first.unwrap_or_default()
            }
        };
        self.object(name)
    }

    #[doc(hidden)]
    pub fn __selection(
        &self,
        values: &[&dyn super::KeyFilter],
    ) -> Result<ObjectSelection<T>, StoreError> {
        let filter = match self.template {
            Some(template) => template.filter(values)?,
            None => ">".to_owned(),
        };
        Ok(ObjectSelection::new(self.clone(), Some(filter)))
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        self.stream.bucket()
    }

    /// One object. Its name is any text that is not empty and no longer than 768 bytes.
    ///
    /// # Errors
    /// [`StoreError::ObjectName`], before anything is sent.
    pub fn object(&self, name: impl Into<String>) -> Result<ObjectKey<T>, StoreError> {
        let name = name.into();
        info::check_name(&name)?;
        Ok(ObjectKey::new(self.clone(), name))
    }

    /// What the bucket holds, or for a method's store what it holds of its form; deleted objects left out, in the order of
    /// their last writes; streamed.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn list(&self) -> Result<ObjectList, StoreError> {
        self.all().list().await
    }

    /// What the bucket holds, or for a method's store what it holds of its form, and then what changes in it.
    ///
    /// # Errors
    /// When the bucket cannot be read.
    pub async fn watch(&self) -> Result<ObjectWatch, StoreError> {
        self.all().watch().await
    }

    fn all(&self) -> ObjectSelection<T> {
        let filter = self.template.map(everything);
        ObjectSelection::new(self.clone(), filter)
    }

    /// How the whole bucket stands now: asked from the server each time.
    ///
    /// # Errors
    /// When the bucket is not there, or the server does not answer.
    pub async fn status(&self) -> Result<ObjectStatus, StoreError> {
        Ok(self.stream.info().await?.into())
    }

    /// Goes on with an upload that was [`resumable`](Upload::resumable), in this process or another one.
    ///
    /// Read the source from its start once more: what is stored already is compared with it and not sent again, and what does
    /// not fit is replaced. An upload that had come to its end is left as it is, and its object's metadata returned. Description,
    /// headers and conditions are not in the token: say them again.
    ///
    /// # Errors
    /// [`StoreError::BucketName`] when the token is of another bucket.
    pub fn resume(&self, token: &UploadToken) -> Result<Upload, StoreError> {
        if token.bucket != self.bucket() {
            return Err(StoreError::BucketName {
                bucket: token.bucket.clone(),
            });
        }
        info::check_name(&token.name)?;
        Ok(Upload::resume(&self.stream, token))
    }

    /// Removes what uploads left behind that never came to their end, and stored nothing in the last `older_than`: those that
    /// were resumable, those of killed processes, and those of other clients.
    ///
    /// An upload that still goes on looks the same. So choose a time that no source pauses for: a day, say. In a replicated
    /// bucket it is a minute at least.
    ///
    /// # Errors
    /// When the bucket cannot be read, or the chunks cannot be purged.
    pub async fn remove_orphans(&self, older_than: Duration) -> Result<RemovedOrphans, StoreError> {
        orphans::remove(&self.stream, older_than).await
    }

    /// Removes shared bytes that no name links to any more, and that were stored or linked to for the last time longer than
    /// `older_than` ago: how many objects of them, and how many bytes.
    ///
    /// Bytes that were stored with [`Upload::shared`] stay when the last of their names is overwritten or deleted, because
    /// somebody may be about to link to them. In a replicated bucket `older_than` is a minute at least.
    ///
    /// # Errors
    /// When the bucket cannot be read, or a write is refused.
    pub async fn remove_unshared(&self, older_than: Duration) -> Result<(u64, u64), StoreError> {
        content::remove_unshared(&self.stream, older_than).await
    }

    /// Seals the bucket: from then on nothing in it can change, and [`StoreError::Sealed`] is the answer to every write. It
    /// cannot be undone.
    ///
    /// # Errors
    /// When the bucket is not there, or the server refuses.
    pub async fn seal(&self) -> Result<(), StoreError> {
        // The configuration goes back as it came, with what this crate does not know.
        let about = |refusal: Refusal| refusal.about(self.bucket());
        let name = self.stream.name();
        let nothing = serde_json::json!({});
        let info = self.stream.query(format!("STREAM.INFO.{name}"), &nothing);
        let info: serde_json::Value = info.await.map_err(about)?;
        let mut config = info["config"].clone();
        config["sealed"] = true.into();
        let sealed = self
            .stream
            .request(format!("STREAM.UPDATE.{name}"), &config);
        let _: serde_json::Value = sealed.await.map_err(about)?;
        Ok(())
    }
}

fn stream(js: Context, bucket: &str) -> Stream {
    Stream::new(js, StoreKind::Object, bucket)
}

/// Stores bytes that are encoded already: for the runtime, and the answers of its handlers.
pub(crate) async fn upload(
    js: &Context,
    bucket: &str,
    name: &str,
    content_type: &str,
    trace: &Trace,
    bytes: Bytes,
) -> Result<ObjectInfo, StoreError> {
    let upload = traced(js, bucket, name, trace)?;
    upload.content_type(content_type).bytes(bytes).await
}

/// Stores bytes as they are produced.
pub(crate) async fn upload_stream(
    js: &Context,
    bucket: &str,
    name: &str,
    trace: &Trace,
    reader: impl AsyncRead + Send + Unpin,
) -> Result<ObjectInfo, StoreError> {
    let upload = traced(js, bucket, name, trace)?;
    let upload = upload.content_type("application/octet-stream");
    upload.read_from(reader).await
}

/// An upload whose object says which trace it comes from.
fn traced(js: &Context, bucket: &str, name: &str, trace: &Trace) -> Result<Upload, StoreError> {
    info::check_name(name)?;
    let mut meta = ObjectMeta::default();
    trace.write(&mut meta.headers);
    Ok(Upload::new(&stream(js.clone(), bucket), name).meta(meta))
}

/// Deletes an object; whether there was one.
pub(crate) async fn delete(js: &Context, bucket: &str, name: &str) -> Result<bool, StoreError> {
    manage::delete(&stream(js.clone(), bucket), name, Expected::Anything).await
}

/// Opens an object by its name and digest.
pub(crate) async fn open(
    js: &Context,
    bucket: &str,
    name: &str,
    expected_digest: &str,
) -> Result<ObjectReader, StoreError> {
    let changed = || StoreError::ObjectChanged {
        name: name.to_owned(),
    };
    let reader = reader::open(&stream(js.clone(), bucket), name, Part::Whole).await?;
    let reader = reader.ok_or_else(changed)?;
    if reader.info().digest.as_deref() != Some(expected_digest) {
        return Err(changed());
    }
    Ok(reader)
}

/// What the metadata of an object with these bytes says of them.
pub(crate) fn digest(bytes: &[u8]) -> String {
    upload::digest_of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nats_service_testkit::TestServer;

    #[tokio::test]
    async fn an_answer_is_fetched_by_its_digest_and_by_no_other() {
        let server = TestServer::start().await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        let js = async_nats::jetstream::new(client);
        let config = async_nats::jetstream::object_store::Config {
            bucket: "o".to_owned(),
            ..Default::default()
        };
        js.create_object_store(config).await.unwrap();
        let none = Trace::default();
        let first = upload(&js, "o", "a", "text/plain", &none, "first".into()).await;
        let first = first.unwrap().digest.unwrap();
        let reader = open(&js, "o", "a", &first).await.unwrap();
        assert_eq!(reader.info().content_type(), Some("text/plain"));
        assert_eq!(reader.into_bytes().await.unwrap(), "first");
        upload(&js, "o", "a", "bad\r\ntype", &none, "second".into())
            .await
            .unwrap();
        for name in ["a", "b"] {
            match open(&js, "o", name, &first).await {
                Err(StoreError::ObjectChanged { name: told }) => assert_eq!(told, name),
                other => panic!("{other:?}"),
            }
        }
    }
}
