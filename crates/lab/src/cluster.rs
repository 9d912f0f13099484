//! Clusters: starting them, talking to them, and making sure that they end.

use std::{
    path::PathBuf,
    process::Child,
    sync::{Mutex, OnceLock, PoisonError},
};

use rustix::process::geteuid;
use serde_json::Value;

use crate::{
    error::Error,
    helper,
    node::{Node, hosts},
    space::{Space, Switch, absolute},
    spec::{ClusterSpec, MemberSpec, Ready, Supervisor},
    writer::{Config, Writer, WriterSpec},
};

/// A running cluster. Dropping it ends every process in it.
pub struct Cluster {
    /// First, so that it is dropped first: it takes everything else with it.
    switch: Switch,
    nodes: Vec<Node>,
    /// The node of the clients, once there is one, and until then what it will be.
    client: OnceLock<Node>,
    client_spec: Mutex<Option<MemberSpec>>,
    hosts: String,
    shares: Vec<(PathBuf, String)>,
}

/// A member as the cluster lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its number, which etcd prints in hexadecimal.
    pub id: u64,
    /// Its name; empty if it has not been started.
    pub name: String,
    /// Where the others are told to reach it.
    pub peer_urls: Vec<String>,
    /// Whether it does not vote.
    pub learner: bool,
}

impl Cluster {
    /// Makes the nodes, starts etcd on them, and waits until each member is as ready as its spec demands.
    pub fn start(mut spec: ClusterSpec) -> Result<Self, Error> {
        let members = spec.build()?;
        let mut shares = Vec::new();
        for (from, to) in &spec.shares {
            shares.push((absolute(from)?, to.clone()));
        }
        if members.iter().any(|member| member.supervisor != Supervisor::None) {
            shares.push((helper::program()?, HELPER.into()));
        }
        let switch = Switch::start(spec.user_namespace || !geteuid().is_root())?;
        let hosts = hosts(members.iter());
        let spaces = spaces(&switch, &members, &shares)?;
        let ports: Vec<_> = spaces.iter().zip(&members).map(|((_, s), m)| (s.pid, m.address)).collect();
        switch.connect(&ports)?;
        let authority = members.first().map(|member| &member.authority);
        let client = authority.map(|authority| MemberSpec::client(&spec.binary, authority));
        let mut cluster = Self {
            switch,
            nodes: Vec::new(),
            client: OnceLock::new(),
            client_spec: Mutex::new(client),
            hosts: hosts.clone(),
            shares,
        };
        let mut learners = Vec::new();
        let mut started = Vec::new();
        for (member, (init, space)) in members.into_iter().zip(spaces) {
            let (index, autostart, ready) = (member.index, member.autostart, member.ready);
            if member.learner && autostart {
                learners.push((index, member.peer_urls().join(",")));
            } else if autostart && ready != Ready::Started {
                started.push(index);
            }
            let starts_now = autostart && !member.learner;
            cluster.nodes.push(Node::new(member, init, space, &hosts)?);
            if starts_now {
                cluster.node(index).start()?;
            }
        }
        for index in started {
            cluster.node(index).wait_ready()?;
        }
        for (index, urls) in learners {
            let node = cluster.node(index);
            let add = ["member", "add", &node.name, "--learner", &format!("--peer-urls={urls}")];
            cluster.etcdctl(&add)?;
            node.start()?;
            node.wait_ready()?;
        }
        Ok(cluster)
    }

    /// Returns a node by the index of its member.
    ///
    /// # Panics
    ///
    /// If there is no such node: that is a mistake in the test.
    #[expect(clippy::indexing_slicing, reason = "documented")]
    pub fn node(&self, index: usize) -> &Node {
        &self.nodes[index]
    }

    /// Returns all nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Returns the node of the clients: on the same bridge, with the address `10.77.0.100`, the authority's
    /// certificate and a client's own, and no etcd. It is made when it is first asked for.
    pub fn client_node(&self) -> Result<&Node, Error> {
        let mut spec = self.client_spec.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(spec) = spec.take() {
            let mut shares = self.shares.clone();
            if shares.iter().all(|(_, to)| to != HELPER) {
                shares.push((helper::program()?, HELPER.into()));
            }
            let (init, space) = self.switch.node(&spec.name, &spec.binary, &shares)?;
            self.switch.connect(&[(space.pid, spec.address)])?;
            let _ = self.client.set(Node::new(spec, init, space, &self.hosts)?);
        }
        let missing =
            || Error::Unexpected { what: "the client node".into(), answer: "it failed before".into() };
        self.client.get().ok_or_else(missing)
    }

