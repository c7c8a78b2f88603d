//! Which place an operation goes to: the distributions of YCSB.
//!
//! B. F. Cooper, A. Silberstein, E. Tam, R. Ramakrishnan, R. Sears: Benchmarking Cloud Serving
//! Systems with YCSB. SoCC 2010. <https://doi.org/10.1145/1807128.1807152>

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use rand_distr::{Distribution, Zipf};

use crate::Result;

/// The exponent that YCSB takes.
const EXPONENT: f64 = 0.99;

/// Draws places among so many entries.
pub struct Draw {
    random: SmallRng,
    zipf: Zipf<f64>,
    entries: usize,
}

impl Draw {
    /// The same draws for the same seed.
    pub fn new(entries: usize, seed: u64) -> Result<Self> {
        let zipf = Zipf::new(entries as f64, EXPONENT)?;
        Ok(Self { random: SmallRng::seed_from_u64(seed), zipf, entries })
    }

    /// Any entry, each as likely as the other.
    pub fn uniform(&mut self) -> usize {
        self.random.random_range(0..self.entries)
    }

    /// Some entries far more often than others. Those lie anywhere: YCSB scrambles them by a hash,
    /// so that neighbours are not popular together.
    pub fn zipfian(&mut self) -> usize {
        (scrambled(self.rank() as u64) % self.entries as u64) as usize
    }

    /// How long ago the entry was inserted, counted in inserts: the latest ones most often.
    pub fn age(&mut self) -> usize {
        self.rank()
    }

    /// From 0; the lower the likelier.
    fn rank(&mut self) -> usize {
        (self.zipf.sample(&mut self.random) as usize).saturating_sub(1).min(self.entries - 1)
    }

    /// 0 to 99.
    pub fn percent(&mut self) -> u32 {
        self.random.random_range(0..100)
    }

    pub fn up_to(&mut self, limit: usize) -> usize {
        self.random.random_range(1..=limit)
    }
}

/// FNV-1a, the hash that YCSB takes.
fn scrambled(rank: u64) -> u64 {
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
    fn a_few_entries_get_most_of_a_zipfian_draw() {
        let mut draw = Draw::new(ENTRIES, 1).unwrap();
        let mut hits = vec![0_u32; ENTRIES];
        (0..100_000).for_each(|_| hits[draw.zipfian()] += 1);
        hits.sort_unstable_by(|a, b| b.cmp(a));
        let top: u32 = hits[..ENTRIES / 100].iter().sum();
        // The first hundred of ten thousand ranks have more than half of the weight.
        assert!((45_000..65_000).contains(&top), "{top}");
        assert!(hits[0] > 5_000, "{}", hits[0]);
    }

    #[test]
    fn a_uniform_draw_spares_nobody_and_ages_are_young() {
        let mut draw = Draw::new(ENTRIES, 1).unwrap();
        let mut hits = vec![0_u32; ENTRIES];
        (0..200_000).for_each(|_| hits[draw.uniform()] += 1);
        assert!(hits.iter().all(|hits| (1..60).contains(hits)));
        let young = (0..1000).filter(|_| draw.age() < 100).count();
        assert!(young > 400, "{young}");
    }
}
