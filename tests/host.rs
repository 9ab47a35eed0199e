//! The host's own promises: clear errors, limits, durability on the disk.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use rusqlite::Connection;
use settle_tests::acquirer_ledger::{orders, violations};
use settle_tests::client::{Client, one_item, one_item_by, refused_at_once};
use settle_tests::host::{
    Host, binary, command, component, manifest_with, memory_megabytes, probe_manifest, root,
};

/// Starts a host that must fail, and answers what it says.
fn failure(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "it started");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn mistakes_at_start_are_told_clearly() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let with_manifest = |change: &dyn Fn(String) -> String| {
        let manifest = manifest_with(folder.path(), change);
        failure(command(&data).arg("--manifest").arg(manifest))
    };
    let rows: Vec<(String, &[&str])> = vec![
        (failure(command(&data).args(["--manifest", "nowhere.toml"])), &["nowhere.toml", "--manifest"]),
        (with_manifest(&|text| text.replace("port = 5011", "prot = 5011")), &["spin.toml", "line", "prot"]),
        (
            with_manifest(&|text| text.replace("settle_order.wasm", "settle_oder.wasm")),
            &["`order`", "missing", "cargo xtask build"],
        ),
        (
            with_manifest(&|text| {
                let junk = folder.path().join("junk.wasm");
                std::fs::write(&junk, "junk").unwrap();
                text.replace(&component("order").display().to_string(), &junk.display().to_string())
            }),
            &["`order`", "does not compile"],
        ),
        (
            with_manifest(&|text| text.replace("plugs = [", "plugs = [] # [")),
            &["`payment`", "settle:acquirer/acquirer"],
        ),
        (failure(command(&data).args(["--set", "surprise=1"])), &["no variable `surprise`", "payment_url"]),
        (failure(command(&data).args(["--set", "token_algorithm=RS256"])), &["token_algorithm"]),
        (failure(command(&data).args(["--set", "order_deadline_seconds=soon"])), &["order_deadline_seconds"]),
        (failure(command(&data).args(["--listen", "0.0.0.0"])), &["loopback", "production"]),
    ];
    for (said, expected) in rows {
        for part in expected {
            assert!(said.contains(part), "`{part}` is not in: {said}");
        }
    }
}

/// What compiles takes some 200 MB, and an allocator would keep a good part of it.
#[test]
fn a_first_start_compiles_outside_of_the_host() {
    let folder = tempfile::tempdir().unwrap();
    let mut up = Command::new(binary());
    up.current_dir(root()).args(["up", "--ports", "0", "--data"]).arg(folder.path());
    let host = Host::spawn(folder.path(), up.arg("--cache").arg(folder.path().join("cache")));
    let megabytes = memory_megabytes(host.pid(), "VmHWM").unwrap();
    assert!(megabytes < 90.0, "{megabytes} MB at most");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let manifest =
        manifest_with(folder.path(), |text| text.replace("port = 5011", &format!("port = {port}")));
    let mut up = Command::new(binary());
    up.args(["up", "--data"]).arg(folder.path().join("data")).arg("--manifest").arg(manifest);
    let said = failure(&mut up);
    // Other ports of the manifest may be taken on this machine as well; each is named the same way.
    assert!(said.contains("cannot be listened on") && said.contains("--ports 0"), "{said}");
}

#[test]
fn a_data_directory_in_use_is_refused_and_left_alone() {
    let host = Host::start(&[]);
    let said = failure(&mut command(&host.data));
    assert!(said.contains("in use by another host") && said.contains(&host.pid().to_string()), "{said}");
}

#[test]
fn a_damaged_or_newer_database_is_refused_and_left_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    drop(Host::start_in(folder.path(), &[]));
    let database = folder.path().join("order.db");
    let newer = "INSERT INTO schema_versions VALUES ('order', 99, 0, 0)";
    Connection::open(&database).unwrap().execute(newer, []).unwrap();
    let said = failure(&mut command(folder.path()));
    assert!(said.contains("newer than this release") && said.contains("`order`"), "{said}");

    let garbage = vec![b'x'; 8192];
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(folder.path().join(format!("order.db{suffix}")));
    }
    std::fs::write(&database, &garbage).unwrap();
    let said = failure(&mut command(folder.path()));
    assert!(said.contains("order.db") && said.contains("not a SQLite database"), "{said}");
    assert_eq!(std::fs::read(&database).unwrap(), garbage);
}

#[test]
fn production_has_no_default_password_and_keeps_its_secrets_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let host = Host::start(&["--profile", "production", "--listen", "127.0.0.1"]);
    let secrets = host.data.join("secrets.env");
    assert_eq!(std::fs::metadata(&secrets).unwrap().permissions().mode() & 0o777, 0o600);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let answer = runtime.block_on(async {
        let client = host.client();
        let credentials = serde_json::json!({ "username": "admin", "password": "password" });
        client.post(&format!("{}/v1/tokens", client.identity), &credentials).await
    });
    assert_eq!(answer.status, 401);
}

