//! Findings for errors.

use cubbyhole_core::{Diagnosis, Error, Verdict};

/// Adds the message of an error as a problem.
pub(super) fn problem(diagnosis: &mut Diagnosis, name: &str, error: &Error, advice: &str) {
    diagnosis.found(Verdict::Problem, name, error.message().to_owned(), advice);
}
