//! How a virtio device is reached, whatever bus it is on.

use super::Error;
use super::spec::status;

/// Where a queue's parts are, for the device (section 2.6).
#[derive(Clone, Copy, Debug)]
pub struct QueueSetup {
    /// Entries.
    pub size: u16,
    /// The descriptors, at this device address.
    pub descriptors: u64,
    /// What the driver writes besides: the available ring, or event
    /// suppression.
    pub driver: u64,
    /// What the device writes besides: the used ring, or event suppression.
    pub device: u64,
    /// The MSI-X vector for its interrupts; no other transport has them.
    pub vector: Option<u16>,
    /// Notifications carry the queue's position (VIRTIO_F_NOTIFICATION_DATA).
    pub notification_data: bool,
}

/// What an interrupt was for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    /// A queue has used entries.
    pub queue: bool,
    /// The configuration has changed, or the device wants to be reset.
    pub config: bool,
}

/// A virtio device's registers.
///
/// Of several accesses that belong together (a queue is selected, then
/// configured) [`Disk`](super::Disk) sees to it that nobody comes between.
/// [`notify`](Self::notify) and [`acknowledge`](Self::acknowledge) come from
/// any core at any time, an interrupt handler included.
pub trait Transport {
    /// The virtio device type; 2 is a block device.
    fn device_type(&self) -> u32;

    /// The feature bits on offer.
    fn features(&self) -> u64;

    /// Accepts feature bits.
    fn set_features(&self, features: u64);

    /// The device status.
    fn status(&self) -> u8;

    /// Sets the device status; 0 resets the device, which
    /// [`status`](Self::status) answers 0 for when it is done.
    fn set_status(&self, status: u8);

    /// The largest size of a queue; 0 if there is no such queue.
    fn queue_limit(&self, queue: u16) -> u16;

    /// Configures a queue and enables it. Answers where it is notified.
    ///
    /// # Errors
    /// What the device or its windows have no room for.
    fn set_queue(&self, queue: u16, setup: &QueueSetup) -> Result<usize, Error>;

    /// The MSI-X vector for changes of the configuration, where there are
    /// such.
    ///
    /// # Errors
    /// The device has no room for it.
    fn set_config_vector(&self, vector: Option<u16>) -> Result<(), Error>;

    /// Notifies the device of a queue, at the place that
    /// [`set_queue`](Self::set_queue) answered. `value` is the queue's number,
    /// with the queue's position above it if `data`
    /// (VIRTIO_F_NOTIFICATION_DATA).
    fn notify(&self, at: usize, value: u32, data: bool);

    /// Acknowledges a line interrupt: the device takes it back.
    fn acknowledge(&self) -> Interrupts;

    /// A number that changes with the configuration.
    fn config_generation(&self) -> u32;

    /// Bytes of the configuration that can be read.
    fn config_len(&self) -> usize;

    /// Reads a byte of the configuration.
    fn config8(&self, offset: usize) -> u8;

    /// Reads two bytes of the configuration, at a multiple of 2.
    fn config16(&self, offset: usize) -> u16;

    /// Reads four bytes of the configuration, at a multiple of 4.
    fn config32(&self, offset: usize) -> u32;

    /// Writes a byte of the configuration.
    fn set_config8(&self, offset: usize, value: u8);

    /// Whether the device is gone.
    fn is_gone(&self) -> bool {
        self.status() == status::GONE
    }
}
