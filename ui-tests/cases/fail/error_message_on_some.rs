use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
#[service_error(code = Internal)]
pub enum Problem {
    #[service_error(message = "gone")]
    Gone,
    Other,
}

fn main() {}
