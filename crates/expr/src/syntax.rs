//! From text to a syntax tree: the only module that knows the CEL library.
//!
//! The library parses; around it are a scan that bounds the input before (the parser recurses) and gives the
//! common slips a message of their own, and a conversion that recovers the exact span of each node after (the
//! library remembers one token of each).

use std::ops::Range;

use cel::common::ast::{CallExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators};

use crate::Diagnostic;

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 4096;
/// The most tokens in an expression. The library recurses along chains of operators, too.
const MAX_TOKENS: usize = 512;
/// The deepest nesting of brackets or of `?:` in the source.
const MAX_NESTING: usize = 32;
/// The deepest syntax tree.
const MAX_DEPTH: usize = 64;

/// A node of the syntax tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) span: Range<usize>,
    pub(crate) syntax: Syntax,
}

#[derive(Debug)]
pub(crate) enum Syntax {
    /// A call by name, of a function or a macro.
    Call {
        name: String,
        target: Option<Box<Node>>,
        args: Vec<Node>,
    },
    List(Vec<Node>),
    Literal(Literal),
    Name(String),
    Operator(Operator, Vec<Node>),
    Select(Box<Node>, String),
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Literal {
    Bool(bool),
    Double(f64),
    Int(i64),
    Null,
    Text(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    And,
    Equal,
    Greater,
    GreaterOrEqual,
    If,
    In,
    Index,
    Less,
    LessOrEqual,
    Modulo,
    Multiply,
    Negate,
    Not,
    NotEqual,
    Or,
    Subtract,
}

impl Operator {
    const ALL: [(Self, &'static str, &'static str); 17] = [
        (Self::Add, operators::ADD, "+"),
        (Self::And, operators::LOGICAL_AND, "&&"),
        (Self::Equal, operators::EQUALS, "=="),
        (Self::Greater, operators::GREATER, ">"),
        (Self::GreaterOrEqual, operators::GREATER_EQUALS, ">="),
        (Self::If, operators::CONDITIONAL, "?:"),
        (Self::In, operators::IN, "in"),
        (Self::Index, operators::INDEX, "[]"),
        (Self::Less, operators::LESS, "<"),
        (Self::LessOrEqual, operators::LESS_EQUALS, "<="),
        (Self::Modulo, operators::MODULO, "%"),
        (Self::Multiply, operators::MULTIPLY, "*"),
        (Self::Negate, operators::NEGATE, "-"),
        (Self::Not, operators::LOGICAL_NOT, "!"),
        (Self::NotEqual, operators::NOT_EQUALS, "!="),
        (Self::Or, operators::LOGICAL_OR, "||"),
        (Self::Subtract, operators::SUBSTRACT, "-"),
    ];

    /// Returns the operator as it is written.
    pub(crate) fn symbol(self) -> &'static str {
        Self::ALL.iter().find(|(operator, ..)| *operator == self).map_or("", |(.., symbol)| symbol)
    }

    fn from_cel(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, cel, _)| *cel == name).map(|(operator, ..)| *operator)
    }
}

/// Returns the syntax tree of `source`.
pub(crate) fn parse(source: &str) -> Result<Node, Vec<Diagnostic>> {
    let brackets = scan(source).map_err(|diagnostic| vec![diagnostic])?;
    // Without an environment no macro is expanded, so that the tree is what was written.
    let parsed = cel::Env::default().parser().parse_with_source_info(source);
    let (tree, info) = parsed.map_err(|errors| {
        let first = errors.errors.iter().min_by_key(|e| (e.msg.starts_with("Incomplete"), e.pos));
        vec![first.map_or_else(|| unexpected(source, source.len()), |e| in_our_words(source, e.pos, &e.msg))]
    })?;
    let mut converter =
        Converter { source, info: &info, brackets: &brackets, diagnostics: Vec::new(), depth: 0 };
    let node = converter.node(&tree);
    if converter.diagnostics.is_empty() { Ok(node) } else { Err(converter.diagnostics) }
}

