//! The rung `loom`.

use super::exec::Cmd;
use super::{Step, Wishes, target_dir};

pub fn steps(wishes: &Wishes) -> Vec<Step> {
    let args = ["test", "-p", "annulus", "--release", "--test", "loom"];
    let loom = |cmd: Cmd| {
        let flags = format!("{} --cfg loom", std::env::var("RUSTFLAGS").unwrap_or_default());
        cmd.env("RUSTFLAGS", flags.trim()).env("CARGO_TARGET_DIR", target_dir("loom"))
    };
    let build = loom(Cmd::cargo(&args).args(["--no-run"]));
    let mut run = loom(Cmd::cargo(&args));
    if !wishes.rest.is_empty() {
        run = run.args(["--"]).args(&wishes.rest);
    }
    if wishes.deep {
        // The models' own bounds are what they need to catch their faults.
        run = run.env("LOOM_MAX_PREEMPTIONS", "3");
    }
    vec![
        Step::command("build with loom", build),
        Step::command("models and seeded faults", run.show("model").show("fault").show("caught")),
    ]
}
