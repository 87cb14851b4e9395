//! Plots, written by hand as SVG: the strokes that simulations and reports share. What is drawn,
//! and over which axes, is a matter of whoever draws.

use std::fmt::{Arguments, Write};

/// A picture that is being drawn.
#[derive(Debug)]
pub struct Svg {
    text: String,
}

/// The place of a panel in the picture.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Frame {
    /// From the left edge of the picture.
    pub left: f64,
    /// From its upper edge.
    pub top: f64,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

/// Which end of a label stands at its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Anchor {
    /// Its beginning.
    Start,
    /// Its middle.
    Middle,
    /// Its end.
    End,
}

impl Frame {
    /// The x of its right edge.
    #[must_use]
    pub fn right(&self) -> f64 {
        self.left + self.width
    }

    /// The y of its lower edge.
    #[must_use]
    pub fn bottom(&self) -> f64 {
        self.top + self.height
    }

    /// The x of a share of its width.
    #[must_use]
    pub fn x(&self, share: f64) -> f64 {
        self.left + self.width * share.clamp(0.0, 1.0)
    }

    /// The y of a share of its height, from below.
    #[must_use]
    pub fn y(&self, share: f64) -> f64 {
        self.top + self.height * (1.0 - share.clamp(0.0, 1.0))
    }
}

impl Svg {
    /// An empty picture of a size.
    #[must_use]
    pub fn new(width: f64, height: f64) -> Self {
        let mut svg = Self { text: String::new() };
        svg.put(format_args!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" \
             font-family=\"system-ui, sans-serif\" font-size=\"13\" fill=\"#222\">\n\
             <rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
        ));
        svg
    }

    /// A heading over the whole picture.
    pub fn heading(&mut self, title: &str) {
        let title = escaped(title);
        self.put(format_args!("<text x=\"20\" y=\"30\" font-size=\"17\">{title}</text>\n"));
    }

    /// The edge of a panel, with a title above it.
    pub fn frame(&mut self, frame: Frame, title: &str) {
        let Frame { left, top, width, height } = frame;
        self.label([left, top - 18.0], Anchor::Start, title);
        self.put(format_args!(
            "<rect x=\"{left}\" y=\"{top}\" width=\"{width}\" height=\"{height}\" fill=\"none\" \
             stroke=\"#666\"/>\n"
        ));
    }

    /// A straight line between two points.
    pub fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"{colour}\" stroke-width=\"{width}\"/>\n"
        ));
    }

    /// A dashed line between two points.
    pub fn dashes(&mut self, [x1, y1, x2, y2]: [f64; 4], colour: &str) {
        self.put(format_args!(
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" \
             stroke=\"{colour}\" stroke-dasharray=\"4 3\"/>\n"
        ));
    }

    /// A stroke along a path in SVG's own notation.
    pub fn path(&mut self, path: &str, colour: &str, width: f64) {
        self.put(format_args!(
            "<path d=\"{path}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"{width}\"/>\n"
        ));
    }

    /// A filled area along a path in SVG's own notation.
    pub fn area(&mut self, path: &str, colour: &str) {
        self.put(format_args!("<path d=\"{path}\" fill=\"{colour}\"/>\n"));
    }

    /// A dot.
    pub fn dot(&mut self, [x, y]: [f64; 2], radius: f64, colour: &str) {
        self.put(format_args!(
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\" fill=\"{colour}\"/>\n"
        ));
    }

    /// A label.
    pub fn label(&mut self, [x, y]: [f64; 2], anchor: Anchor, text: &str) {
        let text = escaped(text);
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.put(format_args!(
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>\n"
        ));
    }

    /// The picture, finished.
    #[must_use]
    pub fn finish(mut self) -> String {
        self.text.push_str("</svg>\n");
        self.text
    }

    fn put(&mut self, arguments: Arguments<'_>) {
        self.text.write_fmt(arguments).expect("a string takes whatever is written");
    }
}

/// A step between the marks of a time axis of so many seconds: four to ten of them, in round
/// numbers.
#[must_use]
pub fn time_step(seconds: f64) -> f64 {
    const STEPS: [f64; 18] = [
        1.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0,
        21_600.0, 43_200.0, 86_400.0, 172_800.0, 604_800.0,
    ];
    STEPS.into_iter().find(|step| seconds / step <= 10.0).unwrap_or(seconds / 8.0)
}

/// A time in seconds for a mark of an axis.
#[must_use]
pub fn time(seconds: f64) -> String {
    match seconds {
        ..120.0 => format!("{seconds:.0} s"),
        ..10_800.0 if seconds % 60.0 > 0.0 => format!("{:.1} min", seconds / 60.0),
        ..10_800.0 => format!("{:.0} min", seconds / 60.0),
        ..259_200.0 => format!("{:.0} h", seconds / 3600.0),
        _ => format!("{:.0} d", seconds / 86_400.0),
    }
}

/// Text as SVG and HTML want it.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_cannot_break_out_of_a_picture() {
        let mut svg = Svg::new(10.0, 10.0);
        svg.heading("a <title> & \"more\"");
        let text = svg.finish();
        assert!(text.contains("a &lt;title&gt; &amp; &quot;more&quot;"));
        assert!(text.starts_with("<svg ") && text.ends_with("</svg>\n"));
    }

    #[test]
    fn times_have_few_marks_and_fitting_units() {
        for seconds in [3.0, 90.0, 4000.0, 90_000.0, 2_000_000.0] {
            let marks = seconds / time_step(seconds);
            assert!((1.0..=10.0).contains(&marks), "{seconds}: {marks}");
        }
        let shown = [5.0, 300.0, 7200.0, 21_600.0, 604_800.0].map(time);
        assert_eq!(shown, ["5 s", "5 min", "120 min", "6 h", "7 d"]);
    }
}
