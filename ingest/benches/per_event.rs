//! What one event costs between the socket and the log: parse the batch, validate, hash, enrich, write the line.
//!
//! Prints CPU time (of this thread) and bytes allocated per event, of the best of several rounds:
//! `cargo bench -p footfall-ingest --bench per_event`.
#![allow(clippy::unwrap_used)]
use std::{hint::black_box, time::Duration};

use footfall_ingest::{
    raw::{RawBatch, RawEvent},
    sift, validate,
    web_url::WebUrl,
};
use footfall_schemas::site::Site;
use rustix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const ROUNDS: usize = 7;
const ROUND: Duration = Duration::from_millis(250);

fn cpu() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
}

fn measure(name: &str, events: usize, mut work: impl FnMut()) {
    let allocated = tikv_jemalloc_ctl::thread::allocatedp::read().unwrap();
    let mut best = f64::MAX;
    let mut bytes = 0.0;
    work();
    for _ in 0..ROUNDS {
        let (start, before) = (cpu(), allocated.get());
        let mut batches = 0u64;
        while cpu() - start < ROUND {
            (0..100).for_each(|_| work());
            batches += 100;
        }
        let spent = (cpu() - start).as_nanos() as f64;
        let count = (batches * events as u64) as f64;
        best = best.min(spent / count);
        bytes = (allocated.get() - before) as f64 / count;
    }
    println!("{name:<44} {best:>8.0} ns {bytes:>8.0} B");
}

/// Like a visit: views with a referrer or a campaign, engagement, custom events with properties.
fn batch(events: usize) -> String {
    let page = |i: usize| ["/", "/pricing", "/shop/lamp", "/blog/measuring-what-matters-in-analytics"][i % 4];
    let event = |i: usize| match i % 8 {
        0 => format!(
            r#"{{"k":"view","at":{},"u":"https://shop.example.com{}?utm_source=newsletter&utm_medium=email&utm_campaign=autumn-sale","r":"https://www.search.example/results","t":"Autumn sale: lamps and chairs for less - The Shop","p":{{"plan":"pro"}}}}"#,
            1_000 + i,
            page(i)
        ),
        1 | 4 | 6 => format!(
            r#"{{"k":"view","at":{},"u":"https://shop.example.com{}?ref=list&page=2","r":"https://news.ycombinator.com/item?id=4141414141","t":"Measuring what matters, and how to read it - The Shop","p":{{"plan":"pro","ab":"variant-b"}}}}"#,
            1_000 + i,
            page(i)
        ),
        2 | 5 => format!(
            r#"{{"k":"custom","at":{},"u":"https://shop.example.com{}?ref=list&page=2","n":"add_to_cart","p":{{"colour":"blue","quantity":3,"price":12.5,"gift":true,"currency":"EUR","sku":"LAMP-0042-B"}},"pv":{}}}"#,
            1_000 + i,
            page(i),
            i
        ),
        _ => format!(
            r#"{{"k":"engagement","at":{},"u":"https://shop.example.com{}?ref=list&page=2","d":43210,"s":80,"pv":{},"p":{{"plan":"pro","ab":"variant-b"}}}}"#,
            1_000 + i,
            page(i),
            i
        ),
    };
    let events: Vec<String> = (0..events).map(event).collect();
    format!(
        r#"{{"t":"batch","stream":"01a315e46800a1b2c3d4e5f6","first":3,"sent":61250,"ctx":{{"w":1440,"l":"en-GB","z":"Europe/Berlin"}},"events":[{}]}}"#,
        events.join(",")
    )
}

fn main() {
    let site = Site::new("demo".parse().unwrap(), vec!["*".try_into().unwrap()]);
    for events in [16, 1] {
        let text = batch(events);
        let raw = RawBatch::parse(&text).unwrap();
        let valid: Vec<_> = raw.events.iter().map(|raw| validate::event(raw).unwrap()).collect();
        let lines = sift::lines_of(&text, &site, 0).unwrap();
        println!(
            "{events} events a batch: {} bytes of JSON an event, {} bytes a line",
            text.len() / events,
            lines.len() / events
        );
        measure("parse the batch, its events by hand", events, || {
            black_box(RawBatch::parse(black_box(&text)).unwrap());
        });
        measure("the same by serde_json: the batch", events, || {
            black_box(serde_json::from_str::<RawBatch<'_>>(black_box(&text)).unwrap());
        });
        measure("the same by serde_json: its events", events, || {
            for json in &raw.events {
                black_box(serde_json::from_str::<RawEvent<'_>>(black_box(json)).unwrap());
            }
        });
        measure("page URL", events, || {
            for valid in &valid {
                black_box(WebUrl::parse(black_box(&valid.event.u)).unwrap());
            }
        });
        let mut scratch = Vec::new();
        measure("payload hash", events, || {
            for valid in &valid {
                black_box(valid.event.payload_hash(&mut scratch));
            }
        });
        measure("all, from the batch's text to its lines", events, || {
            black_box(sift::lines_of(black_box(&text), &site, 1_800_000_000_000).unwrap());
        });
    }
}
