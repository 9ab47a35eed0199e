//! `settle up`: from a manifest to listening services, and back down without losing a request.

use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File, TryLockError};
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use wasmtime::Engine;
use wasmtime::component::{Component as WasmComponent, Linker};

use crate::engine::{self, Compiler, Source};
use crate::guest::{Ctx, Grants};
use crate::http::outbound::{Connections, Local, Network, Outbound};
use crate::http::{PEER_HEADER, inbound, whole};
use crate::limits::Limits;
use crate::manifest::{Component, Manifest};
use crate::service::{Capacity, Service, Services};
use crate::sql::{Backend, Databases};
use crate::world::{Real, World};
use crate::{recovery, secrets};

/// Time that requests in flight have after SIGTERM.
const DRAIN_TIME: Duration = Duration::from_secs(15);
/// A busy guest yields at each tick.
const EPOCH_TICK: Duration = Duration::from_millis(10);

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    pub manifest: PathBuf,
    pub data: PathBuf,
    pub cache: PathBuf,
    /// Let the system choose ports, instead of the manifest's.
    pub any_ports: bool,
    pub ready_file: Option<PathBuf>,
    pub profile: String,
    pub listen: IpAddr,
    /// Values from files and the command line, later ones win.
    pub overrides: Vec<(String, String)>,
}

/// A listener with its name and address.
pub struct Endpoint {
    pub name: String,
    pub component: String,
    pub address: SocketAddr,
    listener: TcpListener,
}

/// A loaded application, not listening yet.
pub struct Application {
    pub services: Services,
    pub digests: BTreeMap<String, String>,
    recovering: Vec<Arc<Service>>,
    _lock: File,
}

/// Starts the application and serves it until SIGTERM or SIGINT.
pub async fn run(options: &Options) -> Result<()> {
    let manifest = Manifest::read(&options.manifest)?;
    let endpoints = bind(&manifest, options).await?;
    let application = load(&manifest, options).await?;
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for endpoint in &application.recovering {
        tasks.spawn(recovery::run(endpoint.clone(), recovery::ROUND_EVERY, stopped.clone()));
    }
    let shown = table(&endpoints, &application, options);
    let ready = ready_json(&endpoints);
    for endpoint in endpoints {
        let service = application.services.get(&endpoint.component).cloned();
        let service = service.ok_or_else(|| anyhow!("component `{}` is not loaded", endpoint.component))?;
        tasks.spawn(inbound::serve(endpoint.listener, service, stopped.clone(), DRAIN_TIME));
    }
    if let Some(file) = &options.ready_file {
        write_whole(file, &ready)?;
    }
    println!("{shown}");
    wait_for_signal().await?;
    eprintln!("settle: draining");
    // Err: no receivers, then there is nothing to stop.
    let _ = stop.send(true);
    tasks.join_all().await;
    eprintln!("settle: stopped");
    Ok(())
}

async fn wait_for_signal() -> Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

/// Takes the ports first: the commonest mistake is told before anything is touched.
async fn bind(manifest: &Manifest, options: &Options) -> Result<Vec<Endpoint>> {
    if options.profile == "development" && !options.listen.is_loopback() {
        bail!("the development profile listens on loopback only; use --profile production with --listen");
    }
    let mut endpoints = Vec::new();
    for (name, wanted) in &manifest.tool().listeners {
        let port = if options.any_ports { 0 } else { wanted.port };
        let address = SocketAddr::new(options.listen, port);
        let listener = TcpListener::bind(address).await.with_context(|| {
            format!("{address} ({name}) cannot be listened on; stop what uses it, or start with --ports 0")
        })?;
        let address = listener.local_addr()?;
        endpoints.push(Endpoint {
            name: name.clone(),
            component: wanted.component.clone(),
            address,
            listener,
        });
    }
    Ok(endpoints)
}

