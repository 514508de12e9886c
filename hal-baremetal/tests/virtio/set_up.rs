//! Devices that cannot be used: each a clear error, and the device left reset.

use crate::fake::{Fake, Setup, Wires, bit, mmio, pci};
use crate::rig::*;
use annulus::errno::Errno;
use annulus_baremetal::virtio::{
    Error, MmioTransport, Options, PciTransport, PciWindows, QueueOptions, Transport,
};
use std::sync::Arc;

fn refused(fake: &Arc<Fake>, transport: impl Transport, options: Options) -> Error {
    let error = disk::<_, false>(fake, transport, options).unwrap_err();
    fake.device().now += 1_000_000_000;
    fake.check();
    assert!(!error.to_string().is_empty());
    error
}

fn over_both(setup: Setup) -> Error {
    let (one, other) = (fake(setup.clone()), fake(setup));
    let first = refused(&one, mmio(&one), quick());
    assert_eq!(first, refused(&other, pci(&other), quick()), "over MMIO and over PCI");
    first
}

#[test]
fn devices_that_are_none_or_of_another_kind() {
    for (setup, what) in [
        (Setup { version: 1, ..Setup::default() }, Error::Legacy { version: 1 }),
        (
            Setup { device_type: 0, ..Setup::default() },
            Error::NoDevice { why: "the device type is 0" },
        ),
    ] {
        let fake = fake(setup);
        assert_eq!(MmioTransport::new(Wires::mmio(&fake)).unwrap_err(), what);
    }
    let gone = fake(Setup::default());
    gone.device().gone = true;
    assert_eq!(MmioTransport::new(Wires::mmio(&gone)).unwrap_err(), Error::Gone);
    assert_eq!(disk::<_, false>(&gone, pci(&gone), quick()).unwrap_err(), Error::Gone);
    assert_eq!(
        over_both(Setup { device_type: 1, ..Setup::default() }),
        Error::WrongType { have: 1 }
    );
}

#[test]
fn windows_that_are_too_small() {
    let fake = fake(Setup::default());
    let short = |wires: Wires, len| Wires(wires.0, wires.1, len);
    assert!(matches!(
        MmioTransport::new(short(Wires::mmio(&fake), 0xff)).unwrap_err(),
        Error::Window { have: 0xff, need: 0x100, .. }
    ));
    // Room for the registers, and not for the configuration.
    let transport = MmioTransport::new(short(Wires::mmio(&fake), 0x104)).unwrap();
    assert!(matches!(refused(&fake, transport, quick()), Error::Window { have: 4, .. }));
    let windows = Wires::pci(&fake);
    let common = PciWindows { common: short(windows.common.clone(), 0x37), ..windows.clone() };
    assert!(matches!(PciTransport::new(common).unwrap_err(), Error::Window { have: 0x37, .. }));
    // The third queue is notified beyond the end.
    let notify = PciWindows { notify: short(windows.notify.clone(), 8), ..windows.clone() };
    let transport = PciTransport::new(notify).unwrap();
    let error = refused(&fake, transport, Options { queues: 4, ..quick() });
    assert!(matches!(error, Error::Window { have: 8, need: 10, .. }), "{error}");
    let none = PciTransport::new(PciWindows { device: None, ..windows }).unwrap();
    assert!(matches!(refused(&fake, none, quick()), Error::Window { have: 0, .. }));
}

#[test]
fn features_that_are_missing_or_refused() {
    let setup = Setup::default();
    let features = setup.features & !bit::VERSION_1;
    assert!(matches!(over_both(Setup { features, ..setup.clone() }), Error::NoFeature { .. }));
    let refuses = Setup { refused: bit::VERSION_1, ..setup };
    assert!(matches!(over_both(refuses), Error::Refused { .. }));
}

#[test]
fn configurations_that_cannot_be() {
    let setup = Setup::default();
    let with = |features: u64| Setup { features: setup.features | features, ..setup.clone() };
    for wrong in [
        Setup { sectors: 0, ..setup.clone() },
        Setup { sectors: 7, block: 4096, ..setup.clone() },
        Setup { sectors: u64::MAX, ..setup.clone() },
        Setup { sectors: 1 << 55, ..setup.clone() },
        Setup { block: 3, ..setup.clone() },
        Setup { block: 0, ..setup.clone() },
        Setup { block: 256, ..setup.clone() },
        Setup { block: 1 << 20, ..setup.clone() },
        Setup { queues: 0, ..setup.clone() },
        Setup { segments: 1, segment_bytes: 511, ..with(bit::SIZE_MAX) },
        Setup { segments: 1, segment_bytes: 0, ..with(bit::SIZE_MAX) },
        Setup { restless_config: 100_000, ..setup.clone() },
    ] {
        let error = over_both(wrong.clone());
        assert!(matches!(error, Error::Config { .. }), "{wrong:?}: {error}");
    }
}

#[test]
fn queues_that_cannot_be_used() {
    for size in [0, 1] {
        let error = over_both(Setup { queue_size: size, ..Setup::default() });
        assert!(matches!(error, Error::Queue { queue: 0, .. }), "{error}");
    }
    // Too small for a request, unless there are indirect descriptors.
    let setup = Setup::default();
    for features in [setup.features, setup.features & !bit::INDIRECT] {
        let fake = fake(Setup { queue_size: 2, features, ..setup.clone() });
        let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
        let error = Side::new(&on, &polled(), 8).err().unwrap();
        assert!(matches!(error, Error::Queue { queue: 0, .. }), "{error}");
        drop(on);
        fake.check();
    }
}

