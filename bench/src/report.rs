//! The results: a table for the reader, JSON for other programs.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::Result;
use crate::harness::{Samples, Settings};

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    settings: Settings,
    loads: Vec<Load>,
    reads: Vec<Read>,
    puts: Vec<Puts>,
    opens: Vec<Open>,
    comparisons: Vec<Comparison>,
    timings: Vec<Timing>,
    sizes: Vec<Size>,
}

#[derive(Serialize)]
struct Machine {
    processor: String,
    cores: usize,
    system: String,
}

/// Filling a store.
#[derive(Serialize)]
pub struct Load {
    pub store: &'static str,
    pub entries: usize,
    pub seconds: f64,
}

/// One kind of read at two sizes; times in nanoseconds per operation.
#[derive(Serialize)]
pub struct Read {
    pub store: &'static str,
    pub operation: &'static str,
    pub small_entries: usize,
    pub small: Samples,
    pub large_entries: usize,
    /// In how many tenants of the large store the places lay; in the small one in all of its own.
    pub large_tenants_read: usize,
    pub large: Samples,
    /// The large store's time to the small one's.
    pub ratio: Samples,
}

/// Concurrent durable puts.
#[derive(Serialize)]
pub struct Puts {
    pub store: &'static str,
    pub entries: usize,
    pub callers: u64,
    pub per_second: Samples,
    pub per_commit: Option<Samples>,
}

/// Opening a file; times in nanoseconds.
#[derive(Serialize)]
pub struct Open {
    pub store: &'static str,
    pub entries: usize,
    pub after: &'static str,
    pub open: Samples,
    /// Opening it and getting one entry.
    pub with_first_get: Samples,
}

/// The same work by the store and by a peer; times in nanoseconds per operation.
#[derive(Serialize)]
pub struct Comparison {
    pub store: &'static str,
    pub operation: String,
    pub ours: Samples,
    pub peer: &'static str,
    pub theirs: Samples,
    /// The peer's time to the store's.
    pub faster: Samples,
}

/// What only the store does; times in nanoseconds per operation.
#[derive(Serialize)]
pub struct Timing {
    pub store: &'static str,
    pub operation: String,
    pub time: Samples,
}

/// Memory of the server for each entry, in bytes.
#[derive(Serialize)]
pub struct Size {
    pub store: &'static str,
    /// What is stored.
    pub what: String,
    pub ours: f64,
    /// Its keys and values alone, under the names that the store gives them.
    pub bare: f64,
}

impl Comparison {
    pub fn new(
        store: &'static str,
        operation: String,
        ours: &Samples,
        peer: &'static str,
        theirs: Samples,
    ) -> Self {
        let faster = theirs.ratio(ours);
        Self { store, operation, ours: ours.clone(), peer, theirs, faster }
    }
}

impl Report {
    pub fn new(settings: Settings) -> Self {
        let machine = Machine::this();
        let Machine { processor, cores, system } = &machine;
        println!("{processor}, {cores} cores, {system}");
        println!(
            "{} rounds in turns; medians, ± half the distance of the quartiles\n",
            settings.rounds
        );
        let (loads, reads, puts, opens, comparisons, timings, sizes) = Default::default();
        Self { machine, settings, loads, reads, puts, opens, comparisons, timings, sizes }
    }

    pub fn load(&mut self, load: Load) {
        let Load { store, entries, seconds } = load;
        let rate = entries as f64 / seconds;
        println!("{store}: {entries} entries loaded in {seconds:.1} s, {rate:.0} a second");
        self.loads.push(load);
    }

    pub fn reads(&mut self, reads: Vec<Read>) {
        let Some(Read { store, small_entries, large_entries, large_tenants_read, .. }) =
            reads.first()
        else {
            return;
        };
        let [small, large] = [small_entries, large_entries].map(|count| format!("{count} entries"));
        let title = format!("{store}, tenants: {large_tenants_read}");
        println!("\n{title:<36} {small:>20} {large:>20} {:>14}", "ratio");
        for Read { operation, small, large, ratio, .. } in &reads {
            let [small, large] = [small, large].map(|samples| with_spread(samples, nanoseconds));
            let ratio = with_spread(ratio, |ratio| format!("{ratio:.2}"));
            println!("{operation:<36} {small:>20} {large:>20} {ratio:>14}");
        }
        self.reads.extend(reads);
    }

    /// Shown as operations per second of all callers together.
    pub fn rates(&mut self, rows: Vec<Comparison>) {
        self.compare("per second", rows, per_second);
    }

