//! What dies, and what holds.

use agentapi_tests::product::Product;
use agentapi_tests::viewer::{Seen, ViewerOptions};
use anyhow::Result;

/// A seeded pseudo-random stream of a fixed length, printable so that the terminal passes it on as it is.
const STREAM: &str = r#"
import sys, random
rng = random.Random(42)
out = sys.stdout.buffer
total = int(sys.argv[1])
alphabet = b"abcdefghijklmnopqrstuvwxyz0123456789 "
sys.stdin.readline()
done = 0
while done < total:
    chunk = bytes(alphabet[b % 37] for b in rng.randbytes(8000)) + b"\n"
    chunk = chunk[: total - done]
    out.write(chunk)
    done += len(chunk)
out.flush()
sys.stdin.readline()
"#;

/// What the terminal makes of it: newlines come out as CR LF.
fn expected(total: usize) -> Result<Vec<u8>> {
    let run = |code: &str| -> Result<Vec<u8>> {
        use std::io::Write;
        let mut child = std::process::Command::new("python3")
            .args(["-c", code, &total.to_string()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(b"\n\n")?;
        }
        Ok(child.wait_with_output()?.stdout)
    };
    let plain = run(STREAM)?;
    let mut out = Vec::with_capacity(plain.len() + plain.len() / 8000);
    for byte in plain {
        if byte == b'\n' {
            out.push(b'\r');
        }
        out.push(byte);
    }
    Ok(out)
}

async fn survives(kill_supervisor: bool, kill_plane: bool) -> Result<()> {
    const TOTAL: usize = 24_000_000;
    let mut product = Product::start().await?;
    let session = product.create(&["python3", "-c", STREAM, &TOTAL.to_string()]).await?;
    let expected = expected(TOTAL)?;
    let mut viewer = product
        .view(session.id, ViewerOptions { all_bytes: true, from: Some((1, 0)), ..ViewerOptions::default() })
        .await?;
    viewer.input(b"\r").await?;
    let mut got = Vec::new();
    let mut kills = [expected.len() / 4, expected.len() / 2].into_iter();
    let mut next_kill = kills.next();
    // The echo of the Enter that starts it comes first.
    let length = expected.len() + 2;
    while got.len() < length {
        let seen = match viewer.next().await {
            Ok(seen) => seen,
            Err(_) => {
                // The control plane is gone: attach again exactly there.
                if !kill_plane {
                    anyhow::bail!("the terminal closed at {}", got.len());
                }
                viewer = product
                    .view(
                        session.id,
                        ViewerOptions {
                            all_bytes: true,
                            from: Some((1, got.len() as u64)),
                            ..ViewerOptions::default()
                        },
                    )
                    .await?;
                continue;
            }
        };
        if let Seen::Output(offset, bytes) = seen {
            anyhow::ensure!(offset == got.len() as u64, "output at {offset} instead of {}", got.len());
            got.extend(bytes);
        }
        if next_kill.is_some_and(|at| got.len() >= at) {
            next_kill = kills.next();
            if kill_supervisor {
                product.kill_supervisor().await?;
                assert_eq!(product.start_supervisor().await?, 1);
            }
            if kill_plane {
                product.kill_plane().await?;
                product.start_plane().await?;
            }
            product.connected().await;
        }
    }
    assert!(got.get(2..) == Some(expected.as_slice()), "the bytes differ");
    Ok(())
}

#[tokio::test]
async fn output_is_exact_over_kills_of_the_supervisor() -> Result<()> {
    survives(true, false).await
}

#[tokio::test]
async fn output_is_exact_over_kills_of_the_control_plane() -> Result<()> {
    survives(false, true).await
}
