//! Simulated machines: each runs the whole application, dies, and comes back.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};
use wasmtime_wasi_http::{Error, WasiBody};

use super::network::SimNetwork;
use super::storage::{Disk, SimDatabase};
use super::{Call, Fault, Sim, SimWorld, UnderWay, lock};
use crate::engine::{self, Compiler};
use crate::guest::Ctx;
use crate::http::outbound::Local as _;
use crate::manifest::Manifest;
use crate::recovery;
use crate::service::Services;
use crate::sql::Backend;
use crate::sql::postgres::provision::provision;
use crate::up::{grants, link, load_components};
use crate::world::{Fuel, World};

/// Longest time that a machine is down or cut off.
const AWAY_MILLIS_MAX: u64 = 20_000;
const RESTART_MILLIS_MAX: u64 = 1_500;
/// Furthest that a wall clock is off.
const SKEW_MILLIS_MAX: u64 = 30_000;

/// A loaded application; simulations share it.
pub struct Application {
    manifest: Manifest,
    linker: Linker<Ctx>,
    components: BTreeMap<String, Component>,
    counts_fuel: bool,
}

impl Application {
    /// Errors: the manifest or a component cannot be read or compiled.
    pub fn load(manifest: &Path, cache: &Path) -> Result<Self> {
        Self::load_on(&engine::engine()?, false, manifest, cache)
    }

    /// The same, to count what its guests do.
    pub fn load_counting(manifest: &Path, cache: &Path) -> Result<Self> {
        Self::load_on(&engine::counting_engine()?, true, manifest, cache)
    }

    fn load_on(engine: &Engine, counts_fuel: bool, manifest: &Path, cache: &Path) -> Result<Self> {
        let manifest = Manifest::read(manifest)?;
        let linker = engine::linker(engine)?;
        let loaded = load_components(&manifest, engine, cache, Compiler::Here)?;
        let components = loaded.into_iter().map(|(name, _, loaded)| (name, loaded.component)).collect();
        Ok(Self { manifest, linker, components, counts_fuel })
    }

    /// An empty disk for every database that the manifest grants; `sturdy` ones never lose power.
    pub fn disks(&self, sturdy: &[&str]) -> Result<Disks> {
        self.databases()
            .map(|name| Ok((name.clone(), Arc::new(Disk::new(&name, sturdy.contains(&name.as_str()))?))))
            .collect()
    }

    /// The same on a real PostgreSQL server, whose database at `url` is empty; none loses power.
    ///
    /// Errors: as `provision`.
    pub fn disks_on(&self, url: &str) -> Result<Disks> {
        let names: Vec<String> = self.databases().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let urls = runtime.block_on(provision(url, &names))?;
        urls.into_iter()
            .map(|(name, url)| Ok((name.clone(), Arc::new(Disk::on_server(&name, &url)?))))
            .collect()
    }

    fn databases(&self) -> impl Iterator<Item = String> {
        self.manifest.component.values().flat_map(|component| component.limits().databases.clone())
    }
}

/// The world's databases, by name.
pub type Disks = BTreeMap<String, Arc<Disk>>;

/// One life of a machine, from start to crash. What is left of it after the crash has no effect:
/// its host calls never return.
pub struct Life {
    sim: Arc<Sim>,
    pub machine: usize,
    dead: AtomicBool,
    died: Notify,
    /// Asked for by a fault in one of its own calls.
    dying: Arc<Notify>,
}

impl Life {
    /// A host call begins. The machine may die here.
    pub async fn call(&self, call: Call<'_>, what: String) -> UnderWay {
        self.live_on().await;
        let call = self.sim.begin_call(self.machine, what, (self.sim.steps)(&call));
        self.may_die(&call, false).await;
        call
    }

    /// A host call has had its effect, and is not answered yet. The machine may die here.
    pub async fn called(&self, call: &UnderWay) {
        self.may_die(call, true).await;
    }

    async fn may_die(&self, call: &UnderWay, after: bool) {
        if self.sim.is_planned(call.number, after) || self.sim.strikes(Fault::HostCrash) {
            self.sim.took_effect(Fault::HostCrash, call.step);
            self.dying.notify_one();
            self.dead.store(true, Ordering::Relaxed);
        }
        self.live_on().await;
    }

