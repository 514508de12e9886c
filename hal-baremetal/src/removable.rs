//! A machine for the driver of a device that may be wanted back.

use crate::machine::pass_on;
use crate::pci::Leave;
use crate::{Machine, Platform, virtio};

/// A [`Machine`] whose device goes when it is asked for: what
/// [`virtio::Disk`] takes for a disk in a slot. Made by
/// [`Machine::removable`].
#[derive(Clone, Copy, Debug)]
pub struct Removable<'c, P> {
    machine: Machine<P>,
    leave: &'c Leave,
}

impl<P: Platform> Machine<P> {
    /// This machine for one device: once `leave` asks for it, its requests end
    /// with `-ENODEV`.
    pub const fn removable(self, leave: &Leave) -> Removable<'_, P> {
        Removable { machine: self, leave }
    }
}

pass_on!([P: Platform] Removable<'_, P>);

impl<P: Platform> virtio::Platform for Removable<'_, P> {
    fn relax(&self) {
        self.machine.relax();
    }

    fn leaving(&self) -> bool {
        self.leave.is_asked()
    }
}
