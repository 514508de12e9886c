//! Runs rungs and tells what came of it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::exec::Cmd;
use super::{Found, Rung, Wishes, Work, soak, target_dir};

struct Line {
    rung: &'static str,
    step: String,
    /// What it found out, or why it failed.
    found: Found,
    time: Duration,
}

impl Line {
    fn verdict(&self) -> &'static str {
        if self.found.is_ok() { "passed" } else { "FAILED" }
    }
}

/// Runs the rungs, and prints a table, what failed, and the count.
pub fn all(rungs: &[&Rung], wishes: &Wishes) -> ExitCode {
    let start = Instant::now();
    let mut lines = Vec::new();
    let mut absent = Vec::new();
    for rung in rungs {
        if let Err(why) = climb(rung, wishes, &mut lines) {
            absent.push((rung.name, why));
        }
    }
    println!("\n{:<8} {:<58} {:>8}", "rung", "step", "seconds");
    for line in &lines {
        let seconds = line.time.as_secs_f64();
        println!("{:<8} {:<58} {seconds:>8.1}  {}", line.rung, line.step, line.verdict());
    }
    for (rung, why) in &absent {
        println!("{rung:<8} DID NOT RUN: {why}");
    }
    println!("{:<67} {:>8.1}", "in all", start.elapsed().as_secs_f64());
    let mut failed = 0;
    for Line { rung, step, found, .. } in &lines {
        // Once more, where one looks first: it may be all that is kept.
        if let Err(why) = found {
            failed += 1;
            println!("FAILED {rung}: {step}\n{}", shortened(why));
        }
    }
    println!("verify: {} passed, {failed} failed", lines.len() - failed);
    ExitCode::from(u8::from(failed > 0 || !absent.is_empty()))
}

/// The first and the last lines of why a step failed.
fn shortened(why: &str) -> String {
    const FIRST: usize = 4;
    const LAST: usize = 40;
    let lines: Vec<_> = why.trim_end().lines().collect();
    if lines.len() <= FIRST + LAST {
        return lines.join("\n");
    }
    let (first, last) = (&lines[..FIRST], &lines[lines.len() - LAST..]);
    format!("{}\n    ...\n{}", first.join("\n"), last.join("\n"))
}

/// Runs a rung.
///
/// # Errors
/// Why it cannot run on this machine; nobody is told that it passed.
fn climb(rung: &Rung, wishes: &Wishes, lines: &mut Vec<Line>) -> Result<(), String> {
    let budget = if wishes.deep { rung.budget.1 } else { rung.budget.0 };
    let budget = budget.mul_f64(wishes.budget_scale);
    let asked = wishes.hours.filter(|_| rung.name == soak::NAME);
    let budget = budget + Duration::from_secs_f64(asked.unwrap_or_default() * 3600.0);
    println!("\n{}: {} (at most {:.0} min)", rung.name, rung.shows, budget.as_secs_f64() / 60.0);
    let start = Instant::now();
    for need in rung.needs {
        match need.meet() {
            Ok(None) => {}
            Ok(Some(did)) => println!("  {did}"),
            Err(why) => {
                println!("  CANNOT RUN HERE: {why}");
                if !wishes.ci {
                    return Err(why);
                }
                let step = "can run on this machine".into();
                let time = start.elapsed();
                lines.push(Line { rung: rung.name, step, found: Err(why), time });
                return Ok(());
            }
        }
    }
    let begun = Begun { rung, start, budget, logs: target_dir("verify").join("logs") };
    let mut steps = (rung.steps)(wishes).into_iter().enumerate().peekable();
    while steps.peek().is_some() {
        let mut group = Vec::new();
        while let Some((n, step)) = steps.next_if(|(_, step)| rung.at_once > 1 && !step.alone) {
            match step.work {
                Work::Command(cmd) => group.push((n, step.name, cmd)),
                Work::Check(_) => unreachable!("a check is alone"),
            }
        }
        lines.extend(begun.side_by_side(group));
        if let Some((n, step)) = steps.next() {
            print!("  {:<58}", step.name);
            // The name shall stand there while the step runs.
            let _ = std::io::stdout().flush();
            let line = begun.step(n, step.name, |left, log| match step.work {
                Work::Check(check) => check(left),
                Work::Command(cmd) => cmd.run(log, left),
            });
            println!("{:>8.1} s  {}", line.time.as_secs_f64(), line.verdict());
            tell(&line);
            lines.push(line);
        }
    }
    Ok(())
}

