//! A wasmCloud 1.x lattice: NATS, wadm, one host, and `wadm.yaml` deployed.
//!
//! Its host, wadm and PostgreSQL provider are in no package registry: `SETTLE_LATTICE_TOOLS` names a
//! folder with `wasmcloud`, `wadm` and `sqldb-postgres.par.gz`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::nats::Nats;
use super::processes::Processes;
use super::{SECRETS, free_port, roles};
use crate::host::{root, target};
use crate::postgres::{self, Server};

/// wadm acts on a heartbeat of the host, one in 30 s, and on its absence.
const START_TIME_MAX: Duration = Duration::from_secs(180);
const SERVICES: [&str; 3] = ["identity", "order", "payment"];

/// Processes and what is needed to start the host again.
pub struct Lattice {
    tools: PathBuf,
    processes: Processes,
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
            processes: Processes::new(folder, "wadm.log"),
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

    fn start_beside(&mut self) {
        let mut nats = Command::new(target().join("wasmcloud-tools/bin/nats-server"));
        nats.args(["-a", "127.0.0.1", "-p", &self.nats.to_string(), "-js", "-sd"]);
        self.processes.start_beside(nats.arg(self.processes.folder.join("jetstream")), "nats.log");
        self.processes.wait_for(self.nats, START_TIME_MAX);
        let mut wadm = Command::new(self.tools.join("wadm"));
        wadm.args(["--cleanup-interval", "35", "--nats-server", &format!("127.0.0.1:{}", self.nats)]);
        self.processes.start_beside(&mut wadm, "wadm.log");
    }

    pub fn start_host(&mut self) {
        let mut host = Command::new(self.tools.join("wasmcloud"));
        host.args(["--nats-host", "127.0.0.1", "--nats-port", &self.nats.to_string()]);
        host.args(["--allow-file-load", "--host-seed"]);
        // The same host every time: wadm sees it come back.
        host.arg("SNAAMPU2SL5C3TJ7TNIBMSQUI6VRKXUNVLS5HCHKMK6DVGHXLNVMA7ISYU");
        host.env("WASMCLOUD_EXPERIMENTAL_FEATURES", "builtin-http-server,builtin-http-client");
        self.processes.start_host(&mut host);
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
            assert!(started.elapsed() < START_TIME_MAX, "wadm does not answer:\n{}", self.processes.logs());
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
                assert!(
                    started.elapsed() < START_TIME_MAX,
                    "{service} is not ready:\n{}",
                    self.processes.logs()
                );
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }

    pub fn kill_host(&mut self) {
        self.processes.kill_host();
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