    pub async fn wait(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.live_on().await;
    }

    /// Returns unless this life is over.
    async fn live_on(&self) {
        if self.dead.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }
}

struct Running {
    life: Arc<Life>,
    services: Services,
    recovery: JoinSet<()>,
    stop: watch::Sender<bool>,
}

/// Every machine of a world. Weak: the machines know each other through it.
pub type Machines = Arc<Mutex<Vec<Weak<Machine>>>>;

/// One machine with the whole application.
pub struct Machine {
    pub number: usize,
    sim: Arc<Sim>,
    application: Arc<Application>,
    disks: Disks,
    values: BTreeMap<String, String>,
    world: Arc<SimWorld>,
    all: Machines,
    running: Mutex<Option<Running>>,
    cut_off: AtomicBool,
    dying: Arc<Notify>,
    lives: AtomicU64,
    habits: Habits,
}

/// How a machine behaves.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    /// Guests' log lines go to stderr.
    pub loud: bool,
    /// Time from a crash to the next start; a random one if not given.
    pub downtime: Option<Duration>,
    /// Wait between two rounds of recovery.
    pub recover_every: Duration,
    /// Recovery runs on the first start too, not only after a crash.
    pub recovers_at_once: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self { loud: false, downtime: None, recover_every: recovery::ROUND_EVERY, recovers_at_once: true }
    }
}

impl Machine {
    pub fn new(
        number: usize,
        sim: &Arc<Sim>,
        application: &Arc<Application>,
        disks: &Disks,
        values: &BTreeMap<String, String>,
        all: &Machines,
        habits: Habits,
    ) -> Arc<Self> {
        Arc::new(Self {
            number,
            sim: sim.clone(),
            application: application.clone(),
            disks: disks.clone(),
            values: values.clone(),
            world: Arc::new(SimWorld::new(
                sim.clone(),
                habits.loud,
                application.counts_fuel.then(Fuel::default),
            )),
            all: all.clone(),
            running: Mutex::new(None),
            cut_off: AtomicBool::new(false),
            dying: Arc::new(Notify::new()),
            lives: AtomicU64::new(0),
            habits,
        })
    }

    /// Starts the application.
    pub fn start(self: &Arc<Self>) -> Result<()> {
        let life = Arc::new(Life {
            sim: self.sim.clone(),
            machine: self.number,
            dead: AtomicBool::new(false),
            died: Notify::new(),
            dying: self.dying.clone(),
        });
        let lives = self.lives.fetch_add(1, Ordering::Relaxed);
        let mut values = self.values.clone();
        if self.application.manifest.variables.contains_key("host_run_id") {
            values.insert("host_run_id".to_owned(), format!("machine-{}-life-{lives}", self.number));
        }
        let values =
            self.application.manifest.values("production", &values.into_iter().collect::<Vec<_>>())?;
        let network =
            Arc::new(SimNetwork { sim: self.sim.clone(), life: life.clone(), machines: self.all.clone() });
        let (mut services, mut recovery) = (HashMap::new(), JoinSet::new());
        let (stop, stopped) = watch::channel(false);
        for (name, component) in &self.application.manifest.component {
            let open = |database: &str| -> Result<Arc<dyn Backend>> {
                let disk = self.disks.get(database).context("no such disk")?.clone();
                let database = SimDatabase { sim: self.sim.clone(), disk, life: life.clone() };
                Ok(Arc::new(database))
            };
            let world: Arc<dyn World> = self.world.clone();
            let grants =
                grants(&self.application.manifest, component, &values, &open, network.clone(), world)?;
            let compiled = self.application.components.get(name).context("not loaded")?;
            let service = Arc::new(link(name, &self.application.linker, compiled, grants, component)?);
            if component.limits().recovery && (lives > 0 || self.habits.recovers_at_once) {
                recovery.spawn(recovery::run(service.clone(), self.habits.recover_every, stopped.clone()));
            }
            services.insert(name.clone(), service);
        }
        self.sim.tell(format!("m{} starts", self.number));
        *lock(&self.running) = Some(Running { life, services, recovery, stop });
        Ok(())
    }

