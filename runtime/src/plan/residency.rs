//! Which bytes of the pack are in memory when.
//!
//! Weights are counted in pages of the pack ([`PAGE_BYTES`]): a page is held from the step before the first that
//! reads it (when it is read ahead) to the last one, then let go. Pages that two steps share are held for both.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::pack::PAGE_BYTES;

/// Bytes that a table may have in memory while it is compared with its hash.
pub const TABLE_WINDOW_BYTES: usize = 2 << 20;

/// A tensor that a step reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Where the pack holds it.
    pub range: Range<usize>,
    /// Only some rows are read: a table. The most rows that are.
    pub rows: Option<usize>,
}

/// What is read ahead and let go when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// By step: ranges of the pack to ask for before it runs.
    pub prefetch: Vec<Vec<Range<usize>>>,
    /// By step: ranges of the pack that nothing needs after it.
    pub release: Vec<Vec<Range<usize>>>,
    /// By step: bytes of the pack that are in memory.
    pub held_bytes: Vec<usize>,
    /// The most of them.
    pub window_bytes: usize,
    /// Bytes that stay in memory from one run to the next.
    pub kept_bytes: usize,
    /// Bytes that a run reads, tables and what was kept aside.
    pub bytes: usize,
}

/// Plans the window of a run whose steps read these tensors; `ahead` is how many steps early pages are asked for.
/// Pages in `kept`, whole pages of the pack, are not let go.
pub fn residency(steps: &[Vec<Use>], ahead: usize, kept: &Range<usize>) -> Residency {
    let mut tensors: BTreeMap<(usize, usize), (usize, usize)> = BTreeMap::new();
    let mut tables: BTreeMap<usize, (Range<usize>, usize, usize, usize)> = BTreeMap::new();
    for (step, used) in
        steps.iter().enumerate().flat_map(|(step, uses)| uses.iter().map(move |used| (step, used)))
    {
        let (start, end) = (used.range.start, used.range.end);
        if let Some(rows) = used.rows {
            let table = || (used.range.clone(), rows, step, step);
            tables.entry(start).and_modify(|life| life.3 = step).or_insert_with(table);
        } else {
            tensors.entry((start, end)).and_modify(|life| life.1 = step).or_insert((step, step));
        }
    }
    let mut lives: BTreeMap<usize, (usize, usize)> = BTreeMap::new();
    for ((start, end), (first, last)) in tensors {
        for page in pages(&(start..end)) {
            let life = lives.entry(page).or_insert((first, last));
            *life = (life.0.min(first), life.1.max(last));
        }
    }
    let mut held_bytes = vec![0; steps.len()];
    let mut release: Vec<Vec<Range<usize>>> = vec![Vec::new(); steps.len()];
    for (range, rows, first, last) in tables.into_values() {
        held_bytes[first..=last].iter_mut().for_each(|held| *held += table_bytes(&range, rows));
        release[last].push(range);
    }
    let mut prefetch: Vec<Vec<Range<usize>>> = vec![Vec::new(); steps.len()];
    let (mut begins, mut ends) = (vec![0; steps.len()], vec![0; steps.len()]);
    let mut streamed = 0;
    for (&page, &(first, last)) in &lives {
        let asked = first.saturating_sub(ahead);
        push_page(&mut prefetch[asked], page);
        if kept.contains(&(page * PAGE_BYTES)) {
            continue;
        }
        streamed += 1;
        push_page(&mut release[last], page);
        begins[asked] += PAGE_BYTES;
        ends[last] += PAGE_BYTES;
    }
    let mut held = kept.len();
    for step in 0..steps.len() {
        held += begins[step];
        held_bytes[step] += held;
        held -= ends[step];
    }
    Residency {
        prefetch,
        release,
        window_bytes: held_bytes.iter().copied().max().unwrap_or(0),
        held_bytes,
        kept_bytes: kept.len(),
        bytes: streamed * PAGE_BYTES,
    }
}

/// Bytes in memory while some rows of a table are read, or the table is compared with its hash.
fn table_bytes(range: &Range<usize>, rows: usize) -> usize {
    (pages(range).len() * PAGE_BYTES).min(TABLE_WINDOW_BYTES.max(2 * rows * PAGE_BYTES))
}

