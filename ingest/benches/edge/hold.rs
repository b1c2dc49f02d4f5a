//! `make bench-hold`: more connections than one process may open files for, held by several workers with heartbeats.

use std::{
    fs,
    thread::sleep,
    time::{Duration, Instant},
};

use crate::{
    Place,
    bench::{machine, process::Client, report},
    client::hold::Held,
    node::{Broker, Node},
};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    #[arg(long, default_value_t = 100_000)]
    connections: u32,
    /// Workers, and clients: each of them may open 20,000 files or fewer
    #[arg(long, default_value_t = 7)]
    processes: u32,
    #[arg(long, default_value_t = 600)]
    seconds: u64,
}

/// After the last connection is there: the first heartbeats spread, what was made for the handshakes is gone.
const SETTLE: Duration = Duration::from_secs(25);
/// The clients are asked so often, so that a loss is told when it happens.
const LOOK: Duration = Duration::from_secs(30);

pub fn run(args: &Args) {
    let (Place { binary, scratch, .. }, results) = (&args.place, args.place.results());
    let _ = fs::remove_dir_all(scratch);
    fs::create_dir_all(scratch).unwrap();
    let broker = Broker::start(binary, scratch);
    let node = Node::start(binary, scratch, &broker, "workers", Some(args.processes));
    let slab = machine::slab();
    let mut clients = Vec::new();
    let mut first_visitor = 0;
    for number in 0..args.processes {
        let share = args.connections / args.processes + u32::from(number < args.connections % args.processes);
        let mut client = Client::start(
            "hold-client",
            &[
                ("server", node.address.to_string()),
                ("connections", share.to_string()),
                ("first-visitor", first_visitor.to_string()),
            ],
        );
        let held: Held = client.hear();
        assert_eq!(held, Held { open: share, lost: 0 });
        first_visitor += share;
        clients.push(client);
        println!("{first_visitor} connections are open");
    }
    sleep(SETTLE);
    let slab = machine::slab() - slab;

    let (began, before) = (Instant::now(), node.cpu());
    let until = began + Duration::from_secs(args.seconds);
    let mut held = Held { open: args.connections, lost: 0 };
    while Instant::now() < until {
        sleep(LOOK.min(until - Instant::now()));
        held = clients.iter_mut().fold(Held { open: 0, lost: 0 }, |sum, client| {
            client.ask();
            let held: Held = client.hear();
            Held { open: sum.open + held.open, lost: sum.lost + held.lost }
        });
        println!("after {} s: {held:?}", began.elapsed().as_secs());
    }
    let (took, spent) = (began.elapsed().as_secs_f64(), node.cpu().since(before));
    let each = |bytes: u64| format!("{} bytes", bytes / u64::from(args.connections));
    let core = |seconds: f64| format!("{:.1} % of one core", 100.0 * seconds / took);
    let rows = [
        ["Connections held".to_owned(), held.open.to_string()],
        ["Lost".to_owned(), held.lost.to_string()],
        ["Worker processes on one port".to_owned(), args.processes.to_string()],
        ["Time".to_owned(), format!("{took:.0} s")],
        ["Heartbeat".to_owned(), "a ping every 22 s".to_owned()],
        ["CPU of all workers".to_owned(), core(spent.total())],
        ["of it kernel".to_owned(), core(spent.system)],
        ["Resident memory of all workers, by connection".to_owned(), each(node.resident())],
        ["Kernel slab, both ends, by connection".to_owned(), each(slab)],
    ];
    results.write("Connections held", &report::table(["", ""], &rows));
    assert_eq!(held, Held { open: args.connections, lost: 0 }, "connections were lost");
}
