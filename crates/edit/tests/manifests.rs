//! Random manifests × random edits: what is read from the new text differs from the old by exactly the edit, or
//! the edit was refused; and everything that is no value is still there, byte for byte.

#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use proptest::prelude::*;
use seaworthy_edit::ArgumentEdit;
use seaworthy_edit::manifest::{Edit, Mount, apply};
use serde_json::Value;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_manifest_differs_by_exactly_the_edit(choices in prop::collection::vec(any::<u8>(), 60..300)) {
        let mut random = Random { choices, at: 0 };
        let manifest = Manifest::random(&mut random);
        let (edit, want) = manifest.edit(&mut random);
        let before = read(&manifest.text);
        prop_assert!(before.is_ok(), "{}\n{:?}", manifest.text, before);
        let before = before.unwrap();

        match apply(manifest.text.as_bytes(), "etcd", |text| text.ends_with(b"etcd"), std::slice::from_ref(&edit)) {
            Err(refused) => prop_assert!(manifest.may_be_refused || refused.why.contains("nothing would be left"), "{}\n{edit:?}: {refused}", manifest.text),
            Ok(after) => {
                let text = String::from_utf8(after).unwrap();
                let mut expected = before;
                want(&mut expected[0]);
                let context = format!("{edit:?}\n{}\n=>\n{text}", manifest.text);
                prop_assert_eq!(&read(&text).unwrap(), &expected, "{}", context);
                for comment in &manifest.comments {
                    prop_assert_eq!(text.matches(comment.as_str()).count(), 1, "{}: {}", comment, context);
                }
                let crlf = text.matches("\r\n").count();
                let want = if manifest.text.contains('\r') { text.matches('\n').count() } else { 0 };
                prop_assert_eq!(crlf, want, "{}", context);
                prop_assert_eq!(text.ends_with('\n'), manifest.text.ends_with('\n'), "{}", context);
                // Every line is still there, in its order, but for the ones that the edit is about.
                let kept: Vec<&str> = manifest.text.lines().filter(|line| !touched(line)).collect();
                let mut lines = text.lines();
                for line in kept {
                    // In a flow list, commas come and go.
                    let same = |other: &str| other.replace(',', "") == line.replace(',', "");
                    prop_assert!(lines.any(same), "{line:?} is lost or moved\n{context}");
                }
            }
        }
    }
}

/// Whether the edits of this test may change the line: it holds a flag, or the end of a flow collection.
fn touched(line: &str) -> bool {
    let comment = line.trim_start().starts_with('#');
    !comment && ["--", "value-", "[", "]", "{", "}"].iter().any(|mark| line.contains(mark))
}

/// A manifest under construction, with the model of its arguments.
struct Manifest {
    text: String,
    comments: Vec<String>,
    /// The arguments of the container, and how many of them are in `command`.
    argv: Vec<String>,
    commands: usize,
    may_be_refused: bool,
}

/// Choices from a list of bytes, so that a failure shrinks.
struct Random {
    choices: Vec<u8>,
    at: usize,
}

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.at += 1;
        usize::from(self.choices.get(self.at - 1).copied().unwrap_or(0)) % end
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.below(from.len())]
    }
}

/// What an edit is to do to the value of the manifest.
type Effect = Box<dyn Fn(&mut Value)>;

const FLAGS: [&str; 6] =
    ["name", "peer-cert-file", "peer-key-file", "listen-peer-urls", "data-dir", "cert-file"];

impl Manifest {
    fn random(random: &mut Random) -> Self {
        let mut this = Self {
            text: String::new(),
            comments: Vec::new(),
            argv: vec!["/bin/etcd".to_owned()],
            commands: 0,
            may_be_refused: false,
        };
        for _ in 0..random.below(7) {
            let flag = FLAGS[random.below(FLAGS.len())];
            match random.below(5) {
                0 => this.argv.extend([format!("--{flag}"), format!("value-{}", random.below(9))]),
                1 => this.argv.push(format!("-{flag}=value-{}", random.below(9))),
                _ => this.argv.push(format!("--{flag}=value-{}", random.below(9))),
            }
        }
        this.commands = if random.one_in(4) { 1 + random.below(this.argv.len()) } else { this.argv.len() };

        let indent = " ".repeat(if random.one_in(3) { 4 } else { 2 });
        let list = if random.one_in(2) { indent.clone() } else { String::new() };
        let json = random.one_in(10);
        if json {
            this.json(random);
        } else {
            this.block(random, &indent, &list);
        }
        if !json && random.one_in(4) {
            let newline = if this.text.ends_with('\n') { "" } else { "\n" };
            this.text += &format!("{newline}---\nkind: Pod\nspec: {{containers: [{{name: etcd}}]}}\n");
        }
        if random.one_in(4) {
            this.text = this.text.replace('\n', "\r\n");
        }
        if random.one_in(4) {
            let end = this.text.trim_end().len();
            this.text.truncate(end);
        }
        this
    }

