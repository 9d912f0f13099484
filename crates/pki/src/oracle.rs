//! The predictions of this crate against Go itself.
//!
//! `cargo test -p seaworthy-pki -- --ignored` with `go` on the path, or named by the variable `GO`.

use std::io::Write as _;
use std::process::{Command, Stdio};

use rcgen::{
    BasicConstraints, CidrSubnet, CustomExtension, ExtendedKeyUsagePurpose as Eku, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints,
};

use crate::key::hex;
use crate::testing::{Entity, Issue, now};
use crate::{ChainError, Parsed, Usage, accepts_issuer, chains_to, names};

struct Question {
    usage: Usage,
    leaf: Parsed,
    intermediates: Vec<Parsed>,
    roots: Vec<Parsed>,
    host: String,
}

impl Question {
    fn line(&self) -> String {
        let list = |parsed: &[Parsed]| match parsed {
            [] => "-".to_owned(),
            some => some.iter().map(|p| hex(p.der())).collect::<Vec<_>>().join(","),
        };
        format!(
            "{} {} {} {} {} {}\n",
            self.usage.name(),
            now().as_second(),
            hex(self.leaf.der()),
            list(&self.intermediates),
            list(&self.roots),
            if self.host.is_empty() { "-".to_owned() } else { hex(self.host.as_bytes()) },
        )
    }
}

/// Returns Go's two verdicts on each question.
fn go(questions: &[Question]) -> Vec<(String, String)> {
    let go = std::env::var("GO").unwrap_or_else(|_| "go".to_owned());
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/oracle.go");
    let mut oracle = Command::new(go)
        .args(["run", source])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Go is needed for this test");
    let mut stdin = oracle.stdin.take().unwrap();
    let lines: String = questions.iter().map(Question::line).collect();
    let writer = std::thread::spawn(move || stdin.write_all(lines.as_bytes()));
    let output = oracle.wait_with_output().unwrap();
    writer.join().unwrap().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let answers: Vec<(String, String)> = text
        .lines()
        .filter_map(|line| line.split_once('/'))
        .map(|(chain, host)| (chain.to_owned(), host.to_owned()))
        .collect();
    assert_eq!(answers.len(), questions.len());
    answers
}

/// A source of choices that is the same in every run.
struct Choice(u64);

impl Choice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }

    /// Returns the first of `all`, which is the good one, as often as all others together.
    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        let i = if self.below(2) == 0 { 0 } else { self.below(all.len() as u64) };
        all[usize::try_from(i).unwrap()].clone()
    }

    fn certificate(&mut self, cn: &str, ca: bool) -> Issue {
        let constrained = |n| IsCa::Ca(BasicConstraints::Constrained(n));
        let unconstrained = IsCa::Ca(BasicConstraints::Unconstrained);
        let is_ca = match ca {
            true => self.of(&[unconstrained, constrained(0), constrained(1), IsCa::NoCa, IsCa::ExplicitNoCa]),
            false => self.of(&[IsCa::NoCa, IsCa::ExplicitNoCa, unconstrained]),
        };
        let mut usages = vec![
            vec![Eku::ServerAuth, Eku::ClientAuth],
            vec![],
            vec![Eku::ServerAuth],
            vec![Eku::ClientAuth],
            vec![Eku::Any],
            vec![Eku::CodeSigning],
        ];
        if ca {
            usages.swap(0, 1);
        }
        let algorithm = self.of(&[
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &rcgen::PKCS_ECDSA_P521_SHA512,
            &rcgen::PKCS_ED25519,
        ]);
        let dns = |name: &str| GeneralSubtree::DnsName(name.to_owned());
        let net = |bits| GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([10, 0, 0, 0], bits));
        let mut subject = rcgen::DistinguishedName::new();
        subject.push(rcgen::DnType::OrganizationName, "corp");
        let constraints = self.of(&[
            (vec![], vec![]),
            (vec![], vec![]),
            (vec![GeneralSubtree::DirectoryName(subject)], vec![]),
            (vec![dns("etcd.local")], vec![]),
            (vec![dns(".etcd.local"), net(8)], vec![]),
            (vec![net(8)], vec![net(30)]),
            (vec![], vec![dns("m1.etcd.local")]),
        ]);
        let key_usages =
            self.of(&[vec![], vec![KeyUsagePurpose::KeyCertSign], vec![KeyUsagePurpose::DigitalSignature]]);
        let names = self.of(&[
            &["m1.etcd.local", "10.0.0.9"][..],
            &[],
            &["m1.etcd.local"],
            &["10.0.0.3"],
            &["11.0.0.3", "fd00::3"],
            &["*.etcd.local"],
            &["etcd.local"],
            &["other"],
        ]);
        let (from, to) = self.of(&[
            ((2027, 1, 1), (2028, 1, 1)),
            ((2027, 1, 1), (2028, 1, 1)),
            ((2020, 1, 1), (2027, 6, 1)),
            ((2027, 6, 2), (2028, 1, 1)),
        ]);
        let unknown = self.below(12) == 0;
        let critical = self.below(2) == 0;
        let mut issue = Issue::new(cn)
            .key(KeyPair::generate_for(algorithm).unwrap())
            .usages(&self.of(&usages))
            .valid(from, to)
            .edit(|p| (p.is_ca, p.key_usages) = (is_ca, key_usages));
        if unknown {
            let mut extension = CustomExtension::from_oid_content(&[1, 2, 3], vec![5, 0]);
            extension.set_criticality(critical);
            issue = issue.edit(|p| p.custom_extensions.push(extension));
        }
        if ca {
            let (permitted_subtrees, excluded_subtrees) = constraints;
            let constraints = NameConstraints { permitted_subtrees, excluded_subtrees };
            return issue.edit(|p| p.name_constraints = Some(constraints));
        }
        issue.sans(names)
    }
}

