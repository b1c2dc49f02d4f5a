//! `footfall site`, `user`, `link` and `directory`: the directory from the command line.

use std::{
    io::{self, Read as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::{Args, Subcommand};
use footfall_dashboard::password;
use footfall_schemas::{
    SiteId,
    directory::{Directory, Entry, Grants, Role, User, UserName},
    site::Site,
};
use serde_json::Value;
use tokio::sync::watch;

use super::{Reader, Writer, read_copy, write_copy};
use crate::{load::unix_ms, ready::Ready, settings::Settings, terminal};

const READ_WITHIN: Duration = Duration::from_secs(30);

/// Where the directory lies, and what goes before it.
#[derive(Debug, Clone, Args)]
pub struct Place {
    /// Data directory of a `footfall standalone` that runs on this machine [default: footfall-data]
    #[arg(long, value_name = "DIR", global = true)]
    data_dir: Option<PathBuf>,
    /// Settings of the nodes: they name Kafka, and declare sites and users
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
}

/// Which sites there are
#[derive(Debug, Clone, Subcommand)]
pub enum SiteCommand {
    /// One a line, with its origins
    List,
    /// A site as it was written, its secrets included
    Show { key: SiteId },
    /// Makes or changes a site
    Set {
        /// The site as JSON, as in `site show`; - is standard input
        file: PathBuf,
    },
    /// Takes nothing more for a site; what was counted stays
    Remove { key: SiteId },
}

/// Who may look and change
#[derive(Debug, Clone, Subcommand)]
pub enum UserCommand {
    /// One a line, with what may be done
    List,
    /// Makes a user; the password is asked for, or read from standard input
    Add {
        #[arg(value_parser = user_name)]
        name: UserName,
        #[command(flatten)]
        granted: Granted,
    },
    /// Gives a user another password and ends the sessions
    Password {
        #[arg(value_parser = user_name)]
        name: UserName,
    },
    Remove {
        #[arg(value_parser = user_name)]
        name: UserName,
    },
    /// Prints the hash of a password, for `password_hash` under [[users]] of a settings file
    Hash,
}

#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct Granted {
    /// May do everything
    #[arg(long)]
    owner: bool,
    /// What may be done with a site: viewer or owner; the key * is every site
    #[arg(long = "grant", value_name = "KEY=ROLE", value_parser = grant)]
    grants: Vec<(String, Role)>,
}

/// Links that let whoever has them watch
#[derive(Debug, Clone, Subcommand)]
pub enum LinkCommand {
    /// One a line, with its site and end
    List,
    Revoke {
        id: String,
    },
}

/// Everything at once
#[derive(Debug, Clone, Subcommand)]
pub enum DirectoryCommand {
    /// Prints a copy, an entry a line: sites with their secrets, users with their passwords' hashes, keys, links
    Export,
    /// Writes the entries of a copy; others stay
    Import {
        /// - is standard input
        file: PathBuf,
    },
}

fn user_name(text: &str) -> Result<UserName, String> {
    UserName::try_from(text.to_owned()).map_err(|error| error.to_string())
}

fn grant(text: &str) -> Result<(String, Role), String> {
    let (scope, role) = text.split_once('=').ok_or("write KEY=viewer or KEY=owner")?;
    if scope != "*" && !SiteId::is_key(scope) {
        return Err(format!("{scope:?} is neither * nor a site's key"));
    }
    let role = match role {
        "viewer" => Role::Viewer,
        "owner" => Role::Owner,
        _ => return Err(format!("{role:?} is neither viewer nor owner")),
    };
    Ok((scope.to_owned(), role))
}

impl Granted {
    fn grants(self) -> Grants {
        if self.owner {
            return Grants::everything();
        }
        self.grants.into_iter().collect()
    }
}

/// The directory, opened.
struct Desk {
    reader: Reader,
    writer: Writer,
}

impl Desk {
    async fn open(place: &Place) -> anyhow::Result<Self> {
        let settings = place.settings()?;
        Self::open_declaring(&settings, settings.declared()).await
    }

    async fn open_declaring(settings: &Settings, declared: Directory) -> anyhow::Result<Self> {
        let kafka = settings.kafka()?;
        let reader = Reader::spawn(&kafka, watch::channel(declared).1)?;
        let writer = Writer::new(&kafka, &reader)?;
        reader.caught_up(READ_WITHIN).await?;
        Ok(Self { reader, writer })
    }

    fn now(&self) -> Arc<Directory> {
        self.reader.directory().borrow().clone()
    }

    async fn put(&self, entry: &Entry) -> anyhow::Result<()> {
        self.write([(entry.key(), Some(entry.value()))]).await
    }

    async fn remove(&self, key: String) -> anyhow::Result<()> {
        self.write([(key, None)]).await
    }

    async fn write(&self, entries: impl IntoIterator<Item = (String, Option<Value>)>) -> anyhow::Result<()> {
        self.writer.write_all(entries).await.context("the directory cannot be written")
    }
}

impl Place {
    /// The settings, with the Kafka of a running `standalone` where they name none.
    fn settings(&self) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(self.config.as_deref())?;
        if settings.kafka.brokers.is_empty() {
            let data_dir = self.data_dir.as_ref().unwrap_or(&settings.data_dir);
            settings.kafka.brokers = Ready::read(data_dir)?.kafka;
        } else if self.data_dir.is_some() {
            bail!("--data-dir: the settings name Kafka; leave one of them out");
        }
        Ok(settings)
    }
}

