//! Where specs are in git, as one line of configuration: `git+https://host/repo.git#branch:path`.
//! Pure.

/// What the line begins with.
const KINDS: &[(&str, Transport)] = &[
    ("git+https://", Transport::Https),
    ("git+ssh://", Transport::Ssh),
    ("git+file://", Transport::File),
];

/// How a repository is reached; nothing else is allowed to the git program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A web server.
    Https,
    /// A host by ssh.
    Ssh,
    /// A directory of this machine.
    File,
}

impl Transport {
    /// Git's word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Transport::Https => "https",
            Transport::Ssh => "ssh",
            Transport::File => "file",
        }
    }
}

/// A directory of a branch of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// What git is given: `https://host/repo.git`.
    pub url: String,
    /// How it is reached.
    pub transport: Transport,
    /// The branch; `None`: the repository's HEAD.
    pub branch: Option<String>,
    /// The directory in it, without slashes at its ends; empty: all of it.
    pub path: String,
}

impl std::fmt::Display for Remote {
    /// As it is configured, the defaults left out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "git+{}", self.url)?;
        match (&self.branch, self.path.as_str()) {
            (None, "") => Ok(()),
            (branch, path) => {
                write!(f, "#{}", branch.as_deref().unwrap_or_default())?;
                if path.is_empty() { Ok(()) } else { write!(f, ":{path}") }
            }
        }
    }
}

impl Remote {
    /// Whether a text is meant as a repository and not as a directory.
    pub fn is_meant(text: &str) -> bool {
        text.starts_with("git+")
    }

    /// Reads the line of configuration.
    ///
    /// # Errors
    /// What is wrong and what is expected, for people.
    pub fn parse(text: &str) -> Result<Remote, String> {
        let (address, place) = text.split_once('#').unwrap_or((text, ""));
        let kind = KINDS.iter().find(|(begin, _)| address.starts_with(begin));
        let Some((_, transport)) = kind else {
            return Err(format!(
                "`{}` is not git+https://, git+ssh:// or git+file:// and a repository",
                address.escape_debug()
            ));
        };
        let url = address.strip_prefix("git+").unwrap_or(address);
        checked_url(url, *transport)?;
        let (branch, path) = place.split_once(':').unwrap_or((place, ""));
        let branch = (!branch.is_empty()).then(|| branch.to_owned());
        if let Some(branch) = &branch {
            checked_branch(branch)?;
        }
        let path = path.strip_suffix('/').unwrap_or(path).to_owned();
        checked_path(&path)?;
        Ok(Remote { url: url.to_owned(), transport: *transport, branch, path })
    }

    /// The name under which the repository tells the branch.
    pub(super) fn reference(&self) -> String {
        self.branch.as_ref().map_or("HEAD".to_owned(), |branch| format!("refs/heads/{branch}"))
    }

    /// A file of the watched directory as people find it in the repository.
    pub(super) fn shown(&self, file: &str) -> String {
        if self.path.is_empty() { file.to_owned() } else { format!("{}/{file}", self.path) }
    }
}

fn checked_url(url: &str, transport: Transport) -> Result<(), String> {
    let odd = |c: char| c.is_whitespace() || c.is_control();
    let rest = url.split_once("://").map_or("", |(_, rest)| rest);
    let shown = url.escape_debug();
    if url.chars().any(odd) || rest.len() < 2 {
        return Err(format!("`{shown}` is not the address of a repository"));
    }
    if transport == Transport::File {
        let is_whole = rest.starts_with('/') && !rest.split('/').any(|part| part == "..");
        return if is_whole {
            Ok(())
        } else {
            Err(format!(
                "`{shown}`: after file:// comes a whole path, e.g. git+file:///srv/specs.git"
            ))
        };
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = host.rsplit_once('@').unwrap_or(("", host));
    if user.contains(':') {
        // Not shown: it would be in logs.
        return Err("a password in the address is shown to everybody: name a file with it, \
                    git.credentials"
            .to_owned());
    }
    let letters = |b: u8| b.is_ascii_alphanumeric() || b".-_:[]".contains(&b);
    let good = !host.is_empty() && !host.starts_with('-') && host.bytes().all(letters);
    if !good || path.is_empty() || user.starts_with('-') {
        return Err(format!("`{shown}` is not the address of a repository: a host and a path"));
    }
    Ok(())
}

/// What git itself lets be a branch (git-check-ref-format), and nothing it could take for a flag.
fn checked_branch(branch: &str) -> Result<(), String> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "~^:?*[\\".contains(c);
    let bad_part = |part: &str| {
        let lock = part.len() >= 5 && part.get(part.len() - 5..) == Some(".lock");
        part.is_empty() || part.starts_with('.') || lock
    };
    let bad = branch.starts_with('-')
        || branch == "@"
        || branch.ends_with('.')
        || branch.contains("..")
        || branch.contains("@{")
        || branch.chars().any(odd)
        || branch.split('/').any(bad_part);
    if bad {
        return Err(format!("`{}` is not the name of a branch", branch.escape_debug()));
    }
    Ok(())
}

