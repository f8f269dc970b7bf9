//! Measures a relay under load, from another process on the same machine, with TLS and durability on.
//!
//! The relay is the program `sds-relay` as it is shipped, but for what one address and one subject may do. The clients here speak the protocol over the
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
    /// How often each is measured, in turn; the median counts.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// One round of smaller loads, to see that everything works.
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

impl Family {
    async fn measure(self, args: &Args, report: &mut Report) -> Result<()> {
        let Args { relay, quick, .. } = args;
        match self {
            Self::Appends => appends::run(relay, *quick, report).await,
            Self::FanOut => fan_out::paced(relay, *quick, report).await,
            Self::Sustained => fan_out::sustained(relay, *quick, report).await,
            Self::Idle => idle::run(relay, *quick, report).await,
            Self::CatchUp => catch_up::short(relay, *quick, report).await,
            Self::CatchUpLong => catch_up::long(relay, *quick, report).await,
            Self::Blobs => blobs::run(relay, *quick, report).await,
        }
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let mut report = Report::default();
    let families = match args.families.as_slice() {
        [] => Family::value_variants(),
        chosen => chosen,
    };
    for _ in 0..if args.quick { 1 } else { args.rounds } {
        for family in families {
            runtime.block_on(family.measure(&args, &mut report))?;
        }
    }
    report.print()
}