/// Locks the data directory, opens the databases, loads and links the components, and asks each
/// whether it is ready.
pub async fn load(manifest: &Manifest, options: &Options) -> Result<Application> {
    private_dir(&options.data)?;
    private_dir(&options.cache)?;
    let lock = lock(&options.data)?;
    let mut values = values(manifest, options)?;
    let granted = manifest.component.values().flat_map(|component| component.limits().databases.clone());
    let databases = Databases::find(&granted.collect::<Vec<_>>(), &values, &options.data).await?;
    values.insert("database_exclusive".to_owned(), databases.are_exclusive().to_string());
    let engine = engine::engine()?;
    tick(&engine);
    let linker = engine::linker(&engine)?;
    let network = Connections::new();
    let (mut services, mut digests, mut recovering) = (HashMap::new(), BTreeMap::new(), Vec::new());
    for (name, component, loaded) in load_components(manifest, &engine, &options.cache, Compiler::Apart)? {
        digests.insert(name.clone(), loaded.sha256);
        let open = |name: &str| databases.open(name);
        let grants = grants(manifest, component, &values, &open, network.clone(), Arc::new(Real))
            .with_context(|| format!("component `{name}`"))?;
        let service = Arc::new(link(&name, &linker, &loaded.component, grants, component)?);
        if component.limits().recovery {
            recovering.push(service.clone());
        }
        services.insert(name, service);
    }
    let locals = services.iter().map(|(name, service)| (name.clone(), service.clone() as Arc<dyn Local>));
    network.connect(locals.collect());
    for service in services.values() {
        check_ready(service).await?;
    }
    Ok(Application { services, digests, recovering, _lock: lock })
}

/// Compiles or reads all components at once, a thread each.
pub fn load_components<'a>(
    manifest: &'a Manifest,
    engine: &Engine,
    cache: &Path,
    compiler: Compiler,
) -> Result<Vec<(String, &'a Component, engine::Loaded)>> {
    std::thread::scope(|scope| {
        let loading: Vec<_> = manifest
            .component
            .iter()
            .map(|(name, component)| {
                let source = source_of(manifest, name, component);
                (name, component, scope.spawn(move || engine::load(engine, &source, cache, compiler)))
            })
            .collect();
        let loaded = loading.into_iter().map(|(name, component, thread)| {
            let loaded = thread.join().map_err(|_| anyhow!("loading component `{name}` panicked"))??;
            Ok((name.clone(), component, loaded))
        });
        loaded.collect()
    })
}

fn source_of(manifest: &Manifest, name: &str, component: &Component) -> Source {
    Source {
        name: name.to_owned(),
        path: manifest.folder.join(&component.source),
        plugs: component.limits().plugs.iter().map(|path| manifest.folder.join(path)).collect(),
    }
}

pub fn link(
    name: &str,
    linker: &Linker<Ctx>,
    compiled: &WasmComponent,
    grants: Grants,
    component: &Component,
) -> Result<Service> {
    let limits = component.limits();
    let capacity = Capacity { concurrent: limits.concurrent, waiting: limits.waiting };
    Service::new(name, linker, compiled, grants, capacity)
}

/// What the manifest grants to a component, with every template expanded.
pub fn grants(
    manifest: &Manifest,
    component: &Component,
    values: &BTreeMap<String, String>,
    open: &dyn Fn(&str) -> Result<Arc<dyn Backend>>,
    network: Arc<dyn Network>,
    world: Arc<dyn World>,
) -> Result<Grants> {
    let mut settings = HashMap::new();
    for (name, template) in &component.variables {
        settings.insert(name.clone(), manifest.expand(template, values)?);
    }
    let allowed = component.allowed_outbound_hosts.iter().map(|host| manifest.expand(host, values));
    let names = component.limits().databases.iter();
    let opened = names.map(|name| Ok((name.clone(), open(name)?)));
    Ok(Grants {
        databases: Arc::new(opened.collect::<Result<HashMap<_, _>>>()?),
        settings: Arc::new(settings),
        limits: Arc::new(Limits::default()),
        outbound: Outbound::new(network, allowed.collect::<Result<Vec<_>>>()?),
        world,
    })
}

