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
use ring::{Drive, Kernel, Ours, Ring, Wish};

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
    let drives = [Drive::Inline, Drive::Served, Drive::Polled];
    // Who polls comes to rest slowly, and no fault is in that.
    let most = if options.fault.is_some() { 2 } else { drives.len() };
    let differences = compare(&drives[..most])?;
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

/// Whether a polling thread may drive the ring of this script. Messages (files from
/// other rings bring one), full CQs, a batch of which part is waited for, and bells are looked at just
/// after a call: how far such a thread has come by then is its own affair.
fn may_be_polled(name: &str) -> bool {
    let alone = ["restrictions: requests", "tags: a full CQ", "tags: none overtakes"];
    let bells = name.contains("eventfd") && name != "eventfd: arguments";
    let messages = name.starts_with("messages") || name.starts_with("sent files");
    !messages && !bells && !alone.contains(&name)
}

/// The differences between the kernel and Annulus: inline and served against a ring
/// that its application drives, and with a polling thread each.
fn compare(drives: &[Drive]) -> io::Result<Vec<String>> {
    let mut differences = Vec::new();
    iopoll::compare(&mut differences)?;
    for (name, wish, run) in scripts() {
        for &drive in drives {
            if drive == Drive::Polled && !may_be_polled(name) {
                continue;
            }
            let mut theirs = run(&mut Kernel::new(wish, drive)?);
            let mut ours = run(&mut Ours::new(wish, drive)?);
            // On a busy machine a polling thread may be late, the kernel's too: a
            // difference is there each time.
            for _ in 0..if drive == Drive::Polled { AGAIN } else { 0 } {
                if theirs == ours {
                    break;
                }
                theirs = run(&mut Kernel::new(wish, drive)?);
                ours = run(&mut Ours::new(wish, drive)?);
            }
            tell(&format!("{name}, {}", drive.name()), &theirs, &ours, &mut differences);
        }
    }
    Ok(differences)
}

/// How often a script is run again whose polled ring has not done the same.
const AGAIN: usize = 3;

/// The lines of a script that are not the same.
fn tell(name: &str, theirs: &Seen, ours: &Seen, differences: &mut Vec<String>) {
    for (at, (theirs, ours)) in theirs.iter().zip(ours).enumerate() {
        if theirs != ours {
            differences.push(format!("{name}, line {at}: the kernel {theirs}, Annulus {ours}"));
        }
    }
    if theirs.len() != ours.len() {
        differences.push(format!("{name}: not as many lines"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_register_calls_answer_as_the_kernels() {
        // In a process of its own: what others open takes the numbers of descriptors
        // that a script has closed.
        const ALONE: &str = "ANNULUS_SCRIPTS_ALONE";
        if std::env::var_os(ALONE).is_none() {
            let name = "calls::tests::row_register_calls_answer_as_the_kernels";
            let exe = std::env::current_exe().expect("a test");
            let mut alone = std::process::Command::new(exe);
            let ran = alone.args(["--exact", name]).env(ALONE, "1").output().expect("it runs");
            let said = String::from_utf8_lossy(&ran.stdout);
            return assert!(ran.status.success() && said.contains("1 passed"), "{said}");
        }
        // A polling thread is waited for until all threads of a process sleep: those
        // are the rung's.
        let differences =
            compare(&[Drive::Inline, Drive::Served]).expect("this machine has io_uring");
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}
