//! The command line: what was typed, and one file a command.
//!
//! Data goes to stdout, talk to stderr; an error says what, where and, as `hint:`, what to do.
//! Exit codes: 0 done; 1 failed or refused; 2 bad input or usage (`plan` and `diff`: changes);
//! 3 operator not reachable; 4 not found; 5 timed out.

mod apply;
mod bar;
mod client;
mod completions;
mod confirm;
mod describe;
mod doctor;
mod events;
mod exit;
mod explain;
mod files;
mod gate;
mod gc;
mod get;
mod history;
mod input;
mod lazy;
mod local;
mod logs;
mod output;
mod plan;
mod privileges;
mod run;
mod schema;
mod sole;
mod sources;
mod table;
mod token;
mod top;
mod validate;
mod verb;
mod wait;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory as _, Parser, Subcommand};

use crate::config::{Config, Flags, Surroundings};

use client::Client;
use exit::{Code, Failure};
use output::Out;

/// A Kubernetes-style operator for user sessions against plain Docker.
#[derive(Debug, Parser)]
#[command(name = "docket", version, about, propagate_version = true, max_term_width = 110)]
struct Typed {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Flags of every command.
#[derive(Clone, Debug, Args)]
struct Global {
    /// The operator's state directory, where its socket is
    #[arg(long, global = true, value_name = "DIR")]
    state: Option<String>,
    /// Configuration file [default: docket.yaml, if it is there; but for `run`, then the package's]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// No colours (nor with NO_COLOR set, nor into a pipe)
    #[arg(long, global = true)]
    no_color: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator in the foreground
    Run(run::Run),
    /// Check files without an operator; exit 2 with file:line:column: message
    Validate(validate::Validate),
    /// Print the JSON Schema of the objects
    Schema(schema::Schema),
    /// Show what the next pass would do and why; it cannot act
    Plan(plan::Plan),
    /// Compare a directory with what runs
    Diff(plan::Diff),
    /// Record objects with the operator instead of in files
    Apply(apply::Apply),
    /// End sessions that were applied
    Delete(apply::Delete),
    /// List sessions, show one, or list where specs come from
    Get(get::Get),
    /// Show everything about a session
    Describe(describe::Describe),
    /// Say why a session is not what was asked for, and what happens next
    Explain(explain::Explain),
    /// Show the operator's events
    Events(events::Events),
    /// Wait until a session is ready, synced or deleted
    Wait(wait::Wait),
    /// Print a session's container log
    Logs(logs::Logs),
    /// Show what sessions use
    Top(top::Top),
    /// List a session's files with their state
    Files(files::Files),
    /// Fetch a session's files now
    Hydrate(files::Hydrate),
    /// Sync a session's files now
    Sync(files::Sync),
    /// List the earlier states of a session's workspace
    History(history::History),
    Restore(history::Restore),
    /// End a session's container until `docket start`; workspace and port are kept
    Stop(verb::Named),
    /// Undo `docket stop`, or begin an ended lifetime anew
    Start(verb::Named),
    /// Make a new container, the image resolved anew
    Restart(verb::Named),
    /// Leave a session's container alone until `docket resume`
    Suspend(verb::Named),
    /// Undo `docket suspend`
    Resume(verb::Named),
    /// Show the sessions that the prune guard holds, and confirm their end
    ConfirmPrune(confirm::ConfirmPrune),
    Gc(gc::Gc),
    /// List what is in the trash, and when it goes
    Trash(gc::Trash),
    /// Check the engine, the kernel, modes, ports and the store
    Doctor(doctor::Doctor),
    /// Print the token for HTTP
    Token,
    /// Print a completion script
    Completions(completions::Completions),
    /// Print the manual page
    Man,
    /// Hold opens of placeholders back; the operator or a service manager starts it
    #[command(hide = true)]
    Gate(gate::Gate),
}

/// What every command is given.
struct Context {
    global: Global,
    out: Out,
}

impl Context {
    /// The configuration, with flags of the command.
    fn config(&self, flags: &Flags) -> Result<Config, Failure> {
        Ok(Config::load(&self.surroundings(flags).or_installed())?)
    }

