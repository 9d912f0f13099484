//! A member of the lab, in any state, and its cluster.

use seaworthy_evidence::{Observed, Snapshot};

use super::*;
use crate::issue::{Authority, KeyKind};
use crate::plan::Stage;

pub(crate) const MANIFEST: &str = "/etc/kubernetes/manifests/etcd.yaml";

/// Returns a note of a member that has got so far with peer TLS.
pub(crate) fn note(reached: Option<Stage>) -> Note {
    Note { reached, ..Note::new(peer_tls::RULE, "m2", "node", Timestamp::UNIX_EPOCH) }
}

#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) node: String,
    pub(crate) taken_at: Timestamp,
    pub(crate) etcd: Etcd,
    pub(crate) declaration: Vec<Declaration>,
    pub(crate) health: Result<Health, String>,
    pub(crate) notes: BTreeMap<String, Note>,
    pub(crate) listens: BTreeMap<String, BTreeSet<Scheme>>,
    pub(crate) asked: Asked,
    pub(crate) options: Options,
}

impl World {
    /// Returns the first of three members that have loaded their certificates and talk plaintext.
    pub(crate) fn loaded() -> Self {
        let snapshot = include_str!("../../../seaworthy/tests/cli/node.json");
        let mut snapshot: serde_json::Value = serde_json::from_str(snapshot).unwrap();
        snapshot["etcd"]["value"][0]["links"]["value"] = serde_json::json!([]);
        let snapshot: Snapshot = serde_json::from_value(snapshot).unwrap();
        let etcd = snapshot.etcd.value().unwrap()[0].clone();
        let (authority, _) = Authority::create("etcd-ca", KeyKind::EcP256, snapshot.taken_at).unwrap();
        let pem = authority.pem().as_bytes().to_vec();
        let [certificate, key] = ["crt", "key"].map(|end| format!("{POD_DIRECTORY}/ca.{end}"));
        let authority = Some(AuthorityFiles { certificate, pem: Some(pem), key });
        let members = etcd.cluster.value().unwrap().members.clone();
        let well = MemberHealth { version: Some("3.6.13".to_owned()), trouble: None };
        let mut world = Self {
            node: snapshot.node.name,
            taken_at: snapshot.taken_at,
            etcd,
            declaration: Vec::new(),
            health: Ok(Health {
                members: members.iter().map(|m| (m.id.clone(), well.clone())).collect(),
                ..Health::default()
            }),
            notes: members.iter().map(|m| (m.id.clone(), note(Some(Stage::Load)))).collect(),
            listens: BTreeMap::new(),
            asked: Asked::default(),
            options: Options { authority, ..Options::default() },
        };
        world.declare();
        world
    }

    /// Returns the same without any certificate for peers.
    pub(crate) fn plaintext() -> Self {
        let mut world = Self::loaded();
        world.notes.clear();
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
            etcd.connections = Observed::seen(Vec::new(), Origin::derived("the fixture"));
        });
        world
    }

    pub(crate) fn seen(&mut self, change: &mut dyn FnMut(&mut Etcd)) {
        change(&mut self.etcd);
    }

    pub(crate) fn settings(&mut self) -> &mut BTreeMap<String, Setting> {
        match &mut self.etcd.settings {
            Observed::Seen { value, .. } => value,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    pub(crate) fn members(&mut self) -> &mut Vec<Member> {
        match &mut self.etcd.cluster {
            Observed::Seen { value, .. } => &mut value.members,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    fn unset(&mut self, name: &str) {
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

    pub(crate) fn situation(&self) -> Situation<'_> {
        Situation {
            node: &self.node,
            taken_at: self.taken_at,
            etcd: &self.etcd,
            declaration: &self.declaration,
            health: self.health.as_ref().map_err(String::as_str),
            notes: &self.notes,
            listens: &self.listens,
            asked: &self.asked,
            options: &self.options,
        }
    }

    #[track_caller]
    pub(crate) fn plan(&self) -> Plan {
        plan(peer_tls::RULE, &self.situation()).unwrap()
    }
}
