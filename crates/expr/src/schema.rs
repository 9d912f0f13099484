//! The types of the evidence, read from its JSON Schema.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;

/// The deepest nesting of schemas that is followed; deeper ones are [`Type::Opaque`].
const MAX_DEPTH: usize = 64;

/// The types that a JSON Schema defines.
#[derive(Clone, Debug)]
pub struct Schema {
    root: Type,
    definitions: BTreeMap<String, Type>,
}

/// A JSON Schema that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SchemaError {
    /// The document is not an object.
    #[error("a JSON Schema must be an object")]
    NotASchema,
    /// A `$ref` that does not lead to a definition under `$defs`.
    #[error("the reference `{0}` leads nowhere")]
    UnresolvedReference(String),
}

/// The type of an expression or of a piece of evidence.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    /// Fits everything: the element of an empty list, or what an expression with a mistake would have.
    Any,
    /// True or false.
    Bool,
    /// A floating-point number.
    Double,
    /// A string that is one of these.
    Enum(Arc<[String]>),
    /// An integer.
    Int,
    /// A list.
    List(Arc<Self>),
    /// A map with string keys.
    Map {
        /// All keys that can occur, when that is known: a missing one was not collected.
        keys: Option<Arc<[String]>>,
        /// The type of the values.
        value: Arc<Self>,
    },
    /// Only `null`.
    Null,
    /// The type, or `null`.
    Nullable(Arc<Self>),
    /// A record.
    Object(Arc<Object>),
    /// Evidence that may have failed: an object with a `value` of the type, or with an `error` in its place.
    Observed(Arc<Self>),
    /// Can be shown, but not looked into.
    Opaque,
    /// A string.
    String,
}

/// The fields of an object type.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Name of the definition, for messages.
    pub name: String,
    /// Types of the fields, in the order of the schema.
    pub fields: IndexMap<String, Type>,
}

impl Schema {
    /// Reads the types from `root`, a JSON Schema (2020-12) as schemars writes it.
    ///
    /// Understood: `$ref` to `#/$defs/…`; `type`, also with `"null"` in a list; `properties`; `items`;
    /// `additionalProperties` with `propertyNames`; `enum` and `const` of strings; `anyOf` and `oneOf` with
    /// `null`, of strings, or of objects (a tagged union: its fields are merged). `"x-observed": true` marks
    /// an object with `value` or `error` as [`Type::Observed`]; `"x-opaque": true`, recursion and all else
    /// make [`Type::Opaque`].
    pub fn from_json_schema(root: &Value) -> Result<Self, SchemaError> {
        if !root.is_object() {
            return Err(SchemaError::NotASchema);
        }
        let mut reader = Reader { root, definitions: BTreeMap::new(), open: BTreeSet::new(), depth: 0 };
        if let Some(definitions) = root.get("$defs").and_then(Value::as_object) {
            for name in definitions.keys() {
                reader.definition(name)?;
            }
        }
        let title = root.get("title").and_then(Value::as_str).unwrap_or("object");
        let root = reader.read(root, title)?;
        Ok(Self { root, definitions: reader.definitions })
    }

    /// Returns the type of the whole document.
    pub fn root(&self) -> &Type {
        &self.root
    }

    /// Returns the type of the definition `name` under `$defs`.
    pub fn definition(&self, name: &str) -> Option<Type> {
        self.definitions.get(name).cloned()
    }
}

impl Type {
    /// Returns a nullable of this type.
    pub fn nullable(self) -> Self {
        match self {
            Self::Any | Self::Null | Self::Nullable(_) => self,
            other => Self::Nullable(Arc::new(other)),
        }
    }

    /// Returns the type without [`Type::Nullable`] and [`Type::Observed`] around it.
    pub fn bare(&self) -> &Self {
        match self {
            Self::Nullable(inner) | Self::Observed(inner) => inner.bare(),
            other => other,
        }
    }

    /// Returns whether a value of this type can be `null`.
    pub fn accepts_null(&self) -> bool {
        match self {
            Self::Any | Self::Null | Self::Nullable(_) => true,
            Self::Observed(inner) => inner.accepts_null(),
            _ => false,
        }
    }

    /// Returns the type of the value once an observation at the top has been opened, if there is one.
    pub(crate) fn opened(&self) -> Option<Self> {
        match self {
            Self::Observed(inner) => Some(inner.opened().unwrap_or_else(|| inner.as_ref().clone())),
            Self::Nullable(inner) => inner.opened().map(Self::nullable),
            _ => None,
        }
    }

