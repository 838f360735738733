use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
pub enum Problem {
    #[service_error(message = "gone")]
    Gone,
}

fn main() {}
