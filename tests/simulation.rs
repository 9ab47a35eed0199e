//! The simulator itself: one seed is one run, and any component fits into it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use settle_host::sim::{self, Application, Habits, Machine, Machines, Profile, Setup, Sim};
use settle_tests::host::{binary, cache, probe_manifest, root};
use settle_tests::postgres::shared;

/// `settle sim` with these arguments; its JSON.
fn settle_sim(args: &[&str]) -> Value {
    let mut command = Command::new(binary());
    command.current_dir(root()).args(["sim", "--json", "--cache"]).arg(cache()).args(args);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

#[test]
fn one_seed_is_one_run_on_any_number_of_threads() {
    let run = |threads| settle_sim(&["--seeds", "0..12", "--threads", threads]);
    let (one, two) = (run("1"), run("2"));
    assert_eq!(one["violations"], 0, "{one}");
    assert_eq!(one["digest"], two["digest"]);
    assert_ne!(one["digest"], settle_sim(&["--seeds", "1..13"])["digest"]);
}

/// The whole history of a seed, whose last line has its digest.
fn replay(args: &[&str]) -> String {
    let mut command = Command::new(binary());
    command.current_dir(root()).args(["sim", "--cache"]).arg(cache()).args(args);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let history = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{said}{history}");
    history
}

#[tokio::test]
async fn a_real_postgresql_is_driven_one_call_at_a_time() {
    for (profile, seed) in [("partition", "1"), ("clock", "2")] {
        let run = |url: String| {
            replay(&["--replay", seed, "--orders", "60", "--profile", profile, "--postgres", &url])
        };
        let (first, second) = (run(shared().database().await), run(shared().database().await));
        assert!(first.lines().count() > 1_000);
        let differs = first.lines().zip(second.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None, "one seed is one run here too");
    }
}

#[test]
fn mistakes_in_arguments_are_told() {
    for (args, part) in [
        (vec!["--profile", "hurricane"], "hurricane"),
        (vec!["--seeds", "5..5"], "5..5"),
        (vec!["--hosts", "0"], "at least one host"),
        (vec!["--manifest", "nowhere.toml"], "nowhere.toml"),
    ] {
        let mut command = Command::new(binary());
        let output = command.current_dir(root()).args(["sim", "--cache"]).arg(cache()).args(&args).output();
        let output = output.unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(part), "{args:?}: {said}");
    }
}

/// The probe knows nothing of orders. It is asked every second, while its machine dies at times.
fn probe_run(manifest: &Path, seed: u64) -> (String, u32, u32) {
    let application = Arc::new(Application::load(manifest, &cache()).unwrap());
    let run = async {
        let sim = Sim::new(Setup::new(seed, Profile::named("storm").unwrap()));
        let (disks, all) = (application.disks(&[]).unwrap(), Machines::default());
        let values = BTreeMap::new();
        let machine = Machine::new(0, &sim, &application, &disks, &values, &all, Habits::default());
        all.lock().unwrap().push(Arc::downgrade(&machine));
        machine.start().unwrap();
        tokio::spawn(machine.clone().live());
        let (mut answered, mut silent) = (0, 0);
        for _ in 0..500 {
            let request = http::Request::get("http://probe.internal/").body(bytes::Bytes::new()).unwrap();
            match sim::ask(&sim, &machine, "probe", request).await {
                // A fault of the way, not of the probe.
                Some(reply) if reply.status == 502 => silent += 1,
                Some(reply) => {
                    assert_eq!((reply.status, &reply.body[..]), (200, &b"hello"[..]));
                    answered += 1;
                    sim.tell("answered");
                }
                None => silent += 1,
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        (sim.digest(), answered, silent)
    };
    sim::run(run).unwrap()
}

#[test]
fn any_component_with_an_http_handler_can_be_put_into_the_world() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = probe_manifest(folder.path());
    let (digest, answered, silent) = probe_run(&manifest, 1);
    assert!(answered > 300 && silent > 0, "{answered} answered, {silent} silent");
    assert_eq!(probe_run(&manifest, 1), (digest.clone(), answered, silent));
    assert_ne!(probe_run(&manifest, 2).0, digest);
}
