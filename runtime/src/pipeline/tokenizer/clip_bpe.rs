//! CLIP's byte-pair encoding: lower-case, split by a pattern, merge bytes by rank.

use unicode_normalization::UnicodeNormalization;

use super::super::spec::TokenizerSpec;
use super::table::{Merges, Vocabulary};
use super::unicode::{is_letter, is_number, is_space};

/// Ends of words that stand alone, tried in this order.
const CONTRACTIONS: [&str; 7] = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"];
/// Marks the last byte of a word.
const WORD_END: &str = "</w>";
/// No merge.
const NEVER: u32 = u32::MAX;

/// Emits the ids of `text`, without special ones.
///
/// # Source   Sennrich et al. 2016; Radford et al. 2021; Hugging Face `CLIPTokenizer`
pub fn encode(
    spec: &TokenizerSpec,
    vocabulary: &Vocabulary,
    merges: &Merges,
    text: &str,
    emit: &mut impl FnMut(u32),
) {
    let text: String = text.nfc().flat_map(char::to_lowercase).collect();
    let mut symbols = Vec::new();
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        let length = if is_space(first) {
            rest = &rest[first.len_utf8()..];
            continue;
        } else if let Some(ending) = CONTRACTIONS.iter().find(|ending| rest.starts_with(**ending)) {
            ending.len()
        } else if is_letter(first) {
            run(rest, is_letter)
        } else if is_number(first) {
            first.len_utf8()
        } else {
            run(rest, |c| !is_space(c) && !is_letter(c) && !is_number(c))
        };
        let (word, after) = rest.split_at(length);
        merge_word(spec, vocabulary, merges, word.as_bytes(), &mut symbols);
        symbols.iter().for_each(|symbol: &Symbol| emit(symbol.id));
        rest = after;
    }
}

/// Bytes of the longest prefix whose characters all satisfy `class`.
fn run(text: &str, class: impl Fn(char) -> bool) -> usize {
    text.find(|c| !class(c)).unwrap_or(text.len())
}

/// A token of the word so far, and what joining it with the next one gives.
struct Symbol {
    id: u32,
    rank: u32,
    joined: u32,
}

fn merge_word(
    spec: &TokenizerSpec,
    vocabulary: &Vocabulary,
    merges: &Merges,
    word: &[u8],
    symbols: &mut Vec<Symbol>,
) {
    symbols.clear();
    for (index, &byte) in word.iter().enumerate() {
        let mut buffer = [0; 8];
        let length = printable(byte).encode_utf8(&mut buffer).len();
        let token = if index + 1 == word.len() {
            buffer[length..length + WORD_END.len()].copy_from_slice(WORD_END.as_bytes());
            &buffer[..length + WORD_END.len()]
        } else {
            &buffer[..length]
        };
        let id = vocabulary.id(token).unwrap_or(spec.unknown_id);
        symbols.push(Symbol { id, rank: NEVER, joined: 0 });
    }
    for index in 0..symbols.len() {
        rank_at(merges, symbols, index);
    }
    loop {
        let best = symbols.iter().enumerate().min_by_key(|(_, symbol)| symbol.rank);
        let Some((index, &Symbol { rank, joined, .. })) = best else { return };
        if rank == NEVER {
            return;
        }
        symbols.remove(index + 1);
        symbols[index].id = joined;
        rank_at(merges, symbols, index);
        if let Some(before) = index.checked_sub(1) {
            rank_at(merges, symbols, before);
        }
    }
}

fn rank_at(merges: &Merges, symbols: &mut [Symbol], index: usize) {
    let found = symbols.get(index + 1).and_then(|next| merges.rank(symbols[index].id, next.id));
    (symbols[index].rank, symbols[index].joined) = found.unwrap_or((NEVER, 0));
}

/// The character that stands for a byte in a byte-level vocabulary: itself if it is printable Latin-1,
/// else the next one from U+0100 on.
fn printable(byte: u8) -> char {
    let code = match byte {
        b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => u32::from(byte),
        0..=0x20 => 0x100 + u32::from(byte),
        0x7F..=0xA0 => 0x121 + u32::from(byte) - 0x7F,
        0xAD => 0x143,
    };
    char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER)
}
