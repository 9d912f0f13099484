//! From text to a syntax tree.
//!
//! A scan into tokens, which bounds the input and gives the common slips a message of their own, and a parser by
//! precedence. What it accepts is a subset of CEL with CEL's meaning, and no more: a `-` does not follow a `!`, the
//! middle of `?:` is no other `?:`, and reserved words name nothing.

use std::ops::Range;

use crate::Diagnostic;

/// The longest expression, in bytes.
const MAX_LENGTH: usize = 4096;
/// The most tokens in an expression.
const MAX_TOKENS: usize = 512;
/// The deepest nesting of brackets or of `?:` in the source. The parser recurses no deeper than twice that.
const MAX_NESTING: usize = 32;
/// The highest syntax tree. Checker and evaluator recurse along it.
const MAX_HEIGHT: usize = 64;

/// A node of the syntax tree.
#[derive(Debug)]
pub(crate) struct Node {
    /// The text of the node without parentheses around it.
    pub(crate) span: Range<usize>,
    pub(crate) syntax: Syntax,
    /// The levels of the tree from here on.
    height: usize,
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
    /// An operator with its operands: all of a chain for `&&` and `||`, three for `?:`, else one or two.
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
    /// The operators between two operands, with how strongly they bind. All associate to the left.
    const INFIX: [(Self, &'static str, u8); 13] = [
        (Self::Or, "||", 1),
        (Self::And, "&&", 2),
        (Self::Equal, "==", 3),
        (Self::Greater, ">", 3),
        (Self::GreaterOrEqual, ">=", 3),
        (Self::In, "in", 3),
        (Self::Less, "<", 3),
        (Self::LessOrEqual, "<=", 3),
        (Self::NotEqual, "!=", 3),
        (Self::Add, "+", 4),
        (Self::Subtract, "-", 4),
        (Self::Modulo, "%", 5),
        (Self::Multiply, "*", 5),
    ];

    /// Returns the operator as it is written.
    pub(crate) fn symbol(self) -> &'static str {
        match self {
            Self::If => "?:",
            Self::Index => "[]",
            Self::Negate => "-",
            Self::Not => "!",
            _ => Self::INFIX
                .iter()
                .find(|(operator, ..)| *operator == self)
                .map_or("", |(_, symbol, _)| symbol),
        }
    }
}

/// Returns the syntax tree of `source`, or what is wrong with it first.
pub(crate) fn parse(source: &str) -> Result<Node, Vec<Diagnostic>> {
    let parse = || {
        let mut parser = Parser { source, tokens: scan(source)?, at: 0 };
        let node = parser.expr()?;
        match parser.peek() {
            None => Ok(node),
            Some(_) => Err(parser.unexpected()),
        }
    };
    parse().map_err(|diagnostic| vec![diagnostic])
}

/// Returns the end of the string literal whose opening quote is at `start`, or `None` when it is not closed.
pub(crate) fn end_of_string(source: &str, start: usize, raw: bool) -> Option<usize> {
    let rest = source.get(start..)?;
    let quote = QUOTES.into_iter().find(|quote| rest.starts_with(quote))?;
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

const QUOTES: [&str; 4] = ["\"\"\"", "'''", "\"", "'"];

/// What must not be the name of a variable or a function.
const RESERVED: [&str; 21] = [
    "as",
    "break",
    "const",
    "continue",
    "else",
    "false",
    "for",
    "function",
    "if",
    "import",
    "in",
    "let",
    "loop",
    "namespace",
    "null",
    "package",
    "return",
    "true",
    "var",
    "void",
    "while",
];
/// What must not be the name of a field, either.
const KEYWORDS: [&str; 4] = ["false", "in", "null", "true"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Number,
    /// With its prefix and quotes.
    String,
    Symbol,
    Word,
}

#[derive(Clone, Copy)]
struct Token<'s> {
    kind: Kind,
    text: &'s str,
    start: usize,
}

impl Token<'_> {
    fn span(&self) -> Range<usize> {
        self.start..self.start + self.text.len()
    }

    fn is(&self, symbol: &str) -> bool {
        self.kind != Kind::String && self.text == symbol
    }
}

