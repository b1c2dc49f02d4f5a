//! Where a visitor is: by address from a MaxMind database when one is configured, else the country of the browser's
//! time zone. The address goes no further than this lookup.

use std::{
    collections::HashMap,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use arc_swap::ArcSwapOption;
use maxminddb::{MaxMindDbError, Reader};
use serde::Deserialize;

use super::{steps::Did, zones::country_of};

/// Most places remembered, so that connections from one place share it. Full: they are forgotten, and shared anew.
const MAX_KNOWN: usize = 65_536;

/// A place of the database. Empty where it does not tell.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Location {
    /// ISO 3166-1 alpha-2.
    pub(crate) country: Box<str>,
    /// The largest subdivision's name in English.
    pub(crate) region: Box<str>,
    /// In English.
    pub(crate) city: Box<str>,
}

/// What is written of a batch's place.
#[derive(Debug, PartialEq)]
pub(crate) struct Place<'a> {
    pub(crate) country: &'a str,
    pub(crate) region: &'a str,
    pub(crate) city: &'a str,
    pub(crate) did: Did,
}

/// The configured database, if any, as it was last read.
#[derive(Debug, Default)]
pub(crate) struct Geography {
    path: Option<PathBuf>,
    database: ArcSwapOption<Database>,
}

struct Database {
    reader: Reader<Vec<u8>>,
    stamp: Stamp,
    /// By the record's place in the file.
    known: Mutex<HashMap<usize, Arc<Location>>>,
}

/// Tells one state of the file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: SystemTime,
    bytes: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum BadDatabase {
    #[error("{}: {error}", path.display())]
    Unreadable { path: PathBuf, error: io::Error },
    #[error("{}: no MaxMind database: {error}", path.display())]
    Invalid { path: PathBuf, error: MaxMindDbError },
    #[error("{}: a database of type {kind:?}; give one of countries or cities", path.display())]
    Kind { path: PathBuf, kind: String },
}

/// What is read of a record.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Record<'a> {
    #[serde(borrow)]
    country: CountryRecord<'a>,
    #[serde(borrow)]
    subdivisions: Vec<Named<'a>>,
    #[serde(borrow)]
    city: Named<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct CountryRecord<'a> {
    iso_code: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named<'a> {
    #[serde(borrow)]
    names: Names<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Names<'a> {
    en: Option<&'a str>,
}

impl<'a> Place<'a> {
    /// The country of a time zone is a guess: it is not mixed with what the database tells.
    pub(crate) fn of(location: Option<&'a Location>, time_zone: &str) -> Self {
        match location {
            Some(Location { country, region, city }) if !country.is_empty() => {
                Self { country, region, city, did: Did::GeographyDatabase }
            }
            _ => {
                let country = country_of(time_zone);
                let did = if country.is_empty() { Did::GeographyUnknown } else { Did::GeographyTimeZone };
                Self { country, region: "", city: "", did }
            }
        }
    }
}

impl Geography {
    /// Reads the file; a bad one is an error. Without a path there is no database. Blocks.
    pub(crate) fn open(path: Option<PathBuf>) -> Result<Self, BadDatabase> {
        let database = path.as_deref().map(Database::read).transpose()?.map(Arc::new);
        Ok(Self { path, database: ArcSwapOption::new(database) })
    }

    pub(crate) fn is_configured(&self) -> bool {
        self.path.is_some()
    }

    /// Reads the file again when it has changed, and says whether it did. With a bad one the old database stays. Blocks.
    pub(crate) fn refresh(&self) -> Result<bool, BadDatabase> {
        let Some(path) = &self.path else { return Ok(false) };
        let stamp = Stamp::of(path)?;
        if self.database.load().as_ref().is_some_and(|database| database.stamp == stamp) {
            return Ok(false);
        }
        self.database.store(Some(Arc::new(Database::read(path)?)));
        Ok(true)
    }

    pub(crate) fn locate(&self, address: IpAddr) -> Option<Arc<Location>> {
        self.database.load().as_ref()?.locate(address)
    }
}

impl Database {
    fn read(path: &Path) -> Result<Self, BadDatabase> {
        let unreadable = |error| BadDatabase::Unreadable { path: path.to_owned(), error };
        // Taken before it is read: what is written in between is seen as a change.
        let stamp = Stamp::of(path)?;
        let bytes = fs::read(path).map_err(unreadable)?;
        let reader = Reader::from_source(bytes)
            .map_err(|error| BadDatabase::Invalid { path: path.to_owned(), error })?;
        let kind = &reader.metadata().database_type;
        if !["Country", "City", "Enterprise"].iter().any(|known| kind.contains(known)) {
            return Err(BadDatabase::Kind { path: path.to_owned(), kind: kind.clone() });
        }
        Ok(Self { reader, stamp, known: Mutex::default() })
    }

    fn locate(&self, address: IpAddr) -> Option<Arc<Location>> {
        let found = self.reader.lookup(address.to_canonical()).ok()?;
        let offset = found.offset()?;
        // A std Mutex: no await happens while it is held.
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(location) = known.get(&offset) {
            return Some(Arc::clone(location));
        }
        let record: Record<'_> = found.decode().ok()??;
        let name = |name: Option<&str>| name.unwrap_or_default().into();
        let location = Arc::new(Location {
            country: name(record.country.iso_code),
            region: name(record.subdivisions.first().and_then(|region| region.names.en)),
            city: name(record.city.names.en),
        });
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(offset, Arc::clone(&location));
        Some(location)
    }
}

