//! `docket token`: the bearer token for HTTP, from the state directory.

use crate::api::{Token, TokenError};
use crate::config::Flags;

use super::Context;
use super::exit::{Code, Failure, chain};

pub(super) fn run(context: &Context) -> Result<Code, Failure> {
    let config = context.config(&Flags::default())?;
    let token = Token::read(&config.state).map_err(|error| {
        let missing = matches!(&error, TokenError::File { source, .. }
            if source.kind() == std::io::ErrorKind::NotFound);
        let failure = Failure::failed(chain(&error));
        if missing { failure.hint("`docket run` makes it at its first start") } else { failure }
    })?;
    context.out.data(&format!("{}\n", token.reveal()))?;
    Ok(Code::Done)
}
