//! From root to an ordinary user, once, after every bind and before any thread exists.

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid, initgroups, setgid, setgroups, setuid};

/// Whom to become.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Target {
    /// Name of the user, for its supplementary groups.
    name: Option<std::ffi::CString>,
    /// User.
    pub uid: Uid,
    /// Group.
    pub gid: Gid,
}

/// Why privileges cannot be dropped.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// No user is named.
    #[error(
        "started as root without a user to become: set `user` (Hipache's default is www-data), \
         or `\"user\": \"root\"` to stay root"
    )]
    NoUser,
    /// There is no such user or group.
    #[error("{kind} `{name}` does not exist on this machine; set `{kind}` to one that does")]
    Unknown {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// The system refused.
    #[error("cannot become user {uid}, group {gid}")]
    Refused {
        /// User.
        uid: Uid,
        /// Group.
        gid: Gid,
        /// What the system said.
        #[source]
        source: Errno,
    },
}

/// Finds out whom to become; `None` when there is nothing to drop.
///
/// # Errors
///
/// [`PrivilegeError`] when no user is named or the named one does not exist.
pub fn target(user: Option<&str>, group: Option<&str>) -> Result<Option<Target>, PrivilegeError> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let user = user.ok_or(PrivilegeError::NoUser)?;
    let unknown = |kind, name: &str| PrivilegeError::Unknown { kind, name: name.to_owned() };
    let found = match user.parse::<u32>() {
        Ok(id) => User::from_uid(Uid::from_raw(id)).ok().flatten(),
        Err(_) => User::from_name(user).ok().flatten(),
    };
    let uid = match (&found, user.parse::<u32>()) {
        (Some(found), _) => found.uid,
        (None, Ok(id)) => Uid::from_raw(id),
        (None, Err(_)) => return Err(unknown("user", user)),
    };
    let gid = match group {
        Some(name) => match (Group::from_name(name).ok().flatten(), name.parse::<u32>()) {
            (Some(group), _) => group.gid,
            (None, Ok(id)) => Gid::from_raw(id),
            (None, Err(_)) => return Err(unknown("group", name)),
        },
        None => found.as_ref().map_or_else(|| Gid::from_raw(uid.as_raw()), |found| found.gid),
    };
    if uid.is_root() {
        return Ok(None);
    }
    let name = found.and_then(|found| std::ffi::CString::new(found.name).ok());
    Ok(Some(Target { name, uid, gid }))
}

impl Target {
    /// Becomes the user, for good.
    ///
    /// # Errors
    ///
    /// [`PrivilegeError::Refused`]; the process must then end.
    pub fn become_it(&self) -> Result<(), PrivilegeError> {
        let refused = |source| PrivilegeError::Refused { uid: self.uid, gid: self.gid, source };
        match &self.name {
            Some(name) => initgroups(name, self.gid).map_err(refused)?,
            None => setgroups(&[self.gid]).map_err(refused)?,
        }
        setgid(self.gid).map_err(refused)?;
        setuid(self.uid).map_err(refused)?;
        // Believe the kernel, not the return values.
        if geteuid() != self.uid || getegid() != self.gid || setuid(Uid::from_raw(0)).is_ok() {
            return Err(refused(Errno::EPERM));
        }
        Ok(())
    }
}

/// Raises the limit of open files as far as allowed: a proxy needs two for each request.
pub fn raise_open_files() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // When it is refused, the limit that was there still holds.
        let _is_raised = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