    /// Returns the type of a value that is of type `self` or of type `other`.
    pub(crate) fn unify(&self, other: &Self) -> Option<Self> {
        Some(match (self, other) {
            (a, b) if a == b => a.clone(),
            (Self::Any, t) | (t, Self::Any) => t.clone(),
            (Self::Null, t) | (t, Self::Null) => t.clone().nullable(),
            (Self::Nullable(a), b) | (b, Self::Nullable(a)) => {
                let b = if let Self::Nullable(b) = b { b } else { b };
                a.unify(b)?.nullable()
            }
            (Self::Int | Self::Double, Self::Int | Self::Double) => Self::Double,
            (Self::String | Self::Enum(_), Self::String | Self::Enum(_)) => Self::String,
            (Self::List(a), Self::List(b)) => Self::List(Arc::new(a.unify(b)?)),
            _ => return None,
        })
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any => f.write_str("any"),
            Self::Bool => f.write_str("bool"),
            Self::Double => f.write_str("double"),
            Self::Enum(_) | Self::String => f.write_str("string"),
            Self::Int => f.write_str("int"),
            Self::List(element) => write!(f, "list of {element}"),
            Self::Map { value, .. } => write!(f, "map of {value}"),
            Self::Null => f.write_str("null"),
            Self::Nullable(inner) | Self::Observed(inner) => inner.fmt(f),
            Self::Object(object) => f.write_str(&object.name),
            Self::Opaque => f.write_str("opaque value"),
        }
    }
}

struct Reader<'a> {
    root: &'a Value,
    definitions: BTreeMap<String, Type>,
    /// Definitions being read, to notice recursion.
    open: BTreeSet<String>,
    depth: usize,
}

impl<'a> Reader<'a> {
    fn definition(&mut self, name: &str) -> Result<Type, SchemaError> {
        if let Some(known) = self.definitions.get(name) {
            return Ok(known.clone());
        }
        let schema = self.root.get("$defs").and_then(|definitions| definitions.get(name));
        let schema = schema.ok_or_else(|| SchemaError::UnresolvedReference(format!("#/$defs/{name}")))?;
        if !self.open.insert(name.to_owned()) {
            return Ok(Type::Opaque);
        }
        let read = self.read(schema, name);
        self.open.remove(name);
        let read = read?;
        self.definitions.insert(name.to_owned(), read.clone());
        Ok(read)
    }

    fn read(&mut self, schema: &'a Value, name: &str) -> Result<Type, SchemaError> {
        if self.depth >= MAX_DEPTH {
            return Ok(Type::Opaque);
        }
        self.depth += 1;
        let read = self.read_one(schema, name);
        self.depth -= 1;
        read
    }