    /// Shown as the time of one operation.
    pub fn times(&mut self, rows: Vec<Comparison>) {
        self.compare("time", rows, nanoseconds);
    }

    fn compare(&mut self, what: &str, rows: Vec<Comparison>, unit: fn(f64) -> String) {
        let Some(Comparison { store, peer, .. }) = rows.first() else { return };
        let title = format!("{store}, {what}");
        println!("\n{title:<36} {:>18} {peer:>30} {:>14}", "ours", "ratio");
        for Comparison { operation, ours, theirs, faster, .. } in &rows {
            let [ours, theirs] = [ours, theirs].map(|samples| with_spread(samples, unit));
            let faster = with_spread(faster, |ratio| format!("{ratio:.2}"));
            println!("{operation:<36} {ours:>18} {theirs:>30} {faster:>14}");
        }
        self.comparisons.extend(rows);
    }

    pub fn watch(&mut self, rows: Vec<Timing>) {
        let Some(Timing { store, .. }) = rows.first() else { return };
        let title = format!("{store}, 1 caller");
        println!("\n{title:<48} {:>18} {:>18}", "time", "per second");
        for Timing { operation, time, .. } in &rows {
            let times = with_spread(time, nanoseconds);
            println!("{operation:<48} {times:>18} {:>18}", per_second(time.median));
        }
        self.timings.extend(rows);
    }

    pub fn sizes(&mut self, rows: Vec<Size>) {
        let Some(Size { store, .. }) = rows.first() else { return };
        let title = format!("{store}, bytes of memory for each entry");
        println!("\n{title:<48} {:>10} {:>10} {:>10}", "ours", "bare SET", "more");
        for Size { what, ours, bare, .. } in &rows {
            println!("{what:<48} {ours:>10.0} {bare:>10.0} {:>10.0}", ours - bare);
        }
        self.sizes.extend(rows);
    }

    pub fn puts(&mut self, puts: Vec<Puts>) {
        let Some(Puts { store, entries, .. }) = puts.first() else {
            return;
        };
        let title = format!("{store}, {entries} entries: durable puts");
        println!("\n{title:<36} {:>20} {:>20}", "puts per second", "puts per commit");
        for Puts { callers, per_second, per_commit, .. } in &puts {
            let callers = format!("{callers} callers");
            let per_second = with_spread(per_second, |count| format!("{count:.0}"));
            let per_commit = per_commit
                .as_ref()
                .map_or("-".to_owned(), |count| with_spread(count, |count| format!("{count:.1}")));
            println!("{callers:<36} {per_second:>20} {per_commit:>20}");
        }
        self.puts.extend(puts);
    }

    pub fn opens(&mut self, opens: Vec<Open>) {
        println!("\n{:<36} {:>20} {:>20}", "opening the file", "open", "and first get");
        for Open { store, entries, after, open, with_first_get } in &opens {
            let title = format!("{store}, {entries} entries, {after}");
            let [open, get] = [open, with_first_get].map(|s| with_spread(s, nanoseconds));
            println!("{title:<36} {open:>20} {get:>20}");
        }
        self.opens.extend(opens);
    }

    /// What was compared, read and watched.
    #[cfg(test)]
    pub fn operations(&self) -> impl Iterator<Item = String> {
        let compared = self.comparisons.iter().map(|row| row.operation.clone());
        let read = self.reads.iter().map(|row| row.operation.to_owned());
        compared.chain(read).chain(self.timings.iter().map(|row| row.operation.clone()))
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        println!("\nwritten to {}", path.display());
        Ok(())
    }
}

fn with_spread(samples: &Samples, unit: impl Fn(f64) -> String) -> String {
    format!("{} ± {:.0} %", unit(samples.median), samples.spread() * 100.0)
}

/// Of something that takes so many nanoseconds.
fn per_second(time: f64) -> String {
    let rate = 1e9 / time;
    if rate < 10.0 { format!("{rate:.1}") } else { format!("{rate:.0}") }
}

fn nanoseconds(time: f64) -> String {
    match time {
        ..1e3 => format!("{time:.0} ns"),
        1e3..1e6 => format!("{:.2} us", time / 1e3),
        1e6..1e9 => format!("{:.2} ms", time / 1e6),
        _ => format!("{:.2} s", time / 1e9),
    }
}

impl Machine {
    /// As Linux tells it; elsewhere only what the standard library knows.
    fn this() -> Self {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Self {
            processor: model
                .map_or(std::env::consts::ARCH, |model| model.trim_start_matches(['\t', ':', ' ']))
                .to_owned(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            system: format!("{} {}", std::env::consts::OS, release.trim()).trim_end().to_owned(),
        }
    }
}
