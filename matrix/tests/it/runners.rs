//! The messages for a wrong `[runner]`: keys that belong to another kind, and values that its machines cannot have.

use crate::folder::with;

#[test]
fn the_image_of_a_runner_is_looked_up_like_any_other() {
    let error = with("[runner]\nkind = \"qemu\"\nimage = \"debian-13-runer\"\n").error();
    assert!(error.contains("m.toml:5") && error.contains("unknown image `debian-13-runer`"), "{error}");
}

#[test]
fn the_machine_of_the_runner_ssh_must_be_one_and_what_belongs_to_an_l1_is_refused() {
    let lines = "[runner]\nkind = \"ssh\"\nhost = \"me@lab:2222\"\nidentity = \"keys/lab\"\n";
    let runner = with(lines).load().plan.runner;
    assert_eq!(runner.host.expect("it is named").to_string(), "me@lab:2222");
    assert!(runner.identity.is_some_and(|file| file.is_absolute() && file.ends_with("keys/lab")));

    for (lines, words) in [
        ("kind = \"ssh\"\n", ["m.toml:4", "has no `host`", "add `host"]),
        ("kind = \"ssh\"\nhost = \"-oProxyCommand=x\"\n", ["m.toml:5", "not an SSH host", "user@host:port"]),
        (
            "kind = \"ssh\"\nhost = \"lab\"\ndisk = \"1GiB\"\n",
            ["m.toml:6", "`disk` applies to the runner `qemu` or `gce` only", "remove it"],
        ),
        ("host = \"lab\"\n", ["m.toml:4", "`host` applies to the runner `ssh` only", "kind = \"ssh\""]),
    ] {
        let error = with(&format!("[runner]\n{lines}")).error();
        for word in words {
            assert!(error.contains(word), "`{word}` is missing in {error}");
        }
    }
}

#[test]
fn the_runner_gce_takes_what_compute_engine_takes_and_nothing_of_another_runner() {
    for (lines, words) in [
        ("kind = \"gce\"\nproject = \"My Project\"\n", ["m.toml:5", "is not the id of a project", "6 to 30 lowercase"]),
        (
            "kind = \"gce\"\nzones = [\"us-central1-a\", \"us-central1\"]\n",
            ["m.toml:5", "is not a zone", "letter of a zone"],
        ),
        (
            "kind = \"gce\"\nzones = [\"us-central1-a\", \"us-central1-a\"]\n",
            ["m.toml:5", "not a list of zones", "is named twice"],
        ),
        ("kind = \"gce\"\nimage = \"debian-13-runner\"\ndisk = \"8GiB\"\n", ["m.toml:6", "boot disk", "from `10GiB`"]),
        (
            "kind = \"gce\"\nlabels = { team = \"qa\", nestmatrix-run = \"1\" }\n",
            ["m.toml:5", "is not the key of a label", "set by nestmatrix itself"],
        ),
        ("kind = \"gce\"\nmax_duration = \"30d\"\n", ["m.toml:5", "how long an instance may live", "to `7d`"]),
        ("kind = \"gce\"\nhost = \"lab\"\n", ["m.toml:5", "`host` applies to the runner `ssh` only", "remove `host`"]),
        (
            "kind = \"gce\"\nkernel_args = \"quiet\"\n",
            ["m.toml:5", "`kernel_args` applies to the runner `qemu` only", "remove it"],
        ),
        ("kind = \"qemu\"\nspot = false\n", ["m.toml:5", "`spot` applies to the runner `gce` only", "kind = \"gce\""]),
        ("project = \"my-project\"\n", ["m.toml:4", "`project` applies to the runner `gce` only", "kind = \"gce\""]),
    ] {
        let error = with(&format!("[runner]\n{lines}")).error();
        for word in words {
            assert!(error.contains(word), "`{word}` is missing in {error}");
        }
    }
}
