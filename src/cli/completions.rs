//! `docket completions SHELL`, what those scripts ask, and `docket man`.
//!
//! A script calls docket itself for each completion, so that it knows the sessions there are.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap_complete::Shell;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};

use crate::api::SessionList;
use crate::config::{Config, Flags, Surroundings};

use super::client::Client;
use super::exit::{Code, Failure};
use super::{Context, command_line};

/// Set by a script that asks; its value is the shell.
const ASKED: &str = "DOCKET_COMPLETE";
/// Nobody waits longer for a key.
const PATIENCE: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(context: &Context, asked: &Completions) -> Result<Code, Failure> {
    let shells = Shells::builtins();
    let name = asked.shell.to_string();
    let Some(shell) = shells.completer(&name) else {
        return Err(Failure::input(format!("there are no completions for {name}")));
    };
    let mut script = Vec::new();
    shell.write_registration(ASKED, "docket", "docket", "docket", &mut script)?;
    if asked.shell == Shell::Zsh {
        script.extend_from_slice(ZSH_LOADED);
    }
    context.out.data(&String::from_utf8_lossy(&script))?;
    Ok(Code::Done)
}

/// A file `_docket` of zsh's is read at the first completion, and has to give that one too.
const ZSH_LOADED: &[u8] = b"if [[ $funcstack[1] = _docket ]]; then
    _clap_dynamic_completer_docket \"$@\"
fi
";

/// Answers a script; false: nobody asked for completions.
pub(super) fn answered() -> bool {
    if std::env::var_os(ASKED).is_none() {
        return false;
    }
    let here = std::env::current_dir().ok();
    let asked = CompleteEnv::with_factory(command_line).var(ASKED);
    // What cannot be completed is not completed: a complaint would stand in the line that is typed.
    asked.try_complete(std::env::args_os(), here.as_deref()).unwrap_or(true)
}

/// For an argument that is a session's name.
pub(super) fn names() -> ArgValueCandidates {
    ArgValueCandidates::new(sessions)
}

/// The same where `sources` may stand too.
pub(super) fn names_and_sources() -> ArgValueCandidates {
    ArgValueCandidates::new(|| {
        let sources =
            CompletionCandidate::new("sources").help(Some("where specs come from".into()));
        sessions().into_iter().chain([sources]).collect()
    })
}

/// The sessions that the operator has, each with its phase; none if it does not answer.
fn sessions() -> Vec<CompletionCandidate> {
    let words: Vec<String> = std::env::args().collect();
    let Some(config) = configuration(&words) else { return Vec::new() };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return Vec::new() };
    let client = Client::new(config.socket());
    let list = runtime.block_on(async {
        tokio::time::timeout(PATIENCE, client.get::<SessionList>("sessions")).await
    });
    let Ok(Ok(list)) = list else { return Vec::new() };
    let candidate = |view: &std::sync::Arc<crate::status::SessionView>| {
        let phase = view.status.phase.to_string();
        CompletionCandidate::new(view.metadata.name.clone()).help(Some(phase.into()))
    };
    list.items.iter().map(candidate).collect()
}

/// The configuration as the words that were typed so far name it.
fn configuration(words: &[String]) -> Option<Config> {
    let mut flags = Flags::default();
    if let Some(state) = said(words, "--state") {
        flags.0.insert("state", state);
    }
    let file = said(words, "--config").map(PathBuf::from);
    let around = Surroundings::of_process(file.as_deref().map(Path::new), &flags);
    Config::load(&around.or_installed()).ok()
}

/// The value of a flag, as `--flag VALUE` or `--flag=VALUE`.
fn said(words: &[String], flag: &str) -> Option<String> {
    let apart = words.iter().zip(words.iter().skip(1)).find(|(word, _)| *word == flag);
    let joined = || words.iter().find_map(|word| word.strip_prefix(flag)?.strip_prefix('='));
    apart.map(|(_, value)| value.as_str()).or_else(joined).map(str::to_owned)
}

/// The manual page of docket, then one of each command.
pub(super) fn man(context: &Context) -> Result<Code, Failure> {
    let mut page = Vec::new();
    let mut whole = command_line();
    whole.build();
    clap_mangen::Man::new(whole.clone()).render(&mut page)?;
    for command in whole.get_subcommands().filter(|c| !c.is_hide_set() && c.get_name() != "help") {
        let title = format!("docket-{}", command.get_name());
        let man = clap_mangen::Man::new(command.clone().display_name(title));
        man.render_synopsis_section(&mut page)?;
        man.render_description_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    context.out.data(&String::from_utf8_lossy(&page))?;
    Ok(Code::Done)
}
