//! Which bytes of the pack are in memory when, where not all of them can be.
//!
//! Weights are read into a window then, a part of memory of fixed size: each for the steps between its first use and its
//! last, where nothing else lies then. Of a network that runs again and again, some stay there. Which ones is a matter of
//! work: those that many multiply-adds read can be read from storage in their shade, so that the others stay.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::pack::{PAGE_BYTES, READ_ALIGN_BYTES};

use super::{Buffer, Owner, place};

/// Bytes that a table may have in memory while it is compared with its hash.
pub const TABLE_WINDOW_BYTES: usize = 2 << 20;

/// Neighbours are read together up to so many bytes: storage is slow at small pieces, and blocks that two share are read
/// for each.
const TOGETHER_BYTES: usize = 256 << 10;

/// Steps that weights are read ahead at most, where that costs little.
const AHEAD_MAX: usize = 8;

/// A tensor that a step reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Where the pack holds it.
    pub range: Range<usize>,
    /// Only some rows are read: a table. The most rows that are.
    pub rows: Option<usize>,
    /// Multiply-adds of the step.
    pub macs: u64,
}

/// Tensors of the pack that are read into the window together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// Bytes of the pack, both ends on multiples of [`READ_ALIGN_BYTES`].
    pub range: Range<usize>,
    /// Byte of the window, such a multiple, too.
    pub at: usize,
    /// The step that must have begun before it may be read: what lay there before is needed no more.
    pub asked_step: usize,
    /// The first step that needs it.
    pub first_step: usize,
    /// The last one.
    pub last_step: usize,
    /// It stays for later runs.
    pub stays: bool,
}

/// What is read when, and what stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Residency {
    /// What each run reads, in this order.
    pub loads: Vec<Load>,
    /// Bytes of the window.
    pub window_bytes: usize,
    /// Tables, of which a step reads some rows in the map, and the step after which they are let go.
    pub tables: Vec<(usize, Range<usize>)>,
    /// The most bytes of tables at one time.
    pub table_bytes: usize,
}

impl Residency {
    /// Plans a run whose steps read these tensors; `ahead` is how many steps early weights are read at least. Nothing stays.
    pub fn streamed(steps: &[Vec<Use>], ahead: usize) -> Self {
        build(&pieces(steps), tables(steps), &[], ahead)
    }

    /// As [`Residency::streamed`]; of `room` bytes, what others leave is for weights that stay. Later runs begin with step
    /// `prologue`: what only steps before it need never stays.
    pub fn within(steps: &[Vec<Use>], ahead: usize, prologue: usize, room: usize) -> Self {
        let pieces = pieces(steps);
        let mut order: Vec<usize> =
            (0..pieces.len()).filter(|&index| pieces[index].last >= prologue).collect();
        order.sort_by_key(|&index| pieces[index].macs / pieces[index].range.len() as u64);
        let with = |stay: usize, ahead: usize| build(&pieces, tables(steps), &order[..stay], ahead);
        let most = |ahead: usize| {
            let (mut least, mut most) = (0, order.len());
            while least < most {
                let middle = (least + most).div_ceil(2);
                match with(middle, ahead).held_bytes() <= room {
                    true => least = middle,
                    false => most = middle - 1,
                }
            }
            with(least, ahead)
        };
        let plain = most(ahead);
        let (mut early, mut further) = (ahead, plain.clone());
        // A longer way ahead evens out steps that are short for their weights.
        while ahead > 0 && early < AHEAD_MAX {
            early *= 2;
            let next = most(early);
            if next.held_bytes() > room || next.later_bytes(0) > plain.later_bytes(0) / 16 * 17 {
                break;
            }
            further = next;
        }
        further
    }

    /// The most bytes in memory at one time.
    pub fn held_bytes(&self) -> usize {
        self.window_bytes + self.table_bytes
    }

    /// Bytes that the first run reads, tables aside.
    pub fn bytes(&self) -> usize {
        self.loads.iter().map(|load| load.range.len()).sum()
    }

