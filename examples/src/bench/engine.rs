//! What the bench asks of an engine.

use super::pace::Pace;
use super::work::Work;
use crate::error::Failure;

/// What an engine has to do in a round.
#[derive(Debug)]
pub struct Load<'a> {
    /// The file's part; None: operations that do nothing.
    pub work: Option<&'a mut Work>,
    /// Operations in flight at most.
    pub depth: u32,
    /// Operations a submission at most.
    pub batch: u32,
    /// Completions to wait for at once.
    pub wait: u32,
    /// Operations that failed, when there is no `work` to count them.
    pub nop_errors: u64,
}

/// Something that carries operations out.
///
/// Called once a round: what is inside is compiled for each engine and each kind of work on its
/// own.
pub trait Engine {
    /// The name in tables and JSON: annulus, kernel or pread.
    fn name(&self) -> &'static str;
    /// Who drives it: inline, sqpoll or served.
    fn mode(&self) -> &'static str;
    /// How many operations it really keeps in flight and submits at once, asked for these.
    fn shape(&self, depth: u32, batch: u32) -> (u32, u32) {
        (depth, batch)
    }
    /// Runs until `pace` or the work's pass ends, with nothing in flight at the end; returns how
    /// many operations ended.
    ///
    /// # Errors
    /// Only what keeps the engine itself from going on; operations that fail are counted in the
    /// work.
    fn run(&mut self, load: &mut Load<'_>, pace: &mut Pace) -> Result<u64, Failure>;
}
