//! One call, from its first poll to its end.

use std::future::Future;
use std::time::{Duration, Instant};

use cubbyhole_core::{Error, Namespace, Result, TenantId};
use tracing::field::Empty;
use tracing::{Instrument, Span, debug_span};

use crate::operation::Operation;
use crate::outcome::{Answer, Outcome, Severity};
use crate::signals::Signals;

/// A call under way. One that is dropped before it was told is told as dropped.
pub(crate) struct Call<'a> {
    signals: &'a Signals,
    operation: Operation,
    scope: Option<&'a Namespace>,
    span: Span,
    started: Instant,
    is_told: bool,
}

/// What the event of an ending tells besides the outcome.
#[derive(Default)]
struct Details<'e> {
    error: Option<&'e str>,
    may_have_been_applied: Option<bool>,
    removed: Option<u64>,
    unreadable: Option<usize>,
}

impl<'a> Call<'a> {
    /// `scope` is where the call works; its tenant is all that is told of it.
    pub(crate) fn begin(
        signals: &'a Signals,
        operation: Operation,
        scope: Option<&'a Namespace>,
    ) -> Self {
        let span = debug_span!(
            target: "cubbyhole::operation",
            "cubbyhole.operation",
            backend = signals.backend(),
            operation = operation.as_str(),
            tenant = tenant(scope).as_ref().map(TenantId::as_str),
            outcome = Empty,
        );
        Self { signals, operation, scope, span, started: now(), is_told: false }
    }

    /// Runs the call itself, and tells how it ended; `read` finds in the answer what is to be told.
    pub(crate) async fn run<T>(
        mut self,
        future: impl Future<Output = Result<T>>,
        read: impl FnOnce(&T) -> Answer,
    ) -> Result<T> {
        let result = future.instrument(self.span.clone()).await;
        self.is_told = true;
        match &result {
            Ok(answer) => self.succeeded(read(answer)),
            Err(error) => self.failed(error),
        }
        result
    }

    fn succeeded(&self, answer: Answer) {
        let mut details = Details::default();
        match answer {
            Answer::Done => self.tell(Outcome::Ok, Severity::Debug, &details),
            Answer::Found(true) => self.tell(Outcome::Ok, Severity::Debug, &details),
            Answer::Found(false) => self.tell(Outcome::NotFound, Severity::Debug, &details),
            Answer::Removed(removed) => {
                details.removed = Some(removed);
                let mut severity = Severity::Debug;
                if self.operation == Operation::EvictExpired {
                    self.signals.swept(removed);
                    if removed > 0 {
                        severity = Severity::Info;
                    }
                }
                self.tell(Outcome::Ok, severity, &details);
            }
            Answer::Unreadable(errors) => {
                for error in &errors {
                    self.signals.error(self.operation, error.kind());
                }
                details.unreadable = Some(errors.len());
                details.error = errors.first().map(Error::message);
                let severity = errors.first().map_or(Severity::Debug, |e| Severity::of(e.kind()));
                self.tell(Outcome::Ok, severity, &details);
            }
        }
    }

    fn failed(&self, error: &Error) {
        let kind = error.kind();
        self.signals.error(self.operation, kind);
        // Not the source: it may be a server's own words, which may quote what was sent.
        let details = Details {
            error: Some(error.message()),
            may_have_been_applied: Some(error.may_have_been_applied()),
            ..Details::default()
        };
        self.tell(Outcome::Failed(kind), Severity::of(kind), &details);
    }

    fn tell(&self, outcome: Outcome, severity: Severity, details: &Details<'_>) {
        let took = now().saturating_duration_since(self.started);
        self.signals.ended(self.operation, outcome, took);
        self.span.record("outcome", outcome.as_str());
        self.span.in_scope(|| self.emit(outcome, severity, details, took));
    }

    fn emit(&self, outcome: Outcome, severity: Severity, details: &Details<'_>, took: Duration) {
        // The level of an event is part of its callsite: one callsite for each.
        macro_rules! event {
            ($level:ident) => {
                tracing::$level!(
                    target: "cubbyhole::operation",
                    backend = self.signals.backend(),
                    operation = self.operation.as_str(),
                    tenant = tenant(self.scope).as_ref().map(TenantId::as_str),
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
        if !self.is_told {
            self.tell(Outcome::Dropped, Severity::Debug, &Details::default());
        }
    }
}

fn tenant(scope: Option<&Namespace>) -> Option<TenantId> {
    scope.map(Namespace::tenant)
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is measured is real time, which decides nothing; and stores in memory are called without a runtime"
)]
fn now() -> Instant {
    Instant::now()
}
