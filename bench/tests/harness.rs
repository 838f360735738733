//! The instrument works: the load generator against a contender on a real server. No figure is judged here.

use std::process::Command;

#[test]
fn every_request_of_every_kind_of_load_is_answered() {
    let smoke = Command::new(env!("CARGO_BIN_EXE_bench"))
        .arg("smoke")
        .output()
        .expect("the bench binary starts");
    let said = String::from_utf8_lossy(&smoke.stderr);
    assert!(smoke.status.success(), "{said}");
    let lines = String::from_utf8(smoke.stdout).expect("JSON is text");
    let outcomes: Vec<serde_json::Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).expect("a line of JSON"))
        .collect();
    assert_eq!(outcomes.len(), 3, "one at a time, many at once, at a rate");
    for outcome in outcomes {
        assert_eq!(outcome["requests"], 1_000, "{outcome}");
        assert_eq!(outcome["errors"], 0, "{outcome}");
        let quantile = |name: &str| outcome[name].as_f64().expect("a number");
        assert!(quantile("rate") > 0.0, "{outcome}");
        assert!(quantile("p50_us") <= quantile("p99_us"), "{outcome}");
    }
}
