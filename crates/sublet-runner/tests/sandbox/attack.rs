//! Jobs that try to get at what is not theirs.

use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use sublet_core::runner::{Exit, Runner};
use sublet_core::time::DurationMs;

use crate::lab::{Lab, Setup, job, perl, shell};

/// Looks for a token in everything a job can read that could hold it. The token is put together from two halves, so that
/// the search does not find itself.
const SEARCH: &str = "first=SECRET; second=TOKEN; \
    grep -rals \"$first$second\" /work /tmp /run /dev/shm /home /root /var /etc /proc/[0-9]*/environ /proc/[0-9]*/cmdline";

#[test]
fn nothing_of_another_tenant_can_be_found() {
    let lab = Lab::new();
    let mut victim = shell(
        "victim",
        "echo SECRETTOKEN > own; echo SECRETTOKEN > /tmp/own; echo SECRETTOKEN > /dev/shm/own; \
                                      echo SECRETTOKEN; exec sleep 1000",
    );
    victim.environment.insert("PASSWORD".into(), "SECRETTOKEN".into());
    victim.files.insert("placed".into(), b"SECRETTOKEN".to_vec());
    lab.runner.place(&victim).unwrap();
    lab.until_logged(&victim.attempt, "SECRETTOKEN");

    let state = lab.directory.path().display();
    let attack = format!(
        "{SEARCH}; for f in {state} {state}/intervals.log {state}/attempts/att_victim/log {state}/attempts/att_victim/disk.img \
         /etc/shadow /proc/1/environ /proc/1/root /proc/1/cwd /proc/1/fd /proc/1/mem /proc/2/../1/maps /dev/loop0 /dev/mem; do \
         cat $f 2>/dev/null && echo got $f; ls $f/. 2>/dev/null && echo listed $f; done; ls -A /work /tmp /home /root /sys; echo done"
    );
    let (exit, log) = lab.run(&shell("thief", &attack));
    assert_eq!(exit, Exit::Code { code: 0 });
    assert_eq!(log, "/home:\n\n/root:\n\n/sys:\n\n/tmp:\n\n/work:\ndone\n");

    let mut control = shell("control", SEARCH);
    control.files.insert("planted".into(), b"SECRETTOKEN".to_vec());
    control.environment.insert("PLANTED".into(), "SECRETTOKEN".into());
    let (_, log) = lab.run(&control);
    assert!(log.contains("/planted") && log.contains("/proc/2/environ"), "the search finds what can be found: {log}");
    lab.runner.stop(&victim.attempt, DurationMs::ZERO).unwrap();
}

#[test]
fn nothing_can_be_reached_over_a_network() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = tcp.local_addr().unwrap().port();
    let name = format!("sublet-test-{port}");
    let local = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
    tcp.accept().unwrap();
    let script = format!(
        "use Socket;\n\
         sub try {{ my ($what, $family, $address) = @_; socket(my $s, $family, SOCK_STREAM, 0) or do {{ print \"$what: no socket\\n\"; return }};\n\
           print \"$what: \", (connect($s, $address) ? 'REACHED' : 'unreachable'), \"\\n\" }}\n\
         try('loopback', PF_INET, pack_sockaddr_in({port}, inet_aton('127.0.0.1')));\n\
         try('metadata', PF_INET, pack_sockaddr_in(80, pack('C4', 169, 254, 169, 254)));\n\
         try('outside', PF_INET, pack_sockaddr_in(53, pack('C4', 192, 0, 2, 1)));\n\
         try('abstract', PF_UNIX, pack('Sa*', 1, \"\\0{name}\"));\n\
         socket(my $u, PF_INET, SOCK_DGRAM, 0); print 'datagram: ', (defined send($u, 'x', 0, pack_sockaddr_in(53, pack('C4', 192, 0, 2, 1))) ? 'SENT' : 'unreachable'), \"\\n\";\n\
         print 'hypervisor: ', (socket(my $v, 40, SOCK_STREAM, 0) ? 'SOCKET' : $!+0), \"\\n\";\n\
         print 'packets: ', (socket(my $p, 17, SOCK_RAW, 0) ? 'SOCKET' : $!+0), \"\\n\";\n\
         print 'raw: ', (socket(my $r, PF_INET, SOCK_RAW, 1) ? 'SOCKET' : 'refused'), \"\\n\";\n\
         socket(my $l, PF_INET, SOCK_STREAM, 0); print 'listen: ', (bind($l, pack_sockaddr_in(0, INADDR_ANY)) ? 'BOUND' : $!+0), \"\\n\";"
    );
    let lab = Lab::new();
    let (_, log) = lab.run(&perl("network", &script));
    let expected = "loopback: unreachable\nmetadata: unreachable\noutside: unreachable\nabstract: unreachable\ndatagram: unreachable\n\
                    hypervisor: 97\npackets: 97\nraw: refused\nlisten: 13\n";
    assert_eq!(log, expected);
    tcp.set_nonblocking(true).unwrap();
    assert_eq!(tcp.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody knocked");
    local.set_nonblocking(true).unwrap();
    assert_eq!(local.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "nobody knocked");
    let (_, interfaces) = lab.run(&shell("interfaces", "tail -n +3 /proc/net/dev | cut -d: -f1"));
    assert_eq!(interfaces.trim(), "lo");
}

