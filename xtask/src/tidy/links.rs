//! Links between the files of the repository, in Markdown pages.

use std::collections::BTreeSet;
use std::iter;
use std::path::Path;

use super::tree::{Finding, Tree};

/// Checks that each relative link of a Markdown page leads to a file or folder, and its anchor to a
/// heading.
pub(super) fn check_links(tree: &Tree) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (path, text) in tree.with_extension("md") {
        for (line, link) in links(text) {
            if let Some(message) = broken(tree, path, &link) {
                findings.push(Finding::at(path, line, format!("`{link}`: {message}")));
            }
        }
    }
    findings
}

fn broken(tree: &Tree, page: &str, link: &str) -> Option<String> {
    // `crate::Item` is a link of rustdoc, which checks it.
    if link.contains("::") || has_scheme(link) {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { Some(page.to_owned()) } else { resolve(page, file) };
    let Some(target) = target.filter(|target| tree.has(target)) else {
        return Some("there is no such file".to_owned());
    };
    let is_page = Path::new(&target).extension().is_some_and(|extension| extension == "md");
    let headings = anchors(tree.get(&target).unwrap_or_default());
    if anchor.is_empty() || !is_page || headings.contains(anchor) {
        return None;
    }
    Some(format!("{target} has no heading for `#{anchor}`"))
}

/// Returns whether a link starts with a scheme such as `https:`, or leads to another host.
fn has_scheme(link: &str) -> bool {
    let before_colon = link.split_once(':').map_or("", |(before, _)| before);
    let is_scheme = !before_colon.is_empty()
        && before_colon.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_scheme || link.starts_with("//")
}

/// Returns the path of `link` from the root, or `None` if it leaves the repository.
fn resolve(page: &str, link: &str) -> Option<String> {
    let folder = page.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/").replace("%20", " "))
}

/// Returns the targets of the links in a page, with their lines.
fn links(text: &str) -> impl Iterator<Item = (usize, String)> {
    let lines = prose_lines(text);
    lines.flat_map(|(number, line)| {
        let mut targets: Vec<String> = inline_targets(&line);
        targets.extend(definition_target(&line));
        targets.into_iter().map(move |target| (number, target))
    })
}

/// Returns the lines outside fenced code, without their code spans.
fn prose_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    let mut fence = None;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let start = line.trim_start();
        let opens = ["```", "~~~"].into_iter().find(|mark| start.starts_with(mark));
        match (fence, opens) {
            (None, Some(mark)) => fence = Some(mark),
            (Some(open), Some(mark)) if open == mark => fence = None,
            (None, None) => return Some((index + 1, without_code_spans(line))),
            (Some(_), _) => {}
        }
        None
    })
}

fn without_code_spans(line: &str) -> String {
    let mut rest = line;
    let mut prose = String::new();
    while let Some((before, after)) = rest.split_once('`') {
        prose.push_str(before);
        let ticks = 1 + after.chars().take_while(|c| *c == '`').count();
        let after = &after[ticks - 1..];
        let end = "`".repeat(ticks);
        // A code span that does not end on its line is text.
        let Some((_, after)) = after.split_once(&end) else {
            prose.push_str(after);
            return prose;
        };
        // Keeps the text of a link from being empty.
        prose.push('_');
        rest = after;
    }
    prose + rest
}

/// Returns the targets of `[text](target)` and `![text](target "title")`.
fn inline_targets(line: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for (start, _) in line.match_indices("](") {
        let rest = &line[start + 2..];
        let mut depth = 1_usize;
        let end = rest.find(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => {}
            }
            depth == 0
        });
        let inside = rest[..end.unwrap_or(rest.len())].trim();
        targets.extend(inside.split_whitespace().next().map(unquoted));
    }
    targets
}

/// Returns the target of `[label]: target`.
fn definition_target(line: &str) -> Option<String> {
    let (_, target) = line.trim_start().strip_prefix('[')?.split_once("]: ")?;
    target.split_whitespace().next().map(unquoted)
}

fn unquoted(target: &str) -> String {
    target.trim_start_matches('<').trim_end_matches('>').to_owned()
}

/// Returns the anchors of a page: its headings as GitHub and mdBook name them, and explicit ids.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for (_, line) in headings(text) {
        let name = anchor_of(line);
        let numbered = (1..).map(|number| format!("{name}-{number}"));
        let mut names = iter::once(name.clone()).chain(numbered);
        anchors.extend(names.find(|name| !anchors.contains(name)));
    }
    for mark in ["id=\"", "name=\""] {
        let after = text.match_indices(mark).map(|(start, _)| &text[start + mark.len()..]);
        anchors.extend(after.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned())));
    }
    anchors
}

fn headings(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let numbers: BTreeSet<usize> = prose_lines(text).map(|(number, _)| number).collect();
    text.lines().enumerate().filter_map(move |(index, line)| {
        let title = line.trim_start_matches('#');
        let level = line.len() - title.len();
        let is_heading = (1..=6).contains(&level) && title.starts_with(' ');
        (is_heading && numbers.contains(&(index + 1))).then(|| (level, title.trim()))
    })
}

fn anchor_of(heading: &str) -> String {
    let without_targets = heading.split("](").enumerate().map(|(index, part)| {
        let text = if index == 0 { part } else { part.split_once(')').map_or("", |(_, t)| t) };
        text.to_owned()
    });
    let text: String = without_targets.collect();
    text.chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
        .map(|c| if c == ' ' { '-' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tidy::tree::assert_rule;

    fn findings(page: &str) -> Vec<String> {
        let tree = Tree::of(&[
            ("README.md", "# A page\n"),
            ("docs/page.md", page),
            ("docs/guide/one.md", "# One `two`, three\n\n## Twice\n\n## Twice\n<a id=\"x\"></a>\n"),
            ("crates/a/src/lib.rs", ""),
        ]);
        check_links(&tree).into_iter().map(|finding| finding.message).collect()
    }

    #[test]
    fn link_to_a_missing_file_is_found() {
        let good = [
            "[a](guide/one.md)",
            "[a](./guide/one.md \"title\")",
            "[a](../README.md)",
            "[a](../crates/a/src/lib.rs#L3)",
            "[a](../crates/a)",
            "[a](https://example.org/none.md)",
            "[a](mailto:a@example.org)",
            "[`Store`](cubbyhole::Store)",
            "`[a](none.md)`",
            "```text\n[a](none.md)\n```",
            "[`a`]: guide/one.md",
        ];
        let bad = [
            "[a](none.md)",
            "![a](none.svg)",
            "[`a`](guide/none.md)",
            "[a](guide/one.md) and [b](none.md)",
            "[a]: none.md",
            "[a](../../README.md)",
            "```text\n```\n[a](none.md)",
        ];
        assert_rule(findings, &good, &bad);
    }

    #[test]
    fn link_to_a_missing_heading_is_found() {
        let good = [
            "# Own heading\n[a](#own-heading)",
            "[a](guide/one.md#one-two-three)",
            "[a](guide/one.md#twice-1)",
            "[a](guide/one.md#x)",
        ];
        let bad = ["[a](#own-heading)", "[a](guide/one.md#two)", "[a](guide/one.md#twice-2)"];
        assert_rule(findings, &good, &bad);
    }
}
