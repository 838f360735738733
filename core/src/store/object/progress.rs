//! How far an upload or a download is.

use std::fmt;
use std::time::{Duration, Instant};

/// How far an upload or a download is: what a progress bar shows.
///
/// ```
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = nats_service_testkit::TestServer::start().await?;
/// # let js = nats_service::async_nats::jetstream::new(nats_service::async_nats::connect(server.url()).await?);
/// # js.create_object_store(nats_service::async_nats::jetstream::object_store::Config { bucket: "files".into(), ..Default::default() }).await?;
/// let files = nats_service::ObjectStore::<()>::bind(js, "files")?;
/// let bytes = vec![7; 500_000];
/// let upload = files.object("a file")?.upload().total(500_000).on_progress(|progress| {
///     println!("{} of {:?} bytes, {:.0} a second", progress.bytes, progress.total, progress.rate);
/// });
/// upload.read_from(&bytes[..]).await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Progress {
    /// Bytes that are stored and acknowledged, or read and counted.
    pub bytes: u64,
    /// All there are; `None` for an upload whose size nobody said.
    pub total: Option<u64>,
    /// Those of `bytes` that were there already when an upload went on.
    pub resumed: u64,
    /// Bytes a second, over about the last two seconds.
    pub rate: f64,
    /// Since it began.
    pub elapsed: Duration,
}

pub(super) type OnProgress = Box<dyn FnMut(Progress) + Send>;

/// What the rate is an average over: older times count less and less.
const SPAN: Duration = Duration::from_secs(2);

/// Counts, and tells.
pub(super) struct Meter {
    on_progress: Option<OnProgress>,
    began: Instant,
    told: Instant,
    progress: Progress,
}

impl fmt::Debug for Meter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.progress.fmt(f)
    }
}

impl Meter {
    pub(super) fn new(on_progress: Option<OnProgress>, total: Option<u64>) -> Self {
        let now = Instant::now();
        Self {
            on_progress,
            began: now,
            told: now,
            progress: Progress {
                bytes: 0,
                total,
                resumed: 0,
                rate: 0.0,
                elapsed: Duration::ZERO,
            },
        }
    }

    /// These were there already.
    pub(super) fn resumed(&mut self, bytes: u64) {
        self.progress.resumed += bytes;
        self.progress.bytes += bytes;
        self.tell(Instant::now());
    }

    /// So far.
    pub(super) fn at(&mut self, bytes: u64) {
        if self.on_progress.is_some() && bytes > self.progress.bytes {
            self.count(bytes, Instant::now());
        }
    }

    fn count(&mut self, bytes: u64, now: Instant) {
        let new = (bytes - self.progress.bytes) as f64;
        let took = now.duration_since(self.told).as_secs_f64();
        let elapsed = now.duration_since(self.began);
        // At first the average is over what there is.
        let span = SPAN.min(elapsed).as_secs_f64().max(f64::MIN_POSITIVE);
        let kept = (-took / span).exp();
        let rate = if took > 0.0 { new / took } else { 0.0 };
        self.progress.rate = self.progress.rate * kept + rate * (1.0 - kept);
        self.progress.bytes = bytes;
        self.tell(now);
    }

    fn tell(&mut self, now: Instant) {
        self.told = now;
        self.progress.elapsed = now.duration_since(self.began);
        if let Some(on_progress) = &mut self.on_progress {
            on_progress(self.progress);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_steady_flow_has_its_rate_and_a_pause_lowers_it() {
        let mut meter = Meter::new(Some(Box::new(|_| ())), None);
        let began = meter.began;
        let at = |seconds| began + Duration::from_secs_f64(seconds);
        for step in 1..=100_u32 {
            meter.count(u64::from(step) * 1000, at(f64::from(step) / 10.0));
        }
        assert!(
            (meter.progress.rate - 10_000.0).abs() < 1_000.0,
            "{:?}",
            meter.progress
        );
        meter.count(100_001, at(20.0));
        assert!(meter.progress.rate < 1_000.0, "{:?}", meter.progress);
        assert_eq!(meter.progress.elapsed, Duration::from_secs(20));
    }
}
