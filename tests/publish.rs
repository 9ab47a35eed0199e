//! What is pushed to a registry is what runs, byte for byte, and the same every time.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use settle_tests::host::{command, component, digest, target};

const SERVICES: [&str; 4] = ["gateway", "identity", "order", "payment"];

/// A registry on a free port. Stopped when dropped.
struct Registry {
    child: Child,
    port: u16,
}

impl Registry {
    fn start(folder: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = folder.join("registry.yml");
        let storage = folder.join("storage");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {storage:?}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n"
        );
        std::fs::write(&config, text).unwrap();
        let mut registry = Command::new("docker-registry");
        registry.arg("serve").arg(config).stdout(Stdio::null()).stderr(Stdio::null());
        let registry = Self { child: registry.spawn().unwrap(), port };
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < Duration::from_secs(30), "the registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn publish(port: u16, tag: &str) -> Result<String, String> {
    let mut publish = Command::new(target().join("release/settle-publish"));
    publish.arg(format!("127.0.0.1:{port}/settle")).arg(tag).args(SERVICES.map(component));
    let output = publish.output().unwrap();
    if output.status.success() {
        Ok(String::from_utf8(output.stdout).unwrap())
    } else {
        Err(String::from_utf8(output.stderr).unwrap())
    }
}

#[test]
fn the_same_components_are_pushed_with_the_same_digests_and_are_the_ones_that_run() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Registry::start(folder.path());
    let first = publish(registry.port, "a").unwrap();
    let again = publish(registry.port, "b").unwrap();
    assert_eq!(first.replace(":a ", ":b "), again);
    let started = folder.path().join("table");
    let data = folder.path().join("data");
    let mut host = command(&data).stdout(std::fs::File::create(&started).unwrap()).spawn().unwrap();
    let table = loop {
        let table = std::fs::read_to_string(&started).unwrap();
        if table.contains("payment_grpc") {
            break table;
        }
        assert!(host.try_wait().unwrap().is_none(), "the host ended");
        std::thread::sleep(Duration::from_millis(20));
    };
    host.kill().unwrap();
    host.wait().unwrap();
    for service in SERVICES {
        let digest = digest(service);
        let pushed = first.lines().find(|line| line.contains(&format!("/{service}:a "))).unwrap();
        assert!(pushed.contains(&format!("sha256:{digest} ")), "{pushed}");
        assert!(table.contains(&format!("{service} sha256:{}", &digest[..12])), "{table}");
    }
}

#[test]
fn a_registry_that_is_away_is_told_clearly() {
    let told = publish(1, "a").unwrap_err();
    assert!(told.contains("check that the registry is reachable"), "{told}");
}
