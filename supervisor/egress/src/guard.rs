//! The address guard: which addresses a name may lead to. It stands after the name's resolution and before the connection, in every mode.
//!
//! Only global unicast addresses pass, and of those none that leads back to this host or to a cloud's metadata service. An IPv4 address inside of an
//! IPv6 one is judged as what it is.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Why an address is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forbidden {
    /// Metadata services hand out credentials of the whole host.
    Metadata,
    /// Private, loopback, link-local or otherwise not for the world.
    Private,
    /// One of this host's own.
    OwnHost,
}

/// Metadata services of clouds: AWS, Google, Azure, OpenStack and others share the first; then AWS (containers, pods), Alibaba, Azure's wire server,
/// Oracle. Most are refused as private anyway; these stay refused whatever the operator allows.
const METADATA_V4: [Ipv4Addr; 6] = [
    Ipv4Addr::new(169, 254, 169, 254),
    Ipv4Addr::new(169, 254, 170, 2),
    Ipv4Addr::new(169, 254, 170, 23),
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(168, 63, 129, 16),
    Ipv4Addr::new(192, 0, 0, 192),
];
/// The same by IPv6: AWS (two), Google, Scaleway, and the first of the above as OpenStack has it.
const METADATA_V6: [Ipv6Addr; 5] = [
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23),
    Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254),
    Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42),
    Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0xa9fe, 0xa9fe),
];

/// IPv4 blocks that are not for the world, by the IANA registry of special-purpose addresses.
const SPECIAL_V4: [(Ipv4Addr, u8); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 31, 196, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];
/// Blocks within 2000::/3, the only one for the world, that are not: protocol assignments with Teredo, documentation (two).
const SPECIAL_V6: [(Ipv6Addr, u8); 3] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// The guard with what the operator allows beside.
#[derive(Debug, Clone, Default)]
pub(crate) struct Guard {
    allowed: Vec<IpNet>,
}

impl Guard {
    pub(crate) fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Judges one address. `own` are the addresses of this host.
    pub(crate) fn check(&self, address: IpAddr, own: &BTreeSet<IpAddr>) -> Result<(), Forbidden> {
        let address = plain(address);
        let metadata = match address {
            IpAddr::V4(v4) => METADATA_V4.contains(&v4),
            IpAddr::V6(v6) => METADATA_V6.contains(&v6),
        };
        if metadata {
            return Err(Forbidden::Metadata);
        }
        // All of 127.0.0.0/8, and the address of no host, lead here too.
        let own = own.contains(&address) || address.is_loopback() || address.is_unspecified();
        let mut allowing = self.allowed.iter().filter(|net| net.contains(&address)).peekable();
        if allowing.peek().is_some() {
            // A net that happens to hold this host's address does not mean this host; the address itself does.
            let single = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
            return if !own || allowing.any(single) { Ok(()) } else { Err(Forbidden::OwnHost) };
        }
        let global = match address {
            IpAddr::V4(v4) => !SPECIAL_V4.iter().any(|(net, bits)| same_v4(v4, *net, *bits)),
            IpAddr::V6(v6) => {
                v6.segments()[0] & 0xe000 == 0x2000 && !SPECIAL_V6.iter().any(|(net, bits)| same_v6(v6, *net, *bits))
            }
        };
        if !global {
            return Err(Forbidden::Private);
        }
        if own { Err(Forbidden::OwnHost) } else { Ok(()) }
    }
}

/// The addresses of this host's interfaces. They change, so they are asked for each time; it takes microseconds beside a name's milliseconds.
pub(crate) fn own_addresses() -> std::io::Result<BTreeSet<IpAddr>> {
    let address = |interface: nix::ifaddrs::InterfaceAddress| {
        let address = interface.address?;
        match (address.as_sockaddr_in(), address.as_sockaddr_in6()) {
            (Some(v4), _) => Some(IpAddr::V4(v4.ip())),
            (_, Some(v6)) => Some(plain(IpAddr::V6(v6.ip()))),
            _ => None,
        }
    };
    Ok(nix::ifaddrs::getifaddrs()?.filter_map(address).collect())
}

/// The IPv4 address within an IPv6 one, where there is one: mapped, compatible, NAT64 and 6to4 addresses all lead to it.
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let [a, b, c, d, e, f, g, h] = v6.segments();
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match (a, b, c, d, e, f) {
        (0, 0, 0, 0, 0, 0xffff) | (0, 0, 0, 0, 0xffff, 0) | (0x64, 0xff9b, 0, 0, 0, 0) => v4(g, h),
        // `::` and `::1` are themselves.
        (0, 0, 0, 0, 0, 0) if g != 0 => v4(g, h),
        (0x2002, ..) => v4(b, c),
        _ => address,
    }
}

