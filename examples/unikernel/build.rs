//! Links an image where its machine wants it: `src/arch/ARCHITECTURE/link.ld`.

use std::env::var;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if var("CARGO_CFG_TARGET_OS").as_deref() != Ok("none") {
        return;
    }
    let (here, arch) = (var("CARGO_MANIFEST_DIR"), var("CARGO_CFG_TARGET_ARCH"));
    let (Ok(here), Ok(arch)) = (here, arch) else { return };
    let script = format!("{here}/src/arch/{arch}/link.ld");
    println!("cargo::rerun-if-changed={script}");
    println!("cargo::rustc-link-arg-bins=-T{script}");
    // It runs where it is linked: there is nobody to relocate it.
    println!("cargo::rustc-link-arg-bins=--no-pie");
}
