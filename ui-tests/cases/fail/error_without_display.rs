use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
#[service_error(code = Internal)]
pub enum Problem {
    Gone,
}

fn main() {}
