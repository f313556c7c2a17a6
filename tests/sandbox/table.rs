//! The list: what is attempted, by number, and where.

use std::collections::BTreeSet;
use std::process::Command;

use agentapi_tests::process::binary;
use anyhow::Result;

/// Where an attempt is made.
enum Made {
    /// By the probe: rows of this number in `sandbox-probe list`, run by `matrix`.
    Probe,
    /// By a test of its own: file and name.
    Test(&'static str, &'static str),
    /// Both.
    Both(&'static str, &'static str),
}

use Made::{Both, Probe, Test};

/// The tests' own text, to see that what is listed is there.
const FILES: [(&str, &str); 8] = [
    ("filesystem", include_str!("filesystem.rs")),
    ("process", include_str!("process.rs")),
    ("network", include_str!("network.rs")),
    ("tty", include_str!("tty.rs")),
    ("resources", include_str!("resources.rs")),
    ("credentials", include_str!("credentials.rs")),
    ("tenants", include_str!("tenants.rs")),
    ("steps", include_str!("steps.rs")),
];

const ATTEMPTS: [(u32, &str, Made); 81] = [
    (1, "read another session's files by their path on the host", Probe),
    (2, "leave the root by `..`, held directories, chroot", Probe),
    (3, "go through init's root and working directory", Probe),
    (
        4,
        "leave links for the host to follow",
        Test("filesystem", "links_that_a_session_leaves_are_followed_by_nobody_outside"),
    ),
    (5, "use a descriptor that was left open", Probe),
    (6, "open files by guessed handles", Probe),
    (7, "write to the system's directories", Probe),
    (8, "mount, unmount, remount, bind over a mask", Probe),
    (9, "make device nodes", Probe),
    (10, "gain ids or capabilities from a program's file, and make such files", Probe),
    (11, "link to a file of somebody else's", Probe),
    (12, "move files between trees with different rules", Probe),
    (13, "truncate and change what is only to be read", Probe),
    (14, "write to the program of init or of oneself", Probe),
    (15, "write settings of the kernel", Probe),
    (
        16,
        "put something else where a device or mask is expected",
        Both("filesystem", "a_device_that_is_not_what_its_name_says_stops_the_start"),
    ),
    (
        17,
        "exchange the workspace during the start",
        Test("filesystem", "a_workspace_that_is_exchanged_during_the_start_is_not_used"),
    ),
    (18, "unmount for the host", Both("filesystem", "mounts_of_a_session_are_not_the_hosts_and_are_gone_with_it")),
    (19, "plant hooks for tools of the host", Test("filesystem", "nothing_that_a_repository_plants_runs_on_the_host")),
    (20, "see and signal processes of the host", Probe),
    (21, "trace init, read its memory, take its descriptors", Probe),
    (22, "kill init, or take from it what it works with", Probe),
    (
        23,
        "outlive a stop: double forks, sessions, ignored signals",
        Test("process", "strays_that_hear_no_signal_are_gone_with_their_session"),
    ),
    (24, "make namespaces", Probe),
    (25, "enter namespaces of others", Probe),
    (26, "leave orphans that nobody takes in", Probe),
    (
        27,
        "profit from a killed supervisor or shim",
        Test("process", "a_killed_supervisor_leaves_a_session_and_a_killed_shim_takes_it"),
    ),
    (
        28,
        "leave something behind by a kill during the start",
        Test("steps", "a_start_that_is_killed_after_any_step_leaves_nothing"),
    ),
    (29, "be stopped when the end comes", Test("process", "stopped_processes_are_gone_with_their_session")),
    (30, "reach addresses directly: TCP, UDP, ICMP, both versions", Probe),
    (31, "reach addresses that tell machines their credentials", Probe),
    (
        32,
        "reach names that are not listed, in every disguise",
        Test("network", "a_name_that_is_not_listed_is_reached_in_no_disguise"),
    ),
    (
        33,
        "have a name mean another address the second time",
        Test("network", "the_address_that_was_checked_is_the_one_that_is_dialled"),
    ),
    (
        34,
        "ask for one name and shake hands with another",
        Test("network", "the_name_of_the_handshake_is_the_name_that_was_asked_for"),
    ),
    (35, "smuggle requests past the gateway", Test("network", "requests_cannot_be_smuggled")),
    (36, "open sockets of other families", Probe),
    (
        37,
        "reach another session's listener or the host's loopback",
        Test("tenants", "two_sessions_find_nothing_of_each_other"),
    ),
    (38, "carry data out in names", Test("network", "names_that_are_not_listed_are_asked_of_nobody")),
    (
        39,
        "hold all of the gateway's connections",
        Test("network", "connections_of_one_session_are_capped_and_others_are_served"),
    ),
    (40, "change interfaces and routes", Probe),
    (41, "connect to an abstract socket of the host", Probe),
    (42, "connect to the sockets of powerful daemons", Probe),
    (43, "use System V objects and message queues of the host", Probe),
    (44, "send descriptors to the shim's or supervisor's socket", Probe),
    (45, "read and add keys of the kernel's keyrings", Probe),
    (46, "meet others in /dev/shm and /tmp", Probe),
    (47, "type for others, change the line, take the console", Probe),
    (48, "open terminals and devices of others", Probe),
    (49, "have the terminal type what it was told", Test("tty", "a_terminal_repeats_nothing_that_a_program_told_it")),
    (
        50,
        "have a viewer that leaves type something",
        Test("tty", "viewers_that_come_and_go_type_nothing_and_end_nothing"),
    ),
    (51, "set sizes that no window has", Test("tty", "sizes_that_no_window_has_harm_nobody")),
    (52, "end with the last viewer", Test("tty", "viewers_that_come_and_go_type_nothing_and_end_nothing")),
    (53, "call every number, x32 and the 32-bit gate", Probe),
    (54, "io_uring", Probe),
    (55, "bpf, userfaultfd, perf, keyctl", Probe),
    (56, "read what the kernel tells about itself", Probe),
    (57, "personality with executable data", Probe),
    (58, "have capabilities, new privileges, a dumpable init", Probe),
    (59, "sandboxes within the sandbox fail, and say so", Probe),
    (60, "fork without end", Probe),
    (61, "take memory without end, in every kind", Probe),
    (62, "burn on every core", Test("resources", "burning_on_every_core_gets_no_more_than_its_share")),
    (63, "fill /tmp and the session's disk, their bytes and their inodes", Probe),
    (64, "open files without end", Probe),
    (65, "open terminals without end", Probe),
    (
        66,
        "print without end while nobody reads",
        Test("resources", "output_that_nobody_reads_costs_neither_memory_nor_disk"),
    ),
    (67, "queue signals, messages, locked memory without end", Probe),
    (
        68,
        "leave what is hard to remove",
        Test("resources", "what_a_session_leaves_is_removed_in_time_and_links_are_not_followed"),
    ),
    (69, "keep the disk busy", Test("resources", "a_disk_is_kept_busy_no_more_than_its_session_may")),
    (70, "timers and network namespaces without end", Probe),
    (
        71,
        "find a credential in environments, arguments, files, memory",
        Both("credentials", "no_process_around_an_agent_holds_what_the_supervisor_holds"),
    ),
    (
        72,
        "have the gateway send the key to another host",
        Test("network", "the_models_key_goes_to_the_model_and_nowhere_else"),
    ),
    (
        73,
        "have an error or a redirect show the key",
        Test("network", "the_models_key_goes_to_the_model_and_nowhere_else"),
    ),
    (74, "leave a core with secrets", Both("credentials", "neither_agent_nor_shim_leaves_its_memory_behind")),
    (75, "inherit the supervisor's environment", Probe),
    (76, "find a private key", Probe),
    (
        77,
        "find anything of another session, knowing its names",
        Test("tenants", "two_sessions_find_nothing_of_each_other"),
    ),
    (
        78,
        "own what a former session left",
        Test("tenants", "a_slot_that_is_used_again_owns_nothing_of_its_former_session"),
    ),
    (
        79,
        "speak to another session's shim, or name a session that is not there",
        Test("tenants", "nobody_but_the_supervisor_speaks_to_a_shim"),
    ),
    (
        80,
        "be linked to another session by a race or a fault",
        Test("tenants", "many_starts_and_stops_with_faults_leave_nothing_linked"),
    ),
    (81, "slow others by being at every limit", Test("tenants", "a_neighbour_at_all_its_limits_does_not_slow_a_start")),
];

