//! `footfall snippet`: the tags that the owner of a site pastes into its pages. They alone go to stdout; what the pages
//! must allow goes to stderr.

use std::{
    fmt::{self, Write as _},
    path::PathBuf,
    str::FromStr,
};

use anyhow::{Context, bail};
use footfall_ingest::{Script, scripts};
use footfall_schemas::{
    SiteId,
    snippet::{DEFAULT_MODULES, INCLUDE_LOCALHOST, is_loopback},
};

use crate::{
    ready::reachable,
    settings::{DEMO_SITE, Settings},
};

/// `footfall snippet`
#[derive(Debug, Clone, clap::Args)]
pub struct SnippetArgs {
    /// Key of the site
    #[arg(long, value_name = "KEY")]
    pub site: SiteId,
    /// Where browsers reach the ingest nodes, with the prefix of a first-party proxy if there is one; http:// and
    /// listen.ingest when absent
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<Endpoint>,
    /// Settings of the nodes, which must have the site
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// By content: cached for a year and checked by the browser; to be pasted anew after an upgrade of the nodes
    #[arg(long)]
    pub pin: bool,
    /// Modules for the tracker to load, separated by spaces; "" for none
    #[arg(long, value_name = "NAMES", value_delimiter = ' ', default_value = DEFAULT_MODULES)]
    pub modules: Vec<String>,
    /// Add the script for browsers of before ES modules
    #[arg(long)]
    pub es5: bool,
    /// Add the image for browsers without scripts
    #[arg(long)]
    pub noscript: bool,
}

/// `https://stats.example` or, with a prefix, `https://shop.example/stats`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `https` or `http`
    scheme: String,
    /// `stats.example:8443`
    authority: String,
    /// Empty, or `/stats`.
    prefix: String,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("write https://stats.example or, with the prefix of a proxy, https://shop.example/stats")]
