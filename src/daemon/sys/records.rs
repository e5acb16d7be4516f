//! What was changed in the kernel and what it was before, written down where the next process finds it, since this one may be killed.
//! `/var/run` goes with the boot, and so do the changes.
//!
//! A file for each setting, which holds the number that it was. It is written before the setting is changed: what is cut off by a crash
//! was not changed yet. Where the folder cannot be written to, what was changed is put back by the process that changed it, if at all.
//! No heap: this happens while the daemon runs.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use heapless::String;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, mkdir, read, unlinkat, write};

use super::privileges::User;
use super::{decimal, ffi};

/// Where they are, and the control sockets unless the user says otherwise.
pub const FOLDER: &str = "/var/run/mldproxy";
pub const FOLDER_OF_FOLDER: &str = "/var/run";

/// Which setting: of an interface by its number too, since one that is created anew has other settings; of all interfaces it is 0.
#[derive(Clone, Copy)]
pub struct Key<'n> {
    pub index: u32,
    pub interface: &'n str,
    pub name: &'static str,
}

/// The folder, where it is there.
pub struct Records {
    folder: Option<OwnedFd>,
    /// Of the network namespace: several may share the folder.
    namespace: u64,
}

impl Records {
    /// Makes the folder. Root gives it to the user that is to write there, which it is itself where it stays.
    pub fn prepare(user: Option<User>) {
        // Who cannot do this finds it done, or does without.
        let _ = mkdir(FOLDER, Mode::from_bits_truncate(0o755));
        if let Ok(folder) = open_folder()
            && geteuid().is_root()
        {
            let (id, group) = user.map_or((0, 0), |user| (user.id, user.group));
            let _ = fchown(folder, Some(Uid::from_raw(id)), Some(Gid::from_raw(group)));
        }
    }

    /// Of the network namespace of a socket.
    pub fn open(socket: impl AsFd) -> Self {
        Records {
            folder: open_folder().ok(),
            // Before Linux 5.14 all namespaces are one, of which there is seldom more than that.
            namespace: ffi::network_namespace(socket.as_fd()).unwrap_or_default(),
        }
    }

    /// Takes the place of an older one.
    pub fn write(&self, key: Key<'_>, value: u32) {
        self.remove(key);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        if let Some(folder) = &self.folder
            && let Ok(file) = openat(folder, self.file(key).as_str(), flags, MODE)
        {
            // No number is longer.
            let mut digits = String::<10>::new();
            let _ = write!(digits, "{value}");
            // An empty one tells nothing.
            let _ = write(file, digits.as_bytes());
        }
    }

    /// What it was, if that is known.
    pub fn read(&self, key: Key<'_>) -> Option<u32> {
        let folder = self.folder.as_ref()?;
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = openat(folder, self.file(key).as_str(), flags, MODE).ok()?;
        let mut digits = [0; 16];
        let length = read(file, &mut digits).ok()?;
        decimal(digits.get(..length).filter(|digits| !digits.is_empty())?)
    }

    pub fn remove(&self, key: Key<'_>) {
        if let Some(folder) = &self.folder {
            // Mostly there is none.
            let _ = unlinkat(folder, self.file(key).as_str(), UnlinkatFlags::NoRemoveDir);
        }
    }

    fn file(&self, key: Key<'_>) -> String<64> {
        let mut file = String::new();
        let Key {
            index,
            interface,
            name,
        } = key;
        // The longest name of an interface leaves room.
        let _ = write!(file, "{}.{index}.{interface}.{name}", self.namespace);
        file
    }
}

const MODE: Mode = Mode::from_bits_truncate(0o644);

fn open_folder() -> nix::Result<OwnedFd> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(FOLDER, flags, Mode::empty())
}
