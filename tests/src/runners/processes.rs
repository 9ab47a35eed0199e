//! A wasmCloud host and what runs beside it, in one folder; all end together.

use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use super::{kill_group, own_group};
use crate::host::target;

/// Most lines that are shown of the logs.
const LINES_MAX: usize = 400;
const HOST_LOG: &str = "host.log";

pub struct Processes {
    pub folder: PathBuf,
    /// They live longer than the host.
    beside: Vec<Child>,
    host: Option<Child>,
    /// Tells, before the host's own log, what went wrong.
    first_log: &'static str,
}

impl Processes {
    pub fn new(folder: &Path, first_log: &'static str) -> Self {
        Self { folder: folder.to_owned(), beside: Vec::new(), host: None, first_log }
    }

    pub fn spawn(&self, command: &mut Command, log: &str) -> Child {
        let log = File::options().create(true).append(true).open(self.folder.join(log)).unwrap();
        command.env("PYTHONPATH", target().join("wasmcloud-tools"));
        command.env("HOME", &self.folder).current_dir(&self.folder);
        command.stdout(log.try_clone().unwrap()).stderr(log);
        own_group(command);
        command.spawn().unwrap()
    }

    pub fn start_beside(&mut self, command: &mut Command, log: &str) {
        let child = self.spawn(command, log);
        self.beside.push(child);
    }

    pub fn start_host(&mut self, command: &mut Command) {
        self.host = Some(self.spawn(command, HOST_LOG));
    }

    pub fn kill_host(&mut self) {
        if let Some(mut host) = self.host.take() {
            kill_group(&host);
            let _ = host.wait();
        }
    }

    /// Until somebody listens on the port.
    pub fn wait_for(&self, port: u16, longest: Duration) {
        let started = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(started.elapsed() < longest, "port {port} stays closed:\n{}", self.logs());
            thread::sleep(Duration::from_millis(50));
        }
    }

    pub fn logs(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.join(name)).unwrap_or_default();
        let log = [self.first_log, HOST_LOG].map(read).concat();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES_MAX)..].join("\n")
    }
}

impl Drop for Processes {
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
