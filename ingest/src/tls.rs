//! TLS: a certificate chain and its key from two PEM files, looked at again while the node runs. New connections get the
//! new certificate; a bad file keeps the old one.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use arc_swap::ArcSwap;
use tokio::time::{MissedTickBehavior, interval};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        self, InconsistentKeys, ServerConfig,
        crypto::ring,
        pki_types::{
            CertificateDer, PrivateKeyDer,
            pem::{self, PemObject as _},
        },
        server::{ClientHello, NoServerSessionStorage, ResolvesServerCert},
        sign::CertifiedKey,
    },
};
use tracing::{error, info, warn};
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _};

use crate::config::TlsFiles;

/// How often the files are looked at. They are loaded once they have been the same for so long.
const POLL: Duration = Duration::from_secs(1);

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("[ingest] {key}: {}: {reason}", file.display())]
pub struct TlsError {
    pub key: &'static str,
    pub file: PathBuf,
    pub reason: String,
}

/// The certificate that is served now.
pub(crate) struct Certificate {
    files: Mutex<TlsFiles>,
    current: ArcSwap<CertifiedKey>,
}

impl Certificate {
    pub(crate) fn load(files: &TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::new(read(files)?);
        Ok(Arc::new(Self { files: Mutex::new(files.clone()), current }))
    }

    /// Sessions are resumed by tickets, so that a storm of reconnects is cheap and no memory is kept for it.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, rustls::Error> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = ring::Ticketer::new()?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Loads these files now, if they are good.
    pub(crate) fn reload(&self, files: &TlsFiles) {
        match read(files) {
            Ok(read) => {
                *self.files() = files.clone();
                if self.current.load().cert != read.cert {
                    info!("the certificate is a new one");
                }
                self.current.store(read);
            }
            Err(error) => error!(%error, "the certificate stays as it was"),
        }
    }

    /// Notices when the files change. Never ends.
    pub(crate) async fn watch(&self) {
        let mut ticks = interval(POLL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut loaded = Stamp::of(&self.files());
        let mut before = loaded.clone();
        loop {
            ticks.tick().await;
            let files = self.files().clone();
            let now = Stamp::of(&files);
            // Certificate and key are not written at once: what changes right now is looked at again.
            if now != loaded && now == before {
                self.reload(&files);
                loaded = now.clone();
            }
            before = now;
        }
    }

    fn files(&self) -> std::sync::MutexGuard<'_, TlsFiles> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Certificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &*self.files()).finish_non_exhaustive()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

/// By what a change of the files is noticed. Links are followed: certificates are often swapped by one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp([Option<(SystemTime, u64)>; 2]);

impl Stamp {
    fn of(files: &TlsFiles) -> Self {
        let stamp = |path: &Option<PathBuf>| {
            let metadata = fs::metadata(path.as_ref()?).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        };
        Self([stamp(&files.certificate), stamp(&files.key)])
    }
}

fn read(files: &TlsFiles) -> Result<Arc<CertifiedKey>, TlsError> {
    let certificate = File::named("tls.certificate", &files.certificate)?;
    let key = File::named("tls.key", &files.key)?;
    let chain = CertificateDer::pem_file_iter(certificate.path)
        .and_then(|chain| chain.collect::<Result<Vec<_>, _>>())
        .map_err(|error| certificate.unreadable(&error, "certificate"))?;
    let Some(leaf) = chain.first() else {
        return Err(certificate.wrong("holds no PEM certificate"));
    };
    let validity = validity(leaf).ok_or_else(|| certificate.wrong("its first certificate is no X.509"))?;
    let private =
        PrivateKeyDer::from_pem_file(key.path).map_err(|error| key.unreadable(&error, "private key"))?;
    let read =
        CertifiedKey::from_der(chain, private, &ring::default_provider()).map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                key.wrong(format!("is not the key of {}", certificate.path.display()))
            }
            error => key.wrong(error.to_string()),
        })?;
    if !validity.is_valid() {
        warn!(
            file = %certificate.path.display(),
            from = %validity.not_before, to = %validity.not_after,
            "the certificate is not valid now; browsers will refuse it"
        );
    }
    Ok(Arc::new(read))
}

fn validity(leaf: &CertificateDer<'_>) -> Option<x509_parser::certificate::Validity> {
    X509Certificate::from_der(leaf).ok().map(|(_, certificate)| certificate.validity().clone())
}

