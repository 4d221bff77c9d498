//! `docket completions SHELL` and `docket man`.

use clap_complete::Shell;

use super::exit::{Code, Failure};
use super::{Context, command_line};

#[derive(Debug, clap::Args)]
pub(super) struct Completions {
    /// For which shell
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(context: &Context, asked: &Completions) -> Result<Code, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(asked.shell, &mut command_line(), "docket", &mut script);
    context.out.data(&String::from_utf8_lossy(&script))?;
    Ok(Code::Done)
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
