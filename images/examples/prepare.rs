//! `cargo run -p images --example prepare -- STORE [--refresh] [NAME...]`: prepares images and says where they are.

use std::{path::Path, process::ExitCode, sync::atomic::AtomicBool, thread};

use images::{Catalog, Control, Store};

fn main() -> ExitCode {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let refresh = arguments.iter().any(|argument| argument == "--refresh");
    arguments.retain(|argument| argument != "--refresh");
    let Some((root, names)) = arguments.split_first() else {
        eprintln!("which store?");
        return ExitCode::from(2);
    };
    let store = match Store::open(Path::new(root)) {
        Ok(store) => store,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    store.swept().iter().for_each(|line| println!("{line}"));
    let prepare = |name: &String| {
        let Some(entry) = Catalog::shipped().get(name) else {
            eprintln!("no image `{name}`; there are {:?}", Catalog::shipped().names());
            return false;
        };
        let progress = |line: &str| println!("{name}: {line}");
        match store.prepare(entry, &Control { refresh, cancel: &AtomicBool::new(false), progress: &progress }) {
            Ok(image) => {
                println!("{image:#?}");
                true
            }
            Err(error) => {
                error.tail.iter().for_each(|line| eprintln!("{name}: | {line}"));
                eprintln!("{error}\n{}", error.help.as_deref().unwrap_or_default());
                false
            }
        }
    };
    let done = thread::scope(|scope| {
        let builds: Vec<_> = names.iter().map(|name| scope.spawn(|| prepare(name))).collect();
        builds.into_iter().all(|build| build.join().unwrap_or(false))
    });
    store.list().iter().for_each(|status| println!("{status:?}"));
    if done { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
