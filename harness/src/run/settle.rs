//! Cells that no guest can be started for get their verdict here.

use matrix::Plan;
use reports::Phase;

use super::{
    arriving::Arriving,
    foreign::Emulations,
    image_phase::{Missing, Prepared},
};
use crate::{
    events::Events,
    host::ProbeError,
    runner::{Ledger, Loss},
};

/// The catalog image whose kernel the accelerator is proved with where no other image has one.
pub(super) const PROVING: &str = "debian-12-minimal";

/// Reports the cells that no guest can be started for.
///
/// `proof` is an error if no accelerator works, with `None` if none could be tried. Cells whose images are not in yet are left alone.
pub(super) fn settle(
    plan: &Plan,
    images: &Arriving,
    (proof, emulations): (Result<(), Option<&ProbeError>>, &Emulations),
    ledger: &mut Ledger,
    events: &Events,
) {
    for todo in ledger.todo() {
        let image = plan.image(&todo.cell);
        let (phase, reason, help) = match image.and_then(|image| images.prepared().get(&image.from)) {
            None if images.all_are_in() => (Phase::Image, "its image was never prepared".to_owned(), None),
            None => continue,
            Some(Err(Missing { reason, help })) => (Phase::Image, reason.clone(), help.clone()),
            Some(Ok(found)) => {
                let kernel_args = image.is_some_and(|image| !image.kernel_args.is_empty());
                match (proof, emulations.get(&found.arch)) {
                    _ if kernel_args && found.kernel().is_none() => (
                        Phase::Image,
                        "its boot loader chooses the words for its kernel: `kernel_args` cannot be given".to_owned(),
                        Some("remove them; change them in `prepare`, and boot with `boot = \"cold\"`".to_owned()),
                    ),
                    (Ok(()), Some(Err(reason))) => (Phase::Runner, reason.clone(), None),
                    (Ok(()), Some(Ok(_)) | None) => continue,
                    (Err(Some(error)), _) => (Phase::Runner, error.to_string(), None),
                    (Err(None), _) => nothing_to_prove_with(images.prepared()),
                }
            }
        };
        let loss = Loss { reason, help, console_tail: Vec::new() };
        ledger.fail(&todo.cell.id, phase, &loss).into_iter().for_each(|event| events.send(event));
    }
}

fn nothing_to_prove_with(prepared: &Prepared) -> (Phase, String, Option<String>) {
    let missing = prepared.get(PROVING).and_then(|image| image.as_ref().err());
    let why = missing.map_or("it was never prepared", |missing| &missing.reason);
    let reason = format!("no image has a kernel to prove the accelerator with, and {PROVING} is not there: {why}");
    (Phase::Runner, reason, missing.and_then(|missing| missing.help.clone()))
}
