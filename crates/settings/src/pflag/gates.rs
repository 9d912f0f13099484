//! Feature gates: `--feature-gates` as components of Kubernetes read it (`k8s.io/component-base/featuregate`, and for the components
//! that name other components in it `k8s.io/component-base/compatibility`; read in 1.35.4 and 1.36.3).

use std::collections::BTreeMap;

use seaworthy_evidence::Origin;

use super::{Gate, Release, Table, at, is_between, parse_bool};

/// The flag.
pub(super) const FLAG: &str = "feature-gates";

/// The type of the flag where a gate may have the name of a component before it.
const OF_COMPONENTS: &str = "colonSeparatedMultimapStringString";

/// What is set, by the name of the gate, with the place.
type Given<'a> = BTreeMap<String, (bool, &'a Origin)>;

/// Returns the gates that are set, by name, each with the last value it is given and where; where a value is wrong, what would be said
/// of it.
pub(super) fn parse<'a>(
    kind: &str,
    values: impl Iterator<Item = (&'a str, &'a Origin)>,
) -> Result<Given<'a>, (String, &'a Origin)> {
    let mut gates = BTreeMap::new();
    let mut spelled = None;
    for (value, origin) in values {
        for pair in value.split(',').filter(|pair| !pair.is_empty()) {
            let (component, pair) = match pair.split_once(':').filter(|_| kind == OF_COMPONENTS) {
                Some((component, pair)) => (component.trim(), pair.trim()),
                None if kind == OF_COMPONENTS => ("", pair.trim()),
                None => ("", pair),
            };
            if !matches!(component, "" | "kube") {
                return Err((format!("component not registered: {}", shown(component)), origin));
            }
            if *spelled.get_or_insert(component) != component {
                let message = "set kube feature gates with default empty prefix or kube: prefix consistently";
                return Err((message.to_owned(), origin));
            }
            if pair.is_empty() {
                continue;
            }
            let (name, value) =
                pair.split_once('=').map_or((pair, None), |(name, value)| (name, Some(value)));
            let name = name.trim();
            let Some(value) = value else {
                return Err((format!("missing bool value for {}", shown(name)), origin));
            };
            let Some(on) = parse_bool(value.trim()) else {
                return Err((format!("the value of {} is not true or false", shown(name)), origin));
            };
            gates.insert(name.to_owned(), (on, origin));
        }
    }
    Ok(gates)
}

/// Returns `values` as the one text that means the same: each gate once, by name; `None` where a value is wrong.
pub(super) fn in_effect<'a>(kind: &str, values: impl Iterator<Item = &'a str>) -> Option<String> {
    let nowhere = Origin::derived("the command line");
    let gates = parse(kind, values.map(|value| (value, &nowhere))).ok()?;
    Some(gates.iter().map(|(name, (on, _))| format!("{name}={on}")).collect::<Vec<_>>().join(","))
}

/// Returns why a component of `release` exits when the gate `name` is set so.
pub(super) fn refused(table: &Table, release: Release, name: &str, on: bool) -> Option<String> {
    let gate = table.gates.iter().find(|gate| gate.name == name);
    let Some(gate) = gate.filter(|gate| is_between(gate.since, gate.removed, release)) else {
        return Some(format!("unrecognized feature gate: {}", shown(name)));
    };
    let Gate { stages, defaults, locked, .. } = gate;
    let default = at(defaults, release)?;
    if at(locked, release) == Some(true) && default != on {
        return Some(format!("cannot set feature gate {name} to {on}, feature is locked to {default}"));
    }
    let too_early = at(stages, release) == Some("PRE-ALPHA");
    too_early.then(|| format!("cannot set feature gate {name} to {on}, feature is PreAlpha"))
}

/// Returns the beginning of `text`.
fn shown(text: &str) -> String {
    text.chars().take(64).collect()
}
