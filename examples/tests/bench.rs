//! `annulus bench` as its users meet it.

mod support;

use std::cell::Cell;
use std::ffi::OsStr;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use support::{
    Ran, SmallDisk, annulus, as_ordinary_user, interrupt, limit_file_size, meanwhile, names,
    not_run, run, words,
};

const KEYS: [&str; 14] = [
    "engine",
    "mode",
    "rw",
    "bs",
    "depth",
    "batch",
    "wait",
    "ops",
    "iops",
    "ns_per_op",
    "p50_us",
    "p99_us",
    "p999_us",
    "errors",
];

/// A short bench of a small temporary file in `dir`.
fn bench(options: &str, dir: &Path) -> Command {
    let time = if options.contains("--time") { "" } else { "--time 0.1" };
    let mut command = words(&format!("bench {time} {options}"));
    command.env("TMPDIR", dir);
    command
}

fn with_file(options: &str, file: &Path) -> Command {
    let mut command = words(&format!("bench --time 0.1 {options}"));
    command.arg("--file").arg(file);
    command
}

/// Parses the lines and checks that each has exactly the keys that are promised, with sensible
/// values.
fn objects(ran: &Ran) -> Vec<Value> {
    let lines = ran.succeeds().out.lines();
    lines
        .map(|line| {
            let value: Value = serde_json::from_str(line).unwrap();
            let object = value.as_object().unwrap();
            let mut keys: Vec<&str> = object.keys().map(String::as_str).collect();
            let mut expected = KEYS.to_vec();
            keys.sort_unstable();
            expected.sort_unstable();
            assert_eq!(keys, expected);
            for key in ["bs", "depth", "batch", "ops", "errors"] {
                assert!(object[key].is_u64(), "{key} in {line}");
            }
            for key in ["iops", "ns_per_op", "p50_us", "p99_us", "p999_us"] {
                assert!(object[key].as_f64().unwrap() > 0.0, "{key} in {line}");
            }
            assert_eq!(object["errors"], 0, "{line}");
            let (p50, p99, p999) =
                (object["p50_us"].as_f64(), object["p99_us"].as_f64(), object["p999_us"].as_f64());
            assert!(p50 <= p99 && p99 <= p999, "{line}");
            value
        })
        .collect()
}

#[test]
fn json_has_one_object_an_engine() {
    let dir = tempfile::tempdir().unwrap();
    let found = objects(&run(&mut bench(
        "--json --compare --rw randread --size 1M --bs 512 --depth 8 --batch 4",
        dir.path(),
    )));
    assert_eq!(found[0]["engine"], "annulus");
    assert_eq!(found.last().unwrap()["engine"], "pread");
    for object in &found[..found.len() - 1] {
        assert_eq!(
            (&object["depth"], &object["batch"], &object["bs"]),
            (&8.into(), &4.into(), &512.into())
        );
        assert_eq!((&object["rw"], &object["mode"]), (&"randread".into(), &"inline".into()));
    }
    assert_eq!(
        (&found.last().unwrap()["depth"], &found.last().unwrap()["batch"]),
        (&1.into(), &1.into())
    );
}

#[test]
fn nop_is_its_own_kind_of_work() {
    let dir = tempfile::tempdir().unwrap();
    let found = objects(&run(&mut bench("--json --nop", dir.path())));
    assert_eq!(found.len(), 1);
    assert_eq!((&found[0]["rw"], &found[0]["bs"]), (&"nop".into(), &0.into()));
}

