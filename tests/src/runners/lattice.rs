//! A wasmCloud 1.x lattice: NATS, wadm, one host, and `wadm.yaml` deployed.
//!
//! Its host, wadm and PostgreSQL provider are in no package registry: `SETTLE_LATTICE_TOOLS` names a
//! folder with `wasmcloud`, `wadm` and `sqldb-postgres.par.gz`.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::nats::Nats;
use super::{SECRETS, free_port, kill_group, own_group, roles};
use crate::host::{root, target};
use crate::postgres::{self, Server};

/// wadm acts on a heartbeat of the host, one in 30 s, and on its absence.
const START_TIME_MAX: Duration = Duration::from_secs(180);
const SERVICES: [&str; 3] = ["identity", "order", "payment"];

/// Processes and what is needed to start the host again.
pub struct Lattice {
    tools: PathBuf,
    folder: PathBuf,
    /// NATS and wadm live longer than the host.
    beside: Vec<Child>,
    host: Option<Child>,
    nats: u16,
    /// Of identity, order and payment.
    pub ports: [u16; 3],
    _server: Server,
}

impl Lattice {
    pub async fn start(folder: &Path) -> Result<Self, String> {
        let tools = std::env::var_os("SETTLE_LATTICE_TOOLS").map(PathBuf::from);
        let tools =
            tools.ok_or("SETTLE_LATTICE_TOOLS is not set (wasmcloud 1.9, wadm, PostgreSQL provider)")?;
        for name in ["wasmcloud", "wadm", "sqldb-postgres.par.gz"] {
            if !tools.join(name).exists() {
                return Err(format!("{} is missing", tools.join(name).display()));
            }
        }
        if !component("order").exists() {
            return Err("run `cargo xtask build --for lattice` first".to_owned());
        }
        let server = Server::start(&postgres::FAST);
        let variables = roles(&server).await;
        let mut lattice = Self {
            tools,
            folder: folder.to_owned(),
            beside: Vec::new(),
            host: None,
            nats: free_port(),
            ports: [free_port(), free_port(), free_port()],
            _server: server,
        };
        tokio::task::block_in_place(|| {
            lattice.start_beside();
            lattice.put_config(&variables);
            lattice.start_host();
            lattice.deploy();
            lattice.wait_until_ready();
        });
        Ok(lattice)
    }

    fn spawn(&self, command: &mut Command, log: &str) -> Child {
        let log = std::fs::File::options().create(true).append(true).open(self.folder.join(log)).unwrap();
        command.env("PYTHONPATH", target().join("wasmcloud-tools"));
        command.env("HOME", &self.folder).current_dir(&self.folder);
        command.stdout(log.try_clone().unwrap()).stderr(log).stdin(Stdio::null());
        own_group(command);
        command.spawn().unwrap()
    }

    fn start_beside(&mut self) {
        let mut nats = Command::new(target().join("wasmcloud-tools/bin/nats-server"));
        nats.args(["-a", "127.0.0.1", "-p", &self.nats.to_string(), "-js", "-sd"]);
        self.beside.push(self.spawn(nats.arg(self.folder.join("jetstream")), "nats.log"));
        self.wait_for(self.nats);
        let mut wadm = Command::new(self.tools.join("wadm"));
        wadm.args(["--cleanup-interval", "35", "--nats-server", &format!("127.0.0.1:{}", self.nats)]);
        self.beside.push(self.spawn(&mut wadm, "wadm.log"));
    }