#[cfg(target_arch = "x86_64")]
#[test]
fn calls_that_change_the_machine_or_look_into_others_are_refused() {
    let lab = Lab::new();
    let calls = [
        ("mount", 165, "'none','/work','tmpfs',0,0", 1),
        ("umount2", 166, "'/proc',2", 1),
        ("unshare user", 272, "0x10000000", 1),
        ("unshare mount", 272, "0x20000", 1),
        ("setns", 308, "0,0", 1),
        ("clone user", 56, "0x10000011,0,0,0,0", 1),
        ("clone3", 435, "0,0", 38),
        ("ptrace init", 101, "16,1,0,0", 1),
        ("ptrace self", 101, "0,0,0,0", 1),
        ("process_vm_readv", 310, "1,0,0,0,0,0", 1),
        ("pidfd_getfd", 438, "0,0,0", 1),
        ("bpf", 321, "0,0,0", 1),
        ("keyctl", 250, "0,0,0", 1),
        ("add_key", 248, "0,0,0,0,0", 1),
        ("perf_event_open", 298, "0,0,0,0,0", 1),
        ("userfaultfd", 323, "0", 1),
        ("io_uring_setup", 425, "1,0", 1),
        ("open_by_handle_at", 304, "0,0,0", 1),
        ("chroot", 161, "'/work'", 1),
        ("pivot_root", 155, "'/work','/work'", 1),
        ("fsopen", 430, "'tmpfs',0", 1),
        ("mount_setattr", 442, "0,0,0,0,0", 1),
        ("sethostname", 170, "'x',1", 1),
        ("syslog", 103, "3,0,0", 1),
        ("iopl", 172, "3", 1),
        ("modify_ldt", 154, "0,0,0", 1),
        ("inject input", 16, "0,0x5412,0", 1),
        ("inject input, disguised", 16, "0,0xff00005412,0", 1),
        ("second numbering", 0x4000_0000 + 272, "0x10000000", 1),
    ];
    let mut script = "$| = 1;\n".to_owned();
    let mut expected = String::new();
    for (name, number, arguments, errno) in calls {
        // Perl passes literals as pointers if they are strings and as numbers if they are not.
        script += &format!("my @a = ({arguments}); print '{name} ', syscall({number}, @a), ' ', $!+0, \"\\n\";\n");
        expected += &format!("{name} -1 {errno}\n");
    }
    let (exit, log) =
        lab.run(&perl("calls", &format!("{script}; syscall(56, 17, 0, 0, 0, 0) || exit 0; print \"clone works\\n\"")));
    assert_eq!((exit, log), (Exit::Code { code: 0 }, expected + "clone works\n"));
    let (exit, _) = lab.run(&perl("kexec", "syscall(246, 0, 0, 0, 0); print 'still here'"));
    assert_eq!(exit, Exit::Signal { signal: 31 }, "what no honest program tries ends the job");
}

