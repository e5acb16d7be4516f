//! Several instances of this program in one network namespace. Each has a number of its own, and
//! they tell one another what the kernel tells nobody.
//!
//! The kernel's tables do not say which process made an entry, and two processes that want the same
//! entry share it. So each instance marks its entries by its number, which no other living instance
//! has: the port of its netlink socket says which. The kernel gives each port to one socket in a
//! network namespace, which is as far as its tables reach. It frees the port however the process
//! ends. No file is needed, so a jail or another user makes no difference. To send to a port takes
//! `CAP_NET_ADMIN` over the namespace, so nobody else can speak as an instance. A program that
//! takes all ports keeps leftovers from being removed, and keeps no instance from starting.

use std::net::Ipv6Addr;
use std::os::fd::AsFd as _;

use nix::errno::Errno;
use protocol::link::MAX_DOWNSTREAMS;
use protocol::time::Duration;

use super::message::{Message, Request, u32_at};
use super::tables::{METRIC, PROTOCOL};
use super::{Netlink, Notice};
use crate::sys::clock;
use crate::sys::readiness::wait_until;

/// How many instances have a number of their own. Any further ones share the last number.
pub const NUMBERS: u8 = 16;
/// The port of number 0. The kernel and libraries choose ports that are a process's id, or lie
/// above 2^31, or have more bits on top of such an id.
const FIRST_PORT: u32 = 0x4d4c_4400;

/// The number of an instance, below [`NUMBERS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Number(u8);

impl Number {
    pub const LAST: Number = Number(NUMBERS - 1);

    pub fn all() -> impl Iterator<Item = Number> {
        (0..NUMBERS).map(Number)
    }

    pub fn port(self) -> u32 {
        FIRST_PORT + u32::from(self.0)
    }

    /// The mark of its proxy entries (`NDA_PROTOCOL`): 77, 76, … iproute2's rt_protos assigns none
    /// of these.
    pub fn mark(self) -> u8 {
        PROTOCOL - self.0
    }

    /// The metric of its routes. All have the same protocol, and of one metric the kernel would
    /// keep one route for all instances.
    pub fn metric(self) -> u32 {
        METRIC + u32::from(self.0)
    }

    /// The instance that made a proxy entry; `None` for another program's.
    pub fn of_mark(mark: u8) -> Option<Self> {
        Self::new(PROTOCOL.checked_sub(mark)?.into())
    }

    /// The instance that made a route; `None` for another metric.
    pub fn of_metric(metric: u32) -> Option<Self> {
        Self::new(metric.checked_sub(METRIC)?)
    }

    pub(super) fn new(number: u32) -> Option<Self> {
        let number = u8::try_from(number).ok()?;
        (number < NUMBERS).then_some(Number(number))
    }

    fn place(self) -> usize {
        usize::from(self.0)
    }
}

/// A message from one instance to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told<'m> {
    /// The sender starts or ends. The receiver makes the entries that it wants its own, and answers
    /// by [`Self::Held`].
    Hold { from: Number },
    Held {
        from: Number,
        /// What the sender needs, for [`Needs::read`].
        needs: &'m [u8],
    },
    /// The sender removed a proxy entry, which the receiver may want.
    Removed { index: u32, address: Ipv6Addr },
}

/// What an instance needs the others to leave as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// It needs the kernel's settings for proxy entries.
    pub proxies: bool,
    /// The numbers of its upstream, its downstreams, and the bridges that these are on. 0 is a free
    /// place.
    pub links: [u32; LINKS],
}

/// The most links that an instance needs: its own, and some bridges beneath VLANs, which mostly are
/// on the same one.
pub const LINKS: usize = 1 + MAX_DOWNSTREAMS + 8;

impl Needs {
    /// The needs of an instance that starts. It does not know its links yet, so it may need any.
    pub const fn of_start(proxies: bool) -> Self {
        let links = [0; _];
        Needs { proxies, links }
    }

    /// The needs of an instance that ends.
    pub const fn nothing() -> Self {
        let mut needs = Self::of_start(false);
        needs.links[0] = u32::MAX;
        needs
    }

