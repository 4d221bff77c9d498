//! stub
use crate::model::*;
use crate::world::*;
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilesErrorKind {
    StoreUnavailable,
    StoreDenied,
    ManifestUnavailable,
    ManifestInvalid,
    ObjectMissing,
    Corrupt,
    NoSpace,
    WorkspaceReplaced,
    Io,
}
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct FilesError {
    kind: FilesErrorKind,
    message: String,
}
impl FilesError {
    pub fn kind(&self) -> FilesErrorKind {
        self.kind
    }
}
#[derive(Debug)]
pub struct Found {
    pub base: Base,
    pub seen: FilesSeen,
    pub remarks: Vec<FileState>,
}
pub async fn sync<W: Workspaces, O: Objects, C: Clock>(
    _w: &W,
    _o: &O,
    _c: &C,
    _p: &Place,
    _s: &WorkspaceSpec,
    _owner: (u32, u32),
    _b: Option<&Base>,
    _m: ScanMode,
) -> Result<Found, FilesError> {
    unimplemented!()
}
pub async fn hydrate<W: Workspaces, O: Objects, C: Clock>(
    _w: &W,
    _o: &O,
    _c: &C,
    _p: &Place,
    _s: &WorkspaceSpec,
    _owner: (u32, u32),
    _b: Option<&Base>,
) -> Result<Found, FilesError> {
    unimplemented!()
}