/// Bytes of pages that hold any of these tensors, each page once; tables count what is read of them.
pub fn held_bytes(steps: &[Vec<Use>]) -> usize {
    let mut seen = std::collections::BTreeSet::new();
    let mut tables = BTreeMap::new();
    for used in steps.iter().flatten() {
        match used.rows {
            Some(rows) => {
                tables.insert(used.range.start, table_bytes(&used.range, rows));
            }
            None => seen.extend(pages(&used.range)),
        }
    }
    seen.len() * PAGE_BYTES + tables.values().sum::<usize>()
}

/// Runs of the pages that hold any of these tensors.
pub fn ranges(steps: &[Vec<Use>]) -> Vec<Range<usize>> {
    let seen: std::collections::BTreeSet<usize> =
        steps.iter().flatten().flat_map(|used| pages(&used.range)).collect();
    let mut ranges = Vec::new();
    seen.into_iter().for_each(|page| push_page(&mut ranges, page));
    ranges
}

fn pages(range: &Range<usize>) -> Range<usize> {
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

/// Adds a page, in rising order, to a list of ranges.
fn push_page(ranges: &mut Vec<Range<usize>>, page: usize) {
    let bytes = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
    match ranges.last_mut() {
        Some(last) if last.end == bytes.start => last.end = bytes.end,
        _ => ranges.push(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: Range<usize> = 0..0;

    fn used(start: usize, end: usize) -> Use {
        Use { range: start * PAGE_BYTES / 4..end * PAGE_BYTES / 4, rows: None }
    }

    #[test]
    fn pages_are_read_ahead_and_let_go_after_their_last_step() {
        // Quarter pages: the first two steps share page 1.
        let steps = [vec![used(0, 6)], vec![used(6, 12)], vec![used(12, 16)]];
        let plan = residency(&steps, 1, &NONE);
        let page = |range: Range<usize>| range.start * PAGE_BYTES..range.end * PAGE_BYTES;
        assert_eq!(plan.prefetch, [vec![page(0..3)], vec![page(3..4)], vec![]]);
        assert_eq!(plan.release, [vec![page(0..1)], vec![page(1..3)], vec![page(3..4)]]);
        assert_eq!(plan.held_bytes, [3, 3, 1].map(|pages| pages * PAGE_BYTES));
        assert_eq!(plan.window_bytes, 3 * PAGE_BYTES);
        assert_eq!(residency(&steps, 0, &NONE).prefetch[1], vec![page(2..3)]);
        let plan = residency(&steps, 1, &page(0..2));
        assert_eq!(plan.release, [vec![], vec![page(2..3)], vec![page(3..4)]]);
        assert_eq!(plan.held_bytes, [3, 4, 3].map(|pages| pages * PAGE_BYTES));
        assert_eq!((plan.kept_bytes, plan.bytes), (2 * PAGE_BYTES, 2 * PAGE_BYTES));
    }

    #[test]
    fn a_table_counts_what_is_read_of_it() {
        let table = Use { range: 0..100 << 20, rows: Some(8) };
        let plan = residency(&[vec![table.clone()]], 1, &NONE);
        assert_eq!(plan.window_bytes, TABLE_WINDOW_BYTES);
        assert!(plan.prefetch[0].is_empty());
        assert_eq!(plan.release[0].first(), Some(&(0..100 << 20)));
    }

    proptest! {
        #[test]
        fn every_page_is_held_when_it_is_read_and_let_go_once(
            lists in prop::collection::vec(prop::collection::vec((0usize..60, 1usize..20), 0..4), 1..12),
            ahead in 0usize..3,
            kept in 0usize..20,
        ) {
            let steps: Vec<Vec<Use>> = lists
                .iter()
                .map(|list| list.iter().map(|&(start, len)| used(start, start + len)).collect())
                .collect();
            let plan = residency(&steps, ahead, &(0..kept * PAGE_BYTES));
            // As in a run that is not the first.
            let mut held: std::collections::BTreeSet<usize> = (0..kept).collect();
            for (step, uses) in steps.iter().enumerate() {
                for page in plan.prefetch[step].iter().flat_map(pages) {
                    prop_assert!(held.insert(page) != (page < kept), "asked for twice");
                }
                prop_assert_eq!(held.len() * PAGE_BYTES, plan.held_bytes[step]);
                for page in uses.iter().flat_map(|used| pages(&used.range)) {
                    prop_assert!(held.contains(&page));
                }
                for page in plan.release[step].iter().flat_map(pages) {
                    prop_assert!(held.remove(&page), "let go twice");
                }
            }
            prop_assert!(held.into_iter().eq(0..kept));
        }
    }
}
