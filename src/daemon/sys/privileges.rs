//! The rights of this process. Once the first sockets are open, it keeps what links that come and
//! go later need.

use std::sync::{Mutex, PoisonError};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, read};

use super::{decimal, ffi};

/// The capabilities to keep. `CAP_NET_RAW` opens the captures of new links. `CAP_NET_ADMIN` sets a
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

/// A buffer for the list of users, enough for some five thousand. A page of it takes memory only
/// once it is written to.
static USERS: Mutex<[u8; 1 << 18]> = Mutex::new([0; _]);

impl User {
    /// Finds a user by name or number in /etc/passwd; `None` if there is none.
    ///
    /// It does without the C library, whose own search would make a static file 4 kB longer.
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
            // If no field follows, the buffer may have cut this one off.
            field()?;
            (entry == name.as_bytes() || id == name.as_bytes()).then_some(User {
                id: decimal(id)?,
                group: decimal(group)?,
            })
        })
    }
}

/// The effective capabilities of this process, of the first 32.
pub fn effective_capabilities() -> u32 {
    // Every kernel has this call. If it fails all the same, no capability is certain.
    ffi::capabilities().map_or(0, |[low, _]| low.effective)
}

/// Drops, for good, all capabilities but those of [`KEPT`], and with `user` the present user, group
/// and supplementary groups.
///
/// # Errors
/// `EPERM` if only root could become `user`. The process must end then, since some of this may be
/// done.
pub fn drop_privileges(user: Option<User>) -> nix::Result<()> {
    let [low, _] = ffi::capabilities()?;
    // Not everyone may do this. Those who may not have only what the service manager left them.
    for capability in (0..u64::BITS).filter(|bit| u64::from(KEPT) & 1 << bit == 0) {
        // The loop also ends behind the last capability that the kernel has.
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
        // The kernel drops the ambient set along with it.
        inheritable: 0,
    };
    ffi::set_capabilities([low, ffi::Capabilities::default()])?;
    ffi::set_no_new_privileges()
}
