//! `annulus copy` to and from namespaces.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

use super::annulus;
use crate::scenarios::Context;

const FROM: &str = "/tmp/from";
const BACK: &str = "/tmp/back";

/// Files of awkward sizes go to each namespace and come back; a sparse one
/// keeps its holes; a namespace goes to another, and to another controller.
pub fn copies(context: &mut Context) -> Result<String, String> {
    let address = context.vfio(0)?.address;
    let mut copied = 0;
    for nsid in [1, 2] {
        let place = format!("vfio:{address}/{nsid}");
        for (size, options) in [
            (1, ""),
            (511, "--depth 1"),
            (4096, ""),
            (4097, "--bs 4k"),
            (5_000_001, ""),
            (5_000_001, "--bs 64k --depth 7"),
            (20 << 20, "--bs 4M --depth 8"),
        ] {
            let bytes: Vec<u8> =
                (0..size).map(|i: usize| (i ^ (i >> 8) ^ (i >> 16)) as u8).collect();
            fs::write(FROM, &bytes).map_err(at(FROM))?;
            let ran = annulus(&format!("copy {FROM} {place} --force {options}"))?;
            ran.says(&[", verified", "copied "])?;
            let padded = size % if nsid == 1 { 512 } else { 4096 } != 0;
            if ran.out.contains(&format!("copy with --size {size}")) != padded {
                return Err(format!("padding is told wrongly: {}", ran.out));
            }
            annulus(&format!("copy {place} {BACK} --force --size {size} {options}"))?
                .says(&[", verified"])?;
            if fs::read(BACK).map_err(at(BACK))? != bytes {
                return Err(format!("{size} bytes came back from {place} as others"));
            }
            copied += 1;
        }
    }
    holes(&address)?;
    let ran = annulus(&format!("copy vfio:{address}/1 vfio:{address}/2 --force"))?;
    ran.says(&["copied 32 MiB to namespace 2", ", verified"])?;
    // And on to another controller.
    let other = context.vfio(1)?.address;
    let ran = annulus(&format!("copy vfio:{address}/2 vfio:{other} --force --bs 256k"))?;
    ran.says(&[&format!("to namespace 1 of QEMU NVMe Ctrl at {other}"), ", verified"])?;
    annulus(&format!("copy vfio:{other}/1 {BACK} --force"))?.says(&["copied 32 MiB"])?;
    sparse(BACK)?;
    let mode = fs::metadata(BACK).map_err(at(BACK))?.mode() & 0o777;
    if mode != 0o600 {
        return Err(format!("{BACK} can be read by others: {mode:o}"));
    }
    Ok(format!("{copied} sizes, a sparse file, from namespace to namespace"))
}

const PIECES: [(u64, usize); 3] = [(0, 10_000), (10 << 20, 4096), ((30 << 20) + 100, 3000)];
/// All of a namespace.
const SPARSE: u64 = 32 << 20;

/// A sparse file overwrites what was there, with zeroes where it has holes.
fn holes(address: &str) -> Result<(), String> {
    let file = File::create(FROM).map_err(at(FROM))?;
    for (offset, len) in PIECES {
        file.write_all_at(&vec![0xa5; len], offset).map_err(at(FROM))?;
    }
    file.set_len(SPARSE).map_err(at(FROM))?;
    annulus(&format!("copy {FROM} vfio:{address}/1 --force"))?.says(&[
        "copied 32 MiB (",
        "of data, the rest holes)",
        ", verified",
    ])?;
    annulus(&format!("copy vfio:{address}/1 {BACK} --force"))?.says(&[", verified"])?;
    sparse(BACK)
}

/// It is the sparse file, and still sparse.
fn sparse(path: &str) -> Result<(), String> {
    let mut wanted = vec![0; SPARSE as usize];
    for (offset, len) in PIECES {
        wanted[offset as usize..offset as usize + len].fill(0xa5);
    }
    if fs::read(path).map_err(at(path))? != wanted {
        return Err(format!("{path} is not the sparse file"));
    }
    let blocks = fs::metadata(path).map_err(at(path))?.blocks();
    // Three blocks of 1 MiB, with something in each.
    if blocks > (4 << 20) / 512 {
        return Err(format!("{path} has no holes: {blocks} blocks of 512 bytes"));
    }
    Ok(())
}

fn at(path: &str) -> impl Fn(io::Error) -> String {
    move |e| format!("{path}: {e}")
}
