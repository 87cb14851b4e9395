//! Remembers the tokens that were verified, since a client sends the same one again and again and a
//! signature takes longer than everything else in routing. One for each worker: no locks.
//!
//! Only what was found valid is kept, so that nobody fills it who cannot sign.

use std::{cell::RefCell, hash::Hasher as _, rc::Rc};

use siphasher::sip::SipHasher13;

use super::{Claims, Tokens, tokens::bearer};

/// Number of tokens kept, each in the one place that its hash says.
const PLACES: usize = 256;
/// Longest token kept, in bytes.
const MAX_KEPT: usize = 4 << 10;

/// Tokens of one worker that were verified.
#[derive(Debug, Default)]
pub struct VerifiedTokens(RefCell<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// What verified them: under other keys or rules nothing of it holds.
    by: [u8; 32],
    /// Empty until the first token comes.
    places: Vec<Option<Token>>,
}

#[derive(Debug)]
struct Token {
    text: Box<[u8]>,
    /// In seconds since 1970.
    until: u64,
    claims: Rc<Claims>,
}

impl VerifiedTokens {
    /// The claims of the token in a field `Authorization`, if it is valid now (in seconds since
    /// 1970).
    #[must_use]
    pub fn claims(&self, tokens: &Tokens, authorization: &[u8], now: u64) -> Option<Rc<Claims>> {
        let text = bearer(authorization)?;
        let place = place(text);
        let mut kept = self.0.borrow_mut();
        if kept.by != *tokens.digest() {
            *kept = Kept { by: *tokens.digest(), places: Vec::new() };
        }
        if let Some(Some(token)) = kept.places.get(place)
            && *token.text == *text
            && now < token.until
        {
            return Some(Rc::clone(&token.claims));
        }
        let (claims, until) = tokens.verify(authorization, now).ok()?;
        let claims = Rc::new(claims);
        if text.len() <= MAX_KEPT {
            kept.places.resize_with(PLACES, || None);
            kept.places[place] =
                Some(Token { text: text.into(), until, claims: Rc::clone(&claims) });
        }
        Some(claims)
    }
}

fn place(text: &[u8]) -> usize {
    let mut hash = SipHasher13::new();
    hash.write(text);
    hash.finish() as usize % PLACES
}
