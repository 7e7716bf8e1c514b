//! Text to token ids, over tables that stay in the pack's map.
//!
//! Enters: a prompt that [`check_prompt`] let through, the tokenizer's tables. Leaves: ids with the special
//! ones around them, padded. Never: a vocabulary on the heap, special tokens out of a prompt's text.
//!
//! A prompt has at most [`PROMPT_BYTES_MAX`] bytes, so the heap that normalising takes is bounded by
//! [`SCRATCH_BYTES_MAX`], whatever the vocabulary.

mod clip_bpe;
mod table;
mod unicode;
mod word_piece;

pub use table::{Merges, TableError, Vocabulary, build_merges, build_vocabulary};

use super::spec::{TokenizerKind, TokenizerSpec};

/// The longest prompt that is tokenised, in bytes of UTF-8.
pub const PROMPT_BYTES_MAX: usize = 4096;

/// The most heap that tokenising one prompt takes, in bytes.
///
/// The worst case is one word of [`PROMPT_BYTES_MAX`] bytes, each character a combining mark: normalising
/// triples the text at most and holds eight bytes for a character, and byte-pair encoding holds twelve for
/// a byte; growing a vector doubles each.
pub const SCRATCH_BYTES_MAX: usize = 512 << 10;

/// A prompt that is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PromptError {
    /// Nothing but white space and characters that no tokenizer sees.
    #[error("the prompt is empty; say what to draw, for example \"a red apple\"")]
    Empty,
    /// Above [`PROMPT_BYTES_MAX`].
    #[error("the prompt has {bytes} bytes but at most {PROMPT_BYTES_MAX} are taken; shorten it")]
    TooLong {
        /// Of the prompt.
        bytes: usize,
    },
    /// Not text.
    #[error(
        "the prompt is not UTF-8: byte {offset} fits no character; send it in UTF-8 without binary data"
    )]
    NotUtf8 {
        /// First byte that is not UTF-8.
        offset: usize,
    },
}

/// A tokenizer that the pack describes wrongly.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenizerError {
    /// A table is damaged.
    #[error("tokenizer table {name}: {source}")]
    Table {
        /// Name of the tensor.
        name: String,
        /// What is wrong with it.
        source: TableError,
    },
    /// Byte-pair encoding without merges.
    #[error("the pack's tokenizer is clip_bpe but names no merges table; pack it again")]
    NoMerges,
    /// No room for a token between the special ones.
    #[error("the pack's tokenizer allows {tokens_max} tokens; it needs 3 or more; pack it again")]
    TooFewTokens {
        /// As the pack says.
        tokens_max: u32,
    },
}

/// How many ids a prompt became.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenCount {
    /// Ids before padding, the special ones among them.
    pub used: u32,
    /// What `used` would be if nothing had been cut.
    pub whole: u32,
}

/// A tokenizer whose tables are borrowed from the pack.
#[derive(Clone, Copy, Debug)]
pub struct Tokenizer<'a> {
    spec: &'a TokenizerSpec,
    vocabulary: Vocabulary<'a>,
    merges: Option<Merges<'a>>,
}

impl<'a> Tokenizer<'a> {
    /// A tokenizer from the tensors that `spec` names.
    ///
    /// # Errors
    /// [`TokenizerError`] if a table is damaged or missing.
    pub fn new(
        spec: &'a TokenizerSpec,
        vocabulary: &'a [u8],
        merges: Option<&'a [u8]>,
    ) -> Result<Self, TokenizerError> {
        let table = |name: &str, source| TokenizerError::Table { name: name.to_owned(), source };
        if spec.tokens_max < 3 {
            return Err(TokenizerError::TooFewTokens { tokens_max: spec.tokens_max });
        }
        let vocabulary =
            Vocabulary::open(vocabulary).map_err(|source| table(&spec.vocabulary, source))?;
        let merges = match (spec.kind, merges) {
            (TokenizerKind::WordPiece, _) => None,
            (TokenizerKind::ClipBpe, None) => return Err(TokenizerError::NoMerges),
            (TokenizerKind::ClipBpe, Some(bytes)) => {
                Some(Merges::open(bytes).map_err(|source| {
                    table(spec.merges.as_deref().unwrap_or("of the merges"), source)
                })?)
            }
        };
        Ok(Tokenizer { spec, vocabulary, merges })
    }

