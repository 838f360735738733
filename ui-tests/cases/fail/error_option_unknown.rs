use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
#[service_error(code = Internal, message = "all")]
pub enum Problem {
    #[service_error(mesage = "gone")]
    Gone,
}

fn main() {}
