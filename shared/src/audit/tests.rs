//! The chain as others compute it, texts to the byte, and that every change of an exported trail is found where it is.

use proptest::prelude::*;
use serde_json::json;
use time::macros::datetime;

use super::*;
use crate::id::{EventId, HostId, SessionId};

const ORG: OrgId = OrgId::from_u128(0x0000_0000_0000_7000_8000_0000_0000_0001);
const NOW: time::OffsetDateTime = datetime!(2026-01-02 03:04:05.678901 UTC);

fn key() -> SigningKey {
    SigningKey::from_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=").unwrap()
}

/// Computed with another program.
#[test]
fn the_chain_is_what_is_written_down() {
    let record = |last: u128| EventId::from_u128(0x0197_c1a2_7d4e_7c3b_9f52_3d5c_7b1a_2e00 + last);
    let vectors = [
        (record(0x4f), "{\"a\":1}", "6fff0c353b9152d0be52d9ae8d784d978386786eb2c9d29a3cc261301c06fbf2"),
        (record(0x50), "gr\u{fc}\u{df}e \u{2028}", "e7029d52ce35b1b3619c45fe3661ec7a78de1886247dda4f67999622fa326e92"),
        (record(0x51), "", "03811df80262ef0816b5239ce34ebb57b7f162707193e7025e3fbef72add3932"),
    ];
    let mut seal = Seal::START;
    for (number, (id, text, expected)) in (1..).zip(vectors) {
        seal = seal.next(ORG, id, text);
        assert_eq!((seal.number, seal.hash.to_string().as_str()), (number, expected));
        assert_eq!(expected.parse(), Ok(seal.hash));
    }
    assert!("00".parse::<ChainHash>().is_err() && "G".repeat(64).parse::<ChainHash>().is_err());
}

fn entry<'a>(detail: &'a serde_json::Value, action: &'a str) -> Entry<'a> {
    Entry {
        id: EventId::from_u128(1),
        org: ORG,
        at: NOW.to_offset(time::macros::offset!(+2)),
        action,
        channel: "api",
        actor: Actor { kind: ActorKind::User, id: "somebody", credential: Some("0123456789abcdef") },
        session: Some(SessionId::from_u128(2)),
        host: None,
        request: Some(EventId::from_u128(3)),
        detail,
    }
}

#[test]
fn a_text_has_every_field_in_one_order() {
    let detail = json!({ "z": 1, "a": [null, "x"] });
    assert_eq!(
        entry(&detail, "session.create").text(),
        "{\"id\":\"00000000-0000-0000-0000-000000000001\",\"org_id\":\"00000000-0000-7000-8000-000000000001\",\
         \"at\":\"2026-01-02T03:04:05.678901Z\",\"action\":\"session.create\",\"channel\":\"api\",\
         \"actor\":{\"kind\":\"user\",\"id\":\"somebody\",\"credential\":\"0123456789abcdef\"},\
         \"session_id\":\"00000000-0000-0000-0000-000000000002\",\"host_id\":null,\
         \"request_id\":\"00000000-0000-0000-0000-000000000003\",\"detail\":{\"a\":[null,\"x\"],\"z\":1}}"
    );
}

#[test]
fn a_text_is_one_that_every_database_takes() {
    let hostile = json!({ "a\0b": "c\0d", "big": "x".repeat(entry::TEXT_BYTES_MAX) });
    let text = entry(&hostile, &"y\0".repeat(100)).text();
    assert!(text.len() < 1000 && text.contains("left_out_bytes") && text.contains(&format!("\"{}\"", "y".repeat(64))));
    let small = json!({ "a\0b": "c\0d" });
    assert!(!entry(&small, "x").text().contains("\\u0000"));
    assert_eq!(Personal::default().text(), None);
    let loud = Personal { user_agent: Some("\0z".repeat(1000)), ..Personal::default() };
    assert_eq!(loud.text(), Some(format!("{{\"user_agent\":\"{}\"}}", "z".repeat(256))));
}

