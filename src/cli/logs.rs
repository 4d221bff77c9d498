//! `docket logs NAME [-f] [--tail N]`: the container's output, byte for byte; on a terminal
//! without what could do harm there.

use std::io::{IsTerminal as _, Write as _};

use super::Context;
use super::client::session;
use super::exit::{Code, Failure};

#[derive(Debug, clap::Args)]
pub(super) struct Logs {
    /// The session
    #[arg(value_parser = super::client::bare, add = super::completions::names())]
    name: String,
    /// Go on as it comes
    #[arg(short, long)]
    follow: bool,
    /// Lines from the end [default: all]
    #[arg(long, value_name = "N")]
    tail: Option<u64>,
}

pub(super) async fn run(context: &Context, asked: &Logs) -> Result<Code, Failure> {
    let tail = asked.tail.map_or(String::new(), |lines| format!("&tail={lines}"));
    let path = format!("sessions/{}/logs?follow={}{tail}", session(&asked.name)?, asked.follow);
    let mut log = context.client()?.stream(&path).await?;
    let mut out = std::io::stdout().lock();
    let mut tame = out.is_terminal().then(Tame::default);
    while let Some(piece) = log.piece().await? {
        match &mut tame {
            Some(tame) => out.write_all(&tame.piece(&piece))?,
            None => out.write_all(&piece)?,
        }
        out.flush()?;
    }
    Ok(Code::Done)
}

/// Lets text and colours through to a terminal and shows all other control bytes: a tenant's
/// program must not be able to rewrite what an administrator sees or types.
#[derive(Debug, Default)]
struct Tame {
    /// A sequence or character that is not complete.
    held: Vec<u8>,
}

/// A colour's sequence is not longer.
const LONGEST: usize = 32;

impl Tame {
    fn piece(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for byte in bytes {
            self.byte(*byte, &mut out);
        }
        out
    }

    fn byte(&mut self, byte: u8, out: &mut Vec<u8>) {
        let continues = match self.held.as_slice() {
            [] => {
                return match byte {
                    0x1b | 0xc2 => self.held.push(byte),
                    byte => plain(byte, out),
                };
            }
            [0xc2] => {
                self.held.clear();
                return match byte {
                    // U+0080 to U+009F, which terminals obey too.
                    0x80..=0x9f => out.extend("\u{fffd}".as_bytes()),
                    byte => {
                        out.push(0xc2);
                        self.byte(byte, out);
                    }
                };
            }
            [0x1b] => byte == b'[',
            held => held.len() < LONGEST && (byte.is_ascii_digit() || b";m".contains(&byte)),
        };
        if !continues {
            for held in std::mem::take(&mut self.held) {
                plain(held, out);
            }
            return self.byte(byte, out);
        }
        self.held.push(byte);
        if byte == b'm' {
            out.append(&mut self.held);
        }
    }
}

/// A byte that begins no sequence. `\r` would let a line be written over: it is left out.
fn plain(byte: u8, out: &mut Vec<u8>) {
    match byte {
        b'\r' => (),
        b'\n' | b'\t' | 0x20..=0x7e | 0x80.. => out.push(byte),
        control => out.extend([b'^', control ^ 0x40]),
    }
}

#[cfg(test)]
mod tests {
    use super::Tame;

    #[test]
    fn only_text_and_colours_reach_a_terminal() {
        let shown = |pieces: &[&str]| {
            let mut tame = Tame::default();
            let bytes: Vec<u8> = pieces.iter().flat_map(|p| tame.piece(p.as_bytes())).collect();
            String::from_utf8(bytes).unwrap()
        };
        assert_eq!(shown(&["a\tb\né"]), "a\tb\né");
        assert_eq!(shown(&["\u{1b}[1;31mred\u{1b}[0m"]), "\u{1b}[1;31mred\u{1b}[0m");
        assert_eq!(shown(&["\u{1b}", "[3", "1mred"]), "\u{1b}[31mred");
        assert_eq!(shown(&["\u{1b}[2J\r\u{7}\u{7f}"]), "^[[2J^G^?");
        assert_eq!(shown(&["\u{1b}]0;title\u{7}"]), "^[]0;title^G");
        assert_eq!(shown(&["\u{9b}2J\u{a7}"]), "\u{fffd}2J\u{a7}");
        assert_eq!(shown(&["\u{1b}\u{1b}[31m"]), "^[\u{1b}[31m");
    }
}
