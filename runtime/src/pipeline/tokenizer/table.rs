//! The two tables: tokens by their bytes, merges by their pair. Both are read in place.
//!
//! Vocabulary, little-endian: `"VOC1"`, u32 entries, u32 bytes of the longest entry, u32 text bytes, u32
//! start of each entry and of the end `[entries + 1]`, u32 id `[entries]`, text. Entries are sorted by
//! their bytes.
//!
//! Merges, little-endian: `"MRG1"`, u32 entries, then `[entries]` of u32 left id, u32 right id, u32 rank,
//! u32 id of the joined token, sorted by (left, right).
//!
//! Bytes after either (the pack's padding) are ignored. Every read is bounds-checked, so a damaged table
//! yields wrong ids at worst; what the text encoder takes is checked before it runs.

const VOCABULARY_MAGIC: &[u8; 4] = b"VOC1";
const MERGES_MAGIC: &[u8; 4] = b"MRG1";
const VOCABULARY_HEADER_BYTES: usize = 16;
const MERGES_HEADER_BYTES: usize = 8;
const MERGE_BYTES: usize = 16;

/// A table that cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// Other magic bytes, or a header longer than the table.
    #[error("it does not begin with {expected}; pack the model again")]
    Magic {
        /// The four bytes of this table's kind.
        expected: &'static str,
    },
    /// The header says more than the table holds.
    #[error("it needs {needed} bytes but has {present}; pack the model again")]
    Truncated {
        /// By its header.
        needed: u64,
        /// In the pack.
        present: usize,
    },
    /// A merge of tokens, or to a token, that the vocabulary lacks.
    #[error(
        "merge {rank} ({left:?} {right:?}) names a token that the vocabulary lacks; use merges.txt and vocab.json of one tokenizer"
    )]
    UnknownToken {
        /// Line of the merge, from 0.
        rank: usize,
        /// First half.
        left: String,
        /// Second half.
        right: String,
    },
}

/// Tokens by their bytes.
#[derive(Clone, Copy, Debug)]
pub struct Vocabulary<'a> {
    starts: &'a [u8],
    ids: &'a [u8],
    text: &'a [u8],
    longest_bytes: usize,
}

impl<'a> Vocabulary<'a> {
    /// Reads the header of a table that [`build_vocabulary`] wrote.
    ///
    /// # Errors
    /// [`TableError`] if the table is another or shorter than it says.
    pub fn open(bytes: &'a [u8]) -> Result<Self, TableError> {
        if bytes.len() < VOCABULARY_HEADER_BYTES || &bytes[..4] != VOCABULARY_MAGIC {
            return Err(TableError::Magic { expected: "VOC1" });
        }
        let header = |index| u64::from(word(bytes, index).unwrap_or(0));
        let (entries, longest_bytes, text_bytes) = (header(1), header(2), header(3));
        let starts_at = VOCABULARY_HEADER_BYTES as u64;
        let ids_at = starts_at + 4 * (entries + 1);
        let text_at = ids_at + 4 * entries;
        let needed = text_at + text_bytes;
        let slice = |from: u64, to: u64| bytes.get(from as usize..to as usize);
        match (slice(starts_at, ids_at), slice(ids_at, text_at), slice(text_at, needed)) {
            (Some(starts), Some(ids), Some(text)) => {
                Ok(Vocabulary { starts, ids, text, longest_bytes: longest_bytes as usize })
            }
            _ => Err(TableError::Truncated { needed, present: bytes.len() }),
        }
    }

    /// The id of a token.
    pub fn id(&self, token: &[u8]) -> Option<u32> {
        if token.len() > self.longest_bytes {
            return None;
        }
        let (mut low, mut high) = (0, self.ids.len() / 4);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.entry(middle)?.cmp(token) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return word(self.ids, middle),
            }
        }
        None
    }

    /// Bytes of the longest token.
    pub fn longest_bytes(&self) -> usize {
        self.longest_bytes
    }

    fn entry(&self, index: usize) -> Option<&'a [u8]> {
        let (start, end) = (word(self.starts, index)?, word(self.starts, index + 1)?);
        self.text.get(start as usize..end as usize)
    }
}

/// Merges by their pair.
#[derive(Clone, Copy, Debug)]
pub struct Merges<'a> {
    records: &'a [u8],
}

impl<'a> Merges<'a> {
    /// Reads the header of a table that [`build_merges`] wrote.
    ///
    /// # Errors
    /// [`TableError`] if the table is another or shorter than it says.
    pub fn open(bytes: &'a [u8]) -> Result<Self, TableError> {
        if bytes.len() < MERGES_HEADER_BYTES || &bytes[..4] != MERGES_MAGIC {
            return Err(TableError::Magic { expected: "MRG1" });
        }
        let entries = u64::from(word(bytes, 1).unwrap_or(0));
        let needed = MERGES_HEADER_BYTES as u64 + entries * MERGE_BYTES as u64;
        let records = bytes
            .get(MERGES_HEADER_BYTES..needed as usize)
            .ok_or(TableError::Truncated { needed, present: bytes.len() })?;
        Ok(Merges { records })
    }

