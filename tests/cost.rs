//! What one order costs in counts, against `tests/cost.json`: a change of more than 3 % is told.
//!
//! After a change that is meant: `SETTLE_WRITE=1 cargo xtask test what_one_order_costs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::process::Command;

use settle_tests::host::{binary, cache, root};

const MORE_MAX: f64 = 1.03;

#[test]
fn what_one_order_costs_is_what_it_did() {
    let output = Command::new(binary())
        .current_dir(root())
        .args(["sim", "--cost", "--cache"])
        .arg(cache())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let file = root().join("tests/cost.json");
    if std::env::var_os("SETTLE_WRITE").is_some() {
        std::fs::write(&file, &output.stdout).unwrap();
    }
    let now: BTreeMap<String, f64> = serde_json::from_slice(&output.stdout).unwrap();
    let kept = std::fs::read_to_string(file).unwrap();
    let kept: BTreeMap<String, f64> = serde_json::from_str(&kept).unwrap();
    let names = |counts: &BTreeMap<String, f64>| counts.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&now), names(&kept), "what is counted has changed");
    for (name, now) in &now {
        println!("{name:<32} {now:>12.1} (kept: {:.1})", kept[name]);
    }
    for (name, now) in &now {
        let kept = kept[name];
        assert!(*now <= kept * MORE_MAX, "{name}: {now} an order, was {kept}");
        assert!(
            *now * MORE_MAX >= kept,
            "{name}: {now} an order is less than {kept}: keep the gain, write it down"
        );
    }
}
