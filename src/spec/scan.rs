//! A look at YAML text before it is parsed: anchors and aliases are refused (a few bytes of them
//! become gigabytes), and so is deep nesting (64 KiB of `[` costs seconds).
//!
//! It walks tokens by the rules of libyaml's scanner, which parses the text afterwards, so that
//! a `*.tmp` inside a string is no alias and an alias cannot hide behind a quote in a comment.

/// Deepest nesting of `[` and `{`.
const DEEPEST: usize = 50;

/// Why the text is not parsed at all, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    pub line: usize,
    pub column: usize,
    pub message: String,
}

/// Looks through the text once.
pub(super) fn check(text: &str) -> Result<(), Trouble> {
    let chars: Vec<char> = text.chars().collect();
    let mut scanner = Scanner {
        chars: &chars,
        at: 0,
        line: 1,
        column: 0,
        flow: 0,
        indents: Vec::new(),
        key_column: None,
    };
    while scanner.token()? {}
    Ok(())
}

struct Scanner<'a> {
    chars: &'a [char],
    at: usize,
    line: usize,
    column: usize,
    /// How many `[` and `{` are open.
    flow: usize,
    /// Columns of the open block collections.
    indents: Vec<usize>,
    /// Column where the key of the current line would begin.
    key_column: Option<usize>,
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