/// Returns the end of the string literal whose opening quote is at `start`, or `None` when it is not closed.
pub(crate) fn end_of_string(source: &str, start: usize, raw: bool) -> Option<usize> {
    let rest = source.get(start..)?;
    let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| rest.starts_with(quote))?;
    let mut at = quote.len();
    while let Some(c) = rest.get(at..)?.chars().next() {
        if rest.get(at..)?.starts_with(quote) {
            return Some(start + at + quote.len());
        }
        if quote.len() == 1 && matches!(c, '\n' | '\r') {
            return None;
        }
        at += c.len_utf8();
        if c == '\\' && !raw {
            at += rest.get(at..)?.chars().next().map_or(0, char::len_utf8);
        }
    }
    None
}

/// Checks the tokens of `source`, and returns its pairs of brackets by their byte offsets.
fn scan(source: &str) -> Result<Vec<(usize, usize)>, Diagnostic> {
    if source.len() > MAX_LENGTH {
        let message = format!("the expression is longer than {MAX_LENGTH} bytes");
        return Err(Diagnostic::new(0..source.len(), message));
    }
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut pairs = Vec::new();
    let mut conditionals = 0;
    let mut tokens = 0;
    let mut at = 0;
    while let Some(c) = source.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = source.get(at..).unwrap_or_default();
        let mut length = c.len_utf8();
        let here = at..at + length;
        let after = rest.get(length..).unwrap_or_default();
        match c {
            'a'..='z' | 'A'..='Z' | '_' | '0'..='9' => {
                length = word_length(rest);
                let word = rest.get(..length).unwrap_or_default();
                let prefix = matches!(word.to_ascii_lowercase().as_str(), "r" | "b" | "rb" | "br");
                if prefix && rest.get(length..).is_some_and(|rest| rest.starts_with(['"', '\''])) {
                    length = string_length(source, at + length, word.contains(['r', 'R']))? + length;
                }
            }
            '"' | '\'' => length = string_length(source, at, false)?,
            '/' if rest.starts_with("//") => length = rest.find('\n').unwrap_or(rest.len()),
            '(' | '[' => {
                open.push((at, if c == '(' { ')' } else { ']' }));
                if open.len() > MAX_NESTING {
                    return Err(Diagnostic::new(here, "the expression is nested too deeply"));
                }
            }
            ')' | ']' => match open.pop() {
                Some((start, expected)) if expected == c => pairs.push((start, at)),
                Some((_, expected)) => {
                    return Err(Diagnostic::new(here, format!("expected `{expected}`, found `{c}`")));
                }
                None => return Err(Diagnostic::new(here, format!("`{c}` closes nothing"))),
            },
            '?' => {
                conditionals += 1;
                if conditionals > MAX_NESTING {
                    return Err(Diagnostic::new(here, "too many `?` in one expression"));
                }
            }
            '=' | '!' | '<' | '>' if after.starts_with('=') => length = 2,
            '&' | '|' if after.starts_with(c) => length = 2,
            '=' => return Err(Diagnostic::new(here, "`=` is not an operator").help("compare with `==`")),
            '&' | '|' => {
                let help = if c == '&' { "write `&&` for and" } else { "write `||` for or" };
                return Err(Diagnostic::new(here, format!("`{c}` is not an operator")).help(help));
            }
            '{' | '}' => return Err(Diagnostic::new(here, "maps cannot be written in an expression")),
            '!' | '<' | '>' | '+' | '-' | '*' | '/' | '%' | '.' | ',' | ':' => {}
            c if c.is_ascii_whitespace() => {}
            c => return Err(Diagnostic::new(here, format!("unexpected character `{}`", c.escape_debug()))),
        }
        tokens += usize::from(!c.is_ascii_whitespace());
        if tokens > MAX_TOKENS {
            return Err(Diagnostic::new(here, format!("the expression has more than {MAX_TOKENS} tokens")));
        }
        at += length;
    }
    match open.pop() {
        Some((start, close)) => {
            Err(Diagnostic::new(start..start + 1, format!("this bracket is not closed by `{close}`")))
        }
        None => Ok(pairs),
    }
}

fn string_length(source: &str, start: usize, raw: bool) -> Result<usize, Diagnostic> {
    let end = end_of_string(source, start, raw);
    end.map(|end| end - start)
        .ok_or_else(|| Diagnostic::new(start..source.len(), "this string is not closed"))
}

