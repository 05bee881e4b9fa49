//! Package managers and inits that the other tests' guests have not got: dnf with rpm, pacman; OpenRC, and a systemd that was never a
//! disk of ours.

use std::{path::Path, process::Command};

use serde_json::json;

use crate::lab::Lab;

const MATRIX: &str = r#"
package = { name = "nm-hello", version = "1.0", artifacts = ["made/nm-hello*"] }
[[image]]
name = "openrc"
rootfs = "made/openrc.tar"
family = "rpm"
[[image]]
name = "systemd"
rootfs = "made/systemd.tar"
family = "pacman"
[[suite]]
name = "s"
inline = "nm-hello"
"#;

#[test]
#[ignore = "its systems take minutes to build and to boot: cargo xtask test -- --ignored"]
fn packages_of_other_families_are_installed_in_systems_with_other_inits() {
    let lab = Lab::warm();
    let made = lab.path("made");
    std::fs::create_dir(&made).unwrap();
    let built = Command::new("sh")
        .args(["-euc", "chmod 777 \"$1\" && chmod 711 \"$1/..\" && exec \"$2\" \"$1\"", "sh"])
        .arg(&made)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/families/build.sh"))
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));

    let run = lab.run(MATRIX, "out", &[]);
    run.assert_code(0);
    for (image, init, says) in [("openrc", "OpenRC ", "an rpm"), ("systemd", "systemd ", "pacman")] {
        let id = format!("{image}.s");
        let said = run.file(&format!("cells/{id}/attempt-1/stdout.log"));
        assert_eq!(said.trim(), format!("hello from {says}"), "the system had the same version with other content");
        let attempt = &run.cell(&id)["attempts"][0];
        assert_eq!(attempt["installed"], json!([{"name": "nm-hello", "version": "1.0-1"}]), "{id}");
        assert!(attempt["system"]["init"].as_str().unwrap().starts_with(init), "{attempt}");
        assert_eq!(attempt["guest"]["boot"]["how"], "forked", "{id}: {}", run.stderr);
    }

    // Their package managers exit with 0.
    let broken = MATRIX.replace("nm-hello*", "nm-broken*");
    let run = lab.run(&broken, "broken", &[]);
    run.assert_code(1);
    for (image, why) in [("openrc", "lua script failed: "), ("systemd", "command terminated by signal 9")] {
        let id = format!("{image}.s");
        assert_eq!(run.verdict(&id), "failed(install)", "{}", run.stderr);
        assert!(run.reason(&id).contains(why), "{}", run.reason(&id));
    }
    lab.assert_nothing_left();
}
