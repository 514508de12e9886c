//! Hours of verified reads and writes, while media fail and stall, and the
//! controller is reset.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use annulus_linux::Stats;
use annulus_linux::nvme::{Nvme, Options};
use serde_json::{Value, json};

use super::traffic::{BYTES, load};
use super::worker::{Done, Load, run};
use super::{Context, WAYS, number, open, ring};
use crate::control::Request;
use crate::epoch::Random;
use crate::leaks::Holding;

/// Rounds after which memory must not grow any more.
const WARM: u64 = 3;
/// The longest round.
const ROUND: Duration = Duration::from_secs(4);
/// A stall that nobody notices but by the time it takes, and one that is longer
/// than the deadline.
const PAUSE: Duration = Duration::from_millis(300);
const STALL: Duration = Duration::from_millis(2500);
const DEADLINE_MS: u32 = 1000;
/// Bytes of the region that has the block which cannot be read.
const AROUND: usize = 128 << 10;

/// What has been done, and what was found to be wrong.
#[derive(Debug, Default)]
struct Soak {
    done: Done,
    rings: u64,
    faults: BTreeMap<&'static str, u64>,
    lost: u64,
    wrong: u64,
    leaked: u64,
    problems: Vec<String>,
}

impl Soak {
    fn fault(&mut self, kind: &'static str, count: u64) {
        if count > 0 {
            *self.faults.entry(kind).or_default() += count;
        }
    }

    fn ring(&mut self, ended: Result<(Done, Stats), String>) {
        self.rings += 1;
        let (done, stats) = match ended {
            Ok(ended) => ended,
            Err(why) => {
                let lost = why.split("lost ").nth(1).and_then(|rest| rest.split(':').next());
                match lost.and_then(|count| count.parse::<u64>().ok()) {
                    Some(count) => self.lost += count,
                    None => self.wrong += 1,
                }
                return self.problems.push(why);
            }
        };
        self.done.operations += done.operations;
        self.done.bytes += done.bytes;
        self.fault("a block that cannot be read", done.unread);
        self.fault("an operation that is late (ETIMEDOUT)", done.late);
        self.fault("an operation that a reset ends (EIO)", done.reset);
        if stats.in_use != 0 || stats.sqes != stats.cqes {
            self.leaked += u64::from(stats.in_use.max(1));
            self.problems.push(format!("nothing is in flight, and {stats:?}"));
        }
    }

    fn is_good(&self) -> bool {
        self.lost + self.wrong + self.leaked == 0
    }
}

/// The rings of a round, each with blocks of its own.
fn loads(nvme: &Nvme, random: &mut Random, bad: u64, time: Duration) -> Result<Vec<Load>, String> {
    let mut loads = Vec::new();
    for (nsid, start, most) in [(1, 0, 32), (1, BYTES / 2, 32), (2, 0, 8)] {
        let depth = [1, 4, 8, most][random.below(4) as usize];
        let mut own = load(nvme, nsid, depth, time, random.next())?;
        own.start = start;
        if nsid == 2 {
            // The first worker's region has it in its middle.
            (own.region, own.longest) = (AROUND, AROUND / 2);
            own.start = bad * 512 - AROUND as u64 / 2;
            own.bad = Some(bad * 512..(bad + 1) * 512);
        }
        loads.push(own);
    }
    Ok(loads)
}