#[test]
fn doctor_finds_what_is_wrong_without_changing_anything() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let doctor = |manifest: &Path| {
        let mut doctor = Command::new(binary());
        doctor.args(["doctor", "--ports", "0", "--data"]).arg(&data).arg("--manifest").arg(manifest);
        let output = doctor.output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let (healthy, said) = doctor(&manifest_with(folder.path(), |text| text));
    assert!(healthy, "{said}");
    let broken = manifest_with(folder.path(), |text| text.replace("settle_order.wasm", "settle_oder.wasm"));
    let (healthy, said) = doctor(&broken);
    assert!(!healthy && said.contains("WRONG component order"), "{said}");
    assert!(!data.exists());
}

// ---- durability, as the kernel sees it ----

/// One line of a trace: what was called on what.
fn traced(trace: &str) -> Vec<String> {
    let interesting = |line: &&str| {
        // A call that strace shows in two lines has its parenthesis in the first only.
        line.contains("fdatasync(")
            || line.contains("fsync(")
            || line.contains("pwrite64(") && line.contains("-wal>")
    };
    trace.lines().filter(interesting).map(str::to_owned).collect()
}

#[tokio::test]
async fn two_fsyncs_lie_on_the_path_of_an_order_one_before_the_call_to_payment() {
    let folder = tempfile::tempdir().unwrap();
    let trace = folder.path().join("trace");
    let mut traced_host = Command::new("strace");
    traced_host
        .current_dir(root())
        // -D: strace beside the host, not above it, so that the host is what is killed.
        .args(["-D", "-f", "-y", "-e", "trace=fsync,fdatasync,pwrite64", "-o"])
        .arg(&trace)
        .arg(binary())
        .args(["up", "--ports", "0", "--data"])
        .arg(folder.path())
        .arg("--cache")
        .arg(settle_tests::host::cache());
    let host = Host::spawn(folder.path(), &mut traced_host);
    let client = host.client().admin().await;
    client.place("warm", &one_item("book", 1250)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let before = std::fs::read_to_string(&trace).unwrap().len();
    let answer = client.place("measured", &one_item("book", 1250)).await;
    assert_eq!(answer.status, 201);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let text = std::fs::read_to_string(&trace).unwrap();
    let events = traced(&text[before..]);
    let syncs: Vec<&String> = events.iter().filter(|line| line.contains("sync(")).collect();
    let of = |file: &str| events.iter().position(|line| line.contains("sync(") && line.contains(file));
    assert_eq!(syncs.len(), 2, "{events:#?}");
    let (intent, outcome) =
        (of("order.db-wal").expect("the intent"), of("payment.db-wal").expect("the outcome"));
    let charge = events.iter().position(|line| line.contains("acquirer.db-wal")).expect("the charge");
    assert!(intent < charge, "the intent is on the disk before payment is called: {events:#?}");
    assert!(charge < outcome, "{events:#?}");
}

// ---- a full disk ----

/// A file system of a few megabytes in a loop file; `None` where this machine cannot mount one.
struct SmallDisk {
    folder: tempfile::TempDir,
}

impl SmallDisk {
    fn mount(megabytes: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "tmpfs"])
            .arg(folder.path())
            .status()
            .unwrap();
        assert!(mounted.success(), "a small file system could not be mounted; this test needs root");
        Self { folder }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.folder.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_loses_nothing_and_space_brings_the_service_back() {
    let disk = SmallDisk::mount(6);
    let data = disk.folder.path();
    let host = Host::start_in(data, &[]);
    let client = host.client().admin().await;
    let ballast = data.join("ballast");
    std::fs::write(&ballast, vec![0; 2 << 20]).unwrap();
    let (mut acknowledged, mut refused) = (Vec::new(), 0);
    for number in 0..3000 {
        let answer = client.place(&format!("k{number}"), &one_item("book", 1250)).await;
        match answer.status {
            201 | 202 => acknowledged.push(answer.json()["id"].as_str().unwrap().to_owned()),
            500 | 503 => refused += 1,
            other => panic!("{other}: {answer:?}"),
        }
        if refused > 20 {
            break;
        }
    }
    assert!(refused > 20, "the disk never filled up");
    std::fs::remove_file(&ballast).unwrap();
    let started = Instant::now();
    while client.place("after", &one_item("book", 1250)).await.status != 201 {
        assert!(started.elapsed() < Duration::from_secs(40), "it did not come back:\n{}", host.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for id in &acknowledged {
        let order = client.settled(id).await;
        assert!(["completed", "cancelled"].contains(&order["status"].as_str().unwrap()), "{order}");
    }
    loop {
        let open = orders(data)
            .into_values()
            .filter(|(status, _)| status == "payment_pending" || status == "compensating");
        if open.count() == 0 {
            break;
        }
        assert!(started.elapsed() < Duration::from_secs(90), "some orders stay open");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(violations(data).is_empty(), "{:#?}", violations(data));
}

// ---- limits ----

/// A host of the component that misbehaves on request.
fn probe(folder: &Path) -> (Host, Client, String) {
    let host = Host::start(&["--manifest", probe_manifest(folder).to_str().unwrap()]);
    let url = host.url("probe");
    (host, Client::new(url.clone(), url.clone(), url.clone()), url)
}

#[tokio::test]
async fn past_its_capacity_a_service_refuses_at_once_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = manifest_with(folder.path(), |text| {
        text.replace("databases = [\"order\"]", "databases = [\"order\"]\nconcurrent = 2\nwaiting = 2")
    });
    let host = Host::start(&["--manifest", manifest.to_str().unwrap()]);
    let client = host.client().admin().await;
    let refused = refused_at_once(&client, 12).await;
    assert!((8..=10).contains(&refused), "{refused} of 12 were refused");
    assert_eq!(client.place("later", &one_item("book", 1250)).await.status, 201);
    assert!(violations(&host.data).is_empty());
}

#[tokio::test]
async fn a_guest_that_loops_traps_grows_or_waits_for_ever_is_ended_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let (_host, client, url) = probe(folder.path());
    let get = async |path: &str| {
        let started = Instant::now();
        let answer = client.get(&format!("{url}{path}")).await;
        (answer.status, started.elapsed())
    };
    assert_eq!(get("/").await.0, 200);
    assert_eq!(get("/trap").await.0, 503);
    assert_eq!(get("/grow").await.0, 503);
    assert_eq!(get("/").await.0, 200);
    // Each stuck guest is ended after its time, and a neighbour does not notice.
    let loops = async || tokio::join!(get("/loop"), get("/loop"), get("/loop"));
    let (looped, waited, neighbour) = tokio::join!(loops(), get("/wait"), async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut slowest = Duration::ZERO;
        for _ in 0..50 {
            let (status, took) = get("/").await;
            assert_eq!(status, 200);
            slowest = slowest.max(took);
        }
        slowest
    });
    for (status, took) in [looped.0, looped.1, looped.2, waited] {
        assert!([503, 504].contains(&status), "{status}");
        assert!((11..16).contains(&took.as_secs()), "{took:?}");
    }
    assert!(neighbour < Duration::from_secs(1), "{neighbour:?}");
    assert_eq!(get("/").await.0, 200);
}

#[tokio::test]
async fn one_instance_serves_requests_one_after_another_and_few_serve_many_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let (_host, client, url) = probe(folder.path());
    let served = async || client.get(&format!("{url}/served")).await.json().as_u64().unwrap();
    let first = served().await;
    for number in 1..=20 {
        assert_eq!(served().await, first + number);
    }
    let counts = join_all((0..200).map(|_| served())).await;
    let begun = counts.iter().filter(|count| **count == 1).count();
    let cores = std::thread::available_parallelism().unwrap().get();
    // One a core; a few more for those that nobody takes while a slow machine starts the others.
    assert!(begun <= cores + 2, "{begun} instances were begun for 200 requests");
}

