//! What runs inside the virtual machines of `cargo verify guest`.
//!
//! The program of this package is the guest's only one: the kernel starts it
//! as process 1, it mounts what is needed, loads the modules and then does
//! what the host tells it over the second serial line ([`control`]): it runs
//! [`scenarios`], each in a process of its own, and says what came of each.
//!
//! The host's half (`verification/src/rungs/guest`) uses this library for
//! what both must agree on: the lines of the control channel, the names of
//! the scenarios, and the pattern of the power-cut workload ([`epoch`]).
//!
//! # Adding a scenario
//!
//! 1. Write a function in a file of `guest/src/scenarios`:
//!
//!    ```
//!    use annulus_guest::scenarios::Context;
//!
//!    fn reads(context: &mut Context) -> Result<String, String> {
//!        let function = context.vfio(0)?; // controller 0 is bound to vfio-pci
//!        let before = context.host.stats("ns0")?;
//!        // ... drive the controller at `function.address` ...
//!        Ok(format!("{}: {} reads", function.address, before.reads))
//!    }
//!    ```
//!
//!    What it answers is printed behind the scenario's name; an error, a
//!    panic, a signal or a time that is over is a failure.
//! 2. Give it a line in [`scenarios::ALL`].
//! 3. Give it a line in a machine of `verification/src/rungs/guest/plan.rs`,
//!    with the seconds it may take. A test there finds a scenario that no
//!    machine runs.
//!
//! What a scenario has: the controllers ([`pci::Function`], by their number in
//! the machine), what the host does for it ([`control::Request`]: counts,
//! stalls, unplugging), huge pages ([`scenarios::Context::huge_pages`]), and
//! the program `annulus` ([`init::ANNULUS`]). With `fault=NAME` among its
//! words in the plan it runs in a build with seeded faults and this one
//! switched on; if it must fail then, it stands under `failing` there.
//!
//! `cargo verify guest -- NAME` then runs the scenarios whose names contain
//! NAME and nothing else; the guest's console is in
//! `target/guest/machines/MACHINE/console`.
#![warn(missing_docs)]
#![cfg(target_os = "linux")]

pub mod control;
pub mod epoch;
pub mod init;
pub mod leaks;
pub mod pci;
pub mod scenarios;
