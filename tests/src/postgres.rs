//! A real PostgreSQL server on a free loopback port, with its own data directory; one a test
//! process, stopped with it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

const START_TIME_MAX: Duration = Duration::from_secs(60);
const PASSWORD: &str = "a long random password";

/// Settings of a server that need not survive a crash of the machine.
pub const FAST: [&str; 3] = ["fsync=off", "full_page_writes=off", "max_connections=300"];

/// What the storage tests run on: `SETTLE_TEST_DATABASE` is `sqlite` (the default) or `postgres`.
pub fn chosen() -> bool {
    match std::env::var("SETTLE_TEST_DATABASE").as_deref() {
        Ok("postgres") => true,
        Ok("sqlite") | Err(_) => false,
        Ok(other) => panic!("SETTLE_TEST_DATABASE is `{other}`"),
    }
}

/// Where the server's programs are: on the path, or where Debian puts them.
pub fn program(name: &str) -> PathBuf {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    let found = folders.into_iter().rev().map(|folder| folder.join(name)).find(|path| path.exists());
    found.unwrap_or_else(|| PathBuf::from(name))
}

/// A server with its data directory. Stopped and removed when dropped.
pub struct Server {
    child: Mutex<Child>,
    folder: PathBuf,
    port: u16,
    settings: Vec<String>,
}

impl Server {
    /// A new cluster, with settings like `fsync=off`.
    pub fn start(settings: &[&str]) -> Self {
        let folder = std::env::temp_dir().join(format!("settle-postgres-{}", unique()));
        std::fs::create_dir(&folder).unwrap();
        let password = folder.join("password");
        std::fs::write(&password, PASSWORD).unwrap();
        if is_root() {
            check(Command::new("chown").args(["-R", "postgres:postgres"]).arg(&folder));
        }
        let mut init = as_postgres(&program("initdb"));
        init.arg("--pgdata").arg(folder.join("data")).arg("--pwfile").arg(&password);
        check(init.args([
            "--username=postgres",
            "--auth=scram-sha-256",
            "--no-sync",
            "--no-locale",
            "-E",
            "UTF8",
        ]));
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = settings.iter().map(|setting| (*setting).to_owned()).collect();
        let child = spawn(&folder, port, &settings);
        let server = Self { child: Mutex::new(child), folder, port, settings };
        server.wait();
        server
    }

    /// The administrator's URL of a database.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres:{}@127.0.0.1:{}/{database}", PASSWORD.replace(' ', "%20"), self.port)
    }

    /// The first of its processes.
    pub fn pid(&self) -> u32 {
        self.child.lock().unwrap_or_else(PoisonError::into_inner).id()
    }

    /// A new, empty database; answers its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", unique().replace('-', "_"));
        self.run("postgres", &format!("CREATE DATABASE {name}")).await;
        self.url(&name)
    }

    /// Runs SQL as the administrator.
    pub async fn run(&self, database: &str, sql: &str) {
        client(&self.url(database)).await.batch_execute(sql).await.unwrap();
    }

    /// A start on what `stop` left.
    pub fn restart(&self) {
        let child = spawn(&self.folder, self.port, &self.settings);
        *self.child.lock().unwrap_or_else(PoisonError::into_inner) = child;
        self.wait();
    }

    /// Ends the server. SIGQUIT is the server's own crash: every process exits at once, nothing is
    /// flushed. (A SIGKILL of the first process would let the others finish their statements.)
    pub fn stop(&self, signal: i32) {
        let mut child = self.child.lock().unwrap_or_else(PoisonError::into_inner);
        let pid = libc::pid_t::try_from(child.id()).unwrap();
        #[allow(unsafe_code)]
        // SAFETY: a plain system call, on the id of a child that was not waited for yet.
        unsafe {
            libc::kill(pid, signal);
        }
        let _ = child.wait();
    }

    fn wait(&self) {
        let started = Instant::now();
        let mut ready = Command::new(program("pg_isready"));
        ready.args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()]);
        while !ready.status().unwrap().success() {
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(started.elapsed() < START_TIME_MAX, "PostgreSQL is not ready:\n{}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop(libc::SIGINT);
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The server that the tests of this process share; fast, not durable.
pub fn shared() -> &'static Server {
    static SERVER: LazyLock<Server> = LazyLock::new(|| {
        let server = Server::start(&FAST);
        // Statics are not dropped: stop it when the process ends.
        #[allow(unsafe_code)]
        // SAFETY: registers a function that touches nothing but the static.
        unsafe {
            libc::atexit(stop_shared);
        }
        server
    });
    extern "C" fn stop_shared() {
        let server = LazyLock::force(&SERVER);
        server.stop(libc::SIGINT);
        let _ = std::fs::remove_dir_all(&server.folder);
    }
    &SERVER
}

/// A connection of the administrator.
pub async fn client(url: &str) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

fn unique() -> String {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    format!("{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed))
}

fn check(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// PostgreSQL refuses to run as root: then as Debian's user, and ended with the thread that began it.
fn as_postgres(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.arg("--pdeathsig=INT").arg(program).current_dir("/").stdin(Stdio::null());
    command
}

fn is_root() -> bool {
    #[allow(unsafe_code)]
    // SAFETY: a plain system call without arguments.
    let id = unsafe { libc::geteuid() };
    id == 0
}

/// A thread of its own begins the server and lives as long as the process: the server gets a
/// signal when its beginner's thread ends.
fn spawn(folder: &Path, port: u16, settings: &Vec<String>) -> Child {
    let mut command = as_postgres(&program("postgres"));
    command.arg("-D").arg(folder.join("data"));
    command.args(["-p", &port.to_string(), "-k", "", "-c", "listen_addresses=127.0.0.1"]);
    for setting in settings {
        command.args(["-c", setting]);
    }
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log")).unwrap();
    command.stdout(Stdio::null()).stderr(log);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        sender.send(command.spawn().unwrap()).unwrap();
        loop {
            std::thread::park();
        }
    });
    receiver.recv().unwrap()
}