    fn json(&mut self, random: &mut Random) {
        let text = |value: &[String]| serde_json::to_value(value).unwrap();
        let mut container = serde_json::json!({"name": "etcd", "command": text(&self.argv[..self.commands])});
        if self.commands < self.argv.len() {
            container["args"] = text(&self.argv[self.commands..]);
        }
        let pod = serde_json::json!({"kind": "Pod", "spec": {"containers": [{"name": "x"}, container]}});
        self.text =
            if random.one_in(2) { pod.to_string() } else { serde_json::to_string_pretty(&pod).unwrap() };
        // Where one line holds several things, whatever follows moves with it.
        self.text.push('\n');
    }

    /// A comment that is there once, behind a value or as a line of its own.
    fn comment(&mut self) -> String {
        let comment = format!("# comment {}.", self.comments.len());
        self.comments.push(comment.clone());
        comment
    }

    fn trailing(&mut self, random: &mut Random) -> String {
        match random.one_in(4) {
            true => format!("{}{}", random.pick(&[" ", "   "]), self.comment()),
            false => random.pick(&["", "", "", " "]).to_owned(),
        }
    }

    fn line(&mut self, random: &mut Random, line: &str) {
        match random.below(12) {
            0 => self.text += "\n",
            1 => {
                let comment = self.comment();
                self.text += &format!("{}{comment}\n", " ".repeat(random.below(8)));
            }
            _ => {}
        }
        let trailing = self.trailing(random);
        self.text += &format!("{line}{trailing}\n");
    }

    fn block(&mut self, random: &mut Random, indent: &str, list: &str) {
        if random.one_in(5) {
            self.text += "---\n";
        }
        self.line(random, "apiVersion: v1");
        self.line(random, "kind: Pod");
        self.line(random, "metadata:");
        self.line(random, &format!("{indent}name: etcd"));
        let shared = random.one_in(8);
        if shared {
            // An anchor elsewhere whose aliases nothing here touches.
            self.line(random, &format!("{indent}annotations: &shared"));
            self.line(random, &format!("{indent}{indent}a: \"b # c\""));
            self.line(random, &format!("{indent}labels: *shared"));
        }
        self.line(random, "spec:");
        let volumes_first = random.one_in(3);
        if volumes_first {
            self.line(random, &format!("{indent}volumes:"));
            self.line(random, &format!("{indent}{list}- name: data"));
            self.line(random, &format!("{indent}{list}  hostPath: {{path: /var/lib/etcd}}"));
        }
        self.line(random, &format!("{indent}containers:"));
        let dash = format!("{indent}{list}- ");
        let inner = " ".repeat(dash.len());
        for other in 0..random.below(3) {
            self.line(random, &format!("{dash}name: other-{other}"));
            self.line(random, &format!("{inner}command: [other, --name=x]"));
        }
        self.line(random, &format!("{dash}image: etcd:3.5"));
        let anchored = random.one_in(12);
        self.may_be_refused = anchored;
        let anchor = if anchored { " &argv" } else { "" };
        self.list(random, &inner, list, "command", anchor, 0..self.commands);
        if self.commands < self.argv.len() {
            self.list(random, &inner, list, "args", "", self.commands..self.argv.len());
        }
        if random.one_in(3) {
            self.line(random, &format!("{inner}volumeMounts:"));
            self.line(random, &format!("{inner}{list}- name: data"));
            self.line(random, &format!("{inner}{list}  mountPath: /var/lib/etcd"));
            if !volumes_first {
                // Mounted but not declared: no business of an edit.
                self.line(random, &format!("{inner}{list}# nothing declares it"));
            }
        }
        self.line(random, &format!("{inner}name: etcd"));
        if random.one_in(6) {
            self.text +=
                &format!("{inner}script: |\n{inner}{indent}one # no comment\n\n{inner}{indent}two\n");
        }
        if anchored {
            self.line(random, &format!("{dash}name: copy"));
            self.line(random, &format!("{inner}command: *argv"));
        }
        if random.one_in(2) {
            self.line(random, &format!("{indent}hostNetwork: yes"));
        }
        if random.one_in(4) {
            let comment = self.comment();
            self.text += &format!("{comment}\n");
        }
    }

    fn list(
        &mut self,
        random: &mut Random,
        inner: &str,
        list: &str,
        key: &str,
        anchor: &str,
        range: std::ops::Range<usize>,
    ) {
        let items = self.argv[range].to_vec();
        let quoted = |item: &String, random: &mut Random| match random.below(4) {
            0 => format!("\"{item}\""),
            1 => format!("'{item}'"),
            _ => item.clone(),
        };
        match random.below(6) {
            0 => {
                let items: Vec<_> = items.iter().map(|item| quoted(item, random)).collect();
                let comma = random.pick(&["", ",", " "]);
                let between = random.pick(&[", ", ",", " , "]);
                self.line(random, &format!("{inner}{key}:{anchor} [{}{comma}]", items.join(between)));
            }
            1 => {
                // As KYAML has it.
                self.line(random, &format!("{inner}{key}:{anchor} ["));
                let last_comma = random.one_in(2);
                for (index, item) in items.iter().enumerate() {
                    let comma = if last_comma || index + 1 < items.len() { "," } else { "" };
                    self.line(random, &format!("{inner}  \"{item}\"{comma}"));
                }
                self.line(random, &format!("{inner}]"));
            }
            _ => {
                self.line(random, &format!("{inner}{key}:{anchor}"));
                let gap = " ".repeat(1 + random.below(2));
                for item in &items {
                    let item = quoted(item, random);
                    self.line(random, &format!("{inner}{list}-{gap}{item}"));
                }
            }
        }
    }

