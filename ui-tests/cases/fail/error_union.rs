use nats_service::ServiceError;

#[derive(ServiceError)]
#[service_error(code = Internal)]
pub union Problem {
    a: u8,
    b: i8,
}

fn main() {}