    /// Reads what an instance sent.
    pub(super) fn read(told: &[u8]) -> Option<Self> {
        let mut needs = Self::of_start(u32_at(told, 0)? != 0);
        for (place, link) in needs.links.iter_mut().enumerate() {
            *link = u32_at(told, 4 * (1 + place))?;
        }
        Some(needs)
    }

    /// Adds a link that is needed too.
    pub fn add(&mut self, link: u32) {
        if !self.links.contains(&link)
            && let Some(place) = self.links.iter_mut().find(|place| **place == 0)
        {
            *place = link;
        }
    }

    fn may_use(&self, index: u32) -> bool {
        self.links[0] == 0 || self.links.contains(&index)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sibling {
    /// No instance has the number.
    Gone,
    /// The instance has not said what it needs.
    Silent,
    Needs(Needs),
}

/// What is known of the other instances.
pub struct Siblings([Sibling; NUMBERS as usize]);

impl Siblings {
    pub const fn none() -> Self {
        Siblings([Sibling::Gone; _])
    }

    pub fn note(&mut self, from: Number, needs: Option<Needs>) {
        if let Some(sibling) = self.0.get_mut(from.place()) {
            *sibling = needs.map_or(Sibling::Silent, Sibling::Needs);
        }
    }

    fn is_gone(&mut self, number: Number) {
        if let Some(sibling) = self.0.get_mut(number.place()) {
            *sibling = Sibling::Gone;
        }
    }

    fn is_there(&self, number: Number) -> bool {
        self.get(number) != Sibling::Gone
    }

    fn is_awaited(&self) -> bool {
        self.0.contains(&Sibling::Silent)
    }

    /// Whether no instance needs what has the mark of `number` on a link.
    pub fn left(&self, number: Number, index: u32) -> bool {
        match self.get(number) {
            Sibling::Gone => true,
            Sibling::Silent => false,
            Sibling::Needs(needs) => !needs.may_use(index),
        }
    }

    /// Whether an instance needs the settings for proxy entries, on this upstream or with `None` on
    /// any.
    pub fn proxy(&self, upstream: Option<u32>) -> bool {
        self.any(|needs| {
            let on = |index| needs.links[0] == 0 || needs.links[0] == index;
            needs.proxies && upstream.is_none_or(on)
        })
    }

    /// Whether an instance may need a link.
    pub fn use_link(&self, index: u32) -> bool {
        self.any(|needs| needs.may_use(index))
    }

    fn any(&self, needs: impl Fn(&Needs) -> bool) -> bool {
        self.0.iter().any(|sibling| match sibling {
            Sibling::Gone => false,
            // It is there, but does not answer.
            Sibling::Silent => true,
            Sibling::Needs(told) => needs(told),
        })
    }

    fn get(&self, number: Number) -> Sibling {
        let sibling = self.0.get(number.place());
        sibling.copied().unwrap_or(Sibling::Gone)
    }
}

impl Netlink {
    /// Asks the other instances to hold what they want of the entries of this instance, or of one
    /// that is gone. Waits at most a second, and returns what they need. Answers by `needs` an
    /// instance that asks meanwhile. Other messages are lost: call this before the first listing,
    /// or at the end.
    pub fn ask_siblings(&mut self, needs: &Needs, buffer: &mut [u8]) -> Siblings {
        let mut siblings = Siblings::none();
        for number in Number::all().filter(|number| *number != self.number) {
            match self.tell(number, HOLD, &[]) {
                // An instance without room for a message is stopped, or busy.
                Ok(()) | Err(Errno::EAGAIN) => siblings.note(number, None),
                Err(_) => {}
            }
        }
        let deadline = clock::now().saturating_add(PATIENCE);
        while siblings.is_awaited() && wait_until(self.as_fd(), deadline) {
            let mut asked = None;
            let received = self.receive(buffer, &mut |notice| match notice {
                Notice::Sibling(Told::Held { from, needs }) => {
                    siblings.note(from, Needs::read(needs));
                }
                Notice::Sibling(Told::Hold { from }) => asked = Some(from),
                _ => {}
            });
            if received.is_err() {
                break;
            }
            if let Some(from) = asked {
                self.answer_sibling(from, needs);
            }
        }
        siblings
    }

    /// Answers [`Told::Hold`], once its entries are held.
    pub fn answer_sibling(&self, from: Number, needs: &Needs) {
        let mut body = [0; 4 * (1 + LINKS)];
        let words = [u32::from(needs.proxies)];
        let words = words.iter().chain(&needs.links);
        for (octets, word) in body.chunks_exact_mut(4).zip(words) {
            octets.copy_from_slice(&word.to_ne_bytes());
        }
        // An instance that is gone needs no answer. One without room does not wait for long.
        let _ = self.tell(from, HELD, &body);
    }

    /// Tells the other instances that a proxy entry was removed.
    pub fn tell_removed(&self, siblings: &mut Siblings, index: u32, address: Ipv6Addr) {
        let mut body = [0; 20];
        body[..4].copy_from_slice(&index.to_ne_bytes());
        body[4..].copy_from_slice(&address.octets());
        for number in Number::all() {
            if siblings.is_there(number)
                && self.tell(number, REMOVED, &body) == Err(Errno::ECONNREFUSED)
            {
                siblings.is_gone(number);
            }
        }
    }

    fn tell(&self, number: Number, message_type: u16, body: &[u8]) -> nix::Result<()> {
        let from = self.number.port() - Number::default().port();
        Request::new(message_type, 0, body).send_to(&self.socket, number.port(), from)
    }
}

/// How long to wait for the answers of all instances. One that is stopped never answers.
const PATIENCE: Duration = Duration::from_secs(1);

/// Types that the kernel does not use. The sequence number of these messages is the sender's
/// number.
const HOLD: u16 = 0x4d01;
const HELD: u16 = 0x4d02;
const REMOVED: u16 = 0x4d03;

pub(super) fn told<'m>(message: &Message<'m>) -> Option<Told<'m>> {
    let from = Number::new(message.sequence)?;
    Some(match message.message_type {
        HOLD => Told::Hold { from },
        HELD => Told::Held {
            from,
            needs: message.body,
        },
        REMOVED => Told::Removed {
            index: u32_at(message.body, 0)?,
            address: Ipv6Addr::from(*message.body.get(4..)?.first_chunk::<16>()?),
        },
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_that_of_one_number_and_of_no_other_program() {
        for number in Number::all() {
            assert_eq!(Number::of_mark(number.mark()), Some(number));
            assert_eq!(Number::of_metric(number.metric()), Some(number));
        }
        assert_eq!(Number::default().mark(), 77);
        for mark in [0, 2, 4, 16, 42, 61, 78, 84, 99, 186, 255] {
            assert_eq!(Number::of_mark(mark), None, "{mark}");
        }
        assert_eq!(Number::of_metric(1023), None);
        assert_eq!(Number::of_metric(1040), None);
    }

    #[test]
    fn what_is_left_is_nobodys_on_that_link() {
        let [first, second] = [0, 1].map(|number| Number::new(number).unwrap());
        let mut siblings = Siblings::none();
        assert!(siblings.left(first, 3) && !siblings.proxy(None) && !siblings.use_link(3));
        siblings.note(first, None);
        assert!(!siblings.left(first, 3) && siblings.proxy(Some(3)) && siblings.use_link(3));
        siblings.note(first, Some(Needs::of_start(true)));
        assert!(!siblings.left(first, 3) && siblings.proxy(Some(3)) && siblings.use_link(3));
        let mut needs = Needs::of_start(true);
        needs.links[..2].copy_from_slice(&[3, 4]);
        siblings.note(first, Some(needs));
        assert!(!siblings.left(first, 4) && siblings.left(first, 5) && siblings.left(second, 4));
        assert!(siblings.proxy(None) && siblings.proxy(Some(3)) && !siblings.proxy(Some(4)));
        assert!(siblings.use_link(4) && !siblings.use_link(5));
        siblings.note(first, Some(Needs::nothing()));
        assert!(!siblings.proxy(None) && !siblings.use_link(3) && siblings.left(first, 3));
    }
}
