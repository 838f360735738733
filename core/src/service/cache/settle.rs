//! What happens around the handler call of a flight, and after it: what the others get, what is stored, what is given instead
//! when the handler failed.

use super::entry::{self, Shared};
use super::stats::count;
use super::{Answered, Lead, Revive, Source, Turn};
use crate::service::admit::Admitted;
#[cfg(feature = "tower")]
use crate::service::finish::{Answer, Content};
use crate::service::finish::{Context, Failed, Outcome, Panic, Verdict, write_deadline};
use crate::store::persist::{Conditional, Permit, Write};
use crate::wire::codec::Codec;
use crate::wire::error::{Code, Error};
use crate::wire::header;
use async_nats::{HeaderMap, HeaderValue, Subject};
use bytes::Bytes;
use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::task::Poll;
use std::time::Instant;

/// More than a reply's headers ever take.
const MAX_HEADERS: usize = 4096;

type Handled<'f> = Pin<Box<dyn Future<Output = Outcome> + Send + 'f>>;

impl Lead {
    /// Calls the handler. What it ends with is an outcome even where the handler panics or runs out of time, if there is something
    /// to give in its place.
    pub(crate) async fn fly(&mut self, deadline: Instant, mut handled: Handled<'_>) -> Outcome {
        let (subject, falls_back) = (self.cache.method.subject, self.stale.is_some());
        let limit = tokio::time::sleep_until(write_deadline(deadline));
        tokio::select! {
            outcome = poll_fn(|cx| {
                if !falls_back {
                    return handled.as_mut().poll(cx);
                }
                match std::panic::catch_unwind(AssertUnwindSafe(|| handled.as_mut().poll(cx))) {
                    Ok(polled) => polled,
                    Err(panic) => {
                        Panic::from(panic).log(subject);
                        Poll::Ready(Err(Error::internal(format!("{subject}: the handler failed unexpectedly"))))
                    }
                }
            }) => outcome,
            () = limit, if falls_back => {
                Err(Error::deadline_exceeded(format!("{subject}: the handler took too long")))
            }
            () = self.keep_claim() => unreachable!("it never ends"),
        }
    }
}

/// A write that is ready to be sent.
struct Planned {
    write: Write,
    room: Permit,
    until: tokio::time::Instant,
}

impl Context {
    /// Looks for the answer of a call whose keys are made.
    pub(crate) async fn look(&self, call: &Admitted, deadline: Instant, revive: Revive) -> Turn {
        let Some(cache) = &self.cache else {
            return Turn::Plain;
        };
        let keys = call.keys.as_ref();
        match keys.and_then(|keys| keys.made(cache.index())) {
            Some(key) => {
                cache
                    .look(key.into(), call.codecs().0, deadline, revive)
                    .await
            }
            None => Turn::Plain,
        }
    }

    /// Replies with what was found.
    pub(crate) async fn give(&self, reply: Option<Subject>, answered: Answered) -> Verdict {
        if let Answered::Found { body, .. } = &answered
            && !self.shares(body)
        {
            // It was smaller in the codec that it is kept in.
            let text = format!(
                "{}: the answer has {} bytes in this encoding, which is more than a message carries",
                self.spec.subject,
                body.len()
            );
            return self
                .finish(reply, Instant::now(), Err(Error::resource_exhausted(text)))
                .await;
        }
        #[cfg(feature = "tower")]
        if self.layered {
            // The layers are to see it, like any other answer.
            return self.finish(reply, Instant::now(), outcome(answered)).await;
        }
        match answered {
            Answered::Failed(error) => self.fail(reply, HeaderMap::new(), error).await,
            Answered::Found {
                body,
                codec,
                from,
                revision,
            } => {
                if let Some(reply) = reply {
                    let headers = headers(from, revision);
                    self.reply(reply, Some(headers), codec, body).await;
                }
                None
            }
        }
    }

    /// Ends a flight: tells those that wait, replies, stores.
    pub(crate) async fn settle(
        &self,
        reply: Option<Subject>,
        deadline: Instant,
        mut lead: Lead,
        mut outcome: Outcome,
    ) -> Verdict {
        if let Some(error) = error_of(&outcome)
            && is_failure(error.code())
            && let Some(stale) = lead.stale.take()
        {
            count(&lead.cache.stats().stale);
            tracing::warn!(subject = self.spec.subject, key = &*lead.key, %error, "an answer that is no longer fresh is given");
            let answered = Answered::Found {
                body: stale.body,
                codec: stale.codec,
                from: Source::Stale,
                revision: Some(stale.revision),
            };
            lead.share(&answered);
            // Before the reply: whoever comes after it is not to wait for a claim.
            drop(lead);
            return self.give(reply, answered).await;
        }
        let planned = self.plan(&mut lead, &outcome);
        if let Some(shared) = self.shared(&outcome) {
            lead.flight.land(shared);
        }
        let Some(planned) = planned else {
            drop(lead);
            return self.finish(reply, deadline, outcome).await;
        };
        if lead.cache.before_reply() {
            let until = planned.until.min(write_deadline(deadline));
            let revision = lead.store(Planned { until, ..planned }).await;
            drop(lead);
            if let (Some(revision), Ok(Ok(answer))) = (revision, &mut outcome) {
                answer.add_header(header::REVISION, HeaderValue::from(revision));
            }
            return self.finish(reply, deadline, outcome).await;
        }
        let verdict = self.finish(reply, deadline, outcome).await;
        // The flight lasts until the answer is in the bucket: those that come meanwhile are given what it landed with.
        tokio::spawn(async move { lead.store(planned).await });
        verdict
    }

