//! The rung `loom`.

use std::path::PathBuf;
use std::time::Instant;

use super::exec::Cmd;
use super::{Found, Step, Wishes, kvlog, root, target_dir};
use crate::orderings::{self, Model, mutate};

/// The packages with models, and what their steps are called.
const SUITES: [(&str, &str); 2] = [("annulus", ""), ("annulus-baremetal", "bare metal: ")];

fn loom(cmd: Cmd) -> Cmd {
    let flags = format!("{} --cfg loom", std::env::var("RUSTFLAGS").unwrap_or_default());
    cmd.env("RUSTFLAGS", flags.trim()).env("CARGO_TARGET_DIR", target_dir("loom"))
}

fn test(package: &str) -> Cmd {
    loom(Cmd::cargo(&["test", "-p", package, "--release", "--test", "loom"]))
}

/// Where the models of a package leave what they came by.
fn sites(package: &str) -> PathBuf {
    target_dir("verify").join("sites").join(package)
}

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    if wishes.rest == ["kvlog"] {
        return kvlog::loom_steps();
    }
    let orderings = || Step::check("every atomic operation has a reason and a model", |_| table());
    match wishes.rest.as_slice() {
        [what] if what == "table" => return vec![orderings()],
        [what] if what == "mutants" => return vec![mutations()],
        _ => {}
    }
    let mut steps = Vec::new();
    let whole = wishes.rest.is_empty();
    if whole {
        let lints =
            ["clippy", "-p", "annulus", "--release", "--all-targets", "--", "-D", "warnings"];
        steps.push(Step::command("lints of what is for loom alone", loom(Cmd::cargo(&lints))));
        let users = ["test", "-p", "annulus", "--release", "--test", "model"];
        let users = loom(Cmd::cargo(&users)).show("test result: ok");
        steps.push(Step::command("what `annulus::model` promises to users' models", users));
        steps.extend(kvlog::loom_steps());
    }
    for (package, name) in SUITES {
        let mut run = test(package);
        if whole {
            steps.push(Step::check(format!("{name}a place for what models come by"), move |_| {
                let dir = sites(package);
                // What an earlier run has left there says nothing of this one.
                let _ = std::fs::remove_dir_all(&dir);
                std::fs::create_dir_all(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
                Ok(String::new())
            }));
            run = run.env("ANNULUS_SITES", sites(package));
        } else {
            run = run.args(["--"]).args(&wishes.rest);
        }
        if wishes.deep {
            // The models' own bounds are what they need to catch their faults.
            run = run.env("LOOM_MAX_PREEMPTIONS", "3");
        }
        let run = run.show("model").show("fault").show("caught");
        steps.push(Step::command(
            format!("{name}build with loom"),
            test(package).args(["--no-run"]),
        ));
        steps.push(Step::command(format!("{name}models and seeded faults"), run));
    }
    if whole {
        steps.push(orderings());
        steps.push(mutations());
    }
    steps
}

fn models() -> Result<Vec<Model>, String> {
    let mut all = Vec::new();
    for (suite, (package, _)) in SUITES.iter().enumerate() {
        all.extend(
            orderings::models(suite, &sites(package))
                .map_err(|e| format!("{e}\n  `cargo verify loom` runs them first"))?,
        );
    }
    Ok(all)
}

fn table() -> Found {
    let (text, wrong) = orderings::table(&orderings::sites(&root())?, &models()?);
    match wrong.is_empty() {
        true => Ok(text),
        false => Err(format!("{text}{}\n", wrong.join("\n"))),
    }
}

fn mutations() -> Step {
    Step::check("every ordering weakened, one at a time", |left| {
        let began = Instant::now();
        let suites = SUITES.iter().map(|(package, _)| program(package));
        let suites = suites.collect::<Result<Vec<_>, _>>()?;
        let (sites, models) = (orderings::sites(&root())?, models()?);
        let mutants = mutate::mutants(&sites, &models);
        mutate::run(&mutants, &models, &suites, left.saturating_sub(began.elapsed()))
    })
}

/// The program with a package's models.
fn program(package: &str) -> Result<PathBuf, String> {
    let said = test(package).args(["--no-run", "--message-format=json"]).ask()?;
    let mut path = said.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let loom = message["target"]["name"] == "loom";
        message["executable"].as_str().filter(|_| loom).map(PathBuf::from)
    });
    path.next_back().ok_or_else(|| format!("{package}: cargo does not say where its models are"))
}
