//! The library's smallest program: `cargo run --release -p plantain --example draw -- PACK PROMPT OUT.png [THREADS]`.
//!
//! Prints the hash of the pixels, which is the same on every machine, with any number of threads and any kernels.

use std::error::Error;
use std::ops::ControlFlow;

use plantain::hash::sha256;
use plantain::image::Format;
use plantain::pipeline::{Options, Pipeline, Request};

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [pack, prompt, out, threads @ ..] = words.as_slice() else {
        return Err("give PACK PROMPT OUT.png [THREADS]".into());
    };
    let threads = threads.first().map(|threads| threads.parse()).transpose()?;
    let mut pipeline = Pipeline::open(pack, Options { threads, ..Options::default() })?;
    let request = Request::new(prompt).with_seed(7);
    let picture = pipeline.generate(&request, &mut |_| ControlFlow::Continue(()))?;
    std::fs::write(out, picture.encode(Format::Png)?)?;
    println!("{}", sha256(picture.pixels.bytes()));
    Ok(())
}