    /// Turns text into ids: start, what fits of the text, end, padding up to `ids.len()`.
    ///
    /// Empty text is allowed here (an absent negative prompt is): it becomes start, end, padding.
    ///
    /// # Shape    `ids`: `[tokens_max]`
    /// # Units    scratch: at most [`SCRATCH_BYTES_MAX`]
    /// # Errors   [`PromptError::TooLong`]
    /// # Source   Hugging Face `tokenizers` with truncation "longest first" on the right
    ///
    /// # Panics
    /// If `ids` is not as long as the pack's `tokens_max`.
    pub fn encode(&self, text: &str, ids: &mut [i32]) -> Result<TokenCount, PromptError> {
        assert_eq!(ids.len(), self.spec.tokens_max as usize, "ids are not [tokens_max]");
        if text.len() > PROMPT_BYTES_MAX {
            return Err(PromptError::TooLong { bytes: text.len() });
        }
        let room = ids.len() - 2;
        let mut whole = 0usize;
        let mut emit = |id: u32| {
            if whole < room {
                ids[1 + whole] = id as i32;
            }
            whole += 1;
        };
        match &self.merges {
            None => word_piece::encode(self.spec, &self.vocabulary, text, &mut emit),
            Some(merges) => {
                clip_bpe::encode(self.spec, &self.vocabulary, merges, text, &mut emit);
            }
        }
        let used = whole.min(room);
        ids[0] = self.spec.start_id as i32;
        ids[1 + used] = self.spec.end_id as i32;
        ids[2 + used..].fill(self.spec.pad_id as i32);
        Ok(TokenCount { used: used as u32 + 2, whole: whole as u32 + 2 })
    }
}

/// Checks bytes that should be a prompt.
///
/// # Errors
/// [`PromptError`] if they are too many, not UTF-8, or hold nothing to draw.
pub fn check_prompt(bytes: &[u8]) -> Result<&str, PromptError> {
    if bytes.len() > PROMPT_BYTES_MAX {
        return Err(PromptError::TooLong { bytes: bytes.len() });
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| PromptError::NotUtf8 { offset: error.valid_up_to() })?;
    if text.chars().all(|c| unicode::is_space(c) || unicode::is_dropped(c)) {
        return Err(PromptError::Empty);
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(kind: TokenizerKind, tokens_max: u32) -> TokenizerSpec {
        TokenizerSpec {
            kind,
            tokens_max,
            uncased: true,
            start_id: 0,
            end_id: 1,
            pad_id: 2,
            unknown_id: 3,
            vocabulary: "vocabulary".to_owned(),
            merges: None,
        }
    }

    #[test]
    fn prompts_are_refused_with_their_numbers() {
        assert_eq!(check_prompt(b" \t\n\x00\xe2\x80\x8b"), Err(PromptError::Empty));
        assert_eq!(check_prompt(b""), Err(PromptError::Empty));
        assert_eq!(check_prompt(b"a\xff"), Err(PromptError::NotUtf8 { offset: 1 }));
        let huge = vec![b'a'; 10 << 20];
        assert_eq!(check_prompt(&huge), Err(PromptError::TooLong { bytes: 10 << 20 }));
        assert_eq!(check_prompt("ein Apfel".as_bytes()), Ok("ein Apfel"));
    }

    #[test]
    fn word_piece_takes_the_longest_piece_and_cuts_what_does_not_fit() {
        let vocabulary = build_vocabulary(&[
            "[S]", "[E]", "[P]", "[U]", "a", "app", "##le", "apple", "##s", ",",
        ]);
        let spec = spec(TokenizerKind::WordPiece, 7);
        let tokenizer = Tokenizer::new(&spec, &vocabulary, None).unwrap();
        let mut ids = [9; 7];
        let count = tokenizer.encode("A\u{301} ÁPPLÉS,", &mut ids).unwrap();
        assert_eq!((ids, count), ([0, 4, 7, 8, 9, 1, 2], TokenCount { used: 6, whole: 6 }));
        let count = tokenizer.encode("a q apples, a apple", &mut ids).unwrap();
        assert_eq!((ids, count), ([0, 4, 3, 7, 8, 9, 1], TokenCount { used: 7, whole: 9 }));
        let count = tokenizer.encode("", &mut ids).unwrap();
        assert_eq!((ids, count), ([0, 1, 2, 2, 2, 2, 2], TokenCount { used: 2, whole: 2 }));
        tokenizer.encode(&"a".repeat(101), &mut ids).unwrap();
        assert_eq!(ids[..3], [0, 3, 1]);
        assert!(tokenizer.encode(&"a".repeat(5000), &mut ids).is_err());
    }

    #[test]
    fn byte_pairs_merge_by_rank_and_from_the_left() {
        let tokens =
            ["<s>", "</s>", "<p>", "<u>", "a", "b", "a</w>", "b</w>", "ab", "ab</w>", "abab</w>"];
        let vocabulary = build_vocabulary(&tokens);
        let merges =
            build_merges(&tokens, &[("a", "b"), ("a", "b</w>"), ("ab", "ab</w>")]).unwrap();
        let spec = spec(TokenizerKind::ClipBpe, 8);
        let tokenizer = Tokenizer::new(&spec, &vocabulary, Some(&merges)).unwrap();
        let mut ids = [9; 8];
        tokenizer.encode("ABAB abb  a é", &mut ids).unwrap();
        assert_eq!(ids, [0, 10, 8, 7, 6, 3, 3, 1]);
        assert!(matches!(Tokenizer::new(&spec, &vocabulary, None), Err(TokenizerError::NoMerges)));
    }
}