    /// What is to be stored, if anything is.
    fn plan(&self, lead: &mut Lead, outcome: &Outcome) -> Option<Planned> {
        let expected = lead.revision?;
        let (conditional, codec) = self.keepable(lead, outcome, expected)?;
        let cache = &lead.cache;
        let Some(until) = cache.write_until(lead.looked) else {
            count(&cache.stats().outdated);
            return None;
        };
        let Some(room) = cache.room() else {
            count(&cache.stats().unwritten);
            return None;
        };
        let write = cache.write(&lead.key, conditional, codec);
        if let Some(claim) = lead.claim.take() {
            claim.redeem();
        }
        Some(Planned { write, room, until })
    }

    fn keepable(
        &self,
        lead: &Lead,
        outcome: &Outcome,
        expected: u64,
    ) -> Option<(Conditional, Codec)> {
        let spec = &lead.cache.spec;
        match outcome {
            Ok(Ok(answer)) => {
                let (body, codec) = answer.bytes()?;
                let wanted = spec.none.is_some() || !entry::is_nothing(body, codec);
                let kept = answer.keeps(lead.cache.index()) && self.shares(body) && wanted;
                kept.then(|| (entry::put(expected, body.clone()), codec))
            }
            Ok(Err(Failed { error, .. })) => {
                let kept = spec.errors.iter().any(|(code, _)| *code == error.code());
                let marker = kept.then(|| entry::failure(expected, error));
                Some((marker?.ok()?, Codec::Json))
            }
            Err(_) => None,
        }
    }

    /// What those that wait are given. Nothing of what fits no message: each of them calls the handler, whose answer goes
    /// another way then.
    fn shared(&self, outcome: &Outcome) -> Option<Shared> {
        match outcome {
            Ok(Ok(answer)) => {
                let (body, codec) = answer.bytes()?;
                self.shares(body)
                    .then(|| Shared::Value(body.clone(), codec))
            }
            Ok(Err(Failed { error, .. })) => Some(Shared::Failed(error.clone())),
            Err(refusal) => Some(Shared::Failed(refusal.clone().refused())),
        }
    }

    fn shares(&self, body: &Bytes) -> bool {
        body.len() + MAX_HEADERS <= self.client.max_payload()
    }
}

impl Lead {
    /// Stores it. Returns the revision.
    async fn store(&self, planned: Planned) -> Option<u64> {
        let Planned { write, room, until } = planned;
        let cache = &self.cache;
        match cache.writer.submit_and_wait(write, room, until).await {
            Ok(revision) => Some(revision),
            Err(error) => {
                let stats = cache.stats();
                count(match error.is_conflict() {
                    true => &stats.outdated,
                    false => &stats.unwritten,
                });
                tracing::debug!(subject = cache.method.subject, key = &*self.key, %error, "an answer was not cached");
                None
            }
        }
    }
}

/// What is said of an answer that was found.
fn headers(from: Source, revision: Option<u64>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let word = match from {
        Source::Hit => "hit",
        Source::Stale => "stale",
        Source::Shared => "shared",
    };
    headers.insert(header::CACHE, word);
    if let Some(revision) = revision {
        headers.insert(header::REVISION, HeaderValue::from(revision));
    }
    headers
}

#[cfg(feature = "tower")]
fn outcome(answered: Answered) -> Outcome {
    match answered {
        Answered::Failed(error) => Ok(Err(Failed {
            error,
            headers: None,
        })),
        Answered::Found {
            body,
            codec,
            from,
            revision,
        } => {
            let content = Content::Bytes(body, None);
            let headers = Some(Box::new(headers(from, revision)));
            Ok(Ok(Answer::new(content, codec, headers, None, Vec::new())))
        }
    }
}

fn error_of(outcome: &Outcome) -> Option<&Error> {
    match outcome {
        Ok(Ok(_)) => None,
        Ok(Err(Failed { error, .. })) | Err(error) => Some(error),
    }
}

/// Whether an error says that the service could not, rather than what the answer is.
fn is_failure(code: Code) -> bool {
    code.number() >= 500 || matches!(code, Code::ResourceExhausted | Code::Cancelled)
}
