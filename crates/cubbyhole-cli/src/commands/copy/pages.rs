//! The page size of scans with values. It adapts to the size of the values, to bound memory.

/// The size of the first page, small because the size of the values is unknown.
pub(super) const FIRST_PAGE: usize = 16;
/// The target size of later pages.
const PAGE_BYTES: usize = 1024 * 1024;
pub(super) const LARGEST_PAGE: usize = 500;

/// Returns the limit of the next page, from the sizes of the entries of the last one.
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
    fn next_page_size_follows_the_entry_sizes() {
        let of = |size: usize, entries: usize| next_limit((0..entries).map(|_| size));
        assert_eq!(of(100, 16), LARGEST_PAGE);
        assert_eq!(of(PAGE_BYTES / 10, 16), 10);
        assert_eq!(of(16 * PAGE_BYTES, 4), 1);
        assert_eq!((of(0, 5), of(1, 0)), (LARGEST_PAGE, LARGEST_PAGE));
    }
}