#[test]
#[ignore = "needs Go"]
fn chains_are_judged_as_go_judges_them() {
    let mut choice = Choice(1);
    let mut questions = Vec::new();
    for _ in 0..3000 {
        let root = choice.certificate("root", true).self_signed();
        let direct = choice.below(2) == 0;
        let middle = choice.certificate("middle", true).signed_by(&root);
        let leaf = choice.certificate("leaf", false);
        let leaf = match choice.below(12) {
            0 => leaf.self_signed(),
            _ => leaf.signed_by(if direct { &root } else { &middle }),
        };
        let namesake = Issue::ca("root").self_signed();
        let take = |entities: &[&Entity]| entities.iter().map(|e| e.parsed.clone()).collect::<Vec<_>>();
        questions.push(Question {
            usage: choice.of(&[Usage::Server, Usage::Client]),
            intermediates: choice.of(&[take(&[&middle]), take(&[&root, &middle]), vec![]]),
            roots: choice.of(&[
                take(&[&root]),
                take(&[&namesake, &root]),
                take(&[&namesake]),
                take(&[&middle]),
                take(&[&leaf]),
                vec![],
            ]),
            leaf: leaf.parsed,
            host: String::new(),
        });
    }
    let (mut accepted, mut wrong) = (0, Vec::new());
    for (question, (theirs, _)) in questions.iter().zip(go(&questions)) {
        let Question { leaf, intermediates, roots, usage, .. } = question;
        let ours = chains_to(leaf, intermediates, roots, *usage, now());
        accepted += u32::from(ours.is_ok());
        if ours.is_ok() != (theirs == "ok") {
            wrong.push(format!("Go says {theirs}, we say {ours:?} to {}", question.line()));
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
    assert!((300..2700).contains(&accepted), "{accepted} accepted");
}

#[test]
#[ignore = "needs Go"]
fn authorities_are_judged_as_go_judges_what_they_issue() {
    let mut choice = Choice(2);
    let (mut questions, mut authorities) = (Vec::new(), Vec::new());
    for _ in 0..2000 {
        let root = choice.certificate("root", true).self_signed();
        let middle = choice.certificate("middle", true).signed_by(&root);
        let other = choice.certificate("other", true).self_signed();
        let by = choice.of(&[0, 1, 2]);
        let kube = choice.certificate("kube", true);
        let kube = match by {
            0 => kube.signed_by(&root),
            1 => kube.signed_by(&middle),
            _ => kube.self_signed(),
        };
        let cross =
            choice.certificate("kube", true).key(KeyPair::from_pem(&kube.key.serialize_pem()).unwrap());
        let cross = cross.signed_by(&other);
        let leaf = Issue::new("leaf").usages(&[Eku::ClientAuth]).signed_by(&kube);
        let take = |entities: &[&Entity]| entities.iter().map(|e| e.parsed.clone()).collect::<Vec<_>>();
        let mut known =
            choice.of(&[take(&[&middle, &cross]), take(&[&root, &middle]), take(&[&cross]), vec![]]);
        known.push(kube.parsed.clone());
        questions.push(Question {
            usage: Usage::Client,
            intermediates: known,
            roots: choice.of(&[
                take(&[&root]),
                take(&[&other]),
                take(&[&kube]),
                take(&[&other, &root]),
                take(&[&middle]),
                take(&[&cross]),
            ]),
            leaf: leaf.parsed,
            host: String::new(),
        });
        authorities.push(kube.parsed);
    }
    let (mut accepted, mut wrong) = (0, Vec::new());
    for ((question, authority), (theirs, _)) in questions.iter().zip(&authorities).zip(go(&questions)) {
        let Question { intermediates, roots, usage, .. } = question;
        let ours = match accepts_issuer(authority, intermediates, roots, *usage, now()) {
            Ok((_, from)) if from > now() => Err(ChainError::Other(format!("not before {from}"))),
            other => other.map(drop),
        };
        accepted += u32::from(ours.is_ok());
        if ours.is_ok() != (theirs == "ok") {
            wrong.push(format!("Go says {theirs}, we say {ours:?} to {}", question.line()));
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:#?}", wrong.len());
    assert!((200..1800).contains(&accepted), "{accepted} accepted");
}

#[test]
#[ignore = "needs Go"]
fn hosts_are_judged_as_go_judges_them() {
    let sans = [
        "m1.etcd.local",
        "M2.Etcd.Local",
        "*.etcd.local",
        "*.local",
        "*",
        "*.*.local",
        "m*.etcd.local",
        "a.*.local",
        "etcd.local.",
        "-a.local",
        "a-.local",
        "a_b.local",
        "a b.local",
        ".local",
        "a..local",
        "10.0.0.3",
        "fd00::3",
        "::ffff:10.0.0.4",
        "localhost",
        "*.localhost",
        "xn--a.local",
        "10.0.0.5.",
        "*.0.0.6",
    ];
    let hosts = [
        "m1.etcd.local",
        "M1.ETCD.LOCAL",
        "m2.etcd.local",
        "m3.etcd.local",
        "m3.etcd.local.",
        "x.m3.etcd.local",
        "etcd.local",
        "etcd.local.",
        "local",
        "*",
        "*.etcd.local",
        "a.*.local",
        "-a.local",
        "a-.local",
        "a_b.local",
        "a b.local",
        ".local",
        "a..local",
        "10.0.0.3",
        "[10.0.0.3]",
        "::ffff:10.0.0.3",
        "10.0.0.4",
        "fd00::3",
        "[fd00::3]",
        "FD00:0:0::3",
        "[fd00::3",
        "010.0.0.3",
        "10.0.0.3.",
        "10.0.0.5",
        "10.0.0.5.",
        "10.0.0.6",
        "x.0.0.6",
        "localhost",
        "LOCALHOST.",
        "a.localhost",
        "xn--a.local",
        ".",
        "..",
        "m1.etcd.local..",
        "é.local",
    ];
    let mut questions = Vec::new();
    for san in sans {
        let leaf = match san.parse::<std::net::IpAddr>() {
            Ok(_) => Issue::new("m1.etcd.local").sans(&[san]),
            Err(_) => Issue::new("m1.etcd.local").dns(san),
        };
        let leaf = leaf.self_signed().parsed;
        questions.extend(hosts.map(|host| Question {
            usage: Usage::Server,
            leaf: leaf.clone(),
            intermediates: vec![],
            roots: vec![leaf.clone()],
            host: host.to_owned(),
        }));
    }
    let answers = go(&questions);
    let wrong: Vec<String> = questions
        .iter()
        .zip(answers)
        // Newer releases refuse to parse a certificate with such a name at all.
        .filter(|(_, (_, theirs))| !theirs.contains("cannot parse"))
        .filter(|(question, (_, theirs))| {
            names(&question.leaf.certificate, &question.host) != (theirs == "ok")
        })
        .map(|(question, (_, theirs))| {
            format!("{:?} {:?}: Go says {theirs}", question.leaf.certificate.sans, question.host)
        })
        .collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
}
