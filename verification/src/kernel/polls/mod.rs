//! Programs of polls: waits on pipes, eventfds and files that wake nobody,
//! ready at once, later, or at random moments; removed, changed, multishot.
//!
//! Both sides are held against the same model: what must come is known before
//! it comes, so that a completion that is missing is waited for, and one too
//! many is seen.

mod draw;
mod run;
mod script;

use std::fmt;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::annulus::Annulus;
use super::program::{Mode, Setup};
use super::rng::Rng;
use super::target::Target;
use super::uring::Kernel;
use run::{Outcome, Run};
use script::{Model, Step};

/// A program of polls.
#[derive(Clone, Debug)]
pub struct Program {
    setup: Setup,
    /// The files are registered.
    fixed: bool,
    steps: Vec<Step>,
}

/// What went wrong, and on which side.
#[derive(Clone, Debug)]
pub struct Fault {
    step: usize,
    /// On one line.
    pub what: String,
}

impl Program {
    /// The program of this seed and number; its ring is driven by `mode`.
    pub fn nth(seed: u64, index: u64, mode: Mode) -> Self {
        let mut rng = Rng::nth(seed ^ 0x706f_6c6c, index);
        let setup = Setup {
            mode,
            entries: 16,
            cq_entries: rng.chance(40).then_some(64),
            array: rng.chance(50),
            submit_all: true,
            clamp: false,
            pool: None,
            uapi_layout: rng.chance(30),
            disabled: false,
        };
        let fixed = rng.chance(30);
        let steps = draw::steps(&mut rng, &mut model(&setup, fixed));
        Self { setup, fixed, steps }
    }

    /// Who drives the ring.
    pub fn mode(&self) -> Mode {
        self.setup.mode
    }

    /// Runs it on both sides; what the kernel's completions were, or what is
    /// wrong.
    ///
    /// # Errors
    /// Of the world.
    pub fn compare(
        &self,
        dir: &Path,
        patience: Duration,
        kernel_only: bool,
    ) -> io::Result<Result<Vec<Outcome>, Fault>> {
        let theirs = self.run::<Kernel>(dir, patience)?;
        let ours = match kernel_only {
            true => self.run::<Kernel>(dir, patience)?,
            false => self.run::<Annulus>(dir, patience)?,
        };
        Ok(ours.and(theirs))
    }

    fn run<T: Target>(
        &self,
        dir: &Path,
        patience: Duration,
    ) -> io::Result<Result<Vec<Outcome>, Fault>> {
        let mut run = Run::<T>::new(dir, &self.setup, self.fixed, patience)?;
        let mut model = model(&self.setup, self.fixed);
        let mut outcomes = Vec::new();
        for (i, step) in self.steps.iter().enumerate() {
            // A program that was made smaller need not be determined.
            let Some(expected) = model.step(step) else { return Ok(Ok(outcomes)) };
            match run.step(step, &expected) {
                Ok(more) => outcomes.extend(more),
                Err(what) => {
                    let what = format!("{} at step {i}: {what}", T::NAME);
                    return Ok(Err(Fault { step: i, what }));
                }
            }
        }
        Ok(Ok(outcomes))
    }

    /// A smaller program that goes wrong, too.
    ///
    /// # Errors
    /// Of the world.
    pub fn smaller(&self, dir: &Path, fault: &Fault) -> io::Result<Self> {
        let mut small = self.clone();
        small.steps.truncate(fault.step + 1);
        let mut at = small.steps.len();
        while at > 0 {
            at -= 1;
            let mut next = small.clone();
            next.steps.remove(at);
            if next.compare(dir, Duration::from_millis(200), false)?.is_err() {
                small = next;
            }
        }
        Ok(small)
    }
}

fn model(setup: &Setup, fixed: bool) -> Model {
    let cq = setup.cq_entries.unwrap_or(2 * setup.entries);
    Model::new(cq, fixed, setup.mode == Mode::SqPoll)
}

impl fmt::Display for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let registered = if self.fixed { ", registered files" } else { "" };
        writeln!(f, "polls: {:?}{registered}", self.setup)?;
        for (i, step) in self.steps.iter().enumerate() {
            writeln!(f, "{i:5}  {step:x?}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_determined_and_repeat() {
        for index in 0..300 {
            let made = Program::nth(3, index, Mode::Inline);
            assert_eq!(made.steps, Program::nth(3, index, Mode::Inline).steps);
            let mut model = model(&made.setup, made.fixed);
            assert!(made.steps.iter().all(|step| model.step(step).is_some()), "{made}");
        }
    }
}