#[test]
fn a_checkpoint_is_signed_for_one_place_of_one_chain() {
    let key = key();
    let seal = Seal::START.next(ORG, EventId::from_u128(1), "x");
    let signed = key.sign(ORG, seal, NOW + time::Duration::NANOSECOND);
    // As `openssl pkey` derives it from the same secret.
    assert_eq!(key.public().to_string(), "ed25519:A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=");
    assert!(key.public().signed(&signed));
    let line = serde_json::to_string(&signed).unwrap();
    assert_eq!(serde_json::from_str::<Checkpoint>(&line).unwrap(), signed);
    let others = [
        Checkpoint { org_id: PLATFORM, ..signed.clone() },
        Checkpoint { number: 2, ..signed.clone() },
        Checkpoint { hash: ChainHash::START, ..signed.clone() },
        Checkpoint { at: NOW + time::Duration::MICROSECOND, ..signed.clone() },
        Checkpoint { signature: "AAAA".to_owned(), ..signed.clone() },
    ];
    assert!(others.iter().all(|other| !key.public().signed(other)));
    let (other, text) = SigningKey::generate().unwrap();
    assert!(!other.public().signed(&signed) && other.public().id() != signed.key_id);
    assert_eq!(SigningKey::from_text(&text).unwrap().public(), other.public());
    assert_eq!(key.public().to_string().parse(), Ok(key.public()));
    assert!(SigningKey::from_text("no").is_err() && "ed25519:AA".parse::<PublicKey>().is_err());
}

/// A trail of `count` records with a checkpoint after each of `at`.
fn trail(count: u64, at: &[u64]) -> (Vec<String>, Vec<Checkpoint>) {
    let key = key();
    let (mut seal, mut lines, mut checkpoints) = (Seal::START, vec![String::new()], Vec::new());
    for number in 1..=count {
        let id = EventId::from_u128(u128::from(number) + 100);
        let text = format!("{{\"n\":{number},\"text\":\"a \\\"quoted\\\" word\"}}");
        seal = seal.next(ORG, id, &text);
        lines.push(line(seal, id, &text));
        if at.contains(&number) {
            checkpoints.push(key.sign(ORG, seal, NOW));
        }
    }
    lines[0] = manifest(count, seal.hash);
    (lines, checkpoints)
}

fn line(seal: Seal, id: EventId, text: &str) -> String {
    let record = RecordLine { number: seal.number, id, hash: seal.hash, entry: text.into(), personal: None };
    serde_json::to_string(&record).unwrap()
}

/// As a server with the key hands it out.
fn manifest(count: u64, head: ChainHash) -> String {
    unsigned(count, head).line(Some(&key()))
}

fn unsigned(count: u64, head: ChainHash) -> Manifest {
    Manifest {
        format: export::FORMAT.to_owned(),
        org_id: ORG,
        exported_at: NOW + time::Duration::HOUR,
        after: 0,
        previous: ChainHash::START,
        last: count,
        head,
        count,
        public_key: Some(key().public()),
        checkpoints: Vec::new(),
        range_signature: None,
    }
}

fn read(lines: &[String], trust: &Trust) -> Result<Report, Fault> {
    let mut verifier = Verifier::begin(lines[0].as_bytes(), trust)?;
    lines[1..].iter().try_for_each(|line| verifier.record(line.as_bytes()))?;
    verifier.finish()
}

fn trusting(checkpoints: Vec<Checkpoint>) -> Trust {
    Trust { checkpoints, key: Some(key().public()) }
}

/// The same trail after `change` of its record `number`, made to fit itself again: what the owner of a database can do.
fn made_anew(count: u64, number: u64) -> Vec<String> {
    let (mut seal, mut lines) = (Seal::START, vec![String::new()]);
    for at in 1..=count {
        let id = EventId::from_u128(u128::from(at) + 100);
        let text = if at == number { "{}" } else { "{\"n\":0}" };
        seal = seal.next(ORG, id, text);
        lines.push(line(seal, id, text));
    }
    lines[0] = manifest(count, seal.hash);
    lines
}

#[test]
fn a_whole_trail_is_vouched_for_up_to_its_last_checkpoint() {
    let (lines, checkpoints) = trail(10, &[3, 7]);
    let report = read(&lines, &trusting(checkpoints.clone())).unwrap();
    assert_eq!((report.end.number, report.checkpoint, report.unvouched()), (10, Some((7, NOW)), 3));
    let report = read(&lines, &Trust::default()).unwrap();
    assert_eq!((report.checkpoint, report.unvouched(), report.key_is_known), (None, 10, false));
    // Of another key: whose it is, is told.
    let other = SigningKey::generate().unwrap().0.public();
    let foreign = Trust { checkpoints, key: Some(other) };
    let (found, given) = (key().public().id(), other.id());
    assert_eq!(read(&lines, &foreign), Err(Fault::OtherKey { found, given }));
    let (empty, _) = trail(0, &[]);
    assert_eq!(read(&empty, &Trust::default()).unwrap().end, Seal::START);
}

