//! The rung `soak`: verified operations with faults for hours, on files of this
//! machine and on an NVMe controller in a guest, side by side.

use std::path::Path;
use std::process::Child;
use std::time::{Duration, Instant};

use annulus::fault::Fault;
use serde_json::Value;

use super::exec::Cmd;
use super::kernel::exe;
use super::programs::{Outcome, outcome};
use super::{Found, Step, Wishes, fault_programs, guest, target_dir};

/// What it is called.
pub const NAME: &str = "soak";

/// Seconds in CI, and with `--deep`, unless it is told how many hours.
const SECONDS: (f64, f64) = (20.0, 3600.0);
/// Seconds in which a seeded fault must show.
const WITHIN: f64 = 20.0;
/// Seconds without a completion, with a seeded fault.
const PATIENCE: &str = "2";

/// Which count of the report a fault must show in.
const FINDS: &[(&str, &[Fault])] = &[
    ("lost", &[Fault::OverflowLosesOne, Fault::GuardNotDisarmed]),
    ("wrong", &[Fault::BufferIndexOffByOne, Fault::LateUserDataLost, Fault::ShortKeepsChain]),
    ("leaked", &[Fault::FallbackLeaked, Fault::CloseForgotten]),
];

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    if !wishes.rest.is_empty() {
        let rest = wishes.rest.clone();
        return vec![Step::check("files, as asked for", move |left| asked(&rest, left))];
    }
    let usual = if wishes.deep { SECONDS.1 } else { SECONDS.0 };
    let seconds = wishes.hours.map_or(usual, |hours| hours * 3600.0);
    // Another one each time, but for CI.
    let seed = if wishes.deep || wishes.hours.is_some() { now() } else { 1 };
    let faults = wishes.hours.is_none();
    let half = guest::soak::Half::new(wishes.budget_scale);
    let mut steps = half.begin(faults);
    let name = format!("{seconds:.0} s on files and in a guest, side by side, seed {seed}");
    let own = half.clone();
    steps.push(Step::check(name, move |left| both(&own, seconds, seed, left)));
    steps.extend(half.end(faults));
    if faults {
        steps.push(Step::check("build with seeded engine faults", fault_programs::build));
        steps.push(Step::check("seeded faults show as lost, wrong and leaked", find));
    }
    steps
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(1, |since| since.as_secs())
}

fn start(exe: &Path, args: &[String]) -> Result<Child, String> {
    // On the disk that is built on: temporary files may be in memory.
    let dir = target_dir("soak");
    std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let cmd = Cmd::new(exe, &["rings", "--dir"]).args([dir]).args(args);
    cmd.start().map_err(|e| format!("{}: {e}", cmd.line()))
}

fn on_files(seconds: f64, seed: u64) -> Result<Child, String> {
    let args = ["--seconds", &seconds.to_string(), "--seed", &seed.to_string()];
    start(&exe()?, &args.map(String::from))
}

/// Both halves at once. If one fails, the other's report is still told.
fn both(half: &guest::soak::Half, seconds: f64, seed: u64, left: Duration) -> Found {
    let begun = Instant::now();
    let files = on_files(seconds, seed)?;
    let (files, guest) = std::thread::scope(|scope| {
        let files = scope.spawn(move || {
            let files = judged(outcome(files, left.saturating_sub(begun.elapsed())));
            // At once: the guest may go on for an hour.
            if let Err(why) = &files {
                println!("\n{why}");
            }
            files
        });
        let guest = half.run(seconds.ceil() as u64, seed, left);
        let files = files.join().unwrap_or_else(|_| Err("waiting for it has panicked".into()));
        (files, guest.map(|value| table("guest", &value)))
    });
    match (files, guest) {
        (Ok(files), Ok(guest)) => Ok(files + &guest),
        (Ok(good), Err(why)) | (Err(why), Ok(good)) => Err(format!("{good}{why}")),
        (Err(files), Err(guest)) => Err(format!("{files}\n{guest}")),
    }
}

/// The report on files, or what was lost, wrong or leaked.
fn judged(outcome: Outcome) -> Found {
    match outcome {
        Outcome::Same(value) => Ok(table("files", &value)),
        Outcome::Different { what, report, .. } => Err(format!("{report}\n{what}")),
    }
}

