//! Weakens the atomic operations that the models run, one at a time: a model
//! must fail, or a proof stand in the list why nothing changes.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::{Model, Order, Site, lists};
use crate::rungs::exec::{Cmd, wait};

/// An operation with a part of its ordering left out.
pub struct Mutant<'s> {
    pub site: &'s Site,
    /// What is left, as `annulus::sync::watched` takes it.
    pub how: &'static str,
}

impl Mutant<'_> {
    fn line(&self) -> String {
        let Site { place, function, operation, .. } = self.site;
        format!("{place} {function} {operation}: {}", self.how)
    }
}

/// What there is to leave out of an operation.
fn ways(site: &Site) -> Vec<&'static str> {
    let success = site.orders[0];
    let failure = site.orders.get(1).copied().unwrap_or(Order::Relaxed);
    let mut ways = match (site.operation.as_str(), success) {
        (_, Order::Relaxed) => vec![],
        ("fence", Order::SeqCst) => vec!["relaxed", "acqrel"],
        (_, Order::AcqRel) => vec!["acquire", "release"],
        _ => vec!["relaxed"],
    };
    if failure.has(Order::Acquire) {
        ways.push("failure");
    }
    ways
}

/// The mutants of what the models run.
pub fn mutants<'s>(sites: &'s [Site], models: &[Model]) -> Vec<Mutant<'s>> {
    let run =
        |site: &&Site| site.built && models.iter().any(|model| model.places.contains(&site.place));
    let each = |site: &'s Site| ways(site).into_iter().map(move |how| Mutant { site, how });
    sites.iter().filter(run).flat_map(each).collect()
}

/// What became of a mutant.
enum Fate {
    Caught {
        by: String,
        why: String,
    },
    /// No model failed, and a proof says why.
    Equivalent(&'static str),
    /// No model failed.
    Survived,
    /// A model failed, and the list says that none can.
    Disproved {
        by: String,
    },
    /// There was no time left.
    Untried,
}

/// Tries each mutant.
///
/// # Errors
/// A report with those that survived, whose proof is wrong, or for which there
/// was no time.
pub fn run(
    mutants: &[Mutant<'_>],
    models: &[Model],
    suites: &[PathBuf],
    limit: Duration,
) -> Result<String, String> {
    let began = Instant::now();
    let fates: Vec<Mutex<Fate>> = mutants.iter().map(|_| Mutex::new(Fate::Untried)).collect();
    let next = AtomicUsize::new(0);
    let lanes = std::thread::available_parallelism().map_or(1, |n| n.get());
    std::thread::scope(|scope| {
        for _ in 0..lanes {
            scope.spawn(|| {
                loop {
                    // Relaxed: the scope's end orders what is made of it.
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(mutant) = mutants.get(at) else { return };
                    let left = limit.saturating_sub(began.elapsed());
                    if left.is_zero() {
                        return;
                    }
                    *fates[at].lock().expect("nobody panics") = fate(mutant, models, suites, left);
                }
            });
        }
    });
    let (mut caught, mut equivalent) = (0, 0);
    let (mut text, mut bad) = (String::new(), Vec::new());
    for (mutant, fate) in mutants.iter().zip(fates) {
        let line = mutant.line();
        let said = match fate.into_inner().expect("nobody panicked") {
            Fate::Caught { by, why } => {
                caught += 1;
                format!("caught by {by} ({why})")
            }
            Fate::Equivalent(proof) => {
                equivalent += 1;
                format!("changes nothing: {proof}")
            }
            Fate::Survived => {
                bad.push(format!("{line}: SURVIVED"));
                "SURVIVED".to_owned()
            }
            Fate::Disproved { by } => {
                bad.push(format!("{line}: has a proof that it changes nothing, and {by} fails"));
                format!("DISPROVED by {by}")
            }
            Fate::Untried => {
                bad.push(format!("{line}: not tried, the time was over"));
                "NOT TRIED".to_owned()
            }
        };
        let _ = writeln!(text, "    mutant {line}: {said}");
    }
    let _ = writeln!(
        text,
        "    mutants: {caught} caught, {equivalent} equivalent by a proof, of {}",
        mutants.len()
    );
    match bad.is_empty() {
        true => Ok(text),
        false => Err(format!("{}\n{text}", bad.join("\n"))),
    }
}

/// Runs the models that come by a mutant, the shortest first, until one fails.
fn fate(mutant: &Mutant<'_>, models: &[Model], suites: &[PathBuf], left: Duration) -> Fate {
    let began = Instant::now();
    let proof = lists::equivalent(mutant.site, mutant.how);
    let place = &mutant.site.place;
    let mut concerned: Vec<_> =
        models.iter().filter(|model| model.places.contains(place)).collect();
    concerned.sort_by_key(|model| model.milliseconds);
    for model in concerned {
        let Some(left) = left.checked_sub(began.elapsed()) else { return Fate::Untried };
        let cmd = Cmd::new(&suites[model.suite], &[])
            .env("ANNULUS_MODEL", &model.name)
            .env("ANNULUS_WEAKENED", format!("{place} {}", mutant.how));
        // Weakened, it has more executions, seldom many times as many.
        let most = Duration::from_secs(30) + Duration::from_millis(10 * model.milliseconds);
        let (passed, said) = match ask(&cmd, most.min(left)) {
            Ok(Some(answer)) => answer,
            Ok(None) if most > left => return Fate::Untried,
            Ok(None) => continue,
            Err(why) => (false, why),
        };
        if !passed {
            let by = model.name.clone();
            return match proof {
                Some(_) => Fate::Disproved { by },
                None => Fate::Caught { by, why: said },
            };
        }
    }
    proof.map_or(Fate::Survived, Fate::Equivalent)
}

/// Whether it ends well, and what it says; none if it does not end in time.
fn ask(cmd: &Cmd, limit: Duration) -> Result<Option<(bool, String)>, String> {
    use std::io::Read as _;
    let mut child = cmd.start_quietly().map_err(|e| format!("{}: {e}", cmd.line()))?;
    let Some(status) = wait(&mut child, limit).map_err(|e| e.to_string())? else {
        return Ok(None);
    };
    let mut said = String::new();
    if let Some(mut out) = child.stdout.take() {
        out.read_to_string(&mut said).map_err(|e| e.to_string())?;
    }
    let said = said.trim().split_once(' ').map_or("said nothing", |(_, why)| why).to_owned();
    Ok(Some((status.success(), said)))
}
