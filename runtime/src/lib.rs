//! Text-to-image on small devices: a memory-bounded int8 runtime for packs.
//!
//! A *pack* is one file with everything that a picture needs. This library maps it, plans what this device will do
//! inside a fixed budget of memory, and turns prompts into pixels. It opens no connection and writes no file.
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use plantain::image::Format;
//! use plantain::pipeline::{Options, Pipeline, Request};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/packs/plantain-icons.safetensors");
//! # if !std::path::Path::new(path).exists() {
//! #     eprintln!("{path} is not there: the example was compiled, not run");
//! #     return Ok(());
//! # }
//! # let folder = tempfile::tempdir()?;
//! # std::env::set_current_dir(folder.path())?;
//! let mut pipeline = Pipeline::open(path, Options::default())?;
//! let request = Request::new("a red apple").with_seed(7);
//! let picture = pipeline.generate(&request, &mut |progress| {
//!     println!("{:3.0} %", 100.0 * progress.fraction);
//!     ControlFlow::Continue(())
//! })?;
//! std::fs::write("apple.png", picture.encode(Format::Png)?)?;
//! println!("{:.1} s, {} bytes of arena", picture.cost.seconds.total, picture.cost.arena_bytes);
//! # Ok(())
//! # }
//! ```
//!
//! # Layers
//!
//! Each uses those above it only; each module says what enters, what leaves and what it never does.
//!
//! | module | what |
//! |---|---|
//! | [`units`], [`hash`], [`rng`] | bytes and hashes as people write them; noise from a seed |
//! | [`graph`] | what a network computes: ops over values |
//! | [`pack`] | the file: mapped, verified, never trusted |
//! | [`kernel`] | one ISA's code for one op, chosen once, with a plain reference |
//! | [`plan`] | what this device will do: order, strips, places in the arena |
//! | [`arena`] | the one allocation, and disjoint views of it |
//! | [`engine`] | runs planned networks with a fixed crew of threads |
//! | [`pipeline`] | prompt, denoise loop, decoder, refiner: [`pipeline::Pipeline`] is the way in |
//! | [`image`] | pixels as files that say that they are generated |
//!
//! # What always holds
//!
//! - The same pack and request give the same bytes on every supported CPU, with any number of threads and any budget.
//! - After load nothing is allocated between the first step of a picture and its finished pixels.
//! - Bad input is an error of one sentence, never a panic.
//! - Only [`pack`]'s map, [`arena`]'s regions and [`kernel`]'s instructions use unsafe code.

#![deny(unsafe_code)]

pub mod arena;
pub mod engine;
pub mod graph;
pub mod hash;
pub mod image;
pub mod kernel;
pub mod pack;
pub mod pipeline;
pub mod plan;
pub mod rng;
pub mod units;
