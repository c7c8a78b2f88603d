//! `Call`: emits the span, the event and the metrics of one call.

use std::future::Future;
use std::time::{Duration, Instant};

use cubbyhole_core::{Error, Namespace, Result, TenantId};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

use crate::operation::Operation;
use crate::outcome::{Outcome, Severity, Summary};
use crate::signals::Signals;

/// An in-flight call. If it is dropped before its end is reported, `Drop` reports it as dropped.
pub(crate) struct Call<'a> {
    signals: &'a Signals,
    operation: Operation,
    namespace: Option<&'a Namespace>,
    span: Span,
    started: Instant,
    is_reported: bool,
}

/// The fields of the event that depend on the outcome.
#[derive(Default)]
struct Details<'e> {
    error: Option<&'e str>,
    may_have_been_applied: Option<bool>,
    removed: Option<u64>,
    unreadable: Option<usize>,
}

impl<'a> Call<'a> {
    /// Starts the clock and opens the span. Of `namespace`, only the tenant is recorded.
    pub(crate) fn begin(
        signals: &'a Signals,
        operation: Operation,
        namespace: Option<&'a Namespace>,
    ) -> Self {
        let span = debug_span!(
            target: "cubbyhole::operation",
            "cubbyhole.operation",
            backend = signals.backend(),
            operation = operation.as_str(),
            tenant = tenant(namespace).as_ref().map(TenantId::as_str),
            outcome = Empty,
        );
        Self { signals, operation, namespace, span, started: now(), is_reported: false }
    }

    /// Awaits the call within the span and reports its end. `summarise` extracts the reported
    /// details from a successful result.
    pub(crate) async fn run<T>(
        mut self,
        future: impl Future<Output = Result<T>>,
        summarise: impl FnOnce(&T) -> Summary,
    ) -> Result<T> {
        let result = future.instrument(self.span.clone()).await;
        self.is_reported = true;
        match &result {
            Ok(answer) => self.report_success(summarise(answer)),
            Err(error) => self.report_failure(error),
        }
        result
    }

    fn report_success(&self, summary: Summary) {
        let mut details = Details::default();
        match summary {
            Summary::Done => self.report(Outcome::Ok, Severity::Debug, &details),
            Summary::Found(true) => self.report(Outcome::Ok, Severity::Debug, &details),
            Summary::Found(false) => self.report(Outcome::NotFound, Severity::Debug, &details),
            Summary::Removed(removed) => {
                details.removed = Some(removed);
                let mut severity = Severity::Debug;
                if self.operation == Operation::EvictExpired {
                    self.signals.swept(removed);
                    if removed > 0 {
                        severity = Severity::Info;
                    }
                }
                self.report(Outcome::Ok, severity, &details);
            }
            Summary::Unreadable(errors) => {
                for error in &errors {
                    self.signals.error(self.operation, error.kind());
                }
                details.unreadable = Some(errors.len());
                details.error = errors.first().map(Error::message);
                let severity = errors.first().map_or(Severity::Debug, |e| Severity::of(e.kind()));
                self.report(Outcome::Ok, severity, &details);
            }
        }
    }

    fn report_failure(&self, error: &Error) {
        let kind = error.kind();
        self.signals.error(self.operation, kind);
        // The source is left out: it may be a server's text, which may quote the request.
        let details = Details {
            error: Some(error.message()),
            may_have_been_applied: Some(error.may_have_been_applied()),
            ..Details::default()
        };
        self.report(Outcome::Failed(kind), Severity::of(kind), &details);
    }

    fn report(&self, outcome: Outcome, severity: Severity, details: &Details<'_>) {
        let took = now().saturating_duration_since(self.started);
        self.signals.ended(self.operation, outcome, took);
        self.span.record("outcome", outcome.as_str());
        self.span.in_scope(|| self.emit(outcome, severity, details, took));
    }

    fn emit(&self, outcome: Outcome, severity: Severity, details: &Details<'_>, took: Duration) {
        // `tracing` makes the level part of the callsite, so each level needs its own.
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    target: "cubbyhole::operation",
                    backend = self.signals.backend(),
                    operation = self.operation.as_str(),
                    tenant = tenant(self.namespace).as_ref().map(TenantId::as_str),
                    outcome = outcome.as_str(),
                    elapsed_ms = took.as_secs_f64() * 1e3,
                    error = details.error,
                    may_have_been_applied = details.may_have_been_applied,
                    removed = details.removed,
                    unreadable = details.unreadable,
                    "operation ended"
                )
            };
        }
        match severity {
            Severity::Debug => event!(debug),
            Severity::Info => event!(info),
            Severity::Warn => event!(warn),
            Severity::Error => event!(error),
        }
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        if !self.is_reported {
            self.report(Outcome::Dropped, Severity::Debug, &Details::default());
        }
    }
}

fn tenant(namespace: Option<&Namespace>) -> Option<TenantId> {
    namespace.map(Namespace::tenant)
}

#[expect(
    clippy::disallowed_methods,
    reason = "durations are measured in real time and decide nothing; in-memory stores are called without a runtime"
)]
fn now() -> Instant {
    Instant::now()
}
