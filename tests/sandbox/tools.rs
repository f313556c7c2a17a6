//! Real tools inside a jail: what the sandbox must not break.

use std::fs;

use agentapi_tests::wait::{eventually, slowness};
use anyhow::Result;

use crate::scene::Scene;

/// Runs a script in a jail; what it wrote, once it is over.
async fn in_jail(name: &str, script: &str) -> Result<String> {
    let mut scene = Scene::new().await?;
    let script = format!("exec > output 2>&1; set -e; {script}; echo finished");
    let running = scene.run(name, &["bash", "-c", &script]).await?;
    let report = scene.link.report(running.session, agentapi_shared::SpawnState::Exited).await?;
    let output = running.workspace.join("output");
    let text = eventually("its output is there", || async { fs::read_to_string(&output).ok() }).await;
    assert!(text.ends_with("finished\n"), "{report:?}\n{text}");
    Ok(text)
}

#[tokio::test]
async fn git_clones_and_commits() -> Result<()> {
    let script = "git init -q origin; cd origin; git config user.email a@example.com; git config user.name a; echo text > file; \
                  git add .; git commit -qm one; cd ..; git clone -q origin copy; cd copy; git log --oneline; git status --short; git worktree add -q ../tree; git gc -q";
    in_jail("git", script).await.map(drop)
}

#[tokio::test]
async fn gcc_builds_what_runs() -> Result<()> {
    let script = r#"printf '#include <stdio.h>\n#include <pthread.h>\nvoid *f(void *p){return p;}int main(){pthread_t t;pthread_create(&t,0,f,0);pthread_join(t,0);puts("hello from C");}' > a.c; gcc -O1 -pthread -o a a.c; ./a"#;
    let output = in_jail("gcc", script).await?;
    assert!(output.contains("hello from C"));
    Ok(())
}

#[tokio::test]
async fn node_has_workers_and_interfaces() -> Result<()> {
    let script = r#"cat > a.js <<'END'
const { Worker, isMainThread, parentPort } = require('node:worker_threads');
if (!isMainThread) { parentPort.postMessage(require('node:os').cpus().length > 0); }
else {
  console.log('interfaces', Object.keys(require('node:os').networkInterfaces()).join());
  const child = require('node:child_process').execFileSync('sh', ['-c', 'echo child']).toString().trim();
  new Worker(__filename).on('message', (m) => console.log('worker', m, child));
}
END
node a.js"#;
    let output = in_jail("node", script).await?;
    assert!(output.contains("worker true child") && output.contains("interfaces"), "{output}");
    Ok(())
}

#[tokio::test]
async fn python_has_processes_and_locks() -> Result<()> {
    // By its path: a manager of versions in somebody's HOME is not inside.
    let script = r#"cat > a.py <<'END'
import multiprocessing, tempfile, sqlite3
def square(x): return x * x
if __name__ == "__main__":
    with multiprocessing.Pool(4) as pool: print("pool", sum(pool.map(square, range(100))))
    queue = multiprocessing.Queue(); queue.put("queue"); print(queue.get())
    with tempfile.NamedTemporaryFile() as f: sqlite3.connect(f.name).execute("create table t (x)")
END
/usr/bin/python3 a.py"#;
    let output = in_jail("python", script).await?;
    assert!(output.contains("pool 328350") && output.contains("queue"), "{output}");
    Ok(())
}

#[tokio::test]
async fn curl_fetches_through_the_gateway_and_only_what_is_listed() -> Result<()> {
    let (mut scene, _outside) = Scene::behind_gateway(crate::outside::Outside::make).await?;
    let seconds = 10 * slowness();
    let script = format!(
        "exec > output 2>&1; curl -sS --max-time {seconds} http://allowed.example.com/; echo; \
         curl -sS --max-time {seconds} -o refused -w '%{{http_code}}\\n' http://other.example.org/; echo finished"
    );
    let running = scene.run("curl", &["bash", "-c", &script]).await?;
    let output = running.workspace.join("output");
    let text = eventually("curl is done", || async {
        fs::read_to_string(&output).ok().filter(|text| text.ends_with("finished\n"))
    })
    .await;
    assert_eq!(text, "ok\n403\nfinished\n");
    Ok(())
}