#[test]
fn only_own_processes_exist_and_no_other_can_be_signalled() {
    let lab = Lab::new();
    let host = std::process::id();
    let script = format!(
        "kill -0 {host} 2>/dev/null && echo reached the host; kill -9 -1 & wait; kill -KILL 1; kill -TERM 1; \
         ls /proc | grep -c '^[0-9]'; cat /proc/1/cmdline | tr '\\0' ' '; echo; grep -E '^(Uid|CapEff|CapBnd|NoNewPrivs)' /proc/self/status"
    );
    // The first shell survives `kill -9 -1`, which spares its sender: a child of its own.
    let (_, log) = lab.run(&shell("kill", &script.replace("kill -9 -1 & wait; ", "")));
    let uid = "Uid:\t1000\t1000\t1000\t1000\nCapEff:\t0000000000000000\nCapBnd:\t0000000000000000\nNoNewPrivs:\t1\n";
    let own = log.lines().find(|line| line.parse::<u32>().is_ok());
    assert!(own.is_some_and(|count| count.parse::<u32>().unwrap() <= 5), "{log}");
    assert!(!log.contains("reached"), "{log}");
    assert!(log.contains("sublet __sandbox"), "init says nothing about the host: {log}");
    assert!(log.ends_with(uid), "{log}");
}

#[test]
fn nothing_of_the_host_can_be_written() {
    let lab = Lab::new();
    let script = "for f in / /usr /usr/bin /etc /dev /proc/sys/kernel /run /run/sublet /sys /var; do touch $f/x 2>/dev/null && echo wrote $f; done; \
                  for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/1/oom_score_adj /proc/sys/vm/overcommit_memory; do \
                  (echo 0 > $f) 2>/dev/null && test -s $f && echo wrote $f; done; \
                  find / -name 'cgroup.procs' 2>/dev/null; find / -name docker.sock 2>/dev/null; mknod disk b 7 0 2>/dev/null && echo made a device; \
                  cat /proc/self/cgroup | cut -d: -f3 | sort -u; cat /proc/kcore /proc/keys /proc/partitions /proc/kallsyms 2>/dev/null | wc -c";
    let (_, log) = lab.run(&shell("write", script));
    assert_eq!(log, "/\n0\n");
}

#[test]
fn a_setuid_program_gives_nothing() {
    let tools = tempfile::tempdir_in("/opt").unwrap();
    let program = tools.path().join("become-root");
    std::fs::set_permissions(tools.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    // Not written by this process: what another test starts meanwhile would have it open for writing.
    let made = Command::new("install").args(["--mode=4755", "/usr/bin/id"]).arg(&program).status().unwrap();
    assert!(made.success());
    let outside = Command::new(&program).arg("-u").uid(65_534).gid(65_534).output().unwrap();
    assert_eq!(outside.stdout, b"0\n", "outside the sandbox it does give root");
    let lab = Lab::with(Setup { extra_toolchain: vec![tools.path().to_owned()], ..Setup::default() });
    let (exit, log) = lab.run(&job("setuid", &[program.to_str().unwrap(), "-u"]));
    assert_eq!((exit, log.as_str()), (Exit::Code { code: 0 }, "1000\n"));
}

#[test]
fn no_descriptor_of_the_runner_is_inherited() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "SECRETTOKEN").unwrap();
    // Without close-on-exec, as a careless library would open it.
    let leaked = rustix::fs::open(secret.path(), rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    let lab = Lab::new();
    let (_, log) = lab.run(&shell("descriptors", "ls /proc/$$/fd; for n in 0 1 2; do readlink /proc/$$/fd/$n | cut -d: -f1; done"));
    assert_eq!(log, "0\n1\n2\n/dev/null\npipe\npipe\n");
    drop(leaked);
}

#[test]
fn two_jobs_do_not_share_a_user_and_cannot_meet_in_memory() {
    let lab = Lab::new();
    let maps = "cut -c12-22 /proc/self/uid_map; touch /dev/shm/mine; ls /dev/shm; ls /tmp; echo ready; exec sleep 1000";
    let (one, two) = (shell("shareone", maps), shell("sharetwo", maps));
    for spec in [&one, &two] {
        lab.runner.place(spec).unwrap();
        lab.until_logged(&spec.attempt, "ready");
    }
    let (first, second) = (lab.log(&one.attempt), lab.log(&two.attempt));
    assert_ne!(first, second, "the host users differ");
    for log in [first, second] {
        assert!(log.lines().skip(1).eq(["mine", "ready"]), "{log}");
    }
    let owners: Vec<PathBuf> = lab.groups(&one.attempt);
    assert!(!owners.is_empty());
    for spec in [&one, &two] {
        lab.runner.stop(&spec.attempt, DurationMs::ZERO).unwrap();
    }
}
