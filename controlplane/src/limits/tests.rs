//! Buckets: who is held by which, how many there are, and what several replicas allow together.

use super::*;

fn rates(key: u32, user: u32, organization: u32, replicas: u32) -> Rates {
    let replicas = NonZeroU32::new(replicas).unwrap();
    Rates { key, user, organization, address: 0, failures: 0, account: 0, replicas }
}

#[test]
fn strangers_are_held_by_their_network_and_guesses_by_the_account() {
    let limits = Limits::new(Rates { address: 2, account: 3, ..rates(0, 0, 0, 1) });
    assert_eq!(limits.policy(), "\"address\";q=2;w=60, \"account\";q=3;w=60, \"account-anywhere\";q=30;w=60");
    let from = |text: &str| limits.take_address(text.parse().unwrap()).map(|standing| standing.unwrap().remaining);
    // The addresses of one network are one; a mapped one is what it maps.
    assert_eq!((from("2001:db8:1:2::1"), from("2001:db8:1:2:ffff::9")), (Ok(1), Ok(0)));
    let refused = from("2001:db8:1:2::1").unwrap_err();
    assert_eq!((refused.name, refused.quota), ("address", 2));
    assert_eq!((from("2001:db8:1:3::1"), from("192.0.2.1"), from("::ffff:192.0.2.1")), (Ok(1), Ok(1), Ok(0)));
    assert!(from("192.0.2.1").is_err() && from("192.0.2.2").is_ok());
    let guess = |email: &str, host: u8| limits.take_account(email, IpAddr::from([192, 0, 2, host]));
    for email in ["ada@example.com", "Ada@example.com", "ADA@EXAMPLE.COM"] {
        guess(email, 1).unwrap();
    }
    assert_eq!(guess("ada@example.com", 1).unwrap_err().name, "account");
    // Neither others there nor the person elsewhere are kept out by that.
    guess("bob@example.com", 1).unwrap();
    for attempt in 0..27 {
        guess("ada@example.com", 2 + attempt / 3).unwrap();
    }
    assert_eq!(guess("ada@example.com", 99).unwrap_err().name, "account-anywhere");
}

#[test]
fn any_number_of_networks_takes_a_bounded_number_of_buckets() {
    let limits = Limits::new(Rates { address: u32::MAX, ..rates(0, 0, 0, 1) });
    for network in 0..3 * u128::from(SLOTS) {
        limits.take_address(IpAddr::V6((network << 64).into())).unwrap();
    }
    let kept = u64::try_from(limits.address.as_ref().unwrap().buckets.len()).unwrap();
    assert!(kept <= SLOTS && kept > SLOTS / 2, "{kept}");
}

fn take(limits: &Limits, key: &str, user: UserId, org: OrgId) -> Result<Option<Standing>, Exceeded> {
    let standing = limits.take(key, user)?;
    let within = limits.take_within(org)?;
    Ok(standing.into_iter().chain(within).min_by_key(|standing| standing.remaining))
}

#[test]
fn each_limit_refuses_by_its_name_and_others_go_on() {
    let (ann, bob) = (UserId::generate(), UserId::generate());
    let (ours, theirs) = (OrgId::generate(), OrgId::generate());
    let limits = Limits::new(rates(3, 5, 8, 1));
    assert_eq!(limits.policy(), "\"key\";q=3;w=60, \"user\";q=5;w=60, \"organization\";q=8;w=60");
    let first = take(&limits, "a", ann, ours).unwrap().unwrap();
    assert_eq!((first.name, first.remaining, first.reset_s), ("key", 2, 20));
    for _ in 0..2 {
        take(&limits, "a", ann, ours).unwrap();
    }
    let refused = take(&limits, "a", ann, ours).unwrap_err();
    assert_eq!((refused.name, refused.quota), ("key", 3));
    assert!((1..=21).contains(&refused.retry_s), "{refused:?}");
    // Another key of the same person, until the person has made five.
    for _ in 0..2 {
        take(&limits, "b", ann, ours).unwrap();
    }
    assert_eq!(take(&limits, "b", ann, ours).unwrap_err().name, "user");
    for _ in 0..3 {
        take(&limits, "c", bob, ours).unwrap();
    }
    assert_eq!(take(&limits, "d", bob, ours).unwrap_err().name, "organization");
    assert!(take(&limits, "e", bob, theirs).unwrap().is_some());
}

#[test]
fn replicas_share_and_nothing_is_no_limit() {
    let (ann, ours) = (UserId::generate(), OrgId::generate());
    let replicas: Vec<Limits> = (0..2).map(|_| Limits::new(rates(100, 0, 0, 2))).collect();
    let taken = (0..400).filter(|turn: &usize| take(&replicas[turn % 2], "a", ann, ours).is_ok()).count();
    // What fills up while the test runs comes on top.
    assert!((100..=120).contains(&taken), "{taken}");
    let none = Limits::new(rates(0, 0, 0, 1));
    assert_eq!((none.policy(), take(&none, "a", ann, ours)), ("", Ok(None)));
}

#[test]
fn buckets_that_are_full_again_are_forgotten() {
    let ours = OrgId::generate();
    // Full again after a nanosecond or so.
    let limits = Limits::new(rates(u32::MAX, 0, 0, 1));
    for turn in 0..2 * REQUESTS_BETWEEN_SWEEPS {
        take(&limits, &turn.to_string(), UserId::generate(), ours).unwrap();
    }
    assert!(limits.key.unwrap().buckets.len() <= REQUESTS_BETWEEN_SWEEPS as usize);
}
