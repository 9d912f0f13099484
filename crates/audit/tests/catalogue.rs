//! Every rule of the catalogue gives every one of its fixtures the expected status and words.

#![allow(clippy::expect_used, clippy::panic)]

use std::path::Path;

use seaworthy_audit::check_fixture;
use seaworthy_catalogue::{Catalogue, Sources, render};

fn sources() -> Sources {
    Sources::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../catalogue")).expect("the catalogue")
}

fn catalogue(sources: &Sources) -> Catalogue {
    Catalogue::load(sources).unwrap_or_else(|d| panic!("{}", render(&d, sources, false)))
}

#[test]
fn fixtures_get_what_they_expect() {
    let sources = sources();
    let catalogue = catalogue(&sources);
    let fixtures = catalogue.fixtures(&sources).unwrap_or_else(|d| panic!("{}", render(&d, &sources, false)));
    let wrong: Vec<_> = fixtures
        .iter()
        .filter_map(|(rule, f)| Some(format!("{}: {}", f.path, check_fixture(rule, f).err()?)))
        .collect();
    assert!(wrong.is_empty(), "{} of {} fixtures:\n{}", wrong.len(), fixtures.len(), wrong.join("\n"));
    assert!(fixtures.len() >= catalogue.rules.len() * 3);
}

#[test]
fn remediation_begins_with_what_to_do() {
    // The first paragraph is the `do:` line of a report where the rule knows nothing better, and nothing follows it.
    for (id, rule) in catalogue(&sources()).rules {
        let first = rule.document.section("Remediation").split("\n\n").next().unwrap_or_default();
        assert!(first.chars().count() <= 240, "{id}: {} characters: {first}", first.chars().count());
        assert!(!first.contains("below"), "{id}: {first}");
        assert!(
            !["/etc/", "/var/"].iter().any(|path| first.contains(path)),
            "{id}: paths are those of a node: {first}"
        );
        let sentence = first.starts_with(|c: char| c.is_alphabetic()) && first.ends_with('.');
        assert!(sentence, "{id}: no sentence: {first}");
    }
}

#[test]
fn benchmarks_list_all_their_controls() {
    for (id, count) in [("cis-kubernetes-2.0.1", 131), ("cis-kubernetes-1.12", 131)] {
        let catalogue = catalogue(&sources());
        let benchmark = catalogue.benchmark(id).unwrap();
        assert_eq!(benchmark.controls().count(), count, "{id}");
    }
}

#[test]
fn peer_tls_is_mapped_to_the_controls_it_was_born_for() {
    let catalogue = catalogue(&sources());
    let rule = &catalogue.rules["etcd-peer-tls"];
    assert_eq!(rule.frameworks.cis_controls["v6"], ["14.2"]);
    assert_eq!(rule.frameworks.cis_controls["v7"], ["14.4"]);
    for benchmark in ["cis-kubernetes-2.0.1", "cis-kubernetes-1.12"] {
        assert!(catalogue.controls_of("etcd-peer-tls").contains(&(benchmark, "2.4")));
    }
}