impl SiteCommand {
    pub async fn run(self, place: &Place) -> anyhow::Result<()> {
        let desk = Desk::open(place).await?;
        let directory = desk.now();
        match self {
            Self::List => {
                for (key, listed) in &directory.sites {
                    let origins: Vec<_> = listed.site.origins.iter().map(|origin| origin.as_str()).collect();
                    let state = [(listed.declared, "declared"), (!listed.site.enabled, "switched off")];
                    let state = state.into_iter().filter(|(holds, _)| *holds).map(|(_, state)| state);
                    let state: Vec<_> = state.collect();
                    println!("{key}\t{}\t{}\t{}", listed.site.name, origins.join(" "), state.join(", "));
                }
            }
            Self::Show { key } => {
                let listed = directory.sites.get(&key).with_context(|| no_site(&key))?;
                println!("{}", serde_json::to_string_pretty(&listed.written)?);
            }
            Self::Set { file } => {
                let text = text_of(&file)?;
                let parse = || -> anyhow::Result<(Site, Value)> {
                    let site: Site = serde_json::from_str(&text)?;
                    site.check()?;
                    Ok((site, serde_json::from_str(&text)?))
                };
                let (site, written) = parse().with_context(|| shown(&file))?;
                may_change(&directory, &site.key)?;
                desk.put(&Entry::Site(site.key.clone(), written)).await?;
                println!("site {} is set", site.key);
            }
            Self::Remove { key } => {
                directory.sites.get(&key).with_context(|| no_site(&key))?;
                may_change(&directory, &key)?;
                desk.remove(Entry::site_key(&key)).await?;
                println!("site {key} is removed");
            }
        }
        Ok(())
    }
}

fn may_change(directory: &Directory, key: &SiteId) -> anyhow::Result<()> {
    if directory.sites.get(key).is_some_and(|listed| listed.declared) {
        bail!("site {key} is declared in the settings file; change it there and send SIGHUP");
    }
    Ok(())
}

fn no_site(key: &SiteId) -> String {
    format!("there is no site {key}; `footfall site list` tells which there are")
}

impl UserCommand {
    pub async fn run(self, place: &Place) -> anyhow::Result<()> {
        if matches!(self, Self::Hash) {
            println!("{}", password::hash(&terminal::new_password()?)?);
            return Ok(());
        }
        let desk = Desk::open(place).await?;
        let directory = desk.now();
        match self {
            Self::List => {
                for (name, user) in &directory.users {
                    let declared = if directory.declared_users.contains(name) { "declared" } else { "" };
                    println!("{}\t{}\t{declared}", name.as_str(), told(&user.grants));
                }
            }
            Self::Add { name, granted } => {
                if directory.users.contains_key(&name) {
                    bail!("there is a user {:?} already; choose another name", name.as_str());
                }
                let password = password::hash(&terminal::new_password()?)?;
                let (grants, created_at) = (granted.grants(), unix_ms());
                let told = format!("user {} may: {}", name.as_str(), told(&grants));
                let user = User { password, grants, sessions_since: 0, created_at };
                desk.put(&Entry::User(name, user)).await?;
                println!("{told}");
            }
            Self::Password { name } => {
                let user = own_user(&directory, &name)?;
                let password = password::hash(&terminal::new_password()?)?;
                let user = User { password, sessions_since: unix_ms(), ..user.clone() };
                let told = format!("user {} has a new password, and no session", name.as_str());
                desk.put(&Entry::User(name, user)).await?;
                println!("{told}");
            }
            Self::Remove { name } => {
                own_user(&directory, &name)?;
                desk.remove(Entry::user_key(&name)).await?;
                println!("user {} is removed", name.as_str());
                if !desk.now().has_owner() {
                    eprintln!(
                        "nobody owns everything any more; `footfall user add NAME --owner` makes somebody"
                    );
                }
            }
            Self::Hash => unreachable!("answered above"),
        }
        Ok(())
    }
}

