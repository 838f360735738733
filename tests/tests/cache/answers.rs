//! What was answered is answered again: from the bucket, in the caller's codec, and as the conditions say.

use super::{Act, Hand, Quote, Served, counted, eur, from, served};
use nats_service::{Error, Reply, Server, nats_service};
use nats_service_tests::{Nats, desk, until};

#[tokio::test]
async fn an_answer_is_given_again_without_a_call_and_says_where_it_is_from() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    let first = client.rate(eur()).reply().await.unwrap();
    assert_eq!(
        (first.value.call, from(&first.headers), first.revision),
        (1, None, None)
    );
    let entry = client.stores().unwrap().rate().at("eur").unwrap();
    until("the answer is stored", async || {
        entry.get().await.unwrap().is_some()
    })
    .await;

    let second: Reply<Quote> = client.rate(eur()).reply().await.unwrap();
    let stored = entry.get().await.unwrap().unwrap();
    assert_eq!(
        (&second.value, from(&second.headers)),
        (&first.value, Some("hit"))
    );
    assert_eq!(
        (second.revision, stored.value()),
        (Some(stored.revision), &first.value)
    );
    assert_eq!(client.rate("usd".to_owned()).await.unwrap().call, 2);
    assert_eq!(bank.calls(), 2);
    let of = async |counter| counted(&nats, "rate", counter).await;
    assert_eq!(
        (of("hits").await, of("misses").await, of("waited").await),
        (1, 2, 0)
    );
}

#[tokio::test]
async fn a_value_that_is_written_first_is_there_with_the_reply() {
    let nats = Nats::start().await;
    let Served { client, .. } = &served(&nats).await;
    let reply = client.surely(eur()).reply().await.unwrap();
    let stores = client.stores().unwrap();
    let stored = stores
        .quotes()
        .at("eur")
        .unwrap()
        .get()
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (reply.revision, stored.value()),
        (Some(stored.revision), &reply.value)
    );
    assert_eq!(client.surely(eur()).await.unwrap().call, 1);
}

#[tokio::test]
async fn a_condition_decides_what_is_kept() {
    let nats = Nats::start().await;
    let Served { bank, client, .. } = &served(&nats).await;
    assert_eq!(client.odd(eur()).await.unwrap().call, 1);
    assert_eq!(client.odd(eur()).await.unwrap().call, 1);
    for call in [2, 3, 3] {
        assert_eq!(client.odd("usd".to_owned()).await.unwrap().call, call);
    }
    assert_eq!(bank.calls(), 3);
}

#[tokio::test]
async fn an_entry_that_cannot_be_read_is_a_miss_and_is_overwritten() {
    let nats = Nats::start().await;
    let Served { client, .. } = &served(&nats).await;
    let bucket = nats.js.get_key_value("sure").await.unwrap();
    bucket
        .put("eur", "{\"no\": \"quote\"}".into())
        .await
        .unwrap();
    assert_eq!(client.surely(eur()).await.unwrap().call, 1);
    assert_eq!(client.surely(eur()).await.unwrap().call, 1);
    assert_eq!(counted(&nats, "surely", "undecodable").await, 1);
}

#[nats_service(codec = "msgpack", version = "1.0.0")]
trait Packed {
    #[kv_cache(
        bucket = "packed",
        key = "<currency>",
        ttl = "1h",
        cache_none = "1m",
        write = "before_reply"
    )]
    async fn packed(&self, currency: String) -> Result<Option<Quote>, Error>;
}

impl Packed for Hand {
    async fn packed(&self, currency: String) -> Result<Option<Quote>, Error> {
        let quote = self.0.quote(currency).await;
        quote.map_err(|error| Error::internal(error.to_string()))
    }
}

#[tokio::test]
async fn an_entry_is_given_in_the_codec_that_its_caller_speaks() {
    let nats = Nats::start().await;
    let Served { bank, .. } = &served(&nats).await;
    let server = Server::new(nats.client.clone()).with_jetstream(nats.js.clone());
    let server = server.serve(PackedServer::new(Hand(bank.clone())));
    let _running = server.start().await.unwrap();
    let client = PackedClient::new(nats.client.clone());
    let first = client.packed(eur()).await.unwrap().unwrap();
    let json = [("Content-Type", "application/json")];
    let reply = desk::ask_with(&nats.client, "packed.packed", &json, "\"eur\"").await;
    assert_eq!(from(reply.headers.as_ref().unwrap()), Some("hit"));
    assert_eq!(
        serde_json::from_slice::<Quote>(&reply.payload).unwrap(),
        first
    );
    bank.then([Act::Nothing]);
    for _ in 0..2 {
        assert_eq!(client.packed("none".to_owned()).await.unwrap(), None);
    }
    assert_eq!(bank.calls(), 2);
}
