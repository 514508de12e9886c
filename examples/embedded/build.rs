//! Where the kernel's parts lie.

fn main() {
    let dir = std::env::var("CARGO_MANIFEST_DIR").expect("cargo says where this is");
    println!("cargo:rerun-if-changed=virt.ld");
    println!("cargo:rustc-link-arg-bins=-T{dir}/virt.ld");
}
