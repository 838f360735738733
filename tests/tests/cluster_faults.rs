//! What service, callers, watchers and those who compare and set are promised on a replicated bucket, through every fault of
//! a cluster. The long form is `cargo run --release -p bench -- faults`.

use nats_service_tests::ledger::{self, Fault};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn through_every_fault_of_a_cluster_nothing_acknowledged_is_lost_and_nothing_old_returns() {
    let findings = ledger::run(1, &Fault::ALL).await;
    // For `bench`, which repeats this.
    let found = serde_json::to_string(&findings).expect("numbers and texts");
    println!("findings: {found}");
    assert_eq!(findings.problems, [""; 0], "{findings:?}");
    assert_eq!(findings.faults, Fault::ALL.len());
    assert!(findings.answers > 400 && findings.granted > 5 && findings.seen > 400);
}