    /// Rank of a pair (the lowest goes first) and the id that it becomes.
    pub fn rank(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let (mut low, mut high) = (0, self.records.len() / MERGE_BYTES);
        while low < high {
            let middle = low + (high - low) / 2;
            let record = self.records.get(middle * MERGE_BYTES..)?;
            match (word(record, 0)?, word(record, 1)?).cmp(&(left, right)) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Some((word(record, 2)?, word(record, 3)?)),
            }
        }
        None
    }
}

fn word(bytes: &[u8], index: usize) -> Option<u32> {
    let at = index.checked_mul(4)?;
    let word = bytes.get(at..at.checked_add(4)?)?;
    word.try_into().ok().map(u32::from_le_bytes)
}

/// Writes a vocabulary; a token's id is its place in `tokens`.
///
/// Byte-level vocabularies stay in their printable alphabet (`Ġ`, `</w>`), as `vocab.json` has them. Of
/// equal tokens the last one counts, as for Hugging Face `tokenizers`.
///
/// # Panics
/// If the tokens take 4 GiB.
pub fn build_vocabulary(tokens: &[&str]) -> Vec<u8> {
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by_key(|&id| (tokens[id].as_bytes(), std::cmp::Reverse(id)));
    order.dedup_by_key(|id| tokens[*id].as_bytes());
    let text_bytes: usize = order.iter().map(|&id| tokens[id].len()).sum();
    let longest_bytes = order.iter().map(|&id| tokens[id].len()).max().unwrap_or(0);
    let text_bytes = u32::try_from(text_bytes).expect("a vocabulary is below 4 GiB");
    let mut table = VOCABULARY_MAGIC.to_vec();
    let mut push = |value: u32| table.extend_from_slice(&value.to_le_bytes());
    push(order.len() as u32);
    push(longest_bytes as u32);
    push(text_bytes);
    let mut start = 0;
    for &id in &order {
        push(start);
        start += tokens[id].len() as u32;
    }
    push(start);
    for &id in &order {
        push(id as u32);
    }
    for &id in &order {
        table.extend_from_slice(tokens[id].as_bytes());
    }
    table
}

/// Writes a merges table; a merge's rank is its place in `merges`, ids are places in `tokens`.
///
/// # Errors
/// [`TableError::UnknownToken`] if a half or the joined token is not in `tokens`.
pub fn build_merges(tokens: &[&str], merges: &[(&str, &str)]) -> Result<Vec<u8>, TableError> {
    let vocabulary = build_vocabulary(tokens);
    let vocabulary = Vocabulary::open(&vocabulary)?;
    let mut records = Vec::with_capacity(merges.len());
    for (rank, &(left, right)) in merges.iter().enumerate() {
        let id = |token: &str| vocabulary.id(token.as_bytes());
        let record = id(left).zip(id(right)).zip(id(&format!("{left}{right}")));
        let Some(((left, right), joined)) = record else {
            let (left, right) = (left.to_owned(), right.to_owned());
            return Err(TableError::UnknownToken { rank, left, right });
        };
        records.push([left, right, rank as u32, joined]);
    }
    records.sort_unstable();
    records.dedup_by_key(|record| (record[0], record[1]));
    let mut table = MERGES_MAGIC.to_vec();
    table.extend_from_slice(&(records.len() as u32).to_le_bytes());
    table.extend(records.iter().flatten().flat_map(|word| word.to_le_bytes()));
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_token_and_nothing_else() {
        let tokens = ["the", "", "zebra", "a", "##s", "ü", "the", "apple"];
        let mut table = build_vocabulary(&tokens);
        table.resize(table.len().next_multiple_of(64), 0);
        let vocabulary = Vocabulary::open(&table).unwrap();
        for (id, token) in tokens.iter().enumerate().skip(1) {
            assert_eq!(vocabulary.id(token.as_bytes()), Some(id as u32), "{token}");
        }
        for absent in ["th", "thee", "zebras", "\0", "b"] {
            assert_eq!(vocabulary.id(absent.as_bytes()), None, "{absent}");
        }
    }

    #[test]
    fn a_damaged_table_is_refused_or_finds_nothing_but_never_panics() {
        let tokens = ["a", "b", "ab", "abc", "c"];
        let good = build_vocabulary(&tokens);
        for length in 0..good.len() {
            assert!(Vocabulary::open(&good[..length]).is_err());
        }
        for at in 0..good.len() {
            for value in [0, 1, 127, 255] {
                let mut bad = good.clone();
                bad[at] = value;
                if let Ok(vocabulary) = Vocabulary::open(&bad) {
                    for token in tokens {
                        let _ = vocabulary.id(token.as_bytes());
                    }
                }
            }
        }
        let merges = build_merges(&tokens, &[("a", "b"), ("ab", "c")]).unwrap();
        assert_eq!(Merges::open(&merges).unwrap().rank(2, 4), Some((1, 3)));
        assert_eq!(Merges::open(&merges).unwrap().rank(2, 3), None);
        for length in 0..merges.len() {
            assert!(Merges::open(&merges[..length]).is_err());
        }
        let unknown = build_merges(&tokens, &[("a", "b"), ("b", "c")]).unwrap_err();
        assert!(unknown.to_string().contains("merge 1"), "{unknown}");
    }
}