fn same_v4(address: Ipv4Addr, net: Ipv4Addr, bits: u8) -> bool {
    let shift = 32 - u32::from(bits);
    address.to_bits() >> shift == net.to_bits() >> shift
}

fn same_v6(address: Ipv6Addr, net: Ipv6Addr, bits: u8) -> bool {
    let shift = 128 - u32::from(bits);
    address.to_bits() >> shift == net.to_bits() >> shift
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn judge(guard: &Guard, text: &str) -> Result<(), Forbidden> {
        guard.check(text.parse().unwrap(), &BTreeSet::from(["93.184.216.34".parse().unwrap()]))
    }

    #[test]
    fn a_net_that_is_allowed_does_not_open_this_host() {
        let own = BTreeSet::from(["10.1.2.3".parse().unwrap()]);
        let of = |net: &str, text: &str| Guard::new(vec![net.parse().unwrap()]).check(text.parse().unwrap(), &own);
        assert_eq!(of("10.0.0.0/8", "10.1.2.3"), Err(Forbidden::OwnHost));
        assert_eq!(of("10.0.0.0/8", "::ffff:10.1.2.3"), Err(Forbidden::OwnHost));
        assert_eq!(of("10.0.0.0/8", "10.1.2.4"), Ok(()));
        assert_eq!(of("10.1.2.3/32", "10.1.2.3"), Ok(()));
        for (net, text) in [("127.0.0.0/8", "127.0.0.2"), ("0.0.0.0/0", "0.0.0.0"), ("::/0", "::1")] {
            assert_eq!(of(net, text), Err(Forbidden::OwnHost), "{text}");
        }
    }

    #[test]
    fn only_the_world_is_reached() {
        let guard = Guard::default();
        for text in [
            "1.1.1.1",
            "8.8.8.8",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "2606:4700::1111",
            "64:ff9b::8.8.8.8",
            "::ffff:8.8.8.8",
        ] {
            assert_eq!(judge(&guard, text), Ok(()), "{text}");
        }
        for text in [
            "0.0.0.0",
            "0.1.2.3",
            "10.255.0.1",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "239.1.1.1",
            "255.255.255.255",
            "240.0.0.1",
            "192.0.2.1",
            "203.0.113.9",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2002:a00:1::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "5f00::1",
            "3fff::1",
            "4000::1",
        ] {
            assert_eq!(judge(&guard, text), Err(Forbidden::Private), "{text}");
        }
        assert_eq!(judge(&guard, "93.184.216.34"), Err(Forbidden::OwnHost));
        assert_eq!(judge(&guard, "::ffff:93.184.216.34"), Err(Forbidden::OwnHost));
    }

    #[test]
    fn metadata_is_refused_whatever_is_allowed() {
        let all = Guard::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        for guard in [Guard::default(), all] {
            for text in [
                "169.254.169.254",
                "169.254.170.2",
                "169.254.170.23",
                "100.100.100.200",
                "168.63.129.16",
                "192.0.0.192",
                "fd00:ec2::254",
                "fd00:ec2::23",
                "fd20:ce::254",
                "fd00:42::42",
                "fe80::a9fe:a9fe",
                "::ffff:169.254.169.254",
                "64:ff9b::169.254.169.254",
                "2002:a9fe:a9fe::",
                "::ffff:a83f:8110",
            ] {
                assert_eq!(judge(&guard, text), Err(Forbidden::Metadata), "{text}");
            }
        }
    }

    #[test]
    fn an_operator_allows_what_is_inside() {
        let guard = Guard::new(vec!["10.1.0.0/16".parse().unwrap(), "fd12::/16".parse().unwrap()]);
        assert_eq!(judge(&guard, "10.1.2.3"), Ok(()));
        assert_eq!(judge(&guard, "::ffff:10.1.2.3"), Ok(()));
        assert_eq!(judge(&guard, "fd12::1"), Ok(()));
        assert_eq!(judge(&guard, "10.2.0.1"), Err(Forbidden::Private));
        assert!(own_addresses().unwrap().contains(&"127.0.0.1".parse().unwrap()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Whatever an IPv4 address is, it is the same inside of every IPv6 form.
        #[test]
        fn no_form_hides_an_address(bits in any::<u32>()) {
            let guard = Guard::default();
            let own = BTreeSet::new();
            let v4 = Ipv4Addr::from_bits(bits);
            let expected = guard.check(IpAddr::V4(v4), &own);
            let [a, b, c, d] = v4.octets();
            let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
            for form in [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
                Ipv6Addr::new(0x2002, high, low, 7, 7, 7, 7, 7),
            ] {
                prop_assert_eq!(guard.check(IpAddr::V6(form), &own), expected);
            }
        }
    }
}
