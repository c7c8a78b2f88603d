//! A soak test: a mixed load on all backends of Cubbyhole that checks replies and resource growth.
//! `cargo xtask soak` starts servers and runs it.
//!
//! - [`DataSet`] has the names of all entries. They are fixed, so the stores have no reason to grow.
//! - [`Load`] runs the callers of one store. They check each reply as far as its correct value is
//!   known, and count calls and errors in [`Counts`].
//! - [`Soak`] runs loads on [`Target`]s and takes samples. [`judge`] decides whether a value grew.

mod calls;
mod checks;
mod counts;
mod data_set;
mod histogram;
mod load;
mod postgres;
mod process;
mod redis_keys;
mod run;
mod sample;
mod target;
mod value;
mod verdict;

pub use checks::{EntryState, WrongReply};
pub use counts::{CallKind, Counts};
pub use data_set::{DataSet, EntryId};
pub use histogram::Histogram;
pub use load::Load;
pub use run::{Plan, Report, Soak};
pub use sample::{BackendSample, HEADING, ProcessSample, Sample};
pub use target::{BackendName, Target};
pub use verdict::{Allowance, Growth, Series, Trend, judge};
