//! Random entries for operations, with the distributions of YCSB.
//!
//! B. F. Cooper, A. Silberstein, E. Tam, R. Ramakrishnan, R. Sears: Benchmarking Cloud Serving
//! Systems with YCSB. SoCC 2010. <https://doi.org/10.1145/1807128.1807152>

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::Result;

/// The exponent of YCSB.
const EXPONENT: f64 = 0.99;

/// Draws random entries.
pub struct Sampler {
    random: SmallRng,
    zipf: Zipf<f64>,
    entries: usize,
}

impl Sampler {
    /// The same seed gives the same sequence.
    pub fn new(entries: usize, seed: u64) -> Result<Self> {
        let zipf = Zipf::new(entries as f64, EXPONENT)?;
        Ok(Self { random: SmallRng::seed_from_u64(seed), zipf, entries })
    }

    /// Any entry, with equal probability.
    pub fn uniform(&mut self) -> usize {
        self.random.random_range(0..self.entries)
    }

    /// An entry with zipfian probability. Like YCSB, it scatters the ranks by a hash, so popular
    /// entries are not neighbours.
    pub fn zipfian(&mut self) -> usize {
        (scattered(self.rank() as u64) % self.entries as u64) as usize
    }

    /// The age of an entry, counted in inserts. The latest entries are the most probable.
    pub fn age(&mut self) -> usize {
        self.rank()
    }

    /// A rank from 0. Lower ranks are more probable.
    fn rank(&mut self) -> usize {
        (self.zipf.sample(&mut self.random) as usize).saturating_sub(1).min(self.entries - 1)
    }

    /// A number from 0 to 99.
    pub fn percent(&mut self) -> u32 {
        self.random.random_range(0..100)
    }

    /// A number from 1 to `limit`.
    pub fn up_to(&mut self, limit: usize) -> usize {
        self.random.random_range(1..=limit)
    }
}

/// FNV-1a, the hash of YCSB.
fn scattered(rank: u64) -> u64 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x100_0000_01b3;
    rank.to_le_bytes()
        .iter()
        .fold(BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRIES: usize = 10_000;

    #[test]
    fn zipfian_prefers_a_few_entries() {
        let mut sampler = Sampler::new(ENTRIES, 1).unwrap();
        let mut hits = vec![0_u32; ENTRIES];
        (0..100_000).for_each(|_| hits[sampler.zipfian()] += 1);
        hits.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = hits[..ENTRIES / 100].iter().sum();
        // The first 100 of 10,000 ranks have more than half of the probability.
        assert!((45_000..65_000).contains(&top), "{top}");
        assert!(hits[0] > 5_000, "{}", hits[0]);
    }

    #[test]
    fn uniform_hits_every_entry_and_ages_are_small() {
        let mut sampler = Sampler::new(ENTRIES, 1).unwrap();
        let mut hits = vec![0_u32; ENTRIES];
        (0..200_000).for_each(|_| hits[sampler.uniform()] += 1);
        assert!(hits.iter().all(|hits| (1..60).contains(hits)));
        let young = (0..1000).filter(|_| sampler.age() < 100).count();
        assert!(young > 400, "{young}");
    }
}