    /// Bytes that a later run reads, which begins at a step.
    pub fn later_bytes(&self, step: usize) -> usize {
        let loads = self.loads.iter().filter(|load| load.last_step >= step && !load.stays);
        loads.map(|load| load.range.len()).sum()
    }

    /// The byte of the window at which a tensor begins for steps from the first one to before the last, if it is read into it.
    pub fn place(&self, tensor: &Range<usize>, steps: &Range<usize>) -> Option<usize> {
        let holds = |load: &&Load| {
            load.range.start <= tensor.start
                && tensor.end <= load.range.end
                && load.first_step <= steps.start
                && steps.end <= load.last_step + 1
        };
        let load = self.loads.iter().find(holds)?;
        Some(load.at + tensor.start - load.range.start)
    }

    /// How many loads must be done before a step begins: the first ones.
    pub fn loads_before(&self, step: usize) -> usize {
        self.loads.partition_point(|load| load.first_step <= step)
    }
}

/// Bytes of the pack that are read together.
#[derive(Clone, Debug)]
struct Piece {
    range: Range<usize>,
    first: usize,
    last: usize,
    macs: u64,
}

/// Tensors other than tables by place; those that lie side by side together if they have one life or are small.
fn pieces(steps: &[Vec<Use>]) -> Vec<Piece> {
    let mut tensors: BTreeMap<(usize, usize), Piece> = BTreeMap::new();
    for (step, used) in each(steps).filter(|(_, used)| used.rows.is_none()) {
        let range = used.range.start / READ_ALIGN_BYTES * READ_ALIGN_BYTES
            ..used.range.end.next_multiple_of(READ_ALIGN_BYTES);
        let piece = tensors.entry((used.range.start, used.range.end)).or_insert(Piece {
            range,
            first: step,
            last: step,
            macs: 0,
        });
        piece.last = step;
        piece.macs += used.macs;
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for next in tensors.into_values() {
        let joins = |piece: &&mut Piece| {
            let alike = (piece.first, piece.last) == (next.first, next.last);
            next.range.start <= piece.range.end
                && (alike || next.range.end - piece.range.start <= TOGETHER_BYTES)
        };
        match pieces.last_mut().filter(joins) {
            Some(piece) => {
                piece.range.end = piece.range.end.max(next.range.end);
                (piece.first, piece.last) =
                    (piece.first.min(next.first), piece.last.max(next.last));
                piece.macs = piece.macs.max(next.macs);
            }
            None => pieces.push(next),
        }
    }
    pieces
}

/// Tables, each until its last step, and the most bytes of them.
fn tables(steps: &[Vec<Use>]) -> (Vec<(usize, Range<usize>)>, usize) {
    let mut tables: BTreeMap<usize, (Range<usize>, usize, usize, usize)> = BTreeMap::new();
    for (step, used) in each(steps) {
        if let Some(rows) = used.rows {
            let table = || (used.range.clone(), rows, step, step);
            tables.entry(used.range.start).and_modify(|life| life.3 = step).or_insert_with(table);
        }
    }
    let mut held = vec![0; steps.len()];
    for (range, rows, first, last) in tables.values() {
        held[*first..=*last].iter_mut().for_each(|held| *held += table_bytes(range, *rows));
    }
    let most = held.into_iter().max().unwrap_or(0);
    (tables.into_values().map(|(range, _, _, last)| (last, range)).collect(), most)
}

fn each(steps: &[Vec<Use>]) -> impl Iterator<Item = (usize, &Use)> {
    steps.iter().enumerate().flat_map(|(step, uses)| uses.iter().map(move |used| (step, used)))
}

fn build(
    pieces: &[Piece],
    (tables, table_bytes): (Vec<(usize, Range<usize>)>, usize),
    stay: &[usize],
    ahead: usize,
) -> Residency {
    let stays: BTreeSet<usize> = stay.iter().copied().collect();
    let mut order: Vec<usize> = (0..pieces.len()).collect();
    order.sort_by_key(|&index| (pieces[index].first, pieces[index].range.start));
    let life = |piece: &Piece| Buffer {
        owner: Owner::Scratch,
        bytes: piece.range.len(),
        offset: 0,
        first_step: piece.first.saturating_sub(ahead),
        last_step: piece.last,
        kept: false,
    };
    let passing = order.iter().filter(|index| !stays.contains(index));
    let mut buffers: Vec<Buffer> = passing.map(|&index| life(&pieces[index])).collect();
    let mut window_bytes = place::place(&mut buffers);
    let mut places = buffers.into_iter().map(|buffer| buffer.offset);
    let mut loads: Vec<Load> = Vec::with_capacity(pieces.len());
    for index in order {
        let Piece { range, first, last, .. } = &pieces[index];
        let stays = stays.contains(&index);
        // What stays lies behind what comes and goes.
        let place = if stays { None } else { places.next() };
        let at = place.unwrap_or(window_bytes);
        window_bytes = window_bytes.max(at + range.len());
        let (start, end) = (at, at + range.len());
        let earlier =
            loads.iter().filter(|load| load.at < end && start < load.at + load.range.len());
        let free = earlier.map(|load| load.last_step + 1).max().unwrap_or(0);
        // They are read in turn.
        let before = loads.last().map_or(0, |load| load.asked_step);
        loads.push(Load {
            range: range.clone(),
            at,
            asked_step: free.max(before),
            first_step: *first,
            last_step: *last,
            stays,
        });
    }
    Residency { loads, window_bytes, tables, table_bytes }
}

/// Bytes in memory while some rows of a table are read, or the table is compared with its hash.
fn table_bytes(range: &Range<usize>, rows: usize) -> usize {
    (pages(range).len() * PAGE_BYTES).min(TABLE_WINDOW_BYTES.max(2 * rows * PAGE_BYTES))
}

/// Bytes of pages that hold any of these tensors, each page once; tables count what is read of them.
pub fn held_bytes(steps: &[Vec<Use>]) -> usize {
    let tensors = each(steps).filter(|(_, used)| used.rows.is_none());
    let seen: BTreeSet<usize> = tensors.flat_map(|(_, used)| pages(&used.range)).collect();
    let tables: BTreeMap<usize, usize> = each(steps)
        .filter_map(|(_, used)| Some((used.range.start, table_bytes(&used.range, used.rows?))))
        .collect();
    seen.len() * PAGE_BYTES + tables.values().sum::<usize>()
}

/// Runs of the pages that hold any of these tensors.
pub fn ranges(steps: &[Vec<Use>]) -> Vec<Range<usize>> {
    runs(&each(steps).flat_map(|(_, used)| pages(&used.range)).collect())
}

fn pages(range: &Range<usize>) -> Range<usize> {
    range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES)
}

