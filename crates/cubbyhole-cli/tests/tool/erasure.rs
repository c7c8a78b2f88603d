//! The bytes of the file after `erase` and `compact`.

use crate::support::{Sandbox, line};

/// Whether the bytes of the store's file contain the text.
fn file_contains(sandbox: &Sandbox, text: &str) -> bool {
    let file = std::fs::read(sandbox.path("cubbyhole.redb")).unwrap();
    file.windows(text.len()).any(|window| window == text.as_bytes())
}

/// Imports one value of 1,000 bytes for one tenant, and `others` values of 300 bytes for another.
fn import(sandbox: &Sandbox, others: usize) {
    let secret = line("acme\",\"u", "card", &format!("\"SECRET {}\"", "x".repeat(993)));
    let value = format!("\"{}\"", "y".repeat(300));
    let others = (0..others).map(|number| line("other", &number.to_string(), &value));
    let input: String = std::iter::once(secret).chain(others).collect();
    assert_eq!(sandbox.run_reading(&["import"], input.as_bytes()).code, 0);
    assert!(file_contains(sandbox, "SECRET"));
}

#[test]
fn erase_leaves_no_byte_of_an_entry_in_the_file() {
    for others in [0, 1_500, 2_400, 2_600, 2_800] {
        let sandbox = Sandbox::new();
        import(&sandbox, others);
        sandbox.ok(&["erase", "acme", "--yes"]);
        for text in ["SECRET", "acme", "card"] {
            assert!(!file_contains(&sandbox, text), "{text} with {others} other entries");
        }
        assert_eq!(sandbox.json(&["usage", "other", "--depth", "0"])[0]["entries"], others);
    }
}

#[test]
fn compact_leaves_no_byte_of_a_deleted_or_overwritten_entry() {
    for others in [1_500, 2_400] {
        let sandbox = Sandbox::new();
        import(&sandbox, others);
        sandbox.ok(&["put", "acme:v", "card", "SECRET first"]);
        sandbox.ok(&["put", "acme:v", "card", "second"]);
        sandbox.ok(&["delete", "acme:u", "card"]);
        assert!(file_contains(&sandbox, "SECRET"));
        sandbox.ok(&["compact"]);
        for text in ["SECRET", "acme:u"] {
            assert!(!file_contains(&sandbox, text), "{text} with {others} other entries");
        }
        assert_eq!(sandbox.ok(&["get", "acme:v", "card"]), "second");
        assert_eq!(sandbox.json(&["usage", "other", "--depth", "0"])[0]["entries"], others);
    }
}