/// Returns the tokens of `source`, whose brackets are in pairs.
fn scan(source: &str) -> Result<Vec<Token<'_>>, Diagnostic> {
    if source.len() > MAX_LENGTH {
        let message = format!("the expression is longer than {MAX_LENGTH} bytes");
        return Err(Diagnostic::new(0..source.len(), message));
    }
    let mut open: Vec<(usize, char)> = Vec::new();
    let mut tokens = Vec::new();
    let mut conditionals = 0;
    let mut at = 0;
    while let Some(c) = source.get(at..).and_then(|rest| rest.chars().next()) {
        let rest = source.get(at..).unwrap_or_default();
        let here = at..at + c.len_utf8();
        let after = rest.get(c.len_utf8()..).unwrap_or_default();
        let (kind, length) = match c {
            c if c.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            '/' if after.starts_with('/') => {
                at += rest.find('\n').unwrap_or(rest.len());
                continue;
            }
            'a'..='z' | 'A'..='Z' | '_' => {
                let length = word_length(rest);
                let prefix = rest.get(..length).unwrap_or_default().to_ascii_lowercase();
                if matches!(prefix.as_str(), "r" | "b" | "rb" | "br")
                    && rest.get(length..).is_some_and(|rest| rest.starts_with(['"', '\'']))
                {
                    (Kind::String, length + string_length(source, at + length, prefix.contains('r'))?)
                } else {
                    (Kind::Word, length)
                }
            }
            '0'..='9' => (Kind::Number, number_length(rest)),
            '"' | '\'' => (Kind::String, string_length(source, at, false)?),
            '(' | '[' => {
                open.push((at, if c == '(' { ')' } else { ']' }));
                if open.len() > MAX_NESTING {
                    return Err(Diagnostic::new(here, "the expression is nested too deeply"));
                }
                (Kind::Symbol, 1)
            }
            ')' | ']' => match open.pop() {
                Some((_, expected)) if expected == c => (Kind::Symbol, 1),
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
                (Kind::Symbol, 1)
            }
            '=' | '!' | '<' | '>' if after.starts_with('=') => (Kind::Symbol, 2),
            '&' | '|' if after.starts_with(c) => (Kind::Symbol, 2),
            '=' => return Err(Diagnostic::new(here, "`=` is not an operator").help("compare with `==`")),
            '&' | '|' => {
                let help = if c == '&' { "write `&&` for and" } else { "write `||` for or" };
                return Err(Diagnostic::new(here, format!("`{c}` is not an operator")).help(help));
            }
            '{' | '}' => return Err(Diagnostic::new(here, "maps cannot be written in an expression")),
            '/' => return Err(Diagnostic::new(here, "this operator is not part of the language")),
            '.' if after.starts_with('?') => {
                return Err(Diagnostic::new(here, "this operator is not part of the language"));
            }
            '!' | '<' | '>' | '+' | '-' | '*' | '%' | '.' | ',' | ':' => (Kind::Symbol, 1),
            c => return Err(Diagnostic::new(here, format!("unexpected character `{}`", c.escape_debug()))),
        };
        tokens.push(Token { kind, text: rest.get(..length).unwrap_or(rest), start: at });
        if tokens.len() > MAX_TOKENS {
            return Err(Diagnostic::new(here, format!("the expression has more than {MAX_TOKENS} tokens")));
        }
        at += length;
    }
    match open.pop() {
        Some((start, close)) => {
            Err(Diagnostic::new(start..start + 1, format!("this bracket is not closed by `{close}`")))
        }
        None => Ok(tokens),
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

/// Returns the length of the number that `text` begins with: `12`, `0x1f`, `1.5`, `2e-3`, each perhaps with a `u`.
fn number_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes.iter().skip(from).take_while(|b| b.is_ascii_digit()).count();
    let hexadecimal = bytes.iter().skip(2).take_while(|b| b.is_ascii_hexdigit()).count();
    let mut length = digits(0);
    if text.starts_with("0x") && hexadecimal > 0 {
        length = 2 + hexadecimal;
    } else {
        if bytes.get(length) == Some(&b'.') && digits(length + 1) > 0 {
            length += 1 + digits(length + 1);
        }
        if matches!(bytes.get(length), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(bytes.get(length + 1), Some(b'+' | b'-')));
            let exponent = digits(length + 1 + sign);
            length += if exponent > 0 { 1 + sign + exponent } else { 0 };
        }
    }
    length + usize::from(matches!(bytes.get(length), Some(b'u' | b'U')))
}

