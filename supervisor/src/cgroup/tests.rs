//! The layout from what kernels say, and real groups where this machine lets us make them.

use std::process::{Command, Stdio};

use super::*;

const HYBRID_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:3 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw";

#[test]
fn trees_are_found_where_we_are_in_them() {
    let own = "8:pids:/\n4:memory:/a/b\n1:cpu,cpuacct:/c\n0::/";
    let layout = layout::find(HYBRID_MOUNTS, own, "x").unwrap();
    assert_eq!(layout.v2, Path::new("/sys/fs/cgroup/unified/x"));
    let dirs: Vec<_> = layout.hybrid.iter().map(|(name, dir)| (*name, dir.to_str().unwrap())).collect();
    let expected = [
        ("cpu", "/sys/fs/cgroup/cpu,cpuacct/c/x"),
        ("memory", "/sys/fs/cgroup/memory/a/b/x"),
        ("pids", "/sys/fs/cgroup/pids/x"),
    ];
    assert_eq!(dirs, expected);
    let v2 = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate";
    let layout = layout::find(v2, "0::/system.slice/agentapi.service", "x").unwrap();
    assert!(layout.hybrid.is_empty());
    assert_eq!(layout.v2, Path::new("/sys/fs/cgroup/system.slice/agentapi.service/x"));
    // A container that sees its part of the hierarchy only.
    let part = "30 23 0:26 /docker/1 /sys/fs/cgroup rw - cgroup2 cgroup2 rw";
    assert_eq!(layout::find(part, "0::/docker/1/y", "x").unwrap().v2, Path::new("/sys/fs/cgroup/y/x"));
    let lacking: String = HYBRID_MOUNTS.lines().filter(|line| !line.contains("rw,pids")).collect::<Vec<_>>().join("\n");
    assert_eq!(layout::find(&lacking, own, "x"), None);
    assert_eq!(layout::find("", own, "x"), None);
}

#[test]
fn each_limit_is_written_and_an_absent_one_is_not() {
    let session = SessionId::generate();
    let all = Limits {
        memory_bytes: Some(1 << 30),
        pids: Some(64),
        cpu_percent: Some(50),
        disk_bytes: Some(1),
        io_bytes_per_second: Some(1_000_000),
    };
    let values = |layout: &Layout, limits: &Limits| {
        let name = |write: &Write| write.file.file_name().unwrap().to_str().unwrap().to_owned();
        layout
            .plan(session, limits, Some((8, 0)))
            .writes
            .iter()
            .map(|w| format!("{}={}", name(w), w.value))
            .collect::<Vec<_>>()
    };
    let v2 = layout::find("30 23 0:26 / /c rw - cgroup2 cgroup2 rw", "0::/", "x").unwrap();
    let expected = [
        "cgroup.subtree_control=+memory +pids +cpu +io",
        "memory.max=1073741824",
        "memory.swap.max=0",
        "memory.oom.group=1",
        "pids.max=64",
        "cpu.max=50000 100000",
        "io.max=8:0 rbps=1000000 wbps=1000000",
    ];
    assert_eq!(values(&v2, &all), expected);
    assert!(values(&v2, &Limits::default()).is_empty());
    let hybrid = layout::find(HYBRID_MOUNTS, "0::/", "x").unwrap();
    let expected = [
        "memory.limit_in_bytes=1073741824",
        "memory.memsw.limit_in_bytes=1073741824",
        "pids.max=64",
        "cpu.cfs_period_us=100000",
        "cpu.cfs_quota_us=50000",
    ];
    assert_eq!(values(&hybrid, &all), expected);
}

/// A tree of a test's own, which goes with it also when that fails.
struct Real {
    dir: PathBuf,
    groups: Cgroups,
}

impl Drop for Real {
    fn drop(&mut self) {
        self.groups.sweep(&[]);
        self.groups.close();
        let _gone = fs::remove_dir(&self.dir);
    }
}

/// None where the machine lets us make no groups.
fn real() -> Option<Real> {
    let dir = std::env::temp_dir().join(format!("agentapi-cgroup-{}", SessionId::generate()));
    fs::create_dir(&dir).unwrap();
    let real = Real { groups: Cgroups::open(&dir), dir };
    if real.groups.control() == Control::None {
        assert!(!nix::unistd::geteuid().is_root(), "root can make groups wherever these tests run");
        return None;
    }
    Some(real)
}

/// What the shim and the supervisor do with init.
fn enter(place: &Place, child: &std::process::Child) {
    write(&place.layout.work(place.session).join("cgroup.procs"), &child.id().to_string()).unwrap();
    place.attach(i32::try_from(child.id()).unwrap()).unwrap();
}

