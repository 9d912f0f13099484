//! Values of settings: they are given where the instance is declared, and in effect once it has restarted.
//!
//! What comes from elsewhere than the declaration, or would have no effect there, is refused. So is what would keep kubelet from
//! asking how the instance is: a probe that fails restarts it again and again.

use std::collections::{BTreeMap, BTreeSet};

use seaworthy_evidence::{DeclaredKind, Origin, Setting};

use crate::plan::{Condition, Plan, Refusal, RefusalKind, Stage};
use crate::planner::{Changes, Editor, Input, alone, declared, known_host, kubeadm, missing, refuse};

/// Returns what gives an instance these values.
pub(crate) fn plan(
    rule: &str,
    values: &BTreeMap<String, Option<String>>,
    why: &str,
    s: &Input<'_>,
) -> Result<Plan, Refusal> {
    let settings = s.subject.settings.as_result().map_err(missing)?;
    let mut changes = Changes::default();
    for (name, value) in values {
        let setting = settings.get(name).ok_or_else(|| match settings.why_unknown(name) {
            Some(error) => missing(error.clone()),
            None => missing(format!("the setting {name}")),
        })?;
        if has(setting, value.as_deref()) {
            continue;
        }
        effective(name, setting, s)?;
        match value {
            Some(value) => _ = changes.set.insert(name.clone(), value.clone()),
            None => _ = changes.removed.insert(name.clone()),
        }
    }
    if changes.set.is_empty() && changes.removed.is_empty() {
        return Ok(alone(rule, s, Stage::Done, Vec::new(), Vec::new()));
    }
    let editor = Editor::new(rule, *s)?;
    for value in changes.set.values() {
        probed(value, &editor)?;
    }
    let names: Vec<&str> = changes.set.keys().chain(&changes.removed).map(String::as_str).collect();
    let title = format!("Change {}", names.join(", "));
    let edit = editor.change(&title, why, &changes, Vec::new())?;
    let verify = vec![Condition::Answers, Condition::RulePasses { rule: rule.to_owned() }];
    let restart = editor.restart(changes.effective(), verify);
    let steps = vec![edit, restart];
    let kept = declared(s.subject)?.kind == DeclaredKind::StaticPod;
    let by_hand = kept.then(|| kubeadm(s.subject, &steps)).into_iter().collect();
    Ok(alone(rule, s, Stage::Change, steps, by_hand))
}

/// Returns whether a setting has a value already, however that is written.
fn has(setting: &Setting, value: Option<&str>) -> bool {
    match value {
        None => !setting.set,
        Some(value) => setting.value == value || setting.on.is_some() && setting.on == value.parse().ok(),
    }
}

/// Refuses a setting that has its value from elsewhere than the command line: given there, it might have no effect.
fn effective(name: &str, setting: &Setting, s: &Input<'_>) -> Result<(), Refusal> {
    let from = match (&setting.origin, &s.subject.config_file) {
        (Origin::Argv { .. }, _) | (Origin::Default { .. }, None) => return Ok(()),
        (Origin::Default { .. }, Some(file)) => match file.value() {
            Some(file) => format!("its configuration file {}", file.path),
            None => "its configuration file".to_owned(),
        },
        (origin, _) => origin.to_string(),
    };
    // An etcd takes its settings from one place, whichever that is, and is edited there.
    if s.subject.is_member() {
        return Ok(());
    }
    Err(refuse(
        RefusalKind::Unsupported,
        format!("{name} is decided by {from}"),
        "given as an argument it may have no effect",
        format!(
            "set it there by hand, as seaworthy explain says of the rule, and restart {}",
            s.subject.component
        ),
    ))
}

