//! `make bench-ingest`: one node, measured from outside.

use std::{fs, path::Path, thread::sleep, time::Duration};

use crate::{
    Place,
    bench::{
        machine::{self, Cpu},
        process::{Client, wait_until},
        profile::{self, Profile},
        report,
    },
    client::{
        hold::Held,
        load::{Measured, Said},
    },
    frames,
    layers::LAYERS,
    node::{Broker, Node},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Idle connections whose memory is measured
    #[arg(long, default_value_t = 15_000)]
    idle: u32,
    /// Seconds of each measurement
    #[arg(long, default_value_t = 10)]
    seconds: u64,
}

const WARM_UP_MS: u64 = 3_000;
const SHAPES: [u32; 2] = [1, 16];

/// How the connections send.
#[derive(Debug, Clone, Copy)]
struct Load {
    name: &'static str,
    connections: u32,
    /// Batches of a connection without an ack.
    window: usize,
}

/// Every batch costs the node a read and a write of its own.
const FULL: Load = Load { name: "full", connections: 2_000, window: 1 };
/// As much as a connection may have under way: batches and acks share reads and writes.
const BUSY: Load = Load { name: "busy", connections: 200, window: 8 };
/// Half of what the full load brought, evenly.
const HALF: Load = Load { name: "half", connections: 2_000, window: 8 };

/// What a node allocates and frees by itself: reports, metrics, what threads keep for reuse.
const STILL_BYTES: f64 = 128.0 * 1_024.0;

/// One load: what the client saw, and what each process spent.
struct Run {
    shape: u32,
    load: Load,
    measured: Measured,
    node: Cpu,
    broker: Cpu,
    client: Cpu,
}

pub fn run(args: &Args) {
    let (Place { binary, scratch, .. }, results) = (&args.place, args.place.results());
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(scratch).unwrap();
    let broker = Broker::start(binary, scratch);

    results.write("Machine", &report::table(["", ""], &machine::description()));
    let node = Node::start(binary, scratch, &broker, "idle", None);
    results.write("Memory of an idle connection", &memory(&node, args.idle));
    drop(node);

    let node = Node::start(binary, scratch, &broker, "loaded", None);
    let mut runs = Vec::new();
    let mut profiles = Vec::new();
    for shape in SHAPES {
        let (full, profile) = run_load(&node, &broker, args, shape, FULL, None, Some(scratch));
        let half = full.measured.frames as f64 / full.measured.seconds / 2.0;
        runs.push(full);
        profiles.push(profile);
        runs.push(run_load(&node, &broker, args, shape, BUSY, None, None).0);
        runs.push(run_load(&node, &broker, args, shape, HALF, Some(half), None).0);
    }
    results.write("CPU by event, and time from frame to ack", &loads(&runs));
    for (shape, profile) in SHAPES.into_iter().zip(profiles) {
        let Some(profile) = profile else { continue };
        results.write(
            &format!("Where the time goes at {shape} a frame"),
            &profile.section("the node's threads at full load"),
        );
    }
}

fn memory(node: &Node, connections: u32) -> String {
    // What a node makes once (buffers of the log, of the runtime's threads) is made before the first look.
    let mut warm = hold(node, 200, connections);
    warm.ask();
    drop(warm);
    let (empty, resident, slab) = (settled(node, 0), node.resident(), machine::slab());
    let client = hold(node, connections, 0);
    let full = settled(node, connections);
    let (resident, slab) = (node.resident() - resident, machine::slab() - slab);
    drop(client);
    let after = settled(node, 0);
    let each = |bytes: f64| format!("{:.0}", bytes / f64::from(connections));
    report::table(
        ["Of each of so many connections", &connections.to_string()],
        &[
            ["User memory (jemalloc, allocated)".into(), format!("{} bytes", each(full - empty))],
            ["Resident memory of the node".into(), format!("{} bytes", each(resident as f64))],
            ["Kernel slab, both ends of the connection".into(), format!("{} bytes", each(slab as f64))],
            ["User memory that stays when all have left".into(), format!("{} bytes", each(after - empty))],
        ],
    )
}

fn hold(node: &Node, connections: u32, first_visitor: u32) -> Client {
    let mut client = Client::start(
        "hold-client",
        &[
            ("server", node.address.to_string()),
            ("connections", connections.to_string()),
            ("first-visitor", first_visitor.to_string()),
        ],
    );
    let held: Held = client.hear();
    assert_eq!(held, Held { open: connections, lost: 0 });
    client
}