#[test]
fn processes_are_limited_and_all_of_them_are_gone_afterwards() {
    let Some(real) = real() else { return };
    let groups = &real.groups;
    let session = SessionId::generate();
    let limits = Limits { pids: Some(20), memory_bytes: Some(64 << 20), ..Limits::default() };
    let place = groups.make(session, &limits).unwrap().unwrap();
    // Waits for its group, then starts children that ignore every signal they can, in sessions of their own, more than it may.
    let script = "read go; for n in $(seq 40); do setsid sh -c 'trap \"\" HUP INT TERM; sleep 1000' & done 2>&1; echo done; sleep 1000";
    let mut child = Command::new("sh")
        .args(["-c", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    enter(&place, &child);
    let work = place.layout.work(session);
    drop(child.stdin.take());
    let pids = place.layout.hybrid.get("pids").map_or_else(|| work.clone(), |dir| dir.join(session.to_string()));
    let deadline = Instant::now() + Duration::from_secs(20);
    let read = |name: &str| fs::read_to_string(pids.join(name)).unwrap().trim().to_owned();
    while read("pids.events") == "max 0" {
        assert!(Instant::now() < deadline, "no fork was refused: {}", read("pids.current"));
        std::thread::yield_now();
    }
    assert!(read("pids.current").parse::<u32>().unwrap() <= 20);
    groups.clear(session).unwrap();
    assert!(!place.layout.dirs(session).iter().any(|dir| dir.exists()));
    let status = child.wait().unwrap();
    assert!(!status.success());
    groups.close();
    assert!(!place.layout.v2.exists());
}

#[test]
fn what_a_crash_has_left_is_swept_and_what_lives_is_not() {
    let Some(real) = real() else { return };
    let groups = &real.groups;
    let (living, dead) = (SessionId::generate(), SessionId::generate());
    let mut children = Vec::new();
    for session in [living, dead] {
        let place = groups.make(session, &Limits::default()).unwrap().unwrap();
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        enter(&place, &child);
        children.push(child);
    }
    // As the next supervisor finds it.
    Cgroups::open(&real.dir).sweep(&[living]);
    assert!(!children[1].wait().unwrap().success());
    assert!(children[0].try_wait().unwrap().is_none());
    groups.sweep(&[]);
    assert!(!children[0].wait().unwrap().success());
}

#[test]
fn a_look_leaves_the_tree_of_a_daemon_and_a_tree_that_was_taken_away_is_made_again() {
    let Some(real) = real() else { return };
    let groups = &real.groups;
    let root = groups.layout.as_ref().unwrap().v2.clone();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let look = Cgroups::look(&real.dir);
    assert_eq!(look.control(), groups.control());
    assert_ne!(look.layout.as_ref().unwrap().v2, root);
    look.close();
    assert!(!look.layout.as_ref().unwrap().v2.exists());
    assert!(root.exists());
    assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), own);
    groups.close();
    assert!(!root.exists());
    let session = SessionId::generate();
    let limits = Limits { pids: Some(20), ..Limits::default() };
    assert!(groups.make(session, &limits).unwrap().is_some());
    groups.clear(session).unwrap();
}

#[test]
fn groups_that_another_user_left_are_replaced_while_they_are_empty() {
    const OTHER: u32 = 424_242;
    let Some(real) = real() else { return };
    let owners = || {
        let roots = real.groups.layout.iter().flat_map(Layout::roots);
        roots.map(|root| fs::metadata(root).unwrap().uid()).collect::<Vec<_>>()
    };
    let give = || {
        for root in real.groups.layout.iter().flat_map(Layout::roots) {
            std::os::unix::fs::chown(root, Some(OTHER), None).unwrap();
        }
    };
    let own = owners();
    give();
    assert_ne!(Cgroups::open(&real.dir).control(), Control::None);
    assert_eq!(owners(), own);
    give();
    let root = real.groups.layout.as_ref().unwrap().v2.clone();
    fs::create_dir(root.join(SessionId::generate().to_string())).unwrap();
    let error = Cgroups::find(&real.dir, Purpose::Serve).unwrap_err().to_string();
    assert!(error.contains(&format!("find {} -depth", root.display())) && error.contains("user 424242"), "{error}");
}

#[test]
fn swap_that_cannot_be_limited_is_none_only_where_the_host_has_none() {
    let heading = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";
    assert!(!has_swap("") && !has_swap(heading));
    assert!(has_swap(&format!("{heading}/dev/dm-1                               partition\t999420\t\t0\t\t-2\n")));
}
