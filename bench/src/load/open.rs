//! An open loop: requests leave at a fixed rate, whatever comes back. A caller's latency begins when the request was due, not
//! when a busy generator came to send it, or else every stall would hide the requests that it delayed.

use super::wire::Connection;
use super::{End, Stretch};
use crate::Result;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// How late a sender may be for no other reason than that sleeping is coarse. Up to here latency begins with the sending.
const COARSE: Duration = Duration::from_micros(250);

pub(super) fn run(connection: &mut Connection, first: u64, rate: f64, end: End) -> Result<Stretch> {
    let total = match end {
        End::After(time) => (time.as_secs_f64() * rate) as u64,
        End::Requests(requests) => requests,
    };
    let mut stretch = Stretch::new()?;
    // Nanoseconds after the start; zero before it was sent and after it was answered.
    let sent: Vec<AtomicU64> = (0..total).map(|_| AtomicU64::new(0)).collect();
    let (writer, template) = (connection.writer(), connection.template().clone());
    let started = Instant::now();
    let mut last = started;
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| -> Result<()> {
            let mut out = Vec::new();
            let mut next = 0;
            while next < total {
                let now = started.elapsed();
                let due = ((now.as_secs_f64() * rate) as u64 + 1).min(total);
                out.clear();
                for id in next..due {
                    let at = begins(now, Duration::from_secs_f64(id as f64 / rate));
                    let nanos = u64::try_from(at.as_nanos())?.max(1);
                    sent[usize::try_from(id)?].store(nanos, Ordering::Release);
                    template.write(first + id, &mut out);
                }
                writer.send(&out)?;
                next = due.max(next);
                let until = Duration::from_secs_f64(next as f64 / rate);
                std::thread::sleep(until.saturating_sub(started.elapsed()));
            }
            Ok(())
        });
        let mut waiting = total;
        while waiting > 0 {
            let heard = connection.receive(|id, is_proper| {
                let slot = id
                    .checked_sub(first)
                    .and_then(|at| usize::try_from(at).ok());
                let slot = slot.and_then(|at| sent.get(at));
                let at = slot.map_or(0, |slot| slot.swap(0, Ordering::AcqRel));
                if at == 0 {
                    return Ok(());
                }
                waiting -= 1;
                last = Instant::now();
                if is_proper {
                    let now = last - started;
                    stretch.answered(now.saturating_sub(Duration::from_nanos(at)))?;
                }
                Ok(())
            })?;
            if !heard {
                break;
            }
        }
        let sender = sender.join();
        sender.unwrap_or_else(|_| Err("the sender panicked".into()))
    })?;
    stretch.sent = total;
    stretch.elapsed = last - started;
    Ok(stretch)
}

/// Where the latency of a request begins that is sent now.
fn begins(now: Duration, due: Duration) -> Duration {
    if now.saturating_sub(due) <= COARSE {
        now
    } else {
        due
    }
}

#[cfg(test)]
mod tests {
    use super::begins;
    use std::time::Duration;

    #[test]
    fn only_a_sender_that_fell_behind_counts_from_when_it_was_due() {
        let [due, soon, late] = [1_000, 1_200, 2_000].map(Duration::from_micros);
        assert_eq!(begins(soon, due), soon);
        assert_eq!(begins(late, due), due);
    }
}