fn word_length(text: &str) -> usize {
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

/// Returns the library's error at `position` (1-based line and column) with a message of our own.
fn in_our_words(source: &str, position: (isize, isize), message: &str) -> Diagnostic {
    let number = |n: isize| usize::try_from(n - 1).unwrap_or(0);
    let line = source.split_inclusive('\n').take(number(position.0)).map(str::len).sum::<usize>();
    let text = source.get(line..).unwrap_or_default();
    let column = text.char_indices().nth(number(position.1)).map_or(text.len(), |(at, _)| at);
    let mut diagnostic = unexpected(source, line + column);
    if message.contains("int literal") || message.contains("double literal") {
        diagnostic.message = "this number is too large".to_owned();
    } else if message.starts_with("reserved identifier") {
        let word = source.get(diagnostic.span.clone()).unwrap_or_default();
        diagnostic.message = format!("`{word}` is a reserved word");
    } else if message.contains("recognition error") && diagnostic.message.contains(['"', '\'']) {
        diagnostic.message = "this string has an escape that does not exist".to_owned();
        diagnostic.help = Some("write `\\\\` for a backslash, or a raw string: r\"…\"".to_owned());
    }
    diagnostic
}

/// Returns the diagnostic that the token at `at` does not belong there.
fn unexpected(source: &str, at: usize) -> Diagnostic {
    let rest = source.get(at..).unwrap_or_default();
    let blank = rest.len() - rest.trim_start().len();
    let (at, rest) = (at + blank, rest.trim_start());
    let Some(first) = rest.chars().next() else {
        let end = source.trim_end().len();
        let message = if end == 0 { "the expression is empty" } else { "the expression ends too early" };
        let last = source.trim_end().chars().next_back().map_or(0, char::len_utf8);
        return Diagnostic::new(end - last..end, message);
    };
    let length = match word_length(rest) {
        0 if matches!(first, '"' | '\'') => {
            end_of_string(source, at, false).map_or(rest.len(), |end| end.saturating_sub(at))
        }
        0 if ["&&", "||", "==", "!=", "<=", ">="].iter().any(|op| rest.starts_with(op)) => 2,
        0 => first.len_utf8(),
        length => length,
    };
    let token = rest.get(..length).unwrap_or(rest);
    Diagnostic::new(at..at + token.len(), format!("unexpected `{token}`"))
}

/// Converts the library's tree into ours.
struct Converter<'a> {
    source: &'a str,
    info: &'a SourceInfo,
    brackets: &'a [(usize, usize)],
    diagnostics: Vec<Diagnostic>,
    depth: usize,
}

