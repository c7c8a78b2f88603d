//! The values that a page of `SCAN` names.

use super::Named;

#[test]
fn a_value_that_scan_names_twice_in_a_page_is_judged_once() {
    let mut named = Named::default();
    for name in ["p:{acme}va", "p:{acme}vb", "p:{acme}va"] {
        named.add("p:", name.as_bytes());
    }
    let keys: Vec<_> = named.values.into_values().flatten().collect();
    assert_eq!(keys, ["a", "b"]);
}
