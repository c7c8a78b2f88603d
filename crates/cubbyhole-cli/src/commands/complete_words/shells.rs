//! How each shell hands over its line, and takes what may stand there.
//!
//! Answers are lines. The first says how to go on: `names`, the same without a space after the one
//! that is taken as `nospace`, or `files` for the shell's own completion of paths. Then comes one
//! candidate a line: for bash quoted as it stands in the line, for the others bare, with a tab and
//! what it is.

use super::candidate::Candidate;
use crate::output::is_plain_in_shell;

/// Which quotes are open where the cursor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// A line of bash's up to the cursor.
///
/// Readline replaces less than a word: what comes after the last of the characters that break
/// words for it, `:` among them, or after an open quote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BashLine {
    /// Without their quotes; the last one is unfinished.
    pub(super) words: Vec<String>,
    quote: Quote,
    /// Bytes of the last word that readline leaves as they are.
    kept: usize,
}

impl BashLine {
    pub(super) fn read(line: &str, breaks: &str) -> Self {
        let mut read = Self { words: Vec::new(), quote: Quote::None, kept: 0 };
        let mut word: Option<String> = None;
        let mut chars = line.chars();
        while let Some(c) = chars.next() {
            if read.quote == Quote::None && c.is_ascii_whitespace() {
                read.words.extend(word.take());
                read.kept = 0;
                continue;
            }
            let word = word.get_or_insert_default();
            match (read.quote, c) {
                (Quote::None, '\\') => word.extend(chars.next()),
                (Quote::None, '\'' | '"') => {
                    read.quote = if c == '"' { Quote::Double } else { Quote::Single };
                    read.kept = word.len();
                }
                (Quote::Single, '\'') | (Quote::Double, '"') => {
                    read.quote = Quote::None;
                    read.kept = word.len();
                }
                (Quote::Double, '\\') => match chars.next() {
                    Some(next) if "\"\\$`".contains(next) => word.push(next),
                    next => word.extend(std::iter::once('\\').chain(next)),
                },
                (quote, c) => {
                    word.push(c);
                    if quote == Quote::None && breaks.contains(c) {
                        read.kept = word.len();
                    }
                }
            }
        }
        read.words.push(word.unwrap_or_default());
        read
    }

    /// The candidates as they stand in the line, each without what readline leaves there.
    pub(super) fn answer(&self, lead: &str, candidates: &[Candidate]) -> Vec<String> {
        let goes_on = candidates.iter().any(Candidate::goes_on);
        let mut lines = vec![if goes_on { "nospace" } else { "names" }.to_owned()];
        lines.extend(candidates.iter().filter_map(|candidate| {
            let whole = format!("{lead}{}", candidate.text);
            Some(quoted(whole.get(self.kept..)?, self.quote))
        }));
        lines
    }
}

/// Text within the quotes that are open, or within none.
fn quoted(text: &str, quote: Quote) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match (quote, c) {
            (Quote::Single, '\'') => out.push_str(r"'\''"),
            // An exclamation mark recalls a line also between these quotes, escaped or not.
            (Quote::Double, '!') => out.push_str("\"'!'\""),
            (Quote::Double, '"' | '\\' | '$' | '`') => out.extend(['\\', c]),
            (Quote::None, c) if c.is_ascii() && !is_plain_in_shell(c) => out.extend(['\\', c]),
            (_, c) => out.push(c),
        }
    }
    out
}

