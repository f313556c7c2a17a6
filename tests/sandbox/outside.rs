//! What lies behind the gateway in its tests: names, a name server, servers at public addresses, a model's provider. All of it on the test's own
//! loopback, in its own network and mount namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use agentapi_tests::wait::here;
use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};

use crate::world::{Heard, World};

/// What is allowed.
pub(crate) const ALLOWED: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 10);
/// What is not.
pub(crate) const OTHER: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 20);
/// Where the model's provider is.
pub(crate) const MODEL: Ipv4Addr = Ipv4Addr::new(93, 184, 216, 30);
/// Inside of the host's own network.
const PRIVATE: Ipv4Addr = Ipv4Addr::new(10, 99, 0, 1);
/// Tells machines their credentials.
const METADATA: Ipv4Addr = Ipv4Addr::new(169, 254, 169, 254);
/// The key that no session sees.
pub(crate) const MODEL_KEY: &str = "sk-model-2b7d90c44e";

/// See the module.
pub(crate) struct Outside {
    model: Child,
    log: PathBuf,
}

impl Outside {
    /// Builds it around a world.
    pub(crate) fn make(world: &World, dir: &Path) -> Result<Self> {
        let none: Option<&str> = None;
        for address in [ALLOWED, OTHER, MODEL] {
            crate::world::ip(&["address", "add", &format!("{address}/32"), "dev", "lo"])?;
        }
        let resolver = dir.join("resolv.conf");
        fs::write(&resolver, "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
        let real = fs::canonicalize("/etc/resolv.conf")?;
        mount(Some(&resolver), &real, none, MsFlags::MS_BIND, none).context("resolv.conf of the test")?;
        serve_names(world.heard.clone())?;
        for (address, tag) in [(ALLOWED, "allowed"), (OTHER, "other"), (PRIVATE, "private")] {
            for port in [80, 443] {
                serve(address, port, tag, world.heard.clone())?;
            }
        }
        let log = dir.join("model.log");
        let model = serve_model(dir, &log)?;
        Ok(Self { model, log })
    }

    /// Everything that the model's provider was sent.
    pub(crate) fn sent_to_model(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        let _gone = self.model.kill();
        let _status = self.model.wait();
    }
}

/// A server that notes what it gets and is content with it.
fn serve(address: Ipv4Addr, port: u16, tag: &'static str, heard: Heard) -> Result<()> {
    let listener = TcpListener::bind((address, port))?;
    std::thread::Builder::new().name("server".to_owned()).spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let heard = heard.clone();
            let _thread = std::thread::Builder::new().spawn(move || {
                let mut bytes = [0; 4096];
                let _limit = stream.set_read_timeout(Some(here(Duration::from_secs(3))));
                while let Ok(length @ 1..) = stream.read(&mut bytes) {
                    heard.note(&[tag.as_bytes(), b"|".as_slice(), &bytes[..length]].concat());
                    let _answered = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            });
        }
    })?;
    Ok(())
}

/// Answers for the names of the tests, and notes which are asked for.
fn serve_names(heard: Heard) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:53")?;
    std::thread::Builder::new().name("names".to_owned()).spawn(move || {
        let mut asked: BTreeMap<String, u32> = BTreeMap::new();
        let mut bytes = [0; 512];
        while let Ok((length, from)) = socket.recv_from(&mut bytes) {
            let Some((name, kind, end)) = question(&bytes[..length]) else { continue };
            heard.note(format!("name|{name}").as_bytes());
            let address = (kind == 1).then(|| {
                let times = asked.entry(name.clone()).or_default();
                *times += 1;
                address_of(&name, *times)
            });
            let answer = answer(&bytes[..end], address.flatten());
            let _answered = socket.send_to(&answer, from);
        }
    })?;
    Ok(())
}

fn address_of(name: &str, times: u32) -> Option<Ipv4Addr> {
    match name {
        "rebind.example.com" => Some(if times == 1 { ALLOWED } else { PRIVATE }),
        "private.example.com" => Some(PRIVATE),
        "metadata.example.com" => Some(METADATA),
        "loopback.example.com" => Some(Ipv4Addr::LOCALHOST),
        "model.example.com" => Some(MODEL),
        name if name.ends_with("example.com") => Some(ALLOWED),
        name if name.ends_with("example.org") => Some(OTHER),
        _ => None,
    }
}

/// Name and type of a question, and where it ends.
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    while let Some(&length @ 1..) = packet.get(at) {
        let end = at + 1 + usize::from(length);
        labels.push(String::from_utf8_lossy(packet.get(at + 1..end)?).to_lowercase());
        at = end;
    }
    let kind = u16::from_be_bytes([*packet.get(at + 1)?, *packet.get(at + 2)?]);
    Some((labels.join("."), kind, at + 5))
}

fn answer(question: &[u8], address: Option<Ipv4Addr>) -> Vec<u8> {
    let mut packet = question.to_vec();
    // An answer, recursion available, no error; one question, as many answers as there are, nothing else.
    packet[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, u8::from(address.is_some()), 0, 0, 0, 0]);
    if let Some(address) = address {
        // The name of the question, type A, class IN, kept for no time, four bytes.
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
        packet.extend(address.octets());
    }
    packet
}

/// The provider: TLS with a certificate that the gateway trusts, because the test's own mount namespace has it among the roots.
fn serve_model(dir: &Path, log: &Path) -> Result<Child> {
    let (key, certificate) = (dir.join("model.key"), dir.join("model.crt"));
    // No authority: what a server shows must not be one.
    let config = dir.join("model.cnf");
    fs::write(&config, CERTIFICATE)?;
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=model.example.com", "-config"])
        .arg(&config)
        .arg("-keyout")
        .arg(&key)
        .arg("-out")
        .arg(&certificate)
        .output()
        .context("openssl")?;
    ensure!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let none: Option<&str> = None;
    let roots = fs::canonicalize("/etc/ssl/certs/ca-certificates.crt").context("package ca-certificates")?;
    mount(Some(&certificate), &roots, none, MsFlags::MS_BIND, none).context("roots of the test")?;
    let mut child = Command::new("/usr/bin/python3")
        .args(["-u", "-c", PROVIDER])
        .args([&key, &certificate])
        .arg(log)
        .arg(IpAddr::from(MODEL).to_string())
        .stdout(Stdio::piped())
        .spawn()
        .context("python3")?;
    let mut ready = [0; 1];
    child.stdout.as_mut().context("output")?.read_exact(&mut ready).context("the provider's first byte")?;
    Ok(child)
}

/// For `openssl req`.
const CERTIFICATE: &str = "[req]\ndistinguished_name = dn\nx509_extensions = ext\n[dn]\n[ext]\nsubjectAltName = DNS:model.example.com\nbasicConstraints = critical,CA:FALSE\nextendedKeyUsage = serverAuth\n";

/// Writes down every request; redirects and fails on demand.
const PROVIDER: &str = r#"
import http.server, ssl, sys
key, certificate, log, address = sys.argv[1:]
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        with open(log, "a") as f: f.write(f"{self.requestline}\n{self.headers}{body!r}\n")
        code = 302 if "redirect" in self.path else 500 if "error" in self.path else 200
        self.send_response(code)
        if code == 302: self.send_header("location", "http://stolen.example.org/take")
        self.send_header("content-length", "2"); self.end_headers(); self.wfile.write(b"ok")
    do_GET = do_POST = answer
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer((address, 443), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate, key)
server.socket = context.wrap_socket(server.socket, server_side=True)
print("r", end="", flush=True)
server.serve_forever()
"#;
