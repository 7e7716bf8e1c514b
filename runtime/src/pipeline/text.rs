//! The text encoder: token ids to text states, each text once.

use super::draw::Meter;
use super::error::PipelineError;
use super::networks::Loaded;
use super::request::Stage;
use super::spec::Wiring;

/// Texts whose states are kept, so that a prompt that comes again need not be encoded again.
pub const TEXTS_KEPT: usize = 4;

/// Text states by token ids.
#[derive(Debug)]
pub struct TextStates {
    slots: Vec<Slot>,
    uses: u64,
}

#[derive(Debug)]
struct Slot {
    ids: Vec<i32>,
    states: Vec<f32>,
    /// When it was used last; 0 if it holds nothing.
    used: u64,
}

impl TextStates {
    /// Room for [`TEXTS_KEPT`] texts.
    pub fn new(tokens: usize, states_len: usize) -> Self {
        let slot = || Slot { ids: vec![0; tokens], states: vec![0.0; states_len], used: 0 };
        TextStates { slots: (0..TEXTS_KEPT).map(|_| slot()).collect(), uses: 0 }
    }

    /// Bytes that texts of this size take.
    pub fn bytes_of(tokens: usize, states_len: usize) -> usize {
        TEXTS_KEPT * 4 * (tokens + states_len)
    }

    /// Bytes that are held.
    pub fn bytes(&self) -> usize {
        self.slots.iter().map(|slot| 4 * (slot.ids.len() + slot.states.len())).sum()
    }

    /// The states of a place that [`TextStates::encode`] gave.
    pub fn states(&self, place: usize) -> &[f32] {
        &self.slots[place].states
    }

    /// Whether a text is kept.
    pub fn has(&self, ids: &[i32]) -> bool {
        self.slots.iter().any(|slot| slot.used > 0 && slot.ids == ids)
    }

    /// Encodes a text, or finds that it was encoded before; answers with its place. The text used least recently
    /// makes room.
    pub fn encode(
        &mut self,
        loaded: &mut Loaded,
        wiring: &Wiring,
        ids: &[i32],
        tokens_used: usize,
        meter: &mut Meter<'_>,
    ) -> Result<usize, PipelineError> {
        self.uses += 1;
        if let Some(place) = self.slots.iter().position(|slot| slot.used > 0 && slot.ids == ids) {
            self.slots[place].used = self.uses;
            return Ok(place);
        }
        let oldest = (0..self.slots.len()).min_by_key(|&place| self.slots[place].used);
        let place = oldest.expect("TEXTS_KEPT is not 0");
        let slot = &mut self.slots[place];
        slot.used = 0;
        let Loaded { engine, text_encoder, text_output, buffers, .. } = loaded;
        engine.set_ids(*text_encoder, &wiring.text_ids, ids)?;
        if let Some(name) = &wiring.text_mask {
            fill_mask(&mut buffers.text_mask, tokens_used);
            engine.set_input(*text_encoder, name, &buffers.text_mask)?;
        }
        meter.run(engine, *text_encoder, Stage::TextEncoder)?;
        engine.read_output(*text_encoder, *text_output, &mut slot.states)?;
        slot.ids.copy_from_slice(ids);
        slot.used = self.uses;
        Ok(place)
    }
}

/// 1 for the tokens that are used, 0 for padding.
pub fn fill_mask(mask: &mut [f32], tokens_used: usize) {
    let (used, padding) = mask.split_at_mut(tokens_used);
    used.fill(1.0);
    padding.fill(0.0);
}
