//! Opened stores record metrics with the name of their backend.

use std::collections::BTreeSet;

use cubbyhole::telemetry::metric_names;
use cubbyhole::{ExecutionContext, Namespace, Store};
use metrics_util::debugging::DebuggingRecorder;

#[test]
fn opened_store_records_metrics() {
    let folder = tempfile::tempdir().unwrap();
    let embedded = format!("redb:{}", folder.path().join("state.redb").display());
    for (name, url) in [("memory", "memory:"), ("embedded", &embedded)] {
        let recorder = DebuggingRecorder::new();
        let snapshotter = recorder.snapshotter();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(async {
                let ctx = ExecutionContext::new();
                let store = cubbyhole::open(&ctx, url).await.unwrap();
                let ns = Namespace::parse("acme").unwrap();
                store.get(&ctx, &ns, "k").await.unwrap();
                store.close(&ctx).await.unwrap();
            });
        });

        let mut counted = BTreeSet::new();
        for (key, ..) in snapshotter.snapshot().into_vec() {
            if key.key().name() == metric_names::OPERATIONS {
                let labels = key.key().labels();
                let labels: Vec<String> = labels.map(|label| label.value().to_owned()).collect();
                counted.insert(labels.join(" "));
            }
        }
        let wanted = ["close ok", "get not_found", "open ok"].map(|rest| format!("{name} {rest}"));
        assert_eq!(counted, BTreeSet::from(wanted));
    }
}
