//! One node: a host with its own processes, files and address.

use std::{
    ffi::OsStr,
    fmt::Write,
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use serde::Deserialize;

use crate::{
    error::{Error, cannot_start, excerpt, succeed},
    helper::{HELPERS, STATUS},
    program::Program,
    space::{Space, announced, wait},
    spec::{Declared, MANIFEST, MemberSpec, Ready, Supervisor},
    trace,
    writer::Target,
};

/// A node of a cluster, with or without a running etcd.
pub struct Node {
    /// Its host name, which is the member's name.
    pub name: String,
    /// Its address on the cluster's bridge.
    pub address: Ipv4Addr,
    space: Space,
    init: Child,
    state: Mutex<State>,
}

struct State {
    spec: MemberSpec,
    /// etcd, if the test itself has started it.
    etcd: Option<Process>,
    /// Length of the log when it was.
    log_start: usize,
    /// The stand-in for kubelet or systemd.
    supervisor: Option<Process>,
}

/// What a supervisor says about etcd.
#[derive(Clone, Copy, Deserialize)]
struct Start {
    pid: u32,
    /// How many processes it has started until now.
    starts: u64,
    log_start: usize,
}

impl Node {
    pub(crate) fn new(spec: MemberSpec, init: Child, space: Space, hosts: &str) -> Result<Self, Error> {
        let state = State { spec, etcd: None, log_start: 0, supervisor: None };
        let (name, address) = (state.spec.name.clone(), state.spec.address);
        let node = Self { name, address, space, init, state: Mutex::new(state) };
        for (path, size) in &node.state().spec.disks {
            let mount = r#"mkdir -p "$0" && mount -t tmpfs -o "mode=755,size=$1" disk "$0""#;
            succeed(node.command("sh").args(["-c", mount, path, &size.to_string()]))?;
        }
        let mut kubelet = KUBELET.to_string();
        if node.state().spec.supervisor == Supervisor::Kubelet {
            kubelet.push_str("fileCheckFrequency: 500ms\n");
        }
        for (path, text) in [
            ("/etc/passwd", PASSWD),
            ("/etc/group", GROUP),
            ("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
            ("/etc/hostname", &format!("{}\n", node.name)),
            ("/etc/hosts", hosts),
            ("/var/lib/kubelet/config.yaml", &kubelet),
        ] {
            node.write(path, text, 0o644)?;
        }
        node.install(&node.state().spec)?;
        Ok(node)
    }

    /// Returns a command that runs a program inside the node as root, with a clean environment.
    ///
    /// The program and its arguments are looked up in the node; standard streams are the caller's to choose.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.space.enter_node();
        command.arg(program).stdin(Stdio::null());
        command
    }

    /// Like [`command`](Self::command), as another user, without any privilege. Needs real root.
    pub fn command_as(&self, uid: u32, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.space.enter_node();
        command.args(["setpriv", "--clear-groups", "--reuid"]).arg(uid.to_string());
        command.arg("--regid").arg(uid.to_string()).arg("--").arg(program).stdin(Stdio::null());
        command
    }

    /// Runs a program inside the node to its end. An error says that it could not be started, not that it
    /// failed.
    pub fn run<I, S>(&self, program: impl AsRef<OsStr>, args: I) -> Result<Output, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let mut command = self.command(program);
        command.args(args).output().map_err(|error| cannot_start(&command, error))
    }

    /// Starts a program that runs until it is stopped, or the node ends.
    pub fn spawn(&self, program: &Program) -> Result<Process, Error> {
        let mut command = self.space.enter_node();
        command.args(program.words()).envs(&program.env).stdin(Stdio::null());
        let (child, pid) = announced(&mut command)?;
        Ok(Process { pid, space: self.space, child })
    }

    /// Creates or atomically replaces a file of the node's root, with the directories it needs, owned by
    /// root.
    pub fn write(&self, path: &str, bytes: impl AsRef<[u8]>, mode: u32) -> Result<(), Error> {
        self.space.write(path, bytes.as_ref(), mode, 0)
    }

    /// Changes a text file of the node's root, as [`write`](Self::write) does. Mode and owner stay as they
    /// are.
    pub fn edit(&self, path: &str, change: impl FnOnce(&str) -> String) -> Result<(), Error> {
        let (mode, uid) = self.space.mode(path)?;
        let text = self.read(path)?;
        self.space.write(path, change(&String::from_utf8_lossy(&text)).as_bytes(), mode, uid)
    }

    /// Reads a file of the node's root.
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        self.space.read(path)
    }

    /// Removes a file of the node's root.
    pub fn remove(&self, path: &str) -> Result<(), Error> {
        self.space.remove(path)
    }

    /// Plants a program that sleeps for ever whatever its arguments are, to play any other program.
    ///
    /// It is a complete ELF file of a few instructions, so `/proc/PID/exe` is the path given here.
    pub fn sleeper(&self, path: &str) -> Result<(), Error> {
        self.write(path, sleeper(), 0o755)
    }

    /// Returns the process number of the node's PID 1, as seen from outside.
    pub fn pid(&self) -> u32 {
        self.space.pid
    }

    /// Returns the path under which the node's root directory is reachable from outside.
    ///
    /// Beware of absolute symbolic links below it: they lead to the machine's own root.
    pub fn root(&self) -> PathBuf {
        self.space.root()
    }

    /// Returns whether a TCP socket of the node listens on the port.
    pub fn listens(&self, port: u16) -> bool {
        self.space.listens(port)
    }

    /// Starts etcd, without waiting for it: as its spec says, or through its supervisor as the files of the
    /// node say.
    pub fn start(&self) -> Result<(), Error> {
        let supervisor = self.state().spec.supervisor;
        match supervisor {
            Supervisor::Kubelet => {
                let back = r#"if [ -e "$0" ]; then mv "$0" "$1"; fi"#;
                succeed(self.command("sh").args(["-c", back, ASIDE, MANIFEST]))?;
                return self.supervise(
                    "kubelet",
                    "/usr/bin/kubelet",
                    &["--config=/var/lib/kubelet/config.yaml"],
                );
            }
            Supervisor::None => {}
            Supervisor::Units => {
                self.supervise("systemd", "/lib/systemd/systemd", &["--system"])?;
                return succeed(self.command("systemctl").args(["start", "--no-block", "etcd"])).map(drop);
            }
        }
        let mut program = self.state().spec.program();
        program.group = self.group()?;
        let log_start = self.log().len();
        let process = self.spawn(&program)?;
        let mut state = self.state();
        (state.etcd, state.log_start) = (Some(process), log_start);
        Ok(())
    }

    /// Returns the control group in which the etcd would be that the node's files declare, and lets kubelet's folders tell of
    /// it.
    fn group(&self) -> Result<Option<String>, Error> {
        let declared = self.state().spec.declared;
        match declared {
            Declared::Nothing => Ok(None),
            Declared::Unit => Ok(Some(trace::service("etcd.service"))),
            Declared::Manifest => {
                let text = self.read(MANIFEST).unwrap_or_default();
                let container = trace::Container::new(MANIFEST, &String::from_utf8_lossy(&text));
                let logs = container.logs("kube-system", "etcd", &self.name);
                self.space.directory(&format!("{logs}/etcd"), 0o755, 0)?;
                Ok(Some(container.group()))
            }
        }
    }

    /// Stops etcd as an operator would, and returns once it has gone: with SIGTERM, by taking the manifest
    /// out of its directory, or by `systemctl stop`.
    pub fn stop(&self) -> Result<(), Error> {
        let supervisor = self.state().spec.supervisor;
        let before = self.etcd_pid();
        match supervisor {
            Supervisor::Kubelet => {
                succeed(self.command("mv").args([MANIFEST, ASIDE]))?;
                self.wait_gone(before)
            }
            Supervisor::None => self.end("TERM"),
            Supervisor::Units => succeed(self.command("systemctl").args(["stop", "etcd"])).map(drop),
        }
    }

    /// Kills etcd with SIGKILL and returns once it has gone. A supervisor will start it again.
    pub fn kill(&self) -> Result<(), Error> {
        let supervisor = self.state().spec.supervisor;
        match (supervisor, self.etcd_pid()) {
            (Supervisor::None, _) => self.end("KILL"),
            (_, None) => Ok(()),
            (_, Some(pid)) => {
                succeed(self.command("sh").args(["-c", "kill -s KILL \"$0\"", &pid.to_string()]))?;
                self.wait_gone(Some(pid))
            }
        }
    }

    /// Stops etcd, starts it again and waits until it is ready.
    pub fn restart(&self) -> Result<(), Error> {
        self.stop()?;
        self.start()?;
        self.wait_ready()
    }

    /// Changes the spec and writes its files: certificates, configuration, manifest. etcd is not restarted.
    pub fn reconfigure(&self, change: impl FnOnce(&mut MemberSpec)) -> Result<(), Error> {
        let mut state = self.state();
        change(&mut state.spec);
        self.install(&state.spec)
    }

    /// Waits until etcd is another process than this one, and as ready as its spec demands.
    pub fn wait_restarted(&self, before: Option<u32>) -> Result<(), Error> {
        let limit = self.state().spec.timeout;
        let start = Instant::now();
        while self.etcd_pid().is_none_or(|pid| Some(pid) == before) {
            if start.elapsed() > limit {
                let (node, waited) = (self.name.clone(), start.elapsed());
                let why = "it has not been started again".to_string();
                return Err(Error::NotReady { node, waited, why, log: excerpt(&self.supervisor_log(), 15) });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.wait_ready()
    }

    /// Waits until etcd is as ready as its spec demands.
    pub fn wait_ready(&self) -> Result<(), Error> {
        let (ready, limit, port) = {
            let spec = &self.state().spec;
            (spec.ready, spec.timeout, spec.peer_port())
        };
        let start = Instant::now();
        loop {
            let log = self.log();
            let supervised = self.supervised();
            let runs = self.etcd_pid().is_some();
            let log_start = supervised.map_or_else(|| self.state().log_start, |start| start.log_start);
            let since = log.get(log_start..).unwrap_or_default();
            // A supervisor starts it again, so its exit is no reason to give up before time.
            let exited = !runs && self.state().spec.supervisor == Supervisor::None;
            let serves = || since.contains("ready to serve client requests");
            let missing = match ready {
                _ if !runs && !exited && ready != Ready::Started => Some("it does not run".to_string()),
                Ready::Started => None,
                Ready::Listening => (!self.listens(port)).then(|| format!("nothing listens on port {port}")),
                Ready::Serving => (!serves()).then(|| "it does not serve clients".to_string()),
                Ready::Healthy if !serves() => Some("it does not serve clients".to_string()),
                Ready::Healthy => {
                    self.etcdctl(["--command-timeout=2s", "endpoint", "health"]).err().map(|e| e.to_string())
                }
            };
            let missing = if exited && ready != Ready::Started { Some("it exited".into()) } else { missing };
            match missing {
                None => return Ok(()),
                Some(why) if exited || start.elapsed() > limit => {
                    let (node, waited) = (self.name.clone(), start.elapsed());
                    return Err(Error::NotReady { node, waited, why, log: excerpt(since, 15) });
                }
                Some(_) => std::thread::sleep(Duration::from_millis(10)),
            }
        }
    }

    /// Runs etcdctl inside the node against the node's own etcd and returns what it printed.
    pub fn etcdctl<I, S>(&self, args: I) -> Result<String, Error>
    where
        I: IntoIterator<Item = S>,
        S: AsRef<OsStr>,
    {
        let client = self.state().spec.client_args();
        let mut command = self.command("etcdctl");
        let output = succeed(command.env("ETCDCTL_API", "3").args(client).args(args))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Returns the process number that etcd has inside the node, if it runs.
    pub fn etcd_pid(&self) -> Option<u32> {
        if self.state().spec.supervisor != Supervisor::None {
            return self.supervised().map(|start| start.pid);
        }
        let mut state = self.state();
        let etcd = state.etcd.as_mut()?;
        etcd.running().then_some(etcd.pid)
    }

    /// Returns how many processes the supervisor had started when it started this etcd; 0 without one.
    ///
    /// On a node that runs nothing else, it grows by one with each start of etcd.
    pub fn starts(&self) -> u64 {
        self.supervised().map_or(0, |start| start.starts)
    }

    /// Freezes the supervisor: etcd goes on, but nobody sees a changed manifest or starts a crashed etcd
    /// again.
    pub fn pause_supervisor(&self) -> Result<(), Error> {
        self.state().supervisor.as_ref().map_or(Ok(()), |process| process.signal("STOP"))
    }

    /// Undoes [`pause_supervisor`](Self::pause_supervisor).
    pub fn resume_supervisor(&self) -> Result<(), Error> {
        self.state().supervisor.as_ref().map_or(Ok(()), |process| process.signal("CONT"))
    }

    /// Returns what the supervisor has logged.
    pub fn supervisor_log(&self) -> String {
        let log = self.read(SUPERVISOR_LOG).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Sets the arguments with which etcdctl reaches this etcd from now on, after its client settings were
    /// changed behind the lab's back.
    pub fn set_client(&self, args: &[&str]) {
        self.state().spec.client = Some(args.iter().map(|arg| arg.to_string()).collect());
    }

    /// Returns what etcd has logged since the node was made.
    pub fn log(&self) -> String {
        let log = self.read(ETCD_LOG).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Returns the port at which its peers dial it.
    pub(crate) fn peer_port(&self) -> u16 {
        self.state().spec.peer_port()
    }

    /// Returns the member as a client reaches it.
    pub(crate) fn target(&self) -> Target {
        self.state().spec.target()
    }

    /// Starts a supervisor unless it runs already.
    fn supervise(&self, part: &str, name: &str, args: &[&str]) -> Result<(), Error> {
        if self.state().supervisor.as_mut().is_some_and(Process::running) {
            return Ok(());
        }
        let program = Program::new(format!("{HELPERS}/{part}")).argv0(name).args(args.iter().copied());
        let process = self.spawn(&program.log(SUPERVISOR_LOG))?;
        self.state().supervisor = Some(process);
        Ok(())
    }

    /// Returns what the supervisor says about etcd, if that still runs.
    fn supervised(&self) -> Option<Start> {
        let file = match self.state().spec.supervisor {
            Supervisor::Kubelet => "kube-system.etcd.etcd",
            Supervisor::None => return None,
            Supervisor::Units => "etcd.service",
        };
        let text = self.read(&format!("{STATUS}/{file}.json")).ok()?;
        let start: Start = serde_json::from_slice(&text).ok()?;
        // A paused supervisor does not notice that it has gone.
        let stat = fs::read_to_string(self.root().join(format!("proc/{}/stat", start.pid))).ok()?;
        let (_, state) = stat.rsplit_once(") ")?;
        (!state.starts_with('Z')).then_some(start)
    }

    fn wait_gone(&self, pid: Option<u32>) -> Result<(), Error> {
        let start = Instant::now();
        while pid.is_some() && self.etcd_pid() == pid {
            if start.elapsed() > Duration::from_secs(40) {
                let answer = format!("etcd is still there; {}", excerpt(&self.supervisor_log(), 15));
                return Err(Error::Unexpected { what: "the supervisor".into(), answer });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn end(&self, signal: &str) -> Result<(), Error> {
        let Some(mut process) = self.state().etcd.take() else { return Ok(()) };
        process.signal(signal)?;
        process.wait(Duration::from_secs(10));
        Ok(()) // dropping the process kills what may be left
    }

    fn install(&self, spec: &MemberSpec) -> Result<(), Error> {
        self.space.directory(spec.data_dir(), 0o700, spec.uid)?;
        for (path, file) in spec.render()? {
            self.space.write(&path, &file.bytes, file.mode, file.uid)?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.init.kill();
        let _ = self.init.wait();
    }
}

/// A running program in a node. Dropping it kills it.
pub struct Process {
    /// Its number inside the node.
    pub pid: u32,
    space: Space,
    /// The program that entered the node's namespaces and waits for the process.
    child: Child,
}

impl Process {
    /// Sends a signal by its name without `SIG`.
    pub fn signal(&self, name: &str) -> Result<(), Error> {
        let mut command = self.space.enter_node();
        command.args(["sh", "-c", "kill -s \"$0\" \"$1\"", name, &self.pid.to_string()]);
        succeed(&mut command).map(drop)
    }

    /// Returns whether it still runs.
    pub fn running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits at most so long for it to exit, and returns how it did.
    pub fn wait(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait(&mut self.child, limit)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // After the switch has gone, the waiting program notices within a moment.
        if self.running() && fs::exists(self.space.root()).unwrap_or(false) {
            let _ = self.signal("KILL");
        }
        if self.wait(Duration::from_secs(2)).is_none() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Where a member's etcd logs.
pub(crate) const ETCD_LOG: &str = "/var/log/etcd.log";

/// Where the supervisor logs.
const SUPERVISOR_LOG: &str = "/var/log/supervisor.log";

/// Where a manifest waits while its etcd is stopped.
const ASIDE: &str = "/etc/kubernetes/etcd.yaml.stopped";

const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
etcd:x:997:997:etcd:/var/lib/etcd:/usr/sbin/nologin
nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin
";

const GROUP: &str = "root:x:0:\ndaemon:x:1:\netcd:x:997:\nnogroup:x:65534:\n";

const KUBELET: &str = "apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
staticPodPath: /etc/kubernetes/manifests
";

/// Returns an ELF program that does nothing but wait for a signal: header, one loadable segment, code.
fn sleeper() -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    // `again: pause(); goto again`; AArch64 has only `ppoll(NULL, 0, NULL, NULL)`.
    let (machine, code): (u16, &[u8]) = if cfg!(target_arch = "aarch64") {
        const CODE: [u8; 28] = [
            0x00, 0x00, 0x80, 0xd2, // mov x0, #0
            0x01, 0x00, 0x80, 0xd2, // mov x1, #0
            0x02, 0x00, 0x80, 0xd2, // mov x2, #0
            0x03, 0x00, 0x80, 0xd2, // mov x3, #0
            0x28, 0x09, 0x80, 0xd2, // mov x8, #73
            0x01, 0x00, 0x00, 0xd4, // svc #0
            0xfa, 0xff, 0xff, 0x17, // b start
        ];
        (183, &CODE)
    } else {
        const CODE: [u8; 7] = [0x6a, 0x22, 0x58, 0x0f, 0x05, 0xeb, 0xf9]; // push 34; pop rax; syscall; jmp start
        (62, &CODE)
    };
    let mut elf = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |elf: &mut Vec<u8>, values: &[u16]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    let word = |elf: &mut Vec<u8>, values: &[u32]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    let long = |elf: &mut Vec<u8>, values: &[u64]| values.iter().for_each(|v| elf.extend(v.to_le_bytes()));
    half(&mut elf, &[2, machine]); // an executable for this machine
    word(&mut elf, &[1]);
    long(&mut elf, &[BASE + HEADERS, 64, 0]); // entry point, program header, no section header
    word(&mut elf, &[0]);
    half(&mut elf, &[64, 56, 1, 0, 0, 0]); // one program header
    let size = HEADERS + code.len() as u64;
    word(&mut elf, &[1, 5]); // load, readable and executable
    long(&mut elf, &[0, BASE, BASE, size, size, 0x1000]);
    elf.extend(code);
    // Without section headers and as large as a packed program it might be anything, so that its name decides what it is
    // taken for.
    elf.resize(256 << 10, 0);
    elf
}

/// Returns `/etc/hosts` for these nodes.
pub(crate) fn hosts<'a>(nodes: impl Iterator<Item = &'a MemberSpec>) -> String {
    nodes.fold("127.0.0.1 localhost\n::1 localhost\n".into(), |mut hosts, node| {
        let _ = writeln!(hosts, "{} {}", node.address, node.name);
        hosts
    })
}
