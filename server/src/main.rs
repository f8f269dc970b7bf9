//! The relay as a program: `sds-relay` runs it, `sds-relay token` makes a token.

use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Parser;
use sds_server::config::{Command, CommandLine, ServeArgs, TokenArgs, secret_from_environment};
use sds_server::{Relay, mint};
use sds_sync::process::stop_requests;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    let outcome = match &line.command {
        Some(Command::Token(args)) => print_token(args, line.serve.issuer.as_deref()),
        None => run(&line.serve),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to be told that standard error is closed.
            let _closed = writeln!(io::stderr(), "sds-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_token(args: &TokenArgs, issuer: Option<&str>) -> Result<(), Box<dyn Error>> {
    let secret = secret_from_environment().map_err(|weak| format!("SDS_JWT_SECRET: {weak}"))?;
    let token = mint(&secret, &args.to_grant(issuer), SystemTime::now())?;
    writeln!(io::stdout(), "{}", token.reveal())?;
    Ok(())
}

fn run(args: &ServeArgs) -> Result<(), Box<dyn Error>> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .init();
    let secret = secret_from_environment().map_err(|weak| format!("SDS_JWT_SECRET: {weak}"))?;
    let config =
        args.to_config(secret).map_err(|error| format!("the host {}: {error}", args.host))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // From here on a signal stops the relay in good order, however early it comes.
        let asked_to_stop = stop_requests()?;
        let relay = Relay::start(config).await?;
        writeln!(
            io::stdout(),
            "sds-relay listens on {}, clients connect to {}",
            relay.local_addr(),
            relay.url()
        )?;
        asked_to_stop.await?;
        tracing::info!("stopping");
        relay.stop().await;
        Ok(())
    })
}
