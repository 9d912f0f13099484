//! The processes of interest: etcd, its proxies, and those that tell about them.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use seaworthy_components::Component;
use seaworthy_components::etcd::Version;
use seaworthy_components::etcd::process::{self, Built, Recognised};
use seaworthy_evidence::{Build, ErrorKind, EvidenceError, Observed, Origin, Process};
use seaworthy_host::cgroup::Cgroup;
use seaworthy_host::procfs::{FileId, Glimpse, Proc, ProcessEntry};
use seaworthy_host::program::{Module, Program, Programs, Told};
use seaworthy_host::root::Root;
use seaworthy_host::sockets::Sockets;
use seaworthy_settings::{Argument, ConfigText, Given, Resolved};

use super::{Kind, Survey, config_text, tree};
use crate::runtime;

/// One process of interest, with what is read of each.
pub(crate) struct Running {
    pub(crate) entry: ProcessEntry,
    pub(crate) argv: Vec<Argument>,
    /// Index in argv of the first argument after the program.
    first: usize,
    /// What its executable says of itself.
    told: Arc<Told>,
    pub(crate) root: Result<Root, EvidenceError>,
    pub(crate) cgroup: Result<Cgroup, EvidenceError>,
    /// What it makes of what it is given, once somebody wants to know.
    resolved: OnceLock<Resolved>,
}

/// The processes of interest.
#[derive(Default)]
pub(crate) struct Found {
    pub(crate) servers: Vec<Running>,
    pub(crate) proxies: Vec<Running>,
    /// What is called like an API server, and whose executable does not tell that it is one.
    api_servers: Vec<Running>,
    pub(crate) kubelets: Vec<Running>,
    /// Container runtimes.
    pub(crate) runtimes: Vec<Running>,
    /// Instances of the components that are like the others, by component.
    pub(crate) instances: BTreeMap<&'static str, Vec<Running>>,
    /// Programs that may run components inside themselves.
    pub(crate) embedding: Vec<Running>,
    pub(crate) total: u32,
    /// Why there may be an etcd among the processes that was not recognised.
    pub(crate) unseen: Option<EvidenceError>,
    /// The sockets of all of them, by pid, once somebody wants to know.
    sockets: OnceLock<HashMap<u32, Result<Sockets, EvidenceError>>>,
}

impl Found {
    /// Returns the processes of interest in `proc`. One that could not be read is noted in `unreadable`.
    pub(crate) fn look(proc: &Proc, unreadable: &mut Vec<EvidenceError>) -> Result<Self, EvidenceError> {
        let programs = Programs::default();
        // Executables are only known here if they are not called like one that is interesting.
        let dull = |id: &FileId| {
            let told = programs.known(id).filter(|_| !id.has_several_names());
            told.is_some_and(|told| told.is_ok() && !tells_something(&told))
        };
        let scan = proc.scan(dull, |glimpse| {
            is_interesting(glimpse)
                || glimpse.exe.is_some() && tells_something(&programs.of(&proc.executable(glimpse.pid)))
        })?;
        let mut found = Self {
            total: scan.total,
            unseen: (scan.unseen > 0).then(|| {
                let message = format!(
                    "the executables of {} processes may not be looked at, and one of them may be a component by another \
                     name: run as root",
                    scan.unseen
                );
                EvidenceError::new(ErrorKind::PermissionDenied, message).at(Origin::proc("/proc"))
            }),
            ..Self::default()
        };
        for entry in scan.processes {
            let argv = match entry.argv() {
                Ok(argv) if argv.is_empty() => continue,
                Ok(argv) => argv,
                Err(error) if error.kind == ErrorKind::Vanished => continue,
                Err(error) => {
                    unreadable.push(error);
                    continue;
                }
            };
            let texts: Vec<Vec<u8>> = argv.iter().map(|a| a.text.clone()).collect();
            let exe = entry.exe().ok().map(|exe| String::from_utf8_lossy(&exe).into_owned());
            let told = programs.of(&entry.executable());
            let built = built(&told);
            let list = match process::recognise(&texts, exe.as_deref(), built) {
                Recognised::Server => &mut found.servers,
                Recognised::Gateway | Recognised::GrpcProxy => &mut found.proxies,
                Recognised::NotEtcd => {
                    let name = kubernetes(&told).unwrap_or_else(|| program_name(&texts, exe.as_deref()));
                    match name {
                        name if let Some(kind) =
                            is_instance(name, &told, argv.get(1..).unwrap_or_default()) =>
                        {
                            found.instances.entry(kind).or_default()
                        }
                        "kube-apiserver" => &mut found.api_servers,
                        "kubelet" => &mut found.kubelets,
                        name if runtime::is_called(name.as_bytes()) => &mut found.runtimes,
                        name if may_embed(&told, name, &texts) => &mut found.embedding,
                        _ => continue,
                    }
                }
            };
            let first = process::first_argument(&texts, exe.as_deref(), built).unwrap_or(1);
            let (root, cgroup) = (Root::of_process(&entry), entry.cgroup());
            list.push(Running { entry, argv, first, told, root, cgroup, resolved: OnceLock::new() });
        }
        Ok(found)
    }

