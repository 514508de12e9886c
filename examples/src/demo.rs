//! What the program does without a command: a short tour of the bench.

use clap::Parser;

use crate::cli::{Cli, Command};
use crate::error::Failure;
use crate::{bench, output};

const WELCOME: &str = "\
Annulus is io_uring's contract as a library. This tour (about 15 seconds) runs it beside the
kernel's own io_uring and plain system calls: random reads of a temporary file, a verified mix of
reads and writes, and operations that do nothing. It leaves nothing behind. To go on:
`annulus bench --help`, `annulus copy --help` (or `cargo run --release -- bench --help`).
";

/// The benches of the tour; their times, three engines each, keep it well under 20 seconds.
const TOUR: [&str; 3] = [
    "bench --compare --rw randread --time 2",
    "bench --compare --rw randrw --time 0.5 --size 32M --verify",
    "bench --compare --nop --time 1",
];

/// Runs the tour.
///
/// # Errors
/// Those of its benches.
pub fn run() -> Result<(), Failure> {
    output::print(WELCOME);
    for options in TOUR {
        output::print(&format!("\n$ annulus {options}"));
        let cli = Cli::parse_from(std::iter::once("annulus").chain(options.split(' ')));
        if let Some(Command::Bench(args)) = cli.command {
            bench::run(&args)?;
        }
    }
    Ok(())
}
