//! shim
use crate::wire::spec::{StoreKind, StoreSpec};
use async_nats::jetstream::Context;
use bytes::Bytes;
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub(crate) struct Writer;
#[derive(Debug)]
pub(crate) struct Permit;
pub(crate) struct Write;
pub(crate) struct Written {
    pub(crate) revision: u64,
    pub(crate) digest: Option<String>,
}
#[derive(Debug, thiserror::Error)]
#[error("full")]
pub(crate) struct Full;
impl Write {
    pub(crate) fn put(_: String, _: Bytes, _: &'static str) -> Self {
        Write
    }
    pub(crate) fn delete(_: String) -> Self {
        Write
    }
}
impl Writer {
    pub(crate) fn try_reserve(&self) -> Option<Permit> {
        Some(Permit)
    }
    pub(crate) async fn reserve(&self, _: Duration) -> Result<Permit, Full> {
        Ok(Permit)
    }
    pub(crate) fn submit(&self, _: Permit, _: Write) {}
    pub(crate) async fn submit_and_wait(
        &self,
        _: Permit,
        _: Write,
        _: Instant,
    ) -> Result<Written, Full> {
        Err(Full)
    }
}
#[derive(Debug, Default)]
pub(crate) struct Writers;
#[derive(Debug)]
pub struct FailedWrite;
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub struct ProvisionError;
#[derive(Default)]
pub(crate) struct Drained {
    pub(crate) written: u64,
    pub(crate) unwritten: Vec<FailedWrite>,
}
impl Writers {
    pub(crate) fn set_bounds(&mut self, _: usize, _: usize) {}
    pub(crate) fn set_hook(&mut self, _: Arc<dyn Fn(&FailedWrite) + Send + Sync>) {}
    pub(crate) async fn open(
        &mut self,
        _: &Context,
        _: &[&'static StoreSpec],
    ) -> Result<(), ProvisionError> {
        Ok(())
    }
    pub(crate) fn get(&self, _: StoreKind, _: &str) -> Option<Writer> {
        None
    }
    pub(crate) async fn drain(&self, _: Instant) -> Drained {
        Drained::default()
    }
}
