//! Namespaces: blocks, and the volatile cache before them.

use super::Rng;
use std::collections::BTreeMap;
use std::ops::Range;

/// Blocks that were never written read as zeroes and take no room.
pub struct Namespace {
    pub shift: u8,
    pub blocks: u64,
    pub read_only: bool,
    /// `DLFEAT`.
    pub dealloc: u8,
    stable: BTreeMap<u64, Box<[u8]>>,
    cache: BTreeMap<u64, Box<[u8]>>,
}

impl Namespace {
    pub fn new(shift: u8, blocks: u64) -> Self {
        let (stable, cache) = (BTreeMap::new(), BTreeMap::new());
        Self { shift, blocks, read_only: false, dealloc: 9, stable, cache }
    }

    pub fn read(&self, block: u64, to: &mut [u8]) {
        for (block, to) in (block..).zip(to.chunks_mut(1 << self.shift)) {
            match self.cache.get(&block).or_else(|| self.stable.get(&block)) {
                Some(data) => to.copy_from_slice(data),
                None => to.fill(0),
            }
        }
    }

    /// `through`: not by way of the cache.
    pub fn write(&mut self, block: u64, from: &[u8], through: bool) {
        for (block, from) in (block..).zip(from.chunks(1 << self.shift)) {
            if through {
                self.cache.remove(&block);
                self.stable.insert(block, from.into());
            } else {
                self.cache.insert(block, from.into());
            }
        }
    }

    fn known(&self, blocks: Range<u64>) -> Vec<u64> {
        let all = self.stable.range(blocks.clone()).chain(self.cache.range(blocks));
        all.map(|(block, _)| *block).collect()
    }

    pub fn zero(&mut self, blocks: Range<u64>, through: bool) {
        let zeroes = vec![0; 1 << self.shift];
        for block in self.known(blocks) {
            self.write(block, &zeroes, through);
        }
    }

    /// What was there may be anything afterwards.
    pub fn deallocate(&mut self, blocks: Range<u64>) {
        for block in self.known(blocks) {
            self.write(block, &vec![0xde; 1 << self.shift], false);
        }
    }

    pub fn flush(&mut self) {
        self.stable.append(&mut self.cache);
    }

    /// Of what was not flushed each block is lost or not, as it happens.
    pub fn lose(&mut self, rng: &mut Rng) {
        for (block, data) in std::mem::take(&mut self.cache) {
            if rng.below(2) == 0 {
                self.stable.insert(block, data);
            }
        }
    }
}
