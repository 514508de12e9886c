//! What the operations of a bench are done to: a file, or a namespace of an NVMe controller.

use std::os::fd::{AsRawFd, RawFd};

use annulus_linux::nvme::Options;
use annulus_linux::vfio::PciAddress;

use super::plan::Plan;
use super::target::{NEW_FILE, Target, check_size};
use crate::cli::BenchArgs;
use crate::device::{self, Namespace};
use crate::error::{Failure, usage};

/// Something that has blocks.
#[derive(Debug)]
pub enum Medium {
    /// A file or block device, through the kernel.
    File(Target),
    /// A namespace, and how much of it is used; at least one block.
    Namespace(Namespace, u64),
}

impl Medium {
    /// Finds or makes it.
    ///
    /// # Errors
    /// What is wrong with it and what to do; what was there is untouched then.
    pub fn open(args: &BenchArgs, plan: &Plan) -> Result<Self, Failure> {
        match args.vfio {
            None => Target::open(args, plan).map(Self::File),
            Some(address) => Self::open_namespace(address, args, plan),
        }
    }

    fn open_namespace(address: PciAddress, args: &BenchArgs, plan: &Plan) -> Result<Self, Failure> {
        if plan.writes() && !args.overwrite {
            let what = if plan.verify { "--verify" } else { plan.work_name() };
            return Err(usage!(
                "{what} would overwrite namespace {} of {address}; add --overwrite if nothing on \
                it is needed any more, or use --rw randread",
                args.namespace
            ));
        }
        let options =
            Options { pairs: 1, shadow_doorbells: args.shadow_doorbells, ..Options::default() };
        let nvme = device::open(address, options)?;
        let namespace = Namespace::find(&nvme, address, args.namespace)?;
        if plan.writes() {
            namespace.check_writable()?;
        }
        if args.shadow_doorbells && !nvme.controller().has_shadow() {
            return Err(usage!(
                "--shadow-doorbells: the controller at {address} has none (Doorbell Buffer \
                Config); leave --shadow-doorbells out"
            ));
        }
        namespace.check_grid("--bs", plan.bs)?;
        let all = namespace.info.bytes;
        let size = match args.size {
            // Everything is written first; all of a disk would take hours.
            None if plan.verify => all.min(NEW_FILE.max(plan.bs)),
            None => all,
            Some(size) if size > all => {
                return Err(usage!(
                    "--size {size}: {} has only {all} bytes; use --size {all} or less",
                    namespace.name()
                ));
            }
            Some(size) => size,
        };
        check_size(size, plan.bs, &namespace.name())?;
        let most = nvme.controller().limits().queue_entries - 1;
        if plan.depth > most {
            eprintln!(
                "annulus: note: the controller's queues take {most} commands; of --depth {} the \
                rest waits in the ring",
                plan.depth
            );
        }
        Ok(Self::Namespace(namespace, size))
    }

    /// The number that it has on rings.
    pub fn fd(&self) -> RawFd {
        match self {
            Self::File(target) => target.file.as_raw_fd(),
            Self::Namespace(namespace, _) => namespace.fd,
        }
    }

    /// How much of it is used.
    pub fn size(&self) -> u64 {
        match self {
            Self::File(target) => target.size,
            Self::Namespace(_, size) => *size,
        }
    }

    /// What it is called in a heading.
    pub fn name(&self) -> String {
        match self {
            Self::File(target) => target.name.clone(),
            Self::Namespace(namespace, _) => namespace.name(),
        }
    }

    /// The way to it, for a heading.
    pub fn way(&self, plan: &Plan) -> String {
        match self {
            Self::File(_) if plan.direct => "O_DIRECT".into(),
            Self::File(_) => "page cache".into(),
            Self::Namespace(namespace, _) => {
                let found = plan.completions.map_or("", |completions| completions.name());
                let doorbells = match namespace.nvme.controller().has_shadow() {
                    true => ", shadow doorbells",
                    false => "",
                };
                format!("VFIO, completions: {found}{doorbells}")
            }
        }
    }

    /// What is known of the last failure beside its errno, for the end of a sentence.
    pub fn last_failure(&self) -> String {
        match self {
            Self::File(_) => String::new(),
            Self::Namespace(namespace, _) => namespace.last_status(),
        }
    }
}
