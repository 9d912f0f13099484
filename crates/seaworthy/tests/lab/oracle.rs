//! What holds of a cluster, seen by other means than the program under test.

use std::thread;
use std::time::{Duration, Instant};

use seaworthy_lab::{Cluster, Node};

/// How long a cluster may take to be whole after what was waited for: members dial ten times a second.
const SETTLES: Duration = Duration::from_secs(20);

/// Waits until `check` finds nothing, or panics with what it finds.
#[track_caller]
pub(crate) fn eventually(limit: Duration, mut check: impl FnMut() -> Result<(), String>) {
    let start = Instant::now();
    while let Err(why) = check() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {why}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// Runs a script on a node, and returns what it prints.
#[track_caller]
pub(crate) fn sh(node: &Node, script: &str) -> String {
    let output = node.run("bash", ["-c", script]).unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Asserts that every member is dialled as it listens, is healthy, and is connected with every other one both ways.
#[track_caller]
pub(crate) fn expect_whole(cluster: &Cluster) {
    eventually(SETTLES, || {
        for (index, node) in cluster.nodes().iter().enumerate() {
            let (told, spoken) = (told(cluster, index), spoken(cluster, index));
            if told != spoken {
                return Err(format!("{}: its peers are told {told}, and it listens for {spoken}", node.name));
            }
            node.etcdctl(["endpoint", "health"]).map_err(|error| error.to_string())?;
        }
        expect_connected(cluster)
    });
}

fn expect_connected(cluster: &Cluster) -> Result<(), String> {
    let connections = cluster.connections();
    let count = cluster.nodes().len();
    for (from, to) in (0..count).flat_map(|from| (0..count).map(move |to| (from, to))) {
        if from != to && !connections[from].contains(&to) {
            return Err(format!("{} is not connected to {}", cluster.node(from).name, cluster.node(to).name));
        }
    }
    Ok(())
}

/// Returns how the peers of a member are told to dial it, as its neighbour knows it: `http` or `https`.
pub(crate) fn told(cluster: &Cluster, index: usize) -> String {
    let list = neighbour(cluster, index).etcdctl(["member", "list"]).unwrap_or_default();
    let address = format!("://{}:2380", cluster.node(index).address);
    let scheme = list.split(&address).next().unwrap_or_default();
    scheme.rsplit(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default().to_owned()
}

/// Returns what the peer port of a member speaks with its neighbour: `http` or `https`.
pub(crate) fn spoken(cluster: &Cluster, index: usize) -> &'static str {
    let script = format!(
        "exec 3<>/dev/tcp/{}/2380 || exit 7\nprintf 'GET /version HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n' >&3\n\
         timeout 1 head -c 12 <&3",
        cluster.node(index).address
    );
    let output = neighbour(cluster, index).run("bash", ["-c", &script]).unwrap();
    match &*output.stdout {
        b"HTTP/1.1 200" => "http",
        // A port that speaks TLS may end the connection in a way that is an error to who reads.
        _ if output.status.code() == Some(7) => "nothing",
        _ => "https",
    }
}

fn neighbour(cluster: &Cluster, index: usize) -> &Node {
    cluster.node((index + 1) % cluster.nodes().len())
}

/// What nothing may move that is refused: files, membership and processes.
#[derive(Debug, PartialEq)]
pub(crate) struct Still {
    /// Every file of each node that a fix may write, with its owner, mode and hash, and the records that there are.
    files: Vec<String>,
    membership: String,
    /// Each node's etcd, and how many processes its supervisor had started until then.
    processes: Vec<(Option<u32>, u64)>,
}

impl Still {
    pub(crate) fn of(cluster: &Cluster) -> Self {
        let script = "cd / && find etc/kubernetes etc/etcd etc/default etc/systemd -type f -printf '%p %m %U:%G\\n' \
                      -exec sha256sum {} + 2>/dev/null | sort; ls -d var/lib/seaworthy/*-* 2>/dev/null || :";
        Self {
            files: cluster.nodes().iter().map(|node| sh(node, script)).collect(),
            membership: cluster
                .etcdctl(&["member", "list", "-w", "json"])
                .map(without_header)
                .unwrap_or_default(),
            processes: cluster.nodes().iter().map(|node| (node.etcd_pid(), node.starts())).collect(),
        }
    }

    /// Returns the membership alone.
    pub(crate) fn membership(&self) -> String {
        self.membership.clone()
    }

    /// Asserts that nothing has moved since.
    #[track_caller]
    pub(crate) fn expect(&self, cluster: &Cluster) {
        let now = Self::of(cluster);
        for (before, after) in self.files.iter().zip(&now.files) {
            let changed: Vec<&str> =
                after.lines().filter(|line| !before.lines().any(|l| l == *line)).collect();
            let gone: Vec<&str> = before.lines().filter(|line| !after.lines().any(|l| l == *line)).collect();
            assert!(changed.is_empty() && gone.is_empty(), "files have moved: {gone:#?} {changed:#?}");
        }
        assert_eq!(self.membership, now.membership, "the membership has moved");
        assert_eq!(self.processes, now.processes, "processes were restarted");
    }
}

/// Returns a member list without what is of the answer: its term and its revision.
fn without_header(list: String) -> String {
    let list: serde_json::Value = serde_json::from_str(&list).unwrap_or_default();
    list["members"].to_string()
}
