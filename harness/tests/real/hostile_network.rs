//! A guest that attacks the proxy on its runner, from inside, while another one uses it.

use std::{
    collections::HashMap,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use crate::lab::Lab;

/// Bytes of a file that nobody reads to its end.
const LARGE: usize = 1 << 30;
/// Most memory of the run, in KiB: it was 94 MiB when this was written, and each connection has buffers.
const MOST_MEMORY: u64 = 300 << 10;

/// A server that guests may reach: `/say/X`, `/said/X`, `/file`, `/large`, `/moved`.
struct Allowed {
    port: u16,
    asked: Arc<Mutex<HashMap<String, usize>>>,
}

impl Allowed {
    /// `secret`: the port of a server that they may not reach.
    fn start(secret: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { port: listener.local_addr().unwrap().port(), asked: Arc::default() };
        let asked = Arc::clone(&server.asked);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let asked = Arc::clone(&asked);
                thread::spawn(move || answer(stream, &asked, secret));
            }
        });
        server
    }
}

/// One request of a connection.
fn answer(mut stream: TcpStream, asked: &Mutex<HashMap<String, usize>>, secret: u16) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        match stream.read(&mut byte) {
            Ok(1) => head.push(byte[0]),
            _ => return,
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    *asked.lock().unwrap().entry(path.clone()).or_default() += 1;
    let was_said = |word: &str| asked.lock().unwrap().contains_key(&format!("/say/{word}"));
    let (status, more, length) = match path.split('/').collect::<Vec<_>>()[..] {
        ["", "said", word] if !was_said(word) => ("404 Not Found", String::new(), 0),
        ["", "moved"] => ("302 Found", format!("location: http://127.0.0.1:{secret}/\r\n"), 0),
        ["", "file", _] => ("200 OK", String::new(), 1 << 20),
        ["", "large", _] => ("200 OK", String::new(), LARGE),
        _ => ("200 OK", String::new(), 2),
    };
    let _ = write!(stream, "HTTP/1.1 {status}\r\ncontent-length: {length}\r\n{more}connection: close\r\n\r\n");
    let (piece, mut left) = (vec![b'x'; 64 * 1024], length);
    while left > 0 {
        match stream.write(&piece[..piece.len().min(left)]) {
            Ok(size) => left -= size,
            Err(_) => return,
        }
    }
}

/// What both scripts have.
const PERL: &str = r#"#!/usr/bin/perl
use strict;
use IO::Socket::INET;
$| = 1;
$SIG{PIPE} = 'IGNORE';
$SIG{ALRM} = sub { die "it takes too long\n" };
alarm 1200;
my ($allowed, $secret) = ('127.0.0.1:ALLOWED', 'SECRET');
sub proxy { IO::Socket::INET->new(PeerAddr => '10.0.2.100', PeerPort => 3128, Timeout => 20, @_) }
sub says {
    my $socket = proxy() or return '';
    print $socket shift;
    local $/;
    return <$socket> // '';
}
sub get { says("GET $_[0] HTTP/1.1\r\nhost: 127.0.0.1:$secret\r\nconnection: close\r\n\r\n") }
sub await { until (get("http://$allowed/said/$_[0]") =~ m{^HTTP/1.1 200}) { sleep 1 } }
"#;

const HOSTILE: &str = r#"
my $bad = 0;
sub check { my ($what, $good) = @_; print(($good ? 'ok' : 'NOT OK'), ": $what\n"); $bad++ unless $good }
# Readers that read nothing, until this ends.
my @held = map { my $s = proxy(); print $s "GET http://$allowed/large/$_ HTTP/1.1\r\nhost: x\r\n\r\n"; $s } 1 .. 20;
get("http://$allowed/say/begun");

for my $host ("127.0.0.1:$secret", "2130706433:$secret", "0x7f.1:$secret", "localhost:$secret", "10.0.2.2:$secret",
        "[::1]:$secret", "[::ffff:127.0.0.1]:$secret", '169.254.169.254', '192.168.0.1', 'evil.example') {
    my $answer = get("http://$host/");
    check("GET $host", $answer =~ m{^HTTP/1.1 403});
}
for my $host ("127.0.0.1:$secret", '127.0.0.1:22', 'evil.example:22', 'evil.example:443', '[::1]:22', '169.254.169.254:443') {
    my $answer = says("CONNECT $host HTTP/1.1\r\nhost: $allowed\r\n\r\nGET / HTTP/1.1\r\nhost: 127.0.0.1:$secret\r\n\r\n");
    # What follows it may cost it its answer.
    check("CONNECT $host", $answer =~ m{^(?:HTTP/1.1 403|$)});
}
my $moved = get("http://$allowed/moved");
check('a redirection is passed on', $moved =~ m{^HTTP/1.1 302.*location: (\S+)}s && get($1) =~ m{^HTTP/1.1 403});
my $body = "GET http://127.0.0.1:$secret/ HTTP/1.1\r\n\r\n";
my $length = length $body;
check('a body', says("GET http://$allowed/x HTTP/1.1\r\ncontent-length: $length\r\n\r\n$body") =~ m{^HTTP/1.1 400});
for my $to ("10.0.2.2:$secret", '10.0.2.2:22', '10.0.2.3:53', '10.0.2.4:80', "10.0.2.100:$secret", '10.0.2.100:22') {
    check("TCP to $to", !IO::Socket::INET->new(PeerAddr => $to, Timeout => 3));
}
# IPv6, if the guest has it at all.
for my $to ('fec0::2', 'fe80::2%eth0', '::ffff:10.0.2.2') {
    my $got = eval { require IO::Socket::IP; IO::Socket::IP->new(PeerHost => $to, PeerPort => $secret, Timeout => 3) };
    check("TCP to $to", !$got);
}

