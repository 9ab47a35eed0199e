//! What one order costs in counts, against `tests/cost.json`: a change of more than 3 % is told.
//!
//! After a change that is meant: `SETTLE_WRITE=1 cargo xtask test what_one_order_costs`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::process::Command;

use settle_tests::host::{binary, cache, program, root};

const MORE_MAX: f64 = 1.03;
/// Orders that the native cores place under callgrind: what both runs do beside is left out.
const FEW: u32 = 20;
const MANY: u32 = 120;

#[test]
fn what_one_order_costs_is_what_it_did() {
    let output = Command::new(binary())
        .current_dir(root())
        .args(["sim", "--cost", "--cache"])
        .arg(cache())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut now: BTreeMap<String, f64> = serde_json::from_slice(&output.stdout).unwrap();
    let more = native_instructions(MANY) - native_instructions(FEW);
    now.insert("instructions: native cores and SQLite".to_owned(), (more / f64::from(MANY - FEW)).round());
    let file = root().join("tests/cost.json");
    if std::env::var_os("SETTLE_WRITE").is_some() {
        std::fs::write(&file, serde_json::to_string_pretty(&now).unwrap() + "\n").unwrap();
    }
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

/// Of the whole program, by callgrind.
fn native_instructions(orders: u32) -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .args([program("native-saga").as_os_str(), folder.path().as_os_str()])
        .arg(orders.to_string())
        .output()
        .expect("valgrind is installed");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let collected = told.lines().find_map(|line| line.split_once("Collected : ")).expect("a count").1;
    collected.trim().parse().unwrap()
}
