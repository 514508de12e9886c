//! What an image can be asked to do.
#![allow(clippy::result_large_err, reason = "there is no heap to put it on")]

mod machine;

use annulus_unikernel::script::{BAD, GOOD, Line, SCENARIO, lines};

use crate::text::Text;
use crate::{println, text};

/// What a scenario says on success, or why it failed.
type Outcome = Result<Text, Text>;

/// A scenario, told by its words.
type Scenario = fn(&Line<'_>) -> Outcome;

/// All there are.
const ALL: &[(&str, Scenario)] = &[
    ("sleeps", machine::sleeps),
    ("wakes-the-second-core", machine::wakes_the_second_core),
    ("fails", machine::fails),
];

/// Runs the scenarios of the command line. Whether there were any and all are
/// good.
pub fn run(command_line: &str) -> bool {
    let (mut run, mut good) = (0, 0);
    for line in lines(command_line) {
        let found = ALL.iter().find(|(name, _)| *name == line.name());
        let outcome = match found {
            Some((_, scenario)) => scenario(&line),
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
        for (name, _) in ALL {
            println!("  {name}");
        }
    }
    run != 0 && good == run
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
