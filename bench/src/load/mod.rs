//! The load generator, a process of its own: raw protocol over one TCP connection, since a client library in it would cost
//! more than the service that it is to load.
//!
//! It warms up, says `warm` and waits for a line on its standard input, so that the parent can read clocks between; then it
//! measures, and prints one line of JSON. [`closed`] keeps a number of requests in flight, [`open`] sends at a fixed rate.

mod closed;
mod open;
mod wire;

use crate::Result;
use crate::args::Args;
use crate::process::own_cpu_time;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::sync::mpsc;
use std::time::Duration;
use wire::Connection;

/// How long no answer at all may come before what is in flight counts as lost.
const SILENCE: Duration = Duration::from_secs(5);

/// What the generator prints.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Sent in the measured window.
    pub(crate) requests: u64,
    /// From the first request to the last answer.
    pub(crate) seconds: f64,
    /// Proper answers per second.
    pub(crate) rate: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    /// Requests without a proper answer: lost, refused, or wrong. The warm-up's count, too.
    pub(crate) errors: u64,
    /// Proper answers before the measured window.
    pub(crate) warm_up: u64,
    /// User and system time of the generator itself in that window, in seconds.
    pub(crate) cpu: f64,
}

impl Outcome {
    /// Every proper answer since the generator began.
    pub(crate) fn answered(&self) -> u64 {
        (self.requests + self.warm_up).saturating_sub(self.errors)
    }
}

/// When to stop sending.
#[derive(Debug, Clone, Copy)]
enum End {
    After(Duration),
    Requests(u64),
}

impl End {
    fn is_over(self, elapsed: Duration, sent: u64) -> bool {
        match self {
            Self::After(time) => elapsed >= time,
            Self::Requests(requests) => sent >= requests,
        }
    }
}

/// One stretch of sending, with everything answered or given up at its end.
#[derive(Debug)]
struct Stretch {
    sent: u64,
    proper: u64,
    elapsed: Duration,
    latencies: Histogram<u64>,
}

impl Stretch {
    fn new() -> Result<Self> {
        Ok(Self {
            sent: 0,
            proper: 0,
            elapsed: Duration::ZERO,
            // Nanoseconds, up to a minute.
            latencies: Histogram::new_with_bounds(1, 60_000_000_000, 3)?,
        })
    }

    fn answered(&mut self, latency: Duration) -> Result<()> {
        let nanos = u64::try_from(latency.as_nanos())?;
        self.latencies.saturating_record(nanos.max(1));
        self.proper += 1;
        Ok(())
    }

    fn micros(&self, quantile: f64) -> f64 {
        self.latencies.value_at_quantile(quantile) as f64 / 1_000.0
    }
}

/// `load --nats URL --subject S (--in-flight W | --rate R) (--seconds S | --requests N) --warm-up S`.
pub(crate) fn main(args: &Args) -> Result<()> {
    let lines = lines_until_parent_ends();
    let subject: String = args.required("subject")?;
    let mut connection = Connection::open(&args.required::<String>("nats")?, &subject)?;
    let warm_up = Duration::try_from_secs_f64(args.required("warm-up")?)?;
    let end = match args.optional("requests")? {
        Some(requests) => End::Requests(requests),
        None => End::After(Duration::try_from_secs_f64(args.required("seconds")?)?),
    };
    let in_flight = args.optional::<usize>("in-flight")?;
    let mut stretch = |first: u64, end: End| match in_flight {
        Some(in_flight) => closed::run(&mut connection, first, in_flight, end),
        None => open::run(&mut connection, first, args.required("rate")?, end),
    };

    let warm = stretch(0, End::After(warm_up))?;
    println!("warm");
    lines.recv()?;
    let before = own_cpu_time()?;
    let measured = stretch(warm.sent, end)?;
    let cpu = own_cpu_time()? - before;

    let seconds = measured.elapsed.as_secs_f64();
    let outcome = Outcome {
        requests: measured.sent,
        seconds,
        // When nothing was answered, no time has passed either.
        rate: measured.proper as f64 / seconds.max(f64::MIN_POSITIVE),
        p50_us: measured.micros(0.5),
        p99_us: measured.micros(0.99),
        errors: (warm.sent - warm.proper) + (measured.sent - measured.proper),
        warm_up: warm.sent,
        cpu: cpu.as_secs_f64(),
    };
    println!("{}", serde_json::to_string(&outcome)?);
    std::io::stdout().flush()?;
    Ok(())
}

/// The parent's lines; its end is ours, whatever we are doing.
fn lines_until_parent_ends() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines().map_while(std::io::Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
        std::process::exit(1);
    });
    lines
}
