//! What can be broken on a node, and mended again.

use std::process::Command;

use crate::{
    cluster::Cluster,
    error::{Error, succeed},
    node::Node,
};

impl Cluster {
    /// Pulls a node's network cable: it keeps its address, but nothing comes or goes, without a word of
    /// refusal.
    pub fn cut(&self, index: usize) -> Result<(), Error> {
        self.switch().link(self.node(index).address, false)
    }

    /// Plugs a node's network cable in again.
    pub fn mend(&self, index: usize) -> Result<(), Error> {
        self.switch().link(self.node(index).address, true)
    }

    /// Keeps two nodes from reaching each other, while both reach all others.
    pub fn separate(&self, one: usize, other: usize) -> Result<(), Error> {
        self.route(one, other, "add")
    }

    /// Undoes [`separate`](Self::separate).
    pub fn reunite(&self, one: usize, other: usize) -> Result<(), Error> {
        self.route(one, other, "del")
    }

    fn route(&self, one: usize, other: usize, verb: &str) -> Result<(), Error> {
        for (from, to) in [(one, other), (other, one)] {
            let to = self.node(to).address.to_string();
            succeed(self.node(from).command("ip").args(["route", verb, "blackhole", &to]))?;
        }
        Ok(())
    }
}

impl Node {
    /// Shapes what the node sends with a queueing discipline of `tc`: `netem delay 50ms loss 1%`, or `tbf
    /// rate 1mbit burst 16k latency 1s`. An error says that the kernel does not have it (small kernels lack
    /// `netem`).
    pub fn shape(&self, discipline: &str) -> Result<(), Error> {
        let add = ["qdisc", "replace", "dev", "eth0", "root"];
        succeed(self.command("tc").args(add).args(discipline.split_whitespace())).map(drop)
    }

    /// Undoes [`shape`](Self::shape).
    pub fn unshape(&self) -> Result<(), Error> {
        succeed(self.command("tc").args(["qdisc", "del", "dev", "eth0", "root"])).map(drop)
    }

    /// Fills the disk of a directory to the last byte, with a file named `.filling`. Files can still be
    /// created there, but nothing can be written to them.
    ///
    /// The directory should be one of the spec's [`disks`](crate::MemberSpec::disks): all others share the
    /// memory of the machine, of which this refuses to take more than 64 MiB.
    pub fn fill(&self, path: &str) -> Result<(), Error> {
        self.script(
            r#"cd "$0" && { head -c 67108864 /dev/zero >.filling 2>/dev/null && rm .filling && exit 1 || :; }"#,
            path,
        )
    }

    /// Undoes [`fill`](Self::fill).
    pub fn empty(&self, path: &str) -> Result<(), Error> {
        self.script(r#"rm "$0/.filling""#, path)
    }

    /// Makes a directory read-only, for root too.
    pub fn protect(&self, path: &str) -> Result<(), Error> {
        self.script(r#"mount --bind "$0" "$0" && mount -o remount,bind,ro "$0""#, path)
    }

    /// Undoes [`protect`](Self::protect).
    pub fn unprotect(&self, path: &str) -> Result<(), Error> {
        self.script(r#"umount "$0""#, path)
    }

    fn script(&self, script: &str, path: &str) -> Result<(), Error> {
        let command: &mut Command = &mut self.command("sh");
        succeed(command.args(["-c", script, path])).map(drop)
    }
}
