//! From the first step of the text encoder to the finished pixels nothing allocates: the allocator counts, on
//! every thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use half::f16;
use plantain::pack::{Metadata, PackBuilder};
use plantain::pipeline::tokenizer::build_vocabulary;
use plantain::pipeline::{Options, Pipeline, Request};

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

fn open(threads: usize) -> Pipeline {
    let parts: serde_json::Value =
        serde_json::from_str(include_str!("data/small_pipeline.json")).unwrap();
    let metadata = Metadata {
        graphs: serde_json::from_value(parts["graphs"].clone()).unwrap(),
        pipeline: Some(serde_json::from_value(parts["pipeline"].clone()).unwrap()),
        ..Metadata::default()
    };
    let vocabulary = build_vocabulary(&["[P]", "[S]", "[E]", "[U]", "red", "apple", "cat"]);
    let table: Vec<f16> = (0..28).map(|i| f16::from_f32(i as f32 / 10.0 - 1.0)).collect();
    let pack = PackBuilder::new(metadata)
        .u8("vocabulary", &[vocabulary.len()], &vocabulary)
        .f16("table", &[7, 4], &table)
        .f32("frequencies", &[1], &[0.01])
        .open()
        .unwrap();
    let options = Options { threads: Some(threads), ..Options::default() };
    Pipeline::new(Arc::new(pack), options).unwrap()
}

/// The only test of its binary: another one's allocations would be counted too.
#[test]
fn nothing_is_allocated_while_a_picture_is_drawn() {
    WATCHED.store(true, Ordering::SeqCst);
    let boxed = std::hint::black_box(Box::new([1u8; 100]));
    WATCHED.store(false, Ordering::SeqCst);
    assert_eq!((boxed[0], ASKED.swap(0, Ordering::SeqCst)), (1, 1), "the allocator does not count");

    // Three LCM steps with guidance: two texts, added noise, decoder and refiner.
    let style = Some("red".to_owned());
    let request = Request { style, preview: true, ..Request::new("apple") };
    for threads in 1..=3 {
        let mut calls = 0;
        let whole = open(threads).generate(&request, &mut |_| {
            calls += 1;
            ControlFlow::Continue(())
        });
        assert!(whole.is_ok() && calls > 20, "{whole:?}");

        let (mut pipeline, mut call) = (open(threads), 0);
        let watched = pipeline.generate(&request, &mut |_| {
            call += 1;
            WATCHED.store(call < calls, Ordering::SeqCst);
            ControlFlow::Continue(())
        });
        WATCHED.store(false, Ordering::SeqCst);
        assert_eq!((call, ASKED.swap(0, Ordering::SeqCst)), (calls, 0), "{threads} threads");
        assert_eq!(watched.unwrap().pixels, whole.unwrap().pixels);
    }
}
