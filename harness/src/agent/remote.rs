//! The line to an agent on another machine: JSON, one message a line, over whatever reaches its standard input and output.

use std::time::{Duration, Instant};

use tokio::time::{Interval, MissedTickBehavior, interval};

use super::{
    broken::Broken,
    protocol::{FromAgent, Hello, ToAgent},
    serve::HEARTBEAT,
    wire::Wire,
};

/// Silence is counted in samples of a second at least: should *we* stand still, no time passes.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);
/// Longest message: half of what a line of the journal may have, in which it is written with more around it.
const LONGEST: usize = 32 << 20;

/// An agent on another machine.
#[derive(Debug)]
pub(crate) struct Remote {
    wire: Wire,
    received: Vec<u8>,
    /// How much of it is known to hold no line end.
    searched: usize,
    looks: Interval,
    silent: u32,
    /// Samples without a word before the agent is given up.
    patience: u32,
    /// The same once it has greeted.
    patience_at_work: u32,
    /// When we last said that we are here; `None`: it has not greeted, and knows of no heartbeats.
    beaten: Option<Instant>,
}

impl Remote {
    /// Greets the agent at the other end; it may take `greeting` to answer, and later be silent for `silence`.
    pub(super) fn greet(wire: Wire, greeting: Duration, silence: Duration) -> Self {
        let mut looks = interval(SAMPLE_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let remote = Self {
            wire,
            received: Vec::new(),
            searched: 0,
            looks,
            silent: 0,
            patience: samples_in(greeting),
            patience_at_work: samples_in(silence),
            beaten: None,
        };
        remote.say(&ToAgent::Hello(Hello::ours()));
        remote
    }

    /// Tells the agent something. It may be gone; that shows in [`Remote::next`].
    pub(super) fn say(&self, message: &ToAgent) {
        if let Ok(mut line) = serde_json::to_vec(message) {
            line.push(b'\n');
            (self.wire.send)(line);
        }
    }

    /// Waits for the agent's greeting; a program that is no agent, or another version, is an error.
    pub(super) async fn greeted(&mut self) -> Result<(), Broken> {
        match self.next().await? {
            FromAgent::Hello(hello) => {
                (self.patience, self.beaten) = (self.patience_at_work, Some(Instant::now()));
                hello.check().map_err(Broken::Version)
            }
            other => Err(Broken::Garbage(format!("{other:?} instead of a greeting"))),
        }
    }

    /// The next message. May be dropped at any time without losing one. Says by itself that we are here.
    pub(super) async fn next(&mut self) -> Result<FromAgent, Broken> {
        loop {
            if let Some(end) = self.received[self.searched..].iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(self.searched + end + 1);
                let line = std::mem::replace(&mut self.received, rest);
                self.searched = 0;
                if line.len() > LONGEST {
                    return Err(Broken::Garbage(format!("a line of {} bytes", line.len())));
                }
                match serde_json::from_slice(&line) {
                    Ok(FromAgent::Heartbeat) => continue,
                    Ok(message) => return Ok(message),
                    Err(error) => {
                        let said = reports::clean::line(&String::from_utf8_lossy(&line[..line.len().min(200)]));
                        return Err(Broken::Garbage(format!("{error}: {said}")));
                    }
                }
            }
            self.searched = self.received.len();
            if self.received.len() > LONGEST {
                return Err(Broken::Garbage(format!("a line of more than {LONGEST} bytes")));
            }
            tokio::select! {
                biased;
                piece = self.wire.pieces.recv() => match piece {
                    Some(piece) => {
                        self.silent = 0;
                        self.received.extend_from_slice(&piece);
                    }
                    None => return Err(self.wire.how_it_ended().await),
                },
                _ = self.looks.tick() => {
                    self.silent += 1;
                    if self.silent > self.patience {
                        return Err(Broken::Silent(SAMPLE_INTERVAL * self.patience));
                    }
                }
            }
            if self.beaten.is_some_and(|beaten| beaten.elapsed() >= HEARTBEAT) {
                self.beaten = Some(Instant::now());
                self.say(&ToAgent::Heartbeat);
            }
        }
    }
}

/// Samples in this time.
fn samples_in(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// An agent that greets and says one thing more, and then nothing: how long it takes until it is given up, and why.
    async fn given_up_after(silence: u64) -> (Duration, String) {
        let (says, pieces) = mpsc::channel(2);
        for message in [FromAgent::Hello(Hello::ours()), FromAgent::Progress { message: "it works".to_owned() }] {
            says.send([serde_json::to_vec(&message).unwrap(), vec![b'\n']].concat()).await.unwrap();
        }
        let wire = Wire { send: Box::new(drop), pieces, over: tokio::spawn(std::future::pending()) };
        let began = tokio::time::Instant::now();
        let mut remote = Remote::greet(wire, Duration::from_secs(20), Duration::from_secs(silence));
        remote.greeted().await.unwrap();
        assert!(matches!(remote.next().await, Ok(FromAgent::Progress { .. })));
        let broken = remote.next().await.unwrap_err();
        drop(says);
        (began.elapsed(), broken.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn an_agent_is_given_up_when_it_has_been_silent_for_as_long_as_its_place_allows() {
        for seconds in [15, 50] {
            let (silence, why) = given_up_after(seconds).await;
            assert_eq!((silence.as_secs(), why), (seconds, format!("timeout: no message from it for {seconds} s")));
        }
    }
}
