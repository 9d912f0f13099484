//! Everything that reads outside bytes, on bytes that nobody meant to write: it returns, does not panic, and does not
//! make much out of little.
//!
//! For each target there are seeds in `tests/corpus/TARGET/`. They are run as they are, and then changed: bits flipped,
//! cut, repeated, spliced with each other, numbers replaced by those that programs trip over. The changes are the same
//! in every run. To look further, give the number of changed inputs per target, and perhaps another beginning:
//!
//! `FUZZ_ITERATIONS=1000000 FUZZ_SEED=7 cargo test --release -p seaworthy --test fuzz config -- --nocapture`
//!
//! The input that panicked is left in `target/fuzz/TARGET`. An overflow of the stack leaves it only with `FUZZ_TRACE=1`,
//! which writes every input before it is run. Put it into the corpus with the fix.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, clippy::unwrap_used)]

use std::fmt::Debug;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use seaworthy_audit::{Options, Waivers, audit};
use seaworthy_collect::manifest::StaticPod;
use seaworthy_components::etcd::process::Built;
use seaworthy_components::etcd::settings::{Inputs, resolve};
use seaworthy_components::etcd::{Version, bbolt, members, process};
use seaworthy_components::{etcd_proxy, kube_proxy, kubelet};
use seaworthy_evidence::{ErrorKind, EvidenceError, Instance, Origin, Snapshot};
use seaworthy_host::program::{self, Program};
use seaworthy_settings::{Argument, ConfigText, Given, Variable};
use serde_json::Value;

/// Runs `target` on the corpus `name` and on `iterations` changed inputs. It returns how large its output is, in bytes.
fn fuzz(name: &str, iterations: u32, target: impl Fn(&[u8]) -> usize) {
    let seeds = corpus(name);
    fuzz_with(name, iterations, &seeds, |random| random.mutate(&seeds), target);
}

fn fuzz_with(
    name: &str,
    iterations: u32,
    seeds: &[Vec<u8>],
    mut change: impl FnMut(&mut Random) -> Vec<u8>,
    target: impl Fn(&[u8]) -> usize,
) {
    let trace = std::env::var_os("FUZZ_TRACE").is_some();
    let run = |input: &[u8]| {
        let keep = || {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../fuzz");
            fs::create_dir_all(&folder).expect("a folder");
            fs::write(folder.join(name), input).expect("written");
        };
        if trace {
            keep();
        }
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(|| target(input)));
        let took = start.elapsed();
        match outcome {
            Err(panic) => {
                keep();
                resume_unwind(panic)
            }
            Ok(size) if size > (256 << 10) + 64 * input.len() || took > Duration::from_secs(60) => {
                keep();
                panic!("{name}: {} bytes became {size} in {took:?}", input.len());
            }
            Ok(_) => {}
        }
    };
    seeds.iter().for_each(|seed| run(seed));
    let number = |variable: &str| std::env::var(variable).ok().and_then(|text| text.parse::<u32>().ok());
    let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ u64::from(number("FUZZ_SEED").unwrap_or(0)) << 32);
    for _ in 0..number("FUZZ_ITERATIONS").unwrap_or(iterations) {
        run(&change(&mut random));
    }
}

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(name);
    let mut paths: Vec<_> =
        fs::read_dir(folder).expect("a corpus").map(|e| e.expect("a file").path()).collect();
    paths.sort();
    assert!(paths.len() >= 2, "{name} has too few seeds");
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

/// How much there is to read in `value`.
fn size(value: &impl Debug) -> usize {
    format!("{value:?}").len()
}

/// Marsaglia's xorshift64*: small, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Returns a number below `limit`; 0 when that is 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }

    fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Returns a seed with one to eight changes.
    fn mutate(&mut self, seeds: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = self.pick(seeds).clone();
        for _ in 0..=self.below(8) {
            self.change(&mut bytes, seeds);
        }
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len());
        match self.below(9) {
            0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(at..(at + 1 + self.below(16)).min(bytes.len()))),
            4 => {
                let end = (at + 1 + self.below(64)).min(bytes.len());
                let part = bytes[at..end].repeat(1 + self.below(20));
                bytes.splice(at..at, part);
            }
            5 => {
                let other = self.pick(seeds);
                let from = self.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            6 => {
                const NUMBERS: [u64; 9] =
                    [0, 1, 0x7f, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];
                let width = 1 << self.below(4);
                let number = *self.pick(&NUMBERS);
                let (little, big) = (number.to_le_bytes(), number.to_be_bytes());
                let digits = if self.below(2) == 0 { &little[..width] } else { &big[8 - width..] };
                bytes.splice(at..(at + width).min(bytes.len()), digits.iter().copied());
            }
            7 => {
                const WORDS: [&str; 20] = [
                    "-",
                    "--",
                    "=",
                    "\0",
                    "\n",
                    ": ",
                    "- ",
                    "&a ",
                    "*a ",
                    "<<: ",
                    "{",
                    "[",
                    "\"",
                    "'",
                    "$(A)",
                    "!!",
                    "://",
                    "@",
                    "99999999999999999999",
                    "\u{feff}",
                ];
                let word = self.pick(&WORDS).as_bytes().repeat(1 + self.below(3));
                bytes.splice(at..at, word);
            }
            _ => {
                const BYTES: [u8; 6] = [0, b' ', b'\n', 0x7f, 0x80, 0xff];
                let byte = *self.pick(&BYTES);
                bytes.insert(at, byte);
            }
        }
        bytes.truncate(1 << 20);
    }
}

