//! Records of what the daemon changed in the kernel, and of the values before. The next process
//! finds them, even if this one is killed. A boot removes `/var/run`, and with it the records; it
//! also undoes the changes.
//!
//! Each setting has a file that holds its value before. The daemon writes it before it changes the
//! setting, so a crash that cuts off the file comes before the change. If the folder cannot be
//! written to, only the process that changed a setting can restore it. This uses no heap, since it
//! happens while the daemon runs.

use std::fmt::Write as _;
use std::os::fd::{AsFd, OwnedFd};

use heapless::String;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::Mode;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, geteuid, mkdir, read, unlinkat, write};

use super::folder::is_roots_alone;
use super::privileges::User;
use super::{decimal, network_namespace};

/// The folder of the records, and by default of the control sockets.
pub const FOLDER: &str = "/var/run/mldproxy";
pub const FOLDER_OF_FOLDER: &str = "/var/run";

/// The name of a setting. It includes the interface's number, since an interface that is created
/// anew has new settings. For all interfaces the number is 0.
#[derive(Clone, Copy)]
pub struct Key<'n> {
    pub index: u32,
    pub interface: &'n str,
    pub name: &'static str,
}

/// The folder, if it is there.
pub struct Records {
    folder: Option<OwnedFd>,
    /// The network namespace, since several may share the folder.
    namespace: u64,
}

impl Records {
    /// Creates the folder. Root gives it to the user that the daemon becomes, or to itself.
    pub fn prepare(user: Option<User>) {
        // If this fails, the folder is there already, or the daemon does without.
        let _ = mkdir(FOLDER, Mode::from_bits_truncate(0o755));
        if let Ok(folder) = open_folder()
            && geteuid().is_root()
        {
            let (id, group) = user.map_or((0, 0), |user| (user.id, user.group));
            let _ = fchown(folder, Some(Uid::from_raw(id)), Some(Gid::from_raw(group)));
        }
    }

    /// Opens the records of a socket's network namespace.
    pub fn open(socket: impl AsFd) -> Self {
        Records {
            folder: open_folder().ok(),
            namespace: network_namespace(socket),
        }
    }

    /// Records a value, in place of an older record.
    pub fn write(&self, key: Key<'_>, value: u32) {
        self.remove(key);
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
        if let Some(folder) = &self.folder
            && let Ok(file) = openat(folder, self.file(key).as_str(), flags, MODE)
        {
            // Every number fits.
            let mut digits = String::<10>::new();
            let _ = write!(digits, "{value}");
            // An empty file is no record.
            let _ = write(file, digits.as_bytes());
        }
    }

    /// The recorded value, if there is one.
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
            // Usually there is no such record.
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
        // The longest name of an interface fits.
        let _ = write!(file, "{}.{index}.{interface}.{name}", self.namespace);
        file
    }
}

const MODE: Mode = Mode::from_bits_truncate(0o644);

/// Opens the folder. In its place may be a link, if nobody but root can have put it there: systemd
/// makes one for a service with `DynamicUser=` and `RuntimeDirectoryPreserve=`.
pub fn open_folder() -> nix::Result<OwnedFd> {
    let follow = match is_roots_alone(FOLDER_OF_FOLDER) {
        true => OFlag::empty(),
        false => OFlag::O_NOFOLLOW,
    };
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | follow;
    open(FOLDER, flags, Mode::empty())
}
