//! A member of the lab, in any state, and its cluster.

use seaworthy_evidence::{Certificate, ClientAuth, Credentials, Observed, Snapshot};
use seaworthy_pki::certificates_from_pem;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::subject::Subject;
use jiff::Timestamp;
use seaworthy_evidence::{EtcdClient, Member, Origin, Setting, Url};
use seaworthy_pki::Parsed;

use crate::fixes::{self, Task};
use crate::input::{AuthorityFiles, Declaration, Health, Input, MemberHealth, Options};
use crate::issue::{Authority, Host, KeyKind, Profile};
use crate::order::Scheme;
use crate::plan::Stage;
use crate::plan::{Action, Plan, Refusal, RefusalKind};
use crate::planner::POD_DIRECTORY;
use crate::progress::ProgressRecord;
use crate::rollouts::etcd::peer_tls;
use crate::supplied::Asked;

pub(crate) const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

pub(crate) fn seen<T>(value: T) -> Observed<T> {
    Observed::seen(value, Origin::derived("the fixture"))
}

/// Returns the progress record of a member that has got so far with peer TLS, with certificates of this authority.
pub(crate) fn record(reached: Option<Stage>, authority: &Authority) -> ProgressRecord {
    let authority = &authority.certificate().certificate;
    ProgressRecord {
        reached,
        authority: Some(authority.key.spki.clone()),
        authority_subject: Some(authority.subject.clone()),
        ..ProgressRecord::new(peer_tls::RULE, "m2", "node", Timestamp::UNIX_EPOCH)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) node: String,
    pub(crate) taken_at: Timestamp,
    pub(crate) subject: Subject,
    pub(crate) declaration: Vec<Declaration>,
    pub(crate) health: Result<Health, String>,
    pub(crate) progress: BTreeMap<String, ProgressRecord>,
    pub(crate) listens: BTreeMap<String, BTreeSet<Scheme>>,
    pub(crate) clocks: BTreeMap<String, i64>,
    pub(crate) served: BTreeMap<String, Vec<Parsed>>,
    pub(crate) trusted: Option<Vec<u8>>,
    pub(crate) asked: Asked,
    pub(crate) clients: Result<Vec<EtcdClient>, String>,
    pub(crate) options: Options,
    /// The authority of the options.
    pub(crate) issuer: Arc<Authority>,
}

impl World {
    /// Returns the first of three members that have loaded their certificates and talk plaintext.
    pub(crate) fn loaded() -> Self {
        let snapshot = include_str!("../../seaworthy/tests/cli/node.json");
        let mut snapshot: serde_json::Value = serde_json::from_str(snapshot).unwrap();
        snapshot["components"]["etcd"]["value"][0]["etcd"]["links"]["value"] = serde_json::json!([]);
        let snapshot: Snapshot = serde_json::from_value(snapshot).unwrap();
        let etcd = Subject::of(snapshot.instances("etcd").unwrap()[0].clone());
        let (issuer, _) = Authority::create("etcd-ca", KeyKind::EcP256, snapshot.taken_at).unwrap();
        let pem = issuer.pem().as_bytes().to_vec();
        let [certificate, key] = ["crt", "key"].map(|end| format!("{POD_DIRECTORY}/ca.{end}"));
        let authority = Some(AuthorityFiles { certificate, pem: Some(pem), key });
        let members = etcd.own.cluster.value().unwrap().members.clone();
        let well = MemberHealth { version: Some("3.6.13".to_owned()), trouble: None };
        let mut world = Self {
            node: snapshot.node.name,
            taken_at: snapshot.taken_at,
            subject: etcd,
            declaration: Vec::new(),
            health: Ok(Health {
                members: members.iter().map(|m| (m.id.clone(), well.clone())).collect(),
                ..Health::default()
            }),
            progress: members.iter().map(|m| (m.id.clone(), record(Some(Stage::Load), &issuer))).collect(),
            listens: BTreeMap::new(),
            clocks: BTreeMap::new(),
            served: BTreeMap::new(),
            trusted: None,
            asked: Asked::default(),
            clients: Ok(Vec::new()),
            options: Options { authority, ..Options::default() },
            issuer: Arc::new(issuer),
        };
        world.declare();
        world
    }

