//! Splices in YAML text, each verified.
//!
//! A [`Yaml`] is the tree of the first document with the place of every node in the text. An edit computes the
//! bytes to replace from those places, and what the value of the document must then be; [`Yaml`] hands out a
//! new text only when another parse of it agrees. JSON is YAML, and what was JSON stays JSON.

use std::borrow::Cow;
use std::io::Cursor;
use std::ops::Range;
use std::sync::Arc;

use granit_parser::{Event, Parser, ScalarStyle, StructureStyle};
use serde_json::Value;
use serde_saphyr::DuplicateKeyPolicy;

use crate::memory::Memory;
use crate::{Refused, line_end, line_ending, line_start, splice};

/// Most nodes of a document.
const MAX_NODES: usize = 50_000;
/// Deepest nesting of a document.
const MAX_DEPTH: usize = 64;

/// A YAML text with the tree of its first document.
pub(crate) struct Yaml<'t> {
    text: &'t str,
    tree: Arc<Tree>,
    duplicates: DuplicateKeyPolicy,
}

/// The first document of a text, and the comments of all.
#[derive(Debug)]
struct Tree {
    root: Node,
    comments: Vec<Range<usize>>,
}

/// A node of the tree.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) shape: Shape,
    /// From its first byte to behind its last one; what belongs to a block is said by its children only.
    pub(crate) span: Range<usize>,
}

/// What a [`Node`] is.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Another node, by its anchor.
    Alias,
    /// A mapping.
    Mapping { flow: bool, entries: Vec<(Node, Node)> },
    /// A scalar; an empty one has an empty span.
    Scalar { value: String, style: ScalarStyle },
    /// A sequence.
    Sequence { flow: bool, items: Vec<Node> },
}

/// A step from a node to one of its children.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// To the item at this index.
    At(usize),
    /// To the value of this key.
    Key(&'a str),
}

