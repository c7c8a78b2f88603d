//! Rust source split into what is code and what is comment, and its functions.

/// Two views of one source, each as long as the source in characters and lines.
pub(super) struct Code {
    /// Without comments and without the inside of strings.
    pub(super) code: String,
    /// The comments and nothing else.
    pub(super) comments: String,
}

impl Code {
    pub(super) fn of(source: &str) -> Self {
        let mut splitter = Splitter {
            rest: source.chars().collect(),
            at: 0,
            view: Self { code: String::new(), comments: String::new() },
        };
        while splitter.at < splitter.rest.len() {
            splitter.token();
        }
        splitter.view
    }

    /// Each function with a body.
    pub(super) fn functions(&self) -> Vec<Function> {
        let mut functions = Vec::new();
        for (start, _) in self.code.match_indices("fn ") {
            let (before, after) = (&self.code[..start], &self.code[start + 3..]);
            let starts_a_word = !before.ends_with(is_word);
            let name: String = after.chars().take_while(|c| is_word(*c) || *c == '$').collect();
            if !starts_a_word || name.is_empty() {
                continue;
            }
            if let Some(length) = body_end(after) {
                let line = before.matches('\n').count() + 1;
                let lines = after[..length].matches('\n').count() + 1;
                functions.push(Function { name, line, lines });
            }
        }
        functions
    }
}

/// A function: where it begins, and how many lines it has from its `fn` to its closing brace.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Function {
    pub(super) name: String,
    pub(super) line: usize,
    pub(super) lines: usize,
}

/// Where the body ends that begins in `text`; `None` if a `;` comes first.
fn body_end(text: &str) -> Option<usize> {
    // Brackets beside braces, because of the `;` in `[u8; 4]`.
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (index, c) in text.char_indices() {
        match c {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces <= 1 => return (braces == 1).then_some(index),
            '}' => braces -= 1,
            ';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}

pub(super) fn is_word(c: char) -> bool {
    c == '_' || c.is_alphanumeric()
}

struct Splitter {
    rest: Vec<char>,
    at: usize,
    view: Code,
}

impl Splitter {
    /// Takes one token: a comment, a literal, or one character of code.
    fn token(&mut self) {
        match (self.peek(0), self.peek(1)) {
            ('/', '/') => {
                while self.at < self.rest.len() && self.peek(0) != '\n' {
                    self.comment(1);
                }
            }
            ('/', '*') => self.block_comment(),
            ('"', _) => self.string(),
            ('r', '"' | '#') if !self.is_inside_a_word() => self.raw_string(),
            ('\'', '\\') => {
                // The escaped character may itself be a quote.
                self.code(1);
                self.blank(2);
                self.blank_until(|splitter| splitter.peek(0) == '\'');
                self.code(1);
            }
            ('\'', _) if self.peek(2) == '\'' => {
                self.code(1);
                self.blank(1);
                self.code(1);
            }
            _ => self.code(1),
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0;
        loop {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => depth += 1,
                ('*', '/') => depth -= 1,
                _ if self.at >= self.rest.len() => return,
                _ => {
                    self.comment(1);
                    continue;
                }
            }
            self.comment(2);
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.code(1);
        while self.at < self.rest.len() && self.peek(0) != '"' {
            self.blank(if self.peek(0) == '\\' { 2 } else { 1 });
        }
        self.code(1);
    }

    fn raw_string(&mut self) {
        let hashes = (1..).take_while(|ahead| self.peek(*ahead) == '#').count();
        // `r#name` is an identifier.
        if self.peek(1 + hashes) != '"' {
            return self.code(1 + hashes);
        }
        self.code(hashes + 2);
        self.blank_until(|splitter| {
            splitter.peek(0) == '"' && (1..=hashes).all(|ahead| splitter.peek(ahead) == '#')
        });
        self.code(hashes + 1);
    }

    /// Whether the character before this one belongs to the same word, but for the `b` and `c` of
    /// byte and C strings.
    fn is_inside_a_word(&self) -> bool {
        let before = |back: usize| self.at.checked_sub(back).map(|index| self.rest[index]);
        match before(1) {
            Some('b' | 'c') => before(2).is_some_and(is_word),
            other => other.is_some_and(is_word),
        }
    }

    /// NUL at the end, which no rule looks for.
    fn peek(&self, ahead: usize) -> char {
        self.rest.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn blank_until(&mut self, end: impl Fn(&Self) -> bool) {
        while self.at < self.rest.len() && !end(self) {
            self.blank(1);
        }
    }

    fn code(&mut self, count: usize) {
        self.take(count, |c| (c, ' '));
    }

    fn comment(&mut self, count: usize) {
        self.take(count, |c| (' ', c));
    }

    fn blank(&mut self, count: usize) {
        self.take(count, |_| (' ', ' '));
    }

    fn take(&mut self, count: usize, views: impl Fn(char) -> (char, char)) {
        let end = (self.at + count).min(self.rest.len());
        for c in &self.rest[self.at..end] {
            let (code, comment) = if *c == '\n' { ('\n', '\n') } else { views(*c) };
            self.view.code.push(code);
            self.view.comments.push(comment);
        }
        self.at = end;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeeze(text: &str) -> String {
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn strings_and_comments_are_no_code() {
        for (source, code) in [
            ("a // b", "a"),
            ("a /* b /* c */ d */ e", "a e"),
            (r#"f("b\"c", 'd')"#, r#"f(" ", ' ')"#),
            (r##"f(r#"b"c"#, br"d", r#type)"##, r##"f(r#" "#, br" ", r#type)"##),
            (r"f('\'', '\u{1F600}', '\\', x)", "f(' ', ' ', ' ', x)"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("var\"s\"", "var\" \""),
        ] {
            let view = Code::of(source);
            assert_eq!(squeeze(&view.code), code);
            assert_eq!(view.code.chars().count(), source.chars().count());
        }
        assert_eq!(squeeze(&Code::of("a // b \"c\"\n/* d */ e").comments), "// b \"c\" /* d */");
    }

    #[test]
    fn functions_are_measured_from_fn_to_brace() {
        let source = "
            trait T { fn none(x: [u8; 2]); }
            type F = fn(u8) -> u8;
            fn short() {}
            pub async fn longer(
                x: [u8; 2],
            ) {
                if x == \"}\" { '}' }
            }
        ";
        let functions = Code::of(source).functions();
        assert_eq!(
            functions,
            [
                Function { name: "short".into(), line: 4, lines: 1 },
                Function { name: "longer".into(), line: 5, lines: 5 },
            ]
        );
    }
}
