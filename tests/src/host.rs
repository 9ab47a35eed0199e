//! A real `settle` process on free ports with its own data directory.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::Client;

const START_TIME_MAX: Duration = Duration::from_secs(60);

/// The repository's root.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The host binary, built before by `cargo xtask build`.
pub fn binary() -> PathBuf {
    program("settle")
}

/// A program of ours, of the profile that `SETTLE_PROFILE` names (release).
pub fn program(name: &str) -> PathBuf {
    let profile = std::env::var("SETTLE_PROFILE").unwrap_or_else(|_| "release".to_owned());
    let path = target().join(profile).join(name);
    assert!(path.exists(), "{} is missing: run `cargo xtask build`", path.display());
    path
}

/// A component, built before by `cargo xtask build`.
pub fn component(name: &str) -> PathBuf {
    let path = target().join(format!("wasm32-wasip2/component/settle_{name}.wasm"));
    assert!(path.exists(), "{} is missing: run `cargo xtask build`", path.display());
    path
}

/// A manifest with the probe alone.
pub fn probe_manifest(folder: &Path) -> PathBuf {
    let source = component("probe");
    let text = format!(
        "spin_manifest_version = 2
         [application]
         name = \"probe\"
         [application.tool.settle.listeners]
         probe = {{ port = 1, component = \"probe\" }}
         [component.probe]
         source = {source:?}
         allowed_outbound_hosts = [\"http://probe.internal\"]"
    );
    let path = folder.join("probe.toml");
    std::fs::write(&path, text).unwrap();
    path
}

/// The application's manifest with a change, in another folder.
pub fn manifest_with(folder: &Path, change: impl Fn(String) -> String) -> PathBuf {
    let text = std::fs::read_to_string(root().join("spin.toml")).unwrap();
    let prefix = component("order").display().to_string().replace("order.wasm", "");
    let absolute = text.replace("target/wasm32-wasip2/component/settle_", &prefix);
    let path = folder.join("spin.toml");
    std::fs::write(&path, change(absolute)).unwrap();
    path
}

/// The digest of a component's file, in hex.
pub fn digest(name: &str) -> String {
    digest_of(&component(name))
}

pub fn digest_of(file: &Path) -> String {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(std::fs::read(file).unwrap());
    digest.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The compile cache that all tests share.
pub fn cache() -> PathBuf {
    target().join("test-cache")
}

/// The host's command line on this data directory, before it is started.
pub fn command(data: &Path) -> Command {
    command_of(&binary(), data)
}

/// The same of another build; it runs the manifest in its working directory.
pub fn command_of(program: &Path, data: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(root())
        .args(["up", "--ports", "0"])
        .args(["--data".as_ref(), data.as_os_str()])
        .args(["--cache".as_ref(), cache().as_os_str()]);
    command
}

/// Memory of a process by its line in `/proc/PID/status`: `VmRSS` now, `VmHWM` at most.
pub fn memory_megabytes(pid: u32, line: &str) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let value = status.lines().find_map(|text| text.strip_prefix(line)?.strip_prefix(':'))?;
    let kilobytes: f64 = value.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes / 1024.0)
}

/// Tokens as the older system has them: a shared secret, and its names.
pub const OLDER_TOKENS: [&str; 8] = [
    "--set",
    "token_algorithm=HS256",
    "--set",
    "token_secret=0123456789abcdef0123456789abcdef",
    "--set",
    "token_issuer=IdentityService",
    "--set",
    "token_audience=MicroserviceApp",
];

/// A running host. Killed when dropped.
pub struct Host {
    child: Child,
    endpoints: Value,
    pub data: PathBuf,
    /// Removed with the host, when the host made it.
    _own_data: Option<tempfile::TempDir>,
}

impl Host {
    /// A host with an empty data directory of its own.
    pub fn start(args: &[&str]) -> Self {
        let data = tempfile::tempdir().unwrap();
        let mut host = Self::start_in(data.path(), args);
        host._own_data = Some(data);
        host
    }

    /// A host on an existing data directory.
    pub fn start_in(data: &Path, args: &[&str]) -> Self {
        Self::spawn(data, command(data).args(args))
    }

    /// Runs a prepared command and waits until it is ready.
    pub fn spawn(data: &Path, command: &mut Command) -> Self {
        let ready = data.join("ready.json");
        let _ = std::fs::remove_file(&ready);
        let log = std::fs::File::options().create(true).append(true).open(data.join("log")).unwrap();
        command.args(["--ready-file".as_ref(), ready.as_os_str()]);
        command.stdout(Stdio::null()).stderr(log);
        let mut child = command.spawn().unwrap();
        let started = Instant::now();
        let endpoints = loop {
            if let Ok(text) = std::fs::read_to_string(&ready) {
                break serde_json::from_str::<Value>(&text).unwrap()["endpoints"].clone();
            }
            let log = || std::fs::read_to_string(data.join("log")).unwrap_or_default();
            if let Some(status) = child.try_wait().unwrap() {
                panic!("the host ended with {status}:\n{}", log());
            }
            assert!(started.elapsed() < START_TIME_MAX, "the host is not ready:\n{}", log());
            std::thread::sleep(Duration::from_millis(2));
        };
        Self { child, endpoints, data: data.to_owned(), _own_data: None }
    }

    pub fn url(&self, name: &str) -> String {
        self.endpoints[name].as_str().unwrap_or_else(|| panic!("no endpoint {name}")).to_owned()
    }

    pub fn client(&self) -> Client {
        Client::new(self.url("identity"), self.url("order"), self.url("payment"))
    }

    /// All services behind the gateway.
    pub fn edge(&self) -> Client {
        let gateway = self.url("gateway");
        Client::new(gateway.clone(), gateway.clone(), gateway)
    }

    /// A secret that the host made and keeps in its data directory.
    pub fn secret(&self, name: &str) -> String {
        let kept = std::fs::read_to_string(self.data.join("secrets.env")).unwrap();
        let of_name = |line: &str| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned);
        kept.lines().find_map(of_name).unwrap_or_else(|| panic!("no secret {name}"))
    }

    /// The order service's own token, for calls to payment.
    pub async fn service_token(&self) -> String {
        let secret = self.secret("order_client_secret");
        let form =
            format!("grant_type=client_credentials&client_id=order&client_secret={secret}&audience=payment");
        let headers = [("content-type", "application/x-www-form-urlencoded")];
        let url = format!("{}/oauth/token", self.url("identity"));
        let answer = self.client().send(http::Method::POST, &url, &headers, form).await.unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["access_token"].as_str().unwrap().to_owned()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.data.join("log")).unwrap_or_default()
    }

    /// `kill -9`: as a crash of the process.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM, and the exit status once it has drained.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = libc::pid_t::try_from(self.child.id()).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: a plain system call, on the id of a child that was not waited for yet.
        unsafe {
            libc::kill(pid, libc::SIGTERM);
        }
        self.child.wait().unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
