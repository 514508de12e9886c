//! Up and down, and what may be wrong with a controller on the way.

use crate::fake::{Fake, Fate, Plug, Rule, Setup};
use crate::rig::*;
use annulus::errno::Errno;
use annulus::nvme::{Controller, Error};

#[test]
fn a_controller_comes_up_and_goes_down_in_order() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let info = *rig.controller().info();
    assert_eq!((info.namespaces, info.max_transfer), (2, Some(32768)));
    assert_eq!((info.serial.to_string().as_str(), info.model.to_string().as_str()), ("A1", "fake"));
    assert!(info.write_cache && info.write_zeroes && info.dataset_management);
    let mut ids = [0; 8];
    assert_eq!(rig.controller().active_namespaces(0, &mut ids), Ok(2));
    assert_eq!(ids[..3], [1, 2, 0]);
    let ring = rig.ring(&seldom());
    assert_eq!(rig.device().sqs.len(), 2);
    ring.end();
    assert_eq!(rig.device().sqs.len(), 1, "the pair was deleted");
    let fake = rig.fake.clone();
    rig.end();
    let device = fake.device();
    assert_eq!((device.enabled, device.shutdowns, device.isolations), (1, 1, 0));
    assert!(!device.phase.is_on());
}

#[test]
fn a_controller_left_running_is_reset_first() {
    let fake = Fake::new(1, Setup::default());
    let first = Rig::<false>::try_with(fake.clone(), quick()).unwrap();
    // Whoever had it is gone without a word.
    std::mem::forget(first.controller);
    let second = Rig::<false>::try_with(fake.clone(), quick()).unwrap();
    second.ring(&seldom()).end();
    drop(second);
    fake.check_faults();
}

#[test]
fn nonsense_in_cap_is_refused() {
    let error = |setup: Setup| {
        let fake = Fake::new(1, setup);
        let error = Controller::new(Plug::<false>(fake.clone()), quick()).unwrap_err();
        fake.check();
        error
    };
    let capabilities = |setup| match error(setup) {
        Error::Capabilities { why, .. } => why,
        other => panic!("{other}"),
    };
    assert!(capabilities(Setup { mqes: 0, ..Setup::default() }).contains("MQES"));
    assert!(capabilities(Setup { mpsmin: 1, ..Setup::default() }).contains("MPSMIN"));
    assert!(capabilities(Setup { css: 0, ..Setup::default() }).contains("CSS"));
    assert!(capabilities(Setup { css: 1 << 7, ..Setup::default() }).contains("CSS"));
    assert!(capabilities(Setup { css: 0x3e, ..Setup::default() }).contains("CSS"));
    assert_eq!(error(Setup { cap: Some(u64::MAX), ..Setup::default() }), Error::Gone);
    let small = error(Setup { window: 0x1000, ..Setup::default() });
    assert!(matches!(small, Error::Window { .. }), "{small}");
    let wide = error(Setup { dstrd: 10, ..Setup::default() });
    assert!(matches!(wide, Error::Window { .. }), "{wide}");
}

#[test]
fn every_command_set_choice_and_every_delay() {
    for css in [1, 1 << 6, 1 | 1 << 6] {
        let slow = 900_000_000;
        let setup = Setup { css, ready_delay: slow, disable_delay: slow, ..Setup::default() };
        let rig = Rig::<false>::with(1, setup, quick());
        rig.device().relax = LONG;
        rig.end();
    }
}

#[test]
fn a_controller_that_does_not_become_ready_is_left_with_nothing() {
    let fake = Fake::new(1, Setup::default());
    fake.device().lies.never_ready = true;
    fake.device().relax = LONG;
    let error = Controller::new(Plug::<false>(fake.clone()), quick()).unwrap_err();
    assert!(matches!(error, Error::Timeout { ms: 1000, .. }), "{error}");
    fake.check();

    let fake = Fake::new(1, Setup::default());
    fake.device().lies.never_ready = true;
    fake.device().lies.csts = 2;
    let error = Controller::new(Plug::<false>(fake.clone()), quick()).unwrap_err();
    assert!(matches!(error, Error::Fatal { csts: 2 }), "{error}");
    fake.check();
}

#[test]
fn memory_of_a_controller_that_cannot_be_stopped_is_not_given_back() {
    for isolation in [true, false] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        rig.device().relax = LONG;
        rig.device().lies.never_disabled = true;
        rig.device().lies.no_isolation = !isolation;
        let fake = rig.fake.clone();
        drop(rig);
        fake.check_faults();
        let left = fake.device().memory.allocations();
        assert_eq!(left == 0, isolation, "{left} allocations are left");
        assert_eq!(fake.device().isolations, 1);
    }
}

