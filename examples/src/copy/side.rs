//! The source or the copy, as operations name it.

use std::os::fd::RawFd;

use annulus_linux::{opcode, squeue, types};

use crate::device::Namespace;

/// The index of the buffers where they are registered.
const REGISTERED: u16 = 0;

/// The source, or the copy: how its operations are written.
#[derive(Debug, Clone, Copy)]
pub struct Side {
    /// Its ring.
    pub ring: usize,
    /// Its number there.
    pub fd: RawFd,
    /// What lengths and offsets are multiples of.
    pub grid: u32,
    /// The buffers are registered with its ring.
    registered: bool,
    /// It can write zeroes by itself.
    pub zeroes: bool,
}

impl Side {
    /// A namespace, or a file whose number is not known yet, on ring `ring`.
    pub fn new(ring: usize, namespace: Option<&Namespace>) -> Self {
        Self {
            ring,
            fd: namespace.map_or(-1, |namespace| namespace.fd),
            grid: namespace.map_or(1, |namespace| namespace.info.block()),
            registered: namespace.is_some(),
            zeroes: namespace.is_some_and(|ns| ns.nvme.controller().info().write_zeroes),
        }
    }

    /// A length on the grid.
    pub fn padded(&self, len: u32) -> u32 {
        len.next_multiple_of(self.grid)
    }

    /// A read into `at`, in the buffers.
    pub fn read(&self, at: *mut u8, len: u32, offset: u64) -> squeue::Entry {
        let fd = types::Fd(self.fd);
        match self.registered {
            true => opcode::ReadFixed::new(fd, at, len, REGISTERED).offset(offset).build(),
            false => opcode::Read::new(fd, at, len).offset(offset).build(),
        }
    }

    /// A write from `at`, in the buffers.
    pub fn write(&self, at: *mut u8, len: u32, offset: u64) -> squeue::Entry {
        let fd = types::Fd(self.fd);
        match self.registered {
            true => opcode::WriteFixed::new(fd, at, len, REGISTERED).offset(offset).build(),
            false => opcode::Write::new(fd, at, len).offset(offset).build(),
        }
    }

    /// Has the device write zeroes.
    pub fn zero(&self, len: u32, offset: u64) -> squeue::Entry {
        opcode::Fallocate::new(types::Fd(self.fd), u64::from(len))
            .offset(offset)
            .mode(libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE)
            .build()
    }
}
