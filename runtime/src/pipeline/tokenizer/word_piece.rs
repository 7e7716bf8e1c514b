//! BERT's WordPiece: normalise, split into words, take the longest known piece again and again.

use unicode_normalization::UnicodeNormalization;

use super::super::spec::TokenizerSpec;
use super::table::Vocabulary;
use super::unicode::{is_dropped, is_ideograph, is_nonspacing_mark, is_punctuation, is_space};

/// Words with more characters are unknown.
const WORD_CHARS_MAX: usize = 100;
/// What a piece that continues a word begins with.
const CONTINUATION: &[u8] = b"##";

/// Emits the ids of `text`, without special ones.
///
/// # Source   Wu et al. 2016; Hugging Face `tokenizers`, BertNormalizer, BertPreTokenizer, WordPiece
pub fn encode(
    spec: &TokenizerSpec,
    vocabulary: &Vocabulary,
    text: &str,
    emit: &mut impl FnMut(u32),
) {
    let clean = text
        .chars()
        .filter(|&c| !is_dropped(c))
        .flat_map(|c| {
            if is_ideograph(c) { [Some(' '), Some(c), Some(' ')] } else { [Some(c), None, None] }
        })
        .flatten();
    let mut word = Word::new();
    let mut see = |c: char| {
        if is_space(c) {
            word.end(spec, vocabulary, emit);
        } else if is_punctuation(c) {
            word.end(spec, vocabulary, emit);
            word.push(c);
            word.end(spec, vocabulary, emit);
        } else {
            word.push(c);
        }
    };
    if spec.uncased {
        let lower = clean.nfd().filter(|&c| !is_nonspacing_mark(c)).flat_map(char::to_lowercase);
        lower.for_each(&mut see);
    } else {
        clean.for_each(&mut see);
    }
    word.end(spec, vocabulary, emit);
}

/// The word that is being read, behind room for [`CONTINUATION`].
struct Word {
    bytes: [u8; CONTINUATION.len() + 4 * WORD_CHARS_MAX],
    end: usize,
    chars: usize,
}

impl Word {
    fn new() -> Self {
        Word { bytes: [0; _], end: CONTINUATION.len(), chars: 0 }
    }

    fn push(&mut self, c: char) {
        self.chars += 1;
        if self.chars <= WORD_CHARS_MAX {
            self.end += c.encode_utf8(&mut self.bytes[self.end..]).len();
        }
    }

    fn end(&mut self, spec: &TokenizerSpec, vocabulary: &Vocabulary, emit: &mut impl FnMut(u32)) {
        if self.chars > WORD_CHARS_MAX {
            emit(spec.unknown_id);
        } else if self.chars > 0 {
            self.pieces(spec, vocabulary, emit);
        }
        *self = Word::new();
    }

    fn pieces(&self, spec: &TokenizerSpec, vocabulary: &Vocabulary, emit: &mut impl FnMut(u32)) {
        let mut ids = [0; WORD_CHARS_MAX];
        let mut count = 0;
        let mut at = CONTINUATION.len();
        let mut bytes = self.bytes;
        while at < self.end {
            // The prefix overwrites what is already matched, so that a piece is one slice.
            let first = if at == CONTINUATION.len() {
                at
            } else {
                bytes[at - CONTINUATION.len()..at].copy_from_slice(CONTINUATION);
                at - CONTINUATION.len()
            };
            let longest = (first + vocabulary.longest_bytes()).min(self.end);
            let piece = (at + 1..=longest)
                .rev()
                .filter(|&end| end == self.end || !is_continuation_byte(bytes[end]))
                .find_map(|end| Some((end, vocabulary.id(&bytes[first..end])?)));
            let Some((end, id)) = piece else {
                emit(spec.unknown_id);
                return;
            };
            ids[count] = id;
            count += 1;
            at = end;
        }
        ids[..count].iter().for_each(|&id| emit(id));
    }
}

fn is_continuation_byte(byte: u8) -> bool {
    byte & 0xC0 == 0x80
}