    /// Starts a writer with the default habits: see [`WriterSpec::default`].
    pub fn writer(&self) -> Result<Writer<'_>, Error> {
        self.writer_with(&WriterSpec::default())
    }

    /// Starts a writer on the client node. It knows the members' client URLs as their specs have them now,
    /// and proves who it is with `healthcheck-client.crt` and its key.
    pub fn writer_with(&self, spec: &WriterSpec) -> Result<Writer<'_>, Error> {
        let milliseconds =
            |duration: std::time::Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let targets: Vec<_> = self.nodes.iter().map(Node::target).collect();
        let config = Config {
            clients: spec.clients,
            pause_ms: milliseconds(spec.pause),
            timeout_ms: milliseconds(spec.timeout),
            tls: targets.iter().any(|target| target.tls).then(MemberSpec::identity),
            targets,
        };
        Writer::start(self.client_node()?, &config)
    }

    /// Returns the index of the leader, as the members themselves say.
    pub fn leader(&self) -> Result<usize, Error> {
        let status = |node: &Node| -> Option<bool> {
            let answer = node.etcdctl(["endpoint", "status", "-w", "json"]).ok()?;
            let answer: Value = serde_json::from_str(&answer).ok()?;
            let id = |path: &str| answer.pointer(path).and_then(Value::as_u64);
            Some(id("/0/Status/leader")? == id("/0/Status/header/member_id")?)
        };
        let running = |node: &Node| node.etcd_pid().is_some() && status(node) == Some(true);
        let none = || Error::Unexpected { what: "the cluster".into(), answer: "no member leads it".into() };
        self.nodes.iter().position(running).ok_or_else(none)
    }

    /// Hands the leadership over to another member, as `etcdctl move-leader` does.
    pub fn move_leader(&self, to: usize) -> Result<(), Error> {
        let name = &self.node(to).name;
        let id = self.members()?.into_iter().find(|member| member.name == *name).map(|member| member.id);
        let unknown = || Error::Unexpected { what: "the member list".into(), answer: format!("no {name}") };
        let id = format!("{:x}", id.ok_or_else(unknown)?);
        self.node(self.leader()?).etcdctl(["move-leader", &id]).map(drop)
    }

    /// Writes a key.
    pub fn put(&self, key: &str, value: &str) -> Result<(), Error> {
        self.etcdctl(&["put", "--", key, value]).map(drop)
    }

    /// Reads a key; a missing one is an empty string.
    pub fn get(&self, key: &str) -> Result<String, Error> {
        let value = self.etcdctl(&["get", "--print-value-only", "--", key])?;
        Ok(value.strip_suffix('\n').unwrap_or(&value).to_string())
    }

    /// Returns the member list.
    pub fn members(&self) -> Result<Vec<Member>, Error> {
        let answer = self.etcdctl(&["member", "list", "-w", "json"])?;
        let list: Value = serde_json::from_str(&answer).unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let member = |member: &Value| {
            Some(Member {
                id: member.get("ID")?.as_u64()?,
                name: member.get("name").map(text).unwrap_or_default(),
                peer_urls: member.get("peerURLs")?.as_array()?.iter().map(text).collect(),
                learner: member.get("isLearner").and_then(Value::as_bool).unwrap_or(false),
            })
        };
        let members = list.get("members").and_then(Value::as_array);
        members
            .and_then(|members| members.iter().map(member).collect())
            .ok_or(Error::Unexpected { what: "etcdctl member list".into(), answer })
    }

    /// Changes the peer URLs with which a member is listed.
    pub fn member_update(&self, id: u64, peer_urls: &[&str]) -> Result<(), Error> {
        let urls = format!("--peer-urls={}", peer_urls.join(","));
        self.etcdctl(&["member", "update", &format!("{id:x}"), &urls]).map(drop)
    }

    /// Runs etcdctl on the first node with a running etcd, and returns what it printed.
    pub fn etcdctl(&self, args: &[&str]) -> Result<String, Error> {
        let running = self.nodes.iter().find(|node| node.etcd_pid().is_some());
        match running.or(self.nodes.first()) {
            Some(node) => node.etcdctl(args),
            None => Err(Error::Unexpected { what: "the cluster".into(), answer: "it has no nodes".into() }),
        }
    }

    /// Returns the process number of the cluster's own PID 1, as seen from outside. All ends with it.
    pub fn pid(&self) -> u32 {
        self.switch.pid()
    }

    pub(crate) fn switch(&self) -> &Switch {
        &self.switch
    }
}

/// The place of the helper program in a node.
const HELPER: &str = "/opt/lab/bin/helper";

/// Makes the nodes of all members at once.
fn spaces(
    switch: &Switch,
    members: &[MemberSpec],
    shares: &[(PathBuf, String)],
) -> Result<Vec<(Child, Space)>, Error> {
    std::thread::scope(|scope| {
        let start = |member: &MemberSpec| {
            let (name, binary) = (member.name.clone(), member.binary.clone());
            scope.spawn(move || switch.node(&name, &binary, shares))
        };
        let threads: Vec<_> = members.iter().map(start).collect();
        let crashed = |_| Error::NoNode { output: "a thread of the lab panicked".into() };
        threads.into_iter().map(|thread| thread.join().map_err(crashed)?).collect()
    })
}