impl Converter<'_> {
    fn node(&mut self, tree: &IdedExpr) -> Node {
        let (start, last) = self.info.offset_for(tree.id).unwrap_or_default();
        let token = start as usize..(last as usize + 1).min(self.source.len());
        if self.depth >= MAX_DEPTH {
            return self.refuse(token, "the expression is nested too deeply");
        }
        self.depth += 1;
        let node = self.convert(&tree.expr, token);
        self.depth -= 1;
        node
    }

    fn convert(&mut self, tree: &Expr, token: Range<usize>) -> Node {
        match tree {
            Expr::Call(call) => self.call(call, token),
            Expr::Ident(name) if name.starts_with('.') => {
                self.refuse(token, "a name does not begin with a dot")
            }
            Expr::Ident(name) => {
                Node { span: token.start..token.start + name.len(), syntax: Syntax::Name(name.clone()) }
            }
            Expr::List(list) if list.optional_indices.is_empty() => {
                let elements = list.elements.iter().map(|element| self.node(element)).collect();
                Node { span: token.start..self.close(token.start), syntax: Syntax::List(elements) }
            }
            Expr::Literal(literal) => self.literal(literal, token),
            Expr::Select(select) if !select.test => {
                let operand = self.node(&select.operand);
                let after = self.source.get(token.end..).unwrap_or_default();
                let blank = after.len() - after.trim_start().len();
                let span = self.widened(&operand.span).start..token.end + blank + select.field.len();
                Node { span, syntax: Syntax::Select(Box::new(operand), select.field.clone()) }
            }
            _ => self.refuse(token, "this syntax is not part of the language"),
        }
    }

    fn call(&mut self, call: &CallExpr, token: Range<usize>) -> Node {
        if let Some(target) = &call.target {
            let target = self.node(target);
            let args = call.args.iter().map(|arg| self.node(arg)).collect();
            let span = self.widened(&target.span).start..self.close(token.start);
            let syntax = Syntax::Call { name: call.func_name.clone(), target: Some(Box::new(target)), args };
            return Node { span, syntax };
        }
        let Some(operator) = Operator::from_cel(&call.func_name) else {
            if word_length(&call.func_name) != call.func_name.len() {
                return self.refuse(token, "this operator is not part of the language");
            }
            let args = call.args.iter().map(|arg| self.node(arg)).collect();
            let before = self.source.get(..token.start).unwrap_or_default().trim_end().len();
            let span = before.saturating_sub(call.func_name.len())..self.close(token.start);
            return Node { span, syntax: Syntax::Call { name: call.func_name.clone(), target: None, args } };
        };
        let args: Vec<Node> = call.args.iter().map(|arg| self.node(arg)).collect();
        let first = args.first().map_or(token.clone(), |arg| self.widened(&arg.span));
        let last = args.last().map_or(token.clone(), |arg| self.widened(&arg.span));
        let span = match operator {
            Operator::Index => first.start..self.close(token.start),
            Operator::Negate | Operator::Not => token.start..last.end,
            _ => first.start..last.end,
        };
        Node { span, syntax: Syntax::Operator(operator, args) }
    }

    fn literal(&mut self, literal: &LiteralValue, token: Range<usize>) -> Node {
        let mut span = token.clone();
        let literal = match literal {
            LiteralValue::Boolean(value) => Literal::Bool(*value.inner()),
            LiteralValue::Double(value) => Literal::Double(*value.inner()),
            LiteralValue::Int(value) => Literal::Int(*value.inner()),
            LiteralValue::Null => Literal::Null,
            LiteralValue::String(value) => Literal::Text(value.inner().to_owned()),
            LiteralValue::UInt(_) => return self.refuse(token, "write integers without the suffix `u`"),
            LiteralValue::Bytes(_) => return self.refuse(token, "byte strings are not part of the language"),
        };
        // A negative number's token is the number without its sign.
        if matches!(literal, Literal::Int(i64::MIN..0)) || matches!(literal, Literal::Double(d) if d < 0.0) {
            let before = self.source.get(..token.start).unwrap_or_default().trim_end();
            span.start = before.strip_suffix('-').map_or(token.start, str::len);
        }
        Node { span, syntax: Syntax::Literal(literal) }
    }

    /// Returns the end of the bracket that opens at `open`.
    fn close(&self, open: usize) -> usize {
        self.brackets.iter().find(|(start, _)| *start == open).map_or(open + 1, |(_, end)| end + 1)
    }

    /// Returns `span` with the parentheses around it.
    fn widened(&self, span: &Range<usize>) -> Range<usize> {
        let mut span = span.clone();
        loop {
            let before = self.source.get(..span.start).unwrap_or_default().trim_end();
            let after = self.source.get(span.end..).unwrap_or_default();
            let (Some(open), Some(')')) = (before.strip_suffix('('), after.trim_start().chars().next())
            else {
                return span;
            };
            let close = span.end + after.len() - after.trim_start().len();
            if !self.brackets.contains(&(open.len(), close)) {
                return span;
            }
            span = open.len()..close + 1;
        }
    }

    fn refuse(&mut self, span: Range<usize>, message: &str) -> Node {
        self.diagnostics.push(Diagnostic::new(span.clone(), message));
        Node { span, syntax: Syntax::Literal(Literal::Null) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes every node's source text, outermost first.
    fn texts(source: &str) -> Vec<&str> {
        fn collect<'s>(node: &Node, source: &'s str, texts: &mut Vec<&'s str>) {
            texts.push(&source[node.span.clone()]);
            let children: Vec<&Node> = match &node.syntax {
                Syntax::Call { target, args, .. } => target.iter().map(|t| &**t).chain(args).collect(),
                Syntax::List(nodes) | Syntax::Operator(_, nodes) => nodes.iter().collect(),
                Syntax::Select(operand, _) => vec![operand],
                Syntax::Literal(_) | Syntax::Name(_) => vec![],
            };
            children.into_iter().for_each(|child| collect(child, source, texts));
        }
        let mut texts = Vec::new();
        collect(&parse(source).unwrap_or_else(|e| panic!("{source}: {e:?}")), source, &mut texts);
        texts
    }

    #[test]
    fn spans_are_exact() {
        for (source, expected) in [
            ("  a . b ", vec!["a . b", "a"]),
            ("'é🦀' == a.b", vec!["'é🦀' == a.b", "'é🦀'", "a.b", "a"]),
            ("(a) + ( b )", vec!["(a) + ( b )", "a", "b"]),
            ("((a)).b", vec!["((a)).b", "a"]),
            ("!(a && b)", vec!["!(a && b)", "a && b", "a", "b"]),
            ("m[ 'x' ][0]", vec!["m[ 'x' ][0]", "m[ 'x' ]", "m", "'x'", "0"]),
            ("size (a)", vec!["size (a)", "a"]),
            ("l.all(x, (x) > - 1 )", vec!["l.all(x, (x) > - 1 )", "l", "x", "(x) > - 1", "x", "- 1"]),
            ("[1, r'\\']", vec!["[1, r'\\']", "1", "r'\\'"]),
            ("a ? b : (c)", vec!["a ? b : (c)", "a", "b", "c"]),
            ("f(a)", vec!["f(a)", "a"]),
            ("a\n&& // both\nb", vec!["a\n&& // both\nb", "a", "b"]),
        ] {
            assert_eq!(texts(source), expected, "{source}");
        }
    }

    #[test]
    fn mistakes_have_short_messages() {
        let deep = format!("{}a{}", "(".repeat(40), ")".repeat(40));
        let chain = vec!["1"; 100].join("+");
        let conditional = "a?b:".repeat(40) + "c";
        for (source, marked, message) in [
            ("", "", "the expression is empty"),
            ("  ", "", "the expression is empty"),
            ("a == ", "=", "the expression ends too early"),
            ("a.", ".", "the expression ends too early"),
            ("a b", "b", "unexpected `b`"),
            ("a && && b", "&&", "unexpected `&&`"),
            ("a ? b", "b", "the expression ends too early"),
            ("(a", "(", "this bracket is not closed by `)`"),
            ("a]", "]", "`]` closes nothing"),
            ("[a)", ")", "expected `]`, found `)`"),
            ("a = b", "=", "`=` is not an operator"),
            ("a & b", "&", "`&` is not an operator"),
            ("'abc", "'abc", "this string is not closed"),
            ("a == '\\q'", "'\\q'", "this string has an escape that does not exist"),
            ("é", "é", "unexpected character `é`"),
            ("a.`x`", "`", "unexpected character ``"),
            ("{'a': 1}", "{", "maps cannot be written in an expression"),
            ("99999999999999999999", "99999999999999999999", "this number is too large"),
            ("if", "if", "`if` is a reserved word"),
            ("1u", "1u", "write integers without the suffix `u`"),
            ("b'x'", "b'x'", "byte strings are not part of the language"),
            ("a / b", "/", "this operator is not part of the language"),
            (".a", "a", "a name does not begin with a dot"),
            ("a.?b", ".", "this operator is not part of the language"),
            (&deep, "(", "the expression is nested too deeply"),
            (&chain, "+", "the expression is nested too deeply"),
            (&conditional, "?", "too many `?` in one expression"),
        ] {
            let diagnostics = parse(source).expect_err(source);
            let first = &diagnostics[0];
            assert_eq!(
                (&source[first.span.clone()], first.message.as_str()),
                (marked, message.replace("``", "```").as_str()),
                "{source}"
            );
        }
        assert_eq!(
            parse(&" ".repeat(5000)).unwrap_err()[0].message,
            "the expression is longer than 4096 bytes"
        );
    }

    #[test]
    fn no_repetition_overflows_the_stack() {
        // Half of what a thread of the standard library has.
        std::thread::Builder::new().stack_size(1 << 20).spawn(parse_repetitions).unwrap().join().unwrap();
    }

    fn parse_repetitions() {
        // Once within the limit of tokens, where the parser runs, and once beyond.
        for unit in [
            "(", "[", "!", "-", "- ", "!-", "a?", "a?b:", "a.", "a[", "a(", "1+", "a||", "a&&!", "'", "//",
            "a in ",
        ] {
            for tail in ["", "a", "1"] {
                for times in [MAX_TOKENS / unit.len(), MAX_TOKENS / 2 - 1, MAX_LENGTH / unit.len() - 1] {
                    let _ = parse(&(unit.repeat(times) + tail));
                }
            }
        }
        let dots = "a".to_owned() + &".b".repeat(2000);
        assert!(parse(&dots).is_err());
    }
}
