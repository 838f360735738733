use nats_service::ServiceError;

#[derive(Debug, ServiceError)]
pub enum Problem {
    #[service_error(code = Notfound, message = "gone")]
    Gone,
    #[service_error(code = "NotFound", message = "gone")]
    Quoted,
}

fn main() {}