/// One that is not declared.
fn own_user<'a>(directory: &'a Directory, name: &UserName) -> anyhow::Result<&'a User> {
    let shown = name.as_str();
    if directory.declared_users.contains(name) {
        bail!("user {shown:?} is declared in the settings file; change it there and send SIGHUP");
    }
    let user = directory.users.get(name);
    user.map(Arc::as_ref)
        .with_context(|| format!("there is no user {shown:?}; `footfall user list` tells which there are"))
}

fn told(grants: &Grants) -> String {
    let told = |(scope, role)| match role {
        Role::Viewer => format!("{scope}=viewer"),
        Role::Owner => format!("{scope}=owner"),
    };
    grants.iter().map(told).collect::<Vec<_>>().join(" ")
}

impl LinkCommand {
    pub async fn run(self, place: &Place) -> anyhow::Result<()> {
        let desk = Desk::open(place).await?;
        let directory = desk.now();
        match self {
            Self::List => {
                for (id, link) in &directory.share_links {
                    let end =
                        link.expires_at.map_or("no end".to_owned(), |at| format!("until {at} ms since 1970"));
                    println!("{id}\t{}\t{}\t{end}\tby {}", link.site, link.name, link.created_by);
                }
            }
            Self::Revoke { id } => {
                let Some(link) = directory.share_links.get(&id) else {
                    bail!("there is no link {id:?}; `footfall link list` tells which there are");
                };
                desk.remove(Entry::ShareLink(id.clone(), link.as_ref().clone()).key()).await?;
                println!("link {id} is revoked");
            }
        }
        Ok(())
    }
}

impl DirectoryCommand {
    pub async fn run(self, place: &Place) -> anyhow::Result<()> {
        let settings = place.settings()?;
        // Without the declarations, which would hide what lies below them.
        match self {
            Self::Export => {
                let desk = Desk::open_declaring(&settings, Directory::default()).await?;
                let count =
                    write_copy(&desk.now(), io::stdout().lock()).context("the copy cannot be written")?;
                eprintln!("{count} entries");
                match desk.reader.unreadable() {
                    0 => Ok(()),
                    left_out => Err(anyhow!("{left_out} records cannot be read and are not in the copy")),
                }
            }
            Self::Import { file } => {
                let lines = read_copy(&text_of(&file)?).with_context(|| shown(&file))?;
                let desk = Desk::open_declaring(&settings, Directory::default()).await?;
                let mut counts = std::collections::BTreeMap::<&str, usize>::new();
                for line in &lines {
                    *counts.entry(line.key.split('/').next().unwrap_or_default()).or_default() += 1;
                }
                let counts: Vec<_> =
                    counts.into_iter().map(|(kind, count)| format!("{count} {kind}")).collect();
                let told = format!("written: {}", counts.join(", "));
                desk.write(lines.into_iter().map(|line| (line.key, Some(line.value)))).await?;
                println!("{told}");
                Ok(())
            }
        }
    }
}

fn shown(file: &Path) -> String {
    if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() }
}

fn text_of(file: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    let read = if file == Path::new("-") {
        io::stdin().read_to_string(&mut text).map(drop)
    } else {
        std::fs::read_to_string(file).map(|read| text = read)
    };
    read.with_context(|| shown(file))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("shop=viewer", Ok(("shop", Role::Viewer)))]
    #[case("*=owner", Ok(("*", Role::Owner)))]
    #[case("shop", Err("write KEY=viewer"))]
    #[case("My shop=viewer", Err("neither * nor a site's key"))]
    #[case("shop=king", Err("neither viewer nor owner"))]
    fn a_grant_is_a_key_and_a_role(#[case] text: &str, #[case] expected: Result<(&str, Role), &str>) {
        match (grant(text), expected) {
            (Ok((scope, role)), Ok(expected)) => assert_eq!((scope.as_str(), role), expected),
            (Err(told), Err(expected)) => assert!(told.contains(expected), "{told}"),
            (parsed, expected) => panic!("{parsed:?} instead of {expected:?}"),
        }
    }
}
