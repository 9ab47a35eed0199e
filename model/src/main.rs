//! `settle model`: every history of one order within stated bounds, over the shipped saga.
//!
//! Breadth first, so that a broken rule is shown by a shortest history. A state is known by a 128-bit
//! hash of its text.

mod world;

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt;
use std::hash::Hasher as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Result, anyhow, bail};
use clap::Parser;
use settle_order_core::FinalStep;
use settle_types::FailureReason;

use world::{Bounds, Broken, PROPERTIES, World};

/// Looks at every history of one order: two owners, lost, late and doubled requests, crashes, power
/// cuts, cancels. Without arguments within four standard bounds, else within the given ones, which
/// say how often each may happen in one history.
#[derive(Parser)]
#[command(name = "settle model", version)]
struct Cli {
    #[arg(long)]
    crashes: Option<u8>,
    #[arg(long)]
    power_cuts: Option<u8>,
    #[arg(long)]
    timeouts: Option<u8>,
    #[arg(long)]
    duplicates: Option<u8>,
    #[arg(long)]
    cancels: Option<u8>,
    #[arg(long)]
    pendings: Option<u8>,
    /// The search ends with an error at so many states.
    #[arg(long, default_value_t = 20_000_000)]
    states_max: usize,
}

const NONE: Bounds =
    Bounds { crashes: 0, power_cuts: 0, timeouts: 0, duplicates: 0, cancels: 0, pendings: 0 };
/// What can be looked at in a minute, with every two of the things that can happen in one of them.
const STANDARD: [Bounds; 4] = [
    Bounds { power_cuts: 1, timeouts: 1, cancels: 1, ..NONE },
    Bounds { power_cuts: 1, duplicates: 1, cancels: 1, pendings: 1, ..NONE },
    Bounds { crashes: 1, timeouts: 1, cancels: 1, pendings: 1, ..NONE },
    Bounds { crashes: 1, power_cuts: 1, duplicates: 1, ..NONE },
];

impl Cli {
    fn bounds(&self) -> Vec<Bounds> {
        let given =
            [self.crashes, self.power_cuts, self.timeouts, self.duplicates, self.cancels, self.pendings];
        if given.iter().all(Option::is_none) {
            return STANDARD.to_vec();
        }
        let [crashes, power_cuts, timeouts, duplicates, cancels, pendings] =
            given.map(Option::unwrap_or_default);
        vec![Bounds { crashes, power_cuts, timeouts, duplicates, cancels, pendings }]
    }
}