#[test]
fn a_block_in_more_pieces_than_a_queue_has_room_for() {
    let mut setup = Setup { queue_size: 4, block: 4096, segment_bytes: 512, ..Setup::default() };
    setup.features |= bit::SIZE_MAX;
    let fake = fake(setup);
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let error = Side::new(&on, &polled(), 8).err().unwrap();
    assert!(matches!(error, Error::Queue { queue: 0, .. }), "{error}");
    drop(on);
    fake.check();
}

#[test]
fn vectors_that_there_are_not() {
    let setup = Setup { vectors: 2, ..Setup::default() };
    let some = fake(setup.clone());
    let options = Options { queues: 3, queue_vector: Some(0), ..quick() };
    assert_eq!(refused(&some, pci(&some), options), Error::Vector { vector: 2 });
    assert_eq!(refused(&some, mmio(&some), options), Error::Vector { vector: 0 });
    let options = Options { config_vector: Some(7), ..quick() };
    assert_eq!(refused(&some, pci(&some), options), Error::Vector { vector: 7 });
    let options = Options { config_vector: Some(0), queue_vector: Some(1), ..quick() };
    drop(disk::<_, false>(&some, pci(&some), options).unwrap());
    some.check();
}

#[test]
fn a_reset_that_never_ends() {
    let fake = fake(Setup::default());
    fake.device().lies.no_reset = true;
    let error = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap_err();
    assert_eq!(error, Error::Timeout { what: "finish its reset", ms: 5000 });
}

#[test]
fn memory_runs_out() {
    for step in 0..6 {
        let fake = fake(Setup::default());
        fake.device().memory.fail_in = Some(step);
        let made = disk::<_, false>(&fake, mmio(&fake), Options { queues: 4, ..quick() });
        let error = match (made, step) {
            (Err(error), 0..4) => error,
            (Ok(on), 4..) => Side::new(&on, &polled(), 8).err().unwrap(),
            (made, _) => panic!("{step}: {made:?}"),
        };
        let Error::Memory { what, errno } = error else { panic!("{error}") };
        assert_eq!(errno, Errno::ENOMEM);
        assert_eq!(
            what,
            ["a queue", "the requests", "the bounce buffers"][step.saturating_sub(3) as usize]
        );
        fake.device().now += 1_000_000_000;
        fake.check();
    }
}

#[test]
fn arguments() {
    let fake = fake(Setup::default());
    for wrong in [
        Options { queues: 0, ..quick() },
        Options { queue_size: 1, ..quick() },
        Options { timeout_ms: 0, ..quick() },
    ] {
        let error = disk::<_, false>(&fake, mmio(&fake), wrong).unwrap_err();
        assert!(matches!(error, Error::Argument(_)));
    }
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    for wrong in [
        QueueOptions { depth: 0, ..polled() },
        QueueOptions { segments: 0, ..polled() },
        QueueOptions { bounce_bytes: 1000, ..polled() },
        QueueOptions { max_transfer: 511, ..polled() },
    ] {
        assert!(matches!(Side::new(&on, &wrong, 8).err().unwrap(), Error::Argument(_)));
    }
    let first = Side::new(&on, &polled(), 8).unwrap();
    assert_eq!(Side::new(&on, &polled(), 8).err().unwrap(), Error::NoQueue { queues: 1 });
    first.end();
    // Its queue is free again, and goes on where it was.
    for _ in 0..3 {
        let mut next = Side::new(&on, &polled(), 8).unwrap();
        assert_eq!(
            next.run(Ask::new(annulus::uapi::IORING_OP_READ_FIXED, next.buffer.addr(), 512, 0)),
            512
        );
        next.end();
    }
    drop(on);
    fake.check();
}

#[test]
fn a_queue_has_the_size_that_was_asked_for() {
    for (asked, limit, size) in [(256, 256, 256), (1024, 256, 256), (300, 1024, 256), (8, 256, 8)] {
        let fake = fake(Setup { queue_size: limit, ..Setup::default() });
        let options = Options { queue_size: asked, ..quick() };
        let on = disk::<_, false>(&fake, mmio(&fake), options).unwrap();
        assert_eq!(fake.device().queues[0].size, size);
        let side = Side::new(&on, &QueueOptions { depth: 1000, ..polled() }, 2000).unwrap();
        assert_eq!(side.backend.as_ref().unwrap().depth(), u32::from(size).min(1000));
        side.end();
    }
}

#[test]
fn what_a_disk_says_of_itself() {
    let fake = fake(Setup { block: 4096, sectors: 2049, ..Setup::default() });
    fake.device().setup.restless_config = 5;
    let on = disk::<_, false>(&fake, mmio(&fake), quick()).unwrap();
    let info = on.info();
    // Five times it has changed between two halves, and grown.
    assert_eq!(info.bytes, (2048 + 5 * (1 << 31)) * 512);
    assert_eq!((info.block, info.physical_block, info.alignment_offset), (4096, 32768, 4096));
    assert_eq!((info.min_io, info.opt_io), (8 * 4096, 64 * 4096));
    assert!(info.write_cache && !info.read_only && info.zeroes_unmap);
    assert_eq!((info.max_discard, info.max_zeroes), (64 * 512, 64 * 512));
    assert_eq!((info.segments, info.queues), (126, 4));
    let mut side = Side::new(&on, &polled(), 8).unwrap();
    side.device().auto = true;
    let id = side.backend().id();
    assert_eq!(id, Ok(*b"a disk made of code\0"));
    side.end();
    drop(on);
    fake.check();
}

#[test]
fn disks_are_shared_and_rings_go_to_other_threads() {
    fn shared<T: Send + Sync>() {}
    fn sent<T: Send>() {}
    type Windows = PciTransport<annulus_baremetal::Window>;
    shared::<annulus_baremetal::virtio::Disk<crate::fake::Plug, Windows>>();
    sent::<OnDisk<Windows, false>>();
}
