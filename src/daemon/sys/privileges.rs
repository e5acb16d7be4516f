//! What this process may do: once the first sockets are open, no more than links that come and go later need.

use std::sync::{Mutex, PoisonError};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, read};

use super::{decimal, ffi};

/// Kept, as far as it is there: `CAP_NET_RAW` opens the captures of links that are created anew, and `CAP_NET_ADMIN` sets a
/// bridge's `mcast_router`, and for the NDP proxy the kernel's entries, routes and sysctls.
const KEPT: u32 = CAP_NET_ADMIN | CAP_NET_RAW;
// linux/capability.h
pub const CAP_NET_ADMIN: u32 = 1 << 12;
pub const CAP_NET_RAW: u32 = 1 << 13;

/// A user of the system.
#[derive(Clone, Copy)]
pub struct User {
    pub id: u32,
    pub group: u32,
}

/// The list of users, or as much of it as there is room for: some five thousand users. All zero, it costs memory only where it is
/// written over.
static USERS: Mutex<[u8; 1 << 18]> = Mutex::new([0; _]);

impl User {
    /// By name or by number, out of /etc/passwd; `None` where there is none.
    ///
    /// Not by the C library: where that is a part of the file, its own search makes the file 4 kB longer.
    pub fn find(name: &str) -> Option<Self> {
        let mut users = USERS.lock().unwrap_or_else(PoisonError::into_inner);
        let file = open("/etc/passwd", OFlag::O_CLOEXEC, Mode::empty()).ok()?;
        let length = read(file, &mut *users).ok()?;
        let mut lines = users.get(..length)?.split(|octet| *octet == b'\n');
        lines.find_map(|line| {
            // passwd(5): NAME:PASSWORD:NUMBER:GROUP:…
            let mut fields = line.split(|octet| *octet == b':');
            let mut field = || fields.next();
            let (entry, _, id, group) = (field()?, field()?, field()?, field()?);
            // Without another field, this one may be cut off.
            field()?;
            (entry == name.as_bytes() || id == name.as_bytes()).then_some(User {
                id: decimal(id)?,
                group: decimal(group)?,
            })
        })
    }
}

/// Those in force for this process, among the first 32.
pub fn effective_capabilities() -> u32 {
    // Without the call, which every kernel has, there are none to be sure of.
    ffi::capabilities().map_or(0, |[low, _]| low.effective)
}

/// Gives up, for good, all capabilities but those of [`KEPT`] that are there, and with `user` the present user, group and
/// supplementary groups.
///
/// # Errors
/// `EPERM` where only root could become `user`. The process is to end then: some of this may have been done.
pub fn drop_privileges(user: Option<User>) -> nix::Result<()> {
    let [low, _] = ffi::capabilities()?;
    // Not allowed to everyone, and no matter to those who are not: they have only what the service manager left them.
    for capability in (0..u64::BITS).filter(|bit| u64::from(KEPT) & 1 << bit == 0) {
        // Also the end of those that this kernel knows.
        if ffi::drop_from_bounding_set(capability).is_err() {
            break;
        }
    }
    if let Some(user) = user.filter(|user| user.id != geteuid().as_raw()) {
        ffi::keep_capabilities_as_another_user()?;
        ffi::become_user(user.id, user.group)?;
    }
    let kept = low.permitted & KEPT;
    let low = ffi::Capabilities {
        effective: kept,
        permitted: kept,
        // The ambient set goes with it.
        inheritable: 0,
    };
    ffi::set_capabilities([low, ffi::Capabilities::default()])?;
    ffi::set_no_new_privileges()
}
