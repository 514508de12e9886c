//! What a guest is booted from: Debian's kernel, and an initramfs with its
//! modules and our program.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use annulus_guest::init;

use super::cpio::Archive;
use crate::rungs::exec::Cmd;
use crate::rungs::{Found, target_dir};

/// Where programs without shared libraries are built for.
pub const TARGET: &str = "x86_64-unknown-linux-musl";

/// The package whose newest dependency is the kernel.
const META_PACKAGE: &str = "linux-image-amd64";

/// The modules that guests load, by name; what they depend on comes along.
const MODULES: &[&str] =
    &["crc64_rocksoft_generic", "nvme", "romfs", "vfio_iommu_type1", "vfio-pci"];

/// The directory of the kernel, made once.
fn kernel_dir() -> PathBuf {
    target_dir("guest").join("kernel")
}

/// The kernel.
pub fn kernel() -> PathBuf {
    kernel_dir().join("vmlinuz")
}

/// Files of an initramfs: where each is to lie, and where it is.
pub type Files = Vec<(String, PathBuf)>;

/// The build of the programs.
pub fn build() -> Cmd {
    const PROGRAMS: [&str; 4] = ["-p", "annulus-guest", "-p", "annulus-examples"];
    Cmd::cargo(&["build", "--release", "--target", TARGET]).args(PROGRAMS)
}

fn programs() -> Files {
    let built = target_dir(TARGET).join("release");
    vec![
        ("/init".into(), built.join("annulus-guest")),
        (init::ANNULUS.into(), built.join("annulus")),
    ]
}

/// The build of the guest's program with seeded faults.
pub fn build_faulty() -> Cmd {
    let flags = format!("{} --cfg annulus_faults", std::env::var("RUSTFLAGS").unwrap_or_default());
    Cmd::cargo(&["build", "--release", "--target", TARGET, "-p", "annulus-guest"])
        .env("RUSTFLAGS", flags.trim())
        .env("CARGO_TARGET_DIR", target_dir("faults"))
}

/// What it built.
pub fn faulty() -> Files {
    let built = target_dir("faults").join(TARGET).join("release");
    vec![(init::FAULTY.into(), built.join("annulus-guest"))]
}

/// Gets the kernel, unless it is there.
pub fn fetch(left: Duration) -> Found {
    let dir = kernel_dir();
    let mark = dir.join("complete");
    // Another list of modules is another directory.
    let complete = MODULES.join(" ");
    if fs::read_to_string(&mark).is_ok_and(|there| there == complete) {
        return Ok(String::new());
    }
    let at = |e: std::io::Error| format!("{}: {e}", dir.display());
    // The rest of a run that was interrupted.
    let _ = fs::remove_dir_all(&dir);
    let unpacked = dir.join("unpacked");
    fs::create_dir_all(&unpacked).map_err(at)?;
    let package = download(&dir, left).or_else(|_| {
        // The lists of packages are old, or not there at all.
        Cmd::new("apt-get", &["update"]).run(&dir.join("update.log"), left)?;
        download(&dir, left)
    });
    let package = package.map_err(|why| {
        format!("{why}\n    the guest's kernel could not be downloaded: is there a network?")
    })?;
    let archive = only(&dir, |name| name.ends_with(".deb"))?;
    Cmd::new("dpkg-deb", &["--extract"]).args([&archive, &unpacked]).ask()?;
    let image = only(&unpacked.join("boot"), |name| name.starts_with("vmlinuz-"))?;
    fs::rename(image, kernel()).map_err(at)?;
    modules(&unpacked, &dir.join("modules"))?;
    fs::remove_dir_all(&unpacked).and_then(|()| fs::remove_file(archive)).map_err(at)?;
    fs::write(mark, complete).map_err(at)?;
    Ok(format!("    {package}"))
}

/// Downloads the newest kernel's package, and answers its name.
fn download(dir: &Path, left: Duration) -> Found {
    let package = newest()?;
    let cmd = Cmd::new("apt-get", &["download", &package]).dir(dir);
    cmd.run(&dir.join("download.log"), left).map(|_| package)
}

/// The name of the newest kernel's package.
fn newest() -> Result<String, String> {
    let said = Cmd::new("apt-cache", &["depends", META_PACKAGE]).ask()?;
    let depends = said.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    depends
        .map(String::from)
        .find(|package| package.starts_with("linux-image-"))
        .ok_or_else(|| format!("apt knows no kernel that {META_PACKAGE} depends on:\n{said}"))
}

