use nats_service::ServiceError;

#[derive(Debug)]
pub struct Plain;

#[derive(Debug, ServiceError)]
#[service_error(code = Internal, message = "gone")]
pub struct Problem {
    plain: Plain,
}

fn main() {}
