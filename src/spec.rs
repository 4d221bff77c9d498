//! stub
use crate::model::*;
#[derive(Clone, Debug, PartialEq)]
pub enum Object {
    Session(SessionObject),
    Class(ClassObject),
}
#[derive(Clone, Debug)]
pub struct Refusal {
    pub reason: Reason,
    pub message: String,
}
#[derive(Clone, Debug)]
pub struct Located {
    pub object: Object,
}
#[derive(Clone, Debug)]
pub struct Parsed {
    pub objects: Vec<Located>,
    pub complaints: Vec<String>,
}
pub fn parse_file(_: &str, _: &[u8]) -> Parsed {
    unimplemented!()
}
pub fn resolve(_: &SessionObject, _: &ClassObject, _: &Bounds) -> Result<Resolved, Vec<Refusal>> {
    unimplemented!()
}
/// stub
pub fn fingerprint(_: &crate::model::Resolved, image: &str, port: Option<u16>) -> String {
    format!("{image}-{port:?}")
}
