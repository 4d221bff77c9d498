//! The object of a container whose own is lost with its record and its source: what its labels tell.

use serde_json::json;

use super::{Object, parse::Format, parse_as, resolve};
use crate::model::{Applied, Bounds, ClassObject, Container, ContainerDetail, SessionObject};

/// What a container of ours is taken in as when nothing but itself tells of it: its session, user and
/// case, suspended, with a class that asks for nothing. So it is seen and leased its port, is left as
/// it is, and its files are stored; what it was made from comes with its source.
///
/// `None`: its labels are none that docket writes.
pub fn found(container: &Container, detail: &ContainerDetail, bounds: &Bounds) -> Option<Applied> {
    let session = json!({
        "apiVersion": "docket.dev/v1",
        "kind": "Session",
        "metadata": {"name": container.session.as_str()},
        "spec": {"user": container.user, "case": container.case, "suspend": true},
    });
    let class = json!({
        "apiVersion": "docket.dev/v1",
        "kind": "SessionClass",
        "metadata": {"name": "default"},
        "spec": {
            "container": {
                "image": detail.image_id,
                "port": 0,
                "network": "none",
                "security": {"capAdd": []},
            },
            "workspace": {"folders": []},
            "update": {"strategy": "Never"},
        },
    });
    let (object, class): (SessionObject, ClassObject) = match (read(&session)?, read(&class)?) {
        (Object::Session(object), Object::Class(class)) => (object, class),
        _ => return None,
    };
    let resolved = resolve(&object, &class, bounds).ok()?;
    Some(Applied { generation: 1, object, class_hash: String::new(), resolved, image: None })
}

fn read(document: &serde_json::Value) -> Option<Object> {
    let parsed = parse_as("labels", document.to_string().as_bytes(), Format::Json);
    parsed.objects.into_iter().next().map(|located| located.object)
}
