//! Writes metric families as text: Prometheus 0.0.4 by default, OpenMetrics where it is asked for.
//!
//! Knows the two formats and nothing about what is measured; `metrics` says that.

use std::fmt::{Display, Write};

/// The text format of a scrape.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The format that an `Accept` header asks for: OpenMetrics where it is named with a quality
    /// that is not below that of plain text, Prometheus otherwise.
    pub(crate) fn accepted(accept: &str) -> Self {
        let quality = |wanted: &str| {
            accept
                .split(',')
                .filter_map(|range| {
                    let mut parts = range.split(';').map(str::trim);
                    let named = parts.next()?.eq_ignore_ascii_case(wanted);
                    let quality = parts
                        .find_map(|part| part.strip_prefix("q="))
                        .map_or(Some(1.0), |text| text.parse::<f64>().ok())?;
                    named.then_some(quality)
                })
                .fold(0.0, f64::max)
        };
        let open_metrics = quality("application/openmetrics-text");
        if open_metrics > 0.0 && open_metrics >= quality("text/plain") {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// The `Content-Type` of this format.
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// What a family counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Only rises; its name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Cumulative buckets, a sum and a count.
    Histogram,
}

/// Label names and values of one series.
pub(crate) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A scrape under construction.
#[derive(Debug)]
pub(crate) struct Exposition {
    text: String,
    format: Format,
}

impl Exposition {
    /// An empty scrape.
    pub(crate) fn new(format: Format) -> Self {
        Self { text: String::with_capacity(16 * 1024), format }
    }

    /// Begins a family; its series follow.
    pub(crate) fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let described = match (self.format, kind) {
            (Format::OpenMetrics, Kind::Counter) => name.strip_suffix("_total").unwrap_or(name),
            (Format::OpenMetrics | Format::Prometheus, _) => name,
        };
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.push(format_args!("# HELP {described} {help}\n# TYPE {described} {word}\n"));
        Family { exposition: self, name }
    }

    /// The finished text.
    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    fn push(&mut self, text: impl Display) {
        write!(self.text, "{text}").expect("writing into a String cannot fail");
    }
}

/// One family of a scrape.
#[derive(Debug)]
pub(crate) struct Family<'a> {
    exposition: &'a mut Exposition,
    name: &'static str,
}

impl Family<'_> {
    /// One series of a counter.
    pub(crate) fn count(&mut self, labels: Labels<'_>, value: u64) -> &mut Self {
        self.series("", labels, None, value)
    }

    /// One series of a gauge.
    pub(crate) fn value(&mut self, labels: Labels<'_>, value: f64) -> &mut Self {
        self.series("", labels, None, Number(value))
    }

    /// One histogram: for every bound in seconds the count in its own bucket, the last count being
    /// that of everything above; and the sum of all values in seconds.
    pub(crate) fn histogram(
        &mut self,
        labels: Labels<'_>,
        bounds: &[f64],
        counts: &[u64],
        sum: f64,
    ) -> &mut Self {
        let mut cumulated = 0;
        for (place, count) in counts.iter().enumerate() {
            cumulated += count;
            let bound = bounds.get(place).copied().unwrap_or(f64::INFINITY);
            self.series("_bucket", labels, Some(bound), cumulated);
        }
        self.series("_sum", labels, None, Number(sum)).series("_count", labels, None, cumulated)
    }

    fn series(
        &mut self,
        suffix: &str,
        labels: Labels<'_>,
        bound: Option<f64>,
        value: impl Display,
    ) -> &mut Self {
        let out = &mut *self.exposition;
        out.push(format_args!("{}{suffix}", self.name));
        let mut opening = '{';
        for (name, text) in labels {
            out.push(format_args!("{opening}{name}=\"{}\"", Escaped(text)));
            opening = ',';
        }
        if let Some(bound) = bound {
            out.push(format_args!("{opening}le=\"{}\"", Bound(bound)));
            opening = ',';
        }
        if opening == ',' {
            out.text.push('}');
        }
        out.push(format_args!(" {value}\n"));
        self
    }
}

struct Escaped<'a>(&'a str);

impl Display for Escaped<'_> {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for letter in self.0.chars() {
            match letter {
                '\\' => out.write_str("\\\\")?,
                '"' => out.write_str("\\\"")?,
                '\n' => out.write_str("\\n")?,
                other => out.write_char(other)?,
            }
        }
        Ok(())
    }
}

struct Number(f64);

impl Display for Number {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_infinite() {
            out.write_str(if self.0 > 0.0 { "+Inf" } else { "-Inf" })
        } else {
            write!(out, "{}", self.0)
        }
    }
}

/// A bucket's bound, in the canonical form of OpenMetrics: `1.0`, not `1`.
struct Bound(f64);

impl Display for Bound {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_finite() { write!(out, "{:?}", self.0) } else { out.write_str("+Inf") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scrape(format: Format) -> String {
        let mut out = Exposition::new(format);
        out.family("x_total", Kind::Counter, "Things.").count(&[("name", "a\"b\\c\nd")], 7);
        out.family("y", Kind::Gauge, "A share.").value(&[], 0.05).value(&[], f64::NAN);
        out.family("z_seconds", Kind::Histogram, "Times.").histogram(
            &[("arm", "v2")],
            &[0.5, 1.0],
            &[3, 2, 1],
            4.25,
        );
        out.finish()
    }

    #[test]
    fn prometheus_text_escapes_labels_and_cumulates_buckets() {
        assert_eq!(
            scrape(Format::Prometheus),
            "# HELP x_total Things.\n# TYPE x_total counter\nx_total{name=\"a\\\"b\\\\c\\nd\"} 7\n\
             # HELP y A share.\n# TYPE y gauge\ny 0.05\ny NaN\n\
             # HELP z_seconds Times.\n# TYPE z_seconds histogram\n\
             z_seconds_bucket{arm=\"v2\",le=\"0.5\"} 3\nz_seconds_bucket{arm=\"v2\",le=\"1.0\"} 5\n\
             z_seconds_bucket{arm=\"v2\",le=\"+Inf\"} 6\nz_seconds_sum{arm=\"v2\"} 4.25\n\
             z_seconds_count{arm=\"v2\"} 6\n"
        );
    }

    #[test]
    fn open_metrics_names_counter_families_without_their_suffix_and_ends_with_eof() {
        let text = scrape(Format::OpenMetrics);
        assert!(text.contains("# TYPE x counter\nx_total{"), "{text}");
        assert!(text.ends_with("# EOF\n"), "{text}");
    }

    #[test]
    fn open_metrics_is_given_only_where_it_is_asked_for() {
        let check = |accept, format| assert_eq!(Format::accepted(accept), format, "{accept}");
        check("", Format::Prometheus);
        check("*/*", Format::Prometheus);
        check("text/plain", Format::Prometheus);
        check("application/openmetrics-text; version=1.0.0", Format::OpenMetrics);
        check("application/openmetrics-text;q=0.5,text/plain;q=0.9", Format::Prometheus);
        check(
            "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2",
            Format::OpenMetrics,
        );
        check("application/openmetrics-text;q=0", Format::Prometheus);
    }
}
