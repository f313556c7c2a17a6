//! The egress gateway: what each session may reach, and the socket between supervisor and gateway.
//!
//! The gateway is a process of its own, started by the supervisor and outliving it. Each session's network namespace is empty but for listeners
//! that the jail's init made; the shim keeps them and gives duplicates to whoever is the supervisor, who passes them on to the gateway with the
//! session's policy. Which listener accepted a connection says whose it is: there is no token to steal.
//!
//! Socket: Unix, SEQPACKET, one connection at a time (a new supervisor replaces the old). A datagram is one JSON message; descriptors come with
//! `session` only, in the order of its `listeners`. Tunnels go on while nobody is connected.

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::id::{EventId, SessionId};

/// Version of this protocol. It grows only by addition: a gateway outlives the supervisor that started it.
pub const PROTOCOL: u32 = 1;
/// A message is never larger: a policy of a thousand rules fits.
pub const MESSAGE_BYTES_MAX: usize = 190 * 1024;
/// Listeners of one session.
pub const LISTENERS_MAX: usize = 16;
/// Rules of one session.
pub const RULES_MAX: usize = 1000;

/// Port inside on which HTTP CONNECT, plain HTTP and SOCKS5 are taken.
pub const PROXY_PORT: u16 = 3128;
/// Ports inside of model listeners count up from here.
pub const MODEL_PORT_BASE: u16 = 3200;

/// What one session may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressPolicy {
    /// Whether denials are carried out or only recorded.
    pub mode: EgressMode,
    /// What is allowed; nothing, if empty.
    pub allow: Vec<EgressRule>,
    /// What is denied although it is allowed.
    pub deny: Vec<EgressRule>,
    /// Caps.
    pub limits: EgressLimits,
}

/// See [`EgressPolicy::mode`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EgressMode {
    /// What is not allowed is refused.
    Enforce,
    /// Rules refuse nothing and the record says what they would have; addresses inside (private, metadata) are refused all the same.
    Observe,
}

/// One line of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressRule {
    /// Which names.
    pub host: HostPattern,
    /// Which ports. If empty: 443 and 80 where it allows, every port where it denies.
    pub ports: Vec<u16>,
}

/// Why a text is no [`EgressRule`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    /// The part before the colon.
    #[error(transparent)]
    Host(#[from] PatternError),
    /// The part after it.
    #[error("`{0}` has no ports after its colon: write them as example.com:443 or example.com:443,8443")]
    Ports(String),
}

/// As people write it: a pattern, and behind a colon the ports, parted by commas.
impl std::str::FromStr for EgressRule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        let (host, ports) = match text.rsplit_once(':') {
            // Two colons are those of an address, and its error says more than one about ports.
            Some((host, ports)) if !host.contains(':') => (host, Some(ports)),
            _ => (text, None),
        };
        let wrong = || RuleError::Ports(text.to_owned());
        let port = |word: &str| word.parse::<u16>().ok().filter(|port| *port != 0).ok_or_else(wrong);
        let ports = ports.map(|words| words.split(',').map(port).collect()).transpose()?.unwrap_or_default();
        Ok(Self { host: HostPattern::try_from(host.to_owned())?, ports })
    }
}

/// For files that people write: a list of rules as texts.
pub fn rules_from_text<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<EgressRule>, D::Error> {
    let texts = Vec::<String>::deserialize(from)?;
    texts.iter().map(|text| text.parse().map_err(serde::de::Error::custom)).collect()
}

/// `api.example.com` or `*.example.com` (any depth below it, not itself); lower case, ASCII (IDNA), without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct HostPattern(String);

/// Why a text is no [`HostPattern`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// It would allow a whole top level domain, or everything.
    #[error("`{0}` covers too much: name at least a domain and its top level, such as example.com or *.example.com")]
    TooBroad(String),
    /// It is no host name.
    #[error("`{0}` is no host name: letters, digits and hyphens between dots, with `*.` at the front at most")]
    Malformed(String),
    /// It is an address.
    #[error("`{0}` is an address: rules go by name")]
    Address(String),
}