/// Parses by precedence: each level consumes the operators that bind at least as strongly.
struct Parser<'s> {
    source: &'s str,
    tokens: Vec<Token<'s>>,
    at: usize,
}

impl<'s> Parser<'s> {
    fn expr(&mut self) -> Result<Node, Diagnostic> {
        let start = self.start();
        let condition = self.binary(0)?;
        let Some(question) = self.take("?") else { return Ok(condition) };
        let then = self.binary(0)?;
        self.expect(":")?;
        let otherwise = self.expr()?;
        self.node(start, Some(question), Syntax::Operator(Operator::If, vec![condition, then, otherwise]))
    }

    /// Parses operators that bind more strongly than `weakest`.
    fn binary(&mut self, weakest: u8) -> Result<Node, Diagnostic> {
        let start = self.start();
        let mut left = self.unary()?;
        while let Some((operator, symbol, strength)) = self.infix().filter(|(.., s)| *s > weakest) {
            let mut operands = vec![left];
            let token = self.peek();
            while self.take(symbol).is_some() {
                operands.push(self.binary(strength)?);
                if !matches!(operator, Operator::And | Operator::Or) {
                    break;
                }
            }
            left = self.node(start, token, Syntax::Operator(operator, operands))?;
        }
        Ok(left)
    }

    fn infix(&self) -> Option<(Operator, &'static str, u8)> {
        let token = self.peek()?;
        Operator::INFIX.into_iter().find(|(_, symbol, _)| token.is(symbol))
    }

    /// Parses `!` or `-`, repeated but not mixed. A `-` before a number is the number's sign.
    fn unary(&mut self) -> Result<Node, Diagnostic> {
        let (symbol, operator) = match self.peek() {
            Some(token) if token.is("!") => ("!", Operator::Not),
            _ => ("-", Operator::Negate),
        };
        let mut signs = Vec::new();
        while !self.at_negative_number()
            && let Some(sign) = self.take(symbol)
        {
            signs.push(sign);
        }
        let mut node = self.member()?;
        for sign in signs.into_iter().rev() {
            node = self.node(sign.start, Some(sign), Syntax::Operator(operator, vec![node]))?;
        }
        Ok(node)
    }

    fn at_negative_number(&self) -> bool {
        self.peek().is_some_and(|token| token.is("-"))
            && self.tokens.get(self.at + 1).is_some_and(|token| token.kind == Kind::Number)
    }

    /// Parses a value with the fields, calls and indices that follow it.
    fn member(&mut self) -> Result<Node, Diagnostic> {
        let start = self.start();
        let mut node = self.primary()?;
        loop {
            let token = self.peek();
            let syntax = if self.take(".").is_some() {
                let name = self.name(&KEYWORDS)?;
                if self.take("(").is_some() {
                    Syntax::Call { name, target: Some(Box::new(node)), args: self.list(")", false)? }
                } else {
                    Syntax::Select(Box::new(node), name)
                }
            } else if self.take("[").is_some() {
                let index = self.expr()?;
                self.expect("]")?;
                Syntax::Operator(Operator::Index, vec![node, index])
            } else {
                return Ok(node);
            };
            node = self.node(start, token, syntax)?;
        }
    }

