//! Typed errors cross the wire and come back.
#![deny(warnings)]

use nats_service::{Code, Error, ServiceError};

#[derive(Debug, PartialEq, ServiceError)]
#[service_error(code = Internal)]
enum Problem {
    #[service_error(code = AlreadyExists, message = "{email:?} is taken, {{really}}")]
    Taken { email: String, since: Option<u32> },
    #[service_error(code = NotFound, message = "{1} not in {0:>4}")]
    Pair(u8, String),
    #[service_error(message = "broken {r}")]
    Default { r: u8, r#type: Vec<u8> },
    #[service_error(code = Unavailable, message = "unit")]
    Unit,
    #[cfg(any())]
    #[service_error(code = Unavailable, message = "{0}")]
    Gone(NoSuchType),
}

/// With words of its own.
#[derive(Debug, PartialEq, ServiceError)]
#[service_error(code = ResourceExhausted)]
struct Own(u32);

impl std::fmt::Display for Own {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "own {}", self.0)
    }
}

impl std::error::Error for Own {}

#[derive(Debug, PartialEq, ServiceError)]
#[service_error(code = Cancelled, message = "gone")]
struct Unit;

#[derive(Debug, ServiceError)]
enum Never {}

impl std::fmt::Display for Never {
    fn fmt(&self, _: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {}
    }
}

impl std::error::Error for Never {}

/// Every code of the table is known to the derive.
#[derive(Debug, PartialEq, ServiceError)]
enum Every {
    #[service_error(code = InvalidArgument, message = "")] A,
    #[service_error(code = Unauthenticated, message = "")] B,
    #[service_error(code = PermissionDenied, message = "")] C,
    #[service_error(code = NotFound, message = "")] D,
    #[service_error(code = AlreadyExists, message = "")] E,
    #[service_error(code = Aborted, message = "")] F,
    #[service_error(code = FailedPrecondition, message = "")] G,
    #[service_error(code = OutOfRange, message = "")] H,
    #[service_error(code = ResourceExhausted, message = "")] I,
    #[service_error(code = Cancelled, message = "")] J,
    #[service_error(code = Internal, message = "")] K,
    #[service_error(code = DataLoss, message = "")] L,
    #[service_error(code = Unknown, message = "")] M,
    #[service_error(code = Unimplemented, message = "")] N,
    #[service_error(code = Unavailable, message = "")] O,
    #[service_error(code = Code::DeadlineExceeded, message = "")] P,
}

fn round_trip<E: ServiceError + PartialEq>(error: E, code: Code, text: &str) {
    let wire = error.to_wire();
    assert_eq!((wire.code(), wire.message()), (code, text));
    assert_eq!(E::from_wire(wire), Ok(error));
}

fn main() {
    let taken = || Problem::Taken { email: "a@b".into(), since: None };
    round_trip(taken(), Code::AlreadyExists, "\"a@b\" is taken, {really}");
    round_trip(Problem::Pair(7, "x".into()), Code::NotFound, "x not in    7");
    round_trip(Problem::Default { r: 1, r#type: vec![2] }, Code::Internal, "broken 1");
    round_trip(Problem::Unit, Code::Unavailable, "unit");
    round_trip(Own(3), Code::ResourceExhausted, "own 3");
    round_trip(Unit, Code::Cancelled, "gone");
    round_trip(Every::D, Code::NotFound, "");

    let details = taken().to_wire().details().to_string();
    assert_eq!(details, r#"{"email":"a@b","since":null}"#);
    assert_eq!(Problem::Pair(7, "x".into()).to_wire().details().to_string(), r#"[7,"x"]"#);

    // What is not of the type comes back as it was.
    let foreign = Error::not_found("other");
    assert_eq!(Problem::from_wire(foreign.clone()), Err(foreign));
    let newer = Error::not_found("newer").with_variant("Newer");
    assert_eq!(Problem::from_wire(newer.clone()), Err(newer));
    let damaged = Error::not_found("damaged").with_variant("Pair");
    assert_eq!(Problem::from_wire(damaged.clone()), Err(damaged));
    assert!(Never::from_wire(Error::not_found("x")).is_err());
}
