//! `settle`: the embedded host's command line.

use std::ffi::OsString;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use settle_host::compose::compose;
use settle_host::engine::{self, Source};
use settle_host::{doctor, secrets, up};

/// An order allocates some thousand times; SQLite's go here as well.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Runs an application of WebAssembly components in one process.
#[derive(Parser)]
#[command(name = "settle", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Start the application and serve it until SIGTERM.
    Up(Common),
    /// Say what is missing or wrong, without changing anything.
    Doctor(Common),
    /// Plug components into another one's imports, for a host that lacks what they bring.
    Compose {
        /// The component whose imports are satisfied.
        socket: PathBuf,
        /// Brings some of them; repeat for more.
        #[arg(long = "plug", required = true)]
        plugs: Vec<PathBuf>,
        #[arg(long)]
        out: PathBuf,
    },
    /// What `up` starts for a component that is not in the cache.
    #[command(hide = true)]
    Compile {
        component: PathBuf,
        #[arg(long)]
        name: String,
        #[arg(long = "plug")]
        plugs: Vec<PathBuf>,
        #[arg(long)]
        cache: PathBuf,
    },
    /// `settle NAME` is the program `settle-NAME` beside this one, e.g. `settle sim`.
    #[command(external_subcommand)]
    Beside(Vec<OsString>),
}

#[derive(Args)]
struct Common {
    /// The application.
    #[arg(long, default_value = "spin.toml")]
    manifest: PathBuf,
    /// Databases and secrets; one host at a time.
    #[arg(long, default_value = ".settle")]
    data: PathBuf,
    /// Compiled components; may be shared. Default: settle in the user's cache directory.
    #[arg(long)]
    cache: Option<PathBuf>,
    /// Ports of the manifest (default), or any free ones (0).
    #[arg(long, default_value = "default", value_parser = ["default", "0"])]
    ports: String,
    /// Write the process id and the endpoints there, as JSON, once all is ready.
    #[arg(long)]
    ready_file: Option<PathBuf>,
    /// development (loopback only, seeded users, faults on demand) or production.
    #[arg(long, default_value = "development", value_parser = ["development", "production"])]
    profile: String,
    /// Address to listen on.
    #[arg(long)]
    listen: Option<IpAddr>,
    /// NAME=value lines: variables of the manifest.
    #[arg(long)]
    env_file: Option<PathBuf>,
    /// One variable of the manifest; for secrets use --env-file.
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("must be NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Common {
    fn options(self) -> Result<up::Options> {
        let mut overrides = match &self.env_file {
            Some(file) => secrets::read_env_file(file)?,
            None => Vec::new(),
        };
        overrides.extend(self.set);
        let listen = self.listen.unwrap_or_else(|| up::default_listen(&self.profile));
        Ok(up::Options {
            manifest: self.manifest,
            cache: self.cache.unwrap_or_else(|| default_cache().unwrap_or_else(|| self.data.join("cache"))),
            data: self.data,
            any_ports: self.ports == "0",
            ready_file: self.ready_file,
            profile: self.profile,
            listen,
            overrides,
        })
    }
}

/// `$XDG_CACHE_HOME/settle`, or `~/.cache/settle`.
fn default_cache() -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base = set("XDG_CACHE_HOME").or_else(|| set("HOME").map(|home| home.join(".cache")))?;
    Some(base.join("settle"))
}

fn main() -> ExitCode {
    match start(Cli::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("settle: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a program that lies beside this one, as cargo and git do.
fn beside(words: &[OsString]) -> Result<ExitCode> {
    let (name, args) = words.split_first().context("no command")?;
    let name = format!("settle-{}", name.display());
    let program = std::env::current_exe()?.with_file_name(&name);
    if !program.exists() {
        bail!("there is no such command, and no program {}; see `settle help`", program.display());
    }
    let status = std::process::Command::new(&program).args(args).status().context(name)?;
    Ok(ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)))
}

fn start(command: Command) -> Result<ExitCode> {
    match command {
        Command::Up(common) => {
            let options = common.options()?;
            let runtime = tokio::runtime::Builder::new_multi_thread()
                // Polls between two looks for I/O (tokio's own: 61). Beside guests that compute each takes 10 ms.
                .event_interval(7)
                .enable_all()
                .build()
                .context("starting the runtime")?;
            runtime.block_on(up::run(&options))?;
            // Instances that still wait for a slow caller are ended with the process.
            runtime.shutdown_background();
            Ok(ExitCode::SUCCESS)
        }
        Command::Compose { socket, plugs, out } => {
            let read = |path: &PathBuf| std::fs::read(path).with_context(|| path.display().to_string());
            let plugs = plugs.iter().map(read).collect::<Result<Vec<_>>>()?;
            let composed = compose(&socket.display().to_string(), &read(&socket)?, &plugs)?;
            std::fs::write(&out, composed).with_context(|| out.display().to_string())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Compile { component: path, name, plugs, cache } => {
            engine::compile(&engine::engine()?, &Source { name, path, plugs }, &cache)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Beside(words) => beside(&words),
        Command::Doctor(common) => {
            let healthy = doctor::run(&common.options()?);
            Ok(if healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
    }
}
