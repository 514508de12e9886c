//! The `annulus` program: measures the ring beside the kernel's own, copies through it, and hands
//! NVMe controllers over to it.

mod bench;
mod binding;
mod buffers;
mod cli;
mod copy;
mod demo;
mod device;
mod error;
mod human;
mod info;
mod output;
mod pci;
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
        Some(Command::Info(args)) => info::run(&args),
        Some(Command::Bind(args)) => binding::bind(args.address),
        Some(Command::Unbind(args)) => binding::unbind(args.address),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("annulus: {failure}");
            failure.exit_code()
        }
    }
}
