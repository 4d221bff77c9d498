//! The page for people: the workspace's files, and one of them in a form to edit.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::files::{self, Root};
use crate::http::{Query, Request, Response, encode};

const HEAD: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width\"><title>Workspace</title><style>\
body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:2rem auto;padding:0 1rem}\
textarea{width:100%;height:20rem;font:14px/1.4 monospace}li{margin:.2rem 0}small{color:#666}\
</style>";

/// The list of files, with a form for a new one.
pub fn list(root: &Root) -> io::Result<Response> {
    let user = std::env::var("USER_ID").unwrap_or_else(|_| "nobody".to_owned());
    let case = std::env::var("CASE_ID").unwrap_or_else(|_| "no case".to_owned());
    let mut page = format!(
        "{HEAD}<h1>{}</h1><p>of {} <small>version {}</small></p><ul>",
        escape(&case),
        escape(&user),
        escape(&std::env::var("VERSION").unwrap_or_default())
    );
    for path in files::list(&root.base)? {
        let _ = write!(
            page,
            "<li><a href=\"/edit?path={}\">{}</a></li>",
            encode(path.as_bytes()),
            escape(&path)
        );
    }
    page += "</ul><form action=\"/edit\"><label>Another file: \
        <input name=\"path\" value=\"drafts/note.txt\"></label> <button>Open</button></form>";
    Ok(Response::html(page))
}

/// One file in a form; a file that is not there yet is empty.
pub fn form(root: &Root, query: &Query) -> io::Result<Response> {
    let name = query.text("path")?;
    let content = match fs::read(inside(root, Path::new(&name))?) {
        Ok(content) => String::from_utf8_lossy(&content).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    Ok(Response::html(format!(
        "{HEAD}<h1>{0}</h1><form method=\"post\" action=\"/edit\">\
         <input type=\"hidden\" name=\"path\" value=\"{0}\">\
         <textarea name=\"content\">\n{1}</textarea><p><button>Save</button> \
         <a href=\"/\">Back</a></p></form>",
        escape(&name),
        escape(&content)
    )))
}

/// Saves the form and goes back to the list.
pub fn save(root: &Root, request: &Request) -> io::Result<Response> {
    let form = Query::parse(&String::from_utf8_lossy(&request.body));
    let path = inside(root, &form.path("path")?)?;
    // Browsers send line ends as CR LF.
    let content = form.text("content")?.replace("\r\n", "\n");
    files::write(&path, content.as_bytes(), false)?;
    Ok(Response::see("/".to_owned()))
}

/// The page edits the workspace only; the test endpoints beside it are not so careful.
fn inside(root: &Root, path: &Path) -> io::Result<PathBuf> {
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        Ok(root.resolve(path))
    } else {
        Err(io::Error::other("a path inside the workspace, please"))
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_does_not_leave_the_workspace() {
        let root = Root { base: "/workspace".into() };
        assert!(inside(&root, Path::new("../etc/shadow")).is_err());
        assert!(inside(&root, Path::new("/etc/shadow")).is_err());
        assert_eq!(
            inside(&root, Path::new("drafts/a.txt")).unwrap(),
            Path::new("/workspace/drafts/a.txt")
        );
    }
}
