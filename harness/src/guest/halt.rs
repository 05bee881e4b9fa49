//! A guest that has halted for good: all of its CPUs stand still with interrupts off (`halt -f`). QEMU has no event for that, so it is
//! asked.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{MissedTickBehavior, interval},
};

use super::{
    console::Console,
    ended::Ended,
    qmp::{Qmp, QmpError, commands::HumanMonitorCommand},
};

/// How often QEMU is asked ...
const SAMPLE_INTERVAL: Duration = Duration::from_secs(2);
/// ... and how many answers in a row must say the same: a CPU may stand still for a moment while others start it.
const LOOKS: u32 = 3;

/// Looks for it until it is dropped.
#[derive(Debug)]
pub(super) struct Watch(AbortHandle);

impl Watch {
    /// Tells `end` when the guest has halted.
    pub(super) fn start(qmp: Arc<Qmp>, console: Console, end: Arc<watch::Sender<Option<Ended>>>) -> Self {
        Self(tokio::spawn(look(qmp, console, end)).abort_handle())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn look(qmp: Arc<Qmp>, console: Console, end: Arc<watch::Sender<Option<Ended>>>) {
    let mut looks = interval(SAMPLE_INTERVAL);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut halted = 0;
    loop {
        looks.tick().await;
        let command_line = "info registers -a".to_owned();
        let asked = qmp.execute(HumanMonitorCommand { command_line }).await;
        halted = match asked {
            Ok(registers) if has_halted(&registers, &console.tail(5)) => halted + 1,
            Err(QmpError::Closed) => return,
            Ok(_) | Err(_) => 0,
        };
        if halted >= LOOKS {
            end.send_if_modified(|end| {
                let runs = end.is_none();
                if runs {
                    *end = Some(Ended::Halted);
                }
                runs
            });
        }
    }
}

/// Interrupts are on, in the flags register of x86.
const INTERRUPTS: u64 = 1 << 9;

/// Whether no CPU can go on, by QEMU's list of registers; where that does not say (Arm), by the kernel's last words.
fn has_halted(registers: &str, console: &[String]) -> bool {
    let mut cpus = registers.lines().filter(|line| line.contains("HLT=")).peekable();
    if cpus.peek().is_none() {
        return console.last().is_some_and(|line| line.ends_with("reboot: System halted"));
    }
    cpus.all(|line| {
        let value = |names: &[&str]| {
            line.split_whitespace().find_map(|word| names.iter().find_map(|name| word.strip_prefix(name)))
        };
        let flags = value(&["RFL=", "EFL="]).and_then(|flags| u64::from_str_radix(flags, 16).ok());
        value(&["HLT="]) == Some("1") && flags.is_some_and(|flags| flags & INTERRUPTS == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(flags: &str, halted: bool) -> String {
        format!(
            "CPU#0\r\nRAX=0000000000000000 RBX=0000000000000000\r\nRIP=ffffffff81a2c8fb RFL={flags} [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT={}\r\nES =0000",
            u8::from(halted)
        )
    }

    #[test]
    fn a_cpu_that_waits_for_an_interrupt_has_not_halted_and_one_that_takes_none_has() {
        assert!(has_halted(&cpu("00000046", true), &[]));
        assert!(!has_halted(&cpu("00000246", true), &[]), "idle");
        assert!(!has_halted(&cpu("00000046", false), &[]), "it runs with interrupts off");
    }

    #[test]
    fn a_guest_with_several_cpus_has_halted_when_all_have() {
        let (halted, runs) = (cpu("00000002", true), cpu("00000202", false));
        assert!(!has_halted(&format!("{halted}\r\n\r\n{runs}"), &[]), "the others have not been started yet");
        assert!(has_halted(&format!("{halted}\r\n\r\n{halted}"), &[]));
    }

    #[test]
    fn where_qemu_does_not_say_the_kernels_last_words_do() {
        let arm = " PC=ffff800080014f3c X00=0000000000000000\r\nPSTATE=600000c5 -ZC- EL1h";
        assert!(has_halted(arm, &["[   30.1] reboot: System halted".to_owned()]));
        assert!(!has_halted(arm, &["[   30.1] reboot: System halted".to_owned(), "login:".to_owned()]));
        assert!(!has_halted("", &[]));
    }
}
