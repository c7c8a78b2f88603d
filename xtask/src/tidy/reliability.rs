//! The tests that docs/reliability.md names.
//!
//! A row of its tables ends with the tests of a promise, in code spans:
//!
//! - `module::name`: a test function or a conformance case
//! - `module::…_end_of_the_name`: a test whose name ends so; without a module it is in that of the
//!   span before
//! - `module`: every test of a module
//! - `crash.rs`, `cubbyhole/tests/runtimes.rs`, `cubbyhole-conformance/tests/mutants`: files

use super::tree::{Finding, Tree};

/// The page, and its place in earlier versions.
const PAGES: [&str; 2] = ["docs/reliability.md", "RELIABILITY.md"];

/// The heading of the last column of a table that names tests.
const HEADINGS: [&str; 2] = ["test", "caught by"];

/// The file with the filters of `cargo xtask prove`.
const PROVE: &str = "xtask/src/prove.rs";

const ELLIPSIS: &str = "…";

/// Checks that each test that the page names exists.
pub(super) fn check_test_names(tree: &Tree) -> Vec<Finding> {
    let Some((page, text)) = PAGES.into_iter().find_map(|page| Some((page, tree.get(page)?)))
    else {
        return vec![Finding::in_file(PAGES[0], "the file is missing")];
    };
    let tests = tests(tree);
    let mut findings = Vec::new();
    let mut count = 0;
    for (line, cell) in test_cells(text) {
        let mut module: Vec<&str> = Vec::new();
        for span in code_spans(cell) {
            count += 1;
            if !exists(tree, &tests, span, &mut module) {
                findings.push(Finding::at(page, line, format!("there is no test `{span}`")));
            }
        }
    }
    if count == 0 {
        findings.push(Finding::in_file(page, "no table names a test in its last column"));
    }
    findings
}

/// Checks that the filters of `cargo xtask prove` match a test: a filter without one would pass.
pub(super) fn check_prove_filters(tree: &Tree) -> Vec<Finding> {
    let tests = tests(tree);
    let is_missing = |filter: &&str| {
        let mut parts: Vec<&str> = filter.split("::").collect();
        let name = parts.pop().unwrap_or_default();
        // The first part of a case's name is that of its suite, such as `bytes`.
        let module = parts.last().copied().unwrap_or_default();
        !tests
            .iter()
            .any(|test| test.name.contains(name) && (module.is_empty() || test.is_in(&[module])))
    };
    let missing = crate::prove::filters().filter(is_missing);
    missing.map(|filter| Finding::in_file(PROVE, format!("no test matches `{filter}`"))).collect()
}

/// Returns the last cells of the rows of each table whose last heading is one of [`HEADINGS`].
fn test_cells(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut is_in_table = false;
    let mut names_tests = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let row = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
        let Some(row) = row else {
            is_in_table = false;
            return None;
        };
        let cell = row.rsplit_once('|').map_or(row, |(_, last)| last).trim();
        if !is_in_table {
            is_in_table = true;
            names_tests = HEADINGS.contains(&cell);
            return None;
        }
        names_tests.then_some((index + 1, cell))
    })
}

/// Returns the code spans that can name a test: `CLIENT KILL` cannot.
fn code_spans(cell: &str) -> impl Iterator<Item = &str> {
    let spans = cell.split('`').skip(1).step_by(2);
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_:-/.…".contains(c);
    spans.filter(move |span| !span.is_empty() && span.chars().all(is_name))
}

/// Returns whether a span names a test, a module or a file. `module` is that of the span before, and
/// becomes that of this span.
fn exists<'a>(tree: &Tree, tests: &[Test<'_>], span: &'a str, module: &mut Vec<&'a str>) -> bool {
    if span.contains(['/', '.', '-']) {
        let end = format!("/{span}");
        let inside = format!("/{span}/");
        return tree.iter().any(|(path, _)| {
            let path = format!("/{path}");
            path.ends_with(&end) || path.contains(&inside)
        });
    }
    let mut parts: Vec<&str> = span.split("::").collect();
    let name = parts.pop().unwrap_or_default();
    if let Some(end) = name.strip_prefix(ELLIPSIS) {
        if !parts.is_empty() {
            *module = parts;
        }
        return tests.iter().any(|test| test.name.ends_with(end) && test.is_in(module));
    }
    let whole: Vec<&str> = span.split("::").collect();
    let is_module = tests.iter().any(|test| test.is_in(&whole));
    let is_test = tests.iter().any(|test| test.name == name && test.is_in(&parts));
    *module = if is_module { whole } else { parts };
    is_module || is_test
}

/// A test function or a conformance case.
struct Test<'a> {
    /// The parts of the file's path without the extension, and `tests` for a module in the file.
    module: Vec<&'a str>,
    name: &'a str,
}

