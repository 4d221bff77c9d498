//! Whether a live container is still the wanted one: a hash over what cannot be changed in it.
//!
//! Purpose-built and versioned. Every field is written by hand with a tag and its length, so a
//! new version of docket, a new field or a renamed type changes no fingerprint and recreates
//! nothing. Outside on purpose: resources (changed in place), health, restart, lifetime, update,
//! sync, files, the grace at the stop, pull policy (the image's id is what counts).
//!
//! A field that is added later is written only when it differs from what containers had before.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::parse::hex;
use crate::model::{Network, Resolved, Scope, Seccomp};

/// The fingerprint of the container that this spec, image and host port make.
pub fn fingerprint(resolved: &Resolved, image_id: &str, host_port: Option<u16>) -> String {
    let mut fields = Fields(Sha256::new());
    let container = &resolved.container;
    fields.text("user", resolved.user.as_str());
    fields.text("case", resolved.case.as_str());
    fields.text("image", image_id);
    fields.list("command", &container.command);
    fields.list("args", &container.args);
    fields.map("env", &container.env);
    for (name, file) in &container.secrets {
        fields.list("secret", &[name.clone(), file.to_string_lossy().into_owned()]);
    }
    fields.number("port", u64::from(container.port));
    fields.number("host-port", u64::from(host_port.unwrap_or(0)));
    security(&mut fields, resolved);
    fields.map("tmpfs", &container.tmpfs);
    for mount in &container.mounts {
        let (source, target) = (mount.source.to_string_lossy(), mount.target.to_string_lossy());
        let access = if mount.read_only { "ro" } else { "rw" };
        fields.list("mount", &[source.into_owned(), target.into_owned(), access.to_owned()]);
    }
    fields.text("network", &network(&container.network));
    fields.flag("init", container.init);
    fields.map("labels", &container.labels);
    fields.number("log-size", container.logs.max_size);
    fields.number("log-files", u64::from(container.logs.max_files));
    fields.text("workspace", &resolved.workspace.mount_path.to_string_lossy());
    let scope = match resolved.workspace.scope {
        Scope::Case => "case",
        Scope::User => "user",
    };
    fields.text("scope", scope);
    let digest = fields.0.finalize();
    format!("v1-{}", hex(digest.get(..8).unwrap_or_default()))
}

fn security(fields: &mut Fields, resolved: &Resolved) {
    let security = &resolved.container.security;
    fields.text("run-as", &security.run_as);
    fields.list("cap-drop", &security.cap_drop);
    fields.list("cap-add", &security.cap_add);
    fields.flag("no-new-privileges", security.no_new_privileges);
    let seccomp = match &security.seccomp {
        Seccomp::RuntimeDefault => "default".to_owned(),
        Seccomp::Unconfined => "unconfined".to_owned(),
        Seccomp::Profile(path) => path.to_string_lossy().into_owned(),
    };
    fields.text("seccomp", &seccomp);
    fields.flag("read-only", security.read_only_rootfs);
    fields.flag("docker-socket", security.docker_socket);
}

fn network(network: &Network) -> String {
    match network {
        Network::Docket => "docket".to_owned(),
        Network::Bridge => "bridge".to_owned(),
        Network::None => "none".to_owned(),
        Network::Named(name) => format!("named {name}"),
    }
}

/// Tag, count, then each text with its length: no two lists of fields give the same bytes.
struct Fields(Sha256);

impl Fields {
    fn list<T: AsRef<str>>(&mut self, tag: &str, texts: &[T]) {
        self.piece(tag);
        self.0.update((texts.len() as u64).to_le_bytes());
        for text in texts {
            self.piece(text.as_ref());
        }
    }

    fn piece(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn text(&mut self, tag: &str, text: &str) {
        self.list(tag, &[text]);
    }

    fn number(&mut self, tag: &str, number: u64) {
        self.text(tag, &number.to_string());
    }

    fn flag(&mut self, tag: &str, on: bool) {
        self.text(tag, if on { "yes" } else { "no" });
    }

    fn map(&mut self, tag: &str, map: &BTreeMap<String, String>) {
        let flat: Vec<&str> =
            map.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]).collect();
        self.list(tag, &flat);
    }
}
