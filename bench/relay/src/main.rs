//! Measures a relay under load, from another process on the same machine, with TLS and durability on.
//!
//! The relay is the program `sds-relay` as it is shipped. The clients here speak the protocol over the
//! transport that all clients use, without stores of their own: those would be measured instead.

mod appends;
mod blobs;
mod catch_up;
mod client;
mod fan_out;
mod idle;
mod relay;
mod report;

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, ValueEnum};

use crate::report::Report;

/// Measures a relay under load.
#[derive(Debug, Parser)]
#[command(name = "sds-bench-relay")]
struct Args {
    /// What to measure; everything if not given.
    #[arg(value_enum)]
    families: Vec<Family>,
    /// The relay's program.
    #[arg(long, default_value = "../target/release/sds-relay")]
    relay: PathBuf,
    /// Fewer rounds and smaller loads, to see that everything works.
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Family {
    Appends,
    FanOut,
    Sustained,
    Idle,
    CatchUp,
    CatchUpLong,
    Blobs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    let families = match args.families.as_slice() {
        [] => Family::value_variants(),
        chosen => chosen,
    };
    for family in families {
        runtime.block_on(async {
            let report = &mut report;
            match family {
                Family::Appends => appends::run(&args.relay, args.quick, report).await,
                Family::FanOut => fan_out::paced(&args.relay, args.quick, report).await,
                Family::Sustained => fan_out::sustained(&args.relay, args.quick, report).await,
                Family::Idle => idle::run(&args.relay, args.quick, report).await,
                Family::CatchUp => catch_up::short(&args.relay, args.quick, report).await,
                Family::CatchUpLong => catch_up::long(&args.relay, args.quick, report).await,
                Family::Blobs => blobs::run(&args.relay, args.quick, report).await,
            }
        })?;
    }
    report.print()
}