    /// Returns a random edit, and what it is to do to the value.
    fn edit(&self, random: &mut Random) -> (Edit, Effect) {
        let flag = if random.one_in(3) { "peer-trusted-ca-file" } else { FLAGS[random.below(FLAGS.len())] };
        match random.below(5) {
            0 => {
                let (argv, commands) = self.without(flag);
                let edit = Edit::Argument(ArgumentEdit::Remove { flag: flag.to_owned() });
                (edit, Box::new(move |pod| set_argv(pod, &argv, commands)))
            }
            1 => {
                let mount = Mount {
                    name: "new".to_owned(),
                    host_path: "/new".to_owned(),
                    mount_path: "/mounted".to_owned(),
                    kind: "Directory".to_owned(),
                    read_only: random.one_in(2),
                };
                let edit = Edit::Mount(mount.clone());
                (edit, Box::new(move |pod| set_mount(pod, &mount)))
            }
            _ => {
                let value =
                    random.pick(&["/x/y.crt", "a b", "https://[::1]:2380", "it's", "# \"q\" \\", "", "é"]);
                let (argv, commands) = self.with(flag, value);
                let edit =
                    Edit::Argument(ArgumentEdit::Set { flag: flag.to_owned(), value: value.to_owned() });
                (edit, Box::new(move |pod| set_argv(pod, &argv, commands)))
            }
        }
    }

    fn is(argument: &str, flag: &str) -> bool {
        argument.trim_start_matches('-').split('=').next() == Some(flag) && argument.starts_with('-')
    }

    fn without(&self, flag: &str) -> (Vec<String>, usize) {
        let (mut argv, mut commands, mut at) = (self.argv.clone(), self.commands, 0);
        while at < argv.len() {
            if Self::is(&argv[at], flag) {
                let count = if argv[at].contains('=') { 1 } else { 2 };
                argv.drain(at..at + count);
                commands -= (at..at + count).filter(|at| *at < commands).count();
            } else {
                at += 1;
            }
        }
        (argv, commands)
    }

    fn with(&self, flag: &str, value: &str) -> (Vec<String>, usize) {
        let (mut argv, mut commands) = (self.argv.clone(), self.commands);
        match argv.iter().rposition(|argument| Self::is(argument, flag)) {
            Some(at) if argv[at].contains('=') => {
                let dashes = if argv[at].starts_with("--") { "--" } else { "-" };
                argv[at] = format!("{dashes}{flag}={value}");
            }
            Some(at) => argv[at + 1] = value.to_owned(),
            None => {
                let words =
                    |argument: &str| argument.trim_start_matches('-').split('=').next().unwrap().to_owned();
                let kinship = |argument: &str| {
                    let name = words(argument);
                    name.split('-').zip(flag.split('-')).take_while(|(a, b)| a == b).count()
                };
                let flags = (1..argv.len()).filter(|at| argv[*at].starts_with('-'));
                let after = flags.max_by_key(|at| kinship(&argv[*at]));
                let at = after.map_or(0, |at| if argv[at].contains('=') { at } else { at + 1 });
                argv.insert(at + 1, format!("--{flag}={value}"));
                commands += usize::from(at < commands);
            }
        }
        (argv, commands)
    }
}

fn container(pod: &mut Value) -> &mut Value {
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.iter_mut().find(|container| container["name"] == "etcd").unwrap()
}

fn set_argv(pod: &mut Value, argv: &[String], commands: usize) {
    container(pod)["command"] = serde_json::to_value(&argv[..commands]).unwrap();
    if container(pod).get("args").is_some() {
        container(pod)["args"] = serde_json::to_value(&argv[commands..]).unwrap();
    }
}

fn set_mount(pod: &mut Value, mount: &Mount) {
    let volume =
        serde_json::json!({"name": mount.name, "hostPath": {"path": mount.host_path, "type": mount.kind}});
    let mut item = serde_json::json!({"name": mount.name, "mountPath": mount.mount_path});
    if mount.read_only {
        item["readOnly"] = Value::Bool(true);
    }
    push(&mut pod["spec"], "volumes", volume);
    push(container(pod), "volumeMounts", item);
}

fn push(parent: &mut Value, key: &str, item: Value) {
    match parent.get_mut(key) {
        Some(list) => list.as_array_mut().unwrap().push(item),
        None => parent[key] = Value::Array(vec![item]),
    }
}

fn read(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| error.to_string())
}
