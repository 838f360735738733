//! What a layer's own error is to a caller: those of tower by name, an `Error` as it is, and of any other nothing but that
//! there was one.

use super::BoxError;
use crate::wire::error::{Code, Error};

/// The kind of failure, for errors that are known here.
pub(crate) fn code_of(error: &(dyn std::error::Error + 'static)) -> Option<Code> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| {
        if error.is::<tower::timeout::error::Elapsed>() {
            Some(Code::DeadlineExceeded)
        } else if error.is::<tower::load_shed::error::Overloaded>() {
            Some(Code::ResourceExhausted)
        } else {
            error.downcast_ref::<Error>().map(Error::code)
        }
    })
}

/// What the caller of a service is told.
pub(crate) fn refusal(subject: &str, error: BoxError) -> Error {
    let error = match error.downcast::<Error>() {
        // The layer has said itself what its caller is to know.
        Ok(error) => return *error,
        Err(error) => error,
    };
    match code_of(&*error) {
        Some(Code::DeadlineExceeded) => {
            Error::deadline_exceeded(format!("{subject}: it took longer than a layer allows"))
        }
        Some(Code::ResourceExhausted) => Error::resource_exhausted(format!(
            "{subject}: too many calls at once; try again later"
        )),
        _ => {
            // The text is for the operator: it may hold what no caller should see.
            let chain = std::iter::successors(error.source(), |error| error.source());
            let sources: Vec<_> = chain.map(ToString::to_string).collect();
            tracing::error!(subject, %error, ?sources, "a layer failed");
            Error::internal(format!(
                "{subject}: the call failed on its way to the handler"
            ))
        }
    }
    .refused()
}
