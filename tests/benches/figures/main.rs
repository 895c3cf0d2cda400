//! The benchmark of understudy: `cargo bench -p understudy-tests` runs all workloads, `-- to-device leave` some.
//!
//! The measured program is the release binary, in a process of its own, over real sockets. Its cost is the CPU time of all its
//! threads, as the kernel counts it, from the first request until the bridge has acknowledged the last result, divided by the
//! number of operations. The clients and the bridge are in this process. The [`yardstick`] is measured in the same run, under
//! the same load: it is this program in another process, selected by an environment variable.
//!
//! With `UNDERSTUDY_FIGURES=1` the tables and the chart in the book (`spec-notes`) are written again, for the workloads that it
//! shows.

mod figure;
mod http;
mod server;
mod work;
mod world;
mod yardstick;

use std::process::ExitCode;

use figure::Figure;

/// The allocator of the server, so that the yardstick uses the same.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    if let Some(arguments) = server::to_be_the_yardstick() {
        yardstick::run(&arguments);
        return ExitCode::SUCCESS;
    }
    server::build();
    let chosen: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let figures = actix_rt::System::new().block_on(measure(&chosen));
    print!("{}", figure::table(&figures));
    if figures.iter().any(|f| f.faults > 0) {
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn measure(chosen: &[String]) -> Vec<Figure> {
    let mut all: Vec<Figure> = Vec::new();
    macro_rules! workloads {
        ($($name:literal => $run:expr),* $(,)?) => { $(
            if chosen.is_empty() || chosen.iter().any(|c| $name.contains(c.as_str())) {
                eprintln!("{} …", $name);
                let figures = $run.await;
                // Printed at once, because a later workload can fail.
                eprint!("{}", figure::table(&figures));
                figure::keep($name, &figures);
                all.extend(figures);
            }
        )* };
    }
    workloads! {
        "to-device" => work::to_device::in_flight(false),
        "to-device-postgres" => work::to_device::in_flight(true),
        "recipients" => work::to_device::many_recipients(),
        "namespace" => work::to_device::namespaces(),
        "paced" => work::to_device::at_a_pace(),
        "event" => work::rooms::events(false),
        "event-postgres" => work::rooms::events(true),
        "leave" => work::rooms::leaves(),
        "last-member" => work::rooms::last_member(),
        "claim" => work::keys::claims(),
        "upload" => work::keys::uploads(),
        "query" => work::keys::queries(),
        "sync" => work::sync::wake_up(),
        "interests" => work::interests::questions(),
        "messages-beside-services" => work::interests::messages(),
        "busy-bot" => work::busy_bot::busy_bot(),
        "sync-or-transactions" => work::sync_or_transactions::compare(),
        "counts-policies" => work::counts::policies(),
        "memory" => work::process::memory(),
        "start" => work::process::start(),
    }
    all
}