fn main() -> ExitCode {
    match start(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("settle model: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(cli: &Cli) -> Result<bool> {
    let final_steps = [FinalStep::Succeeds, FinalStep::Fails(FailureReason::lossy("final step failed"))];
    let cases: Vec<(Bounds, FinalStep)> = cli
        .bounds()
        .into_iter()
        .flat_map(|bounds| final_steps.clone().map(|final_step| (bounds, final_step)))
        .collect();
    let (next, holds) = (AtomicUsize::new(0), AtomicBool::new(true));
    let work = || -> Result<()> {
        while let Some((bounds, final_step)) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            let first = World::new(*bounds, final_step.clone());
            let explored = explore(first.map_err(|broken| anyhow!("{broken}"))?, cli.states_max)?;
            print(bounds, final_step, &explored);
            if explored.broken.is_some() {
                holds.store(false, Ordering::Relaxed);
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| -> Result<()> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().map_err(|_| anyhow!("a search panicked"))?)
    })?;
    let holds = holds.load(Ordering::Relaxed);
    if holds {
        for property in PROPERTIES {
            println!("holds in every state: {property}");
        }
    }
    Ok(holds)
}

fn print(bounds: &Bounds, final_step: &FinalStep, explored: &Explored) {
    let Bounds { crashes, power_cuts, timeouts, duplicates, cancels, pendings } = bounds;
    println!(
        "crashes {crashes}, power cuts {power_cuts}, timeouts {timeouts}, duplicates {duplicates}, cancels \
         {cancels}, pendings {pendings}, final step {}: {} states, {} transitions, depth {}, {} at rest",
        if *final_step == FinalStep::Succeeds { "succeeds" } else { "fails" },
        explored.states,
        explored.transitions,
        explored.depth,
        explored.at_rest
    );
    if let Some((broken, history)) = &explored.broken {
        println!("BROKEN: {broken}\n  {}", history.join("\n  "));
    }
}

/// What was found.
struct Explored {
    states: usize,
    transitions: usize,
    /// Steps of the longest shortest history.
    depth: usize,
    at_rest: usize,
    /// The first rule broken, and a shortest history that does it.
    broken: Option<(Broken, Vec<String>)>,
}

/// How a state was first come to: from which, and by what.
struct Found {
    parent: u32,
    by: String,
    at_rest: bool,
}

fn explore(first: World, states_max: usize) -> Result<Explored> {
    let mut known = HashMap::from([(fingerprint(&first), 0_u32)]);
    let mut found = vec![Found { parent: 0, by: "placed".to_owned(), at_rest: first.is_at_rest() }];
    let mut came_from: Vec<Vec<u32>> = vec![vec![]];
    let mut layer = vec![(0_u32, first)];
    let (mut depth, mut transitions, mut broken) = (0, 0, None);
    'search: while !layer.is_empty() {
        let mut next_layer = Vec::new();
        for (number, world) in std::mem::take(&mut layer) {
            for (by, next) in world.next() {
                transitions += 1;
                let wrong = match &next {
                    Ok(next) => next.broken(),
                    Err(broken) => Some(*broken),
                };
                if let Some(wrong) = wrong {
                    let mut history = history(&found, number);
                    history.push(by);
                    broken = Some((wrong, history));
                    break 'search;
                }
                let Ok(next) = next else { continue };
                let new = u32::try_from(found.len())?;
                let known = *known.entry(fingerprint(&next)).or_insert(new);
                if known == new {
                    found.push(Found { parent: number, by, at_rest: next.is_at_rest() });
                    came_from.push(Vec::new());
                    next_layer.push((new, next));
                }
                if let Some(from) = came_from.get_mut(known as usize) {
                    from.push(number);
                }
                if found.len() > states_max {
                    bail!("more than {states_max} states; use tighter bounds");
                }
            }
        }
        depth += usize::from(!next_layer.is_empty());
        layer = next_layer;
    }
    if broken.is_none()
        && let Some(stuck) = cannot_rest(&found, &came_from)
    {
        broken = Some((PROPERTIES[5], history(&found, stuck)));
    }
    let at_rest = found.iter().filter(|found| found.at_rest).count();
    Ok(Explored { states: found.len(), transitions, depth, at_rest, broken })
}

/// A state from which none is reached in which the order has ended.
fn cannot_rest(found: &[Found], came_from: &[Vec<u32>]) -> Option<u32> {
    let mut can: Vec<bool> = found.iter().map(|found| found.at_rest).collect();
    let mut look: Vec<usize> = (0..can.len()).filter(|number| can.get(*number) == Some(&true)).collect();
    while let Some(number) = look.pop() {
        for from in came_from.get(number).into_iter().flatten() {
            let from = *from as usize;
            if let Some(can) = can.get_mut(from).filter(|can| !**can) {
                *can = true;
                look.push(from);
            }
        }
    }
    can.iter().position(|can| !can).and_then(|number| u32::try_from(number).ok())
}

fn history(found: &[Found], mut number: u32) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(state) = found.get(number as usize) {
        lines.push(state.by.clone());
        if number == 0 {
            break;
        }
        number = state.parent;
    }
    lines.reverse();
    lines
}

/// Hashes what is written into it.
struct Writer([DefaultHasher; 2]);

impl fmt::Write for Writer {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for hasher in &mut self.0 {
            hasher.write(text.as_bytes());
        }
        Ok(())
    }
}

fn fingerprint(world: &World) -> u128 {
    let mut writer = Writer([DefaultHasher::new(), DefaultHasher::new()]);
    writer.0[1].write_u8(1);
    // Writing into a hasher cannot fail.
    let _written = world.write_to(&mut writer);
    (u128::from(writer.0[0].finish()) << 64) | u128::from(writer.0[1].finish())
}
