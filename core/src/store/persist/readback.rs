//! Which writes of a batch are stored, when nobody can say it any more: the server was restarted, or its last word about the
//! batch was lost. The bucket's leader is asked for each of them, by the name in its headers, or by its value.

use super::ingest::{Found, Held};
use super::kv::KV_OPERATION;
use crate::store::error::StoreError;
use crate::store::stream::{Stored, Stream, back_off};
use crate::wire::header::WRITE;
use async_nats::header::NATS_MESSAGE_ID;
use futures_util::{StreamExt as _, stream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

/// Questions at once.
const AT_ONCE: usize = 32;
/// So often one may stay without an answer. The user may not ask the leader, perhaps; then the write is repeated.
const UNANSWERED: u32 = 3;
const PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Looks for each of these, written by `writer`. It takes as long as the bucket is away.
pub(super) async fn read_back(
    stream: Stream,
    writer: Arc<str>,
    keeps_only_the_last: bool,
    held: Vec<Held>,
) -> Vec<(Held, Found)> {
    tracing::debug!(
        bucket = stream.bucket(),
        writes = held.len(),
        "looking for the writes of a batch that was lost"
    );
    // Who may not ask is not answered, ever: the first questions are enough to know it.
    let (answered, silent) = (AtomicBool::new(false), AtomicBool::new(false));
    let look = async |held: Held| {
        let mut attempt = 0;
        let mut unanswered = 0;
        loop {
            if silent.load(Relaxed) {
                return (held, Found::Absent);
            }
            let error = match find(&stream, &writer, keeps_only_the_last, &held).await {
                Ok(found) => {
                    answered.store(true, Relaxed);
                    return (held, found);
                }
                Err(error) => error,
            };
            unanswered += u32::from(matches!(error, StoreError::Timeout));
            if unanswered >= UNANSWERED {
                tracing::warn!(
                    bucket = stream.bucket(),
                    %error,
                    "writes of a batch that was lost are repeated unseen: the leader did not say whether they are stored (the user may need `$JS.API.STREAM.MSG.GET.{}`)",
                    stream.name()
                );
                silent.store(!answered.load(Relaxed), Relaxed);
                return (held, Found::Absent);
            }
            tokio::time::sleep(back_off(attempt, PAUSE, LONGEST_PAUSE)).await;
            attempt += 1;
        }
    };
    let looks = stream::iter(held).map(look);
    looks.buffered(AT_ONCE).collect().await
}

async fn find(
    stream: &Stream,
    writer: &str,
    keeps_only_the_last: bool,
    held: &Held,
) -> Result<Found, StoreError> {
    let Some(last) = stream.leaders_last(&held.subject).await? else {
        return Ok(Found::Absent);
    };
    match number(&last, writer) {
        Some(number) if number == held.token.id => return Ok(Found::Stored(last.sequence)),
        // Of one key the writer has one write on its way: what it wrote otherwise is older.
        Some(_) => return Ok(Found::Absent),
        None if last.sequence <= held.floor => return Ok(Found::Absent),
        None if is_value_of(&last, held) => return Ok(Found::Same),
        None if keeps_only_the_last => return Ok(Found::Overwritten),
        None => {}
    }
    let mut from = held.floor + 1;
    while let Some(next) = stream.leaders_next(from, &held.subject).await? {
        if number(&next, writer) == Some(held.token.id) {
            return Ok(Found::Stored(next.sequence));
        }
        from = next.sequence + 1;
    }
    Ok(Found::Absent)
}

/// Whether a reader finds what he would find had the write been stored there.
fn is_value_of(stored: &Stored, held: &Held) -> bool {
    let is_put = stored.headers.get(KV_OPERATION).is_none();
    is_put && held.value.as_ref() == Some(&stored.payload)
}

/// The number of a write, if it is this writer's.
fn number(stored: &Stored, writer: &str) -> Option<u64> {
    let header = |name| stored.headers.get(name);
    let name = header(WRITE).or_else(|| header(NATS_MESSAGE_ID.as_ref()))?;
    let (of, number) = name.as_str().rsplit_once('-')?;
    (of == writer).then(|| number.parse().ok())?
}
