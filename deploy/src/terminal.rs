//! Asks for a password where nobody looks over the shoulder: at the terminal without an echo, or from a pipe.

use std::io::{self, BufRead, IsTerminal as _, Write as _};

use anyhow::{Context, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

/// A new password: typed twice at the terminal, or the one line of standard input.
pub fn new_password() -> anyhow::Result<String> {
    let stdin = io::stdin();
    if !stdin.is_terminal() {
        return one_line(&mut stdin.lock());
    }
    let quiet = Quiet::begin().context("the terminal cannot be made quiet; pipe the password in")?;
    let ask = |what: &str| {
        eprint!("{what}: ");
        io::stderr().flush()?;
        let password = one_line(&mut stdin.lock());
        eprintln!();
        password
    };
    let password = ask("Password")?;
    let again = ask("Once more")?;
    drop(quiet);
    if password != again {
        bail!("the two passwords differ; nothing is changed");
    }
    Ok(password)
}

fn one_line(input: &mut impl BufRead) -> anyhow::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line).context("no password can be read")?;
    if line.is_empty() {
        bail!("no password: type one, or pipe one line in");
    }
    Ok(line.trim_end_matches(['\n', '\r']).to_owned())
}

/// The terminal shows nothing of what is typed until this is dropped.
struct Quiet(Termios);

impl Quiet {
    fn begin() -> io::Result<Self> {
        let before = tcgetattr(io::stdin())?;
        let mut quiet = before.clone();
        quiet.local_modes.remove(LocalModes::ECHO);
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet)?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::a_line("correct horse\n", Some("correct horse"))]
    #[case::of_another_system("correct horse\r\n", Some("correct horse"))]
    #[case::without_an_end("correct horse", Some("correct horse"))]
    #[case::with_blanks_of_its_own(" a b \nnext", Some(" a b "))]
    #[case::nothing("", None)]
    fn a_password_is_one_line(#[case] input: &str, #[case] expected: Option<&str>) {
        assert_eq!(one_line(&mut input.as_bytes()).ok().as_deref(), expected);
    }
}