#[test]
fn every_kind_of_work_runs_in_every_mode() {
    let dir = tempfile::tempdir().unwrap();
    for mode in ["inline", "sqpoll", "served"] {
        for rw in ["randread", "randwrite", "read", "write", "randrw"] {
            for more in ["", "--registered", "--verify", "--verify --registered"] {
                let options =
                    format!("--json --size 1M --depth 5 --batch 3 --mode {mode} --rw {rw} {more}");
                let found = objects(&run(&mut bench(&options, dir.path())));
                assert_eq!((&found[0]["mode"], &found[0]["rw"]), (&mode.into(), &rw.into()));
            }
        }
        objects(&run(&mut bench(&format!("--json --nop --mode {mode} --batch 1"), dir.path())));
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn people_get_a_table_ratios_and_a_histogram() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(&mut bench("--compare --size 1M --verify --rw randrw", dir.path()));
    let out = &ran.succeeds().out;
    for words in [
        "randrw, 4 KiB blocks, 1 MiB of a temporary file",
        "IOPS",
        "p99.9 µs",
        "annulus",
        "pread",
        "latency",
        "█",
    ] {
        assert!(out.contains(words), "{words:?} in {out}");
    }
    assert!(out.contains("x plain pread/pwrite") && out.contains("blocks checked"), "{out}");
    assert_eq!(ran.err, "", "no progress bar without a terminal");
}

#[test]
fn bad_requests_are_refused_before_anything_happens() {
    let dir = tempfile::tempdir().unwrap();
    for (options, message) in [
        ("--depth 0", "--depth 0: nothing would ever be in flight; give 1 or more"),
        ("--bs 0", "--bs 0: an operation without bytes moves nothing"),
        ("--batch 33", "use --batch 32 or --depth 33"),
        ("--batch 0", "--batch 0: nothing would ever be submitted"),
        ("--time 0", "give the seconds to measure"),
        ("--time -1", "--time"),
        ("--size 0", "--size 0"),
        ("--size 1000", "1000 bytes are less than one block; use --bs 1000 or less"),
        ("--rw sideways", "randread"),
        ("--mode magic", "sqpoll"),
        ("--nop --verify", "cannot be used with"),
        ("--frobnicate", "--frobnicate"),
    ] {
        let ran = run(&mut bench(options, dir.path()));
        ran.fails(2, message);
        assert_eq!(ran.out, "", "{options}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn direct_takes_aligned_blocks_only() {
    // In the build's directory: a disk's file system more likely than /tmp.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    run(&mut bench("--direct --bs 1000 --size 1M", dir.path())).fails(2, "or leave --direct out");
    let ran = run(&mut bench("--json --direct --bs 4k --size 1M --verify --rw randrw", dir.path()));
    if ran.err.contains("O_DIRECT") {
        return not_run(&format!("no O_DIRECT in the build's directory: {}", ran.err));
    }
    objects(&ran);
}

#[test]
fn an_existing_file_is_not_overwritten_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("precious");
    let content = vec![0x5a; 64 << 10];
    std::fs::write(&file, &content).unwrap();
    for options in ["--rw randwrite", "--rw write", "--rw randrw", "--rw randread --verify"] {
        run(&mut with_file(options, &file)).fails(2, "add --overwrite if that is meant");
    }
    run(&mut with_file("--rw randread", &file)).succeeds();
    assert_eq!(std::fs::read(&file).unwrap(), content);
    run(&mut with_file("--rw randread --size 128k", &file)).fails(2, "has only 65536 bytes");
    run(&mut with_file("--rw write --overwrite", &file)).succeeds();
    assert_ne!(std::fs::read(&file).unwrap(), content);
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 64 << 10);
}

#[test]
fn a_new_file_is_made_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("new");
    let ran = run(&mut with_file("--rw randwrite --size 1M", &file));
    assert!(ran.succeeds().err.contains("it is kept"), "{ran:?}");
    assert_eq!(std::fs::metadata(&file).unwrap().len(), 1 << 20);
    run(&mut with_file("--rw read --size 1M", &dir.path().join("no/such/dir")))
        .fails(1, "cannot make");
}

#[test]
fn files_that_cannot_be_used_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let small = dir.path().join("small");
    std::fs::write(&small, [1; 100]).unwrap();
    run(&mut with_file("", &small))
        .fails(2, "100 bytes are less than one block; use --bs 100 or less");
    let empty = dir.path().join("empty");
    std::fs::write(&empty, []).unwrap();
    run(&mut with_file("", &empty)).fails(2, "is empty, there is nothing to read");
    run(&mut with_file("", dir.path())).fails(2, "is a directory");
    run(&mut with_file("", Path::new("/dev/null")))
        .fails(2, "neither a regular file nor a block device");
}

