//! What a Rust source looks like.

use super::code::{Code, is_word};
use super::{Finding, Tree};

/// A file and a function that one can read at a sitting.
const MAX_FILE_LINES: usize = 500;
const MAX_FUNCTION_LINES: usize = 70;

/// Long tests live in `tests/`: twice as much there.
const TESTS_FACTOR: usize = 2;

fn sources(tree: &Tree) -> impl Iterator<Item = (&str, &str)> {
    tree.with_extension("rs")
}

fn factor(path: &str) -> usize {
    if path.contains("/tests/") { TESTS_FACTOR } else { 1 }
}

pub(super) fn files_are_short(tree: &Tree) -> Vec<Finding> {
    let lengths = sources(tree).map(|(path, text)| (path, text.lines().count()));
    let long = lengths.filter(|(path, lines)| *lines > factor(path) * MAX_FILE_LINES);
    long.map(|(path, lines)| {
        let limit = factor(path) * MAX_FILE_LINES;
        Finding::in_file(path, format!("{lines} lines, more than {limit}"))
    })
    .collect()
}

pub(super) fn functions_are_short(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(tree) {
        let limit = factor(path) * MAX_FUNCTION_LINES;
        let functions = Code::of(text).functions();
        findings.extend(functions.iter().filter(|function| function.lines > limit).map(
            |function| {
                let message =
                    format!("`{}`: {} lines, more than {limit}", function.name, function.lines);
                Finding::at(path, function.line, message)
            },
        ));
    }
    findings
}

pub(super) fn files_begin_with_a_module_doc(tree: &Tree) -> Vec<Finding> {
    let without = sources(tree).filter(|(_, text)| !text.starts_with("//! "));
    without.map(|(path, _)| Finding::at(path, 1, "begins without a `//!` of what it is")).collect()
}

/// An `expect` goes away when it is not needed any more; an `allow` stays for ever. Only what
/// several test programs share must allow: each uses another part of it.
pub(super) fn lint_exceptions_are_expected_with_reason(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(tree) {
        let code = Code::of(text).code;
        for (start, attribute) in attributes(&code) {
            let line = code[..start].matches('\n').count() + 1;
            let has_reason = attribute.contains("reason = \"");
            if attribute.starts_with("allow(") && !(has_reason && is_shared_by_tests(path)) {
                let message = "write `expect(…, reason = \"…\")` in place of `allow`";
                findings.push(Finding::at(path, line, message));
            } else if attribute.starts_with("expect(") && !has_reason {
                findings.push(Finding::at(path, line, "an `expect` without a reason"));
            }
        }
    }
    findings
}

fn is_shared_by_tests(path: &str) -> bool {
    path.contains("/tests/") && path.ends_with("/mod.rs")
}

/// Each `#[…]` and `#![…]`: where it starts, and what stands inside.
fn attributes(code: &str) -> impl Iterator<Item = (usize, &str)> {
    code.match_indices('#').filter_map(|(start, _)| {
        let rest = &code[start + 1..];
        let inside = rest.strip_prefix('!').unwrap_or(rest).strip_prefix('[')?;
        let mut depth = 1_usize;
        let end = inside.find(|c| {
            depth = match c {
                '[' => depth + 1,
                ']' => depth - 1,
                _ => depth,
            };
            depth == 0
        })?;
        Some((start, inside[..end].trim_start()))
    })
}

/// No macro that stands for missing code, no mark of unfinished work without what is missing, and
/// no test that is switched off without the reason.
pub(super) fn nothing_is_left_open(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in sources(tree) {
        let view = Code::of(text);
        for (index, line) in view.code.lines().enumerate() {
            for name in ["todo", "unimplemented"] {
                if has_word(line, name, |rest| rest.starts_with('!')) {
                    let message = format!("`{name}!` panics: answer `Error::unsupported`");
                    findings.push(Finding::at(path, index + 1, message));
                }
            }
            if line.contains("#[ignore]") {
                findings.push(Finding::at(path, index + 1, "write `#[ignore = \"reason\"]`"));
            }
        }
        for (index, line) in view.comments.lines().enumerate() {
            for mark in ["TODO", "FIXME"] {
                if has_word(line, mark, |rest| !is_reason(rest)) {
                    let message = format!("write `{mark}: ` and what is missing");
                    findings.push(Finding::at(path, index + 1, message));
                }
            }
        }
    }
    findings
}