pub struct InvalidEndpoint;

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, InvalidEndpoint> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidEndpoint)?;
        let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(InvalidEndpoint);
        };
        if !matches!(scheme, "http" | "https") || text.contains(['@', '?', '#']) {
            return Err(InvalidEndpoint);
        }
        Ok(Self {
            scheme: scheme.to_owned(),
            authority: authority.to_string(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

pub fn command(args: &SnippetArgs) -> anyhow::Result<()> {
    let settings = Settings::load(args.config.as_deref())?;
    if let Some(file) = &args.config {
        let mut known: Vec<_> = settings.sites.iter().map(|site| site.key.to_string()).collect();
        if known.is_empty() {
            // As `standalone` does.
            known.push(DEMO_SITE.to_owned());
        }
        if !known.iter().any(|key| key == args.site.as_str()) {
            let (site, file, known) = (args.site.as_str(), file.display(), known.join(", "));
            // It may be set up in the dashboard.
            eprintln!("{file} has no site {site:?}; it has {known}. `footfall site list` tells of all.");
        }
    }
    let endpoint = match &args.endpoint {
        Some(endpoint) => endpoint.clone(),
        None if settings.listen.ingest.port() == 0 => {
            bail!("--endpoint: needed, as listen.ingest takes any free port")
        }
        None => format!("http://{}", reachable(settings.listen.ingest)).parse().context("listen.ingest")?,
    };
    let snippet = Snippet { args, endpoint, scripts: scripts() };
    let tags = snippet.tags()?;
    print!("{tags}");
    eprint!("{}", snippet.hints());
    Ok(())
}

struct Snippet<'a> {
    args: &'a SnippetArgs,
    endpoint: Endpoint,
    scripts: &'a [Script],
}

impl Snippet<'_> {
    fn tags(&self) -> anyhow::Result<String> {
        let modules = self.data_modules()?;
        let mut tags = self.script("f", "defer", &modules)?;
        if self.args.es5 {
            tags += &self.script("f-es5", "nomodule defer", &modules).context("--es5")?;
        }
        if self.args.noscript {
            let image = escape(&format!("{}/e.gif?k={}", self.endpoint, self.args.site.as_str()));
            // Without the attribute browsers tell the origin only, and every page would be `/`.
            tags += &format!(
                "<noscript><img src=\"{image}\" alt=\"\" referrerpolicy=\"no-referrer-when-downgrade\"></noscript>\n"
            );
        }
        Ok(tags)
    }

    /// What stderr says.
    fn hints(&self) -> String {
        let Endpoint { scheme, authority, .. } = &self.endpoint;
        let origin = format!("{scheme}://{authority}");
        let socket = origin.replacen("http", "ws", 1);
        let mut hints = format!(
            "\nA Content-Security-Policy of the pages needs:\n  script-src {origin}\n  connect-src {origin} {socket}\n  img-src {origin}\n\nIntegrity:\n"
        );
        let modules = self.modules().map(|module| format!("f-{module}"));
        let es5 = self.args.es5.then(|| "f-es5".to_owned());
        for name in ["f", "f-more"].map(str::to_owned).into_iter().chain(modules).chain(es5) {
            if let Ok(script) = self.named(&name) {
                let _ = writeln!(hints, "  {name}.js {}", script.integrity);
            }
        }
        if self.args.pin {
            hints += "\nPaste it anew after an upgrade of the nodes: a node of another version answers 404 to this hash.\n";
            hints += "What the tracker loads besides itself comes by plain names, unchecked.\n";
        }
        if self.args.endpoint.is_none() {
            hints +=
                "\nThe address is the one of listen.ingest; --endpoint sets the one that browsers reach.\n";
        }
        hints
    }

    fn modules(&self) -> impl Iterator<Item = &String> {
        self.args.modules.iter().filter(|module| !module.is_empty())
    }

    /// Value of `data-modules`.
    fn data_modules(&self) -> anyhow::Result<String> {
        for module in self.modules() {
            self.named(&format!("f-{module}")).with_context(|| format!("--modules: {module}"))?;
        }
        Ok(self.modules().map(String::as_str).collect::<Vec<_>>().join(" "))
    }

    fn script(&self, name: &str, kind: &str, modules: &str) -> anyhow::Result<String> {
        let script = self.named(name)?;
        let path = if self.args.pin { &script.pinned_path } else { &script.path };
        let mut tag = format!("<script {kind} src=\"{}{path}\"", escape(&self.endpoint.to_string()));
        if self.args.pin {
            let _ = write!(tag, " integrity=\"{}\" crossorigin=\"anonymous\"", script.integrity);
        }
        let _ = write!(tag, " data-site=\"{}\"", escape(self.args.site.as_str()));
        if is_loopback(&self.endpoint.authority) {
            tag += INCLUDE_LOCALHOST;
        }
        if !modules.is_empty() {
            let _ = write!(tag, " data-modules=\"{}\"", escape(modules));
        }
        Ok(tag + "></script>\n")
    }

    fn named(&self, name: &str) -> anyhow::Result<&Script> {
        let found = self.scripts.iter().find(|script| script.name == name);
        found.with_context(|| {
            let files: Vec<_> = self.scripts.iter().map(|script| format!("{}.js", script.name)).collect();
            format!("this build has no {name}.js, only {}", files.join(", "))
        })
    }
}

/// For an attribute's value.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;
    use rstest::rstest;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: SnippetArgs,
    }

    fn args(line: &str) -> SnippetArgs {
        let line = format!("snippet --site shop --endpoint https://stats.example {line}");
        let words = line.split_whitespace().map(|word| word.replace('+', " "));
        Line::try_parse_from(words).unwrap_or_else(|error| panic!("{error}")).args
    }

    fn snippet<'a>(args: &'a SnippetArgs, scripts: &'a [Script]) -> Snippet<'a> {
        Snippet { args, endpoint: args.endpoint.clone().unwrap(), scripts }
    }

    fn build() -> [Script; 6] {
        ["f", "f-autocapture", "f-es5", "f-links", "f-more", "f-vitals"]
            .map(|name| Script::new(name, name.as_bytes(), b"", b""))
    }

    // Of "f" and "f-es5": printf f | openssl dgst -sha384 -binary | base64
    const F: &str = "sha384-OjHKRDtsrjcXtKTxmXK8kkE2RTgOSZDk/k3DIjhklPraorY7T2K+bitwd+mCu3ra";
    const ES5: &str = "sha384-aR3hEx73d75VLfBvRp9ZHcyzUMc1vjvhq0USUYF1cnLnuOrAKpZmEAxjB7OOfypo";

    #[rstest]
    #[case::plain("", r#"<script defer src="https://stats.example/f.js" data-site="shop" data-modules="links"></script>
"#.to_owned())]
    #[case::no_modules("--modules=", r#"<script defer src="https://stats.example/f.js" data-site="shop"></script>
