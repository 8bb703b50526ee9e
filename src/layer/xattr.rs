//! Extended attributes: which of them belong to an image, which are the overlay's records, and reading both.
//!
//! Three kinds of attribute belong to an image: `user.*`, the file capability `security.capability`, and POSIX ACLs.
//! Others (`security.selinux`, `security.ima`, `trusted.*` …) are the policy of one host and never enter or leave a
//! layer. An overlay hides its own records from a container and, since Linux 6.7, stores a container's attribute of
//! such a name with `overlay.` put in front of the last part; this is undone on the way into an archive and done on
//! the way out, so the bytes of a layer do not depend on the kind of overlay it was made with.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use rustix::io::Errno;

use super::OverlayXattr;

/// The largest list of names and the largest value that Linux allows (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const LARGEST: usize = 1 << 16;

/// Large enough for nearly every list and value; the kernel allocates what it is offered.
const USUAL: usize = 512;

/// The attribute of an access ACL's kin that directories hand on to what is made in them.
pub(crate) const DEFAULT_ACL: &str = "system.posix_acl_default";

/// A name and its value.
pub(crate) type Attribute = (Vec<u8>, Vec<u8>);

/// Where an inode's attributes are reached.
#[derive(Debug, Clone, Copy)]
pub(crate) enum At<'a> {
    /// An open file or directory.
    Descriptor(BorrowedFd<'a>),
    /// A path whose last part is not followed.
    Path(&'a Path),
}

/// A path to a name in an open directory for the calls that know no `*at` form. The first part is a link of the
/// kernel's to the very directory, so nobody can swap it.
pub(crate) fn path_in(directory: BorrowedFd<'_>, name: &[u8]) -> PathBuf {
    let mut path = path_of(directory);
    path.push(OsStr::from_bytes(name));
    path
}

/// A path to what a descriptor is open on, also if it was opened with `O_PATH`.
pub(crate) fn path_of(descriptor: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", descriptor.as_raw_fd()))
}

impl At<'_> {
    fn list_into(self, buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Descriptor(fd) => rustix::fs::flistxattr(fd, buffer),
            Self::Path(path) => rustix::fs::llistxattr(path, buffer),
        }
    }

    fn get_into(self, name: &[u8], buffer: &mut [u8]) -> rustix::io::Result<usize> {
        match self {
            Self::Descriptor(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            Self::Path(path) => rustix::fs::lgetxattr(path, name, buffer),
        }
    }

    /// The names of all attributes, each closed by a zero byte; empty where the file system knows none.
    fn names(self) -> io::Result<Vec<u8>> {
        match fitting(|buffer| self.list_into(buffer)) {
            Err(Errno::OPNOTSUPP) => Ok(Vec::new()),
            result => Ok(result?),
        }
    }

    /// The value of an attribute; `None` where there is none of the name.
    pub(crate) fn get(self, name: &[u8]) -> io::Result<Option<Vec<u8>>> {
        match fitting(|buffer| self.get_into(name, buffer)) {
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            result => Ok(Some(result?)),
        }
    }

    /// Sets an attribute, whether there is one of the name or not.
    pub(crate) fn set(self, name: &[u8], value: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Descriptor(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            Self::Path(path) => rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()),
        }
    }

    /// Removes an attribute that is there.
    pub(crate) fn remove(self, name: &[u8]) -> rustix::io::Result<()> {
        match self {
            Self::Descriptor(fd) => rustix::fs::fremovexattr(fd, name),
            Self::Path(path) => rustix::fs::lremovexattr(path, name),
        }
    }

    /// Whether the overlay takes this directory as hiding everything below it.
    pub(crate) fn is_opaque(self, overlay: OverlayXattr) -> io::Result<bool> {
        Ok(self.get(&record_name(overlay, b"opaque"))?.as_deref() == Some(b"y"))
    }

    /// Makes this directory hide everything below it.
    pub(crate) fn make_opaque(self, overlay: OverlayXattr) -> rustix::io::Result<()> {
        self.set(&record_name(overlay, b"opaque"), b"y")
    }
}

