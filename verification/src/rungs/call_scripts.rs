//! Register calls: the scripts that are run on the kernel and on Annulus, and
//! their seeded faults, each of which must show. After
//! [`fault_programs`], whose build they use.

use std::time::Duration;

use annulus::fault::{Fault, Kind};

use super::exec::Cmd;
use super::programs::{Outcome, outcome};
use super::{Step, fault_programs};

pub fn steps() -> Vec<Step> {
    let mut steps = vec![Step::check("scripts of register calls", |left| match run(None, left)? {
        Outcome::Same(_) => Ok(String::new()),
        Outcome::Different { what, report, .. } => Err(format!("{report}\n{what}")),
    })];
    let faults = Fault::ALL.iter().copied().filter(|fault| fault.kind() == Kind::Call);
    steps.extend(faults.map(|fault| {
        let name = format!("fault {} is caught by a script", fault.name());
        Step::check(name, move |left| match run(Some(fault), left)? {
            Outcome::Different { program: Some(_), what, .. } => {
                Ok(format!("    {}\n    {what}", fault.describe()))
            }
            Outcome::Different { program: None, what, report } => Err(format!("{report}\n{what}")),
            Outcome::Same(_) => Err(format!("{}\n    NOT CAUGHT", fault.describe())),
        })
    }));
    steps
}

fn run(fault: Option<Fault>, left: Duration) -> Result<Outcome, String> {
    let mut cmd = Cmd::new(fault_programs::exe(), &["calls"]);
    if let Some(fault) = fault {
        cmd = cmd.args(["--fault", fault.name()]);
    }
    let child = cmd.start().map_err(|e| format!("{}: {e}", cmd.line()))?;
    Ok(outcome(child, left))
}
