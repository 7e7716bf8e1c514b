//! Weights that are read while the network runs, from storage that fails.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::BINDING;
use super::budget::{draw, options, pack, wide};
use crate::engine::{Engine, EngineError, EngineOptions, Holding, Weights};
use crate::pack::Pack;

/// A pack on storage that allows so many reads.
struct Storage {
    pack: Arc<Pack>,
    reads: AtomicUsize,
    panics: bool,
}

impl Weights for Storage {
    fn bytes(&self) -> &[u8] {
        Weights::bytes(&*self.pack)
    }

    fn find(&self, name: &str) -> Option<Range<usize>> {
        self.pack.find(name)
    }

    fn verify(&self, name: &str, passing: bool) -> Result<(), String> {
        self.pack.verify(name, passing)
    }

    fn verify_bytes(&self, name: &str, bytes: &[u8]) -> Result<(), String> {
        self.pack.verify_bytes(name, bytes)
    }

    fn read(&self, start: usize, out: &mut [u8]) -> Result<(), String> {
        let left = |reads: usize| reads.checked_sub(usize::from(!out.is_empty()));
        if self.reads.fetch_update(Ordering::SeqCst, Ordering::SeqCst, left).is_err() {
            assert!(!self.panics, "storage fails on purpose");
            return Err("the card was pulled out".to_owned());
        }
        Weights::read(&*self.pack, start, out)
    }

    fn read_ahead(&self, on: bool) {
        Weights::read_ahead(&*self.pack, on);
    }

    fn prefetch(&self, range: Range<usize>) {
        Weights::prefetch(&*self.pack, range);
    }

    fn release(&self, range: Range<usize>) {
        Weights::release(&*self.pack, range);
    }

    fn unmap(&self, range: Range<usize>) {
        Weights::unmap(&*self.pack, range);
    }
}

#[test]
fn storage_that_fails_ends_the_run_and_the_next_one_works() {
    let wide = wide(3, 192);
    let nets = [("denoiser", &wide)];
    let (_folder, pack) = pack(&nets);
    let networks: Vec<_> = pack.graphs().iter().map(|graph| (graph, BINDING)).collect();
    let ample = Engine::load(pack.clone(), &networks, &options(1 << 30));
    let expected = draw(&mut ample.unwrap(), &nets);
    for (threads, panics) in [(1, false), (2, false), (3, false), (1, true), (3, true)] {
        let reads = AtomicUsize::new(usize::MAX);
        let storage = Arc::new(Storage { pack: pack.clone(), reads, panics });
        let of_budget = |budget| {
            let options = EngineOptions { threads, ..options(budget) };
            Engine::load(storage.clone(), &networks, &options)
        };
        let Err(EngineError::Budget { needed_bytes, .. }) = of_budget(1) else {
            panic!("a byte is enough")
        };
        let mut engine = of_budget(needed_bytes).unwrap();
        assert_eq!(engine.memory().networks[0].holding, Holding::Streamed);
        let network = engine.network("denoiser").unwrap();
        let input = &wide.full(wide.graph.inputs[0]).data;
        // Before and after the tensors were compared with their hashes.
        for _ in 0..2 {
            for reads in 0..5 {
                storage.reads.store(reads, Ordering::SeqCst);
                engine.set_input(network, "v0", input).unwrap();
                let error = engine.run(network).unwrap_err().to_string();
                let reason = if panics { "panicked" } else { "pulled out" };
                assert!(error.contains(reason), "{error}");
            }
            storage.reads.store(usize::MAX, Ordering::SeqCst);
            assert_eq!(draw(&mut engine, &nets), expected);
        }
    }
}