/// Caps of one session, over all its connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressLimits {
    /// Open at once.
    pub connections_max: u32,
    /// New ones in a minute.
    pub connections_per_minute: u32,
    /// In a second, both directions together; none: no limit.
    pub bytes_per_second: Option<u64>,
    /// In the session's life, both directions together; none: no limit.
    pub bytes_max: Option<u64>,
}

/// What a listener does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum ListenerRole {
    /// Proxy for everything the policy allows.
    Proxy,
    /// Plain HTTP inside, TLS to one model provider outside, with the key added on the way.
    Model {
        /// Such as `anthropic`.
        name: String,
        /// Such as `https://api.anthropic.com`.
        upstream: String,
        /// Name of the header that carries the key, such as `x-api-key` or `authorization`.
        header: String,
        /// Its value; what the client sent in that header is dropped.
        value: SecretText,
    },
}

/// A text that never appears in logs.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl SecretText {
    /// Wraps a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for SecretText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("[secret]")
    }
}

/// Supervisor to gateway.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GatewayRequest {
    /// The first message.
    Hello {
        /// See [`PROTOCOL`].
        protocol: u32,
    },
    /// Serve this session, or serve it by this policy from now on. Descriptors: one listener per role.
    Session {
        /// The session.
        session: SessionId,
        /// The spawn.
        spawn: u32,
        /// What it may reach.
        policy: EgressPolicy,
        /// What each descriptor is for.
        listeners: Vec<ListenerRole>,
    },
    /// The spawn is over: close its listeners and tunnels.
    Release {
        /// The session.
        session: SessionId,
        /// The spawn.
        spawn: u32,
    },
    /// Every decision up to this number is stored.
    Ack {
        /// Sequence number.
        seq: u64,
    },
    /// End, once another gateway serves: listeners are closed at once, tunnels go on to their end.
    Retire,
}

/// Gateway to supervisor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum GatewayEvent {
    /// The answer to hello.
    Hello {
        /// Version spoken.
        protocol: u32,
        /// Release.
        version: String,
        /// What it was started with, as whoever started it said; a gateway with another one is not the one that is wanted.
        #[serde(default)]
        configuration: String,
        /// Sessions served already, with their spawns.
        sessions: Vec<(SessionId, u32)>,
    },
    /// The session is served.
    Serving {
        /// The session.
        session: SessionId,
        /// The spawn.
        spawn: u32,
    },
    /// It is not.
    Refused {
        /// The session.
        session: SessionId,
        /// Why.
        detail: String,
        /// Whether asking again can help.
        #[serde(default)]
        lasting: Lasting,
    },
    /// One connection was decided, and is over if it was allowed. Sent again until acknowledged.
    Decision {
        /// Grows by one.
        seq: u64,
        /// The decision.
        decision: Box<EgressDecision>,
    },
    /// So many decisions were dropped, because nobody took them for too long.
    Dropped {
        /// How many since the last such message.
        count: u64,
    },
}

/// How long a refusal of the gateway holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lasting {
    /// It would refuse the same again.
    #[default]
    Permanent,
    /// It lacked something for a moment, or another gateway has to do it.
    Transient,
}

/// One connection out of a session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EgressDecision {
    /// Its id, so that a second delivery is seen.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub id: EventId,
    /// The session.
    #[cfg_attr(feature = "openapi", schema(value_type = uuid::Uuid))]
    pub session: SessionId,
    /// The spawn.
    pub spawn: u32,
    /// When it was asked for.
    #[serde(with = "time::serde::rfc3339")]
    pub at: OffsetDateTime,
    /// Name asked for, as the client wrote it, cut at 255 characters.
    pub host: String,
    /// Port asked for.
    pub port: u16,
    /// The address dialled, if any.
    pub address: Option<String>,
    /// What was decided.
    pub verdict: EgressVerdict,
    /// The rule that decided, or a word such as `no_rule`, `private_address`, `sni_mismatch`, `connections_max`.
    pub rule: String,
    /// From the session.
    pub bytes_up: u64,
    /// To the session.
    pub bytes_down: u64,
    /// How long it was open, in milliseconds.
    pub duration_ms: u64,
    /// How many connections this stands for: 1, or more of a refusal that came again while the first was not yet sent from its host.
    #[serde(default = "once")]
    pub times: u64,
}