fn checked_path(path: &str) -> Result<(), String> {
    let odd = |part: &str| matches!(part, "" | "." | "..") || part.chars().any(char::is_control);
    if !path.is_empty() && path.split('/').any(odd) {
        return Err(format!(
            "`{}` is not a directory inside the repository, e.g. deploy/specs",
            path.escape_debug()
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::Remote;

    #[expect(clippy::needless_pass_by_value, reason = "as expect_test is used")]
    fn check(lines: &str, expected: Expect) {
        let told = lines.lines().map(|line| match Remote::parse(line.trim()) {
            Ok(remote) => format!(
                "{} | {} | {} | {remote}\n",
                remote.url,
                remote.reference(),
                remote.shown("a.yaml")
            ),
            Err(why) => format!("{why}\n"),
        });
        expected.assert_eq(&told.collect::<String>());
    }

    #[test]
    fn branch_and_path_may_be_left_out() {
        check(
            "git+https://host/org/repo.git#main:deploy/specs
             git+https://host:8443/repo#release/1.2
             git+https://host/repo.git#:specs/
             git+https://host/repo.git
             git+ssh://git@host/srv/repo.git#main
             git+file:///srv/specs.git#main:a",
            expect![[r#"
                https://host/org/repo.git | refs/heads/main | deploy/specs/a.yaml | git+https://host/org/repo.git#main:deploy/specs
                https://host:8443/repo | refs/heads/release/1.2 | a.yaml | git+https://host:8443/repo#release/1.2
                https://host/repo.git | HEAD | specs/a.yaml | git+https://host/repo.git#:specs
                https://host/repo.git | HEAD | a.yaml | git+https://host/repo.git
                ssh://git@host/srv/repo.git | refs/heads/main | a.yaml | git+ssh://git@host/srv/repo.git#main
                file:///srv/specs.git | refs/heads/main | a/a.yaml | git+file:///srv/specs.git#main:a
            "#]],
        );
    }

    #[test]
    fn what_git_could_take_for_something_else_is_refused() {
        check(
            "git+http://host/repo.git
             git+ext::sh -c id
             git+https://-oProxyCommand=id/repo
             git+ssh://-oProxyCommand=id@host/repo
             git+https://me:secret@host/repo.git
             git+https://host
             git+file://repo
             git+file:///a/../b
             git+https://host/repo#--upload-pack=id
             git+https://host/repo#a..b
             git+https://host/repo#a.lock
             git+https://host/repo#main:../x
             git+https://host/repo#main:/x",
            expect![[r#"
                `git+http://host/repo.git` is not git+https://, git+ssh:// or git+file:// and a repository
                `git+ext::sh -c id` is not git+https://, git+ssh:// or git+file:// and a repository
                `https://-oProxyCommand=id/repo` is not the address of a repository: a host and a path
                `ssh://-oProxyCommand=id@host/repo` is not the address of a repository: a host and a path
                a password in the address is shown to everybody: name a file with it, git.credentials
                `https://host` is not the address of a repository: a host and a path
                `file://repo`: after file:// comes a whole path, e.g. git+file:///srv/specs.git
                `file:///a/../b`: after file:// comes a whole path, e.g. git+file:///srv/specs.git
                `--upload-pack=id` is not the name of a branch
                `a..b` is not the name of a branch
                `a.lock` is not the name of a branch
                `../x` is not a directory inside the repository, e.g. deploy/specs
                `/x` is not a directory inside the repository, e.g. deploy/specs
            "#]],
        );
    }
}
