//! What a cluster promises.

mod common;

use async_nats::jetstream::kv;
use common::{bucket, client, until};
use nats_service_testkit::{Error, TestCluster};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A cluster whose servers can be parted, and a bucket with a copy on each. Clients stay with the server that they were given.
async fn partitioned() -> Result<(TestCluster, kv::Store), Error> {
    let cluster = TestCluster::builder().partitions(true).advertise(false);
    let cluster = cluster.start().await?;
    let store = bucket(&client(cluster.urls()).await, "b", 3).await;
    Ok((cluster, store))
}

#[tokio::test]
async fn it_elects_a_leader_and_replicates() -> Outcome {
    let cluster = TestCluster::start().await?;
    assert_eq!(cluster.servers().len(), 3);
    assert_eq!(cluster.url(), cluster.urls().join(","));
    assert!(cluster.meta_leader().await? < 3);
    let client = client(cluster.urls()).await;
    let store = bucket(&client, "b", 3).await;
    assert!(cluster.stream_leader("KV_b").await? < 3);
    store.put("k", "v".into()).await?;
    Ok(())
}

#[tokio::test]
async fn a_killed_leader_is_replaced_and_comes_back() -> Outcome {
    let cluster = TestCluster::start().await?;
    let client = client(cluster.urls()).await;
    let store = bucket(&client, "b", 3).await;
    let first = cluster.stream_leader("KV_b").await?;
    store.put("k", "before".into()).await?;

    cluster.server(first).kill().await?;
    let second = cluster.stream_leader("KV_b").await?;
    assert_ne!(first, second);
    until("a write through the new leader", async || {
        store.put("k", "after".into()).await.is_ok()
    })
    .await;

    cluster.server(first).restart().await?;
    cluster.wait_ready().await?;
    assert!(
        cluster
            .servers()
            .iter()
            .all(|server| server.pid().is_some())
    );
    assert_eq!(store.get("k").await?.as_deref(), Some(b"after".as_slice()));
    Ok(())
}

#[tokio::test]
async fn a_paused_leader_is_replaced_and_does_not_count_as_one_when_it_wakes() -> Outcome {
    let cluster = TestCluster::start().await?;
    let first = cluster.meta_leader().await?;
    cluster.server(first).pause().await?;
    let second = cluster.meta_leader().await?;
    assert_ne!(first, second);
    cluster.server(first).resume().await?;
    cluster.wait_ready().await?;
    assert_eq!(cluster.meta_leader().await?, second);
    Ok(())
}

#[tokio::test]
async fn without_a_majority_there_is_no_leader_and_the_error_says_so() -> Outcome {
    let cluster = TestCluster::start().await?;
    for server in &cluster.servers()[1..] {
        server.kill().await?;
    }
    // A server that has lost its peers notices after a while; restarted, it never had one.
    cluster.server(0).restart().await?;
    let waiting =
        tokio::time::timeout(std::time::Duration::from_millis(500), cluster.meta_leader());
    assert!(waiting.await.is_err());
    for server in &cluster.servers()[1..] {
        server.restart().await?;
    }
    cluster.wait_ready().await?;
    Ok(())
}

#[tokio::test]
async fn clusters_at_once_do_not_meet() -> Outcome {
    let (one, two) = tokio::try_join!(TestCluster::start(), TestCluster::start())?;
    bucket(&client(one.urls()).await, "b", 3).await;
    let elsewhere = async_nats::jetstream::new(client(two.urls()).await)
        .get_key_value("b")
        .await;
    assert!(elsewhere.is_err());
    Ok(())
}

#[tokio::test]
async fn it_tells_clients_of_its_servers_unless_told_not_to() -> Outcome {
    let quiet = TestCluster::builder().advertise(false).start().await?;
    assert!(
        client(quiet.urls()[0])
            .await
            .server_info()
            .connect_urls
            .is_empty()
    );
    Ok(())
}

#[tokio::test]
async fn a_leader_that_is_cut_off_is_replaced_and_takes_no_writes_until_it_rejoins() -> Outcome {
    let (cluster, store) = partitioned().await?;
    store.put("k", "before".into()).await?;
    let old = cluster.stream_leader("KV_b").await?;
    let alone = async_nats::jetstream::new(client(cluster.server(old).url()).await);
    let alone = alone.get_key_value("b").await?;
    cluster.cut_off(old).await?;

    let new = cluster.stream_leader("KV_b").await?;
    assert_ne!(old, new);
    let others = async_nats::jetstream::new(client(cluster.server(new).url()).await);
    let others = others.get_key_value("b").await?;
    until("a write through the new leader", async || {
        others.put("k", "after".into()).await.is_ok()
    })
    .await;
    assert!(alone.put("k", "lost".into()).await.is_err());

    cluster.rejoin(old).await?;
    cluster.wait_ready().await?;
    until("the old leader to follow", async || {
        let value = alone.get("k").await;
        value.is_ok_and(|value| value.as_deref() == Some(b"after".as_slice()))
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_server_that_is_held_back_serves_what_it_had_until_it_rejoins() -> Outcome {
    let (cluster, store) = partitioned().await?;
    let leader = cluster.stream_leader("KV_b").await?;
    let behind = (leader + 1) % 3;
    // The nearest replica answers a direct get.
    let there = async_nats::jetstream::new(client(cluster.server(behind).url()).await);
    let there = there.get_key_value("b").await?;
    store.put("k", "before".into()).await?;
    let holds = async |value: &[u8]| {
        there
            .get("k")
            .await
            .is_ok_and(|it| it.as_deref() == Some(value))
    };
    until("the value there", async || holds(b"before").await).await;

    cluster.hold_back(behind).await?;
    let here = async_nats::jetstream::new(client(cluster.server(leader).url()).await);
    here.get_key_value("b")
        .await?
        .put("k", "after".into())
        .await?;
    until("what it had", async || holds(b"before").await).await;
    assert_eq!(cluster.stream_leader("KV_b").await?, leader);

    cluster.rejoin(behind).await?;
    cluster.wait_ready().await?;
    until("the new value there", async || holds(b"after").await).await;
    Ok(())
}

#[tokio::test]
async fn a_cluster_without_proxies_says_how_to_get_them() -> Outcome {
    let cluster = TestCluster::builder().size(2).start().await?;
    let refused = cluster.cut_off(0).await;
    assert!(matches!(refused, Err(Error::NoPartitions)));
    Ok(())
}

#[tokio::test]
async fn one_server_is_no_cluster() {
    let refused = TestCluster::builder().size(1).start().await;
    assert!(matches!(refused, Err(Error::ClusterSize { size: 1 })));
}
