//! How Annulus is shown to be right: the tool behind `cargo verify`.

mod calls;
#[cfg(test)]
mod contract;
#[cfg(test)]
mod inventory;
mod kernel;
#[cfg(test)]
mod opcodes;
mod orderings;
#[cfg(test)]
mod pages;
mod rungs;
mod simulate;
mod soak;
mod sources;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use rungs::{RUNGS, Rung, Wishes, run};

/// Shows that Annulus is right, rung by rung
#[derive(Debug, Parser)]
#[command(name = "cargo verify", args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Rungs to run, all of them if none is named (see --list)
    rungs: Vec<String>,
    /// The long version
    #[arg(long)]
    deep: bool,
    /// Say which rungs there are
    #[arg(long)]
    list: bool,
    /// For the rung soak: how many hours it runs
    #[arg(long, value_parser = hours)]
    hours: Option<f64>,
    /// Multiply every time budget by this, for slow machines
    #[arg(long, default_value_t = 1.0, value_parser = scale)]
    budget_scale: f64,
    /// For one rung: `kernel -- --seed N --program K`, `loom -- MODEL` (or kvlog, table, mutants), `simulate -- --seed N`, `fuzz -- TARGET`, `guest -- SCENARIO`, `soak -- --seed N`
    #[arg(last = true)]
    rest: Vec<String>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run programs in this process
    #[command(hide = true)]
    Programs(kernel::Options),
    /// Run the scripts of register calls in this process
    #[command(hide = true)]
    Calls(calls::Options),
    /// Run the simulator in this process
    #[command(hide = true)]
    Seeds(simulate::Options),
    /// Run rings on files in this process
    #[command(hide = true)]
    Rings(soak::Options),
}

fn scale(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(scale) if scale > 0.0 && scale <= 100.0 => Ok(scale),
        _ => Err("a number above 0 and at most 100".into()),
    }
}

fn hours(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(hours) if hours > 0.0 && hours <= 1000.0 => Ok(hours),
        _ => Err("a number of hours above 0 and at most 1000".into()),
    }
}

fn list() {
    for rung in RUNGS {
        let minutes = rung.budget.0.as_secs() / 60;
        println!("{:<8} {} (at most {minutes} min)", rung.name, rung.shows);
    }
}

/// The rungs of these names.
fn chosen(names: &[String]) -> Result<Vec<&'static Rung>, String> {
    if names.is_empty() {
        return Ok(RUNGS.iter().collect());
    }
    let mut rungs = Vec::new();
    for name in names {
        if let Some(rung) = RUNGS.iter().find(|rung| rung.name == name) {
            rungs.push(rung);
        } else {
            let known: Vec<_> = RUNGS.iter().map(|rung| rung.name).collect();
            return Err(format!("there is no rung {name}; there are {}", known.join(", ")));
        }
    }
    Ok(rungs)
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ran = match &cli.command {
        Some(Command::Programs(options)) => Some(kernel::main(options)),
        Some(Command::Calls(options)) => Some(calls::main(options)),
        Some(Command::Seeds(options)) => Some(simulate::main(options)),
        Some(Command::Rings(options)) => Some(soak::main(options)),
        None => None,
    };
    if let Some(ran) = ran {
        return ran.unwrap_or_else(|e| {
            eprintln!("{e}");
            ExitCode::from(2)
        });
    }
    if cli.list {
        list();
        return ExitCode::SUCCESS;
    }
    let rungs = match chosen(&cli.rungs) {
        Ok(rungs) if cli.rest.is_empty() || rungs.len() == 1 => rungs,
        Ok(_) => {
            eprintln!("what stands behind -- is for one rung: name it");
            return ExitCode::from(2);
        }
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::from(2);
        }
    };
    let wishes = Wishes {
        deep: cli.deep,
        budget_scale: cli.budget_scale,
        hours: cli.hours,
        rest: cli.rest,
        ci: std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false"),
    };
    run::all(&rungs, &wishes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_holds_together() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        let cli = Cli::parse_from(["verify", "kernel", "--", "--seed", "4"]);
        assert_eq!((cli.rungs.len(), cli.rest.len()), (1, 2));
        assert!(Cli::parse_from(["verify", "programs", "--count", "3"]).command.is_some());
        let cli = Cli::parse_from(["verify", "soak", "--hours", "0.05"]);
        assert_eq!((cli.rungs.len(), cli.hours), (1, Some(0.05)));
        assert!(Cli::try_parse_from(["verify", "soak", "--hours", "-1"]).is_err());
        for rung in RUNGS {
            assert!(Cli::parse_from(["verify", rung.name]).command.is_none(), "{}", rung.name);
        }
    }

    #[test]
    fn a_rung_that_is_not_there_is_an_error() {
        assert!(chosen(&["gest".into()]).is_err_and(|why| {
            why.contains("test, supply, loom, miri, kernel, simulate, fuzz, tsan, guest, soak")
        }));
        assert!(chosen(&[]).is_ok_and(|rungs| rungs.len() == RUNGS.len()));
    }
}
