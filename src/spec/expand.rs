//! `$(NAME)` as Kubernetes expands it: `$$` is one `$` and escapes, what is not known stays as
//! it is written.
//! Source: <https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/>

use std::collections::BTreeMap;

/// Longest text an expansion may give: what the kernel takes as one argument (MAX_ARG_STRLEN).
const LONGEST: usize = 128 * 1024;

/// An expansion came out longer than anything can be started with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// Expands one text by what `lookup` knows.
pub(super) fn expand(
    text: &str,
    lookup: &mut dyn FnMut(&str) -> Result<Option<String>, TooLong>,
) -> Result<String, TooLong> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        let (before, dollar) = rest.split_at(at);
        out.push_str(before);
        let after = dollar.strip_prefix('$').unwrap_or_default();
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
        } else if let Some((name, tail)) = after.strip_prefix('(').and_then(|t| t.split_once(')')) {
            match lookup(name)? {
                Some(value) => out.push_str(&value),
                None => out.extend(["$(", name, ")"]),
            }
            rest = tail;
        } else {
            out.push('$');
            rest = after;
        }
        if out.len() > LONGEST {
            return Err(TooLong);
        }
    }
    out.push_str(rest);
    if out.len() > LONGEST { Err(TooLong) } else { Ok(out) }
}

/// Expands an environment in itself. A map has no order, so a reference reaches every other
/// variable; one that leads back to itself stays as it is written. The error names the variable.
pub(super) fn environment(
    given: &BTreeMap<String, String>,
    fixed: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let mut all = fixed.clone();
    for name in given.keys() {
        let mut walk = Walk { given, fixed, open: Vec::new(), left: LOOKUPS };
        if let Some(value) = walk.variable(name).map_err(|TooLong| name.clone())? {
            all.insert(name.clone(), value);
        }
    }
    Ok(all)
}

/// Most references followed for one variable: a bomb of them may also be empty.
const LOOKUPS: usize = 2_000;

struct Walk<'a> {
    given: &'a BTreeMap<String, String>,
    fixed: &'a BTreeMap<String, String>,
    open: Vec<String>,
    left: usize,
}

impl Walk<'_> {
    fn variable(&mut self, name: &str) -> Result<Option<String>, TooLong> {
        self.left = self.left.checked_sub(1).ok_or(TooLong)?;
        if let Some(value) = self.fixed.get(name) {
            return Ok(Some(value.clone()));
        }
        let Some(text) = self.given.get(name) else { return Ok(None) };
        if self.open.iter().any(|one| one == name) {
            return Ok(None);
        }
        if self.open.len() >= DEEPEST {
            return Err(TooLong);
        }
        self.open.push(name.to_owned());
        let value = expand(text, &mut |other| self.variable(other));
        self.open.pop();
        value.map(Some)
    }
}

/// Longest chain of references: none that is meant is this long.
const DEEPEST: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn one(text: &str) -> String {
        let known = map(&[("A", "1"), ("USER_ID", "alice")]);
        expand(text, &mut |name| Ok(known.get(name).cloned())).unwrap()
    }

    #[test]
    fn references_are_expanded_as_kubernetes_does() {
        assert_eq!(one("x $(A) $(USER_ID)/"), "x 1 alice/");
        assert_eq!(one("$$(A)"), "$(A)");
        assert_eq!(one("$$$(A)"), "$1");
        assert_eq!(one("$(NOPE)"), "$(NOPE)");
        assert_eq!(one("$A $ $"), "$A $ $");
        assert_eq!(one("$(A"), "$(A");
        assert_eq!(one("100$"), "100$");
        assert_eq!(one("$()"), "$()");
    }

    #[test]
    fn variables_reach_each_other_and_a_circle_stays_as_it_is() {
        let fixed = map(&[("USER_ID", "alice")]);
        let given = map(&[
            ("A", "$(B)!"),
            ("B", "$(USER_ID)"),
            ("X", "$(Y)"),
            ("Y", "$(X)"),
            ("Z", "$(Z)"),
        ]);
        let all = environment(&given, &fixed).unwrap();
        assert_eq!(all.get("A").unwrap(), "alice!");
        assert_eq!(all.get("X").unwrap(), "$(X)");
        assert_eq!(all.get("Z").unwrap(), "$(Z)");
    }

    #[test]
    fn a_bomb_of_references_is_refused_and_quickly() {
        let names: Vec<String> = (0..40).map(|n| format!("V{n}")).collect();
        let given: BTreeMap<String, String> = (0..40)
            .map(|n| {
                (
                    names[n].clone(),
                    names.get(n + 1).map_or("x".repeat(10), |next| format!("$({next})$({next})")),
                )
            })
            .collect();
        assert_eq!(environment(&given, &BTreeMap::new()), Err("V0".to_owned()));
        let mut empty = given;
        empty.insert("V39".to_owned(), String::new());
        assert_eq!(environment(&empty, &BTreeMap::new()), Err("V0".to_owned()));
    }
}
