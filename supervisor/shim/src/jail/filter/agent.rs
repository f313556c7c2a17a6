//! What an agent and all that it starts may ask of the kernel: what programs need, without what opens a way out or a large part of the kernel
//! that no tool of a developer misses.

use std::collections::BTreeMap;

use agentapi_shared::jail::FilterStep;
use libc::sock_filter;
use nix::errno::Errno;

use super::bpf::{self, INIT, Look, SET_ID_BITS, Verdict};

/// Newest call that is known here (`mseal`, Linux 6.10). What is newer does not exist; libraries then do what they do on an older kernel. The
/// numbers of the x32 variant of x86-64 lie above as well.
const NEWEST: u32 = 462;

/// `fchmodat2`, not in every architecture's headers.
const FCHMODAT2: i64 = 452;

/// `CLONE_NEWNS`, `NEWCGROUP`, `NEWUTS`, `NEWIPC`, `NEWUSER`, `NEWPID`, `NEWNET`.
const NEW_NAMESPACES: u32 = 0x7e02_0000;
/// `CLONE_NEWTIME`, which only `unshare` takes: for `clone` these bits are the signal.
const NEW_TIME: u32 = 0x80;

/// Typing into a terminal as if its user did, taking over the console's messages, changing a terminal's driver.
const TERMINAL_REQUESTS: [u32; 4] = [
    0x5412, // TIOCSTI
    0x541c, // TIOCLINUX
    0x541d, // TIOCCONS
    0x5423, // TIOCSETD
];
/// The usual personality, a question for it, and the one without address randomization, which debuggers give their programs. The others take
/// away protections.
const PERSONALITIES: [u32; 3] = [0, 0xffff_ffff, 0x0004_0000];

/// `IOPRIO_WHO_USER`.
const IO_PRIORITY_OF_USER: u32 = 3;

/// Calls that must look as if the kernel did not have them, because then programs do without.
const ABSENT: &[i64] = &[
    // Flags and modes lie behind a pointer, which no filter can read: libraries fall back to clone and openat.
    libc::SYS_clone3,
    libc::SYS_openat2,
    // Opens files and sockets by itself, past every filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // statmount and listmount.
    457,
    458,
];

/// Calls that are refused.
const REFUSED: &[i64] = &[
    // Mounts and roots.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    // Namespaces, names of the host.
    libc::SYS_setns,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    // Programs and tables inside the kernel.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    // Keys, which belong to users and not to namespaces.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // The machine.
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_nfsservctl,
    libc::SYS_lookup_dcookie,
    // Clocks of the host.
    libc::SYS_clock_settime,
    libc::SYS_settimeofday,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    // Files past their paths, and watching all of a mount.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    // Into other processes.
    libc::SYS_kcmp,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    // Placement of memory, for machines with several memories; and pages that are shared with pipes or hidden from the kernel.
    libc::SYS_mbind,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    libc::SYS_set_mempolicy,
    libc::SYS_get_mempolicy,
    libc::SYS_set_mempolicy_home_node,
    libc::SYS_vmsplice,
    libc::SYS_memfd_secret,
    // Security modules: lsm_get_self_attr, lsm_set_self_attr, lsm_list_modules.
    459,
    460,
    461,
    // Long done by mmap.
    libc::SYS_remap_file_pages,
];

/// Refused as well: ports and tables of the processor, and old ones without a use left.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] =
    &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_uselib, libc::SYS_ustat, libc::SYS_sysfs];
#[cfg(target_arch = "aarch64")]
const REFUSED_HERE: &[i64] = &[];

/// Numbers that no call has on this architecture, by ranges.
#[cfg(target_arch = "x86_64")]
const HOLES: &[(u32, u32)] = &[(335, 423)];
#[cfg(target_arch = "aarch64")]
const HOLES: &[(u32, u32)] = &[(244, 259), (295, 423)];
/// What other kernels had: they say so themselves, and need not be asked.
#[cfg(target_arch = "x86_64")]
const GONE: &[u32] = &[
    156, // _sysctl
    174, // create_module
    177, // get_kernel_syms
    178, // query_module
    181, // getpmsg
    182, // putpmsg
    183, // afs_syscall
    184, // tuxcall
    185, // security
    214, // epoll_ctl_old
    215, // epoll_wait_old
    236, // vserver
];
#[cfg(target_arch = "aarch64")]
const GONE: &[u32] = &[];

