//! A question to every instance: each is told from the others, and the end comes by count, by silence or by the clock.

use futures_util::StreamExt as _;
use nats_service::{CallError, Code, Error, Running, Server, nats_service};
use nats_service_tests::{Nats, PATIENCE, connect, soon};
use std::collections::HashSet;
use std::time::{Duration, Instant};

#[nats_service]
trait Crew {
    /// Who is there.
    #[endpoint(queue_group = false)]
    async fn number(&self) -> Result<u32, Error>;

    /// So many letters of each.
    #[endpoint(queue_group = false, timeout = "30s")]
    async fn letters(&self, count: usize) -> String;

    /// The one on duty.
    async fn duty(&self) -> u32;
}

struct Sailor(u32);

impl Crew for Sailor {
    async fn number(&self) -> Result<u32, Error> {
        match self.0 {
            13 => Err(Error::unavailable("asleep")),
            14 => panic!("overboard"),
            15 => std::future::pending().await,
            number => Ok(number),
        }
    }
    async fn letters(&self, count: usize) -> String {
        "x".repeat(count)
    }
    async fn duty(&self) -> u32 {
        self.0
    }
}

async fn crew(nats: &Nats, numbers: impl IntoIterator<Item = u32>) -> Vec<Running> {
    let mut crew = Vec::new();
    for number in numbers {
        let (client, _) = connect(&nats.server).await;
        let server = Server::new(client).serve(CrewServer::new(Sailor(number)));
        crew.push(server.start().await.expect("a sailor"));
    }
    crew
}

#[tokio::test]
async fn every_instance_answers_with_its_id_or_with_its_error() {
    let nats = Nats::start().await;
    let _crew = crew(&nats, [1, 2, 3, 13, 14]).await;
    let client = CrewClient::new(nats.client.clone());
    let answers = soon("all answers", client.number().many().most(5))
        .await
        .unwrap();
    let ids: HashSet<_> = answers
        .iter()
        .map(|answer| answer.instance.clone().expect("an id"))
        .collect();
    assert_eq!(ids.len(), 5);
    let known = nats
        .client
        .request("$SRV.PING.crew", "".into())
        .await
        .unwrap();
    let known: serde_json::Value = serde_json::from_slice(&known.payload).unwrap();
    assert!(ids.contains(known["id"].as_str().unwrap()));
    let mut numbers = Vec::new();
    let mut errors = Vec::new();
    for answer in answers {
        match answer.result {
            Ok(reply) => numbers.push(reply.value),
            Err(CallError::Service(error) | CallError::Remote(error)) => errors.push(error.code()),
            Err(other) => panic!("{other:?}"),
        }
    }
    numbers.sort_unstable();
    errors.sort_unstable_by_key(|code| code.number());
    assert_eq!(
        (&numbers[..], &errors[..]),
        (&[1, 2, 3][..], &[Code::Internal, Code::Unavailable][..])
    );
    // An ordinary call has the first of the answers.
    assert!(soon("one", client.letters(3)).await.unwrap() == "xxx");
}

#[tokio::test]
async fn the_answers_end_by_count_or_by_silence_or_by_the_clock() {
    let nats = Nats::start().await;
    let _crew = crew(&nats, [1, 2, 3, 15]).await;
    let client = CrewClient::new(nats.client.clone()).with_timeout(PATIENCE);
    let two = soon("two", client.number().many().most(2)).await.unwrap();
    assert_eq!(two.len(), 2);
    let begin = Instant::now();
    let silent = client.number().many().stall(Duration::from_secs(1));
    assert_eq!(soon("three", silent).await.unwrap().len(), 3);
    assert!(begin.elapsed() < PATIENCE / 2);
    let begin = Instant::now();
    let clock = client
        .number()
        .timeout(Duration::from_secs(1))
        .many()
        .stall(PATIENCE);
    assert_eq!(soon("three", clock).await.unwrap().len(), 3);
    assert!(begin.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn answers_come_one_by_one_and_dropping_them_is_the_end() {
    let nats = Nats::start().await;
    let _crew = crew(&nats, [1, 2, 15]).await;
    let client = CrewClient::new(nats.client.clone());
    let mut answers = soon("the first", client.number().many().stream())
        .await
        .unwrap();
    let first = answers.next().await.expect("an answer");
    assert!(matches!(first.result.unwrap().value, 1 | 2));
    drop(answers);
    assert!(client.duty().await.is_ok());
}

#[tokio::test]
async fn a_question_that_nobody_hears_or_answers_is_an_error() {
    let nats = Nats::start().await;
    let client = CrewClient::new(nats.client.clone());
    let asked = soon("an error", client.number().many()).await;
    assert!(
        matches!(asked, Err(CallError::NoResponders { .. })),
        "{asked:?}"
    );
    let _crew = crew(&nats, [15]).await;
    let asked = soon(
        "an error",
        client.number().timeout(Duration::from_millis(100)).many(),
    )
    .await;
    assert!(matches!(asked, Err(CallError::Timeout { .. })), "{asked:?}");
    let large = client
        .letters(2 << 20)
        .many()
        .stall(Duration::from_millis(100));
    let answers = soon("an answer", large).await.unwrap();
    assert_eq!(
        answers[0].result.as_ref().unwrap_err().code(),
        Code::ResourceExhausted
    );
}