#[test]
fn no_memory_at_any_point_leaves_nothing_behind() {
    let options = annulus::nvme::Options { shadow_doorbells: true, ..quick() };
    let mut failures = 0;
    for fail_in in 0.. {
        let fake = Fake::new(1, Setup::default());
        fake.device().memory.fail_in = Some(fail_in);
        match Rig::<false>::try_with(fake.clone(), options) {
            Err(error) => {
                assert_eq!(error, Error::Memory(Errno::ENOMEM));
                failures += 1;
            }
            Ok(rig) => match rig.try_ring(&seldom(), 4) {
                Err(error) => {
                    assert_eq!(error, Error::Memory(Errno::ENOMEM));
                    failures += 1;
                    // And the queue's number is free again.
                    rig.device().memory.fail_in = None;
                    rig.ring(&seldom()).end();
                    rig.end();
                }
                Ok(ring) => {
                    ring.end();
                    rig.end();
                    break;
                }
            },
        }
        fake.check();
    }
    assert_eq!(failures, 9, "three pages, two shadows, two queues, lists, bounce buffers");
}

#[test]
fn fewer_queues_than_asked_for() {
    let rig = Rig::<false>::with(1, Setup { pairs: 2, ..Setup::default() }, quick());
    assert_eq!(rig.controller().limits().pairs, 2);
    let (one, two) = (rig.ring(&seldom()), rig.ring(&seldom()));
    let error = rig.try_ring(&seldom(), 4).err().unwrap();
    assert_eq!(error, Error::NoQueue { pairs: 2 });
    one.end();
    rig.ring(&seldom()).end();
    two.end();
    rig.end();
}

#[test]
fn queues_are_as_deep_as_the_controller_allows() {
    for (mqes, depth, most) in [(1, 127, 1), (4, 127, 3), (63, 31, 31), (127, 100, 127)] {
        let rig = Rig::<false>::with(1, Setup { mqes, ..Setup::default() }, quick());
        let ring = rig.ring(&annulus::nvme::QueueOptions { depth, ..seldom() });
        assert_eq!(ring.parts.as_ref().unwrap().engine.backend().depth(), most);
        ring.end();
        rig.end();
    }
}

#[test]
fn identify_data_that_contradict_themselves_are_refused() {
    let controller: [fn(u32, &mut [u8]); 6] = [
        |cns, data| {
            if cns == 1 {
                data[512] = 0x55
            }
        },
        |cns, data| {
            if cns == 1 {
                data[512] = 0x77
            }
        },
        |cns, data| {
            if cns == 1 {
                data[513] = 0x33
            }
        },
        |cns, data| {
            if cns == 1 {
                data[516..520].fill(0)
            }
        },
        |cns, data| {
            if cns == 1 {
                data[77] = 200
            }
        },
        |_, data| data.fill(0xff),
    ];
    for identify in controller {
        let setup = Setup { identify: Some(identify), ..Setup::default() };
        let fake = Fake::new(1, setup);
        let error = Controller::new(Plug::<false>(fake.clone()), quick()).unwrap_err();
        assert!(matches!(error, Error::Identify { .. }), "{error}");
        fake.check();
    }
    let namespace: [fn(u32, &mut [u8]); 8] = [
        // Inactive.
        |cns, data| {
            if cns == 0 {
                data.fill(0)
            }
        },
        |cns, data| {
            if cns == 0 {
                data.fill(0xff)
            }
        },
        // A capacity above the size; a format it does not have.
        |cns, data| {
            if cns == 0 {
                data[8..16].fill(0xff)
            }
        },
        |cns, data| {
            if cns == 0 {
                data[26] = 1
            }
        },
        // Metadata; protection; blocks too small, too large.
        |cns, data| {
            if cns == 0 {
                data[128] = 8
            }
        },
        |cns, data| {
            if cns == 0 {
                data[29] = 1
            }
        },
        |cns, data| {
            if cns == 0 {
                data[130] = 8
            }
        },
        |cns, data| {
            if cns == 0 {
                data[130] = 63
            }
        },
    ];
    for identify in namespace {
        let setup = Setup { identify: Some(identify), ..Setup::default() };
        let rig = Rig::<false>::with(1, setup, quick());
        let error = rig.controller().namespace(1).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Identify { .. } | Error::NoNamespace { .. } | Error::Format { .. }
            ),
            "{error}"
        );
        rig.end();
    }
}

#[test]
fn a_namespace_that_is_not_there() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    for nsid in [0, 3, u32::MAX] {
        let error = rig.controller().namespace(nsid).unwrap_err();
        assert_eq!(error, Error::NoNamespace { nsid, count: 2 });
    }
    let mut ring = rig.ring(&seldom());
    for fd in [0, 3, -1, i32::MAX] {
        let read = ring.read(On::Fd(fd), 0, 512, &How::Plain(0));
        assert_eq!(ring.result(read), errno(Errno::EBADF));
        if fd != -1 {
            assert_eq!(ring.register(&[1, fd]), Err(Errno::EBADF));
        }
    }
    ring.end();
    rig.end();
}