/// Variables: the manifest's, then what this host knows of its own run, then generated secrets,
/// then what the operator set.
fn values(manifest: &Manifest, options: &Options) -> Result<BTreeMap<String, String>> {
    let mut overrides = vec![];
    let known = [
        ("host_run_id", run_id()?),
        ("host_peer_header", PEER_HEADER.to_owned()),
        ("recovery_by_traffic", "false".to_owned()),
    ];
    for (name, value) in known {
        if manifest.variables.contains_key(name) {
            overrides.push((name.to_owned(), value));
        }
    }
    let set = |name: &String| options.overrides.iter().any(|(set, _)| set == name);
    let generated: Vec<String> =
        manifest.tool().generated.iter().filter(|name| !set(name)).cloned().collect();
    overrides.extend(secrets::keep(&options.data.join("secrets.env"), &generated)?);
    overrides.extend(options.overrides.iter().cloned());
    manifest.values(&options.profile, &overrides)
}

/// Names this run of the host: leases of an earlier run are over.
fn run_id() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| anyhow!("no randomness: {error}"))?;
    Ok(engine::hex(&bytes))
}

fn private_dir(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("the directory {} cannot be made", path.display()))
}

/// One host a data directory: two would each think the other dead.
fn lock(data: &Path) -> Result<File> {
    let path = data.join("lock");
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            std::io::Write::write_all(&mut &file, std::process::id().to_string().as_bytes())?;
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            // The pid only helps to find the other host.
            let _ = file.read_to_string(&mut pid);
            bail!(
                "the data directory {} is in use by another host (process {pid}); stop it, or use another --data",
                data.display()
            )
        }
        Err(TryLockError::Error(error)) => Err(error).context("locking the data directory"),
    }
}

fn tick(engine: &Engine) {
    let engine = engine.weak();
    std::thread::spawn(move || {
        while let Some(engine) = engine.upgrade() {
            engine.increment_epoch();
            drop(engine);
            std::thread::sleep(EPOCH_TICK);
        }
    });
}

/// Asks a service's readiness probe, which opens its databases and migrates them.
async fn check_ready(service: &Service) -> Result<()> {
    let request = http::Request::get("http://localhost/health/ready").body(whole(""))?;
    let response = service.call(request).await.map_err(|refusal| {
        anyhow!("component `{}` does not answer its readiness probe: {refusal}", service.name)
    })?;
    if response.status().is_success() {
        return Ok(());
    }
    let body = response.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let parsed: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    let reason = parsed.get("reason").and_then(|reason| reason.as_str()).unwrap_or("no reason given");
    bail!("component `{}` is not ready: {reason}", service.name)
}

fn ready_json(endpoints: &[Endpoint]) -> String {
    let urls: serde_json::Map<String, serde_json::Value> = endpoints
        .iter()
        .map(|endpoint| (endpoint.name.clone(), format!("http://{}", endpoint.address).into()))
        .collect();
    serde_json::json!({ "pid": std::process::id(), "endpoints": urls }).to_string()
}

/// A reader sees the whole file or none.
fn write_whole(file: &Path, text: &str) -> Result<()> {
    let unfinished = file.with_extension("tmp");
    let written = fs::write(&unfinished, text).and_then(|()| fs::rename(&unfinished, file));
    written.with_context(|| format!("writing {}", file.display()))
}

fn table(endpoints: &[Endpoint], application: &Application, options: &Options) -> String {
    let mut lines =
        vec![format!("settle is ready ({} profile, data in {})", options.profile, options.data.display())];
    for endpoint in endpoints {
        let digest = application.digests.get(&endpoint.component).map_or("", String::as_str);
        let short: String = digest.chars().take(12).collect();
        let url = format!("http://{}", endpoint.address);
        lines.push(format!("  {:<13} {url:<29} {} sha256:{short}", endpoint.name, endpoint.component));
    }
    let identity = endpoints.iter().find(|endpoint| endpoint.name == "identity");
    if let (Some(identity), "development") = (identity, options.profile.as_str()) {
        lines.push("try:".to_owned());
        lines.push(format!(
            "  curl -s http://{}/v1/tokens -H 'content-type: application/json' \\\n    -d '{{\"username\":\"admin\",\"password\":\"password\"}}'",
            identity.address
        ));
    }
    lines.join("\n")
}

/// The address that a profile listens on when nobody says otherwise.
pub fn default_listen(profile: &str) -> IpAddr {
    if profile == "production" { Ipv4Addr::UNSPECIFIED.into() } else { Ipv4Addr::LOCALHOST.into() }
}
