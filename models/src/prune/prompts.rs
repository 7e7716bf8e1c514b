//! What pruning draws: pictures to learn from, and others to be judged by.

use std::collections::BTreeSet;

use plantain::pipeline::PipelineSpec;

use crate::chain::Request;
use crate::packing::phrase;

/// What a prompt says around its word; one word alone is the usual case.
const FORMS: [&str; 6] =
    ["{}", "a {colour} {word}", "{}", "{} and {other}", "{}", "{} on a {colour} background"];
/// Colours that any model may know.
const COLOURS: [&str; 7] = ["red", "blue", "green", "yellow", "purple", "black", "white"];
/// With fewer prompts than this none is kept apart, and the same ones are judged by from other noise.
const PROMPTS_APART_MIN: usize = 16;
/// Of more, one in so many is kept apart.
const APART_EVERY: usize = 8;

/// Requests to calibrate on, and others to judge by.
pub struct Requests {
    /// Seeds from 0.
    pub calibration: Vec<Request>,
    /// None of the prompts above, unless there are too few.
    pub held: Vec<Request>,
}

/// Makes requests from named prompts, or from the model's own words, in all styles.
pub fn requests(spec: &PipelineSpec, prompts: &[String], count: usize, held: usize) -> Requests {
    let request = |index: usize, prompt: &str| {
        let style = spec.styles.get(index % spec.styles.len().max(1));
        Request::new(spec, prompt, style.map(|style| style.name.as_str()), index as u64)
    };
    let many = |prompts: &[&String], from: usize, count: usize| -> Vec<Request> {
        let styles = spec.styles.len().max(1);
        let numbers = (from..from + count).filter(|_| !prompts.is_empty());
        // A prompt meets another style each time.
        numbers
            .map(|i| Request {
                seed: i as u64,
                ..request(i / prompts.len() + i % styles, prompts[i % prompts.len()])
            })
            .collect()
    };
    if !prompts.is_empty() || spec.words.is_empty() {
        let all: Vec<&String> = prompts.iter().collect();
        let apart = all.len() >= PROMPTS_APART_MIN;
        let chosen = |held: bool| -> Vec<&String> {
            let numbered = all.iter().enumerate();
            let fits = |i: usize| !apart || (i % APART_EVERY == APART_EVERY - 1) == held;
            numbered.filter(|(i, _)| fits(*i)).map(|(_, prompt)| *prompt).collect()
        };
        return Requests {
            calibration: many(&chosen(false), 0, count),
            held: many(&chosen(true), count, held),
        };
    }
    let own = |index: usize| request(index, &sentence(&spec.words, index));
    let calibration: Vec<Request> = (0..count).map(own).collect();
    let known: BTreeSet<&str> = calibration.iter().map(|r| r.prompt.as_str()).collect();
    let fresh = (count..2 * count + 64 * held).map(own);
    let held = fresh.filter(|r| !known.contains(r.prompt.as_str())).take(held).collect();
    Requests { calibration, held }
}

/// A sentence about one of the words, or two; each index says another one.
fn sentence(words: &[String], index: usize) -> String {
    // Fibonacci hashing spreads the indices over all words.
    let at = |n: usize| (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 33;
    let word = |n: usize| &words[(at(n) % words.len() as u64) as usize];
    FORMS[at(index * 3 + 1) as usize % FORMS.len()]
        .replace("{}", &phrase(word(index)))
        .replace("{word}", word(index))
        .replace("{other}", &phrase(word(index * 7 + 3)))
        .replace("{colour}", COLOURS[at(index * 5 + 2) as usize % COLOURS.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_differ_and_have_every_form() {
        let words: Vec<String> = (0..50).map(|i| format!("w{i}")).collect();
        let said: Vec<String> = (0..300).map(|index| sentence(&words, index)).collect();
        let different: BTreeSet<&String> = said.iter().collect();
        assert!(different.len() > 150, "{}", different.len());
        assert!(said.iter().any(|s| s.contains(" and a w")), "{said:?}");
        assert!(said.iter().any(|s| s.ends_with(" background")));
        assert!(said.iter().all(|s| !s.contains('{')), "{said:?}");
    }
}