srand 1;
for my $at (1 .. 200) {
    my $garbage = join '', map { chr int rand 256 } 1 .. 600;
    my $answer = $at % 10 ? do { my $s = proxy(); print $s $garbage if $s; '' } : says($garbage);
    check('garbage', 0) unless $answer =~ m{^(HTTP/1.1 4|$)};
}
my $open = 0;
for my $at (1 .. 3000) {
    my $s = proxy(Timeout => 1) or next;
    $open++;
    print $s 'GET http://' if $at % 3 == 0;
}
check("$open quick connections", $open > 1000);
await('done');
check('it is served still', get("http://$allowed/file/last") =~ m{^HTTP/1.1 200} );
exit($bad > 0);
"#;

const OTHER: &str = r#"
await('begun');
for my $at (1 .. 10) {
    my ($head, $content) = split /\r\n\r\n/, get("http://$allowed/file/$at"), 2;
    die "$at: $head\n" unless $head =~ m{^HTTP/1.1 200} && length $content == 1 << 20;
    sleep 1;
}
get("http://$allowed/say/done");
"#;

/// Peak memory of the process as long as it lives, in KiB.
fn peak_memory(pid: u32) -> thread::JoinHandle<u64> {
    thread::spawn(move || {
        let mut peak = 0;
        while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
            let Some(line) = status.lines().find_map(|line| line.strip_prefix("VmHWM:")) else { break };
            peak = line.split_whitespace().next().unwrap().parse().unwrap();
            thread::sleep(std::time::Duration::from_millis(200));
        }
        peak
    })
}

#[test]
#[ignore = "on request: a guest under emulation opens thousands of connections"]
fn a_guest_that_attacks_its_proxy_reaches_nothing_and_takes_nothing_from_others() {
    let lab = Lab::forking();
    let secret = TcpListener::bind("127.0.0.1:0").unwrap();
    let secret_port = secret.local_addr().unwrap().port();
    let reached = Arc::new(AtomicUsize::new(0));
    thread::spawn({
        let reached = Arc::clone(&reached);
        move || {
            for _ in secret.incoming() {
                reached.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    let allowed = Allowed::start(secret_port);
    let script = |body: &str| {
        let text = format!("{PERL}{body}");
        text.replace("ALLOWED", &allowed.port.to_string()).replace("SECRET", &secret_port.to_string())
    };
    let matrix = |unexpected: &str, suites: &[(&str, &str)]| {
        let mut text = format!(
            "images = ['debian-12-minimal']\nguest = {{ network = 'repositories' }}\n[runner]\nretries = 0\n\
             [timeout]\nsuite = '20m'\n[network]\nunexpected = '{unexpected}'\nprivate = ['127.0.0.1:{}']\n",
            allowed.port
        );
        for (name, body) in suites {
            text += &format!("[[suite]]\nname = '{name}'\ninline = '''\n{}'''\n", script(body));
        }
        text
    };
    let child = lab.start(&matrix("warn", &[("hostile", HOSTILE), ("other", OTHER)]), "out", &["--jobs", "2"]);
    let peak = peak_memory(child.id());
    let run = lab.finish(child, "out");
    run.assert_code(0);
    assert_eq!(reached.load(Ordering::SeqCst), 0, "nobody reaches what is not allowed");
    let peak = peak.join().unwrap();
    assert!((1..MOST_MEMORY).contains(&peak), "{peak} KiB");
    assert_eq!(allowed.asked.lock().unwrap().get("/file/10"), Some(&1));

    let id = "debian-12-minimal.hostile";
    let warnings = run.cell(id)["warnings"].to_string();
    for host in ["127.0.0.1", "10.0.2.2", "localhost", "[::1]", "[::ffff:7f00:1]"] {
        assert!(
            warnings.contains(&format!("to reach {host}:{secret_port} in phase test were refused"))
                || warnings.contains(&format!("1 attempt to reach {host}:{secret_port} in phase test was refused")),
            "{host}: {warnings}"
        );
    }
    for at in ["169.254.169.254:80", "192.168.0.1:80", "evil.example:22", "evil.example:80", "127.0.0.1:22"] {
        assert!(warnings.contains(&format!("1 attempt to reach {at} in phase test was refused")), "{at}: {warnings}");
    }
    assert!(warnings.contains("it is no HTTP request"), "{warnings}");
    assert_eq!(run.cell("debian-12-minimal.other")["warnings"].as_array().unwrap().len(), 0);

    let asks = "get('http://evil.example/'); exit 0;\n";
    let run = lab.run(&matrix("fail", &[("hostile", asks), ("other", "exit 0;\n")]), "fail", &[]);
    run.assert_code(1);
    assert_eq!(run.verdict(id), "failed(test)", "{}", run.reason(id));
    assert!(run.file("events.jsonl").contains("\"kind\":\"unexpected-request\""));
    assert!(run.reason(id).contains("the guest tried to reach evil.example:80"), "{}", run.reason(id));
    assert_eq!(run.verdict("debian-12-minimal.other"), "passed");
    lab.assert_nothing_left();
}
