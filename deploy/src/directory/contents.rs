//! What lies on the topic, and what it says below the declarations. Pure.

use std::collections::BTreeMap;

use footfall_schemas::directory::{Directory, InvalidEntry};

/// Records that could be read, and the directory that they make.
#[derive(Debug, Clone, Default)]
pub(super) struct Contents {
    records: BTreeMap<String, Vec<u8>>,
    directory: Directory,
}

impl Contents {
    /// With nothing on the topic.
    pub(super) fn declaring(declared: Directory) -> Self {
        Self { records: BTreeMap::new(), directory: declared }
    }

    /// Takes a record; `None` removes. An error: it cannot be read, and changes nothing.
    pub(super) fn take(&mut self, key: &str, value: Option<&[u8]>) -> Result<(), InvalidEntry> {
        self.directory.apply(key, value)?;
        match value {
            Some(value) => drop(self.records.insert(key.to_owned(), value.to_vec())),
            None => drop(self.records.remove(key)),
        }
        Ok(())
    }

    /// Other declarations: what they hid comes out, what they name now is hidden. What was hidden and cannot be read
    /// is returned.
    pub(super) fn declare(&mut self, declared: Directory) -> Vec<InvalidEntry> {
        self.directory = declared;
        let apply = |(key, value): (&String, &Vec<u8>)| self.directory.apply(key, Some(value)).err();
        self.records.iter().filter_map(apply).collect()
    }

    pub(super) fn directory(&self) -> &Directory {
        &self.directory
    }

    /// How many lie on the topic, hidden ones included.
    pub(super) fn records(&self) -> usize {
        self.records.len()
    }
}

#[cfg(test)]
mod tests {
    use footfall_schemas::site::Site;
    use serde_json::json;

    use super::*;

    fn declaring(name: &str) -> Directory {
        let written = json!({"key": "shop", "origins": ["*"], "name": name});
        let site: Site = serde_json::from_value(written.clone()).unwrap();
        Directory::declaring([(site, written)])
    }

    fn names(contents: &Contents) -> Vec<&str> {
        contents.directory().sites.values().map(|listed| listed.site.name.as_str()).collect()
    }

    #[test]
    fn a_declaration_hides_a_record_until_it_is_taken_back() {
        let mut contents = Contents::declaring(declaring("declared"));
        let record = |key: &str, name: &str| {
            json!({"key": key, "origins": ["*"], "name": name}).to_string().into_bytes()
        };
        contents.take("site/shop", Some(&record("shop", "written"))).unwrap();
        contents.take("site/blog", Some(&record("blog", "blog"))).unwrap();
        assert_eq!(names(&contents), ["blog", "declared"]);

        assert!(contents.declare(Directory::default()).is_empty());
        assert_eq!(names(&contents), ["blog", "written"]);
        assert!(contents.declare(declaring("declared anew")).is_empty());
        assert_eq!(names(&contents), ["blog", "declared anew"]);

        contents.take("site/shop", None).unwrap();
        assert!(contents.declare(Directory::default()).is_empty());
        assert_eq!(names(&contents), ["blog"]);
    }

    #[test]
    fn what_was_hidden_and_cannot_be_read_is_told_when_it_comes_out() {
        let mut contents = Contents::declaring(declaring("declared"));
        contents.take("site/shop", Some(b"garbage")).unwrap();
        assert_eq!(contents.declare(Directory::default()).len(), 1);
        assert!(names(&contents).is_empty());
    }
}
