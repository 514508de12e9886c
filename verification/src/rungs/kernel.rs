//! The rung *kernel*: generated programs on this machine's io_uring and on
//! Annulus.

use std::process::Command;

use super::Context;
use super::setup::Need;
use super::step::{Show, Step};

pub const NEEDS: &[Need] = &[Need::IoUring];

pub fn steps(context: &Context) -> Vec<Step> {
    let count = if context.deep { 200_000 } else { 4_000 };
    let exe = std::env::current_exe();
    ["inline", "sqpoll", "served"]
        .into_iter()
        .map(|mode| match &exe {
            Ok(exe) => {
                let mut command = Command::new(exe);
                command.args(["programs", "--mode", mode, "--count", &count.to_string()]);
                Step::run(format!("{count} programs, {mode}"), command).show(Show::All)
            }
            Err(e) => {
                let why = e.to_string();
                Step::check(format!("{count} programs, {mode}"), move || Err(why))
            }
        })
        .collect()
}
