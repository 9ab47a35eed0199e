//! wasmCloud 2: a `wash host` with its NATS and registry, one workload a service.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::host::target;
use crate::postgres;
use serde_json::{Value, json};

use super::nats::Nats;
use super::processes::Processes;
use super::{SECRETS, free_port};

const START_TIME_MAX: Duration = Duration::from_secs(60);
const SERVICES: [&str; 3] = ["identity", "order", "payment"];

/// Processes and what is needed to start the host again.
pub struct WasmCloud {
    tools: Tools,
    processes: Processes,
    /// Which the host gave itself when it started.
    id: String,
    nats: u16,
    registry: u16,
    pub http: u16,
    postgres: String,
    databases: Vec<String>,
}

struct Tools {
    wash: PathBuf,
    nats: PathBuf,
}

/// Where `cargo xtask conformance` puts what it installs from PyPI, else the path.
fn tools() -> Result<Tools, String> {
    let installed = target().join("wasmcloud-tools/bin");
    let find = |name: &str| {
        let own = installed.join(name);
        let path = if own.exists() { own } else { PathBuf::from(name) };
        let runs =
            Command::new(&path).arg("--version").env("PYTHONPATH", target().join("wasmcloud-tools")).output();
        runs.map_err(|_| format!("`{name}` is not installed")).map(|_| path)
    };
    if Command::new("docker-registry").arg("--version").output().is_err() {
        return Err("`docker-registry` is not installed".to_owned());
    }
    Ok(Tools { wash: find("wash")?, nats: find("nats-server")? })
}

impl WasmCloud {
    pub async fn start(folder: &Path) -> Result<Self, String> {
        let tools = tools()?;
        for service in SERVICES {
            if !component(service).exists() {
                return Err("run `cargo xtask build --for wasmcloud` first".to_owned());
            }
        }
        let server = postgres::shared();
        let mut databases = Vec::new();
        for _ in SERVICES {
            databases.push(server.database().await.rsplit_once('/').unwrap().1.to_owned());
        }
        let url = server.url("").trim_end_matches('/').to_owned();
        let mut cloud = Self {
            tools,
            processes: Processes::new(folder, "push.log"),
            id: String::new(),
            nats: free_port(),
            registry: free_port(),
            http: free_port(),
            postgres: url,
            databases,
        };
        tokio::task::block_in_place(|| {
            cloud.start_beside();
            cloud.push();
            cloud.start_host();
        });
        Ok(cloud)
    }

