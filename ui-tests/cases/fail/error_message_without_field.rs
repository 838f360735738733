use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
#[service_error(code = Internal)]
pub enum Problem {
    #[service_error(message = "no {di}")]
    Gone { id: String },
    #[service_error(message = "no {}")]
    Tuple(u8),
    #[service_error(message = "no {id")]
    Open { id: String },
}

fn main() {}
