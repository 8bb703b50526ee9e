//! What has no digest: cache mounts and what is kept of builds. Their form is looked at, and never what is in them.

use super::finding::{Outcome, Subject};
use super::{Check, Error, Verified};
use crate::execute::cache_mount::stored;
use crate::journal;

impl Check<'_> {
    pub(super) fn cache_mounts(&self, verified: &mut Verified) -> Result<(), Error> {
        self.go_on()?;
        let stored::Forms { sound, wrong } = stored::forms(self.store)?;
        verified.cache_mounts = sound + wrong.len() as u64;
        for (path, detail) in wrong {
            self.found(Subject::CacheMount { path: path.clone() }, detail, || {
                let Some(alone) = self.alone()? else { return Ok(Outcome::InUse) };
                stored::remove(self.store, &path, &alone)?;
                Ok(Outcome::Repaired)
            })?;
        }
        Ok(())
    }

    pub(super) fn builds(&self, verified: &mut Verified) -> Result<(), Error> {
        for build in self.store.builds()? {
            self.go_on()?;
            verified.builds += 1;
            if journal::is_readable(&build) {
                continue;
            }
            let subject = Subject::Build { id: build.id.to_string() };
            self.found(subject, "what happened in it cannot be read", || {
                Ok(if self.store.remove_build(&build)? { Outcome::Repaired } else { Outcome::InUse })
            })?;
        }
        Ok(())
    }

    pub(super) fn leftovers(&self) {
        if self.store.has_leftovers() {
            self.findings.note("killed processes left files, which the next build removes".to_owned());
        }
    }
}
