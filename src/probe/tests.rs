//! Hostile and odd servers (T14, L2): each is told apart, and none costs more than the time-out.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;

const TIMEOUT: Duration = Duration::from_millis(300);

/// A server that does this with each connection, after the request was read.
async fn server<F, Fut>(answer: F) -> (SocketAddr, JoinHandle<()>)
where
    F: Fn(TcpStream) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1024];
            let length = stream.read(&mut request).await.unwrap();
            assert!(request[..length].ends_with(b"\r\n\r\n"));
            tokio::spawn(answer(stream));
        }
    });
    (address, task)
}

async fn says(text: &'static str) -> ProbeOutcome {
    let (address, _task) = server(move |mut stream| async move {
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    HttpProbe.probe(address, "/health", TIMEOUT).await
}

fn why(outcome: ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Healthy => "healthy".to_owned(),
        ProbeOutcome::Unhealthy(why) => why,
    }
}

#[tokio::test]
async fn a_200_is_healthy_and_nothing_else_is() {
    let ok = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK";
    assert_eq!(says(ok).await, ProbeOutcome::Healthy);
    assert_eq!(says("HTTP/1.0 200\r\n\r\n").await, ProbeOutcome::Healthy);
    let early = "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n";
    assert_eq!(says(early).await, ProbeOutcome::Healthy);
    assert_eq!(why(says("HTTP/1.1 204 No Content\r\n\r\n").await), "status 204");
    assert_eq!(why(says("HTTP/1.1 503 Later\r\n\r\n").await), "status 503");
}

#[tokio::test]
async fn t14_a_redirect_is_not_followed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let (target, _task) = server(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        async {}
    })
    .await;
    let (address, _task) = server(move |mut stream| async move {
        let text = format!("HTTP/1.1 302 Found\r\nLocation: http://{target}/\r\n\r\n");
        stream.write_all(text.as_bytes()).await.unwrap();
    })
    .await;
    let outcome = HttpProbe.probe(address, "/health", TIMEOUT).await;
    assert_eq!(why(outcome), "status 302: redirects are not followed");
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn t14_an_endless_body_is_not_read() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let (address, _task) = server(move |mut stream| {
        let count = Arc::clone(&count);
        async move {
            let mut next = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
            while stream.write_all(&next).await.is_ok() {
                count.fetch_add(next.len(), Ordering::SeqCst);
                next = vec![b'x'; 65536];
            }
        }
    })
    .await;
    assert_eq!(HttpProbe.probe(address, "/", TIMEOUT).await, ProbeOutcome::Healthy);
    // What the kernel buffers may have gone out; no more, since the connection is closed.
    assert!(sent.load(Ordering::SeqCst) < 64 << 20);
}

#[tokio::test]
async fn t14_giant_headers_are_heard_for_4_kib_only() {
    let (address, _task) = server(|mut stream| async move {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n").await;
        while stream.write_all(b"X-Filler: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n").await.is_ok() {}
    })
    .await;
    let outcome = HttpProbe.probe(address, "/", TIMEOUT).await;
    assert_eq!(why(outcome), "the answer's headers are longer than 4096 bytes");
}

#[tokio::test]
async fn t14_a_dripping_server_has_the_timeout_for_all_of_it() {
    let (address, _task) = server(|mut stream| async move {
        for byte in b"HTTP/1.1 200 OK\r\n\r\n".iter().cycle() {
            tokio::time::sleep(TIMEOUT / 10).await;
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
        }
    })
    .await;
    let begun = tokio::time::Instant::now();
    let outcome = HttpProbe.probe(address, "/", TIMEOUT).await;
    assert_eq!(why(outcome), "no answer within 300ms");
    assert!(begun.elapsed() < TIMEOUT * 5);
}

#[tokio::test]
async fn silence_refusal_hang_up_and_nonsense_are_told_apart() {
    let (silent, _task) = server(|stream| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    assert_eq!(why(HttpProbe.probe(silent, "/", TIMEOUT).await), "no answer within 300ms");
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let refused = why(HttpProbe.probe(nobody, "/", TIMEOUT).await);
    assert_eq!(refused, "cannot connect: connection refused");
    let short = "the connection ended before the answer's headers did";
    assert_eq!(why(says("").await), short);
    assert_eq!(why(says("HTTP/1.1 200 OK\r\n").await), short);
    for nonsense in [
        "SSH-2.0-OpenSSH_9.2\r\n",
        "HTTP/2 200\r\n\r\n",
        "HTTP/1.1 2xx OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "HTTP/1.1 +20 OK\r\n\r\n",
    ] {
        assert_eq!(why(says(nonsense).await), "the answer is not HTTP", "{nonsense}");
    }
}

#[tokio::test]
async fn a_path_cannot_smuggle_a_second_request() {
    let nobody = "127.0.0.1:9".parse().unwrap();
    for path in ["health", "", "/a b", "/a\r\nX: y", "/\u{e9}", "/\0"] {
        let outcome = HttpProbe.probe(nobody, path, TIMEOUT).await;
        assert!(why(outcome).starts_with("the path must begin"), "{path:?}");
    }
}
