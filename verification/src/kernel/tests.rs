use super::*;

fn bench(dir: &Path) -> Bench<'_> {
    Bench {
        dir,
        memory: Arena::new().expect("memory"),
        patience: Duration::from_secs(5),
        kernel_only: true,
    }
}

/// A difference between the kernel and itself would be the harness's fault.
#[test]
fn the_kernel_equals_itself() {
    let exe = std::env::current_exe().expect("its own path");
    let dir = tempfile::tempdir_in(exe.parent().expect("a directory")).expect("a directory");
    let mut bench = bench(dir.path());
    if let Err(e) = bench.probe() {
        // Where all must be shown, this has to be.
        let ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty() && value != "false");
        assert!(!ci, "in CI nothing may be left out: {e}");
        eprintln!("==== NOT RUN: {e}.");
        return;
    }
    let wish = Wish { seed: 11, mode: None };
    for index in 0..150 {
        let program = generate::program(&wish, index);
        let (difference, _) = bench.both(&program).expect("a world");
        if let Some(difference) = difference {
            panic!("program {index}, step {}: {}\n{program}", difference.step, difference.what);
        }
    }
}
