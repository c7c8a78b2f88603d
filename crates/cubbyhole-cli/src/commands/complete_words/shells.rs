//! The input and output formats of the completion scripts.
//!
//! The first line of the output is `names`, `nospace` (no space after the candidate), or `files`
//! (the shell completes paths). Each other line is a candidate. For bash, candidates are quoted.
//! For other shells they are unquoted, and a tab separates the description.

use super::candidate::Candidate;
use crate::output::is_plain_in_shell;

/// The quotes that are open at the cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Single,
    Double,
}

/// The command line of bash, up to the cursor.
///
/// Readline does not replace the whole word, but only the text after the last separator, such as
/// `:`, or after an open quote.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct BashLine {
    /// The words without quotes. The last one is unfinished.
    pub(super) words: Vec<String>,
    quote: Quote,
    /// The bytes of the last word that readline keeps.
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

    /// Returns the output for bash: the candidates without the text that readline keeps.
    pub(super) fn answer(&self, lead: &str, candidates: &[Candidate]) -> Vec<String> {
        let continues = candidates.iter().any(Candidate::continues);
        let mut lines = vec![if continues { "nospace" } else { "names" }.to_owned()];
        lines.extend(candidates.iter().filter_map(|candidate| {
            let whole = format!("{lead}{}", candidate.text);
            Some(quoted(whole.get(self.kept..)?, self.quote))
        }));
        lines
    }
}

/// Escapes text for the quotes that are open.
fn quoted(text: &str, quote: Quote) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match (quote, c) {
            (Quote::Single, '\'') => out.push_str(r"'\''"),
            // In double quotes, `!` expands history even if it is escaped.
            (Quote::Double, '!') => out.push_str("\"'!'\""),
            (Quote::Double, '"' | '\\' | '$' | '`') => out.extend(['\\', c]),
            (Quote::None, c) if c.is_ascii() && !is_plain_in_shell(c) => out.extend(['\\', c]),
            (_, c) => out.push(c),
        }
    }
    out
}

/// Returns the output for zsh and fish, which quote candidates themselves.
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

    /// Returns the line after readline has inserted the candidate.
    fn taken(line: &str, candidate: &str) -> String {
        let read = BashLine::read(line, BREAKS);
        let lines = read.answer("", &[Candidate::name(candidate.to_owned())]);
        // Readline replaces the text after the last separator or the open quote.
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
    fn line_is_split_like_in_bash() {
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
    fn inserted_candidate_parses_as_the_name() {
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
    fn only_the_text_that_readline_replaces_is_returned() {
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
        // If `:` is no separator, readline keeps nothing.
        let line = BashLine::read("c get acme:", " \t\n");
        assert_eq!(line.answer("", &candidates), ["names", r"acme:a\ b"]);
    }

    #[test]
    fn no_space_follows_an_unfinished_word() {
        let line = BashLine::read("c get ", BREAKS);
        let answer = |text: &str| line.answer("", &[Candidate::name(text.to_owned())]);
        assert_eq!(answer("acme:"), ["nospace", "acme:"]);
        assert_eq!(answer("acme"), ["names", "acme"]);
    }
}
