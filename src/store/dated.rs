//! Reads a small file with the time it was last written or used, in as few calls as there are.
//!
//! Takes a path, gives bytes and a time. Never believes what a file says of its length.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::SystemTime;

/// A file is not believed to be larger before it is read.
const LARGEST_GUESS: usize = 1 << 20;

/// The bytes of a file, and its time.
pub(super) fn read(path: &Path) -> io::Result<(Vec<u8>, SystemTime)> {
    let mut file = File::open(path)?;
    let meta = file.metadata()?;
    let length = usize::try_from(meta.len()).unwrap_or(LARGEST_GUESS).min(LARGEST_GUESS);
    // One byte more than there should be: a short read then also says that the file ends there.
    let mut bytes = vec![0; length + 1];
    let mut filled = 0;
    loop {
        match file.read(&mut bytes[filled..]) {
            Ok(count) if filled + count < bytes.len() => {
                bytes.truncate(filled + count);
                return Ok((bytes, meta.modified()?));
            }
            Ok(count) => {
                filled += count;
                bytes.resize(2 * bytes.len(), 0);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_all_of_any_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        for length in [0, 1, 5000, LARGEST_GUESS, LARGEST_GUESS + 1, 3 * LARGEST_GUESS] {
            let content: Vec<u8> = (0..length).map(|n| u8::try_from(n % 251).unwrap()).collect();
            std::fs::write(&path, &content).unwrap();
            let (read, time) = read(&path).unwrap();
            assert!(read == content, "{length}");
            assert_eq!(time, path.metadata().unwrap().modified().unwrap());
        }
        // These say that they are empty.
        assert_eq!(read(Path::new("/proc/self/cmdline")).unwrap().0, std::fs::read("/proc/self/cmdline").unwrap());
    }
}