/// Refuses an address of the loopback interface while kubelet asks elsewhere how the container is.
fn probed(value: &str, editor: &Editor<'_>) -> Result<(), Refusal> {
    let is_loopback =
        |host: &str| host == "localhost" || known_host(host).is_some_and(|address| address.is_loopback());
    if !is_loopback(value) {
        return Ok(());
    }
    let elsewhere: BTreeSet<&str> = editor
        .view
        .probes
        .iter()
        .filter(|probe| !is_loopback(probe))
        .map(|probe| if probe.is_empty() { "the address of the pod" } else { probe })
        .collect();
    match elsewhere.into_iter().collect::<Vec<_>>().join(", ") {
        none if none.is_empty() => Ok(()),
        asked => Err(refuse(
            RefusalKind::Probe,
            format!(
                "the probes in {} ask {asked}, and it would listen on {value} only",
                declared(editor.s.subject)?.path
            ),
            "kubelet would find it unhealthy, and restart it again and again",
            format!("give the probes `host: {value}` first, and plan again"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use seaworthy_evidence::{AttributedBy, ConfigFile, ConfigFormat, Observed};

    use super::*;
    use crate::fixture::{World, changed_lines, kinds};
    use crate::plan::Action;
    use crate::preflight::preflight;

    const SCHEDULER: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: kube-scheduler
  namespace: kube-system
spec:
  containers:
  - command:
    - kube-scheduler
    - --bind-address=127.0.0.1
    - --kubeconfig=/etc/kubernetes/scheduler.conf
    image: kube-scheduler:v1.35.4
    volumeMounts:
    - mountPath: /etc/kubernetes/scheduler.conf
      name: kubeconfig
    livenessProbe:
      httpGet:
        host: 127.0.0.1
        path: /livez
        port: 10259
    name: kube-scheduler
  volumes:
  - hostPath:
      path: /etc/kubernetes/scheduler.conf
    name: kubeconfig
";

    fn scheduler() -> World {
        World::kubeadm("kube-scheduler", SCHEDULER)
    }

    fn value<T>(observed: &mut Observed<T>) -> &mut T {
        match observed {
            Observed::Seen { value, .. } => value,
            Observed::Failed { error } => panic!("{error}"),
        }
    }

    fn listening_everywhere() -> World {
        let mut world = scheduler();
        world.declaration[0].bytes = SCHEDULER.replacen("127.0.0.1", "0.0.0.0", 1).into_bytes();
        give(&mut world, "bind-address", "0.0.0.0");
        world
    }

    fn give(world: &mut World, name: &str, value: &str) {
        let setting = world.settings().get_mut(name).unwrap();
        (setting.value, setting.on) = (value.to_owned(), value.to_lowercase().parse().ok());
    }

    #[test]
    fn a_value_is_given_where_the_instance_is_declared_and_verified_once_it_has_restarted() {
        let world = scheduler();
        let plan = world.plan_for("profiling");
        assert_eq!(kinds(&plan), ["edit", "restart"]);
        assert_eq!(changed_lines(&plan), ["+--profiling=false"]);
        assert_eq!(
            (plan.state.component.as_str(), plan.state.member.as_str()),
            ("kube-scheduler", "kube-scheduler")
        );
        assert_eq!((plan.stage, plan.restarts()), (Stage::Change, 1));
        let Action::Restart { settings, .. } = &plan.steps[1].action else { panic!("{plan:?}") };
        assert_eq!(settings, &BTreeMap::from([("profiling".to_owned(), "false".to_owned())]));
        let passes = Condition::RulePasses { rule: "profiling".to_owned() };
        assert!(plan.steps[1].verify.contains(&passes) && plan.steps[1].verify.contains(&Condition::Answers));
        // No other node is asked, and none is waited for.
        let mut conditions = plan.steps.iter().flat_map(|step| &step.preconditions);
        assert!(conditions.all(|condition| matches!(condition, Condition::File { .. })));
        assert!(plan.remarks[0].starts_with("It restarts"), "{:?}", plan.remarks);
        assert!(plan.by_hand[0].contains("scheduler.extraArgs"), "{:?}", plan.by_hand);
        assert_eq!(preflight(&plan, &world.input()), []);
    }

    #[test]
    fn what_is_so_already_is_left_alone() {
        let mut world = scheduler();
        for value in ["false", "False", "0"] {
            give(&mut world, "profiling", value);
            world.settings().get_mut("profiling").unwrap().on = Some(false);
            let plan = world.plan_for("profiling");
            assert_eq!((plan.steps.len(), plan.stage), (0, Stage::Done), "{value}");
        }
        assert_eq!(scheduler().plan_for("loopback-only").stage, Stage::Done);
    }

    #[test]
    fn what_would_have_no_effect_or_do_harm_is_refused_with_the_reason() {
        type Break = fn(&mut World);
        let cases: [(&str, RefusalKind, &str, Break); 6] = [
            ("profiling", RefusalKind::Unsupported, "profiling is decided by /etc/scheduler.yaml", |w| {
                w.settings().get_mut("profiling").unwrap().origin = Origin::file("/etc/scheduler.yaml");
            }),
            ("profiling", RefusalKind::Unsupported, "its configuration file /etc/scheduler.yaml", |w| {
                let file = ConfigFile {
                    path: "/etc/scheduler.yaml".to_owned(),
                    format: ConfigFormat::Yaml,
                    changed_at: None,
                    ignored: Vec::new(),
                };
                w.subject.config_file = Some(Observed::seen(file, Origin::file("/etc/scheduler.yaml")));
            }),
            ("profiling", RefusalKind::Evidence, "the setting profiling", |w| {
                w.settings().remove("profiling");
            }),
            ("profiling", RefusalKind::Evidence, "only its settings are alike", |w| {
                value(&mut w.subject.declared)[0].attributed_by = Some(AttributedBy::Likeness);
            }),
            (
                "profiling",
                RefusalKind::Unsupported,
                "written anew at each start of rke2; it cannot be edited so that nothing else changes; give rke2 the settings as kube-scheduler-arg",
                |w| {
                    let path = "/var/lib/rancher/rke2/agent/pod-manifests/kube-scheduler.yaml";
                    let declared = &mut value(&mut w.subject.declared)[0];
                    path.clone_into(&mut declared.path);
                    let settings: BTreeMap<String, Setting> = value(&mut declared.settings)
                        .iter()
                        .map(|(name, setting)| {
                            let mut setting = setting.clone();
                            if let Origin::File { .. } = setting.origin {
                                setting.origin = Origin::file(path);
                            }
                            (name.clone(), setting)
                        })
                        .collect();
                    *value(&mut declared.settings) = settings.into();
                },
            ),
            (
                "loopback-only",
                RefusalKind::Probe,
                "ask the address of the pod, and it would listen on 127.0.0.1 only",
                |w| {
                    let text = String::from_utf8(w.declaration[0].bytes.clone()).unwrap();
                    w.declaration[0].bytes = text.replace("        host: 127.0.0.1\n", "").into_bytes();
                },
            ),
        ];
        for (rule, kind, words, change) in cases {
            let mut world = listening_everywhere();
            change(&mut world);
            let (refused, said) = world.refused(rule);
            assert!(refused == kind && said.contains(words), "{words}: {refused:?} {said}");
        }
        let plan = listening_everywhere().plan_for("loopback-only");
        assert_eq!(changed_lines(&plan), ["---bind-address=0.0.0.0", "+--bind-address=127.0.0.1"]);
    }

    #[test]
    fn owners_and_modes_of_its_files_are_data_as_well() {
        let mut world = scheduler();
        for named in value(&mut world.subject.files.kubeconfigs) {
            value(&mut named.file).mode = 0o644;
        }
        let plan = world.plan_for("kubeconfig-mode");
        assert_eq!((plan.steps.len(), plan.restarts()), (1, 0), "one file, however many settings name it");
        assert_eq!(preflight(&plan, &world.input()), []);
        value(&mut world.subject.process).uid = 1000;
        world.subject.files.access = None;
        assert_eq!(world.refused("kubeconfig-mode").0, RefusalKind::Access);
        assert_eq!(scheduler().plan_for("kubeconfig-mode").stage, Stage::Done);
        // So are those of its configuration, of its unit, and of the CAs whom it believes.
        for (rule, open) in [("config-mode", 0o644), ("unit-mode", 0o644), ("client-ca-mode", 0o666)] {
            let mut world = scheduler();
            let mut list = world.subject.files.kubeconfigs.clone();
            value(&mut value(&mut list)[0].file).mode = open;
            let files = &mut world.subject.files;
            let all = [&mut files.config, &mut files.unit, &mut files.authorities];
            all.into_iter().for_each(|one| *one = Some(list.clone()));
            assert_eq!((world.plan_for(rule).steps.len(), world.plan_for(rule).restarts()), (1, 0), "{rule}");
            let path = "/var/lib/kubelet/pods/1/volumes/kubernetes.io~configmap/c/config";
            for one in value(&mut list) {
                path.clone_into(&mut value(&mut one.file).path);
                value(&mut one.file).origin = Origin::file(path);
            }
            world.subject.files.config = Some(list);
            let (kind, said) = world.refused("config-mode");
            assert!(kind == RefusalKind::Unsupported && said.contains("kubelet writes it anew"), "{said}");
        }
    }
}