    /// Returns a component of a node of kubeadm's, declared by this manifest.
    pub(crate) fn kubeadm(component: &str, manifest: &str) -> Self {
        let snapshot = include_str!("../../seaworthy/tests/golden/snapshots/kubeadm.json");
        let snapshot: Snapshot = serde_json::from_str(snapshot).unwrap();
        let subject = Subject::of(snapshot.instances(component).unwrap()[0].clone());
        let path = subject.declared.value().unwrap()[0].path.clone();
        let declaration = vec![Declaration { path, bytes: manifest.as_bytes().to_vec(), unrestorable: None }];
        let health = Err("it is no member of a cluster".to_owned());
        Self { subject, declaration, health, progress: BTreeMap::new(), ..Self::loaded() }
    }

    /// Returns the same without any certificate for peers.
    pub(crate) fn plaintext() -> Self {
        let mut world = Self::loaded();
        world.progress.clear();
        for name in ["peer-cert-file", "peer-key-file", "peer-trusted-ca-file", "peer-client-cert-auth"] {
            world.unset(name);
        }
        world.declare();
        world
    }

    /// Returns the same with TLS everywhere.
    pub(crate) fn encrypted() -> Self {
        let mut world = Self::loaded();
        world.listen("https");
        (0..3).for_each(|index| world.advertise(index, "https"));
        world.seen(&mut |etcd| {
            etcd.own.connections = Observed::seen(Vec::new(), Origin::derived("the fixture"));
        });
        world
    }

    /// Returns the same where no member demands a certificate of its peers, with certificates of the options' authority.
    pub(crate) fn unauthenticated() -> Self {
        let mut world = Self::encrypted();
        world.progress.clear();
        world.unset("peer-trusted-ca-file");
        world.unset("peer-client-cert-auth");
        world.client_auth(false);
        let issuer = Arc::clone(&world.issuer);
        (0..3).for_each(|index| world.serve(index, &issuer));
        world.declare();
        world
    }

