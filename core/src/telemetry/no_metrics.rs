//! Metrics without the feature `metrics`: nothing, at no cost.

use crate::connection::ConnectionEvent;
use crate::store::WriterStats;
use crate::wire::error::Code;
use crate::wire::spec::{MethodSpec, ServiceSpec};
use std::time::Duration;

#[derive(Debug, Default)]
pub(crate) struct EndpointMetrics;

impl EndpointMetrics {
    pub(crate) fn new(_: &ServiceSpec, _: &MethodSpec) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn ended(&self, _: Option<Code>, _: Duration) {}

    #[inline]
    pub(crate) fn shed(&self) {}

    #[inline]
    pub(crate) fn forged(&self) {}

    #[inline]
    pub(crate) fn cached(&self, _: impl FnOnce() -> [(&'static str, u64); 8]) {}

    #[inline]
    pub(crate) fn waits(&self) {}

    #[inline]
    pub(crate) fn waits_no_more(&self) {}
}

#[derive(Debug, Default)]
pub(crate) struct WriterMetrics;

impl WriterMetrics {
    pub(crate) fn new(_: &str) -> Self {
        Self
    }

    #[inline]
    pub(crate) fn publish(&self, _: impl FnOnce() -> WriterStats) {}
}

#[inline]
pub(crate) fn call_ended(_: &MethodSpec, _: &str, _: Option<Code>, _: Duration) {}

#[inline]
pub(crate) fn connection(_: &ConnectionEvent) {}

#[inline]
pub(crate) fn describe() {}
