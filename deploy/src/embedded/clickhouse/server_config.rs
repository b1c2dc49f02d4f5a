//! What the ClickHouse server reads at its start: its limits and its users.

use std::{fmt::Write as _, net::IpAddr, path::Path};

use sha2::{Digest as _, Sha256};

use super::{
    EngineError,
    config::{ADMIN, DATABASE, EngineConfig, READER, WRITER},
};

/// The server's own settings.
pub(super) fn server_xml(config: &EngineConfig, paths: ServerPaths<'_>) -> String {
    let ServerPaths { store, users, log } = paths;
    format!(
        "<clickhouse>\n\
         \x20 <path>{store}/</path>\n\
         \x20 <users_config>{users}</users_config>\n\
         \x20 <logger><log>{log}</log><size>10M</size><count>2</count></logger>\n\
         \x20 <listen_host>{host}</listen_host>\n\
         \x20 <http_port>{port}</http_port>\n\
         \x20 <max_connections>512</max_connections>\n\
         \x20 <keep_alive_timeout>30</keep_alive_timeout>\n\
         \x20 <max_server_memory_usage>{memory}</max_server_memory_usage>\n\
         \x20 <mark_cache_size>{cache}</mark_cache_size>\n\
         \x20 <index_mark_cache_size>{cache}</index_mark_cache_size>\n\
         \x20 <!-- By default as many as there are cores: on two, background work waits for itself. -->\n\
         \x20 <background_schedule_pool_size>8</background_schedule_pool_size>\n\
         \x20 <background_streaming_schedule_pool_size>2</background_streaming_schedule_pool_size>\n\
         \x20 <shutdown_wait_unfinished>1</shutdown_wait_unfinished>\n\
         </clickhouse>\n",
        store = escaped(store),
        users = escaped(users),
        log = escaped(log),
        host = config.listen.ip(),
        port = config.listen.port(),
        memory = config.max_server_memory_bytes,
        cache = config.max_server_memory_bytes / 8,
    )
}

#[derive(Clone, Copy)]
pub(super) struct ServerPaths<'a> {
    pub(super) store: &'a Path,
    pub(super) users: &'a Path,
    pub(super) log: &'a Path,
}

/// What the process runs before it waits: open the HTTP interface, then say on which port.
pub(super) fn start_sql(port_file: &Path) -> String {
    let quoted = port_file.to_string_lossy().replace('\\', "\\\\").replace('\'', "\\'");
    format!(
        "SYSTEM START LISTEN HTTP;\nSELECT getServerPort('http_port') INTO OUTFILE '{quoted}' FORMAT TSV;\n"
    )
}

/// Profiles, quotas and users.
///
/// `default` is the user of the process's own session and has no password, because the session cannot give one.
/// It may open the HTTP interface and nothing else, and it is limited to one session: that of the process, which
/// is there before the interface opens and stays until the process ends. Whoever comes without credentials is
/// refused with USER_SESSION_LIMIT_EXCEEDED.
pub(super) fn users_xml(config: &EngineConfig) -> Result<String, EngineError> {
    let loopback = ["127.0.0.1", "::1"].map(str::to_owned);
    let mut reader_networks = loopback.to_vec();
    for network in &config.reader_networks {
        if !is_network(network) {
            return Err(EngineError::NetworkInvalid { network: network.clone() });
        }
        reader_networks.push(network.clone());
    }

    let users = [
        User {
            name: READER,
            password: &config.reader_password,
            networks: &reader_networks,
            profile: "reader",
            grants: &[&format!("SELECT ON {DATABASE}.*")],
        },
        User {
            name: WRITER,
            password: &config.writer_password,
            networks: &loopback,
            profile: "writer",
            grants: &[
                &format!("SELECT, INSERT ON {DATABASE}.*"),
                "SELECT ON system.parts",
                // To find its own queries; KILL QUERY on them needs no further right.
                "SELECT ON system.processes",
            ],
        },
        User {
            name: ADMIN,
            password: &config.admin_password,
            networks: &loopback,
            profile: "admin",
            grants: &[
                &format!(
                    "SELECT, INSERT, ALTER, CREATE, DROP, TRUNCATE, OPTIMIZE, SHOW, dictGet ON {DATABASE}.*"
                ),
                &format!("SYSTEM MERGES, SYSTEM TTL MERGES, SYSTEM MOVES, SYSTEM VIEWS ON {DATABASE}.*"),
                "TABLE ENGINE ON MergeTree, TABLE ENGINE ON ReplacingMergeTree, TABLE ENGINE ON SummingMergeTree, \
                 TABLE ENGINE ON AggregatingMergeTree, TABLE ENGINE ON CollapsingMergeTree, TABLE ENGINE ON Null, \
                 TABLE ENGINE ON Memory",
                "SELECT ON system.*",
                "KILL QUERY ON *.*",
            ],
        },
    ];
    let mut rendered = String::new();
    for user in users {
        user.render(&mut rendered)?;
    }

    let max_memory = config.reader_max_memory_bytes;
    let max_seconds = config.reader_max_execution.as_secs().max(1);
    Ok(format!(
        "<clickhouse>\n\
         <profiles>\n\
         \x20 <default/>\n\
         \x20 <process>\n\
         \x20   <max_sessions_for_user>1</max_sessions_for_user>\n\
         \x20   <constraints><max_sessions_for_user><readonly/></max_sessions_for_user></constraints>\n\
         \x20 </process>\n\
         \x20 <reader>\n\
         \x20   <!-- 2: a client may send settings, and change nothing else. -->\n\
         \x20   <readonly>2</readonly>\n\
         \x20   <final>1</final>\n\
         \x20   <max_execution_time>{max_seconds}</max_execution_time>\n\
         \x20   <max_memory_usage>{max_memory}</max_memory_usage>\n\
         \x20   <max_concurrent_queries_for_user>32</max_concurrent_queries_for_user>\n\
         \x20   <constraints>\n\
         \x20     <max_execution_time><min>1</min><max>{max_seconds}</max></max_execution_time>\n\
         \x20     <max_memory_usage><min>1</min><max>{max_memory}</max></max_memory_usage>\n\
         \x20     <max_memory_usage_for_user><readonly/></max_memory_usage_for_user>\n\
         \x20     <max_concurrent_queries_for_user><readonly/></max_concurrent_queries_for_user>\n\
         \x20     <timeout_before_checking_execution_speed><readonly/></timeout_before_checking_execution_speed>\n\
         \x20     <timeout_overflow_mode><readonly/></timeout_overflow_mode>\n\
         \x20   </constraints>\n\
         \x20 </reader>\n\
         \x20 <writer><async_insert>0</async_insert><log_queries>0</log_queries></writer>\n\
         \x20 <admin><async_insert>0</async_insert><log_queries>0</log_queries></admin>\n\
         </profiles>\n\
         <quotas><default/></quotas>\n\
         <users>\n\
         \x20 <default>\n\
         \x20   <password></password>\n\
         \x20   <networks><ip>127.0.0.1</ip></networks>\n\
         \x20   <profile>process</profile>\n\
         \x20   <quota>default</quota>\n\
         \x20   <grants><query>GRANT SYSTEM LISTEN ON *.*</query></grants>\n\
         \x20 </default>\n\
         {rendered}\
         </users>\n\
         </clickhouse>\n"
    ))
}

