//! The relay as a program: `sds-relay` runs it, its subcommands are in `commands`.

use std::convert::Infallible;
use std::error::Error;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sds_server::backup::BackupError;
use sds_server::config::{Command, CommandLine, ConfigError, LogFormat, Settings};
use sds_server::limits::LOG_QUEUE_MAX;
use sds_server::{Ending, Relay, StartError};
use sds_sync::StorageError;
use sds_sync::access::{InvalidStores, MintError};
use sds_sync::limits::STOP_TIMEOUT;
use sds_sync::process::stop_requests;
#[cfg(unix)]
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

use commands::DataDamaged;

mod commands;

/// It could not be done.
const FAILED: u8 = 1;

/// The data are damaged.
const DAMAGED: u8 = 3;

/// The command line or the configuration is wrong, as `clap` has it too.
const BAD_CONFIGURATION: u8 = 2;

fn main() -> ExitCode {
    let line = CommandLine::parse();
    // Variables that are no text are none of ours.
    let environment = std::env::vars_os()
        .filter_map(|(name, value)| name.into_string().ok().zip(value.into_string().ok()));
    let settings = match Settings::gather(&line.serve, environment) {
        Ok(settings) => settings,
        Err(error) => return fail(&error, BAD_CONFIGURATION),
    };
    if line.check {
        return check(&settings);
    }
    let outcome = match &line.command {
        Some(Command::Token(args)) => commands::print_token(args, &settings),
        Some(Command::Backup { to }) => commands::back_up(&settings, to),
        Some(Command::Restore { from }) => commands::restore(&settings, from),
        Some(Command::Verify { from }) => commands::verify(from),
        Some(Command::Check) => commands::check_data(&settings),
        Some(Command::Health { ready }) => commands::health(&settings, *ready),
        None => run(&settings),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&*error, code_for(&*error)),
    }
}

fn code_for(error: &(dyn Error + 'static)) -> u8 {
    let is_storage_damage = |error: &StorageError| matches!(error, StorageError::Corrupt { .. });
    let is_damage = error.is::<DataDamaged>()
        || error.downcast_ref::<StorageError>().is_some_and(is_storage_damage)
        || error.downcast_ref::<StartError>().is_some_and(StartError::is_damage)
        || matches!(
            error.downcast_ref::<BackupError>(),
            Some(BackupError::Storage(error)) if is_storage_damage(error)
        );
    if error.is::<ConfigError>() || error.is::<InvalidStores>() || error.is::<MintError>() {
        BAD_CONFIGURATION
    } else if is_damage {
        DAMAGED
    } else {
        FAILED
    }
}

fn fail(error: &dyn Error, code: u8) -> ExitCode {
    // Nobody is left to be told that standard error is closed.
    let _closed = writeln!(io::stderr(), "sds-relay: {error}");
    ExitCode::from(code)
}

/// What kept the relay from starting, which is the configuration's fault if it names a file that is
/// no good.
fn start_error(settings: &Settings, error: StartError) -> Box<dyn Error> {
    match error {
        StartError::Certificate(error) if settings.tls.is_some() => {
            Box::new(ConfigError::Certificate(error))
        }
        other => Box::new(other),
    }
}

/// Tells what the relay would run with, and all that is wrong with that.
fn check(settings: &Settings) -> ExitCode {
    let _closed = write!(io::stdout(), "{}", settings.to_toml());
    let problems = settings.problems();
    let told = problems.iter().map(|problem| fail(problem, BAD_CONFIGURATION));
    told.reduce(|_, code| code).unwrap_or_default()
}

fn run(settings: &Settings) -> Result<(), Box<dyn Error>> {
    let _until_the_end = log_as(settings)?;
    let config = settings.to_relay_config()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(async {
        // From here on a signal stops the relay in good order, however early it comes, and one to
        // read the files again does not end it.
        let asked_to_stop = stop_requests()?;
        let mut asked_to_read = ReadRequests::listen()?;
        let relay = Relay::start(config).await.map_err(|error| start_error(settings, error))?;
        writeln!(
            io::stdout(),
            "sds-relay listens on {}, clients connect to {}",
            relay.local_addr(),
            relay.url()
        )?;
        notify(true);
        tokio::select! {
            outcome = asked_to_stop => outcome?,
            () = relay.asked_to_stop() => {}
            never = refresh_when_asked(&relay, &mut asked_to_read) => match never {},
            never = keep_telling(&relay) => match never {},
        }
        let asked_again = stop_requests()?;
        tracing::info!("stopping");
        notify(false);
        tokio::select! {
            ending = relay.stop() => match ending {
                Ending::InGoodOrder => Ok(()),
                Ending::DiskHangs => Err("the disk hangs: it was not waited for".into()),
            },
            _ = asked_again => Err("cut short by a second signal".into()),
        }
    });
    // A backup that is being made is not waited for: it has no name yet.
    runtime.shutdown_timeout(STOP_TIMEOUT);
    outcome
}

/// Begins the log. A thread of its own writes it, so that whoever reads it slowly holds nobody up;
/// lines that it has no room for are lost. What is left is written when the answer is dropped.
fn log_as(settings: &Settings) -> Result<WorkerGuard, ConfigError> {
    let (writer, guard) = NonBlockingBuilder::default()
        .lossy(true)
        .buffered_lines_limit(LOG_QUEUE_MAX)
        .finish(io::stderr());
    let lines = tracing_subscriber::fmt()
        .with_env_filter(settings.filter()?)
        .with_writer(writer)
        .with_ansi(io::stderr().is_terminal());
    match settings.log_format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(guard)
}

/// Hears when the program is asked to read its files again.
struct ReadRequests {
    #[cfg(unix)]
    hangups: Signal,
}

impl ReadRequests {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            hangups: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when the program was asked, also if that was before.
    async fn next(&mut self) {
        #[cfg(unix)]
        if self.hangups.recv().await.is_some() {
            return;
        }
        // Where nobody can ask, the relay looks by itself every few seconds.
        std::future::pending().await
    }
}

/// Looks for another certificate whenever the program is asked to read its files again.
async fn refresh_when_asked(relay: &Relay, asked: &mut ReadRequests) -> Infallible {
    loop {
        asked.next().await;
        relay.refresh_certificate().await;
    }
}

/// Tells the service manager that the relay is alive, as often as it wants to hear of it and as
/// long as it is.
async fn keep_telling(relay: &Relay) -> Infallible {
    #[cfg(unix)]
    if let Some(patience) = sd_notify::watchdog_enabled() {
        // An interval of nothing there is not; whoever asks for that hears of it all the time.
        let pause = (patience / 2).max(Duration::from_millis(1));
        let mut clock = tokio::time::interval(pause);
        loop {
            clock.tick().await;
            if !relay.is_alive() {
                tracing::error!("nobody writes the relay's file any more");
            } else if let Err(error) = sd_notify::notify(&[sd_notify::NotifyState::Watchdog]) {
                tracing::warn!(%error, "cannot tell the service manager");
            }
        }
    }
    std::future::pending().await
}

/// Tells the service manager, if there is one.
fn notify(is_ready: bool) {
    #[cfg(unix)]
    {
        use sd_notify::NotifyState;
        let state = if is_ready { NotifyState::Ready } else { NotifyState::Stopping };
        if let Err(error) = sd_notify::notify(&[state]) {
            tracing::warn!(%error, "cannot tell the service manager");
        }
    }
}