impl Stamp {
    fn of(path: &Path) -> Result<Self, BadDatabase> {
        let unreadable = |error| BadDatabase::Unreadable { path: path.to_owned(), error };
        let metadata = fs::metadata(path).map_err(unreadable)?;
        let modified = metadata.modified().map_err(unreadable)?;
        Ok(Self { modified, bytes: metadata.len() })
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Database").field("stamp", &self.stamp).finish_non_exhaustive()
    }
}

#[cfg(test)]
#[path = "../../tests/support/mmdb.rs"]
mod mmdb;

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use std::fs::FileTimes;

    const CITIES: &[mmdb::Entry<'static>] = &[
        ("203.0.113.0", 24, ["AT", "Tyrol", "Innsbruck"]),
        ("203.0.113.128", 25, ["DE", "", ""]),
        ("2001:db8:1::", 48, ["PT", "", "Porto"]),
    ];

    fn write(path: &Path, bytes: &[u8], second: u64) {
        fs::write(path, bytes).unwrap();
        // Two states of a file within one tick of its clock look the same.
        let times =
            FileTimes::new().set_modified(SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(second));
        fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    }

    fn told(geography: &Geography, address: &str) -> Option<[String; 3]> {
        let location = geography.locate(address.parse().unwrap())?;
        Some([&location.country, &location.region, &location.city].map(|name| name.to_string()))
    }

    #[rstest]
    #[case("203.0.113.9", Some(["AT", "Tyrol", "Innsbruck"]))]
    #[case("203.0.113.200", Some(["DE", "", ""]))]
    #[case("::ffff:203.0.113.9", Some(["AT", "Tyrol", "Innsbruck"]))]
    #[case("2001:db8:1:2::3", Some(["PT", "", "Porto"]))]
    #[case("198.51.100.1", None)]
    #[case("2001:db8:2::1", None)]
    fn an_address_lies_in_a_place(#[case] address: &str, #[case] expected: Option<[&str; 3]>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cities.mmdb");
        write(&path, &mmdb::database("GeoLite2-City", CITIES), 1);
        let geography = Geography::open(Some(path)).unwrap();
        assert_eq!(told(&geography, address), expected.map(|names| names.map(String::from)));
        assert_eq!(told(&geography, address), expected.map(|names| names.map(String::from)), "remembered");
    }

    #[test]
    fn connections_from_one_place_share_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cities.mmdb");
        write(&path, &mmdb::database("DBIP-City-Lite", CITIES), 1);
        let geography = Geography::open(Some(path)).unwrap();
        let locate = |address: &str| geography.locate(address.parse().unwrap()).unwrap();
        assert!(Arc::ptr_eq(&locate("203.0.113.9"), &locate("203.0.113.10")));
    }

    #[test]
    fn a_changed_file_is_read_again_and_a_bad_one_keeps_the_old() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cities.mmdb");
        write(&path, &mmdb::database("GeoLite2-City", CITIES), 1);
        let geography = Geography::open(Some(path.clone())).unwrap();
        assert!(!geography.refresh().unwrap());
        let moved = &[("203.0.113.0", 24, ["CH", "", "Basel"])];
        let changed = mmdb::database("GeoLite2-City", moved);
        write(&path, &changed[..changed.len() / 2], 2);
        assert!(geography.refresh().is_err());
        assert_eq!(told(&geography, "203.0.113.9").unwrap()[2], "Innsbruck");
        fs::remove_file(&path).unwrap();
        assert!(geography.refresh().is_err());
        assert_eq!(told(&geography, "203.0.113.9").unwrap()[2], "Innsbruck");
        write(&path, &changed, 3);
        assert!(geography.refresh().unwrap());
        assert_eq!(told(&geography, "203.0.113.9").unwrap()[2], "Basel");
        // As long as the one before.
        let moved = &[("203.0.113.0", 24, ["LI", "", "Vaduz"])];
        write(&path, &mmdb::database("GeoLite2-City", moved), 4);
        assert!(geography.refresh().unwrap());
        assert_eq!(told(&geography, "203.0.113.9").unwrap()[2], "Vaduz");
    }

    #[rstest]
    #[case(None, "cities.mmdb")]
    #[case(Some(b"no database".to_vec()), "no MaxMind database")]
    #[case(Some(mmdb::database("GeoLite2-ASN", CITIES)), "GeoLite2-ASN")]
    fn a_bad_file_is_named_at_boot(#[case] bytes: Option<Vec<u8>>, #[case] says: &str) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("cities.mmdb");
        if let Some(bytes) = bytes {
            write(&path, &bytes, 1);
        }
        let error = Geography::open(Some(path)).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }

    #[test]
    fn without_a_database_nobody_is_anywhere() {
        let geography = Geography::open(None).unwrap();
        assert!(!geography.is_configured() && !geography.refresh().unwrap());
        assert_eq!(told(&geography, "203.0.113.9"), None);
    }

    #[rstest]
    #[case("Europe/Berlin", "DE", Did::GeographyTimeZone)]
    #[case("UTC", "", Did::GeographyUnknown)]
    fn without_a_place_the_time_zone_tells_the_country(
        #[case] zone: &str,
        #[case] country: &str,
        #[case] did: Did,
    ) {
        assert_eq!(Place::of(None, zone), Place { country, region: "", city: "", did });
    }
}
