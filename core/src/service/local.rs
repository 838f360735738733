//! A service for callers in the same process, with no server: its endpoints are the very loops that a server runs, between
//! other ends.
//!
//! There is no JetStream. Answers are given and not kept, as by a server without it; a method that cannot answer without
//! says so to its callers.

use super::endpoint::{EndpointLoop, Limits, Stop};
use super::finish::{Context, is_object_put};
use super::intake::Intake;
use super::invoke::{Endpoint, Mount, Mounted, Serving};
use super::reply::ReplyRule;
use super::streaming::{StreamLimits, Streams};
use crate::__private::Service;
use crate::telemetry::EndpointMetrics;
use crate::wire::context::Origin;
use crate::wire::error::{Code, Error};
use crate::wire::loopback::{Endpoints, LocalOutlet, Loopback};
use crate::wire::outlet::Outlet;
use crate::wire::spec::{MethodSpec, ServiceSpec, WriteMode};
use async_nats::Message;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

/// Requests on their way to an endpoint; the caller of one more waits.
const ON_THEIR_WAY: usize = 1024;

/// The service, ready for its first call.
pub(crate) fn local(service: impl Service) -> Loopback {
    let spec = service.spec();
    let mut mount = Mount::default();
    service.mount(&mut mount);
    Loopback::new(move |outlet| start(spec, mount, &outlet))
}

/// Starts the loops. Each ends when the last client is gone, which has the other end of its channel.
fn start(service: &'static ServiceSpec, mount: Mount, outlet: &LocalOutlet) -> Endpoints {
    let instance: Arc<str> = "local".into();
    #[cfg(feature = "tower")]
    let layers = mount.layers;
    let limits = Limits::default();
    let reply_rule = Arc::new(ReplyRule::default());
    let outlet = Outlet::Local(outlet.clone());
    let streams = Streams::new(outlet.clone(), &reply_rule, StreamLimits::default());
    let mounted = mount.endpoints.into_iter().map(|mounted| {
        let subject = mounted.spec.subject;
        let context = Context {
            spec: mounted.spec,
            origin: Origin {
                service,
                method: mounted.spec,
                subject: mounted.spec.subject.into(),
                instance: Arc::clone(&instance),
            },
            client: outlet.clone(),
            everyone: mounted.spec.queue_group.is_none(),
            #[cfg(feature = "tower")]
            layered: !layers.is_empty(),
            reply_rule: Arc::clone(&reply_rule),
            metrics: EndpointMetrics::new(service, mounted.spec),
            stats: Arc::default(),
            streams: Arc::clone(&streams),
            stores: Vec::new(),
            jetstream: None,
            cache: None,
            patience: limits.patience,
        };
        let endpoint: Arc<dyn Endpoint> = match needs_jetstream(&mounted) {
            true => Arc::new(Unservable(context)),
            false => (mounted.bind)(context),
        };
        #[cfg(feature = "tower")]
        let endpoint = super::layered::around(&layers, endpoint);
        let (sender, receiver) = mpsc::channel(ON_THEIR_WAY);
        let intake = Intake::Local(receiver);
        tokio::spawn(
            EndpointLoop::new(endpoint, intake, limits.of(mounted.spec), Stop::default()).run(),
        );
        (subject, sender)
    });
    mounted.collect()
}

/// Whether a method's answer is a promise to have stored it. A cache promises nothing.
fn needs_jetstream(mounted: &Mounted) -> bool {
    let MethodSpec { stores, .. } = mounted.spec;
    let before = stores
        .iter()
        .any(|store| store.write == WriteMode::BeforeReply && store.cache.is_none());
    before || mounted.streams && stores.iter().any(is_object_put)
}

/// In place of an endpoint that cannot be served here.
struct Unservable(Context);

impl Endpoint for Unservable {
    fn context(&self) -> &Context {
        &self.0
    }

    fn begin(
        self: Arc<Self>,
        message: Message,
        _received: Instant,
        deadline: Instant,
        slot: &mut Serving,
    ) {
        let error = Error::new(
            Code::FailedPrecondition,
            format!(
                "{}: its answer is stored before it is given, and a local client has no JetStream; call it through a server, a `TestServer` of `nats-service-testkit` say",
                self.0.spec.subject
            ),
        );
        slot.set(async move { self.0.finish(message.reply, deadline, Err(error)).await });
    }
}