    /// What its guests had used up at the start of each request since the last time, by service.
    pub fn fuel(&self) -> BTreeMap<String, Vec<u64>> {
        self.world.fuel().map(Fuel::take).unwrap_or_default()
    }

    /// Starts recovery where it does not run yet.
    pub fn recover(&self) {
        let every = self.habits.recover_every;
        let mut running = lock(&self.running);
        let Some(running) = running.as_mut().filter(|running| running.recovery.is_empty()) else { return };
        for (name, component) in &self.application.manifest.component {
            if let Some(service) = running.services.get(name).filter(|_| component.limits().recovery) {
                running.recovery.spawn(recovery::run(service.clone(), every, running.stop.subscribe()));
            }
        }
    }

    /// Power off. Answers whether it was on.
    pub fn crash(&self) -> bool {
        let Some(mut running) = lock(&self.running).take() else { return false };
        self.sim.tell(format!("m{} dies", self.number));
        running.life.dead.store(true, Ordering::Relaxed);
        running.life.died.notify_waiters();
        running.recovery.abort_all();
        true
    }

    /// Lets things happen to this machine until the simulation ends: it dies and comes back, is cut
    /// off and found again, its clock jumps.
    pub async fn live(self: Arc<Self>) {
        loop {
            tokio::select! {
                biased;
                () = self.dying.notified() => {}
                () = tokio::time::sleep(Duration::from_millis(100)) => {
                    self.weather().await;
                    continue;
                }
            }
            if self.crash() {
                self.come_back().await;
            }
        }
    }

    async fn weather(self: &Arc<Self>) {
        if self.sim.strikes(Fault::AllCrash) {
            self.sim.took_effect_on(Fault::AllCrash, |_| true);
            let machines = lock(&self.all).clone();
            for machine in machines.iter().filter_map(Weak::upgrade) {
                machine.dying.notify_one();
            }
        }
        if self.sim.strikes(Fault::ClockJump) {
            let skew = self.sim.below(2 * SKEW_MILLIS_MAX).cast_signed() - SKEW_MILLIS_MAX.cast_signed();
            self.sim.tell(format!("m{} clock is off by {skew} ms", self.number));
            self.world.set_skew(skew);
            self.sim.took_effect_on(Fault::ClockJump, |machine| machine == self.number);
        }
        if self.sim.strikes(Fault::Partition) {
            self.sim.tell(format!("m{} is cut off", self.number));
            self.cut_off.store(true, Ordering::Relaxed);
            let machine = self.clone();
            let away = self.time_away();
            tokio::spawn(async move {
                tokio::time::sleep(away).await;
                machine.cut_off.store(false, Ordering::Relaxed);
            });
        }
    }

    /// Mostly as long as a restart takes, at times much longer.
    fn time_away(&self) -> Duration {
        let longest = if self.sim.below(8) == 0 { AWAY_MILLIS_MAX } else { RESTART_MILLIS_MAX };
        Duration::from_millis(self.sim.below(longest))
    }

    async fn come_back(self: &Arc<Self>) {
        tokio::time::sleep(self.habits.downtime.unwrap_or_else(|| self.time_away())).await;
        if let Err(error) = self.start() {
            // It started before with the same bytes.
            self.sim.tell(format!("m{} does not start: {error:#}", self.number));
        }
    }

    /// The clock is right again, and nothing is cut off.
    pub fn heal(&self) {
        self.world.set_skew(0);
        self.cut_off.store(false, Ordering::Relaxed);
    }

    pub fn is_cut_off(&self) -> bool {
        self.cut_off.load(Ordering::Relaxed)
    }

    /// Lets a service answer; a machine that is off or dies answers nothing.
    pub async fn answer(
        &self,
        service: &str,
        request: http::Request<WasiBody>,
    ) -> Result<http::Response<WasiBody>, Error> {
        let found = lock(&self.running)
            .as_ref()
            .map(|running| (running.life.clone(), running.services.get(service).cloned()));
        let Some((life, Some(service))) = found else { return Err(Error::ConnectionRefused) };
        tokio::select! {
            biased;
            () = life.died.notified() => Err(Error::ConnectionTerminated),
            answered = service.answer(request) => answered,
        }
    }
}
