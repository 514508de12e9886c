//! What rungs need on the machine, and how to get it.

use super::exec::Cmd;

/// Something a rung needs.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// Targets of the stable toolchain.
    Targets(&'static [&'static str]),
    /// Components of a toolchain.
    Components(&'static str, &'static [&'static str]),
    /// The nightly toolchain with these components.
    Nightly(&'static [&'static str]),
    /// The machine's own io_uring.
    IoUring,
    /// A subcommand of cargo's, by its package.
    Installed(&'static str),
    /// Programs, each with the Debian package that it comes from.
    Programs(&'static [(&'static str, &'static str)]),
}

impl Need {
    /// Gets what is missing. What it did, or nothing.
    ///
    /// # Errors
    /// Why the rung cannot run here, and what to do.
    pub fn meet(&self) -> Result<Option<String>, String> {
        match self {
            Need::Targets(targets) => {
                let there = Cmd::new("rustup", &["target", "list", "--installed"]).ask()?;
                install(targets, &there, &["target", "add"])
            }
            Need::Components(toolchain, wanted) => components(own(toolchain), wanted),
            Need::Nightly(wanted) => {
                let toolchains = Cmd::new("rustup", &["toolchain", "list"]).ask()?;
                if !toolchains.lines().any(|line| line.starts_with("nightly")) {
                    let args = ["toolchain", "install", "nightly", "--profile", "minimal"];
                    Cmd::new("rustup", &args).ask().map_err(|e| {
                        format!("there is no nightly toolchain and it cannot be installed: {e}")
                    })?;
                }
                components("nightly".into(), wanted)
            }
            Need::IoUring => io_uring().map(|()| None),
            Need::Installed(package) => subcommand(package),
            Need::Programs(programs) => packages(programs),
        }
    }
}

/// The toolchain that cargo was started with stands for "stable".
fn own(toolchain: &str) -> String {
    let active = std::env::var("RUSTUP_TOOLCHAIN").ok();
    active.filter(|_| toolchain == "stable").unwrap_or_else(|| toolchain.into())
}

fn components(toolchain: String, wanted: &[&str]) -> Result<Option<String>, String> {
    let args = ["component", "list", "--installed", "--toolchain", &toolchain];
    let there = Cmd::new("rustup", &args).ask()?;
    install(wanted, &there, &["component", "add", "--toolchain", &toolchain])
}

fn install(wanted: &[&str], there: &str, how: &[&str]) -> Result<Option<String>, String> {
    // A component's name may have the host behind it.
    let has = |name: &str| there.lines().any(|line| line.starts_with(name));
    let missing: Vec<&str> = wanted.iter().copied().filter(|name| !has(name)).collect();
    if missing.is_empty() {
        return Ok(None);
    }
    Cmd::new("rustup", how).args(missing.iter().copied()).ask()?;
    Ok(Some(format!("installed {}", missing.join(", "))))
}

/// Installs a subcommand of cargo's.
fn subcommand(package: &str) -> Result<Option<String>, String> {
    let there = Cmd::cargo(&["install", "--list"]).ask()?;
    if there.lines().any(|line| line.split(' ').next() == Some(package)) || installed(package) {
        return Ok(None);
    }
    Cmd::cargo(&["install", "--locked", package]).ask()?;
    Ok(Some(format!("installed {package}")))
}

/// Installs the packages of the programs that are not there.
fn packages(programs: &[(&str, &str)]) -> Result<Option<String>, String> {
    let missing = || {
        let packages = programs.iter().filter(|(program, _)| !installed(program));
        packages.map(|(_, package)| *package).collect::<Vec<_>>()
    };
    let wanted = missing();
    if wanted.is_empty() {
        return Ok(None);
    }
    let names = wanted.join(" ");
    let apt = |args: &[&str]| Cmd::new("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive");
    // Somebody else may be installing something just now.
    let patient = ["-o", "DPkg::Lock::Timeout=120"];
    let install = ["install", "--yes", "--no-install-recommends"];
    let install = apt(&patient).args(install).args(&wanted);
    // The lists of packages may be old, or not there at all.
    let installed = install.ask().or_else(|_| apt(&["update"]).ask().and_then(|_| install.ask()));
    let why = match installed {
        Ok(_) if missing().is_empty() => return Ok(Some(format!("installed {names}"))),
        Ok(_) => "its programs are not where PATH leads".to_owned(),
        Err(why) => why,
    };
    Err(format!("{names} cannot be installed by apt-get; install it by hand: {why}"))
}

/// Whether a program can be run by its name.
fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

fn io_uring() -> Result<(), String> {
    let disabled = std::fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
    let mut params = [0u8; size_of::<linux_raw_sys::io_uring::io_uring_params>()];
    // SAFETY: room for the parameters, which are plain numbers.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, params.as_mut_ptr()) };
    if fd < 0 {
        return Err(format!(
            "this machine's io_uring cannot be used: {} (io_uring_disabled is {}; a container may \
             forbid it by seccomp)",
            std::io::Error::last_os_error(),
            disabled.as_deref().map_or("not there", str::trim)
        ));
    }
    // SAFETY: the ring that was just made.
    unsafe { libc::close(fd as i32) };
    Ok(())
}