"#.to_owned())]
    #[case::modules("--modules vitals+autocapture", r#"<script defer src="https://stats.example/f.js" data-site="shop" data-modules="vitals autocapture"></script>
"#.to_owned())]
    #[case::old_browsers("--modules= --es5", r#"<script defer src="https://stats.example/f.js" data-site="shop"></script>
<script nomodule defer src="https://stats.example/f-es5.js" data-site="shop"></script>
"#.to_owned())]
    #[case::no_scripts("--modules= --noscript", r#"<script defer src="https://stats.example/f.js" data-site="shop"></script>
<noscript><img src="https://stats.example/e.gif?k=shop" alt="" referrerpolicy="no-referrer-when-downgrade"></noscript>
"#.to_owned())]
    #[case::pinned("--modules= --pin --es5", format!(r#"<script defer src="https://stats.example/f.3a31ca443b6cae37.js" integrity="{F}" crossorigin="anonymous" data-site="shop"></script>
<script nomodule defer src="https://stats.example/f-es5.691de1131ef777be.js" integrity="{ES5}" crossorigin="anonymous" data-site="shop"></script>
"#))]
    fn the_tags_to_paste(#[case] line: &str, #[case] expected: String) {
        assert_eq!(snippet(&args(line), &build()).tags().unwrap(), expected);
    }

    #[test]
    fn a_prefix_is_where_the_files_are_and_values_are_escaped() {
        let mut args = args("--noscript");
        args.endpoint = Some("https://shop.example/a&b\"/".parse().unwrap());
        let tags = snippet(&args, &build()).tags().unwrap();
        let prefix = "https://shop.example/a&amp;b&quot;";
        assert!(tags.contains(&format!("src=\"{prefix}/f.js\" data-site=\"shop\" data-modules=")), "{tags}");
        assert!(tags.contains(&format!("<img src=\"{prefix}/e.gif?k=shop\"")), "{tags}");
    }

    #[rstest]
    #[case("--modules nothing", "--modules: nothing: this build has no f-nothing.js, only f.js")]
    #[case("--modules= --es5", "--es5: this build has no f-es5.js, only f.js")]
    fn what_this_build_does_not_have_is_an_error(#[case] line: &str, #[case] told: &str) {
        let core = [Script::new("f", b"f", b"", b"")];
        assert_eq!(format!("{:#}", snippet(&args(line), &core).tags().unwrap_err()), told);
    }

    #[rstest]
    #[case("https://stats.example", "https://stats.example", "wss://stats.example")]
    #[case("http://127.0.0.1:8080", "http://127.0.0.1:8080", "ws://127.0.0.1:8080")]
    #[case::no_path("https://http.example/stats", "https://http.example", "wss://http.example")]
    fn the_hints_say_what_a_policy_must_allow(
        #[case] endpoint: &str,
        #[case] origin: &str,
        #[case] socket: &str,
    ) {
        let mut args = args("--modules vitals");
        args.endpoint = Some(endpoint.parse().unwrap());
        let hints = snippet(&args, &build()).hints();
        let policy = format!("  script-src {origin}\n  connect-src {origin} {socket}\n  img-src {origin}\n");
        assert!(hints.contains(&policy), "{hints}");
        assert!(
            hints.contains(&format!("  f.js {F}\n  f-more.js sha384-"))
                && hints.contains("\n  f-vitals.js sha384-"),
            "{hints}"
        );
    }

    #[rstest]
    #[case("https://stats.example/", Some("https://stats.example"))]
    #[case("https://shop.example:8443/stats/", Some("https://shop.example:8443/stats"))]
    #[case("http://[::1]:8080", Some("http://[::1]:8080"))]
    #[case::no_scheme("stats.example", None)]
    #[case::a_path("/stats", None)]
    #[case::socket("wss://stats.example", None)]
    #[case::user("https://me@stats.example", None)]
    #[case::query("https://stats.example/?a", None)]
    #[case::fragment("https://stats.example/#a", None)]
    #[case::empty("", None)]
    fn an_endpoint_is_an_origin_and_a_prefix(#[case] text: &str, #[case] expected: Option<&str>) {
        let endpoint = text.parse::<Endpoint>().ok().map(|endpoint| endpoint.to_string());
        assert_eq!(endpoint.as_deref(), expected);
    }
}