/// One round, with a controller that is opened for it.
fn round(context: &mut Context, n: u64, left: Duration, soak: &mut Soak) -> Result<(), String> {
    let mut random = Random(number(context, "seed", 1)?.wrapping_mul(0x9e37_79b9) ^ n << 32);
    let bad = number(context, "sector", 4096)?;
    let patience = Duration::from_secs(number(context, "patience", 60)?);
    let stall = [None, Some(PAUSE), Some(STALL)][(n % 3) as usize];
    let resets = stall == Some(STALL);
    let mut options = Options::default();
    if resets {
        options.timeout_ms = DEADLINE_MS;
    }
    let nvme = open(context, 0, options)?;
    let time = left.min(ROUND).max(Duration::from_millis(500));
    let threads: Vec<_> = loads(&nvme, &mut random, bad, time)?
        .into_iter()
        .map(|mut load| {
            load.stalls = resets;
            load.patience = Some(patience);
            let (nvme, way) = (nvme.clone(), WAYS[random.below(3) as usize]);
            std::thread::spawn(move || {
                let mut own = ring(&nvme, way, load.depth as u32)?;
                let named = |e| format!("{way}, depth {}: {e}", load.depth);
                match run(&mut own, &load) {
                    Ok(done) => Ok((done, own.stats())),
                    Err(why) => {
                        let why = format!("{}\n{}", named(why), own.dump());
                        // It would wait for what is lost.
                        std::mem::forget(own);
                        Err(why)
                    }
                }
            })
        })
        .collect();
    if let Some(stall) = stall {
        std::thread::sleep(time / 8);
        context.host.ask(Request::Stall("ns0".into()))?;
        std::thread::sleep(stall);
        context.host.ask(Request::Resume("ns0".into()))?;
        soak.fault(if resets { "a stall beyond the deadline" } else { "a stall" }, 1);
    }
    for thread in threads {
        soak.ring(thread.join().map_err(|_| "a ring's thread panicked")?);
    }
    let controller = nvme.controller();
    soak.fault("a reset of the controller", controller.resets().into());
    if controller.leaked_pages() != 0 {
        soak.leaked += 1;
        soak.problems.push(format!("{} pages are leaked", controller.leaked_pages()));
    }
    Ok(())
}

/// Rounds for so long: three rings on the controller, two of them on a namespace
/// that stalls in two rounds of three, one on a namespace with a block that cannot
/// be read. Arguments: `seconds`, `seed`, `first` (round), `sector` (that block, of 512 bytes),
/// `patience` (seconds without a completion after which it is lost). Answers the
/// report as JSON.
pub fn soak(context: &mut Context) -> Result<String, String> {
    let time = Duration::from_secs(number(context, "seconds", 20)?);
    let begun = Instant::now();
    let counted = |e: std::io::Error| format!("/proc: {e}");
    let before = Holding::now().map_err(counted)?;
    let (mut soak, mut warm, mut now) = (Soak::default(), before, before);
    let (mut rounds, first) = (0, number(context, "first", 0)?);
    while soak.is_good() && begun.elapsed() < time {
        round(context, first + rounds, time.saturating_sub(begun.elapsed()), &mut soak)?;
        rounds += 1;
        let leaked;
        (now, leaked) = Holding::settled(|now| {
            if rounds <= WARM {
                warm = warm.most(now);
            }
            // What the first controller makes once stays; nothing else does.
            if rounds == 1 { now } else { warm }
        })
        .map_err(counted)?;
        if soak.is_good() {
            soak.leaked += leaked.len() as u64;
            soak.problems.extend(leaked);
        }
    }
    if !soak.is_good() {
        let Soak { lost, wrong, leaked, problems, .. } = soak;
        let problems = problems.join("\n");
        return Err(format!(
            "round {}: lost {lost}, wrong {wrong}, leaked {leaked}\n{problems}",
            first + rounds - 1
        ));
    }
    let grown = |is: u64, was: u64| is as i64 - was as i64;
    let mut value: Value = json!({
        "seconds": begun.elapsed().as_secs_f64(),
        "rings": soak.rings,
        "operations": soak.done.operations,
        "bytes": soak.done.bytes,
        "faults": soak.faults,
        "lost": 0, "wrong": 0, "leaked": 0,
    });
    if rounds > WARM {
        value["grown"] = json!({
            "resident": grown(now.resident, warm.resident),
            "allocated": grown(now.allocated, warm.allocated),
        });
    }
    Ok(value.to_string())
}