/// Allocated bytes once there are so many sockets and two looks agree: visitors linger for some seconds.
fn settled(node: &Node, sockets: u32) -> f64 {
    node.wait_for_sockets(sockets);
    let mut before = 0.0;
    wait_until("the node's memory stands still", || {
        sleep(Duration::from_secs(4));
        let now = node.metric("footfall_process_allocated_bytes");
        let still = (now - before).abs() < STILL_BYTES;
        before = now;
        still
    });
    before
}

fn run_load(
    node: &Node,
    broker: &Broker,
    args: &Args,
    shape: u32,
    load: Load,
    rate: Option<f64>,
    profiled: Option<&Path>,
) -> (Run, Option<Profile>) {
    let mut options = vec![
        ("server", node.address.to_string()),
        ("connections", load.connections.to_string()),
        ("window", load.window.to_string()),
        ("events-per-frame", shape.to_string()),
        ("warm-up-ms", WARM_UP_MS.to_string()),
        ("measure-ms", (args.seconds * 1_000).to_string()),
    ];
    options.extend(rate.map(|rate| ("rate", rate.to_string())));
    let mut client = Client::start("load-client", &options);
    assert_eq!(client.hear::<Said>(), Said::Measuring);
    let before = (node.cpu(), broker.cpu(), client.cpu());
    let Said::Measured(measured) = client.hear() else { panic!("measured before it was said to be") };
    let run = Run {
        shape,
        load,
        measured,
        node: node.cpu().since(before.0),
        broker: broker.cpu().since(before.1),
        client: client.cpu().since(before.2),
    };
    assert_eq!(run.measured.failed, 0, "the node refused: this was no load");
    drop(client);
    node.wait_for_sockets(0);
    // A run of its own: taking stacks costs the node.
    let profile = profiled.and_then(|scratch| {
        let mut client = Client::start("load-client", &options);
        assert_eq!(client.hear::<Said>(), Said::Measuring);
        let profile = profile::take(node.pid(), args.seconds / 2, scratch, &LAYERS);
        drop(client);
        node.wait_for_sockets(0);
        profile
    });
    (run, profile)
}

fn loads(runs: &[Run]) -> String {
    let cpu = runs.iter().map(|run| {
        let millions = run.measured.events as f64 / 1e6;
        let each = |cpu: Cpu| format!("{:.2}", cpu.total() / millions);
        [
            run.shape.to_string(),
            run.load.name.to_owned(),
            format!("{:.0}", run.measured.events as f64 / run.measured.seconds),
            each(run.node),
            format!("{:.2}", run.node.user / millions),
            format!("{:.2}", run.node.system / millions),
            each(run.broker),
            each(run.client),
        ]
    });
    let cpu: Vec<_> = cpu.collect();
    let acks = runs.iter().map(|run| {
        let ms = |ms: f64| format!("{ms:.1}");
        let Measured { ack_p50_ms, ack_p99_ms, ack_max_ms, late_p99_ms, .. } = run.measured;
        [
            run.shape.to_string(),
            run.load.name.to_owned(),
            ms(ack_p50_ms),
            ms(ack_p99_ms),
            ms(ack_max_ms),
            ms(late_p99_ms),
        ]
    });
    let acks: Vec<_> = acks.collect();
    format!(
        "{} bytes an event; every connection has an address of its own. Validated, enriched, limited by connection and \
         address, written to Kafka with acks=all and synced to disk. Node, broker and client share the cores.\n\n\
         full: {} connections, each sends its next frame when the last is acked. busy: {} connections with {} frames \
         under way each. half: {} connections, half of the rate of full, evenly.\n\n\
         CPU-seconds per million events:\n\n{}\nFrom frame sent to ack, in ms:\n\n{}",
        frames::event_bytes(),
        FULL.connections,
        BUSY.connections,
        BUSY.window,
        HALF.connections,
        report::table(
            ["Events a frame", "Load", "Events/s", "Node", "of it user", "of it kernel", "Broker", "Client"],
            &cpu
        ),
        report::table(["Events a frame", "Load", "p50", "p99", "Longest", "Client late by (p99)"], &acks),
    )
}
