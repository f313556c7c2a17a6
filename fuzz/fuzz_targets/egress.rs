//! Whatever a client of the egress gateway sends first is read or refused: names, SOCKS, the hello of TLS.
#![no_main]

// The files themselves: the rest of the gateway would bring a TLS library along.
#[path = "../../supervisor/egress/src/hello.rs"]
mod hello;
#[path = "../../supervisor/egress/src/names.rs"]
mod names;
#[path = "../../supervisor/egress/src/socks.rs"]
mod socks;

use hello::{HELLO_BYTES_MAX, Sniffed, sniff};
use libfuzzer_sys::fuzz_target;
use names::Host;
use socks::Read;

fuzz_target!(|data: &[u8]| {
    if let Ok(text) = std::str::from_utf8(data)
        && let Ok(Host::Name(name)) = Host::parse(text)
    {
        // A name is in its one form, which means itself.
        assert_eq!(Host::parse(name.as_str()), Ok(Host::Name(name.clone())));
        assert!(name.is(text));
    }
    if let Read::Done(_, used) = socks::greeting(data) {
        assert!(used <= socks::GREETING_BYTES_MAX && used <= data.len());
    }
    if let Read::Done(_, used) = socks::request(data) {
        assert!(used <= socks::REQUEST_BYTES_MAX && used <= data.len());
    }
    let whole = sniff(data);
    if whole == Sniffed::Incomplete {
        assert!(data.len() < HELLO_BYTES_MAX);
    }
    // What was decided on a part stays decided.
    let part = sniff(&data[..data.len() / 2]);
    if !matches!(part, Sniffed::Incomplete) {
        assert_eq!(part, whole);
    }
});