/// Calls that only debuggers make.
const DEBUGGING: &[i64] = &[libc::SYS_ptrace, libc::SYS_process_vm_readv, libc::SYS_process_vm_writev];

/// The program.
pub(super) fn program(step: FilterStep) -> Result<Vec<sock_filter>, Errno> {
    bpf::program(&verdicts(step)?, &Verdict::Refuse(Errno::ENOSYS))
}

fn verdicts(step: FilterStep) -> Result<BTreeMap<u32, Verdict>, Errno> {
    let mut verdicts: BTreeMap<u32, Verdict> = (0..=NEWEST).map(|number| (number, Verdict::Allow)).collect();
    let holes = HOLES.iter().flat_map(|(first, last)| *first..=*last).chain(GONE.iter().copied());
    verdicts.extend(holes.map(|number| (number, Verdict::Refuse(Errno::ENOSYS))));
    let mut set = |number: i64, verdict: Verdict| {
        let number = u32::try_from(number).map_err(|_| Errno::EINVAL)?;
        verdicts.insert(number, verdict);
        Ok(())
    };
    for number in ABSENT {
        set(*number, Verdict::Refuse(Errno::ENOSYS))?;
    }
    for number in REFUSED.iter().chain(REFUSED_HERE) {
        set(*number, Verdict::Refuse(Errno::EPERM))?;
    }
    if step == FilterStep::Strict {
        for number in DEBUGGING {
            set(*number, Verdict::Refuse(Errno::EPERM))?;
        }
    }
    for (number, look) in looks() {
        set(number, Verdict::Look(look))?;
    }
    Ok(verdicts)
}

fn looks() -> Vec<(i64, Look)> {
    let mode = |argument| Look::Bits { argument, mask: SET_ID_BITS };
    let not_init = Look::AnyOf { argument: 0, refused: vec![INIT] };
    let mut looks = vec![
        // No set-user-ID and no set-group-ID file is made. Inside such bits have no effect, but a workspace of the host is written as its owner:
        // an agent could leave a program there that runs as that owner for whoever starts it on the host.
        (libc::SYS_fchmod, mode(1)),
        (libc::SYS_fchmodat, mode(2)),
        (FCHMODAT2, mode(2)),
        (libc::SYS_mknodat, mode(2)),
        (libc::SYS_openat, Look::OpenMode { flags: 2, mode: 3 }),
        // No new namespaces: inside one of users a process has every capability, and with it far more of the kernel within reach.
        (libc::SYS_clone, Look::Bits { argument: 0, mask: NEW_NAMESPACES }),
        (libc::SYS_unshare, Look::Bits { argument: 0, mask: NEW_NAMESPACES | NEW_TIME }),
        // The kernel takes the request as 32 bits, so its upper half must not be compared.
        (libc::SYS_ioctl, Look::AnyOf { argument: 1, refused: TERMINAL_REQUESTS.to_vec() }),
        (libc::SYS_socket, Look::Socket),
        (libc::SYS_socketpair, Look::NoneOf { argument: 0, allowed: vec![libc::AF_UNIX.cast_unsigned()] }),
        // Init has the agent's user, so the kernel would let an agent take away from it what it needs to end the session: its descriptors by a
        // limit, its share of the processor by a class or priority behind all the agent's own. Limits are set on oneself only; the scheduling
        // calls also name threads and children, so there it is init that is left out.
        (libc::SYS_prlimit64, Look::OwnLimits),
        (libc::SYS_setrlimit, Look::CoreLimit),
        (libc::SYS_sched_setscheduler, not_init.clone()),
        (libc::SYS_sched_setparam, not_init.clone()),
        (libc::SYS_sched_setattr, not_init.clone()),
        (libc::SYS_sched_setaffinity, not_init),
        (libc::SYS_setpriority, Look::Target { everyone: libc::PRIO_USER }),
        (libc::SYS_ioprio_set, Look::Target { everyone: IO_PRIORITY_OF_USER }),
        (libc::SYS_personality, Look::NoneOf { argument: 0, allowed: PERSONALITIES.to_vec() }),
    ];
    #[cfg(target_arch = "x86_64")]
    looks.extend([
        (libc::SYS_chmod, mode(1)),
        (libc::SYS_mknod, mode(1)),
        (libc::SYS_creat, mode(1)),
        (libc::SYS_open, Look::OpenMode { flags: 1, mode: 2 }),
    ]);
    looks
}
