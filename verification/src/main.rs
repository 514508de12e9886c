//! How Annulus is shown to be right: the tool behind `cargo verify`.

mod kernel;

use clap::Parser;

#[derive(Parser)]
enum Cli {
    #[command(name = "programs", hide = true)]
    Programs(kernel::Options),
}
fn main() -> std::io::Result<std::process::ExitCode> {
    let Cli::Programs(o) = Cli::parse();
    kernel::main(&o)
}
