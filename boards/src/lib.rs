//! plantain.