#[test]
fn every_number_has_its_attempt() -> Result<()> {
    let output = Command::new(binary("sandbox-probe")).arg("list").output()?;
    let rows = String::from_utf8(output.stdout)?;
    let probed: BTreeSet<u32> = rows.lines().filter_map(|line| line.split(' ').next()?.parse().ok()).collect();
    let mut wrong = Vec::new();
    for (index, (number, what, made)) in ATTEMPTS.iter().enumerate() {
        assert_eq!(usize::try_from(*number)?, index + 1, "numbers stand in their order");
        let by_probe = matches!(made, Probe | Both(..));
        if by_probe && !probed.contains(number) {
            wrong.push(format!("{number} {what}: the probe has no such row"));
        }
        match made {
            Test(file, name) | Both(file, name) => {
                let text = FILES.iter().find(|(of, _)| of == file).map_or("", |(_, text)| *text);
                let at = text.find(&format!("async fn {name}("));
                let is_test = at.is_some_and(|at| text[..at].trim_end().ends_with("#[tokio::test]"));
                if !is_test {
                    wrong.push(format!("{number} {what}: no test {name} in {file}.rs"));
                }
            }
            Probe => {}
        }
    }
    let listed: BTreeSet<u32> = ATTEMPTS.iter().map(|(number, ..)| *number).collect();
    wrong.extend(
        probed.difference(&listed).map(|number| format!("{number}: the probe has rows for it, the list has not")),
    );
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}
