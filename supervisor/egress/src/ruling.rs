//! What a policy says about a name and a port. Pure.

use std::net::IpAddr;

use agentapi_shared::egress::{EgressMode, EgressPolicy, EgressRule};

use crate::names::{Host, HostError, Name};
use crate::refusal::Refusal;

/// Ports of a rule that names none.
const PORTS_DEFAULT: [u16; 2] = [443, 80];

/// Where to go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Destination {
    /// To be resolved.
    Name(Name),
    /// In `observe` only: rules allow no address.
    Address(IpAddr),
}

/// Go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ruling {
    /// Where to.
    pub(crate) destination: Destination,
    /// The rule that allows it, or the word of the refusal that would have been.
    pub(crate) rule: String,
    /// Whether it would have been refused.
    pub(crate) observed: bool,
}

/// Decides by the rules alone: deny wins, then a name has to be allowed on this port.
pub(crate) fn rule(policy: &EgressPolicy, host: &str, port: u16) -> Result<Ruling, Refusal> {
    let (destination, decided) = match Host::parse(host) {
        Ok(Host::Name(name)) => {
            let decided = by_name(policy, &name, port);
            (Destination::Name(name), decided)
        }
        Ok(Host::Address(address)) => (Destination::Address(address), Err(Refusal::IpLiteral)),
        // Never passed to a resolver, whatever the mode.
        Err(HostError::OddAddress) => return Err(Refusal::IpLiteral),
        Err(HostError::Malformed) => return Err(Refusal::MalformedHost),
    };
    match decided {
        Ok(rule) => Ok(Ruling { destination, rule, observed: false }),
        Err(refusal) if policy.mode == EgressMode::Observe && refusal.is_of_rules() => {
            Ok(Ruling { destination, rule: refusal.word(), observed: true })
        }
        Err(refusal) => Err(refusal),
    }
}

fn by_name(policy: &EgressPolicy, name: &Name, port: u16) -> Result<String, Refusal> {
    // A deny rule without ports means every port.
    let denies =
        |rule: &&EgressRule| rule.host.matches(name.as_str()) && (rule.ports.is_empty() || rule.ports.contains(&port));
    if let Some(rule) = policy.deny.iter().find(denies) {
        return Err(Refusal::Denied(rule.host.as_str().to_owned()));
    }
    let mut named = policy.allow.iter().filter(|rule| rule.host.matches(name.as_str())).peekable();
    if named.peek().is_none() {
        return Err(Refusal::NoRule);
    }
    let covers = |rule: &&EgressRule| {
        let ports = if rule.ports.is_empty() { PORTS_DEFAULT.as_slice() } else { &rule.ports };
        ports.contains(&port)
    };
    named.find(covers).map(|rule| rule.host.as_str().to_owned()).ok_or(Refusal::Port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use agentapi_shared::egress::{EgressLimits, HostPattern};

    fn rules(texts: &[(&str, &[u16])]) -> Vec<EgressRule> {
        let rule = |(host, ports): &(&str, &[u16])| EgressRule {
            host: HostPattern::try_from((*host).to_owned()).unwrap(),
            ports: ports.to_vec(),
        };
        texts.iter().map(rule).collect()
    }

    fn policy(mode: EgressMode) -> EgressPolicy {
        EgressPolicy {
            mode,
            allow: rules(&[
                ("api.example.com", &[]),
                ("*.example.org", &[443, 8443]),
                ("*.example.com", &[22]),
                ("xn--bcher-kva.de", &[]),
            ]),
            deny: rules(&[("bad.example.org", &[]), ("*.evil.example.org", &[]), ("half.example.org", &[8443])]),
            limits: EgressLimits {
                connections_max: 1,
                connections_per_minute: 1,
                bytes_per_second: None,
                bytes_max: None,
            },
        }
    }

    #[test]
    fn names_are_allowed_by_rule_and_port_and_deny_wins() {
        let policy = policy(EgressMode::Enforce);
        for (host, port, expected) in [
            ("api.example.com", 443, Ok("api.example.com")),
            ("API.Example.Com.", 80, Ok("api.example.com")),
            ("api.example.com", 22, Ok("*.example.com")),
            ("api.example.com", 8080, Err("port")),
            ("a.b.example.org", 8443, Ok("*.example.org")),
            ("a.example.org", 80, Err("port")),
            ("example.org", 443, Err("no_rule")),
            ("notexample.org", 443, Err("no_rule")),
            ("example.org.evil.net", 443, Err("no_rule")),
            ("bad.example.org", 443, Err("deny bad.example.org")),
            ("BAD.example.org.", 8443, Err("deny bad.example.org")),
            ("x.evil.example.org", 443, Err("deny *.evil.example.org")),
            ("evil.example.org", 443, Ok("*.example.org")),
            ("half.example.org", 443, Ok("*.example.org")),
            ("half.example.org", 8443, Err("deny half.example.org")),
            ("xn--bcher-kva.de", 443, Ok("xn--bcher-kva.de")),
            ("bücher.de", 443, Err("malformed_host")),
            ("api.еxample.com", 443, Err("malformed_host")),
            ("api.example.com..", 443, Err("malformed_host")),
            ("1.1.1.1", 443, Err("ip_literal")),
            ("[::ffff:1.1.1.1]", 443, Err("ip_literal")),
            ("0x01010101", 443, Err("ip_literal")),
            ("16843009", 443, Err("ip_literal")),
            ("api.example.com\r\nHost: x", 443, Err("malformed_host")),
        ] {
            let found = rule(&policy, host, port);
            let found = found.as_ref().map(|ruling| ruling.rule.as_str()).map_err(Refusal::word);
            assert_eq!(found.as_ref().map_err(String::as_str).copied(), expected, "{host}:{port}");
        }
    }

    #[test]
    fn observe_says_what_would_have_been() {
        let policy = policy(EgressMode::Observe);
        for (host, port, expected) in [
            ("api.example.com", 443, Ok(("api.example.com", false))),
            ("evil.net", 443, Ok(("no_rule", true))),
            ("bad.example.org", 443, Ok(("deny bad.example.org", true))),
            ("1.1.1.1", 443, Ok(("ip_literal", true))),
            ("0x01010101", 443, Err("ip_literal")),
            ("a b", 443, Err("malformed_host")),
        ] {
            let found = rule(&policy, host, port);
            let found = found.as_ref().map(|ruling| (ruling.rule.as_str(), ruling.observed)).map_err(Refusal::word);
            assert_eq!(found.as_ref().map_err(String::as_str).copied(), expected, "{host}:{port}");
        }
    }
}
