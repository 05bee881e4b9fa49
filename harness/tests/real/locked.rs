//! `repositories.lock`: what guests got from repositories once is what they get again.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
};

use crate::{lab::Lab, packages::package};

/// A Debian repository of a folder, served on loopback, one request a connection. Not at 127.0.0.1: guests do not ask a proxy for that.
struct Repository {
    folder: PathBuf,
    port: u16,
}

impl Repository {
    fn serve(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).unwrap();
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = folder.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (mut stream, mut head) = (stream.unwrap(), Vec::new());
                while !head.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    match stream.read(&mut byte) {
                        Ok(1) => head.push(byte[0]),
                        _ => break,
                    }
                }
                let head = String::from_utf8_lossy(&head).into_owned();
                let path = head.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
                let answer = match fs::read(served.join(&path)) {
                    Ok(content) => {
                        let head = format!(
                            "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                            content.len()
                        );
                        [head.into_bytes(), content].concat()
                    }
                    Err(_) => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n".to_vec(),
                };
                let _ = stream.write_all(&answer);
            }
        });
        Self { folder, port }
    }

    /// Has this package, and no other.
    fn has(&self, lab: &Lab, version: &str) {
        let name = format!("nm-library_{version}_all");
        let control = format!("Package: nm-library\nVersion: {version}\nArchitecture: all\n");
        package(lab, &name, &control, &[("usr/share/nm/library", version)]);
        for entry in fs::read_dir(&self.folder).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        let file = self.folder.join(format!("{name}.deb"));
        fs::rename(lab.path(&format!("dist/{name}.deb")), &file).unwrap();
        let content = fs::read(&file).unwrap();
        let (size, digest) = (content.len(), matrix::Digest::of(&content).hex());
        let listed =
            format!("{control}Filename: ./{name}.deb\nSize: {size}\nSHA256: {digest}\nDescription: a package\n");
        fs::write(self.folder.join("Packages"), listed).unwrap();
    }
}

fn matrix(port: u16) -> String {
    format!(
        r#"
package = {{ name = "nm-hello", version = "1", artifacts = ["dist/hello.deb"] }}
[[image]]
name = "debian-12-minimal"
prepare = {{ inline = "rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*" }}
[network]
private = ["127.0.0.2:{port}"]
[[repository]]
name = "tiny"
deb = "deb [trusted=yes] http://127.0.0.2:{port} ./"
[[suite]]
name = "version"
inline = "cat /usr/share/nm/library; grep -qx 1.0 /usr/share/nm/library"
"#
    )
}

fn lock(lab: &Lab) -> String {
    fs::read_to_string(lab.path("repositories.lock")).unwrap()
}

fn remove_cache(store: &Path) {
    fs::remove_dir_all(store.join("packages")).unwrap();
}

#[test]
#[ignore = "it runs six guests, one after the other"]
fn what_a_run_locked_is_what_later_runs_get_or_their_cells_are_errors_that_name_both_versions() {
    let lab = Lab::forking();
    let repository = Repository::serve(lab.path("repository"));
    repository.has(&lab, "1.0");
    package(&lab, "hello", "Package: nm-hello\nVersion: 1\nArchitecture: all\nDepends: nm-library\n", &[]);
    let (matrix, cell) = (matrix(repository.port), "debian-12-minimal.version");

    let none = lab.run(&matrix, "none", &["--locked"]);
    none.assert_code(2);
    assert!(none.stderr.contains("repositories.lock") && none.stderr.contains("--lock` makes it"), "{}", none.stderr);

    let first = lab.run(&matrix, "first", &["--lock"]);
    first.assert_code(0);
    assert!(first.stderr.contains("repositories.lock: debian-12-minimal: 1 package, "), "{}", first.stderr);
    let written = lock(&lab);
    let pinned = format!("name = \"nm-library\"\nversion = \"1.0\"\nurl = \"http://127.0.0.2:{}/", repository.port);
    assert!(written.contains(&pinned), "{written}");

    lab.run(&matrix, "kept", &["--locked"]).assert_code(0);

    repository.has(&lab, "1.1");
    lab.run(&matrix, "newer", &["--locked"]).assert_code(0);
    lab.run(&matrix, "offline", &["--locked", "--offline"]).assert_code(0);

    remove_cache(lab.store());
    let other = lab.run(&matrix, "other", &["--locked"]);
    other.assert_code(3);
    assert_eq!(other.verdict(cell), "error(install)");
    let reason = other.reason(cell);
    assert!(reason.contains("nm-library: repositories.lock pins 1.0 (sha256:"), "{reason}");
    assert!(reason.contains("the repository offers 1.1 (sha256:") && reason.contains("--lock renews it"), "{reason}");
    assert_eq!(lock(&lab), written, "only `--lock` writes it");

    let renewed = lab.run(&matrix, "renewed", &["--lock"]);
    renewed.assert_code(1);
    assert!(renewed.stderr.contains("; nm-library 1.0 -> 1.1"), "{}", renewed.stderr);
    lab.assert_nothing_left();
}
