//! `annulus copy` as its users meet it.

mod support;

use std::ffi::OsStr;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use std::time::Duration;

use support::{
    Ran, SmallDisk, annulus, as_ordinary_user, interrupt, is_root, limit_file_size, meanwhile,
    names, run,
};
use tempfile::TempDir;

/// A size whose copy in small blocks, one by one, takes long enough to be disturbed.
const LARGE: usize = 64 << 20;

/// The content of a large file; made once, since that takes a while without optimisation.
static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| content(LARGE));

/// Options that make a copy slow.
const SLOWLY: &str = "--bs 128 --depth 1 --no-verify";

/// How long after its start a slow copy is disturbed.
const MEANWHILE: Duration = Duration::from_millis(50);

fn copy(src: &Path, dst: &Path, options: &str) -> Command {
    let mut command = annulus(["copy"]);
    command.arg(src).arg(dst).args(options.split_whitespace());
    command
}

/// Bytes that differ from place to place.
fn content(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect()
}

/// A directory with a file `src` of this content.
fn source(bytes: &[u8]) -> (TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (src, dst) = (dir.path().join("src"), dir.path().join("dst"));
    std::fs::write(&src, bytes).unwrap();
    (dir, src, dst)
}

#[test]
fn files_of_any_size_are_copied() {
    for len in [0, 1, 4095, 4096, 4097, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5_000_000] {
        let bytes = content(len);
        let (dir, src, dst) = source(&bytes);
        for options in [
            "",
            "--bs 4k --depth 7 --force",
            "--bs 999 --depth 64 --force",
            "--bs 1M --depth 1 --no-verify -f",
        ] {
            run(&mut copy(&src, &dst, options)).succeeds();
            assert!(std::fs::read(&dst).unwrap() == bytes, "{len} bytes, {options}");
        }
        assert_eq!(names(dir.path()), ["dst", "src"]);
    }
}

#[test]
fn it_says_what_it_did() {
    let (_dir, src, dst) = source(&content(3 << 20));
    let ran = run(&mut copy(&src, &dst, ""));
    assert!(ran.succeeds().out.contains("copied 3 MiB to "), "{ran:?}");
    assert!(ran.out.contains(", verified"), "{ran:?}");
    let ran = run(&mut copy(&src, &dst, "--force --no-verify"));
    assert!(ran.succeeds().out.contains(", not verified"), "{ran:?}");
}

#[test]
fn permissions_are_kept() {
    let (_dir, src, dst) = source(b"x");
    for (mode, kept) in [(0o640, 0o640), (0o755, 0o755), (0o400, 0o400), (0o4755, 0o755)] {
        std::fs::set_permissions(&src, PermissionsExt::from_mode(mode)).unwrap();
        run(&mut copy(&src, &dst, "--force")).succeeds();
        assert_eq!(std::fs::metadata(&dst).unwrap().mode() & 0o7777, kept);
    }
}

#[test]
fn holes_stay_holes() {
    let (_dir, src, dst) = source(b"");
    let file = File::options().write(true).open(&src).unwrap();
    let pieces = [(0, 10_000), (300 << 20, 4096), ((1 << 30) - 5000, 3000)];
    for (at, len) in pieces {
        file.write_all_at(&content(len), at).unwrap();
    }
    file.set_len(1 << 30).unwrap();
    let ran = run(&mut copy(&src, &dst, ""));
    assert!(ran.succeeds().out.contains("of data, the rest holes)"), "{ran:?}");
    let (from, to) = (std::fs::metadata(&src).unwrap(), std::fs::metadata(&dst).unwrap());
    assert_eq!(to.len(), 1 << 30);
    assert!(
        to.blocks() <= from.blocks() + 64,
        "{} blocks, the source has {}",
        to.blocks(),
        from.blocks()
    );
    let copied = File::open(&dst).unwrap();
    for (at, len) in pieces {
        let mut bytes = vec![0; len];
        copied.read_exact_at(&mut bytes, at).unwrap();
        assert!(bytes == content(len), "at {at}");
    }
    // All hole.
    file.set_len(0).unwrap();
    file.set_len(1 << 30).unwrap();
    run(&mut copy(&src, &dst, "--force")).succeeds();
    let to = std::fs::metadata(&dst).unwrap();
    assert!(to.len() == 1 << 30 && to.blocks() <= 64);
}

