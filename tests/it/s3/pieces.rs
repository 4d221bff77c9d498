//! Large files by pieces: what is sent are the bytes that were summed, or nothing is stored.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use docket::model::{Base, CaseName, LocalKind, RelPath, Uid, UserName};
use docket::workspace::Local;
use docket::world::{
    Body, Content, Objects as _, PIECE, PieceSums, Pieces, Place, ScanMode, StoreErrorKind,
    Workspaces as _,
};
use tokio::io::{AsyncRead, AsyncReadExt as _, ReadBuf};

use super::contract::{contents, no_upload_is_left};
use super::{noise, servers, soon, sum};

/// A content in memory by pieces, which may be others than were summed.
struct Summed {
    sums: PieceSums,
    bytes: Vec<u8>,
    ends_changed: bool,
}

impl Summed {
    fn of(bytes: &[u8]) -> Summed {
        let pieces = bytes.chunks(PIECE).map(sum).collect();
        let sums = PieceSums { whole: sum(bytes), size: bytes.len() as u64, pieces };
        Summed { sums, bytes: bytes.to_vec(), ends_changed: false }
    }
}

impl Pieces for Summed {
    fn sums(&self) -> &PieceSums {
        &self.sums
    }

    fn read(&self, at: u64, into: &mut [u8]) -> std::io::Result<()> {
        let cut = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
        let from = self.bytes.get(at as usize..at as usize + into.len()).ok_or(cut)?;
        into.copy_from_slice(from);
        Ok(())
    }

    fn unchanged(&self) -> std::io::Result<()> {
        if self.ends_changed { Err(std::io::Error::other("it changed")) } else { Ok(()) }
    }
}

/// Of no use but by its pieces.
struct ByPieces(Arc<Summed>);

impl AsyncRead for ByPieces {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        _: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Poll::Ready(Err(std::io::Error::other("it is to be read by pieces")))
    }
}

impl Content for ByPieces {
    fn pieces(&self) -> Option<Arc<dyn Pieces>> {
        Some(Arc::clone(&self.0) as Arc<dyn Pieces>)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_that_are_not_those_that_were_summed_are_never_stored() {
    let bytes = noise(2 * PIECE + 345, 11);
    let mut torn = [Summed::of(&bytes), Summed::of(&bytes), Summed::of(&bytes)];
    torn[0].bytes[PIECE + 7] ^= 1;
    torn[1].bytes.truncate(2 * PIECE);
    torn[2].ends_changed = true;
    let torn: Vec<_> = torn.into_iter().map(Arc::new).collect();
    for server in servers::all() {
        let (store, size) = (server.store(), bytes.len() as u64);
        for torn in &torn {
            let body: Body = Box::pin(ByPieces(Arc::clone(torn)));
            let put = soon(store.put_new("ann/one/torn", body, size, sum(&bytes))).await;
            assert_eq!(put.unwrap_err().kind, StoreErrorKind::SourceChanged, "{}", server.name);
            assert_eq!(soon(store.head("ann/one/torn")).await.unwrap(), None, "{}", server.name);
        }
        no_upload_is_left(server, &["ann/one/torn"]).await;
        let body: Body = Box::pin(ByPieces(Arc::new(Summed::of(&bytes))));
        soon(store.put_new("ann/one/whole", body, size, sum(&bytes))).await.unwrap();
        assert!(contents(&store, "ann/one/whole").await == bytes, "{}", server.name);
        // Sums of another content are not believed: then the bytes are read one after the other.
        let body: Body = Box::pin(ByPieces(Arc::new(Summed::of(&noise(2 * PIECE + 345, 12)))));
        let put = soon(store.put_new("ann/one/other", body, size, sum(&bytes))).await;
        assert_eq!(put.unwrap_err().kind, StoreErrorKind::SourceChanged, "{}", server.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_file_that_was_scanned_goes_by_its_pieces() {
    let dir = tempfile::tempdir().unwrap();
    let local = Local::open(dir.path().join("ws")).unwrap();
    let mut place = Place {
        user: UserName::parse("ann").unwrap(),
        case: CaseName::parse("one").unwrap(),
        uid: Uid::from_bytes([1; 16]),
        id: None,
    };
    place.id = Some(local.ensure(&place, (0, 0)).await.unwrap().id);
    let (at, bytes) = (RelPath::parse(b"large").unwrap(), noise(2 * PIECE + 345, 13));
    let file = local.host_path(&place, false).join("large");
    std::fs::write(&file, &bytes).unwrap();
    let spec = crate::hostile::spec();
    let scan = local.scan(&place, &spec, &Base::default(), ScanMode::Quick).await.unwrap();
    let LocalKind::File { sha256: Some(whole), stamp } = scan.entries[&at].kind else {
        panic!("{scan:?}")
    };
    for server in servers::all() {
        let store = server.store();
        let body = local.read(&place, &at, stamp).await.unwrap();
        assert_eq!(body.pieces().unwrap().sums().pieces.len(), 3);
        soon(store.put_new("ann/one/scanned", body, stamp.size, whole)).await.unwrap();
        assert!(contents(&store, "ann/one/scanned").await == bytes, "{}", server.name);
    }
    // Both ways of reading see that the file changed after it was opened.
    let mut body = local.read(&place, &at, stamp).await.unwrap();
    let pieces = body.pieces().unwrap();
    std::fs::OpenOptions::new().append(true).open(&file).unwrap().set_len(PIECE as u64).unwrap();
    assert!(pieces.unchanged().is_err());
    assert!(pieces.read(PIECE as u64, &mut [0; 1]).is_err());
    assert!(body.read_to_end(&mut Vec::new()).await.is_err());
    assert!(local.read(&place, &at, stamp).await.is_err());
}
