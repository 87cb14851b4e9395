//! One line of the journal: how it is written, how it is taken apart, and the hash that chains the
//! decisions. What a block or a snapshot contains is none of its business.

use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::Decision;

/// What the first decision of all is chained to.
pub(super) const GENESIS: &str = "";

/// A line, as far as it can be read without knowing what is in a block or a snapshot.
#[derive(Debug)]
pub enum Line<'a> {
    /// What was counted or asked, before it was judged.
    Block(&'a RawValue),
    /// What was decided.
    Decision(Box<Decision>),
    /// The whole state at this place.
    Snapshot(&'a RawValue),
    /// So many blocks are missing here: what was counted is only known again from the next
    /// snapshot on.
    Gap(u64),
    /// A line that cannot be read. It was no decision: the chain shows that.
    Damaged,
}

/// A decision with its place in the chain.
#[derive(Debug)]
pub(super) struct Chained<'a> {
    pub(super) raw: &'a RawValue,
    /// The number of the first decision that went to the disk together with this one.
    pub(super) batch: u64,
    pub(super) previous: &'a str,
    pub(super) hash: &'a str,
}

/// A line, taken apart.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Block(&'a RawValue),
    Decision(Chained<'a>),
    /// A decision alone in its line, as an earlier format had it.
    Bare(Box<Decision>),
    Snapshot {
        raw: &'a RawValue,
        after: u64,
        hash: &'a str,
    },
    Gap(u64),
}

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    block: Option<&'a RawValue>,
    #[serde(borrow)]
    decision: Option<&'a RawValue>,
    #[serde(borrow)]
    snapshot: Option<&'a RawValue>,
    gap: Option<u64>,
    batch: Option<u64>,
    previous: Option<&'a str>,
    hash: Option<&'a str>,
    after: Option<u64>,
    seq: Option<IgnoredAny>,
}

/// Why a line cannot be taken apart.
#[derive(Debug)]
pub(super) enum Unreadable {
    /// It is not whole, as after a crash.
    Torn(String),
    /// It is whole and means nothing to this version.
    Strange(String),
}

impl From<serde_json::Error> for Unreadable {
    fn from(error: serde_json::Error) -> Self {
        if error.is_data() {
            Self::Strange(error.to_string())
        } else {
            Self::Torn(error.to_string())
        }
    }
}

/// Takes a line apart.
pub(super) fn parse(line: &[u8]) -> Result<Parsed<'_>, Unreadable> {
    let envelope: Envelope<'_> = serde_json::from_slice(line)?;
    match envelope {
        Envelope { block: Some(raw), .. } => Ok(Parsed::Block(raw)),
        Envelope {
            decision: Some(raw),
            batch: Some(batch),
            previous: Some(previous),
            hash: Some(hash),
            ..
        } => Ok(Parsed::Decision(Chained { raw, batch, previous, hash })),
        Envelope { snapshot: Some(raw), after: Some(after), hash: Some(hash), .. } => {
            Ok(Parsed::Snapshot { raw, after, hash })
        }
        Envelope { gap: Some(lost), .. } => Ok(Parsed::Gap(lost)),
        Envelope { seq: Some(_), .. } => Ok(Parsed::Bare(serde_json::from_slice(line)?)),
        Envelope { .. } => {
            Err(Unreadable::Strange("neither block, decision, snapshot nor gap".into()))
        }
    }
}

/// The hash of a decision that follows another: SHA-256 over the hash before, in hexadecimal
/// digits, and the decision's bytes as they stand in the file.
pub(super) fn link(previous: &str, decision: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(decision);
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Appends a block.
pub(super) fn block<B: Serialize>(lines: &mut Vec<u8>, block: &B) -> serde_json::Result<()> {
    let content = serde_json::to_vec(block)?;
    join(lines, &[b"{\"block\":", &content, b"}\n"]);
    Ok(())
}

/// Appends a decision behind another; returns its hash.
pub(super) fn decision(
    lines: &mut Vec<u8>,
    decision: &Decision,
    batch: u64,
    previous: &str,
) -> serde_json::Result<String> {
    let content = serde_json::to_vec(decision)?;
    let hash = link(previous, &content);
    let chain = format!(",\"batch\":{batch},\"previous\":\"{previous}\",\"hash\":\"{hash}\"}}\n");
    join(lines, &[b"{\"decision\":", &content, chain.as_bytes()]);
    Ok(hash)
}

/// A snapshot's line, with the place in the chain that it was written at.
pub(super) fn snapshot<S: Serialize>(
    snapshot: &S,
    at: &str,
    after: u64,
    hash: &str,
) -> serde_json::Result<Vec<u8>> {
    let content = serde_json::to_vec(snapshot)?;
    let mut line = Vec::with_capacity(content.len() + 160);
    let place = format!(",\"at\":\"{at}\",\"after\":{after},\"hash\":\"{hash}\"}}\n");
    join(&mut line, &[b"{\"snapshot\":", &content, place.as_bytes()]);
    Ok(line)
}

/// Appends the note that blocks were lost.
pub(super) fn gap(lines: &mut Vec<u8>, lost: u64) {
    lines.extend_from_slice(format!("{{\"gap\":{lost}}}\n").as_bytes());
}

fn join(lines: &mut Vec<u8>, parts: &[&[u8]]) {
    for part in parts {
        lines.extend_from_slice(part);
    }
}
