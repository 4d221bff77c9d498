//! The operator's own privileges: as few as its job takes, whoever starts it. The unit of the
//! package names the same ones; `docs/src/security.md` says what each is for.

use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, remove_capability_from_bounding_set,
    set_capabilities, set_no_new_privs,
};

/// What is kept of what there is. Each has its reason in `docs/src/security.md`.
const KEPT: CapabilitySet = CapabilitySet::SYS_ADMIN
    .union(CapabilitySet::CHOWN)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_PTRACE)
    .union(CapabilitySet::SYS_RESOURCE);

/// Gives up what the operator never needs, for itself and whatever it starts. It is a bound
/// beneath the promises, not one of them: where the system refuses, it is told and docket goes on.
///
/// To be called before there is a second thread: capabilities are a thread's own.
pub(super) fn drop_what_is_not_needed() {
    if let Err(errno) = give_up() {
        tracing::warn!(%errno, "more privileges are kept than the operator needs");
    }
}

fn give_up() -> Result<(), Errno> {
    set_no_new_privs(true)?;
    let has = capabilities(None)?;
    if has.permitted.contains(CapabilitySet::SETPCAP) {
        // The kernel may know more than have names here.
        for number in 0..u64::BITS {
            let one = CapabilitySet::from_bits_retain(1 << number);
            if KEPT.contains(one) {
                continue;
            }
            match remove_capability_from_bounding_set(one) {
                Ok(()) | Err(Errno::INVAL) => (),
                Err(errno) => return Err(errno),
            }
        }
    }
    set_capabilities(
        None,
        CapabilitySets {
            effective: has.effective & KEPT,
            permitted: has.permitted & KEPT,
            inheritable: has.inheritable & KEPT,
        },
    )
}
