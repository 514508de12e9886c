//! The guest's only program: process 1, and each scenario.

use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    match (args.next().as_deref(), args.next()) {
        (Some(annulus_guest::init::SCENARIO), Some(name)) => {
            annulus_guest::scenarios::main(&name, args.collect())
        }
        _ if std::process::id() == 1 => annulus_guest::init::main(),
        _ => {
            eprintln!(
                "annulus-guest is started by the kernel of a guest: see `cargo verify guest`"
            );
            ExitCode::from(2)
        }
    }
}
