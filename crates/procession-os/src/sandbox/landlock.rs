//! The rules for files, TCP ports, signals and abstract sockets.

use std::path::Path;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetStatus, Scope,
};

use super::{Rules, is_alone};

/// The version with all that is used here: Linux 6.12.
const VERSION: ABI = ABI::V6;

/// What programs need to load libraries, to show times and to convert texts. At the basic level.
const SYSTEM: [&str; 12] = [
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/timezone",
    "/etc/locale.alias",
    "/etc/fonts",
    "/nix/store",
];
/// What the resolver and TLS read.
const NETWORK: [&str; 9] = [
    "/etc/resolv.conf",
    "/run/systemd/resolve",
    "/etc/hosts",
    "/etc/host.conf",
    "/etc/nsswitch.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/ssl",
    "/usr/share/ca-certificates",
];
/// Devices without a state, and what a process can know about itself. Not the whole directory of the
/// process, which has also what is known about the network and the file systems.
const OWN: [&str; 9] = [
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
    "/proc/self/cmdline",
    "/proc/self/limits",
    "/proc/self/maps",
    "/proc/self/stat",
    "/proc/self/statm",
    "/proc/self/status",
];

pub(super) fn impose(rules: &Rules) -> Result<(), String> {
    is_alone()?;
    let mut ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(VERSION))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(VERSION)))
        .map_err(explain)?;
    if !rules.network {
        ruleset = ruleset.handle_access(AccessNet::from_all(VERSION)).map_err(explain)?;
    }
    let mut created = ruleset.create().map_err(explain)?;
    let mut read = AccessFs::from_read(VERSION);
    if rules.is_strict && !rules.processes {
        read.remove(AccessFs::Execute);
    }
    let mut write = (AccessFs::from_all(VERSION) & !AccessFs::Execute)
        & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    if rules.is_strict {
        // If a worker leaves a link or a pipe there, another process that opens it would follow the link, or wait for ever.
        write &= !(AccessFs::MakeSym | AccessFs::MakeFifo | AccessFs::MakeSock);
    }
    let mut always: Vec<&str> = OWN.to_vec();
    if !rules.is_strict {
        always.extend(SYSTEM);
    }
    if rules.network {
        always.extend(NETWORK);
    }
    for path in always.into_iter().map(Path::new).filter(|path| path.exists()) {
        created = allow(created, path, read)?;
    }
    created = allow(created, Path::new("/dev/null"), AccessFs::ReadFile | AccessFs::WriteFile)?;
    for path in &rules.read {
        created = allow(created, path, read)?;
    }
    for path in &rules.write {
        created = allow(created, path, read | write)?;
    }
    match created.restrict_self().map_err(explain)?.ruleset {
        RulesetStatus::FullyEnforced => Ok(()),
        RulesetStatus::PartiallyEnforced => {
            Err("this kernel enforces only a part of the rules; Linux 6.12 has all".to_owned())
        }
        RulesetStatus::NotEnforced => Err("this kernel does not have it".to_owned()),
    }
}

fn allow(
    created: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, String> {
    let cannot =
        |error: &dyn std::fmt::Display| format!("cannot allow {}: {error}", path.display());
    let place = PathFd::new(path).map_err(|error| cannot(&error))?;
    let is_dir = path.metadata().map_err(|error| cannot(&error))?.is_dir();
    let access = if is_dir { access } else { access & AccessFs::from_file(VERSION) };
    created.add_rule(PathBeneath::new(place, access)).map_err(|error| cannot(&error))
}

/// Whether the kernel has it, without a process that is confined.
pub(super) fn check() -> Result<(), String> {
    let ruleset = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(VERSION))
        .and_then(|ruleset| ruleset.scope(Scope::from_all(VERSION)));
    ruleset.and_then(Ruleset::create).map(drop).map_err(explain)
}

fn explain(error: landlock::RulesetError) -> String {
    format!("this kernel refuses it: {error}")
}
