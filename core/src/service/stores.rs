//! Brings the stores of all methods up at start: what several methods say of one bucket is merged, the bucket is made or
//! checked, and its one writer started.

use super::start_error::StartError;
use crate::store::persist::{Hooks, Writer, WriterLimits, Writers};
use crate::store::{BucketSettings, Provisioned, provision};
use crate::wire::spec::{MethodSpec, StoreKind, StoreSpec, WriteMode};
use async_nats::jetstream;

/// One store attribute of a method, and the writer of its bucket.
#[derive(Debug)]
pub(crate) struct BoundStore {
    pub(crate) spec: &'static StoreSpec,
    /// `None` for `write = "never"`.
    pub(crate) writer: Option<Writer>,
}

/// The buckets of a server, each with its writer.
#[derive(Debug)]
pub(crate) struct Stores {
    buckets: Vec<(Provisioned, Writer)>,
    writers: Writers,
}

impl Stores {
    pub(crate) async fn open(
        jetstream: jetstream::Context,
        limits: WriterLimits,
        hooks: Hooks,
        methods: &[&'static MethodSpec],
    ) -> Result<Self, StartError> {
        let mut wanted: Vec<(StoreKind, BucketSettings)> = Vec::new();
        for store in methods.iter().flat_map(|method| method.stores) {
            let named = BucketSettings::from(&store.bucket);
            let mut others = wanted.iter_mut();
            match others.find(|(kind, other)| *kind == store.kind && other.name() == named.name()) {
                Some((_, other)) => other.merge(named)?,
                None => wanted.push((store.kind, named)),
            }
        }
        let writers = Writers::new(jetstream.clone(), limits, hooks);
        let mut buckets = Vec::with_capacity(wanted.len());
        for (kind, settings) in wanted {
            let bucket = provision(&jetstream, kind, &settings).await?;
            let writer = writers
                .writer(&bucket)
                .await
                .map_err(|source| StartError::Subscribe {
                    subject: "the inbox of a writer".to_owned(),
                    source,
                })?;
            buckets.push((bucket, writer));
        }
        Ok(Self { buckets, writers })
    }

    /// The stores of one method, in the order of its attributes.
    pub(crate) fn of(&self, method: &'static MethodSpec) -> Vec<BoundStore> {
        let bound = method.stores.iter().map(|spec| {
            let writer = match spec.write {
                // It writes for itself, without a promise.
                _ if spec.cache.is_some() => None,
                WriteMode::Never => None,
                WriteMode::AfterReply | WriteMode::BeforeReply => self.writer(spec),
            };
            BoundStore { spec, writer }
        });
        bound.collect()
    }

    pub(crate) fn writer(&self, store: &StoreSpec) -> Option<Writer> {
        let mut buckets = self.buckets.iter();
        let found = buckets
            .find(|(bucket, _)| bucket.kind == store.kind && bucket.name == store.bucket.name);
        found.map(|(_, writer)| writer.clone())
    }

    pub(crate) fn writers(&self) -> &Writers {
        &self.writers
    }
}
