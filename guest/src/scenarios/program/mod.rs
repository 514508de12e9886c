//! The program `annulus` on the emulated controller, as a user types it.

mod copies;
mod handover;
mod refusals;
mod runs;

pub use copies::copies;
pub use handover::{hands_over, keeps_what_is_mounted};
pub use refusals::refuses;
pub use runs::{is_interrupted, measures};

use std::process::Command;

use crate::init::ANNULUS;

/// What a run has printed, and how it ended.
#[derive(Debug)]
struct Ran {
    line: String,
    code: Option<i32>,
    out: String,
    err: String,
}

/// Runs `annulus` with these words.
fn annulus(words: &str) -> Result<Ran, String> {
    let output = Command::new(ANNULUS).args(words.split_whitespace()).output();
    let output = output.map_err(|e| format!("{ANNULUS}: {e}"))?;
    let ran = Ran {
        line: format!("annulus {words}"),
        code: output.status.code(),
        out: String::from_utf8_lossy(&output.stdout).into_owned(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    };
    // For whoever reads the console.
    println!("$ {}\n{}{}-> {:?}", ran.line, ran.out, ran.err, ran.code);
    Ok(ran)
}

impl Ran {
    /// It did what was asked for, and said these words.
    fn says(&self, words: &[&str]) -> Result<&Self, String> {
        self.ended(0, &self.out, words)
    }

    /// It refused or failed with this exit code, and said these words.
    fn fails(&self, code: i32, words: &[&str]) -> Result<&Self, String> {
        self.ended(code, &self.err, words)
    }

    fn ended(&self, code: i32, said: &str, words: &[&str]) -> Result<&Self, String> {
        let Self { line, out, err, .. } = self;
        if self.code != Some(code) {
            return Err(format!("`{line}` ended with {:?}, not {code}:\n{out}{err}", self.code));
        }
        match words.iter().find(|words| !said.contains(**words)) {
            None => Ok(self),
            Some(missing) => Err(format!("`{line}` does not say {missing:?}:\n{out}{err}")),
        }
    }
}