/// The candidates as zsh and fish take them, which quote by themselves.
pub(super) fn bare(lead: &str, candidates: &[Candidate]) -> Vec<String> {
    let mut lines = vec!["names".to_owned()];
    lines.extend(candidates.iter().map(|Candidate { text, about }| {
        let tab = if about.is_empty() { "" } else { "\t" };
        format!("{lead}{text}{tab}{about}")
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKS: &str = " \t\n\"'><=;|&(:";

    /// What the line becomes if the one candidate is taken.
    fn taken(line: &str, candidate: &str) -> String {
        let read = BashLine::read(line, BREAKS);
        let lines = read.answer("", &[Candidate::name(candidate.to_owned())]);
        // As readline does: from the last break, or the open quote, on.
        let begun = match read.quote {
            Quote::None => {
                let mut escaped = false;
                let mut begun = 0;
                for (at, c) in line.char_indices() {
                    if !escaped && BREAKS.contains(c) {
                        begun = at + c.len_utf8();
                    }
                    escaped = !escaped && c == '\\';
                }
                begun
            }
            Quote::Single => line.rfind('\'').map_or(0, |at| at + 1),
            Quote::Double => line.rfind('"').map_or(0, |at| at + 1),
        };
        format!("{}{}", &line[..begun], lines[1])
    }

    #[test]
    fn a_line_is_read_as_bash_reads_it() {
        for (line, words) in [
            ("cubbyhole get acme:agent-7 tu", &["cubbyhole", "get", "acme:agent-7", "tu"][..]),
            ("cubbyhole get ", &["cubbyhole", "get", ""]),
            (r#"c "a b" 'c d' e\ f"#, &["c", "a b", "c d", "e f"]),
            (r#"c "a\"b\x" 'a\'"#, &["c", "a\"b\\x", "a\\"]),
            (r#"c a"b c"#, &["c", "ab c"]),
            (r"c acme\\:", &["c", r"acme\:"]),
            ("c ''", &["c", ""]),
            (r"c a\", &["c", "a"]),
            ("", &[""]),
        ] {
            assert_eq!(BashLine::read(line, BREAKS).words, words, "{line}");
        }
    }

    #[test]
    fn what_is_taken_reads_back_as_the_name() {
        for name in [
            "acme:agent-7",
            "acme:it's",
            r"acme:a\:b c",
            "acme:$x`y`\"z!",
            "acme:日本 (1)",
            "acme:~#;&|<>*?[]{}",
        ] {
            for begun in ["", "ac", "acme:", r"acme\:", "\"ac", "\"acme:", "'", "'acme:"] {
                let line = format!("cubbyhole get {begun}");
                let line = taken(&line, name);
                let closed = match BashLine::read(&line, BREAKS).quote {
                    Quote::None => line.clone(),
                    Quote::Single => format!("{line}'"),
                    Quote::Double => format!("{line}\""),
                };
                assert_eq!(BashLine::read(&closed, BREAKS).words, ["cubbyhole", "get", name]);
            }
        }
    }

    #[test]
    fn only_what_readline_replaces_is_answered() {
        let candidates = [Candidate::name("acme:a b".to_owned())];
        for (line, answer) in [
            ("c get ", r"acme:a\ b"),
            ("c get ac", r"acme:a\ b"),
            ("c get acme:", r"a\ b"),
            (r"c get acme\:a", r"acme:a\ b"),
            ("c get \"acme:", "acme:a b"),
            ("c get 'acme:a", "acme:a b"),
        ] {
            assert_eq!(BashLine::read(line, BREAKS).answer("", &candidates)[1], answer, "{line}");
        }
        let line = BashLine::read("c list x --after=ac", BREAKS);
        assert_eq!(line.answer("--after=", &candidates), ["names", r"acme:a\ b"]);
        // Where `:` breaks no word nothing is kept.
        let line = BashLine::read("c get acme:", " \t\n");
        assert_eq!(line.answer("", &candidates), ["names", r"acme:a\ b"]);
    }

    #[test]
    fn no_space_follows_where_the_word_goes_on() {
        let line = BashLine::read("c get ", BREAKS);
        let answer = |text: &str| line.answer("", &[Candidate::name(text.to_owned())]);
        assert_eq!(answer("acme:"), ["nospace", "acme:"]);
        assert_eq!(answer("acme"), ["names", "acme"]);
    }
}
