//! Codecs of paths and other texts of the operating system: any bytes, as on Unix they may be.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use crate::wire::codec::{Decode, Encode, Malformed, Reader, Shape, Writer};

impl Encode for OsStr {
    fn encode(&self, w: &mut Writer<'_>) {
        w.put_bytes(self.as_bytes());
    }
}

impl Encode for OsString {
    fn encode(&self, w: &mut Writer<'_>) {
        self.as_os_str().encode(w);
    }
}

impl Decode for OsString {
    fn decode(r: &mut Reader<'_>) -> Result<OsString, Malformed> {
        Ok(OsString::from_vec(r.take_bytes()?.to_vec()))
    }

    fn shape(s: &mut Shape) {
        s.word("os-str");
    }
}

impl Encode for Path {
    fn encode(&self, w: &mut Writer<'_>) {
        self.as_os_str().encode(w);
    }
}

impl Encode for PathBuf {
    fn encode(&self, w: &mut Writer<'_>) {
        self.as_path().encode(w);
    }
}

impl Decode for PathBuf {
    fn decode(r: &mut Reader<'_>) -> Result<PathBuf, Malformed> {
        OsString::decode(r).map(PathBuf::from)
    }

    fn shape(s: &mut Shape) {
        s.word("path");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_of_any_bytes_arrives_as_it_was() {
        let path = Path::new(OsStr::from_bytes(b"/a/\xff"));
        let mut w = Writer::new(Vec::new(), None);
        path.encode(&mut w);
        let bytes = w.finish().unwrap();
        assert_eq!(bytes, b"\x04/a/\xff");
        assert_eq!(PathBuf::decode(&mut Reader::new(&bytes, None)).unwrap(), path);
        assert_eq!(OsString::decode(&mut Reader::new(&bytes, None)).unwrap(), path.as_os_str());
        assert_eq!(Shape::text(PathBuf::shape), "path");
    }
}
