//! Other users than root, and machines that forbid isolation. The tests run as root and become an ordinary user for this.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::PathBuf;
use std::process::{Command, Output};

use agentapi_tests::dir::TempDir;
use agentapi_tests::process::{Daemon, LOCAL_DEGRADED, binary, kill_survivors, processes, remove_groups};
use anyhow::Result;
use nix::sys::signal::Signal;

/// An ordinary user: no account, just a number that nobody else has.
const USER: u32 = 424_242;

/// A home directory of that user with the product's programs in it.
struct OrdinaryUser(TempDir);

impl OrdinaryUser {
    fn new() -> Result<Self> {
        assert!(nix::unistd::geteuid().is_root(), "these tests become an ordinary user, which only root can");
        let dir = TempDir::new();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755))?;
        for name in ["bin", "work"] {
            std::fs::create_dir(dir.path().join(name))?;
        }
        for name in ["agentapi", "agentapi-controlplane", "agentapi-supervisor", "agentapi-shim"] {
            // Where they were built an ordinary user may not be able to look.
            std::fs::copy(binary(name), dir.path().join("bin").join(name))?;
        }
        chown(dir.path(), Some(USER), Some(USER))?;
        chown(dir.path().join("work"), Some(USER), Some(USER))?;
        Ok(Self(dir))
    }

    fn work(&self) -> PathBuf {
        self.0.path().join("work")
    }

    fn data(&self) -> PathBuf {
        self.0.path().join("data")
    }

    /// Runs a shell script as that user, with `$PATH` to the product; `before` are words in front of the shell.
    fn script(&self, before: &[&str], script: &str) -> Result<Output> {
        let id = USER.to_string();
        let path = format!("{}:/usr/bin:/bin", self.0.path().join("bin").display());
        let output = Command::new("setpriv")
            .args(["--reuid", &id, "--regid", &id, "--clear-groups", "--"])
            .args(before)
            .args(["sh", "-c", script])
            .env_clear()
            .env("PATH", path)
            .env("HOME", self.0.path())
            .env("AGENTAPI_DATA_DIR", self.data())
            .current_dir(self.work())
            .output()?;
        Ok(output)
    }
}

impl Drop for OrdinaryUser {
    fn drop(&mut self) {
        let _ended = self.script(&[], "agentapi down");
        kill_survivors(&self.data());
        remove_groups(&self.data().join("supervisor"));
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn an_ordinary_user_gets_the_same_jail() -> Result<()> {
    let user = OrdinaryUser::new()?;
    let probe =
        "id -u; ls /root 2>&1; ls /proc | grep -c '^[0-9]'; grep CapEff /proc/self/status; touch made; echo shown";
    let script = format!(
        "agentapi up --detach --listen 127.0.0.1:0 && id=$(agentapi session create --workspace \"$PWD\" --wait -- sh -c \"{probe}; sleep 5001\") \
         && agentapi session wait $id --text shown --timeout 30 && agentapi session screen $id && agentapi down"
    );
    let output = user.script(&[], &script)?;
    let said = text(&output);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\n1000\nls: cannot access '/root'"), "{said}");
    assert!(said.contains("CapEff:\t0000000000000000") || said.contains("CapEff: 0000000000000000"), "{said}");
    assert_eq!(std::fs::metadata(user.work().join("made"))?.uid(), USER);
    assert!(!processes().iter().any(|process| process.command == "sleep 5001"));
    Ok(())
}

#[tokio::test]
async fn groups_that_root_left_under_the_number_of_the_directory_do_not_stop_an_ordinary_user() -> Result<()> {
    let user = OrdinaryUser::new()?;
    let state = user.data().join("supervisor");
    std::fs::create_dir_all(&state)?;
    let credential = user.0.path().join("credential");
    std::fs::write(&credential, r#"{"url":"ws://127.0.0.1:1/api/v1/link","token":"aah_test"}"#)?;
    let mut command = Command::new(binary("agentapi-supervisor"));
    command.arg("run").arg("--state-dir").arg(&state).arg("--credential-file").arg(&credential);
    command.env(LOCAL_DEGRADED.0, LOCAL_DEGRADED.1);
    let mut daemon = Daemon::start(command, &user.0.path().join("root.log"))?;
    daemon.line().await?;
    daemon.signal(Signal::SIGKILL)?;
    daemon.ended().await?;
    // The same directory, as if it were another one with its number: empty, and the user's.
    for entry in std::fs::read_dir(&state)? {
        let path = entry?.path();
        if path.is_dir() { std::fs::remove_dir_all(path)? } else { std::fs::remove_file(path)? }
    }
    for path in [user.data(), state] {
        chown(&path, Some(USER), Some(USER))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700))?;
    }
    let script = "agentapi up --detach --listen 127.0.0.1:0 && id=$(agentapi session create --wait -- sh -c 'echo shown; sleep 5001') \
         && agentapi session wait $id --text shown --timeout 30 && agentapi down";
    let output = user.script(&[], script)?;
    assert!(output.status.success(), "{}", text(&output));
    Ok(())
}

#[test]
fn a_machine_that_forbids_isolation_says_what_allows_it_and_starts_nothing() -> Result<()> {
    let user = OrdinaryUser::new()?;
    // A user namespace in which no further ones may be made is such a machine.
    let machine = ["unshare", "--user", "--map-current-user", "--keep-caps"];
    let forbid = "echo 0 > /proc/sys/user/max_user_namespaces; ";
    let output = user.script(&machine, &format!("{forbid} agentapi up --detach --listen 127.0.0.1:0"))?;
    let said = text(&output);
    assert!(!output.status.success(), "{said}");
    assert!(said.contains("sysctl -w user.max_user_namespaces=") && said.contains("--unsafe-no-jail"), "{said}");
    let script = format!(
        "{forbid} agentapi up --detach --listen 127.0.0.1:0 --unsafe-no-jail && \
         id=$(agentapi session create --wait -- sh -c 'setsid sleep 5101 & (setsid sleep 5101 &); echo shown; sleep 5101') && \
         agentapi session wait $id --text shown --timeout 30 && agentapi session stop $id && agentapi session show $id && agentapi down"
    );
    let output = user.script(&machine, &script)?;
    assert!(output.status.success(), "{}", text(&output));
    assert!(!processes().iter().any(|process| process.command == "sleep 5101"), "nothing is left, also without a jail");
    Ok(())
}