    fn read_one(&mut self, schema: &'a Value, name: &str) -> Result<Type, SchemaError> {
        let flag = |key: &str| schema.get(key) == Some(&Value::Bool(true));
        if flag("x-opaque") {
            return Ok(Type::Opaque);
        }
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            if reference == "#" {
                return Ok(Type::Opaque);
            }
            let target = reference.strip_prefix("#/$defs/");
            let target = target.ok_or_else(|| SchemaError::UnresolvedReference(reference.to_owned()))?;
            return self.definition(&target.replace("~1", "/").replace("~0", "~"));
        }
        let alternatives = ["anyOf", "oneOf", "allOf"].iter().find_map(|key| schema.get(key)?.as_array());
        if flag("x-observed") {
            let value = schema.pointer("/properties/value").or_else(|| {
                alternatives?.iter().find_map(|alternative| alternative.pointer("/properties/value"))
            });
            let value = value.map_or(Ok(Type::Opaque), |value| self.read(value, name))?;
            return Ok(Type::Observed(Arc::new(value)));
        }
        if let Some(values) = schema.get("enum").and_then(Value::as_array) {
            return Ok(constants(values.iter()));
        }
        if let Some(value) = schema.get("const") {
            return Ok(constants([value].into_iter()));
        }
        if let Some(properties) = schema.get("properties").and_then(Value::as_object) {
            let mut fields = IndexMap::with_capacity(properties.len());
            for (field, schema) in properties {
                fields.insert(field.clone(), self.read(schema, &format!("{name}.{field}"))?);
            }
            // A flattened enum: fields beside alternatives that have more of them.
            for alternative in alternatives.into_iter().flatten() {
                if let Type::Object(object) = self.read(alternative, name)? {
                    merge(&mut fields, &object.fields);
                }
            }
            let object = Type::Object(Arc::new(Object { name: name.to_owned(), fields }));
            return Ok(if allows_null(schema) { object.nullable() } else { object });
        }
        if let Some(alternatives) = alternatives {
            return self.union(alternatives, name);
        }
        self.plain(schema, name)
    }

    fn plain(&mut self, schema: &'a Value, name: &str) -> Result<Type, SchemaError> {
        let names: Vec<&str> = match schema.get("type") {
            Some(Value::String(name)) => vec![name],
            Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
            _ => return Ok(Type::Opaque),
        };
        let mut others = names.iter().filter(|name| **name != "null");
        let plain = match (others.next(), others.next()) {
            (None, _) => return Ok(Type::Null),
            (Some(&"boolean"), None) => Type::Bool,
            (Some(&"integer"), None) => Type::Int,
            (Some(&"number"), None) => Type::Double,
            (Some(&"string"), None) => Type::String,
            (Some(&"array"), None) => match schema.get("items") {
                Some(items) if items.is_object() => Type::List(Arc::new(self.read(items, name)?)),
                _ => Type::Opaque,
            },
            (Some(&"object"), None) => self.map(schema, name)?,
            _ => Type::Opaque,
        };
        Ok(if allows_null(schema) { plain.nullable() } else { plain })
    }

    fn map(&mut self, schema: &'a Value, name: &str) -> Result<Type, SchemaError> {
        let by_pattern = || schema.get("patternProperties")?.as_object()?.values().next();
        let values =
            schema.get("additionalProperties").filter(|values| values.is_object()).or_else(by_pattern);
        let Some(values) = values else { return Ok(Type::Opaque) };
        let keys = match schema.get("propertyNames") {
            Some(names) => match self.read(names, name)? {
                Type::Enum(keys) => Some(keys),
                _ => None,
            },
            None => None,
        };
        Ok(Type::Map { keys, value: Arc::new(self.read(values, name)?) })
    }

    fn union(&mut self, alternatives: &'a [Value], name: &str) -> Result<Type, SchemaError> {
        let mut union: Option<Type> = None;
        for alternative in alternatives {
            let next = self.read(alternative, name)?;
            union = Some(match union {
                None => next,
                Some(union) => merged(&union, &next),
            });
        }
        Ok(union.unwrap_or(Type::Opaque))
    }
}

fn allows_null(schema: &Value) -> bool {
    schema.get("type").and_then(Value::as_array).is_some_and(|names| names.iter().any(|name| name == "null"))
}

/// Returns the type of exactly these values.
fn constants<'a>(values: impl Iterator<Item = &'a Value> + Clone) -> Type {
    let strings = values.clone().filter_map(Value::as_str).map(str::to_owned).collect::<Vec<_>>();
    let nulls = values.clone().filter(|value| value.is_null()).count();
    if strings.is_empty() || strings.len() + nulls != values.count() {
        return Type::Opaque;
    }
    let strings = Type::Enum(strings.into());
    if nulls > 0 { strings.nullable() } else { strings }
}

/// Returns the type of a value that is one or the other of two alternatives of a schema.
fn merged(a: &Type, b: &Type) -> Type {
    match (a, b) {
        (Type::Enum(a), Type::Enum(b)) => {
            let more = b.iter().filter(|value| !a.contains(value));
            Type::Enum(a.iter().chain(more).cloned().collect())
        }
        (Type::Object(a), Type::Object(b)) => {
            let mut fields = a.fields.clone();
            merge(&mut fields, &b.fields);
            Type::Object(Arc::new(Object { name: a.name.clone(), fields }))
        }
        (Type::Null, other) | (other, Type::Null) => other.clone().nullable(),
        (Type::Nullable(inner), other) | (other, Type::Nullable(inner)) => merged(inner, other).nullable(),
        (a, b) if a == b => a.clone(),
        _ => Type::Opaque,
    }
}

fn merge(fields: &mut IndexMap<String, Type>, more: &IndexMap<String, Type>) {
    for (name, field) in more {
        let both = fields.get(name).map_or_else(|| field.clone(), |known| merged(known, field));
        fields.insert(name.clone(), both);
    }
}

#[cfg(test)]
mod tests {
    use schemars::{JsonSchema, schema_for};
    use serde_json::json;

