//! Measures route look-ups in-process: nanoseconds per `Router::find` for tables of several sizes and shapes.
//!
//! Look-ups go to routes spread over the whole table in no order a cache could learn, so a large table pays
//! for its memory. Each figure is the median of several rounds. A column that grows with the number of routes
//! is a defect of the index.
//!
//! ```text
//! cargo run --release -p gateward-bench --bin route_bench -- --format json
//! ```

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use clap::{Parser, ValueEnum};
use gateward_http::Headers;
use gateward_model::{Config, Route, RouterFlavor};
use gateward_route::fuzzing::table::blank_route;
use gateward_route::{Input, Router, Scheme};

/// Look-ups prepared for a table; more than fit the caches together with their places in the index.
const TARGETS: usize = 4096;
/// Rounds per figure.
const ROUNDS: usize = 9;

#[derive(Parser)]
#[command(about = "Nanoseconds per route look-up, by number of routes and shape of the table")]
struct Arguments {
    /// Sizes of the tables.
    #[arg(long, value_delimiter = ',', default_values_t = [1, 100, 10_000, 100_000])]
    routes: Vec<usize>,
    /// How to print the results.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    format: Format,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    Table,
    Json,
}

/// What the routes of a table have in common.
#[derive(Clone, Copy)]
struct Shape {
    name: &'static str,
    flavor: RouterFlavor,
    route: fn(usize, &mut Route),
    /// Host and path of a request for a route.
    target: fn(usize) -> (String, String),
    found: bool,
}

const SHAPES: [Shape; 7] = [
    Shape {
        name: "host",
        flavor: RouterFlavor::TraditionalCompatible,
        route: |index, route| route.hosts = Some(vec![format!("service-{index}.example.com")]),
        target: |index| (format!("service-{index}.example.com"), "/v1/orders/42".to_owned()),
        found: true,
    },
    Shape {
        name: "path",
        flavor: RouterFlavor::TraditionalCompatible,
        route: |index, route| route.paths = Some(vec![format!("/service-{index}/v1")]),
        target: |index| ("api.example.com".to_owned(), format!("/service-{index}/v1/orders/42")),
        found: true,
    },
    Shape {
        name: "host+path+method",
        flavor: RouterFlavor::TraditionalCompatible,
        route: |index, route| {
            route.hosts = Some(vec![format!("tenant-{}.example.com", index / 10)]);
            route.paths = Some(vec![format!("/service-{index}")]);
            route.methods = Some(vec!["GET".to_owned(), "POST".to_owned()]);
        },
        target: |index| (format!("Tenant-{}.example.com", index / 10), format!("/service-{index}/v1/orders")),
        found: true,
    },
    Shape {
        name: "wildcard host",
        flavor: RouterFlavor::TraditionalCompatible,
        route: |index, route| route.hosts = Some(vec![format!("*.tenant-{index}.example.com")]),
        target: |index| (format!("www.tenant-{index}.example.com"), "/v1/orders/42".to_owned()),
        found: true,
    },
    Shape {
        name: "regex path",
        flavor: RouterFlavor::TraditionalCompatible,
        route: |index, route| route.paths = Some(vec![format!("~/service-{index}/(?<id>\\d+)$")]),
        target: |index| ("api.example.com".to_owned(), format!("/service-{index}/42")),
        found: true,
    },
    Shape {
        name: "expression",
        flavor: RouterFlavor::Expressions,
        route: |index, route| {
            route.expression = Some(format!(
                r#"http.host == "tenant-{}.example.com" && http.path ^= "/service-{index}/" && http.method == "GET""#,
                index / 10
            ));
        },
        target: |index| (format!("tenant-{}.example.com", index / 10), format!("/service-{index}/v1/orders")),
        found: true,
    },
    Shape {
        name: "no match",
        flavor: RouterFlavor::TraditionalCompatible,
        route: |index, route| route.paths = Some(vec![format!("/service-{index}/v1")]),
        target: |index| ("api.example.com".to_owned(), format!("/service-{index}/v2")),
        found: false,
    },
];