    fn start_beside(&mut self) {
        let mut nats = Command::new(&self.tools.nats);
        nats.args(["-a", "127.0.0.1", "-p", &self.nats.to_string()]);
        self.processes.start_beside(&mut nats, "nats.log");
        let config = self.processes.folder.join("registry.yml");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {:?}}}}}\nhttp: {{addr: \"127.0.0.1:{}\"}}\n",
            self.processes.folder.join("registry"),
            self.registry
        );
        std::fs::write(&config, text).unwrap();
        let mut registry = Command::new("docker-registry");
        self.processes.start_beside(registry.arg("serve").arg(config), "registry.log");
        for port in [self.nats, self.registry] {
            self.processes.wait_for(port, START_TIME_MAX);
        }
    }

    fn image(&self, service: &str) -> String {
        format!("127.0.0.1:{}/settle/{service}:test", self.registry)
    }

    fn push(&self) {
        for service in SERVICES {
            self.push_image(service, &component(service));
        }
    }

    fn push_image(&self, name: &str, file: &Path) {
        let mut push = Command::new(&self.tools.wash);
        push.args(["oci", "push", "--insecure", &self.image(name)]).arg(file);
        let mut child = self.processes.spawn(&mut push, "push.log");
        assert!(child.wait().unwrap().success(), "push:\n{}", self.processes.logs());
    }

    /// Also serves the component that knows nothing of orders; answers its host name and its name in
    /// process.
    pub fn start_probe(&self) -> (String, String) {
        self.push_image("probe", &crate::host::component("probe"));
        let mut request = self.workload("probe", "");
        let component = &mut request["workload"]["witWorld"];
        component["hostInterfaces"].as_array_mut().unwrap().truncate(1); // no database
        component["components"][0]["localResources"]["allowedHosts"] = json!(["probe.settle.internal"]);
        self.start_workload("probe", &request);
        ("probe.settle.test".to_owned(), "probe.settle.internal".to_owned())
    }

    pub fn start_host(&mut self) {
        let nats = format!("nats://127.0.0.1:{}", self.nats);
        let mut heartbeats = Nats::connect(self.nats);
        heartbeats.subscribe("runtime.operator.heartbeat.>");
        let mut host = Command::new(&self.tools.wash);
        host.args(["host", "--scheduler-nats-url", &nats, "--data-nats-url", &nats]);
        host.args(["--http-addr", &format!("127.0.0.1:{}", self.http), "--http-local-routing"]);
        host.args(["--postgres-url", &self.postgres, "--allow-insecure-registries"]);
        self.processes.start_host(&mut host);
        let (subject, _) = heartbeats
            .next(START_TIME_MAX)
            .unwrap_or_else(|| panic!("no heartbeat:\n{}", self.processes.logs()));
        self.id = subject.rsplit('.').next().unwrap().to_owned();
        for (service, database) in SERVICES.iter().zip(&self.databases) {
            self.start_workload(service, &self.workload(service, database));
        }
        self.processes.wait_for(self.http, START_TIME_MAX);
    }

    fn start_workload(&self, name: &str, request: &Value) {
        let subject = format!("runtime.host.{}.workload.start", self.id);
        let answer = Nats::connect(self.nats).request(&subject, request.to_string().as_bytes());
        let state = &answer["workloadStatus"]["workloadState"];
        assert_eq!(state, "WORKLOAD_STATE_RUNNING", "{name}: {answer}\n{}", self.processes.logs());
    }

    /// A service as a workload: its component, its settings, its database, its host name.
    fn workload(&self, service: &str, database: &str) -> Value {
        // Served in process to its neighbours, and not reachable from outside.
        let near = |service: &str| format!("{service}.settle.internal");
        // gRPC is not routed in process there; it finds payment by the alias that is this machine.
        let payment_url = format!("http://127.0.0.1:{}", self.http);
        let mut http = json!({ "host": format!("{service}.settle.test"), "localRoute": near(service) });
        if service == "payment" {
            http["host-aliases"] = "127.0.0.1".into();
        }
        let mut environment: serde_json::Map<String, Value> =
            SECRETS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        environment.insert("identity_url".into(), format!("http://{}", near("identity")).into());
        environment.insert("payment_url".into(), payment_url.into());
        environment.insert("recovery_by_traffic".into(), "true".into());
        json!({
            "workloadId": format!("{service}-{}", self.http),
            "workload": {
                "namespace": "settle",
                "name": service,
                "witWorld": {
                    "components": [{
                        "name": service,
                        "image": self.image(service),
                        "poolSize": 4,
                        "maxConcurrency": 32,
                        "localResources": {
                            "environment": environment,
                            "allowedHosts": [near("identity"), "127.0.0.1"],
                        },
                    }],
                    "hostInterfaces": [
                        { "namespace": "wasi", "package": "http", "version": "0.3.2", "interfaces": ["handler"],
                          "config": http },
                        { "namespace": "wasmcloud", "package": "postgres", "version": "0.2.0",
                          "interfaces": ["types", "query"], "config": { "database": database } },
                    ],
                },
            },
        })
    }

    pub fn kill_host(&mut self) {
        self.processes.kill_host();
    }
}

/// The business component with the adapter in it.
fn component(service: &str) -> PathBuf {
    target().join(format!("wasm32-wasip2/component/{service}_on_wasmcloud.wasm"))
}