    use super::*;

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Node {
        /// Documented, so that schemars wraps the reference.
        listener: Listener,
        maybe: Option<Listener>,
        text: Option<String>,
        numbers: Vec<u16>,
        ratio: f64,
        by_name: BTreeMap<String, bool>,
        scheme: Scheme,
        plain: Plain,
        origin: Origin,
        shape: Shape,
        children: Vec<Self>,
        anything: Value,
        pair: (u8, String),
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    struct Listener {
        scheme: Option<Scheme>,
    }

    #[derive(JsonSchema)]
    #[serde(rename_all = "kebab-case")]
    #[allow(dead_code)]
    enum Scheme {
        /// Documented variants become `oneOf` with `const`.
        Http,
        /// Likewise.
        HttpsOnly,
    }

    #[derive(JsonSchema)]
    #[allow(dead_code)]
    enum Plain {
        A,
        B,
    }

    #[derive(JsonSchema)]
    #[serde(tag = "kind", rename_all = "kebab-case")]
    #[allow(dead_code)]
    enum Shape {
        Circle { radius: u32 },
        Square { side: u32, radius: Option<u32> },
    }

    #[derive(JsonSchema)]
    #[schemars(extend("x-opaque" = true))]
    #[allow(dead_code)]
    struct Origin {
        path: String,
    }

    fn names(values: &[&str]) -> Type {
        Type::Enum(values.iter().map(|value| (*value).to_owned()).collect())
    }

    #[test]
    fn types_of_a_schemars_schema() {
        let schema = Schema::from_json_schema(&schema_for!(Node).to_value()).unwrap();
        let Type::Object(node) = schema.root() else { panic!("{:?}", schema.root()) };
        let listener = schema.definition("Listener").unwrap();
        let Type::Object(object) = &listener else { panic!("{listener:?}") };
        assert_eq!((object.name.as_str(), node.name.as_str()), ("Listener", "Node"));
        assert_eq!(object.fields["scheme"], names(&["http", "https-only"]).nullable());
        let Type::Object(shape) = &node.fields["shape"] else { panic!("{:?}", node.fields["shape"]) };
        assert_eq!(shape.fields["kind"], names(&["circle", "square"]));
        assert_eq!(shape.fields["radius"], Type::Int.nullable());
        for (field, expected) in [
            ("listener", listener.clone()),
            ("maybe", listener.nullable()),
            ("text", Type::String.nullable()),
            ("numbers", Type::List(Arc::new(Type::Int))),
            ("ratio", Type::Double),
            ("by_name", Type::Map { keys: None, value: Arc::new(Type::Bool) }),
            ("scheme", names(&["http", "https-only"])),
            ("plain", names(&["A", "B"])),
            ("origin", Type::Opaque),
            ("children", Type::List(Arc::new(Type::Opaque))),
            ("anything", Type::Opaque),
            ("pair", Type::Opaque),
        ] {
            assert_eq!(node.fields[field], expected, "{field}");
        }
    }

    #[test]
    fn extensions() {
        let observed = |value: Value| {
            json!({"type": "object", "x-observed": true,
                   "properties": {"value": value, "origin": {}, "error": {}}})
        };
        let as_union = json!({"x-observed": true, "oneOf": [
            {"type": "object", "properties": {"value": {"type": "integer"}, "origin": {}}},
            {"type": "object", "properties": {"error": {}}},
        ]});
        let keyed = json!({"type": "object", "additionalProperties": {"type": "string"},
                           "propertyNames": {"enum": ["a", "b"]}});
        let keys = Some(Arc::from(["a".to_owned(), "b".to_owned()]));
        let keyed_type = Type::Map { keys, value: Arc::new(Type::String) };
        for (schema, expected) in [
            (
                observed(json!({"type": ["string", "null"]})),
                Type::Observed(Arc::new(Type::String.nullable())),
            ),
            (
                json!({"anyOf": [observed(json!({"type": "boolean"})), {"type": "null"}]}),
                Type::Observed(Arc::new(Type::Bool)).nullable(),
            ),
            (as_union, Type::Observed(Arc::new(Type::Int))),
            (observed(keyed), Type::Observed(Arc::new(keyed_type))),
            (json!({"enum": ["x", null]}), names(&["x"]).nullable()),
            (json!({"enum": ["x", 1]}), Type::Opaque),
            (json!({"type": ["string", "integer"]}), Type::Opaque),
            (json!({}), Type::Opaque),
        ] {
            assert_eq!(*Schema::from_json_schema(&schema).unwrap().root(), expected, "{schema}");
        }
    }

    #[test]
    fn what_is_not_a_schema() {
        assert_eq!(Schema::from_json_schema(&json!(true)).unwrap_err(), SchemaError::NotASchema);
        for reference in ["#/$defs/Nowhere", "https://example.com/x"] {
            let error = Schema::from_json_schema(&json!({"$ref": reference})).unwrap_err();
            assert_eq!(error, SchemaError::UnresolvedReference(reference.to_owned()));
        }
        let cyclic = json!({"$defs": {"A": {"$ref": "#/$defs/B"}, "B": {"$ref": "#/$defs/A"}}});
        assert!(Schema::from_json_schema(&cyclic).is_ok());
    }
}
