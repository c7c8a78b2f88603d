//! A problem that an error shows.

use cubbyhole_core::{Diagnosis, Error, Verdict};

pub(super) fn problem(diagnosis: &mut Diagnosis, name: &str, error: &Error, advice: &str) {
    diagnosis.found(Verdict::Problem, name, error.message().to_owned(), advice);
}
