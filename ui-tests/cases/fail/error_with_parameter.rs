use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
#[service_error(code = Internal, message = "gone")]
pub struct Problem<T> {
    value: T,
}

fn main() {}
