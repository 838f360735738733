//! W3C trace context in and out, behind the feature `otel`: which form it has, the propagator says that the process has set
//! with `opentelemetry::global::set_text_map_propagator`. Without the feature all of this is nothing.

use async_nats::HeaderMap;
use tracing::Span;

/// Where a write came from, for the headers of its entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Trace {
    #[cfg(feature = "otel")]
    pairs: Option<Box<[(String, String)]>>,
}

#[cfg(not(feature = "otel"))]
mod imp {
    use super::{HeaderMap, Span, Trace};

    #[inline]
    pub(crate) fn inject(_: &mut Option<HeaderMap>) {}

    #[inline]
    pub(in super::super) fn continue_from(_: &Span, _: Option<&HeaderMap>) {}

    impl Trace {
        #[inline]
        pub(crate) fn of(_: &Span) -> Self {
            Self {}
        }

        #[inline]
        pub(crate) fn write(&self, _: &mut HeaderMap) {}
    }
}

#[cfg(feature = "otel")]
mod imp {
    use super::{HeaderMap, Span, Trace};
    use async_nats::{HeaderName, HeaderValue};
    use opentelemetry::propagation::{Extractor, Injector};
    use opentelemetry::trace::TraceContextExt as _;
    use opentelemetry::{Context, global};
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    struct Read<'h>(&'h HeaderMap);

    impl Extractor for Read<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            // Names of headers keep their case in NATS, and these are written in lower case by everybody.
            // What cannot be a name at all is in no headers: a look for it would panic.
            let name: HeaderName = key.parse().ok()?;
            self.0.get(name).map(|value| value.as_str())
        }

        fn keys(&self) -> Vec<&str> {
            self.0.iter().map(|(name, _)| name.as_ref()).collect()
        }
    }

    struct Written(Vec<(String, String)>);

    impl Injector for Written {
        fn set(&mut self, key: &str, value: String) {
            self.0.push((key.to_owned(), value));
        }
    }

    /// What a propagator says of the span, or else of whatever OpenTelemetry knows without `tracing`.
    fn pairs_of(span: &Span) -> Vec<(String, String)> {
        let mut context = span.context();
        if !context.has_active_span() {
            context = Context::current();
        }
        if !context.has_active_span() {
            return Vec::new();
        }
        let mut written = Written(Vec::new());
        global::get_text_map_propagator(|propagator| {
            propagator.inject_context(&context, &mut written)
        });
        written.0
    }

    fn write(pairs: &[(String, String)], headers: &mut HeaderMap) {
        for (name, value) in pairs {
            // A propagator of the user's own may write anything.
            if let (Ok(name), Ok(value)) =
                (name.parse::<HeaderName>(), value.parse::<HeaderValue>())
            {
                headers.insert(name, value);
            }
        }
    }

    /// Adds the current span to the headers of a message that goes out.
    pub(crate) fn inject(headers: &mut Option<HeaderMap>) {
        let pairs = pairs_of(&Span::current());
        if !pairs.is_empty() {
            write(&pairs, headers.get_or_insert_default());
        }
    }

    /// Makes the span a child of what a message came with.
    pub(in super::super) fn continue_from(span: &Span, headers: Option<&HeaderMap>) {
        let Some(headers) = headers.filter(|_| !span.is_disabled()) else {
            return;
        };
        let parent =
            global::get_text_map_propagator(|propagator| propagator.extract(&Read(headers)));
        if parent.has_active_span() {
            // It fails where no layer of OpenTelemetry is there to hear of it.
            let _ = span.set_parent(parent);
        }
    }

    impl Trace {
        pub(crate) fn of(span: &Span) -> Self {
            let pairs = pairs_of(span);
            Self {
                pairs: (!pairs.is_empty()).then(|| pairs.into()),
            }
        }

        pub(crate) fn write(&self, headers: &mut HeaderMap) {
            if let Some(pairs) = &self.pairs {
                write(pairs, headers);
            }
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn a_propagator_that_looks_for_what_is_no_header_finds_nothing() {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", "00-1-2-01");
            let read = Read(&headers);
            assert_eq!(read.get("traceparent"), Some("00-1-2-01"));
            for name in ["", "trace:id", "tracé", "a\r\nb"] {
                assert_eq!(read.get(name), None, "{name:?}");
            }
        }
    }
}

pub(super) use imp::continue_from;
pub(crate) use imp::inject;