    /// Returns the API servers.
    pub(crate) fn api_servers(&self) -> impl Iterator<Item = &Running> {
        self.instances.get("kube-apiserver").into_iter().chain([&self.api_servers]).flatten()
    }

    /// Returns the processes that are instances of this kind.
    pub(crate) fn of(&self, kind: Kind) -> &[Running] {
        match kind.component.name == Kind::ETCD.component.name {
            true => &self.servers,
            false => self.instances.get(kind.component.name).map(Vec::as_slice).unwrap_or_default(),
        }
    }

    /// Returns why there is an instance of `component` of which nothing is known: a program runs it inside itself.
    pub(crate) fn inside(&self, component: &Component) -> Option<EvidenceError> {
        let runs_it = |running: &&Running| {
            let argv: Vec<Vec<u8>> = running.argv.iter().map(|a| a.text.clone()).collect();
            known_inside(&running.program_name(), &argv).contains(&component.name)
        };
        let running = self.embedding.iter().find(runs_it)?;
        let (program, name, pid) = (running.program_name(), component.name, running.pid());
        let message =
            format!("{program} (pid {pid}) runs {name} inside itself, and its settings there are not known");
        Some(EvidenceError::new(ErrorKind::Unsupported, message).at(running.entry.origin("cmdline")))
    }

    /// Returns the sockets of one of them, of the moment at which those of the first one were asked for.
    pub(crate) fn sockets(&self, of: &Running) -> Result<Sockets, EvidenceError> {
        let all = self.sockets.get_or_init(|| {
            let lists = [&self.servers, &self.proxies, &self.embedding];
            let entries: Vec<_> = lists
                .into_iter()
                .chain(self.instances.values())
                .flatten()
                .map(|running| &running.entry)
                .collect();
            let pids = entries.iter().map(|entry| entry.pid());
            pids.zip(Sockets::of_processes(&entries)).collect()
        });
        all.get(&of.pid()).cloned().unwrap_or_else(|| Sockets::of_process(&of.entry))
    }
}

impl Running {
    pub(crate) fn pid(&self) -> u32 {
        self.entry.pid()
    }

    /// Returns the name of its program.
    pub(crate) fn program_name(&self) -> String {
        let argv: Vec<Vec<u8>> = self.argv.iter().take(1).map(|a| a.text.clone()).collect();
        let exe = self.entry.exe().ok().map(|exe| String::from_utf8_lossy(&exe).into_owned());
        program_name(&argv, exe.as_deref()).to_owned()
    }

    /// Returns the version of the etcd that its executable was built from: of a release, or, where only the modules beside
    /// it are numbered, of its release line.
    pub(crate) fn built_version(&self) -> Option<(String, Origin)> {
        let Ok(Program::Go(build)) = self.told.as_ref() else { return None };
        let modules = || build.main.iter().chain(&build.dependencies);
        let server = modules().find(|module| process::may_embed("", &module.path));
        let release = |module: &Module| {
            Version::of_module(module.built()).map(|_| module.built().trim_start_matches('v').to_owned())
        };
        // The modules of a source tree take each other from its folders, and name the release that they are for: the last
        // one, or the next.
        let beside = modules().find(|module| module.path == process::VERSION_MODULE);
        let line =
            |module: &Module| Version::of_module(&module.version).map(|v| format!("{}.{}", v.major, v.minor));
        let version = server.and_then(release).or_else(|| beside.and_then(line))?;
        Some((version, Origin::Build { pid: self.pid() }))
    }

    /// Returns the release of Kubernetes that its executable was built from, if it is a numbered one.
    pub(crate) fn built_release(&self) -> Option<(String, Origin)> {
        let Ok(Program::Go(build)) = self.told.as_ref() else { return None };
        let of_kubernetes = |module: &&Module| module.path == "k8s.io/kubernetes";
        let module = build.main.iter().chain(&build.dependencies).find(of_kubernetes)?;
        let release = module.built().strip_prefix('v')?;
        let numbered =
            release.split('.').all(|part| part.bytes().all(|b| b.is_ascii_digit()) && !part.is_empty());
        numbered.then(|| (release.to_owned(), Origin::Build { pid: self.pid() }))
    }

    /// Returns the arguments after the program, each with its place.
    pub(crate) fn arguments(&self) -> &[Argument] {
        self.argv.get(self.first..).unwrap_or_default()
    }

