//! The keys as flags: `--tick 5s`, `--allow.dockerSocket`.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::keys::{KEYS, Kind};

/// What was said on the command line, key to text. `state` is left to the command line's own
/// flag of that name, which every command has.
#[derive(Clone, Debug, Default)]
pub struct Flags(pub BTreeMap<&'static str, String>);

fn all() -> impl Iterator<Item = Arg> {
    KEYS.iter().filter(|key| key.path != "state").map(|key| {
        let arg = Arg::new(key.path)
            .long(key.path)
            .help(key.help)
            .help_heading("Configuration (each also a line of docket.yaml and a variable)")
            .action(ArgAction::Append);
        match key.kind {
            Kind::One(word) | Kind::Many(word) => arg.value_name(word),
            Kind::Switch => arg
                .value_name("true|false")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value("true"),
        }
    })
}

/// `--allow.dockerSocket false` as `--allow.dockerSocket=false`: a switch may stand alone, so clap
/// takes a word behind it for something else.
pub fn joined(arguments: Vec<OsString>) -> Vec<OsString> {
    let is_switch = |word: &OsString| {
        let name = word.to_str().and_then(|word| word.strip_prefix("--"));
        let key = name.and_then(super::keys::find);
        key.is_some_and(|key| matches!(key.kind, Kind::Switch))
    };
    let mut joined: Vec<OsString> = Vec::with_capacity(arguments.len());
    for word in arguments {
        match joined.last_mut() {
            Some(before) if (word == "true" || word == "false") && is_switch(before) => {
                before.push("=");
                before.push(word);
            }
            _ => joined.push(word),
        }
    }
    joined
}

impl Args for Flags {
    fn augment_args(command: Command) -> Command {
        command.args(all())
    }

    fn augment_args_for_update(command: Command) -> Command {
        command.args(all())
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Flags, clap::Error> {
        let mut flags = Flags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        for key in KEYS.iter().filter(|key| key.path != "state") {
            let Some(values) = matches.get_many::<String>(key.path) else { continue };
            let values: Vec<&str> = values.map(String::as_str).collect();
            let text = match key.kind {
                Kind::Many(_) => values.join(","),
                // Said twice: the last one counts, as everywhere.
                Kind::One(_) | Kind::Switch => values.last().copied().unwrap_or("").to_owned(),
            };
            self.0.insert(key.path, text);
        }
        Ok(())
    }
}