/// Calls with a small buffer first and with the largest possible one only if the answer did not fit.
fn fitting(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut small = [0; USUAL];
    match call(&mut small) {
        Ok(length) => Ok(small[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut large = vec![0; LARGEST];
            let length = call(&mut large)?;
            large.truncate(length);
            Ok(large)
        }
        Err(error) => Err(error),
    }
}

/// The full name of one of the overlay's records.
pub(crate) fn record_name(overlay: OverlayXattr, record: &[u8]) -> Vec<u8> {
    [overlay.prefix().as_bytes(), record].concat()
}

/// What an attribute found on disk is.
#[derive(Debug, PartialEq, Eq)]
enum Meaning<'a> {
    /// Part of the image, under this name.
    Image(Cow<'a, [u8]>),
    /// A record of the overlay's own: the name after the prefix.
    Record(&'a [u8]),
    /// The host's own.
    Host,
}

fn meaning(name: &[u8], overlay: OverlayXattr) -> Meaning<'_> {
    let prefix = overlay.prefix().as_bytes();
    if let Some(rest) = name.strip_prefix(prefix) {
        return match rest.strip_prefix(b"overlay.") {
            Some(escaped) => Meaning::Image(Cow::Owned([prefix, escaped].concat())),
            None => Meaning::Record(rest),
        };
    }
    if belongs_to_image(name) { Meaning::Image(Cow::Borrowed(name)) } else { Meaning::Host }
}

pub(crate) fn belongs_to_image(name: &[u8]) -> bool {
    name.starts_with(b"user.")
        || name == b"security.capability"
        || name == b"system.posix_acl_access"
        || name == DEFAULT_ACL.as_bytes()
}

/// Where an attribute of an archive goes on disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place<'a> {
    /// Under this name.
    Name(Cow<'a, [u8]>),
    /// It belongs to the image, but this kind of overlay has no place for it.
    Nowhere,
    /// It is another host's own and stays out.
    Foreign,
}

/// Where an attribute named in an archive goes. An attribute that would be a record to the overlay is escaped: it
/// could otherwise redirect a directory to anywhere.
pub(crate) fn place(name: &[u8], overlay: OverlayXattr) -> Place<'_> {
    let prefix = overlay.prefix().as_bytes();
    if let Some(rest) = name.strip_prefix(prefix) {
        Place::Name(Cow::Owned([prefix, b"overlay.", rest].concat()))
    } else if belongs_to_image(name) {
        Place::Name(Cow::Borrowed(name))
    } else if name.starts_with(OverlayXattr::Trusted.prefix().as_bytes()) {
        Place::Nowhere
    } else {
        Place::Foreign
    }
}

/// All attributes of one inode, sorted out.
#[derive(Debug, Default)]
pub(crate) struct Attributes {
    /// Those of the image, sorted by name.
    pub(crate) image: Vec<Attribute>,
    /// Names of the overlay's records, without the prefix.
    pub(crate) records: Vec<Vec<u8>>,
}

impl Attributes {
    /// Reads the attributes of an inode. Values of records are not read.
    pub(crate) fn read(at: At<'_>, overlay: OverlayXattr) -> io::Result<Self> {
        let names = at.names()?;
        let mut found = Self::default();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            match meaning(name, overlay) {
                Meaning::Image(known_as) => {
                    // An attribute may vanish between the two calls; then it is not there.
                    if let Some(value) = at.get(name)? {
                        found.image.push((known_as.into_owned(), value));
                    }
                }
                Meaning::Record(record) => found.records.push(record.to_vec()),
                Meaning::Host => {}
            }
        }
        found.image.sort_unstable();
        Ok(found)
    }

    /// Whether there is a record of this name.
    pub(crate) fn has_record(&self, record: &[u8]) -> bool {
        self.records.iter().any(|name| name == record)
    }

    /// A record that makes the inode mean something other than what it looks like, if there is one: the overlay
    /// would find its content or its children elsewhere.
    pub(crate) fn misleading_record(&self) -> Option<&[u8]> {
        const HARMLESS: [&[u8]; 7] = [b"opaque", b"origin", b"impure", b"nlink", b"upper", b"uuid", b"protattr"];
        self.records.iter().map(Vec::as_slice).find(|record| !HARMLESS.contains(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use OverlayXattr::{Trusted, User};

    #[test]
    fn attributes_have_one_meaning_each() {
        let image = |name: &'static [u8]| Meaning::Image(Cow::Borrowed(name));
        for (name, overlay, expected) in [
            (&b"user.mime"[..], Trusted, image(b"user.mime")),
            (b"user.overlay.opaque", Trusted, image(b"user.overlay.opaque")),
            (b"user.overlay.opaque", User, Meaning::Record(b"opaque")),
            (b"user.overlay.overlay.opaque", User, image(b"user.overlay.opaque")),
            (b"trusted.overlay.origin", Trusted, Meaning::Record(b"origin")),
            (b"trusted.overlay.overlay.opaque", Trusted, image(b"trusted.overlay.opaque")),
            (b"trusted.overlay.opaque", User, Meaning::Host),
            (b"security.capability", User, image(b"security.capability")),
            (b"security.selinux", Trusted, Meaning::Host),
            (b"trusted.md5sum", Trusted, Meaning::Host),
            (b"system.posix_acl_default", User, image(b"system.posix_acl_default")),
        ] {
            assert_eq!(meaning(name, overlay), expected, "{}", name.escape_ascii());
        }
    }

    #[test]
    fn placing_is_the_inverse_of_reading() {
        for overlay in [Trusted, User] {
            for name in [&b"user.x"[..], b"user.overlay.opaque", b"user.overlay.overlay.x", b"security.capability"] {
                let Place::Name(on_disk) = place(name, overlay) else { panic!("{} has no place", name.escape_ascii()) };
                assert_eq!(meaning(&on_disk, overlay), Meaning::Image(Cow::Borrowed(name)));
            }
        }
        assert_eq!(place(b"trusted.overlay.redirect", User), Place::Nowhere);
        assert_eq!(
            place(b"trusted.overlay.redirect", Trusted),
            Place::Name(Cow::Borrowed(b"trusted.overlay.overlay.redirect"))
        );
        assert_eq!(place(b"security.selinux", Trusted), Place::Foreign);
    }
}
