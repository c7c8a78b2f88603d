//! Any text as a namespace: an accepted text is rendered unchanged.
#![no_main]

use cubbyhole::{Namespace, NamespacePrefix, TenantId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    drop(TenantId::new(text));
    let Ok(ns) = Namespace::parse(text) else { return };
    assert_eq!(ns.as_str(), text);
    let parts = Namespace::from_parts(ns.tenant().as_str(), ns.segments());
    assert_eq!(parts.unwrap(), ns);
    assert!(NamespacePrefix::from(&ns).matches(&ns));
    let json = serde_json::to_string(&ns).unwrap();
    assert_eq!(serde_json::from_str::<Namespace>(&json).unwrap(), ns);
});
