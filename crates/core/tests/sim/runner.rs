//! Runs seeds on all cores and tells how to repeat the first that fails.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::Mutex;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::world::World;

/// Lines of the trace shown without being asked.
const TAIL: usize = 40;

/// A world in which a rule was broken.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    /// Worlds run up to this one.
    pub seeds_run: usize,
    pub found_by: String,
    pub trace: String,
    pub tail: String,
}

impl Failure {
    pub fn of(world: &World, seed: u64, found_by: String) -> Self {
        let trace = world.trace_so_far();
        Self { seed, seeds_run: 1, found_by, trace: trace.tail(usize::MAX), tail: trace.tail(TAIL) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, seeds_run, found_by, tail, .. } = self;
        writeln!(f, "the last lines of seed {seed}:\n{tail}")?;
        writeln!(f, "simulation: seed {seed}, number {seeds_run}, found by {found_by}")?;
        write!(f, "repeat with: LANEKEEPER_SIM_SEED={seed} cargo test --test sim -- --nocapture one_seed")
    }
}

thread_local! {
    static RUNNING: Cell<bool> = const { Cell::new(false) };
    static FOUND_BY: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Keeps what a panic in a world says, instead of printing it.
fn catch_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let usual = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            if RUNNING.get() {
                FOUND_BY.set(panic_text(info));
            } else {
                usual(info);
            }
        }));
    });
}

fn panic_text(info: &PanicHookInfo<'_>) -> String {
    let payload = info.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let message = text.or_else(|| payload.downcast_ref().copied()).unwrap_or("a panic without words");
    match info.location() {
        _ if message.starts_with("judge") || message.starts_with("broker") => message.to_owned(),
        Some(at) => format!("{}:{}: {message}", at.file(), at.line()),
        None => message.to_owned(),
    }
}

/// Runs one world to its end.
pub fn run(seed: u64) -> Result<World, Failure> {
    let mut world = World::new(seed);
    match found_by(|| world.run()) {
        None => Ok(world),
        Some(found_by) => Err(Failure::of(&world, seed, found_by)),
    }
}

/// What found a fault in this world; `None`: nothing did.
pub fn found_by(world: impl FnOnce()) -> Option<String> {
    catch_panics();
    RUNNING.set(true);
    let ended = panic::catch_unwind(AssertUnwindSafe(world));
    RUNNING.set(false);
    ended.is_err().then(|| FOUND_BY.take())
}

/// Runs all seeds, on all cores. The first of the list that fails, if one does.
pub fn run_all(seeds: &[u64]) -> Option<Failure> {
    let (next, first) = (AtomicUsize::new(0), Mutex::new(None::<(usize, Failure)>));
    let work = || loop {
        let index = next.fetch_add(1, Ordering::Relaxed);
        let Some(seed) = seeds.get(index) else { break };
        let Err(failure) = run(*seed) else { continue };
        next.store(seeds.len(), Ordering::Relaxed);
        let mut first = first.lock().expect("no worker panics outside a world");
        if first.as_ref().is_none_or(|(before, _)| index < *before) {
            *first = Some((index, Failure { seeds_run: index + 1, ..failure }));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    first.into_inner().expect("no worker panics outside a world").map(|(_, failure)| failure)
}

pub fn number_from_env(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}
