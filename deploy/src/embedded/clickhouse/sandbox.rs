//! What the engine's process may touch.
//!
//! clickhouse-local treats the whole file system as the user's, and its function `file()` asks for no privilege:
//! without this, whoever may run a SELECT reads any file of the account. Landlock takes it away: the process
//! keeps its own directories, the library and what a Linux program reads to know its machine, and it cannot
//! open outgoing TCP connections.

use std::{
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible as _, PathBeneath, PathFd,
    PathFdError, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus,
};

/// Newest interface that is made use of; older kernels enforce what they know.
const ABI: ABI = landlock::ABI::V4;

/// Read-only. What is missing on a machine is left out. Nothing here tells one account about another: of /proc
/// only the process itself and counters of the machine, of /etc only time zone and name resolution.
const READABLE: &[&str] = &[
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/share/zoneinfo",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/hosts",
    "/etc/resolv.conf",
    "/etc/nsswitch.conf",
    "/dev/urandom",
    "/dev/random",
    "/dev/zero",
    "/proc/self",
    "/proc/cpuinfo",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/loadavg",
    "/proc/uptime",
    "/proc/vmstat",
    "/proc/diskstats",
    "/proc/filesystems",
    "/proc/sys",
    "/sys",
];

#[derive(Debug, thiserror::Error)]
pub(super) enum SandboxError {
    #[error(transparent)]
    Rules(#[from] RulesetError),
    #[error(transparent)]
    Path(#[from] PathFdError),
    #[error(
        "this kernel has no Landlock, which keeps users of the engine away from this account's files: listen on \
         loopback only, and let no other network in"
    )]
    Unavailable,
}

/// What to do on a kernel without Landlock (before 5.13, or switched off).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// Others than this machine's users reach the engine.
    Required,
    /// Loopback only: the reader's password lies in a directory of the account whose files are at stake.
    Wished,
}

impl Need {
    pub(super) const fn as_arg(self) -> &'static str {
        match self {
            Self::Required => "sandbox-required",
            Self::Wished => "sandbox-wished",
        }
    }

    pub(super) fn from_arg(arg: &std::ffi::OsStr) -> Option<Self> {
        [Self::Required, Self::Wished].into_iter().find(|need| arg == need.as_arg())
    }
}

/// Binds this thread and every thread and process that it starts from now on.
pub(super) fn enter(library: &Path, writable: &[PathBuf], need: Need) -> Result<(), SandboxError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(ABI))?
        .handle_access(AccessNet::ConnectTcp)?
        .create()?;

    for path in READABLE.iter().map(Path::new).chain([library]) {
        match PathFd::new(path) {
            Ok(fd) => rules = rules.add_rule(PathBeneath::new(fd, read_access(path)))?,
            Err(PathFdError::OpenCall { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
    }
    for path in writable {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(path)?, AccessFs::from_all(ABI)))?;
    }
    rules =
        rules.add_rule(PathBeneath::new(PathFd::new("/dev/null")?, file_access(AccessFs::from_all(ABI))))?;

    if rules.restrict_self()?.ruleset == RulesetStatus::NotEnforced {
        if need == Need::Required {
            return Err(SandboxError::Unavailable);
        }
        let _ = writeln!(
            io::stderr(),
            "this kernel has no Landlock: users of the engine can read this account's files with file()"
        );
    }
    Ok(())
}

fn read_access(path: &Path) -> BitFlags<AccessFs> {
    let read = AccessFs::from_read(ABI);
    if path.is_dir() { read } else { file_access(read) }
}

/// The kernel refuses rights on directories for a rule that names a file.
fn file_access(access: BitFlags<AccessFs>) -> BitFlags<AccessFs> {
    access & AccessFs::from_file(ABI)
}
