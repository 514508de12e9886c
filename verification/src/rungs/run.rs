//! Runs rungs and tells what came of it.

use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use super::{Found, Rung, Wishes, Work, target_dir};

struct Line {
    rung: &'static str,
    step: String,
    passed: bool,
    time: Duration,
}

/// Runs the rungs, and prints a table and the count.
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
        let verdict = if line.passed { "passed" } else { "FAILED" };
        let seconds = line.time.as_secs_f64();
        println!("{:<8} {:<58} {seconds:>8.1}  {verdict}", line.rung, line.step);
    }
    for (rung, why) in &absent {
        println!("{rung:<8} DID NOT RUN: {why}");
    }
    println!("{:<67} {:>8.1}", "in all", start.elapsed().as_secs_f64());
    let failed = lines.iter().filter(|line| !line.passed).count();
    println!("verify: {} passed, {failed} failed", lines.len() - failed);
    ExitCode::from(u8::from(failed > 0 || !absent.is_empty()))
}

/// Runs a rung.
///
/// # Errors
/// Why it cannot run on this machine; nobody is told that it passed.
fn climb(rung: &Rung, wishes: &Wishes, lines: &mut Vec<Line>) -> Result<(), String> {
    let budget = if wishes.deep { rung.budget.1 } else { rung.budget.0 };
    let budget = budget.mul_f64(wishes.budget_scale);
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
                lines.push(Line { rung: rung.name, step, passed: false, time: start.elapsed() });
                return Ok(());
            }
        }
    }
    let logs = target_dir("verify").join("logs");
    for (n, step) in (rung.steps)(wishes).into_iter().enumerate() {
        let begin = Instant::now();
        let left = budget.saturating_sub(start.elapsed());
        print!("  {:<58}", step.name);
        // The name shall stand there while the step runs.
        let _ = std::io::stdout().flush();
        let log = logs.join(format!("{}-{n:02}.log", rung.name));
        let found = if left.is_zero() {
            Err(format!("not begun: the rung's {:.0} s are over", budget.as_secs_f64()))
        } else {
            carry_out(step.work, &logs, &log, left)
        };
        let time = begin.elapsed();
        let passed = found.is_ok();
        println!("{:>8.1} s  {}", time.as_secs_f64(), if passed { "passed" } else { "FAILED" });
        match found {
            Ok(text) if text.is_empty() => {}
            Ok(text) => println!("{}", text.trim_end()),
            Err(why) => println!("{}", why.trim_end()),
        }
        lines.push(Line { rung: rung.name, step: step.name, passed, time });
    }
    Ok(())
}

fn carry_out(work: Work, logs: &Path, log: &Path, left: Duration) -> Found {
    match work {
        Work::Check(check) => check(left),
        Work::Command(cmd) => {
            std::fs::create_dir_all(logs).map_err(|e| format!("{}: {e}", logs.display()))?;
            cmd.run(log, left)
        }
    }
}