    fn primary(&mut self) -> Result<Node, Diagnostic> {
        let start = self.start();
        let token = self.peek();
        let sign = if self.at_negative_number() { self.take("-") } else { None };
        let Some(first) = self.peek() else { return Err(self.unexpected()) };
        let syntax = match (first.kind, first.text) {
            (Kind::Symbol, "(") => {
                self.at += 1;
                let inner = self.expr()?;
                self.expect(")")?;
                return Ok(inner);
            }
            (Kind::Symbol, "[") => {
                self.at += 1;
                Syntax::List(self.list("]", true)?)
            }
            (Kind::Symbol, ".") if self.tokens.get(self.at + 1).is_some_and(|t| t.kind == Kind::Word) => {
                self.at += 1;
                let span = self.peek().map_or(first.span(), |name| name.span());
                return Err(Diagnostic::new(span, "a name does not begin with a dot"));
            }
            (Kind::Symbol, _) => return Err(self.unexpected()),
            (Kind::Number, text) => {
                self.at += 1;
                Syntax::Literal(number(sign.is_some(), text).map_err(|m| Diagnostic::new(first.span(), m))?)
            }
            (Kind::String, text) => {
                self.at += 1;
                Syntax::Literal(string(text).map_err(|diagnostic| diagnostic.at(first.span()))?)
            }
            (Kind::Word, word) => match word {
                "true" | "false" | "null" => {
                    self.at += 1;
                    Syntax::Literal(if word == "null" {
                        Literal::Null
                    } else {
                        Literal::Bool(word == "true")
                    })
                }
                _ => {
                    let name = self.name(&RESERVED)?;
                    if self.take("(").is_some() {
                        Syntax::Call { name, target: None, args: self.list(")", false)? }
                    } else {
                        Syntax::Name(name)
                    }
                }
            },
        };
        self.node(start, token, syntax)
    }

    /// Parses expressions between commas up to the bracket `close`, before which a list may have one comma more.
    fn list(&mut self, close: &str, spare_comma: bool) -> Result<Vec<Node>, Diagnostic> {
        let mut items = Vec::new();
        while self.take(close).is_none() {
            if !items.is_empty() {
                self.expect(",")?;
                if spare_comma && self.take(close).is_some() {
                    break;
                }
            }
            items.push(self.expr()?);
        }
        Ok(items)
    }

    /// Takes a name that is none of `reserved`.
    fn name(&mut self, reserved: &[&str]) -> Result<String, Diagnostic> {
        let Some(word) = self.peek().filter(|token| token.kind == Kind::Word) else {
            return Err(self.unexpected());
        };
        if reserved.contains(&word.text) {
            return Err(Diagnostic::new(word.span(), format!("`{}` is a reserved word", word.text)));
        }
        self.at += 1;
        Ok(word.text.to_owned())
    }

    fn peek(&self) -> Option<Token<'s>> {
        self.tokens.get(self.at).copied()
    }

    fn take(&mut self, symbol: &str) -> Option<Token<'s>> {
        let token = self.peek().filter(|token| token.is(symbol))?;
        self.at += 1;
        Some(token)
    }

    fn expect(&mut self, symbol: &str) -> Result<(), Diagnostic> {
        self.take(symbol).map(drop).ok_or_else(|| self.unexpected())
    }

    /// Returns where the next token starts.
    fn start(&self) -> usize {
        self.peek().map_or(self.source.len(), |token| token.start)
    }

    /// Returns the node that began at `start` and ends before the next token, unless that makes the tree too high;
    /// `token` is to blame then.
    fn node(&self, start: usize, token: Option<Token<'s>>, syntax: Syntax) -> Result<Node, Diagnostic> {
        let end =
            self.at.checked_sub(1).and_then(|last| self.tokens.get(last)).map_or(start, |t| t.span().end);
        let below = match &syntax {
            Syntax::Call { target, args, .. } => args.iter().chain(target.as_deref()).map(|n| n.height).max(),
            Syntax::List(nodes) | Syntax::Operator(_, nodes) => nodes.iter().map(|n| n.height).max(),
            Syntax::Select(operand, _) => Some(operand.height),
            Syntax::Literal(_) | Syntax::Name(_) => None,
        };
        let height = below.unwrap_or_default() + 1;
        if height > MAX_HEIGHT {
            let span = token.map_or(start..end, |token| token.span());
            return Err(Diagnostic::new(span, "the expression is nested too deeply"));
        }
        Ok(Node { span: start..end, syntax, height })
    }

    /// Returns the diagnostic that the next token does not belong there.
    fn unexpected(&self) -> Diagnostic {
        match (self.peek(), self.tokens.last()) {
            (Some(token), _) => Diagnostic::new(token.span(), format!("unexpected `{}`", token.text)),
            (None, None) => Diagnostic::new(0..0, "the expression is empty"),
            (None, Some(last)) => {
                let end = last.span().end;
                let width = last.text.chars().next_back().map_or(0, char::len_utf8);
                Diagnostic::new(end - width..end, "the expression ends too early")
            }
        }
    }
}

