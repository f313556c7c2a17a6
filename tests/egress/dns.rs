//! A name server of the test: for one name its answers change from query to query, as those of an attacker would.

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::network::{Net, SERVER};

/// Type of a question for an IPv4 address.
const A: [u8; 2] = [0, 1];

/// Serves `answers` in turn, the last one for ever, for names that end in `zone`; others do not exist. Returns how many questions for addresses
/// of the zone came.
pub(crate) fn serve(world: &Net, zone: &str, answers: &[&str]) -> Arc<AtomicUsize> {
    let asked = Arc::<AtomicUsize>::default();
    let answers: Vec<Ipv4Addr> = answers.iter().map(|text| text.parse().unwrap()).collect();
    let socket = world.run(|| UdpSocket::bind((SERVER, 53)).unwrap());
    let counting = Arc::clone(&asked);
    // As in a question: each label behind its length.
    let zone: Vec<u8> =
        zone.split('.').flat_map(|label| [&[label.len() as u8], label.as_bytes()].concat()).chain([0]).collect();
    std::thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let query = &query[..length];
            // One question, behind a header of 12 bytes: labels, an empty one, type and class.
            let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
            let question = &query[12..end];
            let exists = question[..question.len() - 4].ends_with(&zone);
            let is_address = exists && question[question.len() - 4..question.len() - 2] == A;
            let mut reply = query[..2].to_vec();
            // No error, or no such name.
            let code = if exists { 0x80 } else { 0x83 };
            reply.extend([0x81, code, 0, 1, 0, u8::from(is_address), 0, 0, 0, 0]);
            reply.extend_from_slice(question);
            if is_address {
                let number = counting.fetch_add(1, Ordering::SeqCst);
                let address = answers[number.min(answers.len() - 1)];
                // The name above, address, class, no time to live.
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4]);
                reply.extend(address.octets());
            }
            let _gone = socket.send_to(&reply, client);
        }
    });
    asked
}