    fn surroundings(&self, flags: &Flags) -> Surroundings {
        let mut flags = flags.clone();
        if let Some(state) = &self.global.state {
            flags.0.insert("state", state.clone());
        }
        Surroundings::of_process(self.global.config.as_deref(), &flags)
    }

    /// The way to the operator.
    fn client(&self) -> Result<Client, Failure> {
        Ok(Client::new(self.config(&Flags::default())?.socket()))
    }
}

/// The whole program.
pub fn main() -> ExitCode {
    if completions::answered() {
        return Code::Done.into();
    }
    let arguments = crate::config::joined(std::env::args_os().collect());
    let typed = match Typed::try_parse_from(&arguments) {
        Ok(typed) => typed,
        Err(error) => return usage(&error, arguments.get(1).and_then(|word| word.to_str())),
    };
    let plans = matches!(typed.command, Command::Plan(_) | Command::Diff(_));
    let context = Context { out: Out::new(typed.global.no_color), global: typed.global };
    let ended = match typed.command {
        Command::Run(command) => run::run(&context, &command),
        Command::Gate(command) => gate::run(&context, &command),
        command => in_runtime(&context, command),
    };
    let code = match ended {
        Ok(code) => code,
        Err(failure) => failure.tell(plans),
    };
    code.into()
}

/// Help and version are data; everything else is usage, exit code 2. For `plan` and `diff` 2
/// means changes, so there it is 1.
fn usage(error: &clap::Error, command: Option<&str>) -> ExitCode {
    let _nobody_reads = error.print();
    match (error.use_stderr(), command) {
        (false, _) => Code::Done.into(),
        (true, Some("plan" | "diff")) => Code::Failed.into(),
        (true, _) => Code::Input.into(),
    }
}

fn in_runtime(context: &Context, command: Command) -> Result<Code, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime cannot start: {error}")))?;
    let ended = runtime.block_on(dispatch(context, command));
    // A read of stdin that nobody waits for any more must not keep us.
    runtime.shutdown_background();
    ended
}

async fn dispatch(context: &Context, command: Command) -> Result<Code, Failure> {
    use crate::operator::handle::Verb;
    match command {
        Command::Run(command) => run::run(context, &command),
        Command::Validate(command) => validate::run(context, &command),
        Command::Schema(command) => schema::run(context, &command),
        Command::Plan(command) => plan::run(context, &command).await,
        Command::Diff(command) => plan::diff(context, &command).await,
        Command::Apply(command) => apply::run(context, &command).await,
        Command::Delete(command) => apply::delete(context, &command).await,
        Command::Get(command) => get::run(context, &command).await,
        Command::Describe(command) => describe::run(context, &command).await,
        Command::Explain(command) => explain::run(context, &command).await,
        Command::Events(command) => events::run(context, &command).await,
        Command::Wait(command) => wait::run(context, &command).await,
        Command::Logs(command) => logs::run(context, &command).await,
        Command::Top(command) => top::run(context, &command).await,
        Command::Files(command) => files::run(context, &command).await,
        Command::Hydrate(command) => files::hydrate(context, &command).await,
        Command::Sync(command) => files::sync(context, &command).await,
        Command::History(command) => history::run(context, &command).await,
        Command::Restore(command) => history::restore(context, &command).await,
        Command::Gc(command) => gc::run(context, &command).await,
        Command::Trash(command) => gc::trash(context, &command).await,
        Command::Stop(command) => verb::run(context, &command, Verb::Stop).await,
        Command::Start(command) => verb::run(context, &command, Verb::Start).await,
        Command::Restart(command) => verb::run(context, &command, Verb::Restart).await,
        Command::Suspend(command) => verb::run(context, &command, Verb::Suspend).await,
        Command::Resume(command) => verb::run(context, &command, Verb::Resume).await,
        Command::ConfirmPrune(command) => confirm::run(context, &command).await,
        Command::Doctor(command) => doctor::run(context, &command).await,
        Command::Token => token::run(context),
        Command::Completions(command) => completions::run(context, &command),
        Command::Man => completions::man(context),
        Command::Gate(command) => gate::run(context, &command),
    }
}

/// The command line as clap knows it, for completions and the manual.
fn command_line() -> clap::Command {
    Typed::command()
}

#[cfg(test)]
mod tests;
