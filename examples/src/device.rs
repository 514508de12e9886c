//! NVMe controllers through VFIO, opened for what the program does with them.

use std::os::fd::RawFd;

use annulus_linux::nvme::{self, ControllerError, NamespaceInfo, Nvme, Options};
use annulus_linux::vfio::{self, PciAddress};

use crate::error::{Failure, failed, usage};

/// Takes a controller that is bound to vfio-pci.
///
/// # Errors
/// What is in the way, and what to do about it.
pub fn open(address: PciAddress, options: Options) -> Result<Nvme, Failure> {
    Nvme::open_with(&address.to_string(), options).map_err(|error| match error {
        nvme::Error::Vfio(error) => explain(&error),
        error => failed!("{error}"),
    })
}

/// An error of VFIO as a failure of the program: a request that makes no sense or is not safe, or
/// a device that cannot be had.
pub fn explain(error: &vfio::Error) -> Failure {
    match error {
        vfio::Error::Address { .. } | vfio::Error::NotNvme { .. } | vfio::Error::Busy { .. } => {
            usage!("{error}")
        }
        _ => failed!("{error}"),
    }
}

/// Why `error` came of setting up a ring on a controller, or of registering buffers for it: what
/// memory could not be mapped says more.
pub fn unmapped(nvme: &Nvme, error: &dyn std::error::Error) -> String {
    nvme.take_refusal().map_or_else(|| error.to_string(), |refusal| refusal.to_string())
}

/// A namespace of a controller that is open.
#[derive(Debug, Clone)]
pub struct Namespace {
    /// The controller.
    pub nvme: Nvme,
    /// Where the controller is.
    pub address: PciAddress,
    /// The namespace's size and block.
    pub info: NamespaceInfo,
    /// The file number that it has on rings.
    pub fd: RawFd,
}

impl Namespace {
    /// Finds namespace `nsid` of a controller.
    ///
    /// # Errors
    /// It is not there (and which ones are), or cannot be used.
    pub fn find(nvme: &Nvme, address: PciAddress, nsid: u32) -> Result<Self, Failure> {
        let fd = RawFd::try_from(nsid)
            .map_err(|_| usage!("namespace {nsid}: a ring reaches those up to {}", RawFd::MAX))?;
        let info = nvme.controller().namespace(nsid).map_err(|error| match error {
            ControllerError::NoNamespace { nsid, .. } => {
                usage!("{address} has no active namespace {nsid}; it has {}", active(nvme))
            }
            error => failed!("{address}: {error}"),
        })?;
        Ok(Self { nvme: nvme.clone(), address, info, fd })
    }

    /// What it is called in a sentence.
    pub fn name(&self) -> String {
        let model = self.nvme.controller().info().model;
        format!("namespace {} of {model} at {}", self.info.id, self.address)
    }

    /// Refuses a size that is not a multiple of the namespace's block.
    ///
    /// # Errors
    /// [`Failure::Usage`] saying what to give instead.
    pub fn check_grid(&self, option: &str, bytes: u64) -> Result<(), Failure> {
        let block = u64::from(self.info.block());
        if bytes.is_multiple_of(block) {
            return Ok(());
        }
        Err(usage!(
            "{option} {bytes}: namespace {} takes whole blocks of {block} bytes only; use {option} \
            {}",
            self.info.id,
            bytes.next_multiple_of(block)
        ))
    }

    /// Refuses a namespace that cannot be written.
    ///
    /// # Errors
    /// [`Failure::Usage`].
    pub fn check_writable(&self) -> Result<(), Failure> {
        match self.info.read_only {
            true => Err(usage!("{} is read-only (write protected)", self.name())),
            false => Ok(()),
        }
    }

    /// What the controller answered to the last command that failed, for the end of a sentence:
    /// its own status says more than an errno. Empty if none failed.
    pub fn last_status(&self) -> String {
        let (last, _) = self.nvme.controller().recent_errors();
        last[0]
            .map_or_else(String::new, |error| format!("; the controller answered {}", error.status))
    }
}

/// The active namespaces in words.
fn active(nvme: &Nvme) -> String {
    match active_namespaces(nvme) {
        Ok(ids) if ids.is_empty() => "none; make one with `nvme create-ns`".into(),
        Ok(ids) => ids.iter().map(u32::to_string).collect::<Vec<_>>().join(", "),
        Err(error) => format!("none that it would tell of ({error})"),
    }
}

/// The ids of all active namespaces, ascending.
///
/// # Errors
/// The controller's.
pub fn active_namespaces(nvme: &Nvme) -> Result<Vec<u32>, ControllerError> {
    let mut ids = Vec::new();
    loop {
        let mut some = [0; 64];
        let mut last = ids.last().copied().unwrap_or(0);
        let count = nvme.controller().active_namespaces(last, &mut some)?;
        for &id in &some[..count] {
            // Ascending by the standard; a controller that goes back would keep us here for ever.
            if id <= last {
                return Ok(ids);
            }
            ids.push(id);
            last = id;
        }
        if count < some.len() {
            return Ok(ids);
        }
    }
}