#[test]
fn a_read_only_file_is_read_and_not_written() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), PermissionsExt::from_mode(0o755)).unwrap();
    let file = dir.path().join("read-only");
    std::fs::write(&file, [1; 65536]).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o444)).unwrap();
    let command = |options: &str| {
        let options = format!("bench --time 0.1 --overwrite {options} --file {}", file.display());
        let options: Vec<&str> = options.split_whitespace().collect();
        as_ordinary_user(options.into_iter().map(OsStr::new), dir.path())
    };
    run(&mut command("--rw randwrite"))
        .fails(1, "name a file that you may write, or use --rw randread");
    run(&mut command("--rw randread")).succeeds();
}

#[test]
fn failing_operations_are_counted_and_told() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, vec![1; 1 << 20]).unwrap();
    let ran =
        run(limit_file_size(&mut with_file("--rw write --overwrite --json", &file), 512 << 10));
    ran.fails(
        1,
        "the first, through annulus: write of 4096 bytes at offset 524288: File too large",
    );
    let object: Value = serde_json::from_str(&ran.out).unwrap();
    assert!(object["errors"].as_u64().unwrap() > 0, "{object}");
}

#[test]
fn a_full_disk_is_explained_and_left_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let ran = run(limit_file_size(&mut bench("--size 2M", dir.path()), 1 << 20));
    ran.fails(1, "use a smaller --size, or a higher `ulimit -f`");
    let Some(disk) = SmallDisk::mount("size=1m") else { return };
    run(&mut bench("--size 2M", disk.path()))
        .fails(1, "use a smaller --size, or a place with more room");
    run(&mut with_file("--size 2M", &disk.path().join("new"))).fails(1, "no room for 2 MiB");
    assert_eq!(names(disk.path()), [""; 0]);
}

#[test]
fn ctrl_c_ends_it_soon_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for options in [
        "bench --time 60 --size 8M",
        "bench --time 60 --nop --mode sqpoll",
        "bench --time 60 --compare --nop",
    ] {
        let asked = Cell::new(Instant::now());
        let ran = meanwhile(words(options).env("TMPDIR", dir.path()), |child| {
            std::thread::sleep(Duration::from_millis(1500));
            asked.set(Instant::now());
            interrupt(child);
        });
        assert!(asked.get().elapsed() < Duration::from_secs(5), "{:?}", asked.get().elapsed());
        ran.fails(130, "interrupted");
        assert!(ran.out.contains("IOPS"), "what was measured is shown: {ran:?}");
        assert_eq!(names(dir.path()), [""; 0]);
    }
}

#[test]
fn an_existing_file_is_only_read_by_a_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().write_all_at(&[3; 8192], 0).unwrap();
    std::fs::set_permissions(file.path(), PermissionsExt::from_mode(0o444)).unwrap();
    let before = std::fs::metadata(file.path()).unwrap().modified().unwrap();
    run(&mut with_file("--compare --rw read", file.path())).succeeds();
    assert_eq!(std::fs::metadata(file.path()).unwrap().modified().unwrap(), before);
}

#[test]
fn without_arguments_there_is_a_tour_in_twenty_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let no_arguments: [&str; 0] = [];
    let ran = run(annulus(no_arguments).env("TMPDIR", dir.path()));
    let out = &ran.succeeds().out;
    assert!(begun.elapsed() < Duration::from_secs(20), "took {:?}", begun.elapsed());
    let welcome: Vec<&str> = out.lines().take(4).collect();
    assert!(welcome.concat().contains("annulus bench --help"), "{welcome:?}");
    for rw in ["randread, ", "randrw, ", "nop, "] {
        assert!(out.contains(rw), "{out}");
    }
    assert_eq!(names(dir.path()), [""; 0]);
}
