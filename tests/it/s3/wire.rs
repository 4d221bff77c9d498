//! A server at the level of bytes: answers what a test makes up, or passes on to a real server and
//! breaks what comes back.

use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Counted from 0 over all connections.
    pub number: usize,
    pub method: String,
    /// Path and query.
    pub target: String,
    pub head: String,
    pub body: Vec<u8>,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().skip(1).find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// Whether this only finds out what the store is and can do.
    pub fn is_trial(&self) -> bool {
        self.is_bucket() || self.target.contains(".docket/conditional-writes")
    }

    /// Whether the bucket is asked for.
    pub fn is_bucket(&self) -> bool {
        self.method == "HEAD" && !self.target[1..].contains('/')
    }
}

/// What happens next on the connection.
#[derive(Clone, Debug)]
pub enum Reply {
    /// These bytes, and the connection stays.
    Send(Vec<u8>),
    /// These bytes, and the connection ends.
    Cut(Vec<u8>),
    /// These bytes, and then nothing.
    Stall(Vec<u8>),
    /// These bytes, the last so many one by one at this distance.
    Slow(Vec<u8>, usize, Duration),
}

type Answered = Pin<Box<dyn Future<Output = Reply> + Send>>;

/// A listening server; ends when it is dropped.
pub struct Wire {
    pub endpoint: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// Answers by a function.
    pub async fn answering(answer: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Wire {
        Wire::serving(move |asked| {
            let reply = answer(&asked);
            Box::pin(async move { reply })
        })
        .await
    }

    /// Answers by a function that takes its time.
    pub async fn serving(answer: impl Fn(Asked) -> Answered + Send + Sync + 'static) -> Wire {
        Wire::listening(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn listening(
        listener: TcpListener,
        answer: impl Fn(Asked) -> Answered + Send + Sync + 'static,
    ) -> Wire {
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (Arc::clone(&asked), Arc::new(answer));
        let task = tokio::spawn(async move {
            // The connections end with this set, the set with this task.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                connections.spawn(async move {
                    let _ = serve(stream, &seen, &*answer).await;
                });
            }
        });
        Wire { endpoint, asked, task }
    }

    /// Before a real server: `fault` decides by the request what is done to the answer.
    pub async fn before(
        address: String,
        fault: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Wire {
        Wire::before_at("127.0.0.1:0", address, fault).await
    }

    /// The same at an address that was somebody's before.
    pub async fn before_at(
        at: &str,
        address: String,
        fault: impl Fn(&Asked) -> Fault + Send + Sync + 'static,
    ) -> Wire {
        let listener = TcpListener::bind(at).await.unwrap();
        Wire::listening(listener, move |asked| {
            let fault = fault(&asked);
            let address = address.clone();
            Box::pin(async move { fault.applied(&address, asked).await })
        })
    }

    /// Every request so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Requests so far that are no trials.
    pub fn count(&self) -> usize {
        self.asked().iter().filter(|asked| !asked.is_trial()).count()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What the proxy does.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// An answer of its own; the server is not asked.
    Instead(Vec<u8>),
    /// The server does it; its answer is lost.
    LoseAnswer,
    /// The answer ends so many bytes after its head.
    CutBody(usize),
    /// One bit of the answer's body is another.
    FlipAnswer,
    /// One bit of the request's body is another.
    FlipRequest,
    /// Its conditions do not arrive. A server that checks signatures refuses it.
    WithoutConditions,
    /// The body comes in single bytes at this distance.
    Trickle(Duration),
}

impl Fault {
    async fn applied(self, address: &str, mut asked: Asked) -> Reply {
        match self {
            Fault::Instead(bytes) => return Reply::Send(bytes),
            Fault::FlipRequest => flip(&mut asked.body),
            Fault::WithoutConditions => {
                let keeps = |line: &&str| {
                    let name = line.split(':').next().unwrap_or_default();
                    !["if-match", "if-none-match"].contains(&name.to_ascii_lowercase().as_str())
                };
                let lines: Vec<&str> = asked.head.split("\r\n").filter(keeps).collect();
                asked.head = lines.join("\r\n");
            }
            _ => {}
        }
        let answer = forward(address, &asked).await.unwrap_or_default();
        let head = head_length(&answer).unwrap_or(answer.len());
        match self {
            Fault::LoseAnswer => Reply::Cut(Vec::new()),
            Fault::CutBody(length) => {
                Reply::Cut(answer[..(head + length).min(answer.len())].to_vec())
            }
            Fault::FlipAnswer => {
                let mut answer = answer;
                flip(&mut answer[head..]);
                Reply::Cut(answer)
            }
            Fault::Trickle(distance) => {
                let length = answer.len() - head;
                Reply::Slow(answer, length, distance)
            }
            _ => Reply::Cut(answer),
        }
    }
}

fn flip(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 1;
    }
}

/// The whole answer of a real server.
async fn forward(address: &str, asked: &Asked) -> std::io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(address).await?;
    let lines = asked.head.trim_end();
    stream.write_all(format!("{lines}\r\nconnection: close\r\n\r\n").as_bytes()).await?;
    stream.write_all(&asked.body).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    Ok(answer)
}

