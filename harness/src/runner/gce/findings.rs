//! Why guests do not run under KVM on an instance that was created for that: looked at in the order of Google's page "Troubleshooting nested
//! virtualization", from outside to inside. Pure but for the questions.

use std::time::Duration;

use reports::Trouble;

use super::held::Held;
use crate::{
    gce::{Enforced, Instance, Suitability},
    runner::ssh::SshEngine,
};

/// Asked of the machine itself. No question takes longer than the limit: the machine costs money meanwhile.
const QUESTION: &str = "grep -m1 -ow -e vmx -e svm /proc/cpuinfo || echo no-flag; ls /dev/kvm 2>&1; lsmod | grep -ow -e ^kvm_intel -e ^kvm_amd -e ^kvm || echo no-module";
const LIMIT: Duration = Duration::from_secs(30);

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Finding {
    good: bool,
    words: String,
    /// What helps where it is bad.
    help: &'static str,
}

/// What there is to find out.
struct Seen {
    policy: Enforced,
    instance: Option<Instance>,
    /// What the machine answered.
    inside: Option<String>,
}

/// The trouble of a proof that failed, with what was found, and with help for the first thing that is wrong.
pub(super) async fn explain(trouble: Trouble, held: &Held, ssh: &SshEngine) -> Trouble {
    let compute = held.cloud.compute();
    let policy = tokio::time::timeout(LIMIT, compute.nesting_is_forbidden());
    let instance = tokio::time::timeout(LIMIT, compute.instance(held.at()));
    let (policy, instance, inside) = tokio::join!(policy, instance, ssh.ask(QUESTION, LIMIT));
    let policy = policy.unwrap_or_else(|_| Enforced::Unknown(format!("no answer within {} s", LIMIT.as_secs())));
    let seen = Seen { policy, instance: instance.ok().and_then(Result::ok), inside };
    judged(trouble, &findings(&seen))
}

fn judged(trouble: Trouble, findings: &[Finding]) -> Trouble {
    let line = |finding: &Finding| format!("{} {}", if finding.good { "ok    " } else { "NOT OK" }, finding.words);
    let help = findings.iter().find(|finding| !finding.good).map_or(
        "nothing else is wrong: another machine type or zone may do; report it with the lines above",
        |finding| finding.help,
    );
    trouble.with_help(help).with_evidence(findings.iter().map(line).collect())
}

fn findings(seen: &Seen) -> Vec<Finding> {
    let mut all = Vec::new();
    let mut add = |good, words: String, help| all.push(Finding { good, words, help });
    match &seen.policy {
        Enforced::No => add(true, "no organization policy forbids nested virtualization".into(), ""),
        Enforced::Yes => add(
            false,
            "the organization policy constraints/compute.disableNestedVirtualization is enforced".into(),
            "ask for an exception for the project, or name another one",
        ),
        Enforced::Unknown(why) => add(true, format!("whether a policy forbids it cannot be told: {why}"), ""),
    }
    if let Some(instance) = &seen.instance {
        let asked = instance.advanced_machine_features.enable_nested_virtualization;
        let words = format!("enableNestedVirtualization of the instance is {asked}");
        add(asked, words, "Compute Engine dropped the flag: name another machine type");
        let suits = !matches!(Suitability::of(instance.machine_type()), Suitability::Not(_));
        let intel = instance.cpu_platform.is_empty() || instance.cpu_platform.starts_with("Intel");
        let words = format!("machine type {}, CPU platform {}", instance.machine_type(), instance.cpu_platform);
        add(suits && intel, words, "name a type of an Intel series that nests, such as `n2-standard-4`");
    }
    let Some(inside) = &seen.inside else { return all };
    let has = |word: &str| inside.split_whitespace().any(|said| said == word);
    let flag = has("vmx") || has("svm");
    add(
        flag,
        format!("the machine's CPU {} virtual machines (vmx)", if flag { "can run" } else { "cannot run" }),
        "Compute Engine accepted the flag and ignored it, as it does for machine types that cannot nest: name another machine type",
    );
    let device = has("/dev/kvm");
    // It may be part of the kernel.
    let module = device || has("kvm_intel") || has("kvm_amd");
    add(
        module,
        format!("its kernel {} KVM", if module { "has loaded" } else { "has not loaded" }),
        "the image's kernel has no KVM module: name another image family (`runner.image`, `--gce-image`)",
    );
    add(
        device,
        format!("/dev/kvm {}", if device { "exists" } else { "does not exist" }),
        "load the module kvm_intel in the image",
    );
    all
}

#[cfg(test)]
mod tests {
    use reports::{Phase, TroubleKind};

    use super::*;

    fn instance() -> Instance {
        let mut instance = Instance {
            machine_type: "https://x/zones/z/machineTypes/n2-standard-4".into(),
            cpu_platform: "Intel Cascade Lake".into(),
            ..Instance::default()
        };
        instance.advanced_machine_features.enable_nested_virtualization = true;
        instance
    }

    fn explained(seen: &Seen) -> Trouble {
        judged(Trouble::new(TroubleKind::KvmUnusable, Phase::Runner, "no"), &findings(seen))
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_what_the_help_is_about() {
        let inside = |text: &str| Some(text.to_owned());
        let good = "vmx\n/dev/kvm\nkvm_intel\nkvm\n";
        let ignored = "no-flag\nls: cannot access '/dev/kvm'\nno-module\n";
        let mut dropped = instance();
        dropped.advanced_machine_features.enable_nested_virtualization = false;
        for (policy, instance, inside, help, bad) in [
            (Enforced::No, Some(instance()), inside(good), "nothing else is wrong", 0),
            (Enforced::No, Some(instance()), inside(ignored), "accepted the flag and ignored it", 3),
            (Enforced::Yes, Some(instance()), inside(good), "exception", 1),
            (Enforced::No, Some(dropped), inside(ignored), "dropped the flag", 4),
            (Enforced::No, Some(instance()), inside("svm\nno-module"), "no KVM module", 2),
            (Enforced::Unknown("403".into()), None, None, "nothing else is wrong", 0),
        ] {
            let trouble = explained(&Seen { policy, instance, inside });
            assert!(trouble.help.as_deref().is_some_and(|text| text.contains(help)), "{help}: {:?}", trouble.help);
            assert_eq!(trouble.evidence.iter().filter(|line| line.starts_with("NOT OK")).count(), bad, "{help}");
        }
    }
}
