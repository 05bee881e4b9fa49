//! Cells that no guest can be started for get their verdict here.

use matrix::Plan;
use reports::{Phase, Trouble, TroubleKind};

use super::{arriving::Arriving, foreign::Emulations, image_phase::missing};
use crate::{events::Events, host::ProbeError, runner::Ledger};

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
        let runner = |reason: String| Trouble::new(TroubleKind::RunnerUnusable, Phase::Runner, reason);
        let trouble = match image.and_then(|image| images.prepared().get(&image.from)) {
            None if images.all_are_in() => missing("its image was never prepared"),
            None => continue,
            Some(Err(missing)) => missing.clone(),
            Some(Ok(found)) => {
                let kernel_args = image.is_some_and(|image| !image.kernel_args.is_empty());
                match (proof, emulations.get(&found.arch)) {
                    _ if kernel_args && found.kernel.is_none() => Trouble::new(
                        TroubleKind::ImageUnusable,
                        Phase::Image,
                        "its boot loader sets the kernel command line: `kernel_args` has no effect",
                    )
                    .with_help("remove it; change the command line in `prepare`, and boot with `boot = \"cold\"`"),
                    (Ok(()), Some(Err(reason))) => runner(reason.clone()),
                    (Ok(()), Some(Ok(_)) | None) => continue,
                    (Err(Some(error)), _) => runner(error.to_string()),
                    (Err(None), _) => {
                        let missing = images.prepared().get(PROVING).and_then(|image| image.as_ref().err());
                        let why = missing.map_or("it was never prepared", |missing| &missing.reason);
                        let help = missing.and_then(|missing| missing.help.clone());
                        let what = "no image has a kernel to prove the accelerator with";
                        Trouble { help, ..runner(format!("{what}, and {PROVING} is not there: {why}")) }
                    }
                }
            }
        };
        // The evidence is in the image's own event.
        let trouble = trouble.with_evidence(Vec::new());
        ledger.fail(&todo.cell.id, &trouble).into_iter().for_each(|event| events.send(event));
    }
}