/// Bytes of pages, in as few ranges as can be.
fn runs(pages: &BTreeSet<usize>) -> Vec<Range<usize>> {
    let mut ranges: Vec<Range<usize>> = Vec::new();
    for page in pages {
        let bytes = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
        match ranges.last_mut() {
            Some(last) if last.end == bytes.start => last.end = bytes.end,
            _ => ranges.push(bytes),
        }
    }
    ranges
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BLOCK: usize = READ_ALIGN_BYTES;

    fn used(start: usize, end: usize, macs: u64) -> Use {
        Use { range: start * BLOCK / 4..end * BLOCK / 4, rows: None, macs }
    }

    #[test]
    fn weights_are_read_a_step_ahead_where_nothing_else_lies() {
        // In quarters of a block; each step's are too many to be read with those of its neighbours, and the first two share a block.
        let big = 4 * TOGETHER_BYTES / BLOCK;
        let steps = [
            vec![used(0, big + 6, 1)],
            vec![used(big + 6, 2 * big + 12, 1)],
            vec![used(2 * big + 12, 3 * big, 1), used(3 * big, 3 * big + 20, 1)],
        ];
        let plan = Residency::streamed(&steps, 1);
        let blocks = TOGETHER_BYTES / BLOCK;
        let ranges: Vec<_> = plan.loads.iter().map(|load| load.range.clone()).collect();
        let of = |range: Range<usize>| range.start * BLOCK..range.end * BLOCK;
        let expected = [0..blocks + 2, blocks + 1..2 * blocks + 3, 2 * blocks + 3..3 * blocks + 5];
        assert_eq!(ranges, expected.map(of));
        assert_eq!(plan.bytes(), (3 * blocks + 6) * BLOCK);
        let asked: Vec<_> = plan.loads.iter().map(|load| load.asked_step).collect();
        assert_eq!(asked, [0, 0, 1]);
        let late = Residency::streamed(&steps, 0);
        assert_eq!(late.window_bytes, (blocks + 2) * BLOCK);
        assert_eq!((0..3).map(|step| late.loads_before(step)).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(late.later_bytes(1), (2 * blocks + 4) * BLOCK);
    }

    #[test]
    fn what_takes_little_work_for_its_bytes_stays() {
        let block = |at: usize, macs: u64| vec![used(at * 1024, at * 1024 + 1024, macs << 20)];
        let work = [900, 1, 800, 7, 850, 950];
        let steps: Vec<_> =
            work.into_iter().enumerate().map(|(at, macs)| block(at, macs)).collect();
        let bytes = 256 * BLOCK;
        let staying = |plan: Residency| {
            let loads = plan.loads.into_iter().filter(|load| load.stays);
            loads.map(|load| load.first_step).collect::<Vec<_>>()
        };
        let plan = Residency::within(&steps, 1, 0, 4 * bytes);
        assert_eq!((plan.window_bytes, plan.later_bytes(0)), (4 * bytes, 4 * bytes));
        assert_eq!(staying(plan), [1, 3]);
        assert_eq!(staying(Residency::within(&steps, 1, 2, 4 * bytes)), [2, 3]);
        assert!(staying(Residency::within(&steps, 1, 0, 2 * bytes)).is_empty());
    }

    #[test]
    fn a_table_counts_what_is_read_of_it() {
        let table = Use { range: 0..100 << 20, rows: Some(8), macs: 0 };
        let plan = Residency::streamed(&[vec![table.clone()]], 1);
        assert_eq!(plan.held_bytes(), TABLE_WINDOW_BYTES);
        assert_eq!((plan.loads.len(), &plan.tables[..]), (0, &[(0, 0..100 << 20)][..]));
    }

    proptest! {
        #[test]
        fn every_tensor_is_there_when_it_is_read(
            lists in prop::collection::vec(
                prop::collection::vec((0usize..600, 1usize..200, 0u64..1 << 20), 0..4), 1..12),
            ahead in 0usize..3,
            room in 0usize..100,
        ) {
            let steps: Vec<Vec<Use>> = lists
                .iter()
                .map(|list| list.iter().map(|&(at, len, macs)| used(at, at + len, macs)).collect())
                .collect();
            let least = Residency::streamed(&steps, ahead);
            let room = least.held_bytes() + room * BLOCK;
            let plan = Residency::within(&steps, ahead, 0, room);
            prop_assert!(plan.held_bytes() <= room);
            for load in &plan.loads {
                prop_assert!(load.asked_step <= load.first_step.saturating_sub(ahead));
                prop_assert!(load.at + load.range.len() <= plan.window_bytes);
            }
            // Read as early as may be, whatever lies there goes; then again, without what stays.
            let mut window: Vec<Option<usize>> = vec![None; plan.window_bytes / BLOCK];
            for later in [false, true] {
                let mut next = 0;
                for (step, uses) in steps.iter().enumerate() {
                    while let Some(load) = plan.loads.get(next).filter(|load| load.asked_step <= step) {
                        for (index, block) in load.range.clone().step_by(BLOCK).enumerate() {
                            if !(later && load.stays) {
                                window[load.at / BLOCK + index] = Some(block);
                            }
                        }
                        next += 1;
                    }
                    prop_assert!(next >= plan.loads_before(step));
                    for used in uses {
                        let at = plan.place(&used.range, &(step..step + 1));
                        let there = |at: usize| {
                            used.range.clone().all(|byte| {
                                let place = at + byte - used.range.start;
                                window[place / BLOCK] == Some(byte / BLOCK * BLOCK)
                            })
                        };
                        prop_assert!(at.is_some_and(there));
                    }
                }
            }
        }
    }
}
