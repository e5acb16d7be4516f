//! Signals as a descriptor to poll.

use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// SIGTERM, SIGINT, SIGHUP and SIGUSR1. Once blocked, they arrive only here.
pub struct Signals(SignalFd);

impl Signals {
    pub fn block() -> nix::Result<Self> {
        let mut signals = SigSet::empty();
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGUSR1,
        ] {
            signals.add(signal);
        }
        // Otherwise a terminal with `stty tostop` stops a daemon in the background that writes to
        // it.
        let mut blocked = signals;
        blocked.add(Signal::SIGTTOU);
        blocked.thread_block()?;
        SignalFd::with_flags(&signals, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC).map(Signals)
    }

    /// The next signal, if one arrived.
    pub fn receive(&self) -> Option<Signal> {
        let signal = self.0.read_signal().ok()??;
        Signal::try_from(signal.ssi_signo.cast_signed()).ok()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