fn head_length(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4)
}

async fn serve(
    mut stream: TcpStream,
    seen: &Mutex<Vec<Asked>>,
    answer: &(dyn Fn(Asked) -> Answered + Send + Sync),
) -> std::io::Result<()> {
    let mut buffer = Vec::new();
    while let Some(mut asked) = request(&mut stream, &mut buffer).await? {
        {
            let mut seen = seen.lock().unwrap();
            asked.number = seen.len();
            seen.push(asked.clone());
        }
        match answer(asked).await {
            Reply::Send(bytes) => stream.write_all(&bytes).await?,
            Reply::Cut(bytes) => {
                stream.write_all(&bytes).await?;
                return stream.shutdown().await;
            }
            Reply::Stall(bytes) => {
                stream.write_all(&bytes).await?;
                std::future::pending::<()>().await;
            }
            Reply::Slow(bytes, last, distance) => {
                stream.set_nodelay(true)?;
                let (fast, slow) = bytes.split_at(bytes.len() - last);
                stream.write_all(fast).await?;
                for byte in slow {
                    tokio::time::sleep(distance).await;
                    stream.write_all(&[*byte]).await?;
                }
            }
        }
    }
    Ok(())
}

async fn request(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> std::io::Result<Option<Asked>> {
    let head = loop {
        if let Some(length) = head_length(buffer) {
            break length;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    };
    let text = String::from_utf8_lossy(&buffer[..head]).into_owned();
    let mut words = text.split(' ');
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut asked = Asked {
        number: 0,
        method: method.to_owned(),
        target: target.to_owned(),
        head: text.clone(),
        body: Vec::new(),
    };
    let length = asked.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(0);
    while buffer.len() < head + length {
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
    asked.body = buffer[head..head + length].to_vec();
    buffer.drain(..head + length);
    Ok(Some(asked))
}

/// An HTTP answer with a body of the right length.
pub fn answer(status: u16, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let headers: String =
        headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n{headers}\r\n", body.len());
    [head.as_bytes(), body].concat()
}

/// An S3 error.
pub fn error(status: u16, code: &str) -> Vec<u8> {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>in a \
         test</Message></Error>"
    );
    answer(status, &[("content-type", "application/xml")], body)
}

/// An object's answer.
pub fn object(bytes: &[u8]) -> Vec<u8> {
    answer(200, &[("etag", "\"e1\"")], bytes)
}

/// A page of a listing; the rest of its elements as text.
pub fn page(inner: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult \
         xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Name>bucket</Name>{inner}\
         </ListBucketResult>"
    )
}

/// An entry of a listing.
pub fn entry(key: &str) -> String {
    format!(
        "<Contents><Key>{key}</Key><LastModified>2026-11-24T01:02:03.000Z</LastModified>\
         <ETag>&quot;e1&quot;</ETag><Size>3</Size></Contents>"
    )
}
