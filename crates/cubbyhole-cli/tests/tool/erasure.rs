//! What `erase` and `compact` leave in the file.

use crate::support::{Place, line};

/// Whether the bytes of the store's file contain the text.
fn file_contains(place: &Place, text: &str) -> bool {
    let file = std::fs::read(place.path("cubbyhole.redb")).unwrap();
    file.windows(text.len()).any(|window| window == text.as_bytes())
}

/// A value of 1,000 bytes of one tenant, and so many entries of 300 bytes of another.
fn import(place: &Place, others: usize) {
    let secret = line("acme\",\"u", "card", &format!("\"SECRET {}\"", "x".repeat(993)));
    let value = format!("\"{}\"", "y".repeat(300));
    let others = (0..others).map(|number| line("other", &number.to_string(), &value));
    let input: String = std::iter::once(secret).chain(others).collect();
    assert_eq!(place.run_reading(&["import"], input.as_bytes()).code, 0);
    assert!(file_contains(place, "SECRET"));
}

#[test]
fn erase_leaves_no_byte_of_an_entry_in_the_file() {
    for others in [0, 1_500, 2_400, 2_600, 2_800] {
        let place = Place::new();
        import(&place, others);
        place.ok(&["erase", "acme", "--yes"]);
        for text in ["SECRET", "acme", "card"] {
            assert!(!file_contains(&place, text), "{text} with {others} other entries");
        }
        assert_eq!(place.json(&["usage", "other", "--depth", "0"])[0]["entries"], others);
    }
}

#[test]
fn compact_leaves_no_byte_of_a_deleted_or_overwritten_entry() {
    for others in [1_500, 2_400] {
        let place = Place::new();
        import(&place, others);
        place.ok(&["put", "acme:v", "card", "SECRET first"]);
        place.ok(&["put", "acme:v", "card", "second"]);
        place.ok(&["delete", "acme:u", "card"]);
        assert!(file_contains(&place, "SECRET"));
        place.ok(&["compact"]);
        for text in ["SECRET", "acme:u"] {
            assert!(!file_contains(&place, text), "{text} with {others} other entries");
        }
        assert_eq!(place.ok(&["get", "acme:v", "card"]), "second");
        assert_eq!(place.json(&["usage", "other", "--depth", "0"])[0]["entries"], others);
    }
}