/// A value to be written.
#[derive(Clone, Debug)]
pub(crate) enum New {
    Boolean(bool),
    Mapping(Vec<(Cow<'static, str>, Self)>),
    Sequence(Vec<Self>),
    Text(String),
}

impl<'t> Yaml<'t> {
    /// Returns the tree of the first document in `text`.
    pub(crate) fn parse(text: &'t str, duplicates: DuplicateKeyPolicy) -> Result<Self, Refused> {
        static TREES: Memory<Result<Arc<Tree>, Refused>> = Memory::new();
        let tree = TREES.recall(text.as_bytes(), || Tree::parse(text).map(Arc::new))?;
        Ok(Self { text, tree, duplicates })
    }

    /// Returns the node at `path`, if there is one.
    ///
    /// # Errors
    ///
    /// When it is there by an alias, or may be by a merge key, or twice.
    pub(crate) fn find(&self, path: &[Step<'_>]) -> Result<Option<&Node>, Refused> {
        let mut node = &self.tree.root;
        for step in path {
            let next = match (step, &node.shape) {
                (_, Shape::Alias) => return Err(Refused::because("it is written as an alias (*)")),
                (Step::At(index), Shape::Sequence { items, .. }) => items.get(*index),
                (Step::Key(key), Shape::Mapping { entries, .. }) => {
                    let mut named = entries.iter().filter(|(name, _)| name.text() == Some(key));
                    let found = named.next();
                    if named.next().is_some() {
                        return Err(Refused::because(format!("the key {key} is there twice")));
                    }
                    if found.is_none() && entries.iter().any(|(name, _)| name.text() == Some("<<")) {
                        return Err(Refused::because("it has a merge key (<<)"));
                    }
                    found.map(|(_, value)| value)
                }
                _ => None,
            };
            match next {
                Some(next) => node = next,
                None => return Ok(None),
            }
        }
        match node.shape {
            Shape::Alias => Err(Refused::because("it is written as an alias (*)")),
            _ => Ok(Some(node)),
        }
    }

    /// Returns the whole text.
    pub(crate) fn text(&self) -> &'t str {
        self.text
    }

    /// Returns the tree of the first document.
    pub(crate) fn root(&self) -> &Node {
        &self.tree.root
    }

    /// Returns what the comments say.
    fn told(&self) -> impl Iterator<Item = &str> {
        self.tree.comments.iter().filter_map(|span| self.text.get(span.clone()))
    }

    /// Returns whether the value at `path` is already worth `new`.
    pub(crate) fn is(&self, path: &[Step<'_>], new: &New) -> Result<bool, Refused> {
        let mut values = values(self.text, self.duplicates)?.to_vec();
        let value = values.first_mut().and_then(|root| value_at(root, path));
        Ok(value.is_some_and(|value| *value == new.value()))
    }

    /// Returns the text with the scalar at `path` replaced.
    pub(crate) fn replace(&self, path: &[Step<'_>], new: &New) -> Result<String, Refused> {
        let node = self.existing(path)?;
        let Shape::Scalar { style, .. } = node.shape else {
            return Err(Refused::because("a list or a mapping is where a value is expected"));
        };
        if matches!(style, ScalarStyle::Literal | ScalarStyle::Folded) {
            return Err(Refused::because("the value is written as a block scalar (| or >)"));
        }
        let written = match node.span.is_empty() {
            true => format!(" {}", self.inline(new, style)),
            false => self.inline(new, style),
        };
        // An empty value begins right behind its key; the colon may or may not be in between.
        let at = match node.span.is_empty() {
            true => {
                let rest = self.text.get(node.span.start..).unwrap_or_default();
                let at = node.span.start + usize::from(rest.starts_with(':'));
                at..at
            }
            false => node.span.clone(),
        };
        self.verified(vec![(at, written)], |root| {
            *value_at(root, path)? = new.value();
            Some(())
        })
    }

    /// Returns the text with an item inserted in the sequence at `path`, behind the item at `after`.
    pub(crate) fn insert_item(&self, path: &[Step<'_>], after: usize, new: &New) -> Result<String, Refused> {
        let node = self.existing(path)?;
        let Shape::Sequence { flow, items } = &node.shape else {
            return Err(Refused::because("there is no list where one is expected"));
        };
        let changes = match (flow, items.get(after)) {
            (true, None) => vec![(node.span.start + 1..node.span.start + 1, self.flow(new))],
            (true, Some(item)) => self.insert_in_flow(item.span.clone(), self.inline(new, item.style())),
            (false, None) => return Err(Refused::because("the list is empty")),
            (false, Some(item)) => {
                let dash = self.dash(node, after)?;
                let mut lines = new.block(self.sequence_indent(), item.style());
                for (index, line) in lines.iter_mut().enumerate() {
                    line.insert_str(0, if index == 0 { "- " } else { "  " });
                }
                vec![self.insert_lines(self.column(dash), item.last(self.text), &lines)]
            }
        };
        let index = if items.is_empty() { 0 } else { after + 1 };
        self.verified(changes, |root| {
            let list = value_at(root, path)?.as_array_mut()?;
            (index <= list.len()).then(|| list.insert(index, new.value()))
        })
    }

    /// Returns the text with an entry added to the mapping at `path`. A mapping that is null is created.
    pub(crate) fn insert_entry(&self, path: &[Step<'_>], key: &str, new: &New) -> Result<String, Refused> {
        let node = self.existing(path)?;
        let entry = |root: &mut Value| {
            let parent = value_at(root, path)?;
            if parent.is_null() {
                *parent = Value::Object(serde_json::Map::new());
            }
            parent.as_object_mut()?.insert(key.to_owned(), new.value());
            Some(())
        };
        let lines = || new.entry(key, self.sequence_indent());
        match &node.shape {
            Shape::Mapping { flow: true, entries } => {
                let quote = self.is_json() || entries.first().is_some_and(|(key, _)| key.is_quoted());
                let key = if quote { quoted(key) } else { key.to_owned() };
                let text = format!("{key}: {}", self.flow(new));
                let changes = match entries.last() {
                    None => vec![(node.span.start + 1..node.span.start + 1, text)],
                    Some((key, value)) => {
                        self.insert_in_flow(key.span.start..value.span.end.max(key.span.end), text)
                    }
                };
                self.verified(changes, entry)
            }
            Shape::Mapping { flow: false, entries } => {
                // Behind the last entry; but when that ends in a block scalar, whose end can be unclear, behind
                // another.
                let mut refused = Refused::because("the mapping is empty");
                for (name, value) in entries.iter().rev() {
                    let end = value.last(self.text).max(name.span.end);
                    let change = self.insert_lines(self.column(name.span.start), end, &lines());
                    match self.verified(vec![change], entry) {
                        Ok(text) => return Ok(text),
                        Err(error) => refused = error,
                    }
                }
                Err(refused)
            }
            Shape::Scalar { value, .. } if matches!(value.as_str(), "" | "~" | "null") => {
                let changes = match path.split_last() {
                    // A document without anything but comments.
                    None => vec![self.insert_lines(0, self.text.len(), &lines())],
                    Some(_) => {
                        let column = self.column(line_indent(self.text, node.span.start)) + 2;
                        let mut changes = vec![self.insert_lines(column, node.span.end, &lines())];
                        if !node.span.is_empty() {
                            changes.insert(0, (node.span.clone(), String::new()));
                        }
                        changes
                    }
                };
                self.verified(changes, entry)
            }
            _ => Err(Refused::because("there is no mapping where one is expected")),
        }
    }

    /// Returns the text without the item or entry at `path`.
    pub(crate) fn remove(&self, path: &[Step<'_>]) -> Result<String, Refused> {
        let Some((last, parent)) = path.split_last() else {
            return Err(Refused::because("a document is not removed"));
        };
        self.existing(path)?;
        let node = self.existing(parent)?;
        // Each child as a whole, with its key or its dash.
        let (flow, spans, index) = match (&node.shape, last) {
            (Shape::Sequence { flow, items }, Step::At(index)) => {
                let mut spans = Vec::with_capacity(items.len());
                for (at, item) in items.iter().enumerate() {
                    let start = if *flow { item.span.start } else { self.dash(node, at)? };
                    spans.push(start..item.last(self.text));
                }
                (*flow, spans, *index)
            }
            (Shape::Mapping { flow, entries }, Step::Key(key)) => {
                let span = |(key, value): &(Node, Node)| {
                    key.span.start
                        ..value.last(self.text).max(key.span.end + usize::from(value.span.is_empty()))
                };
                let index = entries.iter().position(|(name, _)| name.text() == Some(key));
                (*flow, entries.iter().map(span).collect(), index.unwrap_or(usize::MAX))
            }
            _ => return Err(Refused::because("it is not there")),
        };
        let Some(span) = spans.get(index) else { return Err(Refused::because("it is not there")) };
        if spans.len() == 1 {
            return Err(Refused::because("it is the only one of its kind, and nothing would be left"));
        }
        let before = index.checked_sub(1).and_then(|before| spans.get(before));
        let changes = match flow {
            true => self.remove_in_flow(span, before),
            false => vec![self.remove_lines(span)?],
        };
        self.verified(changes, |root| match (value_at(root, parent)?, last) {
            (Value::Array(list), Step::At(index)) => (*index < list.len()).then(|| drop(list.remove(*index))),
            (Value::Object(object), Step::Key(key)) => object.shift_remove(*key).map(drop),
            _ => None,
        })
    }

    fn existing(&self, path: &[Step<'_>]) -> Result<&Node, Refused> {
        self.find(path)?.ok_or_else(|| Refused::because("it is not there"))
    }

    /// Returns the text with `changes` made, if that is worth exactly what `intended` makes of the value.
    fn verified(
        &self,
        changes: Vec<(Range<usize>, String)>,
        intended: impl Fn(&mut Value) -> Option<()>,
    ) -> Result<String, Refused> {
        let text = splice(self.text, changes)?;
        let mut want = values(self.text, self.duplicates)?.to_vec();
        if want.is_empty() {
            want.push(Value::Null);
        }
        let changed = want.first_mut().and_then(intended);
        let got = values(&text, self.duplicates)
            .map_err(|_| Refused::because("the edited file would no longer be valid YAML"))?;
        if changed.is_none() || *got != want {
            let place = want.iter().zip(&*got).find_map(|(want, got)| difference(want, got, ""));
            let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
            return Err(Refused::because(format!("the edit would change more than it should{place}")));
        }
        if !Yaml::parse(&text, self.duplicates)?.told().eq(self.told()) {
            return Err(Refused::because("the edit would change a comment"));
        }
        let is_json = |text: &str| serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        if is_json(self.text) && !is_json(&text) {
            return Err(Refused::because("the edited file would no longer be JSON"));
        }
        Ok(text)
    }

    /// Returns where the dash of the item at `index` in the block sequence `node` is.
    fn dash(&self, node: &Node, index: usize) -> Result<usize, Refused> {
        let unclear = || Refused::because("the place of a list item cannot be told");
        let Shape::Sequence { items, .. } = &node.shape else { return Err(unclear()) };
        let item = items.get(index).ok_or_else(unclear)?;
        let from = match index.checked_sub(1).and_then(|before| items.get(before)) {
            Some(before) => before.last(self.text),
            // The first dash is on the line of the item, or on one before it that has nothing else.
            None => line_start(self.text, node.span.start),
        };
        let region = self.text.get(from..item.span.start).ok_or_else(unclear)?;
        let mut at = from;
        let mut found = None;
        for line in region.split_inclusive('\n') {
            let mut rest = line;
            while let Some(start) = rest.find(|c: char| !c.is_whitespace()) {
                let offset = at + line.len() - rest.len() + start;
                rest = rest.get(start..).unwrap_or_default();
                if rest.starts_with('#') {
                    break;
                }
                let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
                if rest.get(..word) == Some("-") {
                    found = Some(offset);
                }
                rest = rest.get(word..).unwrap_or_default();
            }
            at += line.len();
        }
        found.ok_or_else(unclear)
    }

    /// Returns `lines` as an insertion behind the line on which a node ends at `end`.
    fn insert_lines(&self, column: usize, end: usize, lines: &[String]) -> (Range<usize>, String) {
        let eol = line_ending(self.text);
        let at = line_end(self.text, end);
        let indent = " ".repeat(column);
        let mut text = String::new();
        // Behind an empty last line no other is begun.
        let fresh = at == self.text.len() && line_start(self.text, at) == at;
        for (index, line) in lines.iter().enumerate() {
            if !(fresh && index == 0) {
                text.push_str(eol);
            }
            text.push_str(&indent);
            text.push_str(line);
        }
        if fresh {
            text.push_str(eol);
        }
        (at..at, text)
    }

    /// Returns the removal of the block node at `span` with its lines; a comment behind it stays.
    fn remove_lines(&self, span: &Range<usize>) -> Result<(Range<usize>, String), Refused> {
        let start = line_start(self.text, span.start);
        if !self.blank(start..span.start) {
            return Err(Refused::because("it shares its line with what it is part of"));
        }
        let end = line_end(self.text, span.end);
        if !self.blank(span.end..end) {
            let rest = self.text.get(span.end..end).unwrap_or_default();
            let comment = span.end + rest.len() - rest.trim_start().len();
            return Ok((span.start..comment, String::new()));
        }
        let rest = self.text.get(end..).unwrap_or_default();
        let newline = rest.find('\n').map_or(0, |at| at + 1);
        // The last line of a text that does not end in a line ending takes the one before it along.
        let start = match self.text.get(..start).and_then(|before| before.strip_suffix('\n')) {
            Some(before) if newline == 0 => before.strip_suffix('\r').unwrap_or(before).len(),
            _ => start,
        };
        Ok((start..end + newline, String::new()))
    }

    /// Returns `text` as an insertion behind the child at `child` of a flow collection.
    fn insert_in_flow(&self, child: Range<usize>, text: String) -> Vec<(Range<usize>, String)> {
        let comma = self.comma(child.end);
        let start = line_start(self.text, child.start);
        let own_line = self.blank(start..child.start);
        let behind = comma.map_or(child.end, |comma| comma + 1);
        let end = line_end(self.text, behind);
        let rest = self.text.get(behind..end).unwrap_or_default().trim_start();
        if !(own_line && (rest.is_empty() || rest.starts_with('#'))) {
            return match comma {
                Some(_) => vec![(behind..behind, format!(" {text},"))],
                None => vec![(behind..behind, format!(", {text}"))],
            };
        }
        let indent = self.text.get(start..child.start).unwrap_or_default();
        let line = format!("{}{indent}{text}", line_ending(self.text));
        match comma {
            Some(_) => vec![(end..end, line + ",")],
            None if end == behind => vec![(behind..behind, format!(",{line}"))],
            None => vec![(behind..behind, ",".to_owned()), (end..end, line)],
        }
    }

    /// Returns the removal of the child at `child` of a flow collection, of which `before` is the one before.
    fn remove_in_flow(
        &self,
        child: &Range<usize>,
        before: Option<&Range<usize>>,
    ) -> Vec<(Range<usize>, String)> {
        let comma = self.comma(child.end);
        let behind = comma.map_or(child.end, |comma| comma + 1);
        let mut changes = Vec::new();
        let start = line_start(self.text, child.start);
        let end = line_end(self.text, behind);
        if self.blank(start..child.start) && self.blank(behind..end) {
            let newline = self.text.get(end..).and_then(|rest| rest.find('\n')).map_or(0, |at| at + 1);
            changes.push((start..end + newline, String::new()));
        } else {
            let rest = self.text.get(behind..end).unwrap_or_default();
            let spaces = if comma.is_some() { rest.len() - rest.trim_start().len() } else { 0 };
            changes.push((child.start..behind + spaces, String::new()));
        }
        // A comma that is left without a successor would be no JSON.
        if comma.is_none()
            && let Some(comma) = before.and_then(|before| self.comma(before.end))
        {
            let end = changes.first().map_or(comma, |(range, _)| range.start);
            match self.blank(comma + 1..end) && !self.text.get(comma..end).unwrap_or_default().contains('\n')
            {
                true => changes.push((comma..end, String::new())),
                false => changes.push((comma..comma + 1, String::new())),
            }
        }
        changes
    }

    /// Returns where the comma behind the flow node that ends at `end` is.
    fn comma(&self, end: usize) -> Option<usize> {
        let mut at = end;
        for line in self.text.get(end..)?.split_inclusive('\n') {
            let content = line.trim_start();
            match content.chars().next() {
                None | Some('#') => at += line.len(),
                Some(',') => return Some(at + line.len() - content.len()),
                Some(_) => return None,
            }
        }
        None
    }

    fn blank(&self, range: Range<usize>) -> bool {
        self.text.get(range).is_some_and(|text| text.trim().is_empty())
    }

    fn column(&self, at: usize) -> usize {
        self.text.get(line_start(self.text, at)..at).map_or(0, |before| before.chars().count())
    }

    fn is_json(&self) -> bool {
        match &self.tree.root.shape {
            Shape::Mapping { flow: true, entries } => entries.iter().all(|(key, _)| key.is_quoted()),
            _ => false,
        }
    }

    /// Returns how far this text indents a block sequence below its key.
    fn sequence_indent(&self) -> usize {
        self.indent_in(&self.tree.root).unwrap_or(0)
    }

    fn indent_in(&self, node: &Node) -> Option<usize> {
        match &node.shape {
            Shape::Mapping { entries, .. } => entries.iter().find_map(|(key, value)| match &value.shape {
                Shape::Sequence { flow: false, .. } => {
                    let dash = self.column(self.dash(value, 0).ok()?);
                    dash.checked_sub(self.column(key.span.start))
                }
                _ => self.indent_in(value),
            }),
            Shape::Sequence { items, .. } => items.iter().find_map(|item| self.indent_in(item)),
            _ => None,
        }
    }

    /// Returns `new` on one line, a text in the style of its neighbour if that can hold it.
    fn inline(&self, new: &New, style: ScalarStyle) -> String {
        match new {
            New::Text(text) if self.is_json() => quoted(text),
            New::Text(text) => scalar(text, style),
            new => self.flow(new),
        }
    }

    fn flow(&self, new: &New) -> String {
        let json = self.is_json();
        match new {
            New::Boolean(value) => value.to_string(),
            New::Mapping(entries) => {
                let entry = |(key, value): &(Cow<'_, str>, New)| {
                    let key = if json { quoted(key) } else { key.to_string() };
                    format!("{key}: {}", self.flow(value))
                };
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(", "))
            }
            New::Sequence(items) => {
                format!("[{}]", items.iter().map(|item| self.flow(item)).collect::<Vec<_>>().join(", "))
            }
            New::Text(text) => quoted(text),
        }
    }
}

impl Tree {
    fn parse(text: &str) -> Result<Self, Refused> {
        let mut builder = Builder::default();
        let mut documents = 0;
        for event in Parser::new_from_str(text) {
            let (event, span) = event.map_err(|error| {
                Refused::because(format!("line {} is not valid YAML", error.marker().line()))
            })?;
            documents += usize::from(matches!(event, Event::DocumentStart(..)));
            let span = span.byte_range().ok_or_else(|| Refused::because("the text has no places"))?;
            match event {
                Event::Comment(..) => builder.comments.push(span),
                // Later documents are looked at for their comments and their syntax only.
                _ if documents > 1 => {}
                event => builder.take(event, span)?,
            }
        }
        let root = builder.root.unwrap_or(Node {
            shape: Shape::Scalar { value: String::new(), style: ScalarStyle::Plain },
            span: text.len()..text.len(),
        });
        Ok(Self { root, comments: builder.comments })
    }
}

impl Node {
    /// Returns the text of a scalar.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.shape {
            Shape::Scalar { value, .. } => Some(value),
            _ => None,
        }
    }

    /// Returns the items of a sequence; none when it is something else.
    pub(crate) fn items(&self) -> &[Self] {
        match &self.shape {
            Shape::Sequence { items, .. } => items,
            _ => &[],
        }
    }

    /// Returns the entries of a mapping; none when it is something else.
    pub(crate) fn entries(&self) -> &[(Self, Self)] {
        match &self.shape {
            Shape::Mapping { entries, .. } => entries,
            _ => &[],
        }
    }

    /// Returns the value of a key of a mapping, the last if there are several.
    pub(crate) fn get(&self, key: &str) -> Option<&Self> {
        self.entries().iter().rev().find(|(name, _)| name.text() == Some(key)).map(|(_, value)| value)
    }

    fn style(&self) -> ScalarStyle {
        match self.shape {
            Shape::Scalar { style, .. } => style,
            _ => ScalarStyle::Plain,
        }
    }

    fn is_quoted(&self) -> bool {
        self.style() == ScalarStyle::DoubleQuoted
    }

    /// Returns the offset behind the last byte that belongs to this node.
    fn last(&self, text: &str) -> usize {
        match &self.shape {
            Shape::Mapping { flow: false, entries } => {
                entries.last().map_or(self.span.end, |(key, value)| value.last(text).max(key.span.end))
            }
            Shape::Sequence { flow: false, items } => {
                items.last().map_or(self.span.end, |item| item.last(text))
            }
            Shape::Scalar { style: ScalarStyle::Literal | ScalarStyle::Folded, .. } => {
                let content = text.get(self.span.clone()).unwrap_or_default();
                self.span.start + content.trim_end().len()
            }
            _ => self.span.end,
        }
    }
}

impl New {
    /// Returns what it is worth.
    fn value(&self) -> Value {
        match self {
            Self::Boolean(value) => Value::Bool(*value),
            Self::Mapping(entries) => {
                Value::Object(entries.iter().map(|(key, value)| (key.to_string(), value.value())).collect())
            }
            Self::Sequence(items) => Value::Array(items.iter().map(Self::value).collect()),
            Self::Text(text) => Value::String(text.clone()),
        }
    }

    /// Returns its lines in block style.
    fn block(&self, indent: usize, style: ScalarStyle) -> Vec<String> {
        match self {
            Self::Boolean(value) => vec![value.to_string()],
            Self::Mapping(entries) => {
                entries.iter().flat_map(|(key, value)| value.entry(key, indent)).collect()
            }
            Self::Sequence(items) => items
                .iter()
                .flat_map(|item| {
                    let lines = item.block(indent, style).into_iter().enumerate();
                    lines.map(|(index, line)| format!("{}{line}", if index == 0 { "- " } else { "  " }))
                })
                .collect(),
            Self::Text(text) => vec![scalar(text, style)],
        }
    }

    /// Returns its lines as the value of `key` in block style.
    fn entry(&self, key: &str, indent: usize) -> Vec<String> {
        let lines = self.block(indent, ScalarStyle::Plain);
        let indent = match self {
            Self::Boolean(_) | Self::Text(_) => return vec![format!("{key}: {}", lines.concat())],
            Self::Mapping(_) => 2,
            Self::Sequence(_) => indent,
        };
        let nested = lines.into_iter().map(|line| " ".repeat(indent) + &line);
        std::iter::once(format!("{key}:")).chain(nested).collect()
    }
}

/// Builds the tree from events.
#[derive(Default)]
struct Builder {
    root: Option<Node>,
    open: Vec<Open>,
    comments: Vec<Range<usize>>,
    nodes: usize,
}

/// A collection whose end has not come yet. The children of a mapping are its keys and values in turn.
struct Open {
    mapping: bool,
    flow: bool,
    start: usize,
    children: Vec<Node>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), Refused> {
        self.nodes += 1;
        if self.nodes > 2 * MAX_NODES || self.open.len() > MAX_DEPTH {
            return Err(Refused::because("the document has too many or too deeply nested nodes"));
        }
        let open = |mapping, style, start| Open {
            mapping,
            flow: style == StructureStyle::Flow,
            start,
            children: Vec::new(),
        };
        let node = match event {
            Event::MappingStart(style, ..) => {
                self.open.push(open(true, style, span.start));
                return Ok(());
            }
            Event::SequenceStart(style, ..) => {
                self.open.push(open(false, style, span.start));
                return Ok(());
            }
            Event::MappingEnd | Event::SequenceEnd => {
                let Some(open) = self.open.pop() else { return Ok(()) };
                Node { span: open.start..span.end, shape: open.close() }
            }
            Event::Scalar(value, style, ..) => {
                let value = if span.is_empty() { String::new() } else { value.into_owned() };
                Node { span, shape: Shape::Scalar { value, style } }
            }
            Event::Alias(_) | Event::UnresolvedAlias(_) => Node { span, shape: Shape::Alias },
            _ => return Ok(()),
        };
        match self.open.last_mut() {
            Some(open) => open.children.push(node),
            None => self.root = Some(node),
        }
        Ok(())
    }
}

impl Open {
    fn close(self) -> Shape {
        let flow = self.flow;
        if !self.mapping {
            return Shape::Sequence { flow, items: self.children };
        }
        let mut children = self.children.into_iter();
        let mut entries = Vec::new();
        while let (Some(key), Some(value)) = (children.next(), children.next()) {
            entries.push((key, value));
        }
        Shape::Mapping { flow, entries }
    }
}

/// Returns what every document in `text` is worth, with the rules of Kubernetes and etcd (YAML 1.1).
pub(crate) fn values(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Arc<[Value]>, Refused> {
    static STRICT: Memory<Result<Arc<[Value]>, Refused>> = Memory::new();
    static LENIENT: Memory<Result<Arc<[Value]>, Refused>> = Memory::new();
    let memory = if matches!(duplicates, DuplicateKeyPolicy::Error) { &STRICT } else { &LENIENT };
    memory.recall(text.as_bytes(), || read_values(text, duplicates))
}

fn read_values(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Arc<[Value]>, Refused> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(2 * super::MAX_BYTES),
            max_nodes: MAX_NODES,
            max_depth: MAX_DEPTH,
        },
        duplicate_keys: duplicates,
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::read_with_options(&mut Cursor::new(text.as_bytes()), options)
        .map(|document| {
            document.map_err(|error| {
                let line = error.location().map(|location| format!(" (line {})", location.line()));
                let line = line.unwrap_or_default();
                Refused::because(format!("the file is not YAML that can be understood{line}"))
            })
        })
        .collect()
}

fn value_at<'v>(root: &'v mut Value, path: &[Step<'_>]) -> Option<&'v mut Value> {
    path.iter().try_fold(root, |value, step| match step {
        Step::At(index) => value.get_mut(*index),
        Step::Key(key) => value.get_mut(*key),
    })
}

/// Returns the path to where two values differ first.
fn difference(want: &Value, got: &Value, path: &str) -> Option<String> {
    match (want, got) {
        (Value::Object(want), Value::Object(got)) => {
            let keys = want.keys().chain(got.keys().filter(|key| !want.contains_key(*key)));
            keys.into_iter().find_map(|key| {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                match (want.get(key), got.get(key)) {
                    (Some(want), Some(got)) => difference(want, got, &path),
                    _ => Some(path),
                }
            })
        }
        (Value::Array(want), Value::Array(got)) => {
            let item = |(index, (want, got)): (usize, _)| difference(want, got, &format!("{path}[{index}]"));
            let found = want.iter().zip(got).enumerate().find_map(item);
            found.or_else(|| (want.len() != got.len()).then(|| path.to_owned()))
        }
        (want, got) => (want != got).then(|| path.to_owned()),
    }
}

/// Returns where the first character of the line of the byte at `at` is that is no space.
fn line_indent(text: &str, at: usize) -> usize {
    let start = line_start(text, at);
    let line = text.get(start..).unwrap_or_default();
    start + line.len() - line.trim_start_matches(' ').len()
}

/// Returns `text` as a scalar in `style`, if that can hold it.
fn scalar(text: &str, style: ScalarStyle) -> String {
    match style {
        ScalarStyle::DoubleQuoted => quoted(text),
        ScalarStyle::SingleQuoted => format!("'{}'", text.replace('\'', "''")),
        _ if is_plain(text) => text.to_owned(),
        _ => quoted(text),
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Returns whether `text` needs no quotes wherever it stands, for any reader: flags, paths and names.
fn is_plain(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || "-_./=@%+".contains(c);
    // A colon is followed by more, a comma would end an item of a flow list.
    let colons =
        text.split(':').all(|part| !part.is_empty() && part.chars().all(word)) && !text.ends_with(':');
    let special = ["y", "n", "yes", "no", "on", "off", "true", "false", "null"];
    let first = text.strip_prefix("--").or_else(|| text.strip_prefix('-')).unwrap_or(text);
    colons
        && first.starts_with(|c: char| c.is_ascii_alphabetic() || c == '/')
        && !special.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{At, Key};

    fn yaml(text: &str) -> Yaml<'_> {
        Yaml::parse(text, DuplicateKeyPolicy::Error).unwrap()
    }

    fn word(text: &str) -> New {
        New::Text(text.to_owned())
    }

    #[test]
    fn items_are_inserted_in_every_style() {
        let cases = [
            ("a:\n- x # c\n\n# d\nb: 1\n", 0, "a:\n- x # c\n- --n=1\n\n# d\nb: 1\n"),
            ("a:\n  - x\n  - 'y'\n", 1, "a:\n  - x\n  - 'y'\n  - '--n=1'\n"),
            ("a:\r\n  -  x\r\n  - y\r\n", 0, "a:\r\n  -  x\r\n  - --n=1\r\n  - y\r\n"),
            ("a:\n  - x", 0, "a:\n  - x\n  - --n=1"),
            ("a:\n  -\n    x\n", 0, "a:\n  -\n    x\n  - --n=1\n"),
            ("a:\n  - x\n    y\n", 0, "a:\n  - x\n    y\n  - --n=1\n"),
            ("a:\n  - &k x\n", 0, "a:\n  - &k x\n  - --n=1\n"),
            ("a: [x, y]\n", 0, "a: [x, --n=1, y]\n"),
            ("a: [x, y]\n", 1, "a: [x, y, --n=1]\n"),
            ("a: [\"x\",\"y\",]\n", 1, "a: [\"x\",\"y\", \"--n=1\",]\n"),
            ("a: []\n", 0, "a: [\"--n=1\"]\n"),
            (
                "{\"a\": [\n  \"x\", # c\n  \"y\" # d\n]}",
                0,
                "{\"a\": [\n  \"x\", # c\n  \"--n=1\",\n  \"y\" # d\n]}",
            ),
            ("{\"a\": [\n  \"x\",\n  \"y\" # d\n]}", 1, "{\"a\": [\n  \"x\",\n  \"y\", # d\n  \"--n=1\"\n]}"),
            ("a: [\n  x,\n  y,\n]\n", 1, "a: [\n  x,\n  y,\n  --n=1,\n]\n"),
        ];
        for (text, after, want) in cases {
            assert_eq!(
                yaml(text).insert_item(&[Key("a")], after, &word("--n=1")).as_deref(),
                Ok(want),
                "{text}"
            );
        }
    }

    #[test]
    fn items_and_entries_are_removed_and_comments_stay() {
        let cases: [(&str, &[Step<'_>], &str); 12] = [
            ("a:\n- x # c\n- y\n", &[Key("a"), At(0)], "a:\n# c\n- y\n"),
            ("a:\n- x\n- y", &[Key("a"), At(1)], "a:\n- x"),
            ("a:\r\n- x\r\n- y", &[Key("a"), At(1)], "a:\r\n- x"),
            ("a:\n- x\n# c\n- y\n\nb: 1\n", &[Key("a"), At(1)], "a:\n- x\n# c\n\nb: 1\n"),
            ("a: [x, y]\n", &[Key("a"), At(0)], "a: [y]\n"),
            ("a: [x, y]\n", &[Key("a"), At(1)], "a: [x]\n"),
            ("{\"a\": [\n  \"x\", # c\n  \"y\"\n]}", &[Key("a"), At(1)], "{\"a\": [\n  \"x\" # c\n]}"),
            ("{\"a\": [\n  \"x\",\n  \"y\"\n]}", &[Key("a"), At(0)], "{\"a\": [\n  \"y\"\n]}"),
            ("a: [\n  x, # c\n  y,\n]\n", &[Key("a"), At(0)], "a: [\n  # c\n  y,\n]\n"),
            ("a: 1\nb: 2 # c\nd: 3\n", &[Key("b")], "a: 1\n# c\nd: 3\n"),
            ("a: 1\nb:\nd: 3\n", &[Key("b")], "a: 1\nd: 3\n"),
            ("{a: 1, b: 2}\n", &[Key("b")], "{a: 1}\n"),
        ];
        for (text, path, want) in cases {
            assert_eq!(yaml(text).remove(path).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn entries_are_added() {
        let list = New::Sequence(vec![New::Mapping(vec![
            ("k".into(), word("v")),
            ("b".into(), New::Boolean(true)),
        ])]);
        let cases: [(&str, &[Step<'_>], &New, &str); 8] = [
            (
                "a:\n  b: 1 # c\n# d\n",
                &[Key("a")],
                &list,
                "a:\n  b: 1 # c\n  n:\n  - k: v\n    b: true\n# d\n",
            ),
            (
                "l:\n  - b: 1\n    c: 2\n",
                &[Key("l"), At(0)],
                &list,
                "l:\n  - b: 1\n    c: 2\n    n:\n      - k: v\n        b: true\n",
            ),
            ("{\"a\": 1}", &[], &list, "{\"a\": 1, \"n\": [{\"k\": \"v\", \"b\": true}]}"),
            ("", &[], &word("x"), "n: x\n"),
            ("# only\n", &[], &word("x"), "# only\nn: x\n"),
            ("a:\nb: 1\n", &[Key("a")], &word("x"), "a:\n  n: x\nb: 1\n"),
            ("a: {}\n", &[Key("a")], &word("x"), "a: {n: \"x\"}\n"),
            ("a: |\n  t\n\nb: |+\n  u\n\n", &[], &word("x"), "a: |\n  t\nn: x\n\nb: |+\n  u\n\n"),
        ];
        for (text, path, new, want) in cases {
            assert_eq!(yaml(text).insert_entry(path, "n", new).as_deref(), Ok(want), "{text}");
        }
    }

    #[test]
    fn scalars_are_replaced_and_quoted_when_they_need_it() {
        let cases = [
            ("a: x # c\n", "--y=1", "a: --y=1 # c\n"),
            ("a: 'x'\n", "it's", "a: 'it''s'\n"),
            ("a: \"x\"\n", "y", "a: \"y\"\n"),
            ("a: x\n", "true", "a: \"true\"\n"),
            ("a: x\n", "0644", "a: \"0644\"\n"),
            ("a: x\n", "a: b #c", "a: \"a: b #c\"\n"),
            ("a: x\n", "https://[fd00::1]:2380", "a: \"https://[fd00::1]:2380\"\n"),
            ("a: x\n", "https://n1:2380", "a: https://n1:2380\n"),
            ("a:\nb: 1\n", "x", "a: x\nb: 1\n"),
            ("a: &k x\n", "z", "a: &k z\n"),
            ("a: x\n", "y", "a: \"y\"\n"),
        ];
        for (text, new, want) in cases {
            assert_eq!(yaml(text).replace(&[Key("a")], &word(new)).as_deref(), Ok(want), "{text} {new}");
        }
    }

    #[test]
    fn what_would_change_more_is_refused() {
        let shared = "a: &l\n- x\nb: *l\n";
        let error = yaml(shared).insert_item(&[Key("a")], 0, &word("y")).unwrap_err();
        assert_eq!(error.why, "the edit would change more than it should (b)");
        let error = yaml(shared).insert_item(&[Key("b")], 0, &word("y")).unwrap_err();
        assert_eq!(error.why, "it is written as an alias (*)");
        assert!(yaml("a: |\n  x\n").replace(&[Key("a")], &word("y")).is_err());
        assert!(yaml("a:\n- x\n").remove(&[Key("a"), At(0)]).is_err());
        assert!(yaml("a: 1\n<<: {b: 2}\n").replace(&[Key("b")], &word("y")).is_err());
        assert!(Yaml::parse("a: [", DuplicateKeyPolicy::Error).is_err());
        assert!(Yaml::parse(&"[".repeat(100_000), DuplicateKeyPolicy::Error).is_err());
    }

    #[test]
    fn only_the_first_document_is_edited() {
        let text = "a: 1\n---\na: 2 # c\n";
        assert_eq!(yaml(text).replace(&[Key("a")], &word("x")).as_deref(), Ok("a: x\n---\na: 2 # c\n"));
        assert_eq!(
            yaml(text).insert_entry(&[], "n", &word("x")).as_deref(),
            Ok("a: 1\nn: x\n---\na: 2 # c\n")
        );
    }
}