    fn wait_for(&self, port: u16) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < START_TIME_MAX, "port {port} stays closed:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn start_host(&mut self) {
        let mut host = Command::new(self.tools.join("wasmcloud"));
        host.args(["--nats-host", "127.0.0.1", "--nats-port", &self.nats.to_string()]);
        host.args(["--allow-file-load", "--host-seed"]);
        // The same host every time: wadm sees it come back.
        host.arg("SNAAMPU2SL5C3TJ7TNIBMSQUI6VRKXUNVLS5HCHKMK6DVGHXLNVMA7ISYU");
        host.env("WASMCLOUD_EXPERIMENTAL_FEATURES", "builtin-http-server,builtin-http-client");
        self.host = Some(self.spawn(&mut host, "host.log"));
    }

    /// What an operator puts with `wash config put`.
    fn put_config(&self, variables: &[(String, String)]) {
        let mut secrets: serde_json::Map<String, Value> =
            SECRETS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        // A killed host's components come back after a minute: an order's own deadline is later.
        secrets.insert("order_deadline_seconds".to_owned(), "600".into());
        let mut configs = vec![("settle-secrets".to_owned(), Value::Object(secrets))];
        for service in SERVICES {
            let wanted = format!("database_{service}");
            let url = &variables.iter().find(|(name, _)| *name == wanted).unwrap().1;
            configs.push((format!("settle-database-{service}"), connection(url)));
        }
        let payloads: Vec<_> = configs.iter().map(|(name, value)| (name, value.to_string())).collect();
        let started = Instant::now();
        for (name, payload) in payloads {
            // The bucket is made by the first host: until then, nobody answers.
            let subject = format!("$KV.CONFIGDATA_default.{name}");
            Nats::connect(self.nats).create_bucket("CONFIGDATA_default");
            let answer = Nats::connect(self.nats).request(&subject, payload.as_bytes());
            assert!(answer["seq"].is_u64() && started.elapsed() < START_TIME_MAX, "{name}: {answer}");
        }
    }

    /// `wash app deploy wadm.yaml`, with this place's images and addresses.
    fn deploy(&self) {
        let mut manifest = std::fs::read_to_string(root().join("wadm.yaml")).unwrap();
        let provider = self.tools.join("sqldb-postgres.par.gz").display().to_string();
        let mut replaced = vec![
            ("ghcr.io/wasmcloud/http-server:0.27.0".to_owned(), "wasmcloud+builtin://http-server".to_owned()),
            ("ghcr.io/wasmcloud/http-client:0.13.1".to_owned(), "wasmcloud+builtin://http-client".to_owned()),
            ("ghcr.io/wasmcloud/sqldb-postgres:0.10.0".to_owned(), format!("file://{provider}")),
        ];
        for (number, service) in SERVICES.iter().enumerate() {
            let file = component(service).canonicalize().unwrap();
            let image = format!("registry.example/settle/{service}-lattice:0.1.0");
            replaced.push((image, format!("file://{}", file.display())));
            replaced.push((format!("127.0.0.1:501{number}"), format!("127.0.0.1:{}", self.ports[number])));
        }
        for (from, to) in replaced {
            assert!(manifest.contains(&from), "wadm.yaml has no `{from}`");
            manifest = manifest.replace(&from, &to);
        }
        let started = Instant::now();
        let put = loop {
            // Until wadm listens, NATS says that nobody does.
            let answer = Nats::connect(self.nats).request("wadm.api.default.model.put", manifest.as_bytes());
            if !answer.is_null() {
                break answer;
            }
            assert!(started.elapsed() < START_TIME_MAX, "wadm does not answer:\n{}", self.logs());
            std::thread::sleep(Duration::from_millis(100));
        };
        assert_ne!(put["result"], "error", "{put}");
        let deployed = Nats::connect(self.nats).request("wadm.api.default.model.deploy.settle", b"{}");
        assert_ne!(deployed["result"], "error", "{deployed}");
    }

    /// Ready is what a client sees.
    pub fn wait_until_ready(&self) {
        let started = Instant::now();
        for (service, port) in SERVICES.iter().zip(self.ports) {
            while !super::answers(port, &format!("/{service}/health/ready")) {
                assert!(started.elapsed() < START_TIME_MAX, "{service} is not ready:\n{}", self.logs());
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    pub fn kill_host(&mut self) {
        if let Some(mut host) = self.host.take() {
            kill_group(&host);
            let _ = host.wait();
        }
    }

    fn logs(&self) -> String {
        let read = |name| std::fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let log: String = ["wadm.log", "host.log"].map(read).concat();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(400)..].join("\n")
    }
}

impl Drop for Lattice {
    fn drop(&mut self) {
        self.kill_host();
        for child in &mut self.beside {
            kill_group(child);
            let _ = child.wait();
        }
        if std::env::var_os("SETTLE_SHOW_LOGS").is_some() {
            eprintln!("{}", self.logs());
        }
    }
}

/// The edition for this host.
pub fn component(service: &str) -> PathBuf {
    target().join(format!("wasm32-wasip2/lattice/settle_{service}.wasm"))
}

/// A URL as the PostgreSQL provider wants it: `postgres://user:password@host:port/database`.
fn connection(url: &str) -> Value {
    let (user, at) = url.trim_start_matches("postgres://").split_once('@').unwrap();
    let (user, password) = user.split_once(':').unwrap();
    let (address, database) = at.split_once('/').unwrap();
    let (host, port) = address.split_once(':').unwrap();
    json!({
        "POSTGRES_HOST": host, "POSTGRES_PORT": port, "POSTGRES_DATABASE": database,
        "POSTGRES_USERNAME": user, "POSTGRES_PASSWORD": password,
    })
}