fn has_word(line: &str, word: &str, follows: impl Fn(&str) -> bool) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let rest = &line[start + word.len()..];
        !line[..start].ends_with(is_word) && !rest.starts_with(is_word) && follows(rest)
    })
}

/// A colon and at least three words.
fn is_reason(text: &str) -> bool {
    text.strip_prefix(": ").is_some_and(|reason| reason.split_whitespace().count() >= 3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(path: &str, text: &str) -> Tree {
        Tree::of(&[(path, text)])
    }

    #[test]
    fn a_long_file_is_caught() {
        let text = "x\n".repeat(MAX_FILE_LINES);
        assert_eq!(files_are_short(&tree("crates/a/src/lib.rs", &text)), []);
        let text = text + "x\n";
        let findings = files_are_short(&tree("crates/a/src/lib.rs", &text));
        assert_eq!(findings[0].message, "501 lines, more than 500");
        assert_eq!(files_are_short(&tree("crates/a/tests/all.rs", &text)), []);
        let text = "x\n".repeat(TESTS_FACTOR * MAX_FILE_LINES + 1);
        assert_eq!(files_are_short(&tree("crates/a/tests/all.rs", &text)).len(), 1);
    }

    #[test]
    fn a_long_function_is_caught() {
        let text = |lines| format!("fn f() {{\n{}}}\n", "    x();\n".repeat(lines));
        let good = text(MAX_FUNCTION_LINES - 2);
        assert_eq!(functions_are_short(&tree("src/lib.rs", &good)), []);
        let bad = text(MAX_FUNCTION_LINES - 1);
        let findings = functions_are_short(&tree("src/lib.rs", &bad));
        assert_eq!(findings, [Finding::at("src/lib.rs", 1, "`f`: 71 lines, more than 70")]);
    }

    #[test]
    fn a_file_without_a_module_doc_is_caught() {
        assert_eq!(files_begin_with_a_module_doc(&tree("a.rs", "//! What it is.\n")), []);
        for text in ["", "// x\n//! y\n", "use std::fmt;\n", "/// x\nfn f() {}\n"] {
            assert_eq!(files_begin_with_a_module_doc(&tree("a.rs", text)).len(), 1, "{text}");
        }
    }

    #[test]
    fn an_exception_to_a_lint_without_a_reason_is_caught() {
        let check =
            |text: &str| lint_exceptions_are_expected_with_reason(&tree("a.rs", text)).len();
        assert_eq!(check("#![expect(\n    clippy::x,\n    reason = \"y\"\n)]\n"), 0);
        assert_eq!(check("// #[allow(x)]\nlet s = \"#[allow(x)]\";\n#[derive(Debug)]\n"), 0);
        assert_eq!(check("#[allow(clippy::x)]\nfn f() {}\n"), 1);
        assert_eq!(check("#![allow(clippy::x, reason = \"y\")]\n"), 1);
        assert_eq!(check("#[expect(clippy::x)]\n"), 1);

        let shared = |text: &str| {
            let tree = tree("crates/a/tests/support/mod.rs", text);
            lint_exceptions_are_expected_with_reason(&tree).len()
        };
        assert_eq!(shared("#![allow(dead_code, reason = \"y\")]\n"), 0);
        assert_eq!(shared("#![allow(dead_code)]\n"), 1);
    }

    #[test]
    fn what_is_left_open_is_caught() {
        let check = |text: &str| nothing_is_left_open(&tree("a.rs", text)).len();
        assert_eq!(check("#[ignore = \"needs a server\"]\nfn f() {}\n"), 0);
        assert_eq!(check("// TODO: wait for the next redb\nlet s = \"TODO\"; let todo = 1;\n"), 0);
        assert_eq!(check("#[ignore]\nfn f() {}\n"), 1);
        assert_eq!(check("fn f() { todo!() }\nfn g() { unimplemented!(\"x\") }\n"), 2);
        assert_eq!(check("// TODO\n/* FIXME later */\n/// TODO: soon\n"), 3);
    }
}
