//! The rung `loom`.

use super::exec::Cmd;
use super::{Step, Wishes, kvlog, target_dir};

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let args = |package| ["test", "-p", package, "--release", "--test", "loom"];
    let loom = |cmd: Cmd| {
        let flags = format!("{} --cfg loom", std::env::var("RUSTFLAGS").unwrap_or_default());
        cmd.env("RUSTFLAGS", flags.trim()).env("CARGO_TARGET_DIR", target_dir("loom"))
    };
    if wishes.rest == ["kvlog"] {
        return kvlog::loom_steps();
    }
    let mut steps = Vec::new();
    if wishes.rest.is_empty() {
        let lints =
            ["clippy", "-p", "annulus", "--release", "--all-targets", "--", "-D", "warnings"];
        steps.push(Step::command("lints of what is for loom alone", loom(Cmd::cargo(&lints))));
        let users = ["test", "-p", "annulus", "--release", "--test", "model"];
        let users = loom(Cmd::cargo(&users)).show("test result: ok");
        steps.push(Step::command("what `annulus::model` promises to users' models", users));
        steps.extend(kvlog::loom_steps());
    }
    for (package, name) in [("annulus", ""), ("annulus-baremetal", "bare metal: ")] {
        let build = loom(Cmd::cargo(&args(package)).args(["--no-run"]));
        let mut run = loom(Cmd::cargo(&args(package)));
        if !wishes.rest.is_empty() {
            run = run.args(["--"]).args(&wishes.rest);
        }
        if wishes.deep {
            // The models' own bounds are what they need to catch their faults.
            run = run.env("LOOM_MAX_PREEMPTIONS", "3");
        }
        let run = run.show("model").show("fault").show("caught");
        steps.push(Step::command(format!("{name}build with loom"), build));
        steps.push(Step::command(format!("{name}models and seeded faults"), run));
    }
    steps
}
