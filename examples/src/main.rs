//! The `annulus` program: measures the ring beside the kernel's own, and copies files through it.

mod bench;
mod buffers;
mod cli;
mod copy;
mod demo;
mod error;
mod human;
mod output;
mod stop;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = stop::install() {
        eprintln!("annulus: no clean-up on Ctrl-C, its handler cannot be installed: {error}");
    }
    let done = match cli.command {
        None => demo::run(),
        Some(Command::Bench(args)) => bench::run(&args),
        Some(Command::Copy(args)) => copy::run(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("annulus: {failure}");
            failure.exit_code()
        }
    }
}