    /// Returns `path` as an absolute one: what is relative is below the process's working directory, as a path in its root.
    pub(crate) fn absolute(&self, path: &str) -> Result<String, EvidenceError> {
        if path.starts_with('/') {
            return Ok(path.to_owned());
        }
        let root = self.root.as_ref().map_err(Clone::clone)?;
        let directory = root.working_directory(&self.entry)?;
        Ok(format!("{}/{path}", directory.trim_end_matches('/')))
    }

    /// Returns the configuration file at `path` as the process sees it.
    pub(crate) fn config(&self, path: &str) -> Result<ConfigText, EvidenceError> {
        config_text(self.root.as_ref().map_err(Clone::clone)?, self.absolute(path)?)
    }

    /// Returns the files in and below the folder at `path` as the process sees it, by their paths below it.
    pub(crate) fn list(&self, path: &str) -> Result<Vec<String>, EvidenceError> {
        tree::files(self.root.as_ref().map_err(Clone::clone)?, &self.absolute(path)?)
    }

    /// Returns what it makes of what it is given, as an instance of `kind`, which is the one that it is. Its files are read once.
    pub(crate) fn resolved(&self, kind: Kind) -> &Resolved {
        self.resolved.get_or_init(|| {
            let (environment, release) = (self.entry.environ(), self.built_release());
            (kind.program.resolve)(Given {
                arguments: self.arguments(),
                environment: environment.as_deref().map_err(Clone::clone),
                release: release.as_ref().map(|(release, _)| release.as_str()),
                runs: true,
                read: &mut |path| self.config(path),
                list: &mut |path| self.list(path),
            })
        })
    }

    /// Returns the process as evidence, or why it could not be read.
    pub(crate) fn evidence(&self, survey: &Survey<'_>) -> Observed<Process> {
        let read = || -> Result<Process, EvidenceError> {
            let (uid, gid) = self.entry.credentials()?;
            let exe = self.entry.exe().map(|exe| String::from_utf8_lossy(&exe).into_owned());
            let start = self.entry.start()?;
            Ok(Process {
                pid: self.pid(),
                exe: Observed::from_result(exe, self.entry.origin("exe")),
                build: match self.told.as_ref() {
                    Ok(Program::Go(build)) => Some(Build {
                        package: build.package.clone(),
                        version: build.main.as_ref().map(|module| module.built().to_owned()),
                    }),
                    _ => None,
                },
                argv0: self
                    .argv
                    .first()
                    .map(|a| String::from_utf8_lossy(&a.text).into_owned())
                    .unwrap_or_default(),
                identity: Some(start.identity),
                started_at: start.at,
                started_before: Some(start.before),
                uid,
                gid,
                user: survey.users.user(uid).map(str::to_owned),
                container: self.cgroup.as_ref().map_err(Clone::clone)?.container(),
                own_mounts: self.entry.has_own_namespace("mnt").ok(),
                own_network: self.entry.has_own_namespace("net").ok(),
            })
        };
        Observed::from_result(read(), self.entry.origin("stat"))
    }
}

/// Returns whether a process may be one of those looked for, by the name of its program. The arguments decide later.
fn is_interesting(glimpse: &Glimpse<'_>) -> bool {
    let known = |name: &[u8]| {
        Kind::like_the_others().any(|kind| kind.program.is_at(name))
            || name.starts_with(b"etcd")
            || name == b"kube-apiserver"
            || name == b"kubelet"
            || runtime::is_called(name)
            || process::is_dynamic_linker(name)
            || seaworthy_layouts::may_embed(name)
    };
    known(glimpse.argv0_name()) || glimpse.program().is_some_and(known)
}

/// Returns whether an executable says something of itself that makes it one of those looked for.
fn tells_something(told: &Told) -> bool {
    built(told) == Built::Etcd || kubernetes(told).is_some() || embeds(told) == Some(true)
}

fn built(told: &Told) -> Built {
    match told {
        Ok(Program::Go(build)) => Built::of(&build.package),
        Ok(Program::Other) => Built::Other,
        Ok(Program::GoUntold) | Err(_) => Built::Unknown,
    }
}

/// Returns the name of the component of Kubernetes that an executable is, whatever it is called.
fn kubernetes(told: &Told) -> Option<&'static str> {
    let Ok(Program::Go(build)) = told else { return None };
    let name = build.package.strip_prefix("k8s.io/kubernetes/cmd/")?;
    let others = Kind::like_the_others().map(|kind| kind.component.name);
    ["kube-apiserver", "kubelet"].into_iter().chain(others).find(|known| *known == name)
}

/// Returns the component of which a process is an instance, by what its executable is made of, and by the `name` of its program only
/// where that says nothing.
fn is_instance(name: &str, told: &Told, arguments: &[Argument]) -> Option<&'static str> {
    let is_one = |kind: &Kind| match told {
        Ok(Program::Go(build)) => kind.program.package == Some(&build.package),
        Ok(Program::Other) => false,
        Ok(Program::GoUntold) | Err(_) => (kind.program.is_called)(name),
    };
    let kind = Kind::like_the_others().find(is_one)?;
    (!(kind.program.is_other)(arguments)).then_some(kind.component.name)
}

