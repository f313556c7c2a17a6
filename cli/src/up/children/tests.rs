//! The keeper with real processes: small shell scripts that behave as daemons do, or do not.

use super::*;

struct Script {
    dir: PathBuf,
}

impl Script {
    fn new() -> Self {
        let dir = std::env::temp_dir().join(format!("agentapi-daemon-{}", uuid::Uuid::now_v7()));
        std::fs::create_dir(&dir).unwrap();
        Self { dir }
    }

    /// A plan that runs shell code; `$LAST` is what it last said, `$DIR` a directory of its own.
    fn plan(&self, code: &str) -> DaemonPlan {
        let (code, dir) = (code.to_owned(), self.dir.clone());
        DaemonPlan {
            name: "daemon",
            program: "/bin/sh".into(),
            arguments: Box::new(move |last| {
                let last = last.map(|value| value["ready"].as_str().unwrap_or_default().to_owned()).unwrap_or_default();
                let script = format!("LAST='{last}'; DIR='{}'; {code}", dir.display());
                vec!["-c".into(), script.into()]
            }),
            // What cargo sets for every test.
            withheld: Some("CARGO_PKG_"),
            log: self.dir.join("daemon.log"),
        }
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.dir).unwrap();
    }
}

const SERVE: &str = "exec sleep 600";

#[tokio::test]
async fn what_is_withheld_does_not_reach_a_daemon() {
    assert!(std::env::var_os("CARGO_PKG_NAME").is_some(), "it would reach it");
    let script = Script::new();
    let group = TaskGroup::new();
    let code = format!("env | grep -c ^CARGO_PKG_ > $DIR/seen; echo '{{\"ready\":\"x\"}}'; {SERVE}");
    let daemon = Daemon::keep_running(script.plan(&code), None, &group);
    daemon.ready().await.unwrap();
    assert_eq!(std::fs::read_to_string(script.dir.join("seen")).unwrap().trim(), "0");
    daemon.stop().await;
}

#[tokio::test]
async fn a_killed_daemon_is_started_again_with_what_it_had() {
    let script = Script::new();
    let daemon = Daemon::keep_running(
        script.plan(&format!("echo '{{\"ready\":\"'x$LAST'\"}}'; {SERVE}")),
        None,
        &TaskGroup::new(),
    );
    assert_eq!(daemon.ready().await.unwrap()["ready"], "x");
    let first = daemon.status().borrow().pid.unwrap();
    kill(Pid::from_raw(i32::try_from(first).unwrap()), Signal::SIGKILL).unwrap();
    let mut status = daemon.status();
    let again = status.wait_for(|status| status.ready.is_some() && status.pid != Some(first)).await.unwrap().clone();
    assert_eq!((again.ready.unwrap()["ready"].as_str(), again.restarts), (Some("xx"), 1));
    daemon.stop().await;
    assert_eq!((status.borrow().pid, status.borrow().ended), (None, true));
}

#[tokio::test]
async fn one_that_dies_at_once_is_given_up_with_its_last_words() {
    let script = Script::new();
    let daemon = Daemon::keep_running(script.plan("echo 'port 3284 is taken' >&2; exit 3"), None, &TaskGroup::new());
    let words = daemon.ready().await.unwrap_err().to_string();
    assert!(words.contains("3 times in a row") && words.contains("port 3284 is taken"), "{words}");
    assert!(words.contains("exit status: 3"), "{words}");
    assert_eq!(daemon.failed().await.to_string(), words);
}

#[tokio::test]
async fn one_that_is_missing_is_named() {
    let script = Script::new();
    let mut plan = script.plan("");
    plan.program = script.dir.join("nothing");
    let words = Daemon::keep_running(plan, None, &TaskGroup::new()).ready().await.unwrap_err().to_string();
    assert!(words.contains("cannot be started") && words.contains("nothing"), "{words}");
}

#[tokio::test]
async fn the_callers_token_does_not_reach_it_and_its_parent_is_named() {
    let script = Script::new();
    let code = format!("echo \"$0 ${{AGENTAPI_TOKEN-none}}\" >&2; echo '{{\"ready\":1}}'; {SERVE}");
    let daemon = Daemon::keep_running(script.plan(&code), None, &TaskGroup::new());
    daemon.ready().await.unwrap();
    daemon.stop().await;
    let log = std::fs::read_to_string(script.dir.join("daemon.log")).unwrap();
    assert_eq!(log, "--exit-with-parent none\n");
}
