//! Where a config was read from, so that it can be read again: whole, or with the text of before and the files of now.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use super::layers::Environment;
use lanekeeper_core::secret::Secret;

/// What a config was read from. Its `Debug` shows the path alone: text and variables may have secrets.
#[derive(Clone, Default)]
pub struct ConfigSource {
    /// The config file and its text; `None`: there is none.
    pub(super) file: Option<(PathBuf, String)>,
    pub(super) environment: Environment,
    /// The files that `file:` values name, as they were when they were read.
    pub(super) referenced: BTreeMap<PathBuf, FileStamp>,
}

impl ConfigSource {
    /// The config file.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(path, _)| path.as_path())
    }

    /// The files that `file:` values name, as they were when they were read.
    #[must_use]
    pub fn referenced(&self) -> &BTreeMap<PathBuf, FileStamp> {
        &self.referenced
    }
}

impl fmt::Debug for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConfigSource").field(&self.path()).finish()
    }
}

/// What tells one content of a file from another without reading it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FileStamp(Option<(u64, u64, u64, i64, i64)>);

impl FileStamp {
    /// Of the file that the path leads to now. A file that is not there has a stamp of its own.
    #[must_use]
    pub fn of(path: &Path) -> Self {
        std::fs::metadata(path).map_or(Self(None), |metadata| Self::from(&metadata))
    }
}

impl From<&Metadata> for FileStamp {
    fn from(metadata: &Metadata) -> Self {
        // The time of the last change of content or place: a file that is replaced by an older one has a new one.
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        Self(Some((metadata.dev(), metadata.ino(), metadata.size(), changed.0, changed.1)))
    }
}

/// The files that were read for one config: each is read once, so that all its values are of one moment.
#[derive(Debug, Default)]
pub(super) struct ReadFiles(RefCell<BTreeMap<PathBuf, (FileStamp, Secret)>>);

impl ReadFiles {
    /// The content of the file, by `read` if it is not known yet.
    pub(super) fn content<E>(
        &self,
        path: &Path,
        read: impl FnOnce(&Path) -> Result<String, E>,
    ) -> Result<Secret, E> {
        if let Some((_, content)) = self.0.borrow().get(path) {
            return Ok(content.clone());
        }
        // Before it is read: a change in between is noticed.
        let stamp = FileStamp::of(path);
        let content = Secret::new(read(path)?);
        self.0.borrow_mut().insert(path.to_owned(), (stamp, content.clone()));
        Ok(content)
    }

    pub(super) fn into_stamps(self) -> BTreeMap<PathBuf, FileStamp> {
        self.0.into_inner().into_iter().map(|(path, (stamp, _))| (path, stamp)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_written_replaced_or_removed_has_another_stamp() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        let mut seen = vec![FileStamp::of(&at("token"))];
        let mut changed = || {
            let stamp = FileStamp::of(&at("token"));
            assert!(!seen.contains(&stamp), "{stamp:?} of {seen:?}");
            seen.push(stamp);
        };
        std::fs::write(at("token"), "one").unwrap();
        changed();
        std::fs::write(at("token"), "longer").unwrap();
        changed();
        std::fs::write(at("other"), "second").unwrap();
        std::fs::rename(at("other"), at("token")).unwrap();
        changed();
        // As Kubernetes does: the name stays, and the directory that it leads to is another one.
        for version in ["one", "two"] {
            std::fs::create_dir(at(version)).unwrap();
            std::fs::write(at(version).join("token"), "second").unwrap();
        }
        std::fs::remove_file(at("token")).unwrap();
        std::os::unix::fs::symlink("one", at("current")).unwrap();
        std::os::unix::fs::symlink("current/token", at("token")).unwrap();
        changed();
        std::os::unix::fs::symlink("two", at("next")).unwrap();
        std::fs::rename(at("next"), at("current")).unwrap();
        changed();
    }

    #[test]
    fn a_file_is_read_once_for_a_config() {
        let files = ReadFiles::default();
        let read = |content: &'static str| move |_: &Path| Ok::<_, ()>(content.to_owned());
        let path = Path::new("/nowhere");
        assert_eq!(files.content(path, |_| Err::<String, _>(())), Err(()));
        assert_eq!(
            files.content(path, read("one")).map(|content| content.reveal().to_owned()),
            Ok("one".into())
        );
        assert_eq!(
            files.content(path, read("two")).map(|content| content.reveal().to_owned()),
            Ok("one".into())
        );
        assert_eq!(files.into_stamps().into_keys().collect::<Vec<_>>(), [path]);
    }
}
