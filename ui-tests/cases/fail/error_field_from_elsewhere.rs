use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
pub enum Problem {
    #[service_error(code = Unavailable, message = "the disk does not answer")]
    Disk { error: std::io::Error },
}

fn main() {}
