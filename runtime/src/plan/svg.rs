//! The arena over time, as a picture: steps from left to right, bytes from bottom to top.

use std::fmt::Write;

use crate::graph::Graph;
use crate::units::Bytes;

use super::report::label;
use super::{Owner, Plan};

const WIDTH: f64 = 1200.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 90.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 40.0;

/// Draws the regions of plans, one below the other; each says what it holds when it is pointed at.
pub fn svg(plans: &[(&Graph, &Plan)]) -> String {
    let height = HEIGHT * plans.len() as f64;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n"
    );
    for (index, (graph, plan)) in plans.iter().enumerate() {
        let top = HEIGHT * index as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(out, "<g transform=\"translate(0 {top})\">");
        draw(&mut out, graph, plan);
        let _ = writeln!(out, "</g>");
    }
    out.push_str("</svg>\n");
    out
}

fn draw(out: &mut String, graph: &Graph, plan: &Plan) {
    let (steps, bytes) = (plan.steps.len().max(1) as f64, plan.end_bytes().max(1) as f64);
    let x = |step: usize| LEFT + step as f64 / steps * (WIDTH - LEFT - 20.0);
    let y = |byte: usize| HEIGHT - BOTTOM - byte as f64 / bytes * (HEIGHT - TOP - BOTTOM);
    let _ = writeln!(out, "<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>");
    let title = format!(
        "{}: arena of {} over {} steps",
        plan.network,
        Bytes(plan.end_bytes() as u64),
        plan.steps.len()
    );
    let _ = writeln!(out, "<text x=\"{LEFT}\" y=\"24\" font-size=\"15\">{}</text>", escape(&title));
    for part in 0..=4 {
        let byte = plan.end_bytes() * part / 4;
        let line = y(byte);
        let _ = writeln!(
            out,
            "<line x1=\"{LEFT}\" y1=\"{line:.1}\" x2=\"{}\" y2=\"{line:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - 20.0,
            LEFT - 6.0,
            line + 4.0,
            Bytes(byte as u64)
        );
    }
    for (index, buffer) in plan.buffers.iter().enumerate() {
        let (left, right) = (x(buffer.first_step), x(buffer.last_step + 1));
        let (top, bottom) = (y(buffer.offset + buffer.bytes), y(buffer.offset));
        let fill = match buffer.owner {
            Owner::Scratch => "#d9d9d9".to_owned(),
            // Neighbours differ: the golden angle spreads hues.
            Owner::Slot(_) => format!("hsl({:.0} 55% 68%)", (index as f64 * 137.508) % 360.0),
        };
        let text = format!(
            "{}: {} at byte {}, steps {} to {}",
            label(graph, plan, buffer.owner),
            Bytes(buffer.bytes as u64),
            buffer.offset,
            buffer.first_step,
            buffer.last_step
        );
        let _ = writeln!(
            out,
            "<rect x=\"{left:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{fill}\" stroke=\"#555\" stroke-width=\"0.4\"><title>{}</title></rect>",
            (right - left).max(0.5),
            (bottom - top).max(0.5),
            escape(&text)
        );
    }
    let _ = writeln!(
        out,
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">steps</text>",
        (LEFT + WIDTH) / 2.0,
        HEIGHT - 12.0
    );
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
