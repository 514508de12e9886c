//! Register calls by number: the same scripts on this machine's io_uring and on
//! Annulus answer the same and bring the same completions.

mod cancel;
mod clock;
mod eventfd;
mod iopoll;
mod messages;
mod parts;
mod restrict;
mod ring;
mod send_files;
mod tags;

use std::io;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::kernel::{DIFFERENT, select_fault};
use ring::{Kernel, Ours, Ring, Wish};

/// What a script has seen, line by line.
type Seen = Vec<String>;

/// A script: its name, the ring that it is for, and what it does with it.
type Row = (&'static str, Wish, fn(&mut dyn Ring) -> Seen);

/// Every script there is.
fn scripts() -> impl Iterator<Item = Row> {
    [
        cancel::SCRIPTS,
        clock::SCRIPTS,
        eventfd::SCRIPTS,
        messages::SCRIPTS,
        parts::SCRIPTS,
        restrict::SCRIPTS,
        send_files::SCRIPTS,
        tags::SCRIPTS,
    ]
    .concat()
    .into_iter()
}

/// Command line of the scripts.
#[derive(Debug, Args)]
pub struct Options {
    /// Switch on a seeded fault (needs a build with --cfg annulus_faults)
    #[arg(long)]
    fault: Option<String>,
}

/// Runs all scripts, and says what differs; the last line on standard output
/// is JSON for whoever started it.
///
/// # Errors
/// Of the machine: no io_uring, no such fault.
pub fn main(options: &Options) -> io::Result<ExitCode> {
    select_fault(options.fault.as_deref())?;
    let differences = compare()?;
    let Some(first) = differences.first() else {
        println!("{}", json!({}));
        return Ok(ExitCode::SUCCESS);
    };
    for difference in &differences {
        println!("{difference}");
    }
    println!("{}", json!({ "program": 0, "what": first }));
    Ok(ExitCode::from(DIFFERENT))
}

/// The differences between the kernel and Annulus, inline and served.
fn compare() -> io::Result<Vec<String>> {
    let mut differences = Vec::new();
    iopoll::compare(&mut differences)?;
    for (name, wish, run) in scripts() {
        let theirs = run(&mut Kernel::new(wish)?);
        for served in [false, true] {
            let ours = run(&mut Ours::new(wish, served)?);
            let mode = if served { "served" } else { "inline" };
            for (at, (theirs, ours)) in theirs.iter().zip(&ours).enumerate() {
                if theirs != ours {
                    differences.push(format!(
                        "{name}, {mode}, line {at}: the kernel {theirs}, Annulus {ours}"
                    ));
                }
            }
            if theirs.len() != ours.len() {
                differences.push(format!("{name}, {mode}: not as many lines"));
            }
        }
    }
    Ok(differences)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_register_calls_answer_as_the_kernels() {
        let differences = compare().expect("this machine has io_uring");
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}