fn origin() -> Origin {
    Origin::file("/fuzz")
}

/// Arguments end with NUL, as in `/proc/PID/cmdline`; after an empty one the environment follows.
#[test]
fn argv() {
    fuzz("argv", 400, |bytes| {
        let mut parts: Vec<Vec<u8>> = bytes.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
        let end = parts.iter().position(Vec::is_empty).unwrap_or(parts.len());
        let environment = parts.split_off(end);
        let variables: Vec<Variable> = environment
            .iter()
            .filter_map(|text| {
                let at = text.iter().position(|b| *b == b'=')?;
                let name = String::from_utf8_lossy(&text[..at]).into_owned();
                Some(Variable { value: text[at + 1..].to_vec(), origin: origin(), name })
            })
            .collect();
        let recognised = process::recognise(&parts, None, Built::Unknown);
        let _ = process::recognise(&parts, Some("/usr/lib64/ld-linux-x86-64.so.2"), Built::Other);
        let argument = |text: Vec<u8>| Argument { text, origin: origin() };
        let arguments: Vec<Argument> = parts.into_iter().skip(1).map(argument).collect();
        let _ = seaworthy_host::shell::program(&arguments, |text| text.ends_with(b"etcd"));
        let settings = settings(&arguments, &variables, b"", "3.5.1");
        size(&(recognised, etcd_proxy::resolve(&arguments))) + settings
    });
}

/// Returns how much is told about the settings of an etcd with these inputs and, if it names one, this file.
fn settings(arguments: &[Argument], variables: &[Variable], file: &[u8], version: &str) -> usize {
    let mut read = |_: &str| Ok(ConfigText { bytes: file.to_vec(), changed_at: None, origin: origin() });
    let resolved = resolve(Inputs {
        arguments,
        environment: Ok(variables),
        version: Version::parse(version),
        read: &mut read,
    });
    serde_json::to_string(&resolved.settings).expect("JSON").len()
        + size(&(resolved.config_file, resolved.fatal))
}

#[test]
fn config() {
    fuzz("config", 800, |bytes| {
        let by_file = [Argument { text: b"--config-file=/fuzz".to_vec(), origin: origin() }];
        let versions = ["3.4.23", "3.6.13"].iter();
        versions.map(|version| settings(&by_file, &[], bytes, version)).max().unwrap_or(0)
    });
}

/// Every file that an API server is told to read is the input.
#[test]
fn apiserver() {
    const FILES: [&str; 6] = [
        "admission-control-config-file",
        "audit-policy-file",
        "authentication-config",
        "authorization-config",
        "encryption-provider-config",
        "service-account-key-file",
    ];
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshots/kubeadm.json");
    let snapshot = Snapshot::from_json(&fs::read(golden).expect("a snapshot")).expect("a snapshot");
    let instance = &snapshot.instances("kube-apiserver").expect("API servers")[0];
    let argument = |name: &&str| Argument { text: format!("--{name}=/fuzz").into_bytes(), origin: origin() };
    let arguments: Vec<Argument> = FILES.iter().map(argument).collect();
    let program = &seaworthy_components::kube_apiserver::PROGRAM;
    fuzz("apiserver", 1500, |bytes| {
        let text = || Ok(ConfigText { bytes: bytes.to_vec(), changed_at: None, origin: origin() });
        let resolved = (program.resolve)(Given {
            arguments: &arguments,
            environment: Ok(&[]),
            release: Some("1.35.4"),
            runs: false,
            read: &mut |_| text(),
            list: &mut seaworthy_settings::no_list,
        });
        let mut instance = Instance { settings: resolved.settings, ..instance.clone() };
        program.special.expect("it has files")(&mut instance, &mut |_, _| text());
        size(&(instance.kube_apiserver, resolved.fatal))
    });
}