// ---- recovery without a timer ----

#[tokio::test]
async fn where_no_timer_calls_recovery_the_traffic_resumes_due_sagas() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = manifest_with(folder.path(), |text| text.replace("recovery = true", "recovery = false"));
    let args = ["--manifest", manifest.to_str().unwrap(), "--set", "recovery_by_traffic=true"];
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    let mut host = Host::start_in(&data, &args);
    let client = host.client().admin().await;
    let placing = {
        let (client, body) = (client.clone(), one_item_by("book", 1250, "sim:delay:1500"));
        tokio::spawn(async move { client.try_place("left-open", &body).await })
    };
    tokio::time::sleep(Duration::from_millis(400)).await;
    host.kill();
    assert!(placing.await.unwrap().is_err());

    let host = Host::start_in(&data, &args);
    let client = host.client().with_token(&client.token);
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let open =
        |data: &Path| orders(data).into_values().filter(|(status, _)| status == "payment_pending").count();
    assert_eq!(open(&data), 1, "nobody has touched it yet");
    client.place("any-other", &one_item("book", 1250)).await;
    let started = Instant::now();
    while open(&data) > 0 {
        assert!(started.elapsed() < Duration::from_secs(10), "the traffic did not resume it");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let ready = client.get(&format!("{}/health/ready", client.order)).await.json();
    assert_eq!((&ready["status"], &ready["details"]["oldest_due_ms"]), (&"ready".into(), &0.into()));
}
