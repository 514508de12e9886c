//! What an image can be asked to do.

mod bench;
mod disk;
mod fat;
mod faults;
mod machine;
mod rings;
mod rules;
mod unplug;

use annulus_unikernel::script::{BAD, GOOD, Line, NAMES, SCENARIO, lines};

use crate::place::free_pages;
use crate::text::Text;
use crate::{println, text};

/// What a scenario says on success, or why it failed.
pub type Outcome = Result<Text, Text>;

/// A scenario, told by its words.
type Scenario = fn(&Line<'_>) -> Outcome;

/// The scenario of that name ([`NAMES`]).
fn named(name: &str) -> Option<Scenario> {
    Some(match name {
        "sleeps" => machine::sleeps,
        "wakes-the-second-core" => machine::wakes_the_second_core,
        "disk-is" => disk::is,
        "verified-io" => disk::verified_io,
        "rules-of-a-disk" => rules::rules,
        "many-rings" => rings::many_rings,
        "failing-medium" => faults::failing_medium,
        "stalled-medium" => faults::stalled_medium,
        "power-cut-workload" => faults::power_cut,
        "hot-unplug" => unplug::hot_unplug,
        "fat" => fat::fat,
        "bench" => bench::bench,
        "fails" => machine::fails,
        _ => return None,
    })
}

/// Runs the scenarios of the command line. Whether there were any and all are
/// good.
pub fn run(command_line: &str) -> bool {
    let (mut run, mut good) = (0, 0);
    for line in lines(command_line) {
        let outcome = match named(line.name()) {
            Some(scenario) => faults::seed(&line).and_then(|()| with_its_pages(scenario, &line)),
            None => Err(text!("there is no scenario of that name")),
        };
        let words = Words(&line);
        match &outcome {
            Ok(said) => println!("{SCENARIO}{words}{GOOD}{said})"),
            Err(why) => println!("{SCENARIO}{words}{BAD}{why}"),
        }
        run += 1;
        good += usize::from(outcome.is_ok());
    }
    if run == 0 {
        println!("the command line names no scenario; these are there:");
        for name in NAMES {
            println!("  {name}");
        }
    }
    run != 0 && good == run
}

/// Runs a scenario, which gives back whatever memory it took.
fn with_its_pages(scenario: Scenario, line: &Line<'_>) -> Outcome {
    let before = free_pages();
    let said = scenario(line)?;
    match before - free_pages() {
        0 => Ok(said),
        lost => Err(text!("{lost} pages were not given back, though: {said}")),
    }
}

/// A scenario's name and words, as they were given.
struct Words<'l, 'a>(&'l Line<'a>);

impl core::fmt::Display for Words<'_, '_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        for (n, word) in self.0.words().enumerate() {
            let gap = if n == 0 { "" } else { " " };
            write!(f, "{gap}{word}")?;
        }
        Ok(())
    }
}

/// The number behind `name=`, or `other`.
pub fn number(line: &Line<'_>, name: &str, other: u64) -> Result<u64, Text> {
    line.number(name, other).map_err(|name| text!("{name} is no number"))
}