impl Test<'_> {
    /// Returns whether the test is in a module of that path. The path may leave out folders.
    fn is_in(&self, path: &[&str]) -> bool {
        let mut parts = self.module.iter();
        path.iter().all(|wanted| parts.any(|part| part == wanted))
    }
}

fn tests(tree: &Tree) -> Vec<Test<'_>> {
    let mut tests = Vec::new();
    for (path, text) in tree.with_extension("rs") {
        let stem = path.trim_end_matches(".rs").trim_end_matches("/mod");
        let mut module: Vec<&str> = stem.split('/').collect();
        if text.contains("\nmod tests {") {
            module.push("tests");
        }
        let names = test_names(text).chain(listed_names(text));
        tests.extend(names.map(|name| Test { module: module.clone(), name }));
    }
    tests
}

/// Returns the functions below an attribute `#[test]`, `#[tokio::test…]` or `#[case…]`, and the
/// names that a test program without the standard harness gives as `trial("name", …)`.
fn test_names(text: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    text.lines().filter_map(move |line| {
        let line = line.trim_start();
        if let Some((_, rest)) = line.split_once("trial(\"") {
            return rest.split('"').next();
        }
        is_test |= ["#[test]", "#[tokio::test", "#[case("].iter().any(|a| line.starts_with(a));
        let (_, rest) = line.split_once("fn ").filter(|_| is_test && !line.starts_with('/'))?;
        is_test = false;
        rest.split(|c: char| c != '_' && !c.is_alphanumeric()).next()
    })
}

/// Returns the functions that `on_every_backend!` and `on_backends!` list, one in a line or after the
/// backends in parentheses.
fn listed_names(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.lines().filter_map(move |line| {
        if let Some(rest) = line.strip_prefix("on_backends! {") {
            return rest.split_once(')').map(|(_, name)| name.trim_matches([' ', '}']));
        }
        let was_inside = is_inside && line != "}";
        is_inside = was_inside || line == "on_every_backend! {";
        was_inside.then(|| line.trim().trim_end_matches(','))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::assert_rule;

    #[test]
    fn tests_that_run_on_every_backend_are_listed() {
        let text = "fn x() {}\non_every_backend! {\n    a,\n    b_c,\n}\n\n\
                    on_backends! { (file redis) d }\nasync fn a() {\n}\n";
        assert_eq!(listed_names(text).collect::<Vec<_>>(), ["a", "b_c", "d"]);
    }

    fn findings(cell: &str) -> Vec<String> {
        let text =
            format!("# Page\n\n| promise | test |\n|---|---|\n| x | {cell} |\n\n`other::x`\n");
        let tree = Tree::of(&[
            (PAGES[0], &text),
            (
                "crates/a/tests/server/faults.rs",
                "#[tokio::test]\nasync fn calls_end_in_time() {}\n",
            ),
            (
                "crates/a/src/keys.rs",
                "fn helper() {}\nmod tests {\n    #[test]\n    fn keys_sort() {}\n}\n",
            ),
            (
                "crates/a/tests/crash.rs",
                "fn main() {\n    trial(\"a_kill_loses_nothing\", run);\n}\n",
            ),
            (
                "crates/a/src/cases/ttl.rs",
                "cases! {\n    #[case(time, core)]\n    async fn an_entry_expires<V>() {}\n}\n",
            ),
        ]);
        check_test_names(&tree).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn name_of_a_missing_test_is_found() {
        let good = [
            "`server::faults::calls_end_in_time`",
            "`server::faults::…_in_time`, `…_end_in_time`",
            "`server::faults`",
            "`ttl::an_entry_expires` and `ttl`",
            "`tests::keys_sort`",
            "`crash::a_kill_loses_nothing`",
            "`faults.rs`, `a/tests/server/faults.rs`, `a/tests`",
            "`ttl` (`CLIENT KILL`, 20 runs)",
        ];
        let bad = [
            "`server::faults::calls_end`",
            "`server::faults::…_late`",
            "`ttl`, `…_in_time`",
            "`server::keys`",
            "`keys::helper`",
            "`none.rs`",
            "`a/tests/none`",
        ];
        assert_rule(findings, &good, &bad);
    }

    #[test]
    fn filter_without_a_test_is_found() {
        assert!(!check_prove_filters(&Tree::of(&[])).is_empty());
        let root = crate::process::root();
        assert_eq!(check_prove_filters(&Tree::read(root).unwrap()), []);
    }

    #[test]
    fn page_without_a_table_of_tests_is_found() {
        assert_eq!(findings("none").len(), 1);
        assert_eq!(check_test_names(&Tree::of(&[])).len(), 1);
    }
}
