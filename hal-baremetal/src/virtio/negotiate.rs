//! From reset to DRIVER_OK (section 3.1.1).

use super::disk::Options;
use super::spec::{feature, status};
use super::{Error, Platform, Transport};

/// For a reset.
const RESET_NS: u64 = 5_000_000_000;

const OTHER: &str = "after a reset it is another device";

/// Resets the device and waits until it has done so: then it uses no memory
/// of ours.
pub(super) fn reset(platform: &impl Platform, transport: &impl Transport) -> Result<(), Error> {
    let deadline = platform.now().saturating_add(RESET_NS);
    transport.set_status(0);
    loop {
        match transport.status() {
            0 => return Ok(()),
            status::GONE => return Err(Error::Gone),
            _ if platform.now() >= deadline => {
                let ms = RESET_NS / 1_000_000;
                return Err(Error::Timeout { what: "finish its reset", ms });
            }
            _ => platform.relax(),
        }
    }
}

/// The features that the driver would have.
fn wanted(options: &Options) -> u64 {
    let mut features = feature::VERSION_1
        | feature::ACCESS_PLATFORM
        | feature::ORDER_PLATFORM
        | feature::SIZE_MAX
        | feature::SEG_MAX
        | feature::RO
        | feature::BLK_SIZE
        | feature::FLUSH
        | feature::TOPOLOGY
        | feature::CONFIG_WCE
        | feature::MQ
        | feature::DISCARD
        | feature::WRITE_ZEROES;
    let choices = [
        (options.packed, feature::RING_PACKED),
        (options.indirect, feature::INDIRECT_DESC),
        (options.event_idx, feature::EVENT_IDX),
        (options.notification_data, feature::NOTIFICATION_DATA),
    ];
    for (wished, feature) in choices {
        if wished {
            features |= feature;
        }
    }
    features
}

/// Resets the device and comes to terms with it about features, up to
/// FEATURES_OK. `known`: those of before a reset, which it must have again.
pub(super) fn negotiate(
    platform: &impl Platform,
    transport: &impl Transport,
    options: &Options,
    known: Option<u64>,
) -> Result<u64, Error> {
    reset(platform, transport)?;
    let mut state = status::ACKNOWLEDGE;
    transport.set_status(state);
    state |= status::DRIVER;
    transport.set_status(state);
    let offered = transport.features();
    if offered & feature::VERSION_1 == 0 {
        return Err(Error::NoFeature { what: "version 1 of the interface (VIRTIO_F_VERSION_1)" });
    }
    let features = known.unwrap_or_else(|| offered & wanted(options));
    if features & !offered != 0 {
        return Err(Error::Config { why: OTHER });
    }
    transport.set_features(features);
    state |= status::FEATURES_OK;
    transport.set_status(state);
    match transport.status() {
        status::GONE => Err(Error::Gone),
        now if now & status::FEATURES_OK == 0 => Err(Error::Refused { features }),
        _ => Ok(features),
    }
}

/// The driver is ready; the queues are set.
pub(super) fn start(transport: &impl Transport) {
    let all = status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK | status::DRIVER_OK;
    transport.set_status(all);
}
