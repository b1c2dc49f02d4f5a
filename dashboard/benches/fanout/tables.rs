//! What RESULTS.md says.

use crate::{
    bench::report::table,
    centrifugo::SETTINGS,
    client::{CYCLES, READING},
    run::{Args, Run, WithSlow},
    syscalls,
};

pub fn method(args: &Args, runs: &[Run]) -> String {
    let Args { subscribers, rate, seconds, .. } = args;
    let without = match args.centrifugo {
        Some(_) => String::new(),
        None => "\n\nCentrifugo was not measured: Go, which builds it, is not installed here.".to_owned(),
    };
    format!(
        "{subscribers} WebSocket subscribers of one feed that changes {rate} times a second, counted for {seconds} s by \
         one client on one thread. Server, client and whatever feeds the server share the cores; all on the loopback. \
         Every subscriber must see every change: they are numbered. A change's age is from the time that stands in it \
         until the client has read it.\n\n\
         - **Footfall**: `footfall dashboard`, with ingest, aggregator, broker and engine as processes beside it, and \
         synthetic visitors that send 40 events a second through ingest. A subscriber has logged in, holds a session and \
         follows one site. The time in a change is taken before the numbers of the site are merged.\n\
         - **Centrifugo** 6.9.1: the changes that a subscriber of Footfall got, renumbered, are published to one channel \
         through the HTTP API; the JSON protocol; anonymous subscribers. The time in a change is taken before the \
         request.\n\
         - **Bare loop**: the same changes, made into a frame once and written to every socket by one thread. No \
         protocol, no timers, nothing is read: what the kernel costs.\n\n\
         What each does that the other does not. Footfall's server makes the changes: it reads records of every \
         partition and presence of every node, merges them and finds what differs, within the CPU time told here; a \
         subscriber is checked for its session, its expiry and its revocation; who falls behind gets the newest whole \
         instead of a queue; changes are kept for who comes back ({kept} of them at most). Centrifugo takes any message \
         for any number of channels of a connection, other transports, several nodes over Redis or NATS, presence; it \
         keeps a queue for each subscriber, so that who is slow for a moment gets every message. History and \
         recovery, which would cost it more, are off. Its settings besides the defaults:\n\n```json\n{SETTINGS}```\n\n\
         Mean size of a message: {sizes}.{without}",
        kept = 240,
        sizes = list(runs, |run| format!("{:.0} bytes", run.crowd.bytes as f64 / run.crowd.changes as f64)),
    )
}

fn list(runs: &[Run], of: impl Fn(&Run) -> String) -> String {
    let each: Vec<_> = runs.iter().map(|run| format!("{} {}", run.name, of(run))).collect();
    each.join(", ")
}

pub fn fan_out(args: &Args, runs: &[Run]) -> String {
    let cost = runs.iter().map(|run| {
        let millions = run.crowd.changes as f64 / 1e6;
        let each = |seconds: f64| format!("{:.2}", seconds / millions);
        [
            run.name.to_owned(),
            format!("{:.0}", run.crowd.changes as f64 / run.crowd.seconds),
            each(run.server.total()),
            each(run.server.user),
            each(run.server.system),
            each(run.client.total()),
        ]
    });
    let cost: Vec<_> = cost.collect();
    let fed = runs.iter().filter_map(|run| {
        let core = 100.0 * run.others?.total() / run.crowd.seconds;
        Some(format!(
            "What feeds {} (ingest, aggregator, broker, engine) took {core:.0} % of a core.",
            run.name
        ))
    });
    let fed: String = fed.collect();
    let ages = runs.iter().map(|run| {
        let ms = |ms: f64| format!("{ms:.1}");
        let crowd = &run.crowd;
        [
            run.name.to_owned(),
            ms(crowd.age_p50_ms),
            ms(crowd.age_p99_ms),
            ms(crowd.age_max_ms),
            crowd.missed.to_string(),
            crowd.ended.to_string(),
            format!("{:.1}", run.opened_s),
        ]
    });
    let ages: Vec<_> = ages.collect();
    let calls = runs.iter().filter_map(|run| {
        let calls = run.syscalls?.map(|calls| format!("{calls:.2}"));
        let [all, write, read, epoll, futex] = calls;
        Some([run.name.to_owned(), all, write, read, epoll, futex])
    });
    let calls: Vec<_> = calls.collect();
    let [all, write, read, epoll, futex] = syscalls::NAMES;
    let calls = match calls.is_empty() {
        true => String::new(),
        false => format!(
            "\nSystem calls of the server, by frame:\n\n{}",
            table(["", all, write, read, epoll, futex], &calls)
        ),
    };
    format!(
        "{asked:.0} frames a second are asked for; fewer came when the machine was short of time, and then the ages say \
         more of the machine than of the server.\n\nCPU-seconds per million frames; the client's are what it costs to receive them, and tell that it is the same \
         for all:\n\n{}\n{fed}\n\nAge of a change when it is read, in ms; the last of a change's frames is written when all \
         others have been:\n\n{}{calls}",
        table(["", "Frames/s", "Server", "of it user", "of it kernel", "Client"], &cost),
        table(["", "p50", "p99", "Longest", "Missed", "Lost connections", "Until all subscribed, s"], &ages),
        asked = args.rate * f64::from(args.subscribers),
    )
}