/// A setting that names a file.
struct File<'a> {
    key: &'static str,
    path: &'a Path,
}

impl<'a> File<'a> {
    fn named(key: &'static str, path: &'a Option<PathBuf>) -> Result<Self, TlsError> {
        match path {
            Some(path) => Ok(Self { key, path }),
            None => Err(TlsError {
                key,
                file: PathBuf::new(),
                reason: "not set; a TLS listener needs tls.certificate and tls.key".to_owned(),
            }),
        }
    }

    fn wrong(&self, reason: impl Into<String>) -> TlsError {
        TlsError { key: self.key, file: self.path.to_owned(), reason: reason.into() }
    }

    fn unreadable(&self, error: &pem::Error, what: &str) -> TlsError {
        match error {
            pem::Error::NoItemsFound => self.wrong(format!("holds no PEM {what}")),
            error => self.wrong(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};
    use rstest::rstest;

    struct Pem {
        certificate: String,
        key: String,
    }

    fn pem(change: impl FnOnce(&mut CertificateParams)) -> Pem {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        Pem { certificate: params.self_signed(&key).unwrap().pem(), key: key.serialize_pem() }
    }

    fn files(dir: &Path, pem: &Pem) -> TlsFiles {
        let (certificate, key) = (dir.join("chain.pem"), dir.join("key.pem"));
        fs::write(&certificate, &pem.certificate).unwrap();
        fs::write(&key, &pem.key).unwrap();
        TlsFiles { certificate: Some(certificate), key: Some(key) }
    }

    #[rstest]
    #[case::garbage_certificate(Some("nonsense"), None, "tls.certificate", "holds no PEM certificate")]
    #[case::torn_certificate(
        Some("-----BEGIN CERTIFICATE-----\nAAAA\n"),
        None,
        "tls.certificate",
        "chain.pem"
    )]
    #[case::no_x509(
        Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        None,
        "tls.certificate",
        "no X.509"
    )]
    #[case::garbage_key(None, Some("nonsense"), "tls.key", "holds no PEM private key")]
    #[case::no_key(
        None,
        Some("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
        "tls.key",
        "key.pem"
    )]
    fn a_bad_file_is_named_with_its_setting(
        #[case] certificate: Option<&str>,
        #[case] key: Option<&str>,
        #[case] setting: &str,
        #[case] told: &str,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let mut pem = pem(|_| ());
        certificate.into_iter().for_each(|text| pem.certificate = text.to_owned());
        key.into_iter().for_each(|text| pem.key = text.to_owned());
        let error = read(&files(dir.path(), &pem)).unwrap_err();
        assert_eq!(error.key, setting, "{error}");
        assert!(error.to_string().contains(told), "{error}");
    }

    #[test]
    fn the_key_of_another_certificate_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error =
            read(&files(dir.path(), &Pem { key: pem(|_| ()).key, ..pem(|_| ()) })).unwrap_err().to_string();
        assert!(error.contains("tls.key") && error.contains("is not the key of"), "{error}");
    }

    #[test]
    fn a_missing_file_and_a_missing_setting_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = files(dir.path(), &pem(|_| ()));
        fs::remove_file(files.key.as_ref().unwrap()).unwrap();
        assert!(read(&files).unwrap_err().to_string().contains("key.pem"));
        files.key = None;
        assert!(read(&files).unwrap_err().to_string().contains("tls.key: : not set"));
    }

    #[test]
    fn an_expired_certificate_is_served_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let expired = pem(|params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        });
        let read = read(&files(dir.path(), &expired)).unwrap();
        assert!(!validity(&read.cert[0]).unwrap().is_valid());
    }

    #[test]
    fn a_bad_file_keeps_the_old_certificate_and_a_good_one_replaces_it() {
        let dir = tempfile::tempdir().unwrap();
        let certificate = Certificate::load(&files(dir.path(), &pem(|_| ()))).unwrap();
        let (first, first_files) = (certificate.current.load_full(), certificate.files().clone());
        let (bad, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        certificate.reload(&files(bad.path(), &Pem { key: "nonsense".into(), ..pem(|_| ()) }));
        assert_eq!(certificate.current.load().cert, first.cert);
        assert_eq!(*certificate.files(), first_files);
        let second = files(good.path(), &pem(|_| ()));
        certificate.reload(&second);
        assert_ne!(certificate.current.load().cert, first.cert);
        assert_eq!(*certificate.files(), second, "these are watched from now on");
    }
}
