//! Whatever is in a file: an edit is made exactly, or refused. It never panics.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use seaworthy_edit::config::{self, Value};
use seaworthy_edit::{ArgumentEdit, Change, Content, environment, manifest, unit};

proptest! {
    #![proptest_config(ProptestConfig { cases: 800, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn edits_never_panic(
        lines in prop::collection::vec(
            "[ ]{0,4}(- )?(kind: Pod|spec:|containers:|name: etcd|env:|value: x|args: \\[|\\]|- etcd|command:|[a-b:#&*!|>'\"{}\\[\\], é\\\\=$%\t-]{0,8})",
            0..12,
        ),
        end in "\r?\n|",
    ) {
        let text = lines.join(&end);
        let bytes = text.as_bytes();
        let argument = ArgumentEdit::Set { flag: "a".into(), value: "é".into() };
        let edit = manifest::Edit::Argument(argument.clone());
        let _ = manifest::apply(bytes, "etcd", |text| text.ends_with(b"etcd"), &[edit]);
        let section = Some("peer-transport-security".to_owned());
        for edit in [
            config::Edit::Set { section: section.clone(), key: "a".into(), value: Value::Boolean(true) },
            config::Edit::Set { section: None, key: "a".into(), value: Value::Text("x".into()) },
            config::Edit::Remove { section: None, key: "a".into() },
        ] {
            let _ = config::apply(bytes, &[edit]);
        }
        let _ = environment::apply(bytes, &[environment::Edit::Set { name: "A".into(), value: "é".into() }]);
        let _ = environment::apply(bytes, &[environment::Edit::Remove { name: "a".into() }]);
        let _ = unit::drop_in(&text, |text| text.ends_with(b"etcd"), std::slice::from_ref(&argument));
        let _ = unit::exec_start(&[bytes, b"[Service]\nExecStart=/x"]);
        for content in [Content::Config, Content::Environment, Content::Manifest, Content::Secret, Content::Text, Content::Unit] {
            let change = Change { path: "/f".into(), before: Some(bytes.to_vec()), after: text.to_uppercase().into(), content };
            let _ = change.diff();
        }
    }
}