struct Figure {
    shape: &'static str,
    routes: usize,
    find_ns: f64,
    compile_ms: f64,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut figures = Vec::new();
    for shape in SHAPES {
        for routes in &arguments.routes {
            figures.push(measure(shape, *routes)?);
        }
    }
    match arguments.format {
        Format::Table => print_table(&arguments.routes, &figures),
        Format::Json => print_json(&figures)?,
    }
    Ok(())
}

fn measure(shape: Shape, routes: usize) -> anyhow::Result<Figure> {
    let config = Config {
        routes: (0..routes)
            .map(|index| {
                let mut route = blank_route(index as u64);
                (shape.route)(index, &mut route);
                Arc::new(route)
            })
            .collect(),
        ..Config::default()
    };
    let started = Instant::now();
    let router = Router::compile(&config, shape.flavor).map_err(|errors| anyhow::anyhow!("{errors:?}"))?;
    let compile_ms = started.elapsed().as_secs_f64() * 1e3;

    let targets: Vec<(String, String)> = scattered(routes).map(shape.target).collect();
    let headers = Headers::default();
    let inputs: Vec<Input<'_>> = targets.iter().map(|(host, path)| input(host, path, &headers)).collect();
    for input in &inputs {
        anyhow::ensure!(router.find(input).is_some() == shape.found, "{}: wrong answer for {input:?}", shape.name);
    }
    let mut rounds: Vec<f64> = (0..ROUNDS).map(|_| round_ns(&router, &inputs)).collect();
    rounds.sort_by(f64::total_cmp);
    Ok(Figure { shape: shape.name, routes, find_ns: rounds[ROUNDS / 2], compile_ms })
}

/// Routes to look up, in an order without pattern (a linear congruential generator's).
fn scattered(routes: usize) -> impl Iterator<Item = usize> {
    let mut state = 1_u64;
    (0..TARGETS).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % routes.max(1)
    })
}

fn input<'a>(host: &'a str, path: &'a str, headers: &'a Headers) -> Input<'a> {
    Input {
        method: "GET",
        host,
        port: None,
        local_port: 8000,
        path,
        query: None,
        headers,
        scheme: Scheme::Http,
        sni: None,
        vpce_id: None,
        src: SocketAddr::from(([10, 0, 0, 1], 50_000)),
        dst: SocketAddr::from(([10, 0, 0, 2], 8000)),
    }
}

fn round_ns(router: &Router, inputs: &[Input<'_>]) -> f64 {
    const PASSES: usize = 16;
    let started = Instant::now();
    for _ in 0..PASSES {
        for input in inputs {
            black_box(router.find(black_box(input)));
        }
    }
    started.elapsed().as_secs_f64() * 1e9 / (PASSES * inputs.len()) as f64
}

fn print_table(sizes: &[usize], figures: &[Figure]) {
    println!("ns per look-up");
    print!("{:<20}", "routes");
    sizes.iter().for_each(|size| print!("{size:>10}"));
    println!();
    for row in figures.chunks(sizes.len()) {
        print!("{:<20}", row[0].shape);
        row.iter().for_each(|figure| print!("{:>10.0}", figure.find_ns));
        println!();
    }
    println!("\nms to compile");
    for row in figures.chunks(sizes.len()) {
        print!("{:<20}", row[0].shape);
        row.iter().for_each(|figure| print!("{:>10.1}", figure.compile_ms));
        println!();
    }
}

fn print_json(figures: &[Figure]) -> anyhow::Result<()> {
    let rows: Vec<serde_json::Value> = figures
        .iter()
        .map(|figure| {
            serde_json::json!({
                "shape": figure.shape,
                "routes": figure.routes,
                "find_ns": figure.find_ns,
                "compile_ms": figure.compile_ms,
            })
        })
        .collect();
    println!("{}", serde_json::to_string_pretty(&rows)?);
    Ok(())
}