/// Copies the modules, and writes the order in which they are to be loaded.
fn modules(unpacked: &Path, to: &Path) -> Result<(), String> {
    let releases = unpacked.join("lib/modules");
    let release = only(&releases, |_| true)?;
    let name = release.file_name().unwrap_or_default().to_owned();
    Cmd::new("depmod", &["-b"]).args([unpacked.as_os_str(), &name]).ask()?;
    let at = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    let dependencies = release.join("modules.dep");
    let dependencies = fs::read_to_string(&dependencies).map_err(|e| at(&dependencies, e))?;
    fs::create_dir_all(to).map_err(|e| at(to, e))?;
    let mut order = String::new();
    for path in load_order(&dependencies, MODULES)? {
        let file = path.rsplit('/').next().unwrap_or_default();
        let from = release.join(path);
        fs::copy(&from, to.join(file)).map_err(|e| at(&from, e))?;
        order += &format!("{file}\n");
    }
    let list = to.join(init::MODULES_ORDER);
    fs::write(&list, order).map_err(|e| at(&list, e))
}

/// The paths of the modules and of what they depend on, each behind all that
/// it depends on, from the text of `modules.dep`.
fn load_order<'a>(dependencies: &'a str, wanted: &[&str]) -> Result<Vec<&'a str>, String> {
    let mut order: Vec<&str> = Vec::new();
    for name in wanted {
        // The file's name may have - where the module's has _.
        let plain = |name: &str| name.replace('-', "_");
        let file = format!("/{}.ko", plain(name));
        let line = dependencies.lines().find_map(|line| {
            let (path, behind) = line.split_once(':')?;
            plain(path).ends_with(&file).then_some((path, behind))
        });
        let (path, behind) = line.ok_or_else(|| {
            format!("the kernel's package has no module {name}.ko that is not compressed")
        })?;
        // Listed so that each stands before what it needs itself.
        for path in behind.split_whitespace().rev().chain([path]) {
            if !order.contains(&path) {
                order.push(path);
            }
        }
    }
    Ok(order)
}

/// The one entry of a directory that is `wanted`.
fn only(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries = fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let mut paths = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy())));
    match (paths.next(), paths.next()) {
        (Some(path), None) => Ok(path),
        (first, _) => Err(format!(
            "{} of the kernel's package is not as expected: {first:?} is not alone there",
            dir.display()
        )),
    }
}

/// A program of the host, its shared libraries and their loader.
pub fn with_libraries(program: &str, inside: &str) -> Result<Files, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|at| at.is_file());
    let program = found.ok_or_else(|| format!("{program} is not installed"))?;
    let said = Cmd::new("ldd", &[]).args([&program]).ask()?;
    let mut files = vec![(inside.to_owned(), program)];
    // "libc.so.6 => /lib/.../libc.so.6 (0x...)", "/lib64/ld-linux... (0x...)"
    for word in said.lines().filter_map(|line| line.split_whitespace().rev().nth(1)) {
        if word.starts_with('/') {
            files.push((word.to_owned(), PathBuf::from(word)));
        }
    }
    Ok(files)
}

/// Writes an initramfs with our programs, the modules, and `more`.
pub fn initramfs(to: &Path, more: &Files) -> Result<(), String> {
    let at = |path: &Path, e: std::io::Error| format!("{}: {e}", path.display());
    let modules = kernel_dir().join("modules");
    let mut files = programs();
    for entry in fs::read_dir(&modules).map_err(|e| at(&modules, e))?.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        files.push((format!("{}/{name}", init::MODULES), entry.path()));
    }
    let mut archive = Archive::default();
    // Process 1 gets it as its standard output before there is a devtmpfs.
    archive.device("/dev/console", (5, 1));
    for (inside, outside) in files.iter().chain(more) {
        archive.file(inside, &fs::read(outside).map_err(|e| at(outside, e))?);
    }
    fs::write(to, archive.finish()).map_err(|e| at(to, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_loaded_behind_what_they_need() {
        let dependencies = "k/vfio/vfio.ko:\n\
                            k/vfio/pci/vfio-pci.ko: k/vfio/core.ko k/virt/irqbypass.ko k/vfio/vfio.ko\n\
                            k/vfio/core.ko: k/virt/irqbypass.ko k/vfio/vfio.ko\n\
                            k/virt/irqbypass.ko:\n\
                            k/vfio/vfio_iommu_type1.ko: k/vfio/vfio.ko\n";
        let order = load_order(dependencies, &["vfio_iommu_type1", "vfio_pci"]);
        let wanted = [
            "k/vfio/vfio.ko",
            "k/vfio/vfio_iommu_type1.ko",
            "k/virt/irqbypass.ko",
            "k/vfio/core.ko",
            "k/vfio/pci/vfio-pci.ko",
        ];
        assert_eq!(order.as_deref(), Ok(&wanted[..]));
        assert!(load_order(dependencies, &["nvme"]).is_err_and(|why| why.contains("nvme.ko")));
    }
}