/// A manifest that somebody changed, with the signature that it had.
fn changed(line: &str, from: &str, to: &str) -> String {
    let changed = line.replacen(from, to, 1);
    assert_ne!(changed, line, "{from}");
    changed
}

#[test]
fn a_file_that_was_cut_or_dated_anew_is_told_from_one_that_was_not() {
    let (lines, _) = trail(10, &[]);
    for trust in [trusting(Vec::new()), Trust::default()] {
        assert!(read(&lines, &trust).unwrap().signed, "the control: nothing was changed");
        // Its end goes, with a manifest that says so: the value there is in the last line that stays.
        let (short, _) = trail(5, &[]);
        let head = |lines: &[String]| trail_head(lines).to_string();
        let mut cut = lines.clone();
        cut.truncate(6);
        cut[0] = changed(&lines[0], "\"last\":10", "\"last\":5");
        cut[0] = changed(&changed(&cut[0], "\"count\":10", "\"count\":5"), &head(&lines), &head(&short));
        assert_eq!(read(&cut, &trust), Err(Fault::Cut { first: 1, last: 5 }));
        // So does its begin.
        let mut late = lines.clone();
        late.drain(1..=5);
        late[0] = changed(&changed(&lines[0], "\"after\":0", "\"after\":5"), "\"count\":10", "\"count\":5");
        let zeros = ChainHash::START.to_string();
        late[0] = changed(&late[0], &zeros, &head(&short));
        assert_eq!(read(&late, &trust), Err(Fault::Cut { first: 6, last: 10 }));
        // One day earlier.
        let mut older = lines.clone();
        older[0] = changed(&lines[0], "2026-01-02T04", "2026-01-01T04");
        let says = "2026-01-01T04:04:05.678901Z".to_owned();
        assert_eq!(read(&older, &trust), Err(Fault::Redated { says }));
        let mut extended = lines.clone();
        extended[0] = changed(&lines[0], "\"checkpoints\":[]", "\"checkpoints\":[],\"unsealed\":1");
        assert!(matches!(read(&extended, &trust), Err(Fault::Manifest(_))));
        // With its signature goes its word, and what was signed once more by somebody else is somebody else's.
        let mut bare = lines.clone();
        bare[0] = serde_json::to_string(&unsigned(10, trail_head(&lines))).unwrap();
        let found = read(&bare, &trust);
        if trust.key.is_some() { assert_eq!(found, Err(Fault::Unsigned)) } else { assert!(!found.unwrap().signed) }
    }
    let (forger, _) = SigningKey::generate().unwrap();
    let (mut forged, _) = trail(5, &[]);
    let head = trail_head(&forged);
    let manifest = Manifest { public_key: Some(forger.public()), ..unsigned(5, head) };
    forged[0] = manifest.line(Some(&forger));
    assert!(matches!(read(&forged, &trusting(Vec::new())), Err(Fault::OtherKey { .. })));
    assert!(!read(&forged, &Trust::default()).unwrap().key_is_known);
    // Who says that it is the server's, and is not.
    forged[0] = unsigned(5, head).line(Some(&forger));
    assert_eq!(read(&forged, &trusting(Vec::new())), Err(Fault::Cut { first: 1, last: 5 }));
    assert_eq!(read(&forged, &Trust::default()), Err(Fault::Cut { first: 1, last: 5 }));
    // A checkpoint that it brings along is older than itself.
    let later = key().sign(ORG, Seal { number: 5, hash: head }, NOW + time::Duration::DAY);
    let manifest = Manifest { checkpoints: vec![later], ..unsigned(5, head) };
    forged[0] = serde_json::to_string(&manifest).unwrap();
    assert!(matches!(read(&forged, &Trust::default()), Err(Fault::Redated { .. })));
}

fn trail_head(lines: &[String]) -> ChainHash {
    let manifest: serde_json::Value = serde_json::from_str(&lines[0]).unwrap();
    serde_json::from_value(manifest["head"].clone()).unwrap()
}

