//! After an engine is loaded, nothing allocates: the allocator counts, on every thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use half::f16;
use plantain::engine::{Engine, EngineOptions, MemoryWeights};
use plantain::graph::{Binding, Graph};
use plantain::pack::panel::{PanelShape, pack_f16};

/// Counts what is asked for while it is watched.
struct Counting;

static WATCHED: AtomicBool = AtomicBool::new(false);
static ASKED: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if WATCHED.load(Ordering::Relaxed) {
            ASKED.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's duties are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's duties are the same.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Whole numbers that look random.
fn noise(count: usize, seed: usize) -> impl Iterator<Item = i32> {
    (0..count).map(move |i| ((i * 7919 + seed * 104_729) % 251) as i32 - 125)
}

fn int8(weights: &mut MemoryWeights, name: &str, shape: PanelShape) {
    let count = shape.outputs * shape.kernel_rows * shape.kernel_columns * shape.channels;
    let raw: Vec<i8> = noise(count, name.len()).map(|x| x as i8).collect();
    let panels = shape.pack_i8(&raw);
    weights.insert(&format!("{name}.panels"), &panels);
    weights.insert(&format!("{name}.sums"), &shape.sums(&panels));
    weights.insert(&format!("{name}.scale"), &vec![0.001f32; shape.outputs]);
    weights.insert(&format!("{name}.bias"), &vec![0.1f32; shape.outputs]);
}

fn half(weights: &mut MemoryWeights, name: &str, n: usize, k: usize) {
    let raw: Vec<f16> = noise(n * k, name.len()).map(|x| f16::from_f32(x as f32 / 500.0)).collect();
    weights.insert(&format!("{name}.panels"), &pack_f16(n, k, &raw));
}

fn weights() -> MemoryWeights {
    let mut weights = MemoryWeights::new();
    let conv = |n, c| PanelShape { outputs: n, kernel_rows: 3, kernel_columns: 3, channels: c };
    int8(&mut weights, "a", conv(32, 8));
    int8(&mut weights, "c", conv(32, 32));
    int8(&mut weights, "q", PanelShape::matmul(32, 32));
    int8(&mut weights, "k", PanelShape::matmul(32, 16));
    half(&mut weights, "v", 32, 16);
    half(&mut weights, "i", 4, 9 * 32);
    weights.insert("g", &[1.5f32; 32]);
    weights.insert("h", &[-0.5f32; 32]);
    weights.insert("table", &[f16::from_f32(0.25); 5 * 16]);
    weights
}

/// The only test of its binary: another one's allocations would be counted too.
#[test]
fn nothing_is_allocated_after_load() {
    WATCHED.store(true, Ordering::SeqCst);
    let boxed = std::hint::black_box(Box::new([1u8; 100]));
    WATCHED.store(false, Ordering::SeqCst);
    assert_eq!((boxed[0], ASKED.swap(0, Ordering::SeqCst)), (1, 1), "the allocator does not count");

    let graph: Graph =
        serde_json::from_str(include_str!("data/small_graph.json")).expect("the graph is valid");
    let binding = Binding { batch: 1, height: 1, width: 1 };
    for threads in 1..=3 {
        let mut engine =
            Engine::load(Arc::new(weights()), &[(&graph, binding)], &EngineOptions::new(threads))
                .expect("the engine loads");
        let network = engine.network("small").expect("it has one network");
        let sample: Vec<f32> = noise(512, 3).map(|x| x as f32 / 100.0).collect();
        let states: Vec<f32> = noise(112, 5).map(|x| x as f32 / 100.0).collect();
        let mut out = vec![0.0; engine.output_len(network, 0)];
        WATCHED.store(true, Ordering::SeqCst);
        let mut steps = 0;
        let result = (|| {
            engine.set_input(network, "sample", &sample)?;
            engine.set_input(network, "states", &states)?;
            engine.set_ids(network, "ids", &[0, 1, 2, 3, 4, 3, 2])?;
            engine.run_observed(network, &mut |_| {
                steps += 1;
                ControlFlow::Continue(())
            })?;
            engine.read_output(network, 0, &mut out)
        })();
        WATCHED.store(false, Ordering::SeqCst);
        assert!(result.is_ok(), "{result:?}");
        assert!(steps > 10 && out.iter().any(|&x| x != 0.0));
        assert_eq!(ASKED.swap(0, Ordering::SeqCst), 0, "{threads} threads");
    }
}
