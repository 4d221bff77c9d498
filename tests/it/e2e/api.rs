//! The API does as its own document says, whatever comes in: schemathesis makes up requests by it, against an operator
//! with a session that lives.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::Command;

use serde_json::{Value, json};

use super::rig::{Rig, run, session};

/// The document as it is served, but for what never ends by itself, and with names that there are.
fn document(address: &str, token: &str) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    let request = "GET /api/v1/openapi.json HTTP/1.1\r\nConnection: close\r\n";
    write!(stream, "{request}Host: {address}\r\nAuthorization: Bearer {token}\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let mut document: Value = serde_json::from_str(text.split_once("\r\n\r\n").unwrap().1).unwrap();
    for path in document["paths"].as_object_mut().unwrap().values_mut() {
        for operation in path.as_object_mut().unwrap().values_mut() {
            let parameters = if operation.is_array() {
                Some(operation)
            } else {
                operation.get_mut("parameters")
            };
            let Some(parameters) = parameters.and_then(Value::as_array_mut) else { continue };
            parameters.retain(|one| one["name"] != "watch" && one["name"] != "follow");
            for one in parameters.iter_mut().filter(|one| one["in"] == "path") {
                one["schema"] = json!({"enum": ["ann-one", "nobody"]});
            }
        }
    }
    // What is answered has no field that its type does not tell of.
    for schema in document["components"]["schemas"].as_object_mut().unwrap().values_mut() {
        let schema = schema.as_object_mut().unwrap();
        if schema.contains_key("properties") {
            schema.insert("additionalProperties".to_owned(), json!(false));
        }
    }
    document
}

#[test]
fn the_api_does_as_its_document_says_whatever_is_asked() {
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut rig = Rig::with("api", &format!("listen: \"{address}\""));
    rig.start();
    rig.write("a.yaml", &session("ann-one", "ann", "one", ""));
    rig.ready("ann-one");
    let token = rig.ok(&["token"]).trim().to_owned();
    let file = rig.path("openapi.json");
    std::fs::write(&file, document(&address, &token).to_string()).unwrap();
    let judge = run("scripts/linters", &["schemathesis"]);
    let checks = "not_a_server_error,status_code_conformance,response_schema_conformance,\
                  content_type_conformance,unsupported_method";
    let said = Command::new("timeout")
        .args(["60", judge.trim(), "run", file.to_str().unwrap()])
        .args(["--url", &format!("http://{address}")])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .args(["--checks", checks, "--phases", "examples,coverage,fuzzing", "-n", "8"])
        .args(["--generation-deterministic", "--no-color"])
        .args(["--request-timeout", "30", "--workers", "1"])
        .current_dir(rig.path(""))
        .output()
        .unwrap();
    let words =
        String::from_utf8_lossy(&said.stdout).into_owned() + &String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{words}\n{}", rig.tail());
    rig.ok(&["get"]);
}
