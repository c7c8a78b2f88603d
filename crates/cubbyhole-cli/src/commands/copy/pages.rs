//! How many entries are read at once, so that what is in memory is bounded whatever the values are.

/// Pages begin small, for nothing is known of a namespace's values yet.
pub(super) const FIRST_PAGE: usize = 16;
/// And then hold about this much.
const PAGE_BYTES: usize = 1024 * 1024;
pub(super) const LARGEST_PAGE: usize = 500;

/// The limit of the page after one that held entries of these sizes.
pub(super) fn next_limit(sizes: impl ExactSizeIterator<Item = usize>) -> usize {
    let entries = sizes.len();
    let bytes: usize = sizes.sum();
    match bytes.checked_div(entries).and_then(|average| PAGE_BYTES.checked_div(average)) {
        Some(limit) => limit.clamp(1, LARGEST_PAGE),
        None => LARGEST_PAGE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_page_holds_about_as_much_as_it_may() {
        let of = |size: usize, entries: usize| next_limit((0..entries).map(|_| size));
        assert_eq!(of(100, 16), LARGEST_PAGE);
        assert_eq!(of(PAGE_BYTES / 10, 16), 10);
        assert_eq!(of(16 * PAGE_BYTES, 4), 1);
        assert_eq!((of(0, 5), of(1, 0)), (LARGEST_PAGE, LARGEST_PAGE));
    }
}
