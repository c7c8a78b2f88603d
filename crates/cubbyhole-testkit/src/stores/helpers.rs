//! Contexts, namespaces, waiting, and checks of errors and diagnoses.

use std::error::Error as _;
use std::future::Future;
use std::iter;
use std::time::Duration;

pub use crate::shared::PASSWORD;
use cubbyhole_core::{
    Bytes, Check, Diagnosis, Error, ErrorKind, ExecutionContext, Namespace, NamespacePrefix,
    TenantId, Verdict,
};

/// Limits a test that hangs. No assertion depends on its length.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Returns a context whose deadline only a test that hangs reaches.
#[must_use]
pub fn ctx() -> ExecutionContext {
    ExecutionContext::new().with_timeout(PATIENCE)
}

/// Returns a context with a deadline that many milliseconds from now.
#[must_use]
pub fn within(millis: u64) -> ExecutionContext {
    ExecutionContext::new().with_timeout(Duration::from_millis(millis))
}

/// Parses a namespace.
#[must_use]
pub fn ns(rendered: &str) -> Namespace {
    Namespace::parse(rendered).expect("a namespace")
}

/// Returns the prefix that matches a namespace and all namespaces below it.
#[must_use]
pub fn under(rendered: &str) -> NamespacePrefix {
    NamespacePrefix::from(ns(rendered))
}

/// Parses a tenant id.
#[must_use]
pub fn tenant(name: &str) -> TenantId {
    TenantId::new(name).expect("a tenant id")
}

/// Copies a text into `Bytes`.
#[must_use]
pub fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

/// Waits until `condition` holds, for at most [`PATIENCE`].
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let ctx = ctx();
    while !condition().await {
        assert!(ctx.sleep(Duration::from_millis(5)).await.is_ok(), "timed out waiting for {what}");
    }
}

/// Lets other tasks run for a while. Tests do not rely on its length.
pub async fn pause(millis: u64) {
    let slept = ExecutionContext::new().sleep(Duration::from_millis(millis)).await;
    slept.expect("a context without an end");
}

/// Returns the output of a call and how long the call took.
pub async fn timed<T>(call: impl Future<Output = T>) -> (T, Duration) {
    let start = tokio::time::Instant::now();
    let answer = tokio::time::timeout(PATIENCE, call).await.expect("the call hangs");
    (answer, start.elapsed())
}

/// Returns every text that an error can print: its display and debug forms, and those of its
/// sources.
#[must_use]
pub fn shown(error: &Error) -> String {
    let sources = iter::successors(error.source(), |&cause| cause.source());
    let causes: String = sources.map(|cause| format!(" {cause} {cause:?}")).collect();
    format!("{error} {error:?} {error:#?}{causes}")
}

/// Asserts that an error reports an outage, says whether the call may be repeated, and does not
/// contain the [`PASSWORD`].
#[track_caller]
pub fn check_outage(error: &Error) {
    let text = shown(error);
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{text}");
    assert_ne!(error.is_retryable(), error.may_have_been_applied(), "{text}");
    assert!(!text.contains(PASSWORD), "{text}");
}

/// Asserts that each check of a diagnosis has advice if and only if it is not ok, that findings are
/// single lines, and that no text contains the [`PASSWORD`].
#[track_caller]
pub fn check_form(diagnosis: &Diagnosis) {
    assert!(!format!("{diagnosis:?}").contains(PASSWORD), "{diagnosis:?}");
    for check in &diagnosis.checks {
        assert_eq!(check.advice.is_some(), check.verdict != Verdict::Ok, "{check:?}");
        assert!(!check.finding.contains('\n'), "{check:?}");
    }
}

/// Returns the check with that name.
#[track_caller]
pub fn check<'a>(diagnosis: &'a Diagnosis, name: &str) -> &'a Check {
    let found = diagnosis.checks.iter().find(|check| check.name == name);
    found.unwrap_or_else(|| panic!("no check `{name}`: {diagnosis:#?}"))
}

/// Returns the names and verdicts of the checks that are not ok.
#[must_use]
pub fn not_ok(diagnosis: &Diagnosis) -> Vec<(&str, Verdict)> {
    let not_ok = diagnosis.checks.iter().filter(|check| check.verdict != Verdict::Ok);
    not_ok.map(|check| (check.name.as_str(), check.verdict)).collect()
}