/// Returns the number that `text` is written for.
fn number(negative: bool, text: &str) -> Result<Literal, &'static str> {
    const TOO_LARGE: &str = "this number is too large";
    if text.ends_with(['u', 'U']) {
        return Err("write integers without the suffix `u`");
    }
    let (digits, radix) = text.strip_prefix("0x").map_or((text, 10), |digits| (digits, 16));
    if radix == 10 && text.contains(['.', 'e', 'E']) {
        let value = text.parse::<f64>().ok().filter(|value| value.is_finite()).ok_or(TOO_LARGE)?;
        return Ok(Literal::Double(if negative { -value } else { value }));
    }
    let value = i128::from_str_radix(digits, radix).map_err(|_| TOO_LARGE)?;
    i64::try_from(if negative { -value } else { value }).map(Literal::Int).map_err(|_| TOO_LARGE)
}

/// Returns the text that the string literal `token` stands for; of the diagnostic, the span is still to be set.
fn string(token: &str) -> Result<Literal, Diagnostic> {
    let (prefix, quoted) = token.split_at(token.find(['"', '\'']).unwrap_or_default());
    if prefix.contains(['b', 'B']) {
        return Err(Diagnostic::new(0..0, "byte strings are not part of the language"));
    }
    let quote = QUOTES.into_iter().find(|quote| quoted.starts_with(quote)).unwrap_or_default();
    let inner = quoted.strip_prefix(quote).and_then(|rest| rest.strip_suffix(quote)).unwrap_or_default();
    if prefix.is_empty() && inner.contains('\\') {
        let help = "write `\\\\` for a backslash, or a raw string: r\"…\"";
        let wrong = || Diagnostic::new(0..0, "this string has an escape that does not exist").help(help);
        return unescaped(inner).map(Literal::Text).ok_or_else(wrong);
    }
    Ok(Literal::Text(inner.to_owned()))
}

