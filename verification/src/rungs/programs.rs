//! Runs programs in processes of their own: a crash or a hang of one is told
//! of, and ends nothing else.

use std::io::{BufRead, BufReader};
use std::process::Child;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::exec::{self, Cmd};
use crate::kernel::Tally;

/// What came of a process full of programs.
pub enum Outcome {
    /// All the same.
    Same(Value),
    /// A program differed, hung or crashed: which, why, and the report.
    Different { program: Option<u64>, what: String, report: String },
}

/// Waits for a process with programs.
pub fn outcome(mut child: Child, limit: Duration) -> Outcome {
    let start = Instant::now();
    // Read in a thread of its own: the process may stop saying anything.
    let reader = child.stdout.take().map(|out| {
        std::thread::spawn(move || {
            let lines = BufReader::new(out).split(b'\n').map_while(Result::ok);
            lines.map(|line| String::from_utf8_lossy(&line).into_owned()).collect::<Vec<_>>()
        })
    });
    let status = exec::wait(&mut child, limit);
    let mut said = reader.and_then(|reader| reader.join().ok()).unwrap_or_default();
    let last = said.pop().unwrap_or_default();
    let value: Value = serde_json::from_str(&last).unwrap_or(Value::Null);
    match status {
        Ok(Some(status)) if status.success() && value.is_object() => return Outcome::Same(value),
        Ok(Some(_)) if value["what"].is_string() => {
            let what = value["what"].as_str().unwrap_or_default().to_owned();
            let report = said.join("\n");
            return Outcome::Different { program: value["program"].as_u64(), what, report };
        }
        _ => {}
    }
    let what = match status {
        Ok(Some(status)) => format!("the process ended with {status}"),
        Ok(None) => format!("stopped after {:.0} s", start.elapsed().as_secs_f64()),
        Err(e) => e.to_string(),
    };
    said.push(last);
    Outcome::Different { program: None, what, report: said.join("\n") }
}

/// Runs `count` programs in several processes at once.
///
/// # Errors
/// The report of the first that found a difference.
pub fn spread(
    exe: &std::path::Path,
    args: &[String],
    count: u64,
    jobs: u64,
    limit: Duration,
) -> Result<Tally, String> {
    let start = Instant::now();
    let mut children = Vec::new();
    for job in 0..jobs {
        let share = (count + jobs - 1 - job) / jobs;
        let own = [
            "--first",
            &job.to_string(),
            "--stride",
            &jobs.to_string(),
            "--count",
            &share.to_string(),
        ]
        .map(String::from);
        let cmd = Cmd::new(exe, &["programs"]).args(args).args(own);
        children.push(cmd.start().map_err(|e| format!("{}: {e}", cmd.line()))?);
    }
    let mut tally = Tally::default();
    let mut first = None;
    for child in children {
        let left = limit.saturating_sub(start.elapsed());
        match outcome(child, left) {
            Outcome::Same(value) => tally.merge(&value),
            Outcome::Different { program, what, report } => {
                let number = program.map_or(String::new(), |n| format!("program {n}: "));
                first.get_or_insert(format!("{number}{what}\n{report}"));
            }
        }
    }
    match first {
        None => Ok(tally),
        Some(report) => Err(report),
    }
}