struct User<'a> {
    name: &'static str,
    password: &'a str,
    networks: &'a [String],
    profile: &'a str,
    grants: &'a [&'a str],
}

impl User<'_> {
    fn render(&self, out: &mut String) -> Result<(), EngineError> {
        if self.password.is_empty() {
            return Err(EngineError::PasswordEmpty { user: self.name });
        }
        let mut networks = String::new();
        for network in self.networks {
            let _ = write!(networks, "<ip>{network}</ip>");
        }
        let mut grants = String::new();
        for grant in self.grants {
            let _ = write!(grants, "<query>GRANT {grant}</query>");
        }
        let _ = write!(
            out,
            "\x20 <{name}>\n\
             \x20   <password_sha256_hex>{hash}</password_sha256_hex>\n\
             \x20   <networks>{networks}</networks>\n\
             \x20   <profile>{profile}</profile>\n\
             \x20   <quota>default</quota>\n\
             \x20   <grants>{grants}</grants>\n\
             \x20 </{name}>\n",
            name = self.name,
            hash = sha256_hex(self.password),
            profile = self.profile,
        );
        Ok(())
    }
}

fn sha256_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::with_capacity(64), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// An address, or an address and a prefix length.
fn is_network(text: &str) -> bool {
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, prefix)| (address, Some(prefix)));
    let Ok(address) = address.parse::<IpAddr>() else {
        return false;
    };
    let longest = if address.is_ipv4() { 32 } else { 128 };
    prefix.is_none_or(|prefix| prefix.parse::<u8>().is_ok_and(|length| length <= longest))
}

fn escaped(path: &Path) -> String {
    path.to_string_lossy().replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn config() -> EngineConfig {
        let mut config = EngineConfig::new("/data".into()).expect("a test knows its own path");
        config.reader_password = "one".to_owned();
        config.writer_password = "two".to_owned();
        config.admin_password = "three".to_owned();
        config
    }

    #[rstest]
    #[case("127.0.0.1", true)]
    #[case("10.0.0.0/8", true)]
    #[case("fd00::/8", true)]
    #[case("10.0.0.0/33", false)]
    #[case("office", false)]
    #[case("::/0</ip></networks>", false)]
    #[case("", false)]
    fn a_network_is_an_address_with_an_optional_prefix(#[case] text: &str, #[case] valid: bool) {
        assert_eq!(is_network(text), valid);
        let config = EngineConfig { reader_networks: vec![text.to_owned()], ..config() };
        assert_eq!(users_xml(&config).is_ok(), valid);
    }

    #[test]
    fn passwords_are_written_as_hashes_only() {
        let xml = users_xml(&config()).expect("the configuration is valid");
        // sha256 of "three"
        assert!(xml.contains("8b5b9db0c13db24256c829aa364aa90c6d2eba318b9232a4ab9313b954d3555f"), "{xml}");
        assert!(!xml.contains("three"), "{xml}");
    }

    #[rstest]
    #[case(READER)]
    #[case(WRITER)]
    #[case(ADMIN)]
    fn an_empty_password_is_refused(#[case] whose: &'static str) {
        let mut config = config();
        match whose {
            READER => config.reader_password.clear(),
            WRITER => config.writer_password.clear(),
            _ => config.admin_password.clear(),
        }
        assert!(matches!(users_xml(&config), Err(EngineError::PasswordEmpty { user }) if user == whose));
    }

    #[test]
    fn a_path_cannot_leave_its_element_or_its_literal() {
        let odd = Path::new("/a<b>&'c");
        let xml = server_xml(&config(), ServerPaths { store: odd, users: odd, log: odd });
        assert!(xml.contains("<path>/a&lt;b&gt;&amp;'c/</path>"), "{xml}");
        assert!(start_sql(odd).contains(r"'/a<b>&\'c'"));
    }
}