/// Returns whether an executable has an etcd server in it; `None` where it does not tell.
fn embeds(told: &Told) -> Option<bool> {
    match told {
        Ok(Program::Go(build)) => Some(
            built(told) != Built::Etcd
                && build
                    .main
                    .iter()
                    .chain(&build.dependencies)
                    .any(|m| process::may_embed(&build.package, &m.path)),
        ),
        // Made without modules, as by Bazel.
        Ok(Program::GoUntold) => Some(true),
        Ok(Program::Other) => Some(false),
        Err(_) => None,
    }
}

/// Returns whether an executable may run components inside itself: an etcd by what it says, else by its `name` and its command line
/// `argv`. One of Go that is called etcd and is another program may be an etcd whose modules somebody has renamed.
fn may_embed(told: &Told, name: &str, argv: &[Vec<u8>]) -> bool {
    let renamed = matches!(told, Ok(Program::Go(_))) && built(told) == Built::Other && process::is_etcd(name);
    let known = known_inside(name, argv);
    let of_etcd = || known.contains(&Kind::ETCD.component.name);
    renamed
        || embeds(told).unwrap_or_else(of_etcd)
        || known.iter().any(|name| *name != Kind::ETCD.component.name)
}

/// Returns the components that the program `name` with the command line `argv` is known to run inside itself. Some put their
/// whole command line into argv\[0\].
fn known_inside(name: &str, argv: &[Vec<u8>]) -> Vec<&'static str> {
    seaworthy_layouts::embedded(name, argv.iter().flat_map(|text| text.split(|b| *b == b' ')))
}

/// Returns the file name of the executable, or of argv[0] when the executable could not be read.
fn program_name<'a>(argv: &'a [Vec<u8>], exe: Option<&'a str>) -> &'a str {
    let argv0 = || argv.first().and_then(|a| std::str::from_utf8(a).ok()).unwrap_or_default();
    let path = exe.unwrap_or_else(argv0);
    path.strip_suffix(" (deleted)").unwrap_or(path).rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
impl Running {
    /// Returns this very process, as if it had been started with `arguments`.
    pub(crate) fn ourselves(arguments: &[&str]) -> Self {
        let entry = Proc::open("/proc").unwrap().process(std::process::id()).unwrap();
        let argument = |(index, text): (u32, &&str)| Argument {
            text: text.as_bytes().to_vec(),
            origin: Origin::Argv { pid: entry.pid(), index },
        };
        let argv = (0..).zip(arguments).map(argument).collect();
        let (root, cgroup) = (Root::of_process(&entry), entry.cgroup());
        let told = Arc::new(Ok(Program::Other));
        Self { entry, argv, first: 0, told, root, cgroup, resolved: OnceLock::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_that_run_components_inside_themselves_are_known() {
        let cases = [
            ("k3s", "/usr/local/bin/k3s server   ", true),
            ("k3s", "k3s agent", false),
            ("k3s-server", "k3s-server", true),
            ("rke2", "/usr/bin/rke2 server", true),
            ("k0s", "k0s controller --single", true),
            ("k0s", "k0s worker", false),
            ("microshift-etcd", "microshift-etcd run", true),
            ("etcd-wrapper", "/etcd-wrapper start-etcd", true),
            ("kubectl", "kubectl get server", false),
        ];
        assert_eq!(known_inside("k3s", &[b"k3s agent".to_vec()]), ["kubelet", "kube-proxy"]);
        for (name, line, want) in cases {
            let split: Vec<Vec<u8>> = line.split(' ').map(|word| word.as_bytes().to_vec()).collect();
            for argv in [split, vec![line.as_bytes().to_vec()]] {
                assert_eq!(known_inside(name, &argv).contains(&"etcd"), want, "{name}: {line}");
            }
        }
    }

    #[test]
    fn whatever_may_turn_out_to_be_etcd_is_looked_at() {
        let cases = [
            ("ld-linux-x86-64.so.2", true),
            ("ld-musl-x86_64.so.1", true),
            ("ld64.so.2", true),
            ("ld.so", true),
            ("etcd-v3.5.1", true),
            ("k3s", true),
            ("ldconfig", false),
            ("bash", false),
        ];
        for (name, want) in cases {
            let exe = format!("/usr/bin/{name}");
            let glimpse = |argv0, exe| Glimpse { pid: 1, argv0, exe };
            assert_eq!(is_interesting(&glimpse(&b"x"[..], Some(exe.as_bytes()))), want, "{name}");
            assert_eq!(is_interesting(&glimpse(exe.as_bytes(), None)), want, "{name}");
        }
    }
}