#[test]
fn a_queue_pair_that_is_half_created_is_taken_back() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    rig.device().lies.rules = vec![Rule::admin(0x01, Fate::Status(0x06), 1)];
    let error = rig.try_ring(&seldom(), 4).err().unwrap();
    assert!(matches!(error, Error::Command { .. }), "{error}");
    assert_eq!(rig.device().cqs.len(), 1, "no completion queue without a submission queue");
    let mut ring = rig.ring(&seldom());
    let read = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
    assert_eq!(ring.result(read), 512);
    ring.end();
    assert_eq!(rig.controller().resets(), 0, "nothing was wrong with the controller");
    rig.end();
}

#[test]
fn a_queue_that_is_created_too_late_has_no_memory_that_was_given_back() {
    // The answer does not come in time, and yet the queue is there.
    for opcode in [0x05, 0x01] {
        let rig = Rig::<false>::with(1, Setup::default(), quick());
        rig.device().relax = LONG;
        rig.device().lies.rules = vec![Rule::admin(opcode, Fate::Lost, 1)];
        let error = rig.try_ring(&seldom(), 4).err().unwrap();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        rig.device().revive();
        rig.fake.run(100);
        let mut ring = rig.ring(&seldom());
        let read = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
        assert_eq!(ring.result(read), 512);
        ring.end();
        rig.end();
    }
}

#[test]
fn a_late_answer_is_not_taken_for_that_of_another_command() {
    for seed in 0..if cfg!(miri) { 2 } else { 20 } {
        let rig = Rig::<false>::with(seed, Setup::default(), quick());
        rig.device().relax = LONG;
        rig.device().lies.rules = vec![Rule::admin(0x06, Fate::Lost, 1)];
        let error = rig.controller().namespace(1).unwrap_err();
        assert!(matches!(error, Error::Timeout { .. }), "{error}");
        // From here on the first identify may write its page at any time: also
        // just before the second one's answer is read.
        rig.device().revive();
        let two = rig.controller().namespace(2).unwrap();
        assert_eq!((two.id, two.block(), two.bytes), (2, 4096, 64 * 4096));
        rig.end();
    }
}

#[test]
#[cfg_attr(miri, ignore = "forty resets")]
fn admin_commands_that_never_end_do_not_fill_the_queue() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    rig.device().relax = LONG;
    for _ in 0..40 {
        rig.device().lies.deaf_admin = true;
        rig.controller().namespace(1).unwrap_err();
        rig.device().lies.deaf_admin = false;
    }
    rig.controller().namespace(1).unwrap();
    rig.end();
}

#[test]
fn events_are_counted_and_asked_for_again() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let mut ring = rig.ring(&seldom());
    for round in 0..40u32 {
        // Health and notices in turns, and now and then two at once.
        let (health, notice) = (1 | 2 << 16, 2 | 4 << 16);
        rig.device().events.push(if round & 1 == 0 { health } else { notice });
        if round % 3 == 0 {
            rig.device().events.push(if round & 1 == 0 { notice } else { health });
        }
        rig.device().lies.hold = true;
        let read = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
        ring.turn();
        ring.pass_ms(100);
        rig.device().lies.hold = false;
        assert_eq!(ring.result(read), 512);
    }
    let counts = rig.controller().events();
    assert_eq!((counts[0], counts[3]), (0, 0));
    assert!(counts[1] >= 20 && counts[2] >= 20, "{counts:?}");
    let asked = rig.device().log.iter().filter(|one| one.opcode == 0x0c).count();
    assert!(asked > 40, "{asked}");
    ring.end();
    rig.end();
}

#[test]
fn a_controller_without_events_is_not_asked_again() {
    let fake = Fake::new(1, Setup::default());
    fake.device().lies.rules = vec![Rule::admin(0x0c, Fate::Status(0x01), 1000)];
    let rig = Rig::<false>::try_with(fake, quick()).unwrap();
    let mut ring = rig.ring(&seldom());
    rig.device().lies.hold = true;
    let read = ring.read(On::Fd(1), 0, 512, &How::Plain(0));
    ring.turn();
    ring.pass_ms(200);
    rig.device().lies.hold = false;
    assert_eq!(ring.result(read), 512);
    let asked = rig.device().log.iter().filter(|one| one.opcode == 0x0c).count();
    assert_eq!(asked, 4);
    ring.end();
    rig.end();
}

#[test]
fn logs_are_read() {
    let rig = Rig::<false>::with(1, Setup::default(), quick());
    let health = rig.controller().health().unwrap();
    assert_eq!((health.temperature_kelvin, health.spare_percent), (300, 90));
    assert_eq!((health.critical_warning, health.power_cycles), (1, 9));
    let error = rig.controller().error_log().unwrap().unwrap();
    assert_eq!((error.queue, error.command, error.block, error.nsid), (2, 3, 77, 1));
    assert_eq!((error.status.code_type(), error.status.code()), (2, 0x82));
    rig.device().lies.rules = vec![Rule::admin(0x02, Fate::Status(0x109), 1)];
    let refused = rig.controller().health().unwrap_err();
    assert_eq!(refused.to_string(), "get log page: Invalid Log Page (type 0x1, code 0x09)");
    let (recent, count) = rig.controller().recent_errors();
    assert_eq!((recent[0].unwrap().opcode, count), (2, 1));
    rig.end();
}
