//! NVMe controllers on PCI, as core's driver takes them.
//!
//! ```no_run
//! # use annulus_baremetal::{Machine, NvmeFunction, Platform, pci};
//! # fn open<P: Platform + Copy>(
//! #     machine: Machine<P>,
//! #     config: &'static impl pci::ConfigSpace,
//! #     leave: &'static pci::Leave,
//! #     message: &'static [pci::Message],
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! use annulus::nvme::{Controller, Options};
//!
//! let function = pci::functions(config, 0)
//!     .find(|function| function.class() == pci::Class::NVME)
//!     .ok_or("no NVMe controller: add one")?;
//! let device = NvmeFunction::new(machine, function, message, leave)?;
//! let controller = Controller::new(device, Options::default())?;
//! # Ok(())
//! # }
//! ```

use core::fmt;

use annulus::hal::device::Mmio;
use annulus::nvme;

use crate::machine::pass_on;
use crate::pci::{Class, ConfigSpace, Error, Function, Leave, Message, Msix};
use crate::{Machine, Platform, Window};

/// The controller's registers are behind this one (PCIe Transport 2.1.10).
const REGISTERS: u8 = 0;

/// The function of an NVMe controller: registers, memory and time for core's
/// [`nvme::Controller`].
///
/// Dropping it takes the device's right to reach memory away, and turns its
/// interrupts off.
pub struct NvmeFunction<'c, C: ConfigSpace, P: Platform> {
    machine: Machine<P>,
    function: Function<'c, C>,
    window: Window,
    interrupts: Option<Msix<'c, C>>,
    messages: &'c [Message],
    leave: &'c Leave,
}

impl<C: ConfigSpace, P: Platform> fmt::Debug for NvmeFunction<'_, C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("NvmeFunction").field(&self.function).finish()
    }
}

impl<'c, C: ConfigSpace, P: Platform> NvmeFunction<'c, C, P> {
    /// Takes a function that is set up ([`pci::set_up`](crate::pci::set_up)).
    ///
    /// Interrupt vector N sends `messages[N]`. Vector 0 is the admin queue's,
    /// which is polled; a ring with interrupts needs one of its own, so the
    /// first is 1. With none, MSI-X is not touched, and rings are polled.
    ///
    /// # Errors
    /// [`Error::Kind`] if it is no NVMe controller, and those of
    /// [`Function::enable`], [`Function::window`], [`Msix::new`],
    /// [`Msix::set`].
    pub fn new(
        machine: Machine<P>,
        function: Function<'c, C>,
        messages: &'c [Message],
        leave: &'c Leave,
    ) -> Result<Self, Error> {
        if function.class() != Class::NVME {
            let address = function.address();
            let (vendor, device) = (function.vendor(), function.device());
            let wanted = "an NVMe controller (class 01:08:02)";
            return Err(Error::Kind { address, vendor, device, wanted });
        }
        let window = function.window(&machine, REGISTERS)?;
        function.enable()?;
        // From here on dropping it undoes it.
        let mut new = Self { machine, function, window, interrupts: None, messages, leave };
        if !messages.is_empty() {
            new.interrupts = Some(Msix::new(&new.machine, &function)?);
            new.program()?;
        }
        Ok(new)
    }

    /// Where it is.
    pub fn function(&self) -> &Function<'c, C> {
        &self.function
    }

    /// Its interrupts, if it was given messages for them.
    pub fn interrupts(&self) -> Option<&Msix<'c, C>> {
        self.interrupts.as_ref()
    }

    fn program(&self) -> Result<(), Error> {
        let Some(msix) = &self.interrupts else { return Ok(()) };
        for (vector, message) in (0..).zip(self.messages) {
            msix.set(vector, *message)?;
        }
        msix.enable();
        Ok(())
    }
}

impl<C: ConfigSpace, P: Platform> Drop for NvmeFunction<'_, C, P> {
    fn drop(&mut self) {
        if let Some(msix) = &self.interrupts {
            msix.disable();
        }
        self.function.isolate();
    }
}

impl<C: ConfigSpace, P: Platform> nvme::Platform for NvmeFunction<'_, C, P> {
    fn relax(&self) {
        self.machine.relax();
    }

    fn isolate(&self) -> bool {
        self.function.isolate()
    }

    fn leaving(&self) -> bool {
        self.leave.is_asked()
    }

    fn reset_function(&self) -> bool {
        // The table of vectors is forgotten, too.
        self.function.reset(&self.machine).is_ok()
            && self.program().is_ok()
            && self.function.enable().is_ok()
    }
}

pass_on!([C: ConfigSpace, P: Platform] NvmeFunction<'_, C, P>);

impl<C: ConfigSpace, P: Platform> Mmio for NvmeFunction<'_, C, P> {
    #[inline(always)]
    fn len(&self) -> usize {
        self.window.len()
    }

    #[inline(always)]
    fn read32(&self, offset: usize) -> u32 {
        self.window.read32(offset)
    }

    #[inline(always)]
    fn write32(&self, offset: usize, value: u32) {
        self.window.write32(offset, value);
    }
}
