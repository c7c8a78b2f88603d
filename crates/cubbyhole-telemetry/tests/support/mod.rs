//! Captures the spans, events and metrics that the layer emits while a future runs.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex};

use metrics_util::debugging::{DebugValue, DebuggingRecorder};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::{Context, SubscriberExt as _};
use tracing_subscriber::registry::LookupSpan;

/// The fields of a span or an event, as text.
pub(crate) type Fields = BTreeMap<&'static str, String>;

/// Everything that was emitted while a future ran.
pub(crate) struct Captured {
    /// Each span, with the fields recorded until it closed.
    pub(crate) spans: Vec<(&'static str, Level, Fields)>,
    /// Each event, with the names of the spans around it.
    pub(crate) events: Vec<(Level, Fields, Vec<&'static str>)>,
    /// Values of metrics by `name{label="value"}`, labels sorted. A histogram's value is its count.
    pub(crate) metrics: BTreeMap<String, u64>,
    /// The text log at the most verbose level, followed by all metrics.
    pub(crate) text: String,
}

impl Captured {
    /// Returns the only event.
    #[track_caller]
    pub(crate) fn event(&self) -> (Level, &Fields) {
        assert_eq!(self.events.len(), 1, "{:?}", self.events);
        (self.events[0].0, &self.events[0].1)
    }
}

/// Runs a future on this thread with its own subscriber and recorder.
pub(crate) fn capture(future: impl Future<Output = ()>) -> Captured {
    let collected = Arc::new(Collected::default());
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::registry().with(Collector(Arc::clone(&collected))).with(
        tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_span_events(FmtSpan::FULL)
            .with_writer(move || writer.clone()),
    );
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    tracing::subscriber::with_default(subscriber, || {
        metrics::with_local_recorder(&recorder, || runtime.block_on(future));
    });

    let mut text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let mut metrics = BTreeMap::new();
    for (key, _, _, value) in snapshotter.snapshot().into_vec() {
        let mut labels: Vec<String> = key
            .key()
            .labels()
            .map(|label| format!("{}={:?}", label.key(), label.value()))
            .collect();
        labels.sort();
        let name = format!("{}{{{}}}", key.key().name(), labels.join(","));
        writeln!(text, "{name} {value:?}").unwrap();
        let count = match value {
            DebugValue::Counter(count) => count,
            DebugValue::Histogram(values) => values.len() as u64,
            DebugValue::Gauge(_) => unreachable!("the layer has no gauges: {name}"),
        };
        metrics.insert(name, count);
    }
    let spans = std::mem::take(&mut *collected.spans.lock().unwrap());
    let events = std::mem::take(&mut *collected.events.lock().unwrap());
    Captured { spans, events, metrics, text }
}

#[derive(Default)]
struct Collected {
    spans: Mutex<Vec<(&'static str, Level, Fields)>>,
    events: Mutex<Vec<(Level, Fields, Vec<&'static str>)>>,
}

struct Collector(Arc<Collected>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> tracing_subscriber::Layer<S> for Collector {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = FieldReader::default();
        attributes.record(&mut fields);
        context.span(id).unwrap().extensions_mut().insert(fields);
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        values.record(span.extensions_mut().get_mut::<FieldReader>().unwrap());
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = FieldReader::default();
        event.record(&mut fields);
        let around = context.event_scope(event).into_iter().flatten().map(|s| s.name()).collect();
        self.0.events.lock().unwrap().push((*event.metadata().level(), fields.0, around));
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = context.span(&id).unwrap();
        let fields = span.extensions_mut().remove::<FieldReader>().unwrap().0;
        let level = *span.metadata().level();
        self.0.spans.lock().unwrap().push((span.name(), level, fields));
    }
}

#[derive(Default)]
struct FieldReader(Fields);

impl Visit for FieldReader {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
