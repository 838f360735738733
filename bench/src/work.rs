//! What every contender does with a request, so that the difference between two of them is the framework's alone.

use crate::Result;
use serde::{Deserialize, Serialize};
use std::hint::black_box;
use std::time::{Duration, Instant};

/// About 60 bytes of JSON; the load generator writes it by hand, see `load::wire`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) age: u32,
    pub(crate) active: bool,
}

/// As long as the request. It begins with the id, by which the load generator knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) age: u32,
    pub(crate) active: bool,
}

/// The cheap handler.
pub(crate) fn echo(request: Request) -> Answer {
    Answer {
        id: request.id,
        name: request.name,
        age: request.age + 1,
        active: !request.active,
    }
}

/// The expensive handler: `steps` are counted and not timed, since a deadline on the clock would count time in which the
/// thread did not run at all as work done.
pub(crate) fn compute(request: Request, steps: u64) -> Answer {
    black_box(hash(u64::from(request.age), steps));
    echo(request)
}

/// How long the expensive handlers take on a core that is theirs alone.
pub(crate) const TAKES: Duration = Duration::from_millis(1);

/// The expensive handler by the clock: it has a core for a millisecond, or waits for one in it. How many of them a service gets
/// through says how many it runs at once, whatever else wants the cores, and nothing of work done.
pub(crate) fn clock(request: Request) -> Answer {
    /// Far less than a millisecond's.
    const STEPS: u64 = 1_000;
    let started = Instant::now();
    let mut seed = u64::from(request.age);
    while started.elapsed() < TAKES {
        seed = hash(black_box(seed), STEPS);
    }
    echo(request)
}

/// How many steps fill [`TAKES`] on one idle core: the best of several tries, since a disturbed try is only ever slower.
pub(crate) fn calibrate() -> u64 {
    const STEPS: u64 = 2_000_000;
    let best = (0..20).map(|_| {
        let started = Instant::now();
        black_box(hash(0, black_box(STEPS)));
        started.elapsed()
    });
    let best = best.min().unwrap_or_default().max(Duration::from_nanos(1));
    (STEPS as f64 * TAKES.as_secs_f64() / best.as_secs_f64()) as u64
}

/// How often all cores together do the expensive handler's work in a second, when they do nothing else. Steps are slower beside
/// busy neighbours than on the one idle core that they were calibrated on.
pub(crate) fn rate_on_all_cores(steps: u64, time: Duration) -> Result<f64> {
    let cores = std::thread::available_parallelism()?.get();
    let started = Instant::now();
    let count = || {
        let mut done = 0_u64;
        while started.elapsed() < time {
            black_box(hash(done, black_box(steps)));
            done += 1;
        }
        done
    };
    let done: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(count)).collect();
        threads.into_iter().filter_map(|it| it.join().ok()).sum()
    });
    Ok(done as f64 / started.elapsed().as_secs_f64())
}

/// A chain of multiplications that no compiler shortens. One function for calibration and handlers: inlined, each might get
/// code of its own, and its own speed.
#[inline(never)]
fn hash(seed: u64, steps: u64) -> u64 {
    let mix = |state: u64, step: u64| (state ^ step).wrapping_mul(0x0100_0000_01b3);
    (0..steps).fold(seed, mix)
}