    pub(crate) fn client_auth(&mut self, enforced: bool) {
        match &mut self.subject.own.peer.client_auth {
            Observed::Seen { value, .. } => value.enforced = enforced,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    /// Lets the peer port of a member serve a certificate of this authority.
    pub(crate) fn serve(&mut self, index: usize, issuer: &Authority) {
        let member = self.members()[index].clone();
        let hosts = member.peer_urls.iter().map(|url| Host::parse(&url.host).unwrap());
        let profile = Profile::peer(&member.name, hosts);
        let (_, issued) = issuer.issue(&profile, KeyKind::EcP256, self.taken_at).unwrap();
        self.served.insert(member.id, vec![issued.certificate]);
    }

    /// Returns the same where every member serves a certificate that it made itself.
    pub(crate) fn self_made() -> Self {
        let mut world = Self::unauthenticated();
        world.unset("peer-cert-file");
        world.unset("peer-key-file");
        world.set("peer-auto-tls", "true");
        world.auto_tls(true, true);
        for index in 0..3 {
            let host = world.members()[index].peer_urls[0].host.clone();
            world.serve_self_made(index, &host);
        }
        world
    }

    pub(crate) fn auto_tls(&mut self, requested: bool, in_effect: bool) {
        match &mut self.subject.own.peer.auto_tls {
            Observed::Seen { value, .. } => (value.requested, value.in_effect) = (requested, in_effect),
            Observed::Failed { error } => panic!("{error}"),
        }
        if !requested {
            self.unset("peer-auto-tls");
            self.declare();
        }
    }

    /// Lets the peer port of a member serve a certificate as etcd makes it.
    pub(crate) fn serve_self_made(&mut self, index: usize, host: &str) {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(vec![host.to_owned()]).unwrap();
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
        let made = params.self_signed(&key).unwrap();
        let parsed = Parsed::from_der(made.der(), Origin::derived("the fixture"), self.taken_at).unwrap();
        let id = self.id(index);
        self.served.insert(id, vec![parsed]);
    }

    /// Returns the same with mutual TLS under an authority that signs for others as well, and another one at hand for
    /// the peers alone.
    pub(crate) fn shared_authority() -> (Self, Arc<Authority>) {
        let mut world = Self::encrypted();
        world.progress.clear();
        let former = Arc::clone(&world.issuer);
        (0..3).for_each(|index| world.serve(index, &former));
        world.trusted = Some(former.pem().as_bytes().to_vec());
        let (new, _) = Authority::create("etcd-peer-ca", KeyKind::EcP256, world.taken_at).unwrap();
        let [certificate, key] = ["crt", "key"].map(|end| format!("{POD_DIRECTORY}/peer-ca.{end}"));
        let pem = Some(new.pem().as_bytes().to_vec());
        world.options.authority = Some(AuthorityFiles { certificate, pem, key });
        world.impostors(1);
        (world, Arc::new(new))
    }

    pub(crate) fn impostors(&mut self, count: usize) {
        let impostor = seaworthy_evidence::Impostor {
            path: "/etc/kubernetes/pki/apiserver-etcd-client.crt".to_owned(),
            subject: "CN=apiserver".to_owned(),
            message: "it could act as a member".to_owned(),
            origin: Origin::derived("the fixture"),
        };
        self.subject.own.impostors = Observed::seen(vec![impostor; count], Origin::derived("the fixture"));
    }

    /// Adds a member that is like the first one.
    pub(crate) fn join(&mut self, id: &str, name: &str) {
        let mut member = self.members()[0].clone();
        (member.id, member.name, member.this) = (id.to_owned(), name.to_owned(), false);
        let well = MemberHealth { version: Some("3.6.13".to_owned()), trouble: None };
        if let Ok(health) = &mut self.health {
            health.members.insert(id.to_owned(), well);
        }
        self.members().push(member);
    }

    pub(crate) fn id(&self, index: usize) -> String {
        self.subject.own.cluster.value().unwrap().members[index].id.clone()
    }

    pub(crate) fn seen(&mut self, change: &mut dyn FnMut(&mut Subject)) {
        change(&mut self.subject);
    }

    pub(crate) fn settings(&mut self) -> &mut BTreeMap<String, Setting> {
        match &mut self.subject.settings {
            Observed::Seen { value, .. } => value,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    pub(crate) fn members(&mut self) -> &mut Vec<Member> {
        match &mut self.subject.own.cluster {
            Observed::Seen { value, .. } => &mut value.members,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    pub(crate) fn unset(&mut self, name: &str) {
        let setting = self.settings().get_mut(name).unwrap();
        (setting.set, setting.on) = (false, None);
        setting.value.clear();
    }

    pub(crate) fn listen(&mut self, scheme: &str) {
        for name in ["listen-peer-urls", "initial-advertise-peer-urls"] {
            self.settings().get_mut(name).unwrap().value = format!("{scheme}://10.77.0.1:2380");
        }
        self.declare();
    }

    pub(crate) fn advertise(&mut self, index: usize, scheme: &str) {
        for url in &mut self.members()[index].peer_urls {
            *url = Url::parse(&format!("{scheme}://{}:2380", url.host)).unwrap();
        }
    }

    /// Writes the manifest that declares exactly the settings.
    pub(crate) fn declare(&mut self) {
        let mut text =
            "kind: Pod\nmetadata:\n  name: etcd\nspec:\n  containers:\n  - command:\n    - etcd\n".to_owned();
        for (name, setting) in self.settings() {
            if setting.set && !matches!(setting.origin, Origin::Default { .. }) {
                text += &format!("    - --{name}={}\n", setting.value);
            }
        }
        text +=
            "    name: etcd\n    volumeMounts:\n    - mountPath: /etc/kubernetes/pki/etcd\n      name: pki\n";
        text += "  volumes:\n  - hostPath:\n      path: /etc/kubernetes/pki/etcd\n    name: pki\n";
        self.declaration =
            vec![Declaration { path: MANIFEST.to_owned(), bytes: text.into_bytes(), unrestorable: None }];
    }

    /// Makes clients be served in plaintext, without a certificate.
    pub(crate) fn clients_in_plaintext(&mut self) {
        for name in ["cert-file", "key-file", "trusted-ca-file", "client-cert-auth"] {
            self.unset(name);
        }
        let nothing = Credentials {
            chain: None,
            key: None,
            key_matches: None,
            client_chain: None,
            trusted: None,
            revocations: None,
        };
        self.subject.client.files = seen(nothing);
        let auth = ClientAuth { enforced: false, flag: false, system_roots: false, why: String::new() };
        self.subject.own.client.client_auth = seen(auth);
        self.serve_clients("http://127.0.0.1:2379,http://10.77.0.1:2379");
        (0..3).for_each(|index| self.announce(index, "http"));
    }

    /// Makes clients be served at these URLs.
    pub(crate) fn serve_clients(&mut self, urls: &str) {
        self.settings().get_mut("listen-client-urls").unwrap().value = urls.to_owned();
        self.declare();
    }

    /// Makes the membership tell clients to dial a member so.
    pub(crate) fn announce(&mut self, index: usize, scheme: &str) {
        let member = &mut self.members()[index];
        for url in &mut member.client_urls {
            *url = Url::parse(&format!("{scheme}://{}:2379", url.host)).unwrap();
        }
        if member.this {
            let urls = member.client_urls[0].text.clone();
            self.settings().get_mut("advertise-client-urls").unwrap().value = urls;
            self.declare();
        }
    }

    /// Returns an API server that dials these URLs, with a certificate that this etcd accepts, and accepts this etcd's.
    pub(crate) fn api_server(&self, urls: &[&str]) -> EtcdClient {
        let etcd = self.subject.client.files.value().unwrap();
        let (chain, trusted) = (etcd.chain.clone(), etcd.trusted.clone());
        let facts = |all: &Option<Observed<Vec<Certificate>>>| all.clone().unwrap().value().unwrap().clone();
        EtcdClient {
            id: "kube-apiserver (pid 900)".to_owned(),
            component: "kube-apiserver".to_owned(),
            endpoints: seen(urls.iter().map(|url| Url::parse(url).unwrap()).collect()),
            accepted_by: Some(seen(facts(&trusted).iter().map(|ca| ca.key.spki.clone()).collect())),
            accepts: Some(seen(facts(&chain).iter().map(|leaf| leaf.fingerprint.clone()).collect())),
            credentials: etcd.clone(),
            origin: Origin::derived("the fixture"),
        }
    }

    /// Returns the certificates of the authority.
    pub(crate) fn authority(&self) -> Vec<Certificate> {
        let pem = self.options.authority.as_ref().unwrap().pem.clone().unwrap();
        let parsed = certificates_from_pem(&pem, Origin::derived("the fixture"), self.taken_at).unwrap();
        parsed.into_iter().map(|parsed| parsed.certificate).collect()
    }

    pub(crate) fn input(&self) -> Input<'_> {
        Input {
            node: &self.node,
            taken_at: self.taken_at,
            subject: &self.subject,
            declaration: &self.declaration,
            health: self.health.as_ref().map_err(String::as_str),
            progress: &self.progress,
            listens: &self.listens,
            clocks: &self.clocks,
            served: &self.served,
            trusted: self.trusted.as_deref(),
            asked: &self.asked,
            clients: self.clients.as_deref().map_err(String::as_str),
            options: &self.options,
        }
    }

    pub(crate) fn set(&mut self, name: &str, value: &str) {
        let setting = self.settings().get_mut(name).unwrap();
        (setting.set, setting.value) = (true, value.to_owned());
        setting.origin = Origin::Argv { pid: 33, index: 1 };
        self.declare();
    }

    #[track_caller]
    pub(crate) fn plan(&self) -> Plan {
        self.plan_for(peer_tls::RULE)
    }

    #[track_caller]
    pub(crate) fn plan_for(&self, rule: &str) -> Plan {
        self.planned(rule).unwrap()
    }

    /// Returns the plan of a rule of the catalogue, or why there is none.
    pub(crate) fn planned(&self, rule: &str) -> Result<Plan, Vec<Refusal>> {
        let catalogue = seaworthy_builtin::catalogue().unwrap();
        fixes::plan(Task::of(catalogue, rule, &self.subject.component), &self.input())
    }

    /// Returns why there is no plan, in one sentence.
    #[track_caller]
    pub(crate) fn refused(&self, rule: &str) -> (RefusalKind, String) {
        let refusals = self.planned(rule).expect_err("a refusal");
        let Refusal { kind, what, why, instead } = &refusals[0];
        (*kind, format!("{what}; {why}; {instead}"))
    }
}

pub(crate) fn kinds(plan: &Plan) -> Vec<&'static str> {
    let kind = |action: &Action| match action {
        Action::Bundle { .. } => "bundle",
        Action::CreateAuthority { .. } => "authority",
        Action::Edit { .. } => "edit",
        Action::Issue { .. } => "issue",
        Action::MoveLeader { .. } => "leader",
        Action::Restart { .. } => "restart",
        other => panic!("{other:?}"),
    };
    plan.steps.iter().map(|step| kind(&step.action)).collect()
}

/// Returns the lines that the edits of a plan take away and add.
pub(crate) fn changed_lines(plan: &Plan) -> Vec<String> {
    let diffs = plan.steps.iter().filter_map(|step| step.diff.as_ref());
    let lines = diffs.flat_map(|diff| diff.lines().skip(2));
    lines.filter(|l| l.starts_with(['+', '-'])).map(|l| l.replace("    - --", "--")).collect()
}
