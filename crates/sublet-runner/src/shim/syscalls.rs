//! The system calls that a job is refused.
//!
//! A deny list: numerical programs use many calls, and a list of allowed ones would break them at random. What stands
//! here is what changes the machine, looks into other processes, opens new namespaces, or has a long record of kernel
//! faults. Refused calls fail with EPERM so that programs can go on; only what no honest program tries ends the job.
//!
//! `clone3` is answered with ENOSYS, because its flags cannot be inspected and libraries then fall back to `clone`.
//! The filters also refuse the second numbering of x86-64 system calls (x32), through which a deny list could be passed.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
    sock_filter,
};

const EPERM: u32 = 1;
const ENOSYS: u32 = 38;
const EAFNOSUPPORT: u32 = 97;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Loading code into the kernel, replacing it, or stopping the machine.
const FATAL: [i64; 8] = [
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapoff,
    libc::SYS_swapon,
];

const REFUSED: [i64; 49] = [
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_adjtimex,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_fanotify_init,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kcmp,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_migrate_pages,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_move_pages,
    libc::SYS_name_to_handle_at,
    libc::SYS_nfsservctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_personality,
    libc::SYS_pidfd_getfd,
    libc::SYS_pivot_root,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_remap_file_pages,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_settimeofday,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
    libc::SYS_vmsplice,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: [i64; 6] =
    [libc::SYS__sysctl, libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS_ustat];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: [i64; 0] = [];

/// Injecting terminal input, by the two calls that can.
const REFUSED_IOCTLS: [u64; 2] = [0x5412, 0x541C];

/// Every bit that asks `clone` for a namespace.
const NAMESPACE_FLAGS: [u64; 8] =
    [0x0000_0080, 0x0002_0000, 0x0200_0000, 0x0400_0000, 0x0800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000];

/// Unix, IPv4, IPv6 and the routing socket that name resolution opens. All live in the job's own network namespace;
/// others, such as the one that reaches the hypervisor, need not.
const SOCKET_FAMILIES: [u64; 4] = [1, 2, 10, 16];

/// Puts the filters in force for this process and all it will start.
pub fn confine() -> Outcome<()> {
    for program in programs()? {
        seccompiler::apply_filter(&program)?;
    }
    Ok(())
}

fn programs() -> Outcome<Vec<BpfProgram>> {
    let fatal = FATAL.iter().map(|number| (*number, Vec::new())).collect();
    let missing = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut programs = vec![
        compile(sockets()?, SeccompAction::Errno(EAFNOSUPPORT))?,
        compile(missing, SeccompAction::Errno(ENOSYS))?,
        compile(refused()?, SeccompAction::Errno(EPERM))?,
        compile(fatal, SeccompAction::KillProcess)?,
    ];
    if cfg!(target_arch = "x86_64") {
        programs.push(second_numbering());
    }
    Ok(programs)
}

fn compile(rules: Rules, action: SeccompAction) -> Outcome<BpfProgram> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    Ok(SeccompFilter::new(rules, SeccompAction::Allow, action, architecture)?.try_into()?)
}

fn refused() -> Outcome<Rules> {
    let mut rules: Rules = REFUSED.iter().chain(&REFUSED_HERE).map(|number| (*number, Vec::new())).collect();
    let mut ioctls = Vec::new();
    for request in REFUSED_IOCTLS {
        // The kernel looks at 32 bits of the request; so does the rule, or the upper half could hide it.
        ioctls.push(SeccompRule::new(vec![SeccompCondition::new(1, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, request)?])?);
    }
    rules.insert(libc::SYS_ioctl, ioctls);
    let mut clones = Vec::new();
    for flag in NAMESPACE_FLAGS {
        let asks = SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)?;
        clones.push(SeccompRule::new(vec![asks])?);
    }
    rules.insert(libc::SYS_clone, clones);
    Ok(rules)
}

fn sockets() -> Outcome<Rules> {
    let mut other = Vec::new();
    for family in SOCKET_FAMILIES {
        other.push(SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Ne, family)?);
    }
    let rule = SeccompRule::new(other)?;
    Ok(BTreeMap::from([(libc::SYS_socket, vec![rule.clone()]), (libc::SYS_socketpair, vec![rule])]))
}

/// Four instructions of classic BPF: load the call's number; from 2^30 on answer EPERM, else allow.
fn second_numbering() -> BpfProgram {
    const LOAD_WORD_ABSOLUTE: u16 = 0x20;
    const JUMP_IF_GREATER_OR_EQUAL: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const ALLOW: u32 = 0x7fff_0000;
    const ERROR: u32 = 0x0005_0000;
    vec![
        sock_filter { code: LOAD_WORD_ABSOLUTE, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_IF_GREATER_OR_EQUAL, jt: 0, jf: 1, k: 0x4000_0000 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ERROR | EPERM },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: ALLOW },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_filter_compiles() {
        let programs = programs().unwrap();
        assert_eq!(programs.len(), 4 + usize::from(cfg!(target_arch = "x86_64")));
        assert!(programs.iter().all(|program| !program.is_empty()));
    }
}