#[test]
fn a_directory_means_a_file_in_it() {
    let (dir, src, _) = source(b"content");
    let sub = dir.path().join("sub");
    std::fs::create_dir(&sub).unwrap();
    run(&mut copy(&src, &sub, "")).succeeds();
    assert_eq!(std::fs::read(sub.join("src")).unwrap(), b"content");
    run(&mut copy(&src, dir.path(), "--force")).fails(2, "are the same file");
    run(copy(Path::new("src"), Path::new("relative"), "").current_dir(dir.path())).succeeds();
    assert_eq!(std::fs::read(dir.path().join("relative")).unwrap(), b"content");
}

#[test]
fn nothing_is_replaced_unless_asked() {
    let (dir, src, dst) = source(b"new");
    std::fs::write(&dst, b"old").unwrap();
    run(&mut copy(&src, &dst, "")).fails(2, "use --force to replace it");
    assert_eq!(std::fs::read(&dst).unwrap(), b"old");
    let link = dir.path().join("link");
    symlink(&dst, &link).unwrap();
    run(&mut copy(&src, &link, "--force")).succeeds();
    assert_eq!(std::fs::read(&dst).unwrap(), b"new");
    assert!(link.is_symlink(), "the link stays, its target is replaced");
    let nowhere = dir.path().join("nowhere");
    symlink(dir.path().join("missing"), &nowhere).unwrap();
    run(&mut copy(&src, &nowhere, "--force")).fails(2, "is a link to nothing");
}

#[test]
fn the_source_is_not_copied_onto_itself() {
    let (dir, src, dst) = source(b"x");
    run(&mut copy(&src, &src, "--force")).fails(2, "are the same file");
    std::fs::hard_link(&src, &dst).unwrap();
    run(&mut copy(&src, &dst, "--force")).fails(2, "are the same file");
    let link = dir.path().join("link");
    symlink(&src, &link).unwrap();
    run(&mut copy(&src, &link, "--force")).fails(2, "are the same file");
    assert_eq!(std::fs::read(&src).unwrap(), b"x");
}

#[test]
fn bad_requests_are_refused() {
    let (dir, src, dst) = source(b"x");
    run(&mut copy(&src, &dst, "--depth 0"))
        .fails(2, "--depth 0: nothing would ever be in flight; give 1 or more");
    run(&mut copy(&src, &dst, "--bs 0")).fails(2, "--bs 0");
    run(&mut copy(&src, &dst, "--bs 1G --depth 2")).fails(2, "use --bs 536870912 or less");
    run(annulus(["copy"]).arg(&src)).fails(2, "<DST>");
    run(&mut copy(dir.path(), &dst, "")).fails(2, "is a directory");
    run(&mut copy(Path::new("/dev/zero"), &dst, "")).fails(2, "is not a regular file");
    run(&mut copy(&src, Path::new("/dev/full"), "--force")).fails(2, "is not a regular file");
    run(&mut copy(&dir.path().join("missing"), &dst, "")).fails(1, "does not exist");
    run(&mut copy(&src, &dir.path().join("no/dir"), "")).fails(1, "make it first");
    assert_eq!(names(dir.path()), ["src"]);
}