/// Prints what a step found out.
fn tell(line: &Line) {
    let (Ok(text) | Err(text)) = &line.found;
    if !text.is_empty() {
        println!("{}", text.trim_end());
    }
}

/// A rung under way.
struct Begun<'a> {
    rung: &'a Rung,
    start: Instant,
    budget: Duration,
    logs: PathBuf,
}

impl Begun<'_> {
    /// Carries out a step, the rung's `n`th.
    fn step(&self, n: usize, step: String, work: impl FnOnce(Duration, &Path) -> Found) -> Line {
        let begin = Instant::now();
        let left = self.budget.saturating_sub(self.start.elapsed());
        let log = self.logs.join(format!("{}-{n:02}.log", self.rung.name));
        let found = if left.is_zero() {
            Err(format!("not begun: the rung's {:.0} s are over", self.budget.as_secs_f64()))
        } else {
            std::fs::create_dir_all(&self.logs)
                .map_err(|e| format!("{}: {e}", self.logs.display()))
                .and_then(|()| work(left, &log))
        };
        Line { rung: self.rung.name, step, found, time: begin.elapsed() }
    }

    /// Carries out commands, some at once. Answers in their order.
    fn side_by_side(&self, commands: Vec<(usize, String, Cmd)>) -> Vec<Line> {
        let mut lines = Vec::new();
        let waiting = Mutex::new(commands.into_iter());
        std::thread::scope(|scope| {
            let work = || {
                let mut done = Vec::new();
                loop {
                    // In a line of its own: the lock is not kept meanwhile.
                    let next = waiting.lock().expect("nobody panics here").next();
                    let Some((n, step, cmd)) = next else { return done };
                    let line = self.step(n, step, |left, log| cmd.run(log, left));
                    let seconds = line.time.as_secs_f64();
                    println!("  {:<58}{seconds:>8.1} s  {}", line.step, line.verdict());
                    tell(&line);
                    done.push((n, line));
                }
            };
            let workers: Vec<_> = (0..self.rung.at_once).map(|_| scope.spawn(work)).collect();
            for worker in workers {
                lines.extend(worker.join().expect("a step that fails does not panic"));
            }
        });
        lines.sort_by_key(|(n, _)| *n);
        lines.into_iter().map(|(_, line)| line).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rungs::Step;

    fn steps(_: &Wishes) -> Vec<Step> {
        let meet = |own: &str, other: &str| {
            let script = format!(
                "touch {own}; for i in $(seq 500); do test -e {other} && exit 0; sleep 0.01; done; exit 1"
            );
            Cmd::new("sh", &["-c", &script]).dir(std::env::temp_dir())
        };
        let (a, b) = (format!("a-{}", std::process::id()), format!("b-{}", std::process::id()));
        let tidy = Cmd::new("rm", &[&a, &b]).dir(std::env::temp_dir());
        vec![
            Step::command("first", Cmd::new("true", &[])).alone(),
            Step::command("meets the other", meet(&a, &b)),
            Step::command("meets the one", meet(&b, &a)),
            Step::command("fails", Cmd::new("sh", &["-c", "seq 1 90; exit 1"])),
            Step::command("tidies up", tidy).alone(),
        ]
    }

    #[test]
    fn steps_run_side_by_side_and_their_lines_in_order() {
        let budget = (Duration::from_secs(60), Duration::from_secs(60));
        let rung = Rung { name: "lanes", shows: "", budget, needs: &[], steps, at_once: 2 };
        let wishes =
            Wishes { deep: false, budget_scale: 1.0, hours: None, rest: Vec::new(), ci: true };
        let mut lines = Vec::new();
        climb(&rung, &wishes, &mut lines).expect("it needs nothing");
        let all: Vec<_> = lines.iter().map(|line| (&*line.step, line.found.is_ok())).collect();
        let want = [
            ("first", true),
            ("meets the other", true),
            ("meets the one", true),
            ("fails", false),
            ("tidies up", true),
        ];
        assert_eq!(all, want);
        let Err(why) = &lines[3].found else { panic!("it fails") };
        let short = shortened(why);
        assert!(short.contains("exit status: 1") && short.contains("| 90"), "{short}");
        assert!(!short.contains("| 20\n") && short.lines().count() < 50, "{short}");
    }
}
