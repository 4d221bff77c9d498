//! The same repository over ssh, from a real sshd, and over HTTPS, from git's own server behind TLS: with keys and tokens,
//! and what is told when they are wrong.

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::super::rig::{Rig, run, session};
use super::{ONE, followed, origin, rig};

/// A server of this test alone; it ends with it.
struct Server {
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _it_may_have_ended = self.child.kill();
        let _it_is_reaped = self.child.wait();
    }
}

impl Server {
    fn start(rig: &mut Rig, command: impl FnOnce(u16) -> Command) -> Server {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let log = std::fs::File::create(rig.path("server.log")).unwrap();
        let child =
            command(port).stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let server = Server { child, port };
        rig.until("the server listens", |_| TcpStream::connect(("127.0.0.1", port)).is_ok());
        server
    }
}

/// Waits until the repository cannot be followed, and the table says why.
#[track_caller]
fn refused(rig: &mut Rig, part: &str) {
    rig.until(&format!("it is told: {part}"), |rig| {
        let origin = origin(rig);
        origin["state"] == "Unreachable" && origin["errors"].to_string().contains(part)
    });
    assert!(rig.ok(&["get", "sources"]).contains(part));
}

fn key(at: &Path) -> String {
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", at.to_str().unwrap()]);
    let public = std::fs::read_to_string(at.with_extension("pub")).unwrap();
    public.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

fn sshd(rig: &mut Rig) -> Server {
    let here = rig.path("").display().to_string();
    let config = format!(
        "HostKey {here}/host\nAuthorizedKeysFile {here}/authorized\nPidFile none\nStrictModes no\n\
         UsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n\
         PermitRootLogin prohibit-password\nListenAddress 127.0.0.1\n"
    );
    let file = rig.path("sshd_config");
    std::fs::write(&file, config).unwrap();
    std::fs::create_dir_all("/run/sshd").unwrap();
    Server::start(rig, |port| {
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-p", &port.to_string(), "-f"]).arg(&file);
        command
    })
}

#[test]
fn over_ssh_only_the_known_server_is_believed_and_only_the_named_key_is_shown() {
    let (mut rig, repo) = rig("gitssh", ", sshKey: key, knownHosts: hosts");
    let first = repo.commit(ONE, Some(&session("ann-one", "ann", "one", "")));
    let host = key(&rig.path("host"));
    let (stranger, mine) = (key(&rig.path("stranger")), key(&rig.path("key")));
    std::fs::write(rig.path("authorized"), format!("{stranger}\n")).unwrap();
    let server = sshd(&mut rig);
    let place = format!("[127.0.0.1]:{}", server.port);
    let user = run("id", &["-un"]);
    let at = repo.at.display();
    let specs =
        format!("git+ssh://{}@127.0.0.1:{}{at}#main:deploy/specs", user.trim(), server.port);
    rig.set("specs", &format!("\"{specs}\""));

    // Nobody said which key the server has.
    std::fs::write(rig.path("hosts"), "").unwrap();
    rig.start();
    refused(&mut rig, "the server's host key is not known");
    // It has another than the known one: somebody stands in between.
    std::fs::write(rig.path("hosts"), format!("{place} {stranger}\n")).unwrap();
    refused(&mut rig, "another host key than the known one");
    // The server does not know docket's key.
    std::fs::write(rig.path("hosts"), format!("{place} {host}\n")).unwrap();
    refused(&mut rig, "Permission denied (publickey)");
    assert_eq!(rig.containers(), []);

    std::fs::write(rig.path("authorized"), format!("{mine}\n")).unwrap();
    followed(&mut rig, "Current", &first);
    let view = rig.ready("ann-one");
    assert_eq!(view["status"]["sourceRevision"], *first);
    let second = repo.commit("README.md", Some("more\n"));
    followed(&mut rig, "Current", &second);
    // The server goes away: nothing ends.
    drop(server);
    refused(&mut rig, "onnection refused");
    assert_eq!(rig.containers().len(), 1);
}

/// An authority of this test alone and a certificate of it for 127.0.0.1.
fn certificates(rig: &Rig) {
    let openssl = |words: &str| {
        let made =
            Command::new("openssl").args(words.split(' ')).current_dir(rig.path("")).output();
        let made = made.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    };
    std::fs::write(rig.path("names"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let new = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(&format!("req -x509 {new} -keyout ca.key -out ca.pem -days 2 -subj /CN=ca"));
    openssl(&format!("req {new} -keyout key.pem -out request.pem -subj /CN=localhost"));
    openssl(
        "x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2 \
         -extfile names",
    );
}

#[test]
fn over_https_a_token_opens_and_a_wrong_one_and_an_unknown_authority_are_told() {
    let (mut rig, repo) = rig("githttps", ", credentials: token");
    let first = repo.commit(ONE, Some(&session("ann-one", "ann", "one", "")));
    certificates(&rig);
    let folder = rig.path("");
    let server = Server::start(&mut rig, |port| {
        let mut command = Command::new("python3");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/e2e/gitops/https.py");
        command.args([script, &port.to_string()]).arg(&folder).arg("right");
        command
    });
    let host = format!("127.0.0.1:{}", server.port);
    rig.set("specs", &format!("\"git+https://{host}/repo/.git#main:deploy/specs\""));
    let token = |rig: &Rig, token: &str| {
        std::fs::write(rig.path("token"), format!("https://docket:{token}@{host}\n")).unwrap();
    };
    let ca = rig.path("ca.pem").display().to_string();

    // This machine does not know the authority.
    token(&rig, "right");
    rig.start();
    refused(&mut rig, "certificate");
    rig.kill();

    rig.env = vec![("GIT_SSL_CAINFO".to_owned(), ca)];
    token(&rig, "wrong");
    rig.start();
    refused(&mut rig, "Authentication failed");
    let kept = std::fs::read_to_string(rig.path("token")).unwrap();
    assert!(kept.contains(":wrong@"), "what a server once refused stays in the file: {kept}");
    let log = std::fs::read_to_string(rig.path("operator.log")).unwrap();
    assert!(!log.contains("docket:wrong"), "no token is in the log");
    assert_eq!(rig.containers(), []);

    token(&rig, "right");
    followed(&mut rig, "Current", &first);
    rig.ready("ann-one");
    let second = repo.commit("README.md", Some("more\n"));
    followed(&mut rig, "Current", &second);
    drop(server);
    refused(&mut rig, "onnect");
    assert_eq!(rig.containers().len(), 1);
}
