//! Measures the engine against other CRDTs, in one process, on the same inputs.
//!
//! `text`, `tree`, `registers`, `store` and `durable` are the families of workloads; `report` compares what they
//! recorded on the [`Board`](board::Board) with the targets that the rows carry.

mod board;
mod durable;
mod engines;
mod measure;
mod registers;
mod report;
mod store;
mod text;
mod traces;
mod tree;

use std::alloc::System;
use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use cap::Cap;
use clap::{Parser, ValueEnum};

use crate::board::Board;
use crate::engines::Engine;
use crate::measure::{Settings, say};

/// Counts live bytes, at the price of one atomic addition an allocation, alike for all engines.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

/// Measures the engine of the shareable data store (sds) against other CRDTs, in one process.
#[derive(Debug, Parser)]
#[command(name = "sds-bench")]
struct Args {
    /// Which workloads to run.
    family: Family,
    /// Fewer rounds and smaller workloads, to see that everything works.
    #[arg(long)]
    quick: bool,
    /// A folder of editing traces (`*.json`, `*.json.gz`), sequential or concurrent.
    #[arg(long, value_name = "DIR")]
    traces: Option<PathBuf>,
    /// The other engines to run, all if not given.
    #[arg(long, value_delimiter = ',', value_name = "A,B")]
    peers: Option<Vec<Engine>>,
    /// Only workloads that have a row whose name contains this.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Rounds in which the engines take turns [default: 5, quick: 3].
    #[arg(long)]
    rounds: Option<usize>,
    /// Seconds after which one measurement is given up [default: 30, quick: 5].
    #[arg(long)]
    budget: Option<u64>,
    /// Writes every median to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Family {
    Text,
    Tree,
    Registers,
    Store,
    Durable,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let settings = Settings {
        quick: args.quick,
        rounds: args.rounds.unwrap_or(if args.quick { 3 } else { 5 }).max(1),
        budget: Duration::from_secs(args.budget.unwrap_or(if args.quick { 5 } else { 30 })),
        engines: Engine::chosen(args.peers.as_deref()),
        only: args.only,
    };
    let mut board = Board::default();
    match args.family {
        Family::Text => {
            let traces = match &args.traces {
                Some(folder) => traces::read_folder(folder)?,
                None => Vec::new(),
            };
            if args.traces.is_none() {
                say("no --traces: only synthetic texts are measured");
            }
            text::run(&settings, &traces, &mut board);
        }
        Family::Tree => tree::run(&settings, &mut board),
        Family::Registers => registers::run(&settings, &mut board),
        Family::Store => store::run(&settings, &mut board),
        Family::Durable => durable::run(&settings, &mut board),
    }
    io::stdout().write_all(report::tables(&board).as_bytes())?;
    if let Some(path) = &args.json {
        let json = report::json(&board)?;
        fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}
