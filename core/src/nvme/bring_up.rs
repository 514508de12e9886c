//! A controller on its way up and down (Base sections 3.5 and 3.6).

use super::admin::{self, Admin};
use super::controller::{ADMIN_TIMEOUT_NS, OTHER, Options};
use super::identify::ControllerInfo;
use super::regs::{self, Cap};
use super::spec::{Command, cns, feature};
use super::{Error, Platform, spec};
use crate::fault::{self, Fault};
use crate::hal::device::{Coherent, PAGE};

/// Waits for `CSTS` under `mask` to be `want`.
pub(super) fn wait_status(
    platform: &impl Platform,
    mask: u32,
    want: u32,
    what: &'static str,
    limit: u64,
) -> Result<(), Error> {
    let deadline = platform.now().saturating_add(limit);
    loop {
        let csts = platform.read32(regs::CSTS);
        if csts == regs::GONE {
            return Err(Error::Gone);
        }
        if csts & mask == want {
            return Ok(());
        }
        // A controller on its way down may still show what brought it there.
        if csts & regs::CSTS_CFS != 0 && want == regs::CSTS_RDY {
            return Err(Error::Fatal { csts });
        }
        if platform.now() >= deadline {
            return Err(Error::Timeout { what, ms: limit / 1_000_000 });
        }
        platform.relax();
    }
}

pub(super) fn check(platform: &impl Platform) -> Result<Cap, Error> {
    let need = regs::DOORBELLS + 16;
    if platform.len() < need {
        return Err(Error::Window { have: platform.len(), need });
    }
    let cap = Cap(platform.read64(regs::CAP));
    if cap.0 == u64::MAX || regs::is_gone(platform) {
        return Err(Error::Gone);
    }
    let wrong = |why| Err(Error::Capabilities { cap: cap.0, why });
    if cap.max_queue_entries() < 2 {
        return wrong("queues of fewer than two entries (MQES)");
    }
    // Bit 7, no I/O command sets, is set by some beside the others.
    if !cap.has_nvm() {
        return wrong("there is no NVM command set (CSS)");
    }
    if cap.page_shift_min() > PAGE.trailing_zeros() {
        return wrong("memory pages of 4 KiB are not supported (MPSMIN)");
    }
    // At least one I/O queue pair's doorbells.
    let need = regs::DOORBELLS + 4 * cap.doorbell_stride();
    if platform.len() < need && !fault::on(Fault::StrideUnchecked) {
        return Err(Error::Window { have: platform.len(), need });
    }
    Ok(cap)
}

/// `CC.EN` off, and waits until it is: the controller then uses no memory.
pub(super) fn disable(platform: &impl Platform, cap: Cap) -> Result<(), Error> {
    let cc = platform.read32(regs::CC);
    if cc & regs::CC_EN != 0 {
        // Not between the enabling and its end (Base section 3.5.3, CC.EN).
        let ready = regs::CSTS_RDY;
        match wait_status(platform, ready, ready, "become ready", cap.timeout_ns()) {
            Err(Error::Gone) => return Err(Error::Gone),
            // It will not; then there is nothing to be gentle with.
            _ => platform.write32(regs::CC, cc & !(regs::CC_EN | regs::CC_SHN)),
        }
    }
    wait_status(platform, regs::CSTS_RDY, 0, "leave the ready state", cap.timeout_ns())
}

/// Enables a disabled controller, up to the number of queues. `known`: what
/// it said of itself before; it must not have become another one.
pub(super) fn bring_up(
    platform: &impl Platform,
    cap: Cap,
    options: &Options,
    admin: &mut Admin,
    known: Option<&ControllerInfo>,
) -> Result<ControllerInfo, Error> {
    admin.reset(cap.doorbell_stride());
    platform.write32(regs::AQA, (admin::ENTRIES - 1) | (admin::ENTRIES - 1) << 16);
    platform.write64(regs::ASQ, admin.sq.device());
    platform.write64(regs::ACQ, admin.cq.device());
    platform.write32(regs::CC, regs::CC_OURS | cap.command_set() | regs::CC_EN);
    let ready = regs::CSTS_RDY;
    wait_status(platform, ready, ready, "become ready", cap.timeout_ns())?;
    let mut data = [0; PAGE];
    admin.identify(platform, cns::CONTROLLER, 0, ADMIN_TIMEOUT_NS, &mut data)?;
    let info = ControllerInfo::parse(&data, platform.read32(regs::VS))?;
    if known.is_some_and(|known| !known.is_same(&info)) {
        return Err(Error::Identify { why: OTHER });
    }
    admin.abort_limit = info.aborts;
    let want = u32::from(options.pairs) - 1;
    let command = Command {
        opcode: spec::admin::SET_FEATURES,
        dword10: feature::NUMBER_OF_QUEUES,
        dword11: want | want << 16,
        ..Command::default()
    };
    let granted = admin.run(platform, "set the number of queues", &command, ADMIN_TIMEOUT_NS)?;
    // Both 0's based; at least one of each.
    let pairs = (granted & 0xffff).min(granted >> 16).saturating_add(1);
    admin.pairs = pairs.min(u32::from(options.pairs)) as u16;
    // Health warnings and namespace changes; a controller that has none of
    // them says no, which is no harm.
    let command = Command {
        opcode: spec::admin::SET_FEATURES,
        dword10: feature::ASYNC_EVENTS,
        dword11: 0x1f | 1 << 8,
        ..Command::default()
    };
    match admin.run(platform, "ask for events", &command, ADMIN_TIMEOUT_NS) {
        Ok(_) | Err(Error::Command { .. }) => Ok(info),
        Err(error) => Err(error),
    }
}

/// Doorbell Buffer Config (Base section 5.8).
pub(super) fn configure_shadow(
    platform: &impl Platform,
    admin: &mut Admin,
    [doorbells, events]: &[Coherent; 2],
) -> Result<(), Error> {
    for page in [doorbells, events] {
        for word in 0..PAGE / 8 {
            // SAFETY: inside the page; the device does not use it yet.
            unsafe { page.ptr.cast::<u64>().add(word).write_volatile(0) };
        }
    }
    let command = Command {
        opcode: spec::admin::DOORBELL_BUFFER_CONFIG,
        data1: doorbells.device,
        data2: events.device,
        ..Command::default()
    };
    admin.run(platform, "configure shadow doorbells", &command, ADMIN_TIMEOUT_NS).map(drop)
}

/// Disables a controller and frees memory that it had, if it can be made quiet
/// at all. False if not: then the memory is lost.
pub(super) fn give_up(
    platform: &impl Platform,
    cap: Cap,
    memory: impl Iterator<Item = Coherent>,
) -> bool {
    let quiet = match disable(platform, cap) {
        Ok(()) => true,
        Err(Error::Gone) => {
            // Should it be its registers alone that are gone.
            platform.isolate();
            true
        }
        Err(_) => platform.isolate(),
    };
    if quiet {
        for memory in memory {
            // SAFETY: from this platform; the device is quiet or cut off, and
            // the caller does not use it any more.
            unsafe { platform.free(memory) };
        }
    }
    quiet
}
