//! All backends of Cubbyhole under mixed load for a given time, watched for wrong answers and for
//! growth. `cargo xtask soak` starts servers and runs it.
//!
//! - [`Population`] is what there is to read and to write: fixed, so that nothing has a reason to
//!   grow.
//! - [`Load`] is the callers of one store; they check each answer as far as it can be known, and
//!   write into a [`Tally`].
//! - [`Soak`] runs loads on [`Target`]s and takes samples; [`judge`] says what grew.

mod calls;
mod checks;
mod histogram;
mod load;
mod population;
mod postgres;
mod process;
mod redis_servers;
mod row;
mod run;
mod tally;
mod target;
mod value;
mod verdict;

pub use checks::{Known, Wrong};
pub use histogram::Histogram;
pub use load::Load;
pub use population::{Place, Population};
pub use row::{HEADING, Process, Row, Sample};
pub use run::{Outcome, Plan, Soak};
pub use tally::{Kind, Tally};
pub use target::{BackendName, Target};
pub use verdict::{Allowance, Growth, Series, Trend, judge};