/// The report of a half.
fn table(half: &str, value: &Value) -> String {
    let number = |name: &str| value[name].as_u64().unwrap_or_default();
    let faults = value["faults"].as_object().into_iter().flatten();
    let faults: Vec<_> = faults.map(|(kind, n)| (kind, n.as_u64().unwrap_or_default())).collect();
    let injected: u64 = faults.iter().map(|(_, n)| n).sum();
    let mut text = format!(
        "    {half}: {:.0} s, {} rings, {} operations, {} MiB read and checked or written\n",
        value["seconds"].as_f64().unwrap_or_default(),
        number("rings"),
        number("operations"),
        number("bytes") >> 20,
    );
    text += &format!(
        "    {half}: injected faults {injected}, lost {}, wrong {}, leaked {}\n",
        number("lost"),
        number("wrong"),
        number("leaked")
    );
    if value["grown"].is_object() {
        text += &format!(
            "    {half}: since the warm-up resident memory has grown by {} KiB, what is allocated by {} bytes\n",
            value["grown"]["resident"].as_i64().unwrap_or_default() / 1024,
            value["grown"]["allocated"]
        );
    }
    for (kind, n) in faults {
        text += &format!("    {n:>10}  {kind}\n");
    }
    text
}

/// With each fault switched on, the count that is its own must not be zero.
fn find(limit: Duration) -> Found {
    let begun = Instant::now();
    let exe = fault_programs::exe();
    let all: Vec<_> =
        FINDS.iter().flat_map(|(count, faults)| faults.iter().map(move |f| (*count, *f))).collect();
    let (mut text, mut missed) = (String::new(), 0);
    for two in all.chunks(2) {
        let started: Vec<_> = two.iter().map(|(_, fault)| with(&exe, *fault)).collect();
        for ((count, fault), child) in two.iter().zip(started) {
            let found = outcome(child?, limit.saturating_sub(begun.elapsed()));
            let line = match found {
                Outcome::Different { what, program: Some(_), .. } if counts(&what, count) => what,
                Outcome::Different { what, report, .. } => {
                    missed += 1;
                    format!("{what}: not {count}\n{report}")
                }
                Outcome::Same(_) => {
                    missed += 1;
                    format!("NOT SEEN in {WITHIN} s")
                }
            };
            text += &format!("    {count:<7} {:<22} {line}\n", fault.name());
        }
    }
    if missed == 0 { Ok(text) } else { Err(text) }
}

/// Whether the text says of a count that it is more than zero.
fn counts(text: &str, count: &str) -> bool {
    let mut words = text.split([' ', ',', ':']).filter(|word| !word.is_empty());
    words.find(|word| *word == count);
    words.next().and_then(|n| n.parse::<u64>().ok()).is_some_and(|n| n > 0)
}

fn with(exe: &Path, fault: Fault) -> Result<Child, String> {
    let within = WITHIN.to_string();
    let args = ["--seconds", &within, "--patience", PATIENCE, "--fault", fault.name()];
    start(exe, &args.map(String::from))
}

/// `cargo verify soak -- --seed N` and the like.
fn asked(rest: &[String], left: Duration) -> Found {
    let exe = fault_programs::exe_for(rest, left)?;
    judged(outcome(start(&exe, rest)?, left))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_from_the_verdict() {
        let what = "round 3: lost 2, wrong 0, leaked 1";
        assert!(counts(what, "lost") && counts(what, "leaked") && !counts(what, "wrong"));
        assert!(!counts("the process ended", "lost"));
    }

    #[test]
    fn the_report_has_every_kind_of_fault() {
        let value = serde_json::json!({
            "seconds": 2.4, "operations": 10, "lost": 0, "wrong": 0, "leaked": 0,
            "faults": {"a bad file (EBADF)": 3, "no room (ENOSPC)": 4},
        });
        let text = table("files", &value);
        assert!(text.contains("injected faults 7, lost 0, wrong 0, leaked 0"), "{text}");
        assert!(text.contains("3  a bad file (EBADF)"), "{text}");
    }
}
