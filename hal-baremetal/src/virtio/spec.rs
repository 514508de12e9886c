//! Numbers of the standard (VIRTIO 1.3, sections 2.1, 2.7, 2.8, 5.2 and 6).

/// The device type of a block device (section 5).
pub const BLOCK: u32 = 2;

/// Device status (section 2.1).
pub mod status {
    pub const ACKNOWLEDGE: u8 = 1;
    pub const DRIVER: u8 = 2;
    pub const DRIVER_OK: u8 = 4;
    pub const FEATURES_OK: u8 = 8;
    pub const NEEDS_RESET: u8 = 64;
    /// What a device that is gone answers. No device has all bits set: some
    /// are reserved.
    pub const GONE: u8 = 0xff;
}

/// Feature bits (sections 5.2.3 and 6).
pub mod feature {
    pub const SIZE_MAX: u64 = 1 << 1;
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const TOPOLOGY: u64 = 1 << 10;
    pub const CONFIG_WCE: u64 = 1 << 11;
    pub const MQ: u64 = 1 << 12;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
    pub const INDIRECT_DESC: u64 = 1 << 28;
    pub const EVENT_IDX: u64 = 1 << 29;
    pub const VERSION_1: u64 = 1 << 32;
    /// Device addresses are what the platform says they are: ours always are.
    pub const ACCESS_PLATFORM: u64 = 1 << 33;
    pub const RING_PACKED: u64 = 1 << 34;
    /// The device needs a device's barriers: ours always are.
    pub const ORDER_PLATFORM: u64 = 1 << 36;
    pub const NOTIFICATION_DATA: u64 = 1 << 38;
}

/// Request types (section 5.2.6).
pub mod request {
    pub const IN: u32 = 0;
    pub const OUT: u32 = 1;
    pub const FLUSH: u32 = 4;
    pub const GET_ID: u32 = 8;
    pub const DISCARD: u32 = 11;
    pub const WRITE_ZEROES: u32 = 13;
}

/// Bytes of a request's header.
pub const HEADER_BYTES: u32 = 16;
/// Bytes of a range to discard or to zero.
pub const RANGE_BYTES: u32 = 16;
/// Bytes of the answer to GET_ID.
pub const ID_BYTES: u32 = 20;
/// The flag of a range to zero that lets the device deallocate it.
pub const UNMAP: u32 = 1;
/// The unit of positions and of the capacity, whatever the block size.
pub const SECTOR: u64 = 512;
/// Its logarithm.
pub const SECTOR_SHIFT: u32 = 9;

/// Bytes of a descriptor, in either layout.
pub const DESCRIPTOR_BYTES: usize = 16;

/// Descriptor flags (sections 2.7.5 and 2.8.1).
pub mod descriptor {
    pub const NEXT: u16 = 1;
    /// The device writes this memory.
    pub const WRITE: u16 = 2;
    pub const INDIRECT: u16 = 4;
    /// Packed: equal to the driver's wrap counter when available.
    pub const AVAIL: u16 = 1 << 7;
    /// Packed: unequal to [`AVAIL`] when available, equal when used.
    pub const USED: u16 = 1 << 15;
}

/// `avail.flags` and `used.flags` of a split queue: do not notify.
pub const NO_EVENTS: u16 = 1;

/// Event suppression of a packed queue (section 2.8.14).
pub mod event {
    pub const ENABLE: u16 = 0;
    pub const DISABLE: u16 = 1;
    /// At one descriptor.
    pub const DESC: u16 = 2;
}

/// No MSI-X vector.
pub const NO_VECTOR: u16 = 0xffff;
