//! How each host is started on each database, killed, and started again.

mod lattice;
mod nats;
mod processes;
pub mod wasmcloud;

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt as _};
use lattice::Lattice;
use wasmcloud::WasmCloud;

use crate::client::Client;
use crate::host::{Host, component, digest_of, root, target};
use crate::postgres::{self, Server, program};

const START_TIME_MAX: Duration = Duration::from_secs(60);

/// Secrets of a test: what an operator would generate.
pub const SECRETS: [(&str, &str); 5] = [
    ("token_signing_key", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
    ("order_client_secret", "a-long-shared-secret-of-the-order-service"),
    ("seed_admin_password", "password"),
    ("simulate_fail_product", "fail-me"),
    ("simulate_slow_product", "slow-me"),
];

/// One field of the grid.
pub struct Cell {
    pub host: &'static str,
    pub database: &'static str,
    /// Needs nothing that the project's own set-up does not install: never skipped.
    pub always: bool,
    /// `Err` says what is missing on this machine.
    pub start: fn() -> BoxFuture<'static, Result<Running, String>>,
}

pub const CELLS: &[Cell] = &[
    Cell { host: "embedded", database: "sqlite", always: true, start: || embedded(false).boxed() },
    Cell { host: "embedded", database: "postgres", always: true, start: || embedded(true).boxed() },
    Cell { host: "spin", database: "sqlite", always: false, start: || spin(false).boxed() },
    Cell { host: "spin", database: "postgres", always: false, start: || spin(true).boxed() },
    Cell { host: "wasmcloud1", database: "postgres", always: false, start: || lattice().boxed() },
    Cell { host: "wasmcloud2", database: "postgres", always: true, start: || wasmcloud().boxed() },
];

/// A host at work.
pub struct Running {
    host: Kind,
    token: String,
    /// Kept until the end: data directories.
    _folder: tempfile::TempDir,
}

enum Kind {
    Embedded { host: Host, args: Vec<String>, data: PathBuf },
    Spin(Spin),
    WasmCloud(WasmCloud),
    Lattice(Lattice),
}

impl Running {
    async fn new(host: Kind, folder: tempfile::TempDir) -> Self {
        let mut running = Self { host, token: String::new(), _folder: folder };
        running.token = running.client().admin().await.token;
        running
    }

    /// A client with an administrator's token.
    pub fn client(&self) -> Client {
        let client = match &self.host {
            Kind::Embedded { host, .. } => host.client(),
            Kind::Spin(spin) => {
                let at = |service: &str| format!("http://127.0.0.1:{}/{service}", spin.port);
                Client::new(at("identity"), at("order"), at("payment"))
            }
            Kind::WasmCloud(cloud) => {
                let at = |service: &str| format!("http://{service}.settle.test:{}", cloud.http);
                Client::new(at("identity"), at("order"), at("payment"))
            }
            Kind::Lattice(lattice) => {
                let [identity, order, payment] = lattice.ports.map(|port| format!("http://127.0.0.1:{port}"));
                Client::new(identity, order, payment)
            }
        };
        client.with_token(&self.token)
    }

    /// Where payment answers gRPC, or why it does not.
    pub fn grpc(&self) -> Result<String, String> {
        match &self.host {
            Kind::Embedded { host, .. } => Ok(host.url("payment_grpc")),
            Kind::Spin(spin) => Ok(format!("http://127.0.0.1:{}", spin.port)),
            Kind::WasmCloud(cloud) => Ok(format!("http://payment.settle.test:{}", cloud.http)),
            Kind::Lattice(_) => Err("its HTTP server has no HTTP/2 trailers".to_owned()),
        }
    }

    /// `kill -9`, and a start on the same database.
    pub async fn crash_and_restart(&mut self) {
        tokio::task::block_in_place(|| match &mut self.host {
            Kind::Embedded { host, args, data } => {
                host.kill();
                let args: Vec<&str> = args.iter().map(String::as_str).collect();
                *host = Host::start_in(data, &args);
            }
            Kind::Spin(spin) => {
                spin.kill();
                spin.start();
            }
            Kind::WasmCloud(cloud) => {
                cloud.kill_host();
                cloud.start_host();
            }
            Kind::Lattice(lattice) => {
                lattice.kill_host();
                lattice.start_host();
                lattice.wait_until_ready();
            }
        });
    }

    /// The business components' digests: the same on every host of WASI 0.3; the lattice has an
    /// edition of its own.
    pub fn digests(&self) -> String {
        let file = |name: &str| match &self.host {
            Kind::Lattice(_) => lattice::component(name),
            _ => component(name),
        };
        let short = |name: &str| format!("{name}:{}", &digest_of(&file(name))[..8]);
        ["identity", "order", "payment"].map(short).join(" ")
    }
}

// ---- embedded ----

async fn embedded(on_postgres: bool) -> Result<Running, String> {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().to_owned();
    let mut args = Vec::new();
    if on_postgres {
        let url = postgres::shared().database().await;
        args = vec!["--set".to_owned(), format!("database={url}")];
    }
    let host = {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        tokio::task::block_in_place(|| Host::start_in(&data, &args))
    };
    Ok(Running::new(Kind::Embedded { host, args, data }, folder).await)
}

// ---- wasmCloud 2 ----

async fn wasmcloud() -> Result<Running, String> {
    let folder = tempfile::tempdir().unwrap();
    let cloud = WasmCloud::start(folder.path()).await?;
    Ok(Running::new(Kind::WasmCloud(cloud), folder).await)
}

/// Whether a GET is answered with success.
fn answers(port: u16, path: &str) -> bool {
    use std::io::{Read as _, Write as _};
    let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", port)) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(5)));
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    let mut answer = [0; 12];
    asked.is_ok() && stream.read_exact(&mut answer).is_ok() && answer.ends_with(b" 200")
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

// ---- wasmCloud 1 ----

async fn lattice() -> Result<Running, String> {
    let folder = tempfile::tempdir().unwrap();
    let lattice = Lattice::start(folder.path()).await?;
    Ok(Running::new(Kind::Lattice(lattice), folder).await)
}

// ---- Spin ----

struct Spin {
    program: PathBuf,
    child: Option<Child>,
    port: u16,
    folder: PathBuf,
    variables: Vec<(String, String)>,
    /// Its own: roles belong to a whole server, and other cells' hosts make theirs.
    _server: Option<Server>,
}

async fn spin(on_postgres: bool) -> Result<Running, String> {
    let program = std::env::var_os("SPIN_BIN").map_or_else(|| PathBuf::from("spin"), PathBuf::from);
    if Command::new(&program).arg("--version").output().is_err() {
        return Err("there is no `spin` on the path and SPIN_BIN is not set".to_owned());
    }
    if !target().join("wasm32-wasip2/component/acquirer_simulator_on_spin.wasm").exists() {
        return Err("run `cargo xtask build --for spin` first".to_owned());
    }
    let folder = tempfile::tempdir().unwrap();
    let mut variables: Vec<(String, String)> =
        SECRETS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let server = on_postgres.then(|| Server::start(&postgres::FAST));
    if let Some(server) = &server {
        variables.extend(roles(server).await);
    }
    let port = free_port();
    let folder_path = folder.path().to_owned();
    let mut spin = Spin { program, child: None, port, folder: folder_path, variables, _server: server };
    tokio::task::block_in_place(|| spin.start());
    Ok(Running::new(Kind::Spin(spin), folder).await)
}

/// A database with the roles of `infra/postgres/roles.sql`; answers the variables that name it.
async fn roles(server: &Server) -> Vec<(String, String)> {
    let url = server.database().await;
    let mut psql = Command::new(program("psql"));
    psql.args(["-Xq", "-v", "password=a-role-password", "-f"]).arg(root().join("infra/postgres/roles.sql"));
    let output = psql.arg(&url).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let address = url.split_once('@').unwrap().1;
    let of = |service: &str| {
        let url = format!("postgres://settle_{service}:a-role-password@{address}");
        (format!("database_{service}"), url)
    };
    let mut variables: Vec<_> = ["identity", "order", "payment", "acquirer"].map(of).into();
    let host = address.split_once('/').unwrap().0;
    variables.push(("database_address".to_owned(), format!("postgres://{host}")));
    variables
}

impl Spin {
    fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(self.log()).unwrap();
        let mut command = Command::new(&self.program);
        command
            .arg("up")
            .arg("--from")
            .arg(root().join("spin.toml"))
            .args(["--listen", &format!("127.0.0.1:{}", self.port)])
            .arg("--state-dir")
            .arg(self.folder.join("state"))
            .current_dir(&self.folder)
            .env("SPIN_DATA_DIR", self.folder.join("spin"))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        for (name, value) in &self.variables {
            command.env(format!("SPIN_VARIABLE_{}", name.to_uppercase()), value);
        }
        own_group(&mut command);
        self.child = Some(command.spawn().unwrap());
        self.wait();
    }

    fn wait(&mut self) {
        let started = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            let log = || std::fs::read_to_string(self.log()).unwrap_or_default();
            assert!(
                ended.is_none() && started.elapsed() < START_TIME_MAX,
                "spin does not listen:\n{}",
                log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("spin.log")
    }

    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            kill_group(&child);
            let _ = child.wait();
            // Its trigger dies a moment later.
            while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

impl Drop for Spin {
    fn drop(&mut self) {
        self.kill();
        if std::env::var_os("SETTLE_SHOW_LOGS").is_some() {
            eprintln!("{}", std::fs::read_to_string(self.log()).unwrap_or_default());
        }
    }
}

/// `spin up` starts a process for its trigger: both end together.
fn own_group(command: &mut Command) {
    use std::os::unix::process::CommandExt as _;
    command.process_group(0).stdin(Stdio::null());
}

fn kill_group(child: &Child) {
    let group = -libc::pid_t::try_from(child.id()).unwrap();
    #[allow(unsafe_code)]
    // SAFETY: a plain system call; the group is that of a child that was not waited for yet.
    unsafe {
        libc::kill(group, libc::SIGKILL);
    }
}
