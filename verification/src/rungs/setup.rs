//! What a rung needs on the machine, and how it gets there.

use std::process::{Command, Stdio};

/// A thing a rung cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The standard library of a target, for the toolchain in use.
    Target(&'static str),
    /// A component of a toolchain.
    Component { toolchain: &'static str, name: &'static str },
    /// A program, and the Debian package that has it.
    Program { name: &'static str, package: &'static str },
    /// The kernel's io_uring.
    IoUring,
}

fn succeeds(program: &str, arguments: &[&str]) -> bool {
    Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn output(program: &str, arguments: &[&str]) -> String {
    Command::new(program)
        .args(arguments)
        .output()
        .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
        .unwrap_or_default()
}

impl Need {
    /// Sees to it that the thing is there.
    ///
    /// # Errors
    /// What is missing, and what a person can do.
    pub fn provide(self) -> Result<(), String> {
        match self {
            Need::Target(target) => {
                let have = output("rustup", &["target", "list", "--installed"]);
                if have.lines().any(|line| line.trim() == target) {
                    return Ok(());
                }
                println!("    installing the Rust target {target}");
                succeeds("rustup", &["target", "add", target]).then_some(()).ok_or_else(|| {
                    format!("the Rust target {target} is missing: rustup target add {target}")
                })
            }
            Need::Component { toolchain, name } => {
                if !output("rustup", &["toolchain", "list"])
                    .lines()
                    .any(|line| line.starts_with(toolchain))
                {
                    println!("    installing the Rust toolchain {toolchain}");
                    let install = ["toolchain", "install", toolchain, "--profile", "minimal"];
                    if !succeeds("rustup", &install) {
                        return Err(format!(
                            "the Rust toolchain {toolchain} is missing: rustup toolchain install {toolchain}"
                        ));
                    }
                }
                let have = output(
                    "rustup",
                    &["component", "list", "--installed", "--toolchain", toolchain],
                );
                if have.lines().any(|line| line.starts_with(name)) {
                    return Ok(());
                }
                println!("    installing {name} for the Rust toolchain {toolchain}");
                succeeds("rustup", &["component", "add", name, "--toolchain", toolchain])
                    .then_some(())
                    .ok_or_else(|| {
                        format!(
                            "{name} is missing: rustup component add {name} --toolchain {toolchain}"
                        )
                    })
            }
            Need::Program { name, package } => {
                if succeeds(name, &["--version"]) {
                    return Ok(());
                }
                println!("    installing the Debian package {package}");
                let installed = succeeds("apt-get", &["install", "-y", "-q", package])
                    || (succeeds("apt-get", &["update", "-q"])
                        && succeeds("apt-get", &["install", "-y", "-q", package]));
                (installed && succeeds(name, &["--version"])).then_some(()).ok_or_else(|| {
                    format!("{name} is missing: apt-get install {package} (as root)")
                })
            }
            Need::IoUring => {
                // SAFETY: a system call with a null pointer, to be refused.
                let answer =
                    unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, std::ptr::null::<u8>()) };
                let errno = std::io::Error::last_os_error().raw_os_error();
                if answer == -1 && errno == Some(libc::EFAULT) {
                    return Ok(());
                }
                Err("this machine's kernel gives no io_uring to compare with: \
                     a kernel with CONFIG_IO_URING and kernel.io_uring_disabled=0 is needed"
                    .into())
            }
        }
    }
}