/// The configuration files of kubelet and kube-proxy, each as the file of the other as well.
#[test]
fn component_config() {
    fuzz("component_config", 600, |bytes| {
        let arguments = [b"--config=/fuzz".as_slice(), b"--config-dir=/d"];
        let arguments = arguments.map(|text| Argument { text: text.to_vec(), origin: origin() });
        let resolved = [&kubelet::PROGRAM, &kube_proxy::PROGRAM].map(|program| {
            (program.resolve)(Given {
                arguments: arguments.get(..1 + usize::from(bytes.len() % 2 == 0)).unwrap_or_default(),
                environment: Ok(&[]),
                release: Some("1.35.4"),
                runs: bytes.len() % 3 == 0,
                read: &mut |_| Ok(ConfigText { bytes: bytes.to_vec(), changed_at: None, origin: origin() }),
                list: &mut |_| Ok(vec!["10.conf".to_owned()]),
            })
        });
        size(&resolved)
    });
}

#[test]
fn manifest() {
    fuzz("manifest", 3000, |bytes| {
        let pods = StaticPod::parse(bytes, &origin());
        let is_etcd = |text: &[u8]| text.ends_with(b"etcd");
        let containers = pods.iter().flatten().flat_map(|pod| &pod.containers);
        let programs: Vec<_> = containers.map(|container| container.program(is_etcd)).collect();
        size(&pods.map(|pods| pods.len())) + size(&programs) / 8
    });
}

#[test]
fn kubeconfig() {
    fuzz("kubeconfig", 3000, |bytes| {
        let read = |_: &str| Ok(bytes.to_vec());
        let now = Timestamp::UNIX_EPOCH;
        let found = seaworthy_collect::kubeconfig::parse("/k", bytes, &origin(), read, &[], now);
        let users = found.as_ref().map(|found| found.users.len()).map_err(Clone::clone);
        if let Err(error) = &users {
            assert_eq!(error.message, "/k could not be read as a kubeconfig");
        }
        size(&users)
    });
}

#[test]
fn runtime() {
    fuzz("runtime", 3000, |bytes| {
        let said = [true, false].map(|containerd| seaworthy_collect::runtime::said(containerd, bytes));
        size(&said) / 2
    });
}

#[test]
fn pem() {
    fuzz("pem", 4000, |bytes| {
        let now = Timestamp::UNIX_EPOCH;
        let certificates = seaworthy_pki::certificates_from_pem(bytes, origin(), now);
        let facts = certificates.map(|list| list.into_iter().map(|p| p.certificate).collect::<Vec<_>>());
        let key = seaworthy_pki::private_key_from_pem(bytes, "/fuzz");
        let revoked = seaworthy_pki::revocation_list(bytes, "/fuzz");
        size(&(facts, key, revoked, seaworthy_pki::content(bytes)))
    });
}

#[test]
fn server_hello() {
    fuzz("server_hello", 60_000, |bytes| {
        let answers = [true, false].map(|eof| seaworthy_wire::parse_response(bytes, 32 << 10, eof));
        size(&(seaworthy_wire::parse_server_flight(bytes), answers)) / 4
            + size(&(members::members(bytes), members::versions(bytes)))
    });
}

#[test]
fn bbolt() {
    let read = |bytes: &[u8]| {
        bbolt::membership(|offset, buffer| {
            let part = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)?.get(..buffer.len()));
            let part = part.ok_or(std::io::ErrorKind::UnexpectedEof)?;
            buffer.copy_from_slice(part);
            Ok(())
        })
    };
    let seeds = corpus("bbolt");
    assert!(seeds.iter().all(|seed| read(seed).is_ok_and(|m| !m.members.is_empty())), "the seeds are sound");
    let change = |random: &mut Random| {
        let mut bytes = random.mutate(&seeds);
        // A change in a meta page is noticed by its checksum: most are made to fit.
        if random.below(4) > 0 {
            for page in [0, 4096] {
                if let Some(meta) = bytes.get_mut(page + 16..page + 80) {
                    let sum = fnv1a(&meta[..56]);
                    meta[56..].copy_from_slice(&sum.to_le_bytes());
                }
            }
        }
        bytes
    };
    fuzz_with("bbolt", 4000, &seeds, change, |bytes| size(&read(bytes)));
}

fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