const fn once() -> u64 {
    1
}

/// See [`EgressDecision::verdict`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum EgressVerdict {
    /// Connected.
    Allowed,
    /// Refused.
    Denied,
    /// Connected, and would have been refused.
    WouldDeny,
    /// Allowed, and the other end could not be reached.
    Failed,
}

/// A word that is no verdict.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a verdict: allowed, denied, would_deny or failed")]
pub struct InvalidVerdict;

impl EgressVerdict {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Allowed, Self::Denied, Self::WouldDeny, Self::Failed];

    /// As it is written.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::WouldDeny => "would_deny",
            Self::Failed => "failed",
        }
    }
}

impl std::str::FromStr for EgressVerdict {
    type Err = InvalidVerdict;

    fn from_str(text: &str) -> Result<Self, InvalidVerdict> {
        Self::ALL.into_iter().find(|verdict| verdict.as_str() == text).ok_or(InvalidVerdict)
    }
}

/// Characters of a host name, by RFC 1035 section 2.3.4.
const NAME_CHARS_MAX: usize = 253;
/// Characters between two dots, by the same.
const LABEL_CHARS_MAX: usize = 63;

impl HostPattern {
    /// Whether it covers a name, which has to be lower case and without a trailing dot.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => name.len() > suffix.len() && name.ends_with(suffix),
            None => self.0 == name,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for HostPattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Self, PatternError> {
        let name = text.strip_prefix("*.").unwrap_or(&text);
        if name.is_empty() || name == "*" {
            return Err(PatternError::TooBroad(text));
        }
        if text.parse::<std::net::IpAddr>().is_ok()
            || name.rsplit('.').next().is_some_and(|last| !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()))
        {
            return Err(PatternError::Address(text));
        }
        let sound = |label: &str| {
            (1..=LABEL_CHARS_MAX).contains(&label.len())
                && label.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
                && !label.starts_with('-')
                && !label.ends_with('-')
        };
        if name.len() > NAME_CHARS_MAX || !name.split('.').all(sound) {
            return Err(PatternError::Malformed(text));
        }
        if !name.contains('.') {
            return Err(PatternError::TooBroad(text));
        }
        Ok(Self(text))
    }
}

impl From<HostPattern> for String {
    fn from(pattern: HostPattern) -> Self {
        pattern.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_refused_with_the_reason() {
        let of = |text: &str| HostPattern::try_from(text.to_owned());
        for text in ["*", "com", "*.com", "", "*."] {
            assert!(matches!(of(text), Err(PatternError::TooBroad(_))), "{text}");
        }
        for text in ["1.2.3.4", "*.2.3.4", "::1", "010.1"] {
            assert!(matches!(of(text), Err(PatternError::Address(_))), "{text}");
        }
        for text in [
            "a..b",
            "A.com",
            "a.*.com",
            "a_b.com",
            "-a.com",
            "a.com.",
            "ex ample.com",
            "https://a.com",
            "a.com:443",
            "bücher.de",
        ] {
            assert!(matches!(of(text), Err(PatternError::Malformed(_))), "{text}");
        }
    }

    #[test]
    fn a_rule_is_a_pattern_and_its_ports() {
        let of = |text: &str| text.parse::<EgressRule>();
        assert_eq!(of("*.example.com:443,8443").unwrap().ports, [443, 8443]);
        assert_eq!(of("example.com").unwrap().ports, [0_u16; 0]);
        for text in ["example.com:", "example.com:0", "example.com:70000", "example.com:443,", "example.com:https"] {
            assert!(matches!(of(text), Err(RuleError::Ports(_))), "{text}");
        }
        assert!(matches!(of("fd00::1"), Err(RuleError::Host(PatternError::Address(_)))));
        assert!(matches!(of("*:443"), Err(RuleError::Host(PatternError::TooBroad(_)))));
    }

    #[test]
    fn a_star_is_below_the_domain_and_never_the_domain_itself() {
        let star = HostPattern::try_from("*.example.com".to_owned()).unwrap();
        assert!(star.matches("a.example.com") && star.matches("a.b.example.com"));
        assert!(!star.matches("example.com") && !star.matches("badexample.com") && !star.matches(".example.com.evil"));
    }
}
