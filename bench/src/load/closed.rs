//! A closed loop: a number of requests in flight, and for every answer the next request. It finds what a service can do at the
//! most; it is blind to how long callers would queue, which the open loop sees.

use super::wire::Connection;
use super::{End, Stretch};
use crate::Result;
use std::time::Instant;

pub(super) fn run(
    connection: &mut Connection,
    first: u64,
    in_flight: usize,
    end: End,
) -> Result<Stretch> {
    let mut stretch = Stretch::new()?;
    let (writer, template) = (connection.writer(), connection.template().clone());
    let mut out = Vec::new();
    // By id: when it was sent, until it is answered.
    let mut sent: Vec<Option<Instant>> = Vec::new();
    let started = Instant::now();
    let (mut waiting, mut last) = (0, started);
    let mut may_send = in_flight;
    loop {
        out.clear();
        let now = Instant::now();
        // The clock is read once a batch, as the answers came in one.
        while may_send > 0 && !end.is_over(now - started, stretch.sent) {
            template.write(first + stretch.sent, &mut out);
            sent.push(Some(now));
            stretch.sent += 1;
            may_send -= 1;
            waiting += 1;
        }
        if waiting == 0 {
            break;
        }
        if !out.is_empty() {
            writer.send(&out)?;
        }
        let mut came = None;
        let heard = connection.receive(|id, is_proper| {
            let now = *came.get_or_insert_with(Instant::now);
            let slot = id
                .checked_sub(first)
                .and_then(|at| usize::try_from(at).ok());
            let slot = slot.and_then(|at| sent.get_mut(at));
            // A second answer, or one that came after it was given up, answers nothing.
            let Some(at) = slot.and_then(Option::take) else {
                return Ok(());
            };
            waiting -= 1;
            may_send += 1;
            last = now;
            if is_proper {
                stretch.answered(now - at)?;
            }
            Ok(())
        })?;
        if !heard {
            break;
        }
    }
    stretch.elapsed = last - started;
    Ok(stretch)
}
