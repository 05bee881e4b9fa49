//! Names that lead a guest to where it must not go. Here 127.0.0.1 stands for the internet, and 127.0.0.2 for what is private.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;

const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 1);
const INSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// `rebinds-*`: outside when first asked, inside from then on.
fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static FILES: AtomicUsize = AtomicUsize::new(0);
    static TUNNELS: AtomicUsize = AtomicUsize::new(0);
    let rebinds = |asked: &AtomicUsize| if asked.fetch_add(1, Ordering::Relaxed) == 0 { OUTSIDE } else { INSIDE };
    let found = match host {
        "rebinds-files.test" => vec![rebinds(&FILES)],
        "rebinds-tunnels.test" => vec![rebinds(&TUNNELS)],
        "mixed.test" => vec![INSIDE, OUTSIDE],
        "inside.test" => vec![INSIDE],
        _ => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok(found.into_iter().map(|address| (address, port).into()).collect())
}

/// A server outside, one inside at the same port, and a guest for which all of these names are repositories.
async fn places() -> (Server, Server, Runner, Guest) {
    let outside = Server::new().await;
    let inside = Server::at(&format!("{INSIDE}:{}", outside.port)).await;
    outside.has("/x", "", "outside");
    inside.has("/x", "", "inside");
    let resolver = Resolver::new(lookup, |address| address == IpAddr::V4(OUTSIDE));
    let runner = Runner::with(Runner::folder(), false, 1 << 20, Upstream::new(None, resolver));
    let pattern = format!("*.test:{}", outside.port).parse().expect("a pattern");
    let guest = runner.guest_with(Some(Policy { named: vec![pattern], ..Policy::default() }));
    (outside, inside, runner, guest)
}

fn connect(host: &str, port: u16) -> String {
    format!("CONNECT {host}:{port} HTTP/1.1\r\nhost: x\r\n\r\nGET /x HTTP/1.1\r\n\r\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_address_that_was_checked_is_the_one_that_is_connected_to() {
    let (outside, inside, _runner, mut guest) = places().await;
    let url = format!("http://rebinds-files.test:{}/x", outside.port);
    assert_eq!(guest.gets(&url).await.0, "outside");
    let (_, request) = guest.gets(&url).await;
    assert!(reason(&request).contains("leads to 127.0.0.2, which is a private address"), "{request:?}");

    let tunnel = connect("rebinds-tunnels.test", outside.port);
    assert!(guest.says(&tunnel).await.ends_with("outside"));
    assert_eq!(guest.recorded().await.outcome, RequestOutcome::Tunnelled);
    assert!(guest.says(&tunnel).await.starts_with("HTTP/1.1 502"));
    assert!(reason(&guest.recorded().await).contains("leads to 127.0.0.2"));
    assert_eq!((outside.asked().len(), inside.asked().len()), (2, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_name_with_public_and_private_addresses_only_the_public_ones_are_tried() {
    let (outside, inside, _runner, mut guest) = places().await;
    assert_eq!(guest.gets(&format!("http://mixed.test:{}/x", outside.port)).await.0, "outside");
    assert!(guest.says(&connect("mixed.test", outside.port)).await.ends_with("outside"));
    guest.recorded().await;
    drop(outside);
    let (_, request) = guest.gets(&format!("http://inside.test:{}/x", inside.port)).await;
    assert!(reason(&request).contains("leads to 127.0.0.2"), "{request:?}");
    assert_eq!(inside.asked().len(), 0);
}