#[test]
fn executable() {
    let read = |bytes: &[u8]| {
        program::read(|offset, buffer| {
            let rest = usize::try_from(offset).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
            let length = rest.len().min(buffer.len());
            buffer[..length].copy_from_slice(&rest[..length]);
            Ok(length)
        })
    };
    let seeds = corpus("executable");
    let told = |seed: &&Vec<u8>| matches!(read(seed), Ok(Program::Go(_)));
    assert_eq!(seeds.iter().filter(told).count(), seeds.len() - 1, "all seeds but one are sound");
    fuzz("executable", 20_000, |bytes| size(&read(bytes)));
}

#[test]
fn waivers() {
    fuzz("waivers", 3000, |bytes| size(&Waivers::parse(&String::from_utf8_lossy(bytes))));
}

/// Changes of the bytes of a snapshot are hardly ever a snapshot, so most changes are made to its values.
#[test]
fn snapshot() {
    let catalogue = seaworthy_builtin::catalogue().expect("the catalogue");
    let mut seeds = corpus("snapshot");
    seeds.push(fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/cli/node.json")).expect("the snapshot"));
    let values: Vec<Value> = seeds.iter().map(|seed| serde_json::from_slice(seed).expect("JSON")).collect();
    let judged = |bytes: &[u8]| {
        let snapshot = Snapshot::from_json(bytes).ok()?;
        let options = Options { benchmark: Some("cis-kubernetes".to_owned()), ..Options::default() };
        let report = audit(catalogue, &snapshot, &options);
        let layout = seaworthy_report::text::Layout { width: 80, verbose: true, full: true };
        let text = seaworthy_report::text::render(&report, layout);
        let json = seaworthy_report::json::render(&report);
        assert!(serde_json::from_str::<Value>(&json).is_ok(), "the report is JSON");
        Some(json.len() / 64 + text.len() / 32)
    };
    assert!(seeds.iter().all(|seed| judged(seed).is_some()), "the seeds are snapshots of this version");
    let mut valid = 0;
    let change = |random: &mut Random| {
        if random.below(5) == 0 {
            return random.mutate(&seeds);
        }
        let mut value = random.pick(&values).clone();
        for _ in 0..=random.below(3) {
            let mut places = Vec::new();
            walk(&value, String::new(), &mut places);
            let (to, from) = (random.pick(&places).clone(), random.pick(&places).clone());
            let new = match random.below(4) {
                0 => value.pointer(&from).cloned().unwrap_or_default(),
                1 => {
                    let error = EvidenceError::new(ErrorKind::Io, "fuzz");
                    serde_json::json!({"error": error})
                }
                _ => similar(random, value.pointer(&to).unwrap_or(&Value::Null)),
            };
            if let Some(place) = value.pointer_mut(&to) {
                *place = new;
            }
        }
        let text = value.to_string().into_bytes();
        valid += u32::from(Snapshot::from_json(&text).is_ok());
        text
    };
    fuzz_with("snapshot", 120, &seeds, change, |bytes| judged(bytes).unwrap_or(0));
    assert!(valid > 5, "{valid} changed snapshots were snapshots still");
}

/// Collects the pointers of all values.
fn walk(value: &Value, here: String, places: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(i, item)| walk(item, format!("{here}/{i}"), places));
        }
        Value::Object(fields) => {
            let escaped = |key: &str| key.replace('~', "~0").replace('/', "~1");
            fields.iter().for_each(|(key, item)| walk(item, format!("{here}/{}", escaped(key)), places));
        }
        _ => {}
    }
    places.push(here);
}

/// Returns another value of the same type.
fn similar(random: &mut Random, value: &Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items = items.clone();
            match (random.below(3), items.is_empty()) {
                (0, _) | (_, true) => items.clear(),
                (1, _) => items.truncate(random.below(items.len())),
                _ => items = vec![items; 1 + random.below(20)].concat(),
            }
            items.into()
        }
        Value::Bool(truth) => (!truth).into(),
        Value::Null => random.pick(&[Value::from(0), "".into(), false.into()]).clone(),
        Value::Number(_) => random.pick(&[0, 1, -1, i64::MAX, i64::MIN, 65_536]).to_owned().into(),
        Value::Object(fields) => {
            let mut fields = fields.clone();
            if let Some(key) = fields.keys().nth(random.below(fields.len())).cloned() {
                fields.shift_remove(&key);
            }
            fields.into()
        }
        Value::String(text) => {
            let long = "x".repeat(10_000);
            let texts = [
                "",
                "://",
                "https://[::1",
                "\u{0}\u{1b}[2J",
                "9999-12-31T23:59:59Z",
                "-009999-01-02T01:59:59Z",
                "{x}",
                &long,
                text,
            ];
            (*random.pick(&texts)).into()
        }
    }
}
