//! How Annulus is shown to be right: the tool behind `cargo verify`.

mod kernel;
mod rungs;

use std::path::Path;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Runs the rungs that show Annulus to be right, and sets up what they need.
#[derive(Parser)]
#[command(name = "cargo verify", bin_name = "cargo verify", args_conflicts_with_subcommands = true)]
struct Cli {
    /// Rungs to run; all if none is named
    rungs: Vec<String>,
    /// The long version of each
    #[arg(long)]
    deep: bool,
    /// Name the rungs, and those that do not exist yet
    #[arg(long)]
    list: bool,
    /// Every rung's time budget, times this
    #[arg(long, default_value_t = 1.0, value_parser = positive)]
    budget_scale: f64,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Generated programs on the kernel's io_uring and on Annulus
    Programs(kernel::Options),
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value.is_finite() => Ok(value),
        _ => Err("a number above 0, such as 1.5".into()),
    }
}

fn main() -> std::io::Result<ExitCode> {
    let cli = Cli::parse();
    if let Some(Command::Programs(options)) = &cli.command {
        return kernel::main(options);
    }
    if cli.list {
        rungs::list();
        return Ok(ExitCode::SUCCESS);
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .ok_or_else(|| std::io::Error::other("the workspace has no folder"))?
        .to_owned();
    std::env::set_current_dir(&root)?;
    let work = root.join("target/verify");
    let context = rungs::Context { deep: cli.deep, scale: cli.budget_scale, root, work };
    Ok(rungs::run(&cli.rungs, &context))
}
