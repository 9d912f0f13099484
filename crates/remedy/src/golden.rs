//! The plan of every fix on every node of the fixture, as stored documents in `testdata/plans`: a change of the planner that
//! changes no plan leaves them alone. What is printed of them is compared in the tests of the program.
//!
//! `SNAPSHOTS=overwrite cargo test -p seaworthy-remedy golden` writes them anew.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use snapbox::data::DataFormat;

use crate::fixes::{attributes, renewal};
use crate::fixture::World;
use crate::preflight::preflight;
use crate::rollouts::etcd::{client_auth, client_auto_tls, client_tls};

fn worlds() -> Vec<(&'static str, World)> {
    let mut alone = World::plaintext();
    alone.members().truncate(1);
    vec![
        ("alone", alone),
        ("auto-tls", World::self_made()),
        ("clients-auto-tls", client_auto_tls::tests::self_made()),
        ("clients-plaintext", client_tls::tests::plaintext()),
        ("clients-unauthenticated", client_auth::tests::open()),
        ("encrypted", World::encrypted()),
        ("expiring", renewal::tests::expiring()),
        ("loaded", World::loaded()),
        ("open-to-all", attributes::tests::open_to_all()),
        ("plaintext", World::plaintext()),
        ("shared-ca", World::shared_authority().0),
        ("unauthenticated", World::unauthenticated()),
    ]
}

/// Makes what differs from run to run the same: the keys of the fixture are made anew each time.
fn settled(value: &mut Value) {
    match value {
        Value::String(text) if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) => {
            *text = "0".repeat(64);
        }
        Value::String(text) if text.contains("-----BEGIN") => *text = "(PEM)".to_owned(),
        Value::Array(values) => values.iter_mut().for_each(settled),
        Value::Object(fields) => fields.values_mut().for_each(settled),
        _ => {}
    }
}

#[test]
fn plans_are_as_stored() {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/plans"));
    let mut all = BTreeSet::new();
    for (name, world) in worlds() {
        let fixable = seaworthy_builtin::catalogue().unwrap().rules.values();
        for rule in fixable.filter(|rule| rule.fix.as_ref().is_some_and(|fix| fix.is_for("etcd"))) {
            let (rule, input) = (&rule.id, world.input());
            let (plan, refusals) = match world.planned(rule) {
                // Nothing to do is no document.
                Ok(plan) if plan.steps.is_empty() && plan.waits_for.is_empty() => continue,
                Ok(plan) => {
                    let refusals = preflight(&plan, &input);
                    (Some(plan), refusals)
                }
                Err(refusals) => (None, refusals),
            };
            let mut document = json!({ "plan": plan, "refusals": refusals });
            settled(&mut document);
            let path = folder.join(format!("{rule}-{name}.json"));
            let expected = snapbox::Data::read_from(&path, Some(DataFormat::Text)).raw();
            let text = serde_json::to_string_pretty(&document).unwrap() + "\n";
            snapbox::Assert::new().action_env("SNAPSHOTS").eq(text, expected);
            all.insert(path);
        }
    }
    let there: BTreeSet<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert_eq!(there, all, "what nothing is compared with is to be removed");
}
