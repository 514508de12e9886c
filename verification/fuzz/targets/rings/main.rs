//! Ring memory that a hostile application writes while the engine runs:
//! between its calls, and before any of its accesses to an atomic word or to a
//! word of an entry.
#![no_main]

mod backend;
mod place;
mod world;

use annulus::config::{Config, Footprint, Mode};
use annulus::engine::{Engine, EnterFlags, Memory, RingMemory, build};
use annulus::register::Call;
use annulus::ring::Layout;
use annulus::served::Served;
use annulus::types::{BufRingEntry, Iovec};
use annulus_fuzz::Bytes;
use libfuzzer_sys::fuzz_target;

use backend::Files;
use place::Place;
use world::{BUFFER, Block, RINGED, World, with};

type Ring = Engine<'static, Files, Place>;

fuzz_target!(
    init: {
        annulus_fuzz::select_fault();
        annulus::sync::peer::set(world::act);
    },
    |data: &[u8]| run(Bytes::new(data))
);

/// The ring's sizes and kind, of three bytes.
fn config([sizes, kind, more]: [u8; 3]) -> Config {
    let sq = 1 << (sizes & 3);
    Config::new(sq)
        .cq_entries(sq << (sizes >> 2 & 3))
        .requests(1 + u32::from(sizes >> 4 & 7))
        .layout(if kind & 1 == 0 { Layout::Padded } else { Layout::Uapi })
        .index_array(kind & 2 == 0)
        .submit_all(kind & 4 != 0)
        .held(kind & 8 == 0)
        .files(4)
        .buffers(4)
        .provided(u32::from(more & 7), u32::from(more >> 3 & 3))
        .mode(mode(kind))
}

/// Who drives the engine.
fn mode(kind: u8) -> Mode {
    match kind >> 4 & 3 {
        2 => Mode::SqPoll { idle_ms: 1 },
        3 => Mode::Served,
        _ => Mode::Inline,
    }
}

fn run(bytes: Bytes) {
    let kind = bytes.take();
    let config = config(kind);
    let need = Footprint::of::<Files, Place>(&config);
    // Exactly as large as they must be, so that it is seen if they are left.
    let (rings, engine) = (Block::new(need.rings, 64), Block::new(need.engine(), 64));
    let (buffers, ring) = (Block::new(BUFFER, 64), Block::new(RINGED * 16, 4096));
    let polled = bytes.u8() & 3 == 3;
    with(|world| *world = World::new(bytes, &config, &rings, &buffers, &ring, polled));
    // SAFETY: freed when the ring has ended; the rings are written as an
    // application may write them.
    let memory = unsafe { [&engine, &rings].map(|block| Memory::from_raw(block.at, block.len)) };
    let [engine_memory, ring_memory] = memory;
    let parts = build(&config, engine_memory, RingMemory::At(ring_memory), Place, |completer| {
        with(|world| world.completer = Some(completer));
        Files
    });
    let mut parts = parts.expect("sizes that make a ring");
    with(|world| world.remote = Some(parts.remote));
    set_up(&mut parts.engine, &buffers, &ring);
    world::begin();
    match mode(kind[1]) {
        Mode::Inline => inline(parts.engine, &config),
        Mode::Served => served(Served::new(parts.engine, parts.remote)),
        Mode::SqPoll { .. } => parts.engine.poll_loop(),
    }
    with(|world| world.over());
}

/// Registers what there is.
fn set_up(engine: &mut Ring, buffers: &Block, ring: &Block) {
    let half = BUFFER / 2;
    let part = |at: usize| Iovec { base: buffers.addr(at) as *mut _, len: half };
    let entries = RINGED as u32;
    let base = ring.at.as_ptr().cast::<BufRingEntry>();
    // SAFETY: the memory outlives the ring.
    unsafe {
        engine.call(Call::RegisterFiles(&[3, -1, 4])).expect("files that are open");
        engine.call(Call::RegisterBuffers(&[part(0), part(half)])).expect("memory");
        // Refused where no groups may be.
        let incremental = false;
        let _ = engine.call(Call::RegisterBufRing { base, entries, group: 1, incremental });
    }
}

/// What the engine is asked to do next.
fn asked(bytes: &Bytes) -> (u32, u32, EnterFlags, Option<u64>) {
    let flags = if bytes.flag() { EnterFlags::GETEVENTS } else { EnterFlags::empty() };
    let to_submit = bytes.odd(4);
    let min_complete = bytes.odd(4) % 64;
    let deadline = if bytes.flag() { Some(place::now() + u64::from(bytes.u16())) } else { None };
    (to_submit, min_complete, flags, deadline)
}

fn inline(mut engine: Ring, config: &Config) {
    let bytes = with(|world| world.bytes.clone());
    while !bytes.is_empty() {
        match bytes.u8() % 8 {
            0..3 => {
                let (to_submit, min_complete, flags, deadline) = asked(&bytes);
                if let Ok(taken) = engine.enter(to_submit, min_complete, flags, deadline) {
                    assert!(taken <= to_submit, "more SQEs than it was asked for");
                    // Those at once, and those that came meanwhile.
                    let most = 2 * world::entries(config).0;
                    assert!(taken <= most, "{taken} SQEs of a queue of {}", most / 2);
                }
            }
            3 => world::arm(&bytes),
            4 => call(&mut engine, &bytes),
            _ => world::outside(),
        }
    }
    world::quiet();
    for _ in 0..2 {
        let _ = engine.enter(0, 0, EnterFlags::GETEVENTS, Some(0));
    }
    let (pending, flying) = (engine.pending() as usize, with(|world| world.flying()));
    assert_eq!(pending, flying, "requests in flight, by the engine and by the backend");
}

fn served(served: Served<'static, Files, Place>) {
    let bytes = with(|world| world.bytes.clone());
    while !bytes.is_empty() {
        match bytes.u8() % 8 {
            0..3 => {
                let (to_submit, min_complete, flags, deadline) = asked(&bytes);
                let _ = served.enter(to_submit, min_complete, flags, deadline);
            }
            3 => world::arm(&bytes),
            4 => served.serve(),
            _ => world::outside(),
        }
    }
    with(|world| world.remote).expect("set at the start").stop();
    served.help();
}

/// What an application that is trusted with memory asks for.
fn call(engine: &mut Ring, bytes: &Bytes) {
    let fds = [bytes.u8() as i8 as i32 % 8, bytes.u8() as i8 as i32 % 8];
    // SAFETY: no memory is named.
    let _ = unsafe {
        engine.call(match bytes.u8() % 6 {
            0 => Call::UnregisterFiles,
            1 => Call::RegisterFiles(&fds),
            2 => Call::UnregisterBuffers,
            3 => Call::BufRingHead(1),
            4 => Call::RegisterFilesSparse(u32::from(bytes.u8() & 7)),
            _ => Call::UpdateFiles { offset: u32::from(bytes.u8() & 3), fds: &fds },
        })
    };
}