impl Scanner<'_> {
    fn peek(&self, ahead: usize) -> Option<char> {
        self.chars.get(self.at + ahead).copied()
    }

    /// Whether a blank, a line break or the end comes there.
    fn ends(&self, ahead: usize) -> bool {
        self.peek(ahead).is_none_or(|c| is_blank(c) || is_break(c))
    }

    fn step(&mut self) {
        let Some(c) = self.peek(0) else { return };
        let pair = c == '\r' && self.peek(1) == Some('\n');
        self.at += 1;
        if is_break(c) && !pair {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
    }

    fn trouble(&self, message: &str) -> Trouble {
        Trouble { line: self.line, column: self.column + 1, message: message.to_owned() }
    }

    /// Column of the innermost block collection, as libyaml counts: none is -1.
    fn least_column(&self) -> usize {
        self.indents.last().map_or(0, |indent| indent + 1)
    }

    fn open_block(&mut self, column: usize) {
        if self.flow == 0 && self.indents.last().is_none_or(|top| column > *top) {
            self.indents.push(column);
        }
    }

    /// `---` or `...` at the start of a line.
    fn at_document_mark(&self) -> bool {
        let three = |c| (0..3).all(|ahead| self.peek(ahead) == Some(c));
        self.column == 0 && (three('-') || three('.')) && self.ends(3)
    }

    /// Reads over one token; false at the end.
    fn token(&mut self) -> Result<bool, Trouble> {
        self.gap();
        let Some(c) = self.peek(0) else { return Ok(false) };
        if self.flow == 0 {
            while self.indents.last().is_some_and(|top| *top > self.column) {
                self.indents.pop();
            }
        }
        if self.at_document_mark() {
            self.indents.clear();
            (0..3).for_each(|_| self.step());
            self.key_column = None;
            return Ok(true);
        }
        if c == '%' && self.column == 0 && self.flow == 0 {
            self.rest_of_line();
            return Ok(true);
        }
        if self.indicator(c)? {
            return Ok(true);
        }
        if self.key_column.is_none() {
            self.key_column = Some(self.column);
        }
        match c {
            '&' => {
                return Err(self
                    .trouble("anchors are not allowed: write the value out, or put it in quotes"));
            }
            '*' => {
                return Err(self
                    .trouble("aliases are not allowed: write the value out, or put it in quotes"));
            }
            '!' => self.tag(),
            '\'' => self.single_quoted(),
            '"' => self.double_quoted(),
            '|' | '>' if self.flow == 0 => self.block_scalar(),
            _ => self.plain(),
        }
        Ok(true)
    }

    /// Blanks, line breaks and comments.
    fn gap(&mut self) {
        while let Some(c) = self.peek(0) {
            if c == '#' {
                self.rest_of_line();
            } else if is_break(c) {
                self.step();
                if self.flow == 0 {
                    self.key_column = None;
                }
            } else if is_blank(c) || c == '\u{feff}' {
                self.step();
            } else {
                return;
            }
        }
    }

    fn rest_of_line(&mut self) {
        while self.peek(0).is_some_and(|c| !is_break(c)) {
            self.step();
        }
    }

    /// The marks that hold collections together. False: something else begins here.
    fn indicator(&mut self, c: char) -> Result<bool, Trouble> {
        match c {
            '[' | '{' => {
                if self.flow == 0 && self.key_column.is_none() {
                    self.key_column = Some(self.column);
                }
                self.flow += 1;
                if self.flow > DEEPEST {
                    return Err(self.trouble("nested more than 50 deep"));
                }
            }
            ']' | '}' => self.flow = self.flow.saturating_sub(1),
            ',' => {}
            '-' if self.ends(1) => {
                self.open_block(self.column);
                self.key_column = None;
            }
            '?' if self.flow > 0 || self.ends(1) => {
                self.open_block(self.column);
                self.key_column = None;
            }
            ':' if self.flow > 0 || self.ends(1) => {
                if self.flow == 0 {
                    let key = self.key_column.take().unwrap_or(self.column);
                    self.open_block(key);
                }
            }
            _ => return Ok(false),
        }
        self.step();
        Ok(true)
    }

    fn tag(&mut self) {
        let in_flow = self.flow > 0;
        let stops = |c: char| is_blank(c) || is_break(c) || in_flow && ",[]{}".contains(c);
        while self.peek(0).is_some_and(|c| !stops(c)) {
            self.step();
        }
    }

    fn single_quoted(&mut self) {
        self.step();
        while let Some(c) = self.peek(0) {
            self.step();
            if c == '\'' {
                if self.peek(0) != Some('\'') {
                    return;
                }
                self.step();
            }
        }
    }

    fn double_quoted(&mut self) {
        self.step();
        while let Some(c) = self.peek(0) {
            self.step();
            if c == '"' {
                return;
            }
            if c == '\\' {
                self.step();
            }
        }
    }

    /// A plain scalar goes on over lines that are indented more than what holds it.
    fn plain(&mut self) {
        loop {
            if self.at_document_mark() || self.peek(0) == Some('#') {
                return;
            }
            while let Some(c) = self.peek(0) {
                let ends = is_blank(c)
                    || is_break(c)
                    || c == ':' && self.ends(1)
                    || self.flow > 0
                        && (",[]{}".contains(c)
                            || c == ':' && self.peek(1).is_some_and(|c| ",?[]{}".contains(c)));
                if ends {
                    break;
                }
                self.step();
            }
            let mut broken = false;
            if !self.peek(0).is_some_and(|c| is_blank(c) || is_break(c)) {
                return;
            }
            while let Some(c) = self.peek(0).filter(|c| is_blank(*c) || is_break(*c)) {
                broken |= is_break(c);
                self.step();
            }
            if broken && self.flow == 0 {
                self.key_column = None;
                if self.column < self.least_column() {
                    return;
                }
            }
            let stops = match self.peek(0) {
                None | Some('#') => true,
                Some(':') => self.ends(1),
                Some(c) => self.flow > 0 && ",[]{}".contains(c),
            };
            if stops {
                return;
            }
        }
    }

    /// `|` or `>`: everything that is indented as far as its first line.
    fn block_scalar(&mut self) {
        let least = self.least_column();
        let mut explicit = None;
        self.step();
        while let Some(c) = self.peek(0).filter(|c| matches!(c, '+' | '-' | '0'..='9')) {
            explicit = explicit.or(c.to_digit(10));
            self.step();
        }
        self.rest_of_line();
        self.step();
        self.key_column = None;
        let indent = match explicit {
            // libyaml: parser.indent + n, or n outside of any collection.
            Some(more) => self.indents.last().map_or(0, |top| *top) + more as usize,
            None => self.detected_indent(least),
        };
        loop {
            while self.column < indent && self.peek(0) == Some(' ') {
                self.step();
            }
            match self.peek(0) {
                None => return,
                Some(c) if is_break(c) => self.step(),
                Some(_) if self.column < indent => return,
                Some(_) => {
                    self.rest_of_line();
                    self.step();
                }
            }
        }
    }

    /// The column of the first line with text, or of a longer blank one before it.
    fn detected_indent(&self, least: usize) -> usize {
        let (mut widest, mut column, mut ahead) = (0, 0, 0);
        while let Some(c) = self.peek(ahead) {
            match c {
                ' ' => column += 1,
                c if is_break(c) => column = 0,
                _ => break,
            }
            widest = widest.max(column);
            ahead += 1;
        }
        widest.max(least).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(text: &str) -> Option<(usize, usize)> {
        check(text).err().map(|trouble| (trouble.line, trouble.column))
    }

    #[test]
    fn anchors_and_aliases_are_found_where_they_stand() {
        for (text, at) in [
            ("a: &x 1\n", (1, 4)),
            ("a: 1\nb: *x\n", (2, 4)),
            ("&x a: 1\n", (1, 1)),
            ("*x : 1\n", (1, 1)),
            ("- &x 1\n", (1, 3)),
            ("[1, *x]\n", (1, 5)),
            ("{a: *x}\n", (1, 5)),
            ("[*x]", (1, 2)),
            ("a: !!str &x 1\n", (1, 10)),
            ("? *x\n", (1, 3)),
            ("a:\n  &x\n  b: 1\n", (2, 3)),
            ("--- &x\n", (1, 5)),
            ("it's: 1\nb: *x\n", (2, 4)),
            ("a: it's\nb: *x # it's\n", (2, 4)),
            ("# it's\nb: *x\n", (2, 4)),
            ("a: foo\n  'tis\nb: &x 1\n", (3, 4)),
            ("a: |\n  'tis\nb: &x 1\n", (3, 4)),
            ("- a: |\n  b: &x 1\n", (2, 6)),
            ("- |\n 'a\n- *x\n", (3, 3)),
            ("a: |2\n   'tis\nb: &x 1\n", (3, 4)),
            ("a: >-\n\n  'tis\n\nb: &x 1\n", (5, 4)),
            ("a: \"\\\"\"\nb: *x\n", (2, 4)),
            ("a: 'it''s'\nb: *x\n", (2, 4)),
            ("# c\u{2028}b: *x\n", (2, 4)),
            ("a: b\r\nc: *x\r\n", (2, 4)),
            ("a: 'x\n  y'\nb: *x\n", (3, 4)),
            ("a: |\n  x\n---\nb: *x\n", (4, 4)),
        ] {
            assert_eq!(place(text), Some(at), "{text:?}");
        }
    }

    #[test]
    fn ampersands_and_stars_in_strings_are_text() {
        for text in [
            "a: b & c\n",
            "a: x*y\n",
            "a: 'see &x and *y'\n",
            "a: \"&x *y\"\n",
            "# &x *y\n",
            "a: 1 # *y\n",
            "a: |\n  &x\n  *y\n",
            "a: >\n  *y\n\n  &x\nb: 1\n",
            "- |\n *y\n- 1\n",
            "exclude: [\"*.tmp\", a*b]\n",
            "a: find .\n  *.tmp\n",
            "a: http://x/?a=1&b=2\n",
            "a: [b*, c&d]\n",
            "{a:*x}\n",
            "a: foo\n\n  *bar\nb: 1\n",
        ] {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
    }

    #[test]
    fn nesting_is_capped_and_brackets_in_strings_are_not_counted() {
        assert_eq!(check(&"[".repeat(50)), Ok(()));
        assert_eq!(place(&"[".repeat(51)), Some((1, 51)));
        assert_eq!(place(&"{a: ".repeat(51)), Some((1, 201)));
        assert_eq!(check(&format!("a: '{}'\n", "[".repeat(500))), Ok(()));
    }
}
