//! The power interface (Arm DEN 0022): the second core, and the end.

use core::arch::asm;

use annulus_unikernel::board::Conduit;

/// Functions in the calling convention of 64 bits, where there is one.
const CPU_ON: u64 = 0xc400_0003;
const SYSTEM_OFF: u64 = 0x8400_0008;

/// Whether it was done.
fn call(conduit: Conduit, function: u64, arguments: [u64; 3]) -> bool {
    let [x1, x2, x3] = arguments;
    let mut x0 = function;
    // The convention lets a call change x0 to x17 (SMCCC 2.6).
    macro_rules! call {
        ($instruction:literal) => {
            // SAFETY: the functions that are called touch no memory of this
            // core.
            unsafe {
                asm!(
                    $instruction,
                    inout("x0") x0,
                    in("x1") x1,
                    in("x2") x2,
                    in("x3") x3,
                    clobber_abi("C"),
                    options(nostack)
                )
            }
        };
    }
    match conduit {
        Conduit::Hvc => call!("hvc #0"),
        Conduit::Smc => call!("smc #0"),
    }
    // Anything but success is negative (DEN 0022, 5.2.2).
    x0 == 0
}

/// Starts the core `mpidr` at `entry`, with the MMU off. False if there is
/// none, or it runs already.
pub fn start(conduit: Conduit, mpidr: u64, entry: u64) -> bool {
    call(conduit, CPU_ON, [mpidr, entry, 0])
}

/// Ends the machine. It comes back only if that cannot be done.
pub fn off(conduit: Conduit) {
    call(conduit, SYSTEM_OFF, [0; 3]);
}
