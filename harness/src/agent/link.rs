//! Our end of the line to an agent, on this machine or another: messages as they come, or why none will come any more.

use std::time::Duration;

use tokio::{
    sync::mpsc::{self, UnboundedSender, unbounded_channel},
    task::JoinHandle,
};

use super::{
    broken::Broken,
    orders::Orders,
    protocol::{FromAgent, ToAgent},
    remote::Remote,
    say::{OUTBOX, Say},
    wire::Wire,
};

/// A line to an agent.
#[derive(Debug)]
pub(crate) enum Link {
    /// To another machine.
    Remote(Box<Remote>),
    /// Within this process.
    Local(Local),
}

/// A line to an agent that is a task of this process.
#[derive(Debug)]
pub(crate) struct Local {
    orders: UnboundedSender<ToAgent>,
    messages: mpsc::Receiver<FromAgent>,
    agent: JoinHandle<()>,
    is_ours: bool,
}

impl Link {
    /// Greets the agent at the other end; it may take `greeting` to answer, and later be silent for `silence`.
    pub(crate) async fn remote(wire: Wire, greeting: Duration, silence: Duration) -> Result<Self, Broken> {
        let mut remote = Remote::greet(wire, greeting, silence);
        remote.greeted().await?;
        Ok(Self::Remote(Box::new(remote)))
    }

    /// Starts an agent in this process.
    pub(crate) fn local<A>(agent: impl FnOnce(Orders, Say) -> A) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        Self::in_process(agent, true)
    }

    /// An agent in this process that is treated like one on another machine.
    #[cfg(test)]
    pub(crate) fn fake<A>(agent: impl FnOnce(Orders, Say) -> A) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        Self::in_process(agent, false)
    }

    fn in_process<A>(agent: impl FnOnce(Orders, Say) -> A, is_ours: bool) -> Self
    where
        A: Future<Output = ()> + Send + 'static,
    {
        let (orders, received) = unbounded_channel();
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let agent = tokio::spawn(agent(Orders::of(received), Say::into(outbox)));
        Self::Local(Local { orders, messages, agent, is_ours })
    }

    /// The agent is part of this process: what it says needs no check, and it hears of a stop by itself.
    pub(crate) const fn is_ours(&self) -> bool {
        matches!(self, Self::Local(Local { is_ours: true, .. }))
    }

    /// Tells the agent something. It may be gone; that shows in [`Link::next`].
    pub(crate) fn say(&self, message: ToAgent) {
        match self {
            Self::Remote(remote) => remote.say(&message),
            Self::Local(local) => drop(local.orders.send(message)),
        }
    }

    /// The next message. May be dropped at any time without losing one.
    pub(crate) async fn next(&mut self) -> Result<FromAgent, Broken> {
        match self {
            Self::Remote(remote) => remote.next().await,
            Self::Local(local) => match local.messages.recv().await {
                Some(message) => Ok(message),
                None => match (&mut local.agent).await {
                    Ok(()) => Err(Broken::Ended("it said nothing more".to_owned())),
                    Err(error) => Err(Broken::Panicked(crate::fanout::panic_words(error))),
                },
            },
        }
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        self.agent.abort();
    }
}
