//! How long a reload takes to compile: a file of 10,000 routes, 100 services and 100 cohorts, from
//! text to the table, parsing included.

use std::{fmt::Write, hint::black_box, path::Path};

use criterion::{Criterion, criterion_group, criterion_main};
use haldane::config::compile_text;

fn file(routes: usize) -> String {
    let mut text =
        String::from("version: 1\nlisteners: [{ address: \"0.0.0.0:8080\" }]\ncohorts:\n");
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        text.write_fmt(arguments).expect("memory takes all text")
    };
    for number in 0..100 {
        line(format_args!(
            "  - {{ name: c{number}, match: {{ header: {{ name: x-c, exact: '{number}' }} }} }}\n"
        ));
    }
    line(format_args!("services:\n"));
    for number in 0..100 {
        line(format_args!(
            "  s{number}:\n    baseline: 10.0.0.{number}:80\n    canaries: {{ v2: {{ upstream: \"10.0.1.{number}:80\", version: \"2\" }} }}\n"
        ));
    }
    line(format_args!("routes:\n"));
    for number in 0..routes {
        line(format_args!(
            "  - name: r{number}\n    match: {{ host: h{number}.example.com, path_prefix: /p{number} }}\n    service: s{}\n    timeout: 5s\n",
            number % 100
        ));
    }
    text
}

fn compile(criterion: &mut Criterion) {
    let text = file(10_000);
    let compiled = compile_text(&text, Path::new("haldane.yaml"), &|_| None);
    assert!(compiled.is_ok(), "the file is a good one");
    let mut group = criterion.benchmark_group("config");
    group.sample_size(20);
    group.bench_function("compile_10000_routes", |bencher| {
        bencher
            .iter(|| compile_text(black_box(&text), Path::new("haldane.yaml"), &|_| None).is_ok());
    });
    group.finish();
}

criterion_group!(benches, compile);
criterion_main!(benches);
