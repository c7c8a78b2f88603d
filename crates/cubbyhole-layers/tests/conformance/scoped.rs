//! `Scoped`, with relative names inside a scope with absolute names.

use std::sync::Arc;

use cubbyhole_conformance::Capabilities;
use cubbyhole_core::limits::MAX_NAMESPACE_BYTES;
use cubbyhole_core::{Bytes, EntryStore, ManualClock, NamespacePrefix};
use cubbyhole_layers::Scoped;
use cubbyhole_testkit::full_stack::SweptBelow;

use crate::layer::{Inner, Layer};

const SCOPE: &str = r"ten\:ant:segment:";

pub(crate) struct Scope;

impl Layer for Scope {
    fn around(inner: Inner, _: &ManualClock) -> Arc<dyn EntryStore<Bytes>> {
        let scope = NamespacePrefix::parse(SCOPE).unwrap();
        let within = Scoped::within(inner.clone(), scope.clone());
        let layered = Scoped::relative(within, scope);
        Arc::new(SweptBelow { layered, below: Arc::new(inner) })
    }

    fn capabilities(inner: Capabilities) -> Capabilities {
        inner
            .without_tenant_listing()
            .with_max_namespace_bytes(MAX_NAMESPACE_BYTES - SCOPE.len() - 1)
    }
}
