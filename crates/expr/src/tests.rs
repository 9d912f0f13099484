//! The language through the public API: what the checker says, what evaluation yields, and from which
//! evidence.

use std::borrow::Cow;
use std::collections::BTreeMap;

use proptest::prelude::*;
use schemars::{JsonSchema, Schema as JsonSchemaDocument, SchemaGenerator, json_schema, schema_for};
use serde_json::{Value, json};

use crate::{Diagnostic, Env, Outcome, Program, Schema, Scope, Template};

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Etcd {
    id: String,
    name: Option<String>,
    pid: u32,
    member: u64,
    ratio: f64,
    encrypted: bool,
    maybe: Option<bool>,
    peer: Observed<Peer>,
    settings: Observed<Settings>,
    labels: BTreeMap<String, String>,
    mode: u32,
    config: Option<Observed<Config>>,
    purpose: Purpose,
    origin: Origin,
    hashes: Vec<Observed<String>>,
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Peer {
    listeners: Vec<Listener>,
    tls: Option<bool>,
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Listener {
    url: Url,
    wire: Observed<bool>,
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Url {
    text: String,
    scheme: Scheme,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)]
enum Scheme {
    /// Plain.
    Http,
    /// Encrypted.
    Https,
}

#[derive(JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[allow(dead_code)]
enum Purpose {
    Client,
    Peer,
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Setting {
    set: bool,
    value: String,
}

#[derive(JsonSchema)]
#[allow(dead_code)]
struct Config {
    path: String,
}

#[derive(JsonSchema)]
#[schemars(extend("x-opaque" = true))]
#[allow(dead_code)]
struct Origin {
    path: String,
}

struct Observed<T>(std::marker::PhantomData<T>);

impl<T: JsonSchema> JsonSchema for Observed<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Observed_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> JsonSchemaDocument {
        json_schema!({"type": "object", "x-observed": true, "properties": {
            "value": generator.subschema_for::<T>(), "origin": {}, "error": {},
        }})
    }
}

struct Settings;

impl JsonSchema for Settings {
    fn schema_name() -> Cow<'static, str> {
        "Settings".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> JsonSchemaDocument {
        json_schema!({"type": "object", "additionalProperties": generator.subschema_for::<Setting>(),
            "propertyNames": {"enum": ["cert-file", "key-file", "peer-cert-file", "name"]}})
    }
}

fn scope() -> Scope {
    let schema = Schema::from_json_schema(&schema_for!(Etcd).to_value()).unwrap();
    Scope::new().with("etcd", schema.root().clone())
}

fn evidence() -> Value {
    json!({
        "id": "etcd m1", "name": null, "pid": 812, "member": 18_446_744_073_709_551_615_u64, "ratio": 0.5,
        "encrypted": true, "maybe": null, "mode": 0o640, "config": null, "purpose": "peer",
        "origin": {"kind": "file", "path": "/x"},
        "labels": {"a/b": "1", "c~d": "2"},
        "peer": {"value": {"listeners": [
            {"url": {"text": "https://10.0.0.1:2380", "scheme": "https"}, "wire": {"value": true, "origin": {}}},
            {"url": {"text": "http://10.0.0.2:2380", "scheme": "http"}, "wire": {"error": {"message": "timed out"}}},
        ]}, "origin": {}},
        "settings": {"value": {
            "cert-file": {"set": true, "value": "/a.crt"}, "key-file": {"set": false, "value": ""},
        }, "origin": {}},
        "hashes": [{"value": "aa", "origin": {}}, {"error": {"message": "not readable"}}],
    })
}

/// Returns a program that has been stored, so that every test is one of storing too.
fn compile(source: &str) -> Program {
    let checked = Program::checked(source, &scope(), |_| None);
    let (program, _) = checked.unwrap_or_else(|errors| panic!("{source}: {}", errors[0]));
    let stored = serde_json::to_string(&program).unwrap();
    serde_json::from_str(&stored).unwrap_or_else(|error| panic!("{source}: {error}: {stored}"))
}

/// Evaluates and writes the result as one word: a truth value, JSON, or `unknown` with its reasons.
fn result(source: &str, evidence: &Value) -> String {
    let env = Env::new().bind("etcd", evidence, "/etcd/0");
    let evaluation = compile(source).eval(&env);
    match evaluation.outcome {
        Outcome::True => "true".to_owned(),
        Outcome::False => "false".to_owned(),
        Outcome::Value(value) => value.to_string(),
        Outcome::Elements(elements) => {
            let values: Vec<&Value> = elements.iter().map(|element| element.value.as_ref()).collect();
            serde_json::to_string(&values).unwrap()
        }
        Outcome::Unknown => {
            assert!(!evaluation.missing.is_empty(), "{source}: unknown without a cause");
            let reasons: Vec<&str> =
                evaluation.missing.iter().map(|missing| missing.reason.as_str()).collect();
            format!("unknown: {}", reasons.join("; "))
        }
    }
}

/// Atoms that are true, false and unknown in [`evidence`].
const T: &str = "etcd.encrypted";
const F: &str = "etcd.settings['key-file'].set";
const U: &str = "etcd.peer.tls";

#[test]
fn truth_tables() {
    let not_collected = "unknown: etcd.peer.tls was not collected";
    let evidence = evidence();
    for (a, b, and, or) in [
        (T, T, "true", "true"),
        (T, F, "false", "true"),
        (F, T, "false", "true"),
        (F, F, "false", "false"),
        (T, U, not_collected, "true"),
        (U, T, not_collected, "true"),
        (F, U, "false", not_collected),
        (U, F, "false", not_collected),
        (U, U, not_collected, not_collected),
    ] {
        assert_eq!(result(&format!("{a} && {b}"), &evidence), and, "{a} && {b}");
        assert_eq!(result(&format!("{a} || {b}"), &evidence), or, "{a} || {b}");
        assert_eq!(result(&format!("!({a} && {b})"), &evidence), result(&format!("!{a} || !{b}"), &evidence));
    }
    for (source, expected) in [
        (format!("!{T}"), "false"),
        (format!("!{U}"), not_collected),
        (format!("{U} ? 1 : 2"), not_collected),
        (format!("{T} ? 1 : 2"), "1"),
        (format!("{F} ? {U} : {T}"), "true"),
        // A chain reports each cause once, and an unknown that did not decide not at all.
        (format!("{U} && {T} && {U}"), not_collected),
        (format!("{U} && {T} && {F}"), "false"),
        (format!("[1, 2].all(x, x > 0 && {T})"), "true"),
        (format!("[1, 2].all(x, x > 1 && {U})"), "false"),
        (format!("[1, 2].all(x, x > 1 || {U})"), not_collected),
        (format!("[1, 2].exists(x, x > 1 || {U})"), "true"),
        (format!("[1, 2].exists(x, x > 2 || {U})"), not_collected),
        ("[1, 2, 3].exists_one(x, x > 2)".to_owned(), "true"),
        (format!("[1, 2, 3].exists_one(x, x > 1 || {U})"), "false"),
        (format!("[1, 2, 3].exists_one(x, x > 2 || {U})"), not_collected),
        (format!("[1, 2].filter(x, x > 1 || {U})"), not_collected),
        ("[].all(x, false)".to_owned(), "true"),
        ("[].exists(x, true)".to_owned(), "false"),
    ] {
        assert_eq!(result(&source, &evidence), expected, "{source}");
    }
}

#[test]
fn values() {
    let evidence = evidence();
    for (source, expected) in [
        ("1 + 2 * 3 - 7 % 4", "4"),
        ("-etcd.pid", "-812"),
        ("etcd.member > 9223372036854775807", "true"),
        ("etcd.member", "18446744073709551615"),
        ("etcd.ratio * 2 == 1", "true"),
        ("1 % 0", "unknown: 1 % 0 cannot be computed"),
        ("'a' + 'b' < 'b'", "true"),
        ("[1] + [2, 3]", "[1,2,3]"),
        ("size(etcd.peer.listeners + etcd.peer.listeners)", "4"),
        ("[1, 2, 3][1]", "2"),
        ("[1][1]", "unknown: [1][1] does not exist"),
        ("[1][-1]", "unknown: [1][-1] does not exist"),
        ("0x1f == 31", "true"),
        // Null is knowledge; a missing key is not.
        ("etcd.name == null", "true"),
        ("etcd.name != null", "false"),
        ("etcd.name == 'x'", "false"),
        ("etcd.name < 'x'", "unknown: etcd.name is absent"),
        ("etcd.name != null && etcd.name.startsWith('x')", "false"),
        ("etcd.name.startsWith('x')", "unknown: etcd.name is absent"),
        ("etcd.maybe", "unknown: etcd.maybe is absent"),
        ("etcd.config == null", "true"),
        ("etcd.config.path == 'x'", "unknown: etcd.config is absent"),
        ("etcd.peer.tls == null", "unknown: etcd.peer.tls was not collected"),
        // Presence.
        ("has(etcd.name)", "false"),
        ("has(etcd.id)", "true"),
        ("has(etcd.config.path)", "false"),
        ("has(etcd.peer.tls)", "false"),
        ("has(etcd.peer.listeners[1].wire)", "unknown: timed out"),
        ("has(etcd.settings.name)", "false"),
        // Maps.
        ("'a/b' in etcd.labels", "true"),
        ("'zzz' in etcd.labels", "false"),
        ("etcd.labels['zzz']", "unknown: etcd.labels['zzz'] was not collected"),
        ("'cert-file' in etcd.settings", "true"),
        ("'name' in etcd.settings", "unknown: 'name' in etcd.settings was not collected"),
        ("etcd.labels.exists(k, etcd.labels[k] == '2')", "true"),
        ("size(etcd.labels)", "2"),
        // Failed evidence.
        ("etcd.peer.listeners.all(l, l.wire)", "unknown: timed out"),
        ("etcd.peer.listeners.exists(l, l.wire)", "true"),
        ("etcd.peer.listeners[0].wire", "true"),
        ("'aa' in etcd.hashes", "true"),
        ("'bb' in etcd.hashes", "unknown: not readable"),
        ("etcd.hashes.map(h, h)", "unknown: not readable"),
        // Lists.
        ("etcd.purpose in ['client', 'peer']", "true"),
        ("size(etcd.peer.listeners)", "2"),
        ("etcd.peer.listeners.size()", "2"),
        (
            "etcd.peer.listeners.filter(l, l.url.scheme == 'http').map(l, l.url.text)",
            "[\"http://10.0.0.2:2380\"]",
        ),
        (
            "etcd.peer.listeners.map(l, l.url.text).join(' ')",
            "\"https://10.0.0.1:2380 http://10.0.0.2:2380\"",
        ),
        // Functions.
        ("size('é🦀')", "2"),
        ("'a,b'.split(',')", "[\"a\",\"b\"]"),
        ("'ÀB'.lowerAscii()", "\"Àb\""),
        ("etcd.id.contains('m1') && etcd.id.startsWith('etcd') && etcd.id.endsWith('1')", "true"),
        ("etcd.id.matches(r'^etcd \\w\\d$')", "true"),
        ("restricted_to(etcd.mode, '0644')", "true"),
        ("restricted_to(etcd.mode, '0600')", "false"),
    ] {
        assert_eq!(result(source, &evidence), expected, "{source}");
    }
}

#[test]
fn evidence_that_failed_blinds_all_below_it() {
    let mut evidence = evidence();
    evidence["peer"] = json!({"error": {"kind": "timeout", "message": "no answer"}});
    let env = Env::new().bind("etcd", &evidence, "/etcd/0");
    let evaluation = compile("etcd.peer.listeners.all(l, l.url.scheme == 'https')").eval(&env);
    assert_eq!(evaluation.outcome, Outcome::Unknown);
    assert_eq!(evaluation.touched, ["/etcd/0/peer"]);
    assert_eq!(evaluation.missing.len(), 1);
    assert_eq!(evaluation.missing[0].pointer, "/etcd/0/peer");
    assert_eq!(evaluation.missing[0].error, Some(json!({"kind": "timeout", "message": "no answer"})));
    assert_eq!(evaluation.missing[0].reason, "no answer");
}

#[test]
fn evidence_that_breaks_its_schema_is_unknown() {
    let evidence = json!({"id": 7, "pid": "x", "peer": [], "settings": {"value": 3}, "labels": "no",
                          "hashes": {"a": 1}, "mode": {}, "encrypted": "yes", "name": [], "origin": 1});
    for source in [
        "etcd.id.startsWith('x')",
        "etcd.id == 'x'",
        "etcd.pid + 1 == 2",
        "-etcd.pid == 1",
        "etcd.peer.listeners.all(l, true)",
        "etcd.settings['name'].set",
        "'name' in etcd.settings",
        "size(etcd.mode + 1 == 1 ? [1] : [2]) == 1",
        "restricted_to(etcd.mode, '0')",
        "etcd.encrypted",
        "etcd.name < 'x'",
        "[etcd.name].join('') == ''",
    ] {
        assert!(
            result(source, &evidence).starts_with("unknown: "),
            "{source}: {}",
            result(source, &evidence)
        );
    }
    assert!(result("etcd.encrypted", &Value::Null).starts_with("unknown: "));
    assert_eq!(compile("etcd.encrypted").eval(&Env::new()).missing[0].reason, "etcd was not collected");
}

#[test]
fn touched_evidence_is_what_was_read() {
    let evidence = evidence();
    let env = Env::new().bind("etcd", &evidence, "/etcd/0");
    let listeners = "/etcd/0/peer/value/listeners";
    for (source, expected) in [
        ("etcd.encrypted && etcd.pid == 1", vec!["/etcd/0/encrypted".to_owned(), "/etcd/0/pid".to_owned()]),
        ("etcd.pid == 1 && etcd.encrypted", vec!["/etcd/0/pid".to_owned()]),
        ("etcd.pid > 1 && etcd.pid < 3", vec!["/etcd/0/pid".to_owned()]),
        ("etcd.settings['cert-file'].set", vec!["/etcd/0/settings/value/cert-file/set".to_owned()]),
        ("size(etcd.peer.listeners) > 1", vec![listeners.to_owned()]),
        (
            "etcd.labels['a/b'] == etcd.labels['c~d']",
            vec!["/etcd/0/labels/a~1b".to_owned(), "/etcd/0/labels/c~0d".to_owned()],
        ),
        (
            "etcd.peer.listeners.all(l, l.url.scheme == 'https')",
            vec![format!("{listeners}/0/url/scheme"), format!("{listeners}/1/url/scheme")],
        ),
        (
            "etcd.peer.listeners.all(l, l.wire)",
            vec![format!("{listeners}/0/wire/value"), format!("{listeners}/1/wire")],
        ),
        ("etcd.peer.tls == true", vec!["/etcd/0/peer/value/tls".to_owned()]),
        ("has(etcd.name)", vec!["/etcd/0/name".to_owned()]),
        ("'a/b' in etcd.labels", vec!["/etcd/0/labels/a~1b".to_owned()]),
        ("'x' in etcd.labels", vec!["/etcd/0/labels".to_owned()]),
        ("1 == 1", vec![]),
    ] {
        assert_eq!(compile(source).eval(&env).touched, expected, "{source}");
    }
}

#[test]
fn elements_keep_their_pointers() {
    let evidence = evidence();
    let env = Env::new().bind("etcd", &evidence, "/etcd/0");
    let source = "etcd.peer.listeners.filter(l, l.url.scheme == 'http')";
    let (list, element) = Program::list(source, &scope()).unwrap();
    let evaluation = list.eval(&env);
    let elements = evaluation.elements().unwrap();
    assert_eq!(elements.len(), 1);
    assert_eq!(elements[0].pointer.as_deref(), Some("/etcd/0/peer/value/listeners/1"));

    let inner = scope().with("l", element);
    let check = Program::condition("l.url.scheme == 'https' && l.wire", &inner).unwrap();
    let env = env.clone().bind_element("l", &elements[0]);
    let evaluation = check.eval(&env);
    assert_eq!(evaluation.outcome, Outcome::False);
    assert_eq!(evaluation.touched, ["/etcd/0/peer/value/listeners/1/url/scheme"]);
    assert_eq!(
        check.explain_false(&env),
        [(0..23, "l.url.scheme == 'https' is false: l.url.scheme is \"http\"".to_owned())]
    );

    let computed = compile("etcd.peer.listeners.map(l, l.url.text + '!')");
    let evaluation = computed.eval(&env);
    assert_eq!(evaluation.elements().unwrap()[0].pointer, None);
    // Observed elements stay observed, so that each can be unknown on its own.
    let (hashes, element) = Program::list("etcd.hashes", &scope()).unwrap();
    let scope = scope().with("h", element);
    let check = Program::condition("h == 'aa'", &scope).unwrap();
    let evaluation = hashes.eval(&env);
    let outcomes = evaluation.elements().unwrap().iter();
    let outcomes: Vec<bool> =
        outcomes.map(|h| check.eval(&Env::new().bind_element("h", h)).outcome == Outcome::True).collect();
    assert_eq!(outcomes, [true, false]);
}

#[test]
fn mistakes_are_found_before_any_evidence() {
    let fields = "there are: id, name, pid, member, ratio, encrypted, maybe, peer, settings, labels, mode, config, \
                  purpose, origin, hashes";
    for (source, marked, message, help) in [
        ("etdc.pid == 1", "etdc", "unknown variable `etdc`", "did you mean `etcd`? there are: etcd"),
        (
            "etcd.nmae == 'x'",
            "nmae",
            "unknown field of Etcd `nmae`",
            &format!("did you mean `name`? {fields}"),
        ),
        (
            "has(etcd.peers)",
            "peers",
            "unknown field of Etcd `peers`",
            &format!("did you mean `peer`? {fields}"),
        ),
        (
            "etcd.settings['cert_file'].set",
            "'cert_file'",
            "unknown key `cert_file`",
            "did you mean `cert-file`? there are: cert-file, key-file, peer-cert-file, name",
        ),
        (
            "'cret-file' in etcd.settings",
            "'cret-file'",
            "unknown key `cret-file`",
            "did you mean `cert-file`? there are: cert-file, key-file, peer-cert-file, name",
        ),
        ("etcd.id == 1", "etcd.id == 1", "`==` compares string with int", ""),
        ("etcd.encrypted == 'true'", "etcd.encrypted == 'true'", "`==` compares bool with string", ""),
        ("etcd.encrypted < true", "etcd.encrypted < true", "`<` has no order for bool", ""),
        (
            "etcd.hashes == []",
            "etcd.hashes == []",
            "`==` cannot compare list of string",
            "use `size`, `all` or `exists`",
        ),
        (
            "etcd.peer == null",
            "etcd.peer == null",
            "`etcd.peer` is never null",
            "what was not collected is unknown, not null",
        ),
        (
            "etcd.purpose == 'peers'",
            "'peers'",
            "\"peers\" is not one of the possible values",
            "there are: \"client\", \"peer\"",
        ),
        (
            "etcd.peer.listeners.all(l, l.url.scheme in ['https', 'tls'])",
            "'tls'",
            "\"tls\" is not one of the possible values",
            "there are: \"http\", \"https\"",
        ),
        ("etcd.pid", "etcd.pid", "expected a condition, found int", ""),
        ("etcd.pid && true", "etcd.pid", "expected a condition, found int", ""),
        ("!etcd.id", "etcd.id", "expected a condition, found string", ""),
        ("etcd.origin.path == 'x'", "path", "`etcd.origin` can be shown, but not looked into", ""),
        ("etcd.pid.x == 1", "x", "int has no fields", ""),
        ("etcd.pid[0] == 1", "etcd.pid[0]", "int cannot be indexed", ""),
        ("etcd.hashes['x'] == 'x'", "'x'", "a list is indexed by int, not string", ""),
        ("etcd.pid + 'x' == 'x'", "etcd.pid + 'x'", "`+` cannot combine int with string", ""),
        ("[1, 'a'].exists(x, true)", "'a'", "a list of int cannot also hold string", ""),
        ("(true ? 1 : 'a') == 1", "true ? 1 : 'a'", "`?:` gives either int or string", ""),
        ("etcd.pid in 3", "3", "`in` takes a list or a map, not int", ""),
        ("etcd.id.startsWith()", "etcd.id.startsWith()", "`startsWith` takes 1 argument, not 0", ""),
        (
            "startsWith(etcd.id, 'x')",
            "startsWith(etcd.id, 'x')",
            "`startsWith` is called as `x.startsWith(…)`",
            "",
        ),
        ("etcd.id.startsWith(1)", "1", "`startsWith` takes string here, not int", ""),
        ("etcd.id.matches('(')", "'('", "not a regular expression: ", ""),
        ("etcd.id.matches(etcd.id)", "etcd.id", "`matches` takes a literal regular expression here", ""),
        ("restricted_to(etcd.mode, '0o644')", "'0o644'", "`0o644` is not an octal mode", ""),
        ("etcd.pid.all(x, true)", "etcd.pid", "`all` goes over a list or a map, not int", ""),
        ("etcd.hashes.all(etcd, true)", "etcd", "`etcd` already has a meaning here", ""),
        (
            "etcd.hashes.all(true)",
            "etcd.hashes.all(true)",
            "`all` takes a variable and an expression: `list.all(x, …)`",
            "",
        ),
        (
            "has(etcd.settings['name'])",
            "has(etcd.settings['name'])",
            "`has` takes one field: `has(a.b)`",
            "to look for a key of a map, write `\"key\" in map`",
        ),
    ] {
        let errors = Program::condition(source, &scope()).expect_err(source);
        assert_eq!(errors.len(), 1, "{source}: {errors:?}");
        let error = &errors[0];
        assert_eq!(&source[error.span.clone()], marked, "{source}: {error}");
        assert!(error.message.starts_with(message), "{source}: {error}");
        assert_eq!(error.help.as_deref().unwrap_or_default(), help, "{source}");
    }
    let errors = Program::condition("etcd.id.sizes() == 1", &scope()).unwrap_err();
    assert!(errors[0].help.as_deref().unwrap().starts_with("did you mean `size`?"), "{errors:?}");
    let errors = Program::list("etcd.pid", &scope()).unwrap_err();
    assert_eq!(errors[0].message, "expected a list, found int");
}

#[test]
fn nothing_can_be_looked_into_of_which_nothing_is_known() {
    let (_, element) = Program::list("[][0]", &scope()).unwrap();
    let errors = Program::condition("x.name == 'a'", &scope().with("x", element)).unwrap_err();
    assert_eq!(errors[0].message, "`x` can be shown, but not looked into");
}

#[test]
fn all_mistakes_are_reported() {
    let source = "etcd.x == 1 && foo > etcd.y && etcd.pid == 'a' || etcd.id.frob()";
    let errors = Program::condition(source, &scope()).unwrap_err();
    let marked: Vec<&str> = errors.iter().map(|error| &source[error.span.clone()]).collect();
    assert_eq!(marked, ["x", "foo", "y", "etcd.pid == 'a'", "etcd.id.frob()"]);
}

#[test]
fn a_false_condition_explains_itself() {
    let evidence = evidence();
    let env = Env::new().bind("etcd", &evidence, "/etcd/0");
    for (source, expected) in [
        ("true", vec![]),
        ("etcd.peer.tls", vec![]),
        (
            "etcd.pid == 1 && etcd.encrypted && etcd.mode == 2",
            vec!["etcd.pid == 1 is false: etcd.pid is 812", "etcd.mode == 2 is false: etcd.mode is 416"],
        ),
        (
            "etcd.pid == 1 || etcd.id == 'x'",
            vec![
                "etcd.pid == 1 is false: etcd.pid is 812",
                "etcd.id == 'x' is false: etcd.id is \"etcd m1\"",
            ],
        ),
        (
            "etcd.peer.listeners.all(l, l.url.scheme == 'https')",
            vec!["l.url.scheme == 'https' is false: l.url.scheme is \"http\""],
        ),
        (
            "restricted_to(etcd.mode, '0600')",
            vec!["restricted_to(etcd.mode, '0600') is false: etcd.mode is 416"],
        ),
        ("!etcd.encrypted", vec!["!etcd.encrypted is false: etcd.encrypted is true"]),
        ("size(etcd.labels) > 5", vec!["size(etcd.labels) > 5 is false: size(etcd.labels) is 2"]),
        ("etcd.settings['key-file'].set", vec!["etcd.settings['key-file'].set is false"]),
    ] {
        let why: Vec<String> =
            compile(source).explain_false(&env).into_iter().map(|(_, text)| text).collect();
        assert_eq!(why, expected, "{source}");
    }
}

#[test]
fn templates() {
    let evidence = evidence();
    let env = Env::new().bind("etcd", &evidence, "/etcd/0");
    for (source, expected) in [
        ("plain", "plain"),
        ("", ""),
        ("{{etcd.id}} }}{{", "{etcd.id} }{"),
        ("{etcd.id} (pid {etcd.pid})", "etcd m1 (pid 812)"),
        ("{ 'a}b{' + \"'}\" }", "a}b{'}"),
        ("{r'\\'}", "\\"),
        ("{etcd.name} {etcd.encrypted} {etcd.ratio} {etcd.config}", "none true 0.5 none"),
        ("{etcd.peer.tls}", "not known"),
        ("{etcd.peer.listeners.map(l, l.url)}", "https://10.0.0.1:2380, http://10.0.0.2:2380"),
        ("{etcd.peer.listeners[0].url} {etcd.hashes}", "https://10.0.0.1:2380 aa, not known"),
        ("{etcd.peer.listeners.filter(l, false).map(l, l.url)}", ""),
        ("{etcd.origin}", "{\"kind\":\"file\",\"path\":\"/x\"}"),
        ("é{etcd.purpose}é", "épeeré"),
        ("{etcd}", "none"),
    ] {
        let template = Template::compile(source, &scope()).unwrap_or_else(|e| panic!("{source}: {}", e[0]));
        assert_eq!(template.render(&env).text, expected, "{source}");
    }
    let template = Template::compile("{etcd.peer.listeners.map(l, l.url)} {etcd.name}", &scope()).unwrap();
    let listeners = "/etcd/0/peer/value/listeners";
    let touched =
        [format!("{listeners}/0/url/text"), format!("{listeners}/1/url/text"), "/etcd/0/name".to_owned()];
    assert_eq!(template.render(&env).touched, touched);
}

#[test]
fn mistakes_in_templates() {
    for (source, marked, message) in [
        ("a { b", "{ b", "this `{` is not closed by `}`"),
        ("a } b", "}", "this `}` closes nothing"),
        ("x {etcd.nope} y", "nope", "unknown field of Etcd `nope`"),
        ("x {'} y", "{'} y", "this `{` is not closed by `}`"),
        ("é {etcd.pid +} y", "+", "the expression ends too early"),
        ("{etcd.labels}", "etcd.labels", "a map cannot be shown"),
        ("{etcd.peer}", "etcd.peer", "Peer cannot be shown: it has no field text, name, id, path or url"),
    ] {
        let errors = Template::compile(source, &scope()).expect_err(source);
        assert_eq!(
            (&source[errors[0].span.clone()], errors[0].message.as_str()),
            (marked, message),
            "{source}"
        );
    }
    assert_eq!(Template::compile("{a} {b}", &scope()).unwrap_err().len(), 2);
}

const VALID: &[&str] = &[
    "etcd.settings['cert-file'].set && etcd.settings['key-file'].set",
    "etcd.peer.listeners.all(l, l.url.scheme == \"https\" || l.wire)",
    "size(etcd.labels) > 1 ? !etcd.encrypted : etcd.pid % 2 == -1",
    "has(etcd.peer.tls) && 'a' in ['a', r'b'].map(x, x + x) // comment",
    "etcd.id.matches(r'^\\w+$') && restricted_to(etcd.mode, '0644')",
    "{etcd.id} and {etcd.hashes.filter(h, h != 'x')[0]}}}",
];

/// Compiles and, if that works, evaluates everything that can be made of `source`.
fn exercise(source: &str) {
    let (scope, evidence) = (scope(), evidence());
    let env = Env::new().bind("etcd", &evidence, "/etcd/0");
    let spans_fit = |errors: Vec<Diagnostic>| {
        assert!(!errors.is_empty());
        errors
            .iter()
            .for_each(|error| assert!(source.get(error.span.clone()).is_some(), "{source:?}: {error}"));
    };
    match Program::checked(source, &scope, |_| None).map(|(program, _)| program) {
        Ok(program) => {
            for evidence in [&evidence, &json!({}), &json!([1]), &Value::Null] {
                let env = Env::new().bind("etcd", evidence, "");
                let evaluation = program.eval(&env);
                assert_eq!(
                    evaluation.outcome == Outcome::Unknown,
                    !evaluation.missing.is_empty(),
                    "{source}"
                );
                program.explain_false(&env);
            }
        }
        Err(errors) => spans_fit(errors),
    }
    match Template::compile(source, &scope) {
        Ok(template) => drop(template.render(&env)),
        Err(errors) => spans_fit(errors),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_does_no_harm(source in "[ -~é\n]{0,60}") {
        exercise(&source);
    }

    #[test]
    fn random_tokens_do_no_harm(tokens in proptest::collection::vec(proptest::sample::select(vec![
        "etcd", ".", "pid", "peer", "listeners", "[", "]", "(", ")", "'x'", "\"", "r'", "1", "-", "!", "&&", "||",
        "==", "<", "?", ":", ",", "in", ".all(", "x", "has(", "{", "}", "null", "size(", "+", "%", "//", "é", "`",
    ]), 0..30)) {
        exercise(&tokens.concat());
        exercise(&tokens.join(" "));
    }

    #[test]
    fn mutated_expressions_do_no_harm(
        seed in proptest::sample::select(VALID),
        edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>(), 0..3), 1..6),
    ) {
        let mut bytes = seed.as_bytes().to_vec();
        for (index, byte, what) in edits {
            let at = index.index(bytes.len().max(1)).min(bytes.len());
            match what {
                0 if at < bytes.len() => { bytes.remove(at); }
                1 => bytes.insert(at, byte & 0x7f),
                _ => bytes.truncate(at),
            }
        }
        exercise(&String::from_utf8_lossy(&bytes));
    }
}
