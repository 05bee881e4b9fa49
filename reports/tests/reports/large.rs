//! A run of many cells, with every kind of ending in turn, and large and hostile logs.

use std::{fmt::Write as _, fs, path::Path};

use matrix::Plan;
use reports::{CaseVerdict, Journal, Phase, Verdict, attempt_folder};

use super::fixture::{Story, plan_of};

/// Writes the folder of a run of about this many cells.
pub(crate) fn write(dir: &Path, cells: usize) -> Plan {
    let mut text = String::from("[package]\nname = \"hello\"\nversion = \"2.12\"\nartifacts = [\"*.deb\"]\n");
    for image in ["11", "12", "13", "testing", "sid"] {
        let _ = write!(text, "[[image]]\nname = \"debian-{image}-minimal\"\n");
    }
    let values: Vec<String> = (0..cells.div_ceil(20)).map(|value| format!("\"v{value}\"")).collect();
    let _ = write!(text, "[axes]\nlocale = [\"C.UTF-8\", \"tr_TR.UTF-8\"]\nvariant = [{}]\n", values.join(", "));
    text.push_str(
        "[[suite]]\nname = \"smoke\"\ninline = \"hello\"\n[[suite]]\nname = \"service\"\ninline = \"hello\"\n",
    );
    let plan = plan_of(&text);
    plan.write(&dir.join("plan.json")).expect("writable");
    let mut story = Story::new();
    story.start(&plan);
    let noise = "<script>alert(1)</script> & \"quoted\" \u{1b}[31mred\u{1b}[0m ]]> \u{202e}\n".repeat(2_000);
    for (index, cell) in plan.cells.iter().enumerate() {
        if index % 3 > 0 {
            story.pass(&cell.id);
        } else {
            story.boot(&cell.id, 1);
            let failed = CaseVerdict::Failed { message: noise[..100].to_owned(), detail: noise[..10_000].to_owned() };
            story.case(&cell.id, 1, "smoke <b>", failed, 10);
            let verdict = Verdict::Failed { phase: Phase::Test, reason: noise[..80].to_owned() };
            story.end_attempt(&cell.id, &verdict, &[&noise[..90]], Some("look <here>"));
            story.end(&cell.id, verdict);
        }
        let folder = dir.join(attempt_folder(&cell.id, 1));
        fs::create_dir_all(&folder).expect("writable");
        for name in ["stdout.log", "stderr.log", "console.log"] {
            fs::write(folder.join(name), &noise).expect("writable");
        }
    }
    story.finish();
    let mut journal = Journal::create(dir).expect("a new journal");
    story.events.iter().for_each(|event| journal.append(event).expect("writable"));
    plan
}
