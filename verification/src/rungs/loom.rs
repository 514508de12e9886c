//! The rung *loom*: the models of core, and their seeded faults.

use super::Context;
use super::step::{Show, Step};

pub fn steps(context: &Context) -> Vec<Step> {
    let mut step = Step::cargo(
        "models, and the faults they must catch",
        "test -p annulus --release --test loom",
    )
    .env("RUSTFLAGS", "--cfg loom")
    .env("CARGO_TARGET_DIR", context.work.join("loom"))
    .show(Show::Lines(&["model ", "fault ", "caught", "test result"]));
    if context.deep {
        step = step.env("LOOM_MAX_PREEMPTIONS", "4");
    }
    vec![step]
}
