//! Row *SQPOLL*, policy *seed*: who may have a polling thread. Each case is a
//! process of its own, which gives up what it has.

mod common;

use std::os::unix::process::CommandExt;
use std::process::Command;

use annulus_linux::{Error, Policy, Ring, opcode, types};
use common::*;
use rustix::thread::{CapabilitySet, CapabilitySets, set_capabilities};

/// Tells the child what it has.
const CASE: &str = "ANNULUS_TEST_PRIVILEGES";

/// Runs [`child`] in another process, as root or as nobody.
fn run(case: &str, root: bool) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CASE, case);
    if !root {
        command.uid(65_534).gid(65_534);
    }
    let output = command.output().expect("a child");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("-- seen"), "{case}: {output:?}");
}

#[test]
fn row_sqpoll_asks_for_privileges_under_policy_seed() {
    // SAFETY: no memory is passed.
    if unsafe { libc::geteuid() } != 0 {
        return run("nothing", true);
    }
    for case in ["SYS_NICE", "SYS_ADMIN", "nothing", "others"] {
        run(case, true);
    }
    // Another user has none, to begin with.
    run("user", false);
}

/// The other process: gives up what its case says, and looks.
#[test]
fn child() {
    let Ok(case) = std::env::var(CASE) else { return };
    let left = match &*case {
        "SYS_NICE" => CapabilitySet::SYS_NICE,
        "SYS_ADMIN" => CapabilitySet::SYS_ADMIN,
        "others" => CapabilitySet::SYS_RAWIO | CapabilitySet::IPC_LOCK,
        _ => CapabilitySet::empty(),
    };
    if case != "user" {
        let (effective, permitted) = (left, left);
        let sets = CapabilitySets { effective, permitted, inheritable: CapabilitySet::empty() };
        set_capabilities(None, sets).expect("they can be given up");
    }
    let build = |policy| Ring::builder().setup_sqpoll(100).policy(policy).build(4);
    match build(Policy::Seed) {
        Ok(mut ring) => {
            assert!(matches!(&*case, "SYS_NICE" | "SYS_ADMIN"), "{case} is enough");
            // And it takes registered files only.
            let zero = std::fs::File::open("/dev/zero").unwrap();
            let mut byte = 1u8;
            let read = opcode::Read::new(fd(&zero), &mut byte, 1).build();
            assert_eq!(one(&mut ring, &read), -libc::EBADF);
            ring.submitter().register_files(&[fd(&zero).0]).unwrap();
            let read = opcode::Read::new(types::Fixed(0), &mut byte, 1).build();
            assert_eq!((one(&mut ring, &read), byte), (1, 0));
        }
        Err(error) => {
            assert!(matches!(&*case, "nothing" | "others" | "user"), "{case}: {error}");
            assert!(matches!(error, Error::NotPermitted));
            assert_eq!(error.errno(), libc::EPERM);
            // Only for a thread that polls.
            Ring::builder().policy(Policy::Seed).build(4).unwrap();
        }
    }
    // Today's policy asks for nothing.
    let mut ring = build(Policy::Current).unwrap();
    assert_eq!(one(&mut ring, &opcode::Nop::new().build()), 0);
    println!("-- seen");
}