#[test]
fn a_full_disk_leaves_nothing_behind() {
    let (dir, src, dst) = source(&content(4 << 20));
    let ran = run(limit_file_size(&mut copy(&src, &dst, ""), 1 << 20));
    ran.fails(1, "may not grow to 4 MiB");
    assert_eq!(names(dir.path()), ["src"]);

    let Some(disk) = SmallDisk::mount("size=2m") else { return };
    let there = disk.path().join("there");
    run(&mut copy(&src, &there, ""))
        .fails(1, "was not made, make room or choose another destination");
    assert_eq!(names(disk.path()), [""; 0]);
    std::fs::write(&there, b"old").unwrap();
    run(&mut copy(&src, &there, "--force")).fails(1, "is as it was before, make room");
    assert_eq!(std::fs::read(&there).unwrap(), b"old");
    assert_eq!(names(disk.path()), ["there"]);
}

#[test]
fn a_destination_that_cannot_be_written_is_named() {
    let (dir, src, _) = source(b"x");
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let locked = dir.path().join("locked");
    std::fs::create_dir(&locked).unwrap();
    std::fs::set_permissions(&locked, PermissionsExt::from_mode(0o555)).unwrap();
    let args = [OsStr::new("copy"), src.as_os_str(), locked.as_os_str()];
    run(&mut as_ordinary_user(args, dir.path()))
        .fails(1, "permission denied; choose a destination that you may write");
    if is_root()
        && let Some(disk) = SmallDisk::mount("size=1m,ro")
    {
        run(&mut copy(&src, disk.path(), ""))
            .fails(1, "read-only file system; choose a destination");
    }
}

/// Waits until a copy has started to write in `dir`.
fn wait_for_copy(dir: &Path) {
    for _ in 0..5000 {
        if names(dir).iter().any(|name| name.starts_with(".annulus-copy-")) {
            return std::thread::sleep(MEANWHILE);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("the copy does not start: {:?}", names(dir));
}

/// Runs a slow copy of a large file and does something to the source meanwhile.
fn disturbed(disturb: impl FnOnce(&Path)) -> (TempDir, Ran) {
    let (dir, src, dst) = source(&CONTENT);
    let ran = meanwhile(&mut copy(&src, &dst, SLOWLY), |_| {
        wait_for_copy(dir.path());
        disturb(&src);
    });
    (dir, ran)
}

#[test]
fn a_source_that_shrinks_is_told() {
    let (dir, ran) =
        disturbed(|src| File::options().write(true).open(src).unwrap().set_len(1000).unwrap());
    ran.fails(1, "shrank while it was copied");
    assert_eq!(names(dir.path()), ["src"]);
}

#[test]
fn a_source_that_vanishes_is_still_copied_whole() {
    let (dir, ran) = disturbed(|src| std::fs::remove_file(src).unwrap());
    assert!(ran.succeeds().err.contains("was removed while it was copied"), "{ran:?}");
    assert!(std::fs::read(dir.path().join("dst")).unwrap() == *CONTENT);
}

#[test]
fn a_source_that_grows_or_changes_is_told() {
    let append = |src: &Path| {
        File::options().write(true).open(src).unwrap().write_all_at(b"more", LARGE as u64).unwrap()
    };
    let (dir, ran) = disturbed(append);
    assert!(ran.succeeds().err.contains("grew while it was copied"), "{ran:?}");
    assert_eq!(std::fs::metadata(dir.path().join("dst")).unwrap().len(), LARGE as u64);
    let (_dir, ran) = disturbed(|src| {
        File::options().write(true).open(src).unwrap().write_all_at(b"x", 0).unwrap()
    });
    assert!(ran.succeeds().err.contains("was written to while it was copied"), "{ran:?}");
}

#[test]
fn ctrl_c_leaves_nothing_behind() {
    let (dir, src, dst) = source(&CONTENT);
    let ran = meanwhile(&mut copy(&src, &dst, SLOWLY), |child| {
        wait_for_copy(dir.path());
        interrupt(child);
    });
    ran.fails(130, "interrupted");
    assert_eq!(names(dir.path()), ["src"]);
}