#[test]
fn a_chain_made_anew_is_found_by_its_checkpoint() {
    let (lines, checkpoints) = trail(10, &[3, 7]);
    let trust = trusting(checkpoints.clone());
    assert_eq!(read(&made_anew(10, 5), &trust), Err(Fault::Rewritten { number: 1, checkpoint: 3 }));
    let mut mixed = lines;
    let forged: Checkpoint = Checkpoint { hash: ChainHash::START, ..checkpoints[1].clone() };
    let unsigned = trusting(vec![checkpoints[0].clone(), forged]);
    assert_eq!(read(&mixed, &unsigned), Err(Fault::Signature { number: 7 }));
    // Cut off behind the manifest's back, and with a manifest that says so.
    mixed.truncate(6);
    assert_eq!(read(&mixed, &trust), Err(Fault::Missing { number: 6, sealed: 10 }));
    let (short, _) = trail(5, &[]);
    assert_eq!(read(&short, &trust), Err(Fault::Missing { number: 6, sealed: 7 }));
    // A checkpoint that came after the file says nothing about it.
    let later: Vec<Checkpoint> =
        checkpoints.iter().map(|c| key().sign(ORG, c.seal(), NOW + time::Duration::DAY)).collect();
    assert_eq!(read(&short, &trusting(later)).unwrap().checkpoint.map(|(number, _)| number), Some(3));
}

#[test]
fn what_is_erased_or_no_export_is_told_apart() {
    let (mut lines, checkpoints) = trail(3, &[3]);
    lines[2] = lines[2].replace("\"personal\":null", "\"personal\":{\"name\":\"x\"}");
    assert!(read(&lines, &trusting(checkpoints.clone())).is_ok());
    lines[2] = lines[2].replace("\"personal\"", "\"unsealed\":1,\"personal\"");
    assert!(matches!(read(&lines, &trusting(checkpoints)), Err(Fault::Malformed { number: 2, .. })));
    assert!(matches!(Verifier::begin(b"{}", &Trust::default()), Err(Fault::Manifest(_))));
    let (lines, _) = trail(3, &[]);
    let wrong = lines[0].replace("\"count\":3", "\"count\":4");
    assert!(matches!(Verifier::begin(wrong.as_bytes(), &Trust::default()), Err(Fault::Contradiction(_))));
}

/// What somebody does to a file.
#[derive(Debug, Clone)]
enum Change {
    Edit { record: usize, at: usize, to: char },
    Remove { record: usize },
    Swap { record: usize, other: usize },
    Insert { before: usize, copy: usize },
}

fn change(count: usize) -> impl Strategy<Value = Change> {
    let record = 1..=count;
    prop_oneof![
        (record.clone(), 0..40_usize, proptest::char::range('a', 'z')).prop_map(|(record, at, to)| Change::Edit {
            record,
            at,
            to
        }),
        record.clone().prop_map(|record| Change::Remove { record }),
        (record.clone(), record.clone()).prop_map(|(record, other)| Change::Swap { record, other }),
        (1..=count + 1, record).prop_map(|(before, copy)| Change::Insert { before, copy }),
    ]
}

/// Does it; gives the number of the first record that is then not what it was.
fn apply(lines: &mut Vec<String>, change: &Change) -> Option<usize> {
    match *change {
        Change::Edit { record, at, to } => {
            let start = lines[record].find("\"entry\":\"").unwrap() + 9;
            let end = lines[record].find(",\"personal\"").unwrap() - 1;
            let at = (start + at % (end - start)).min(end - 1);
            let before = lines[record].clone();
            lines[record].replace_range(at..=at, &to.to_string());
            (lines[record] != before).then_some(record)
        }
        Change::Remove { record } => {
            lines.remove(record);
            Some(record)
        }
        Change::Swap { record, other } => {
            lines.swap(record, other);
            (record != other).then_some(record.min(other))
        }
        Change::Insert { before, copy } => {
            let copied = lines[copy].clone();
            // A copy behind its original is the first that is too many.
            let first = if before == copy { before + 1 } else { before };
            lines.insert(before, copied);
            Some(first)
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_single_change_is_found_where_it_is(change in change(12), with_checkpoint in any::<bool>()) {
        let (mut lines, checkpoints) = trail(12, &[6, 12]);
        let trust = if with_checkpoint { trusting(checkpoints) } else { Trust::default() };
        let first = apply(&mut lines, &change);
        let found = read(&lines, &trust);
        match first {
            None => prop_assert!(found.is_ok(), "{found:?}"),
            Some(first) => prop_assert_eq!(found.unwrap_err().number(), Some(first as u64)),
        }
    }

    #[test]
    fn a_text_is_json_with_what_it_was_made_of(action in ".{0,80}", word in ".{0,40}") {
        let detail = json!({ "word": word, "host": HostId::from_u128(7) });
        let text = entry(&detail, &action).text();
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&read["detail"]["word"], &json!(word.replace('\0', "\u{fffd}")));
        let action: String = action.chars().filter(|c| *c != '\0').take(64).collect();
        prop_assert_eq!(&read["action"], &json!(action));
    }
}
