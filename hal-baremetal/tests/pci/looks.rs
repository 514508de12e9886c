//! Every look that there is at functions whose registers may hold anything:
//! for the property test, and for the fuzzer.

use annulus::hal::device::Mmio;
use annulus_baremetal::pci::{
    Function, Leave, Message, Msix, Slot, VirtioWindows, Windows, functions, set_up,
};
use annulus_baremetal::{Machine, NvmeFunction};

use crate::fake::{APERTURE, Board, Fake, MAPPED};

/// The most capabilities that a list can have.
const MOST: usize = 48;

/// Looks at all of them; nothing outside of a BAR is touched.
pub fn look_at_all(machine: &Machine<Board>, fake: &Fake) {
    let config = fake.ecam();
    let windows =
        Windows { memory: APERTURE..APERTURE + (16 << 20), prefetchable: Some(1 << 40..1 << 41) };
    let _ = set_up(&config, 0, &windows);
    let leave = Leave::new();
    let message = Message { address: 0xfee0_0000, data: 1 };
    for function in functions(&config, 0).take(4096) {
        assert!(function.capabilities().take(MOST + 1).count() <= MOST, "a list without an end");
        for index in 0..8 {
            let _ = function.bar(index);
            let _ = function.window(machine, index);
        }
        if let Ok(found) = VirtioWindows::new(machine, &function) {
            assert!(!found.isr.is_empty() && found.common.len() >= 56);
            let windows = [found.common, found.notify, found.isr];
            assert!(windows.iter().chain(&found.device).all(|w| w.len() <= MAPPED));
        }
        if let Ok(msix) = Msix::new(machine, &function) {
            let last = msix.vectors() - 1;
            let _ = (msix.set(last, message), msix.is_pending(last));
        }
        if let Ok(slot) = Slot::new(&function) {
            let _ = (slot.listen(machine), slot.power_off(machine), slot.acknowledge());
        }
        let _ = NvmeFunction::new(*machine, function, &[message; 2], &leave);
        let _ = function.reset(machine);
        let _ = Function::new(&config, function.address()).map(|same| same.enable());
    }
}