pub fn memory(args: &Args, runs: &[Run]) -> String {
    let rows = runs.iter().map(|run| {
        let [before, full, after] = run.memory;
        let each = |now: u64, before: u64| {
            format!("{:.0}", (now as f64 - before as f64) / f64::from(args.subscribers))
        };
        [
            run.name.to_owned(),
            each(full.resident, before.resident),
            each(full.proportional, before.proportional),
            each(after.resident, before.resident),
            format!("{:.1}", before.resident as f64 / f64::from(1 << 20)),
        ]
    });
    let rows: Vec<_> = rows.collect();
    format!(
        "Bytes of the server's user memory by subscriber, over what it held after a hundred had come and gone. The \
         kernel's memory for the sockets is the same for all and not in it.\n\n{}",
        table(
            ["", "Resident", "Proportional", "Resident, after the count", "Before anybody came, MiB"],
            &rows
        )
    )
}

pub fn slow(args: &Args, runs: &[Run]) -> String {
    let rows = runs.iter().filter_map(|run| {
        let WithSlow { crowd, slow, grown } = run.with_slow.as_ref()?;
        let of = |some: u32, all: u32| format!("{some} of {all}");
        Some([
            run.name.to_owned(),
            format!("{:.1}", run.crowd.age_p99_ms),
            format!("{:.1}", crowd.age_p99_ms),
            crowd.missed.to_string(),
            slow.got.to_string(),
            slow.skipped.to_string(),
            slow.behind_ms.map_or("none".to_owned(), |ms| format!("{ms:.0}")),
            of(slow.pausing_closed, slow.pausing),
            of(slow.never_reading_closed, slow.never_reading),
            format!("{:.1}", *grown as f64 / f64::from(1 << 20)),
        ])
    });
    let rows: Vec<_> = rows.collect();
    format!(
        "{} more subscribers whose kernels take 4 KiB in segments of 88 bytes, while the others are counted for another \
         {} s. Half of them read nothing for {} s, then for a second whatever is there, three times. The other half never \
         read. Footfall conflates: who pauses gets the newest whole, and who does not take a frame in ten seconds is \
         closed with 1013. Centrifugo queues up to 1 MiB for each, and disconnects who does not take a write in one second. \
         Before either comes to that, the server's kernel takes what it has room for: here some 40 KiB, and several \
         hundred once it has probed the closed window of a reader for a while.\n\n{}",
        args.slow,
        u64::from(CYCLES) * (args.pause + READING.as_secs()),
        args.pause,
        table(
            [
                "",
                "p99 of the others before, ms",
                "with them, ms",
                "Missed by the others",
                "Changes got after pauses",
                "left out",
                "Age of the newest after a second's reading, ms at most",
                "Closed of those who pause",
                "of those who never read",
                "Memory of the server more at most, MiB",
            ],
            &rows
        )
    )
}