/// Returns `text` with its escapes resolved, or `None` when one does not exist.
fn unescaped(text: &str) -> Option<String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((plain, escape)) = rest.split_once('\\') {
        out.push_str(plain);
        let kind = escape.chars().next()?;
        // Digits by their number, and where they begin.
        let (digits, radix, from) = match kind {
            'x' | 'X' => (2, 16, 1),
            'u' => (4, 16, 1),
            'U' => (8, 16, 1),
            '0'..='3' => (3, 8, 0),
            _ => (0, 0, 1),
        };
        if digits > 0 {
            let code = escape.get(from..from + digits).filter(|code| !code.starts_with('+'))?;
            out.push(char::from_u32(u32::from_str_radix(code, radix).ok()?)?);
        } else {
            out.push(match kind {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                '\\' | '?' | '"' | '\'' | '`' => kind,
                _ => return None,
            });
        }
        rest = escape.get(from + digits..)?;
    }
    out.push_str(rest);
    Some(out)
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

    /// Writes a tree in parentheses, operators first.
    fn shape(source: &str) -> String {
        fn write(node: &Node) -> String {
            let all = |nodes: &[Node]| nodes.iter().map(write).collect::<Vec<_>>().join(" ");
            match &node.syntax {
                Syntax::Call { name, target, args } => {
                    let target = target.as_ref().map(|t| format!("{} ", write(t))).unwrap_or_default();
                    format!("({name} {target}{})", all(args))
                }
                Syntax::List(nodes) => format!("[{}]", all(nodes)),
                Syntax::Literal(Literal::Text(text)) => format!("{text:?}"),
                Syntax::Literal(Literal::Int(value)) => value.to_string(),
                Syntax::Literal(literal) => format!("{literal:?}"),
                Syntax::Name(name) => name.clone(),
                Syntax::Operator(operator, nodes) => format!("({} {})", operator.symbol(), all(nodes)),
                Syntax::Select(operand, field) => format!("{}.{field}", write(operand)),
            }
        }
        parse(source).map_or_else(|errors| format!("error: {}", errors[0].message), |node| write(&node))
    }

    #[test]
    fn precedence_is_that_of_cel() {
        for (source, expected) in [
            ("a || b && c || d", "(|| a (&& b c) d)"),
            ("a && b || c && d", "(|| (&& a b) (&& c d))"),
            ("a == b && c in d", "(&& (== a b) (in c d))"),
            ("a + b * c - d % e", "(- (+ a (* b c)) (% d e))"),
            ("a < b == c", "(== (< a b) c)"),
            ("a - b - c", "(- (- a b) c)"),
            ("a -1", "(- a 1)"),
            ("a - -1", "(- a -1)"),
            ("--1", "(- -1)"),
            ("!-1", "(! -1)"),
            ("!!a", "(! (! a))"),
            ("-a.b[0]", "(- ([] a.b 0))"),
            ("!a.b(c) || d", "(|| (! (b a c)) d)"),
            ("a ? b || c : d ? e : f", "(?: a (|| b c) (?: d e f))"),
            ("a ? (b ? c : d) : e", "(?: a (?: b c d) e)"),
            ("f(a, b)[c](d)", "error: unexpected `(`"),
            ("a.b.c(d).e", "(c a.b d).e"),
            ("[a, [b,],]", "[a [b]]"),
            ("f()", "(f )"),
        ] {
            assert_eq!(shape(source), expected, "{source}");
        }
    }

    #[test]
    fn literals() {
        for (source, expected) in [
            ("-9223372036854775808", "-9223372036854775808"),
            ("9223372036854775808", "error: this number is too large"),
            ("-0x1F", "-31"),
            ("0x1e5", "485"),
            ("1.5", "Double(1.5)"),
            ("- 2e-3", "Double(-0.002)"),
            ("1e999", "error: this number is too large"),
            ("1.e", "1.e"),
            ("0x1fu", "error: write integers without the suffix `u`"),
            (r#""a\"b""#, r#""a\"b""#),
            (r"'\n\x41\u00e9\U0001F980\101'", r#""\nAé🦀A""#),
            (r"r'\d' ", r#""\\d""#),
            ("R\"\"\"a'\"b\nc\"\"\"", r#""a'\"b\nc""#),
            (r"'\ud800'", "error: this string has an escape that does not exist"),
            (r"'\x4'", "error: this string has an escape that does not exist"),
            (r"'\400'", "error: this string has an escape that does not exist"),
            (r"'\x+1'", "error: this string has an escape that does not exist"),
            ("null", "Null"),
            ("true", "Bool(true)"),
        ] {
            assert_eq!(shape(source), expected, "{source}");
        }
    }

    #[test]
    fn what_is_not_the_language_is_refused() {
        for source in [
            "!-a",
            "-!a",
            "a ? b ? c : d : e",
            "a.in",
            "a.true",
            "while",
            "f(a,)",
            "[,]",
            "[a b]",
            "a.(b)",
            "1abc",
            "a..b",
            "a[]",
            "a[b, c]",
            "()",
            "a ? : b",
            "a in",
            "* a",
            "a !b",
            "'a' 'b'",
            ".5",
            "for(a)",
        ] {
            assert!(shape(source).starts_with("error: "), "{source}: {}", shape(source));
        }
        assert_eq!(shape("a.while"), "a.while", "only keywords cannot be fields");
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
