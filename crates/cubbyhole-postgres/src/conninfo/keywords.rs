//! The parameters that libpq has, up to version 18, and which of them are supported here.

pub(crate) struct Keyword {
    pub(crate) name: &'static str,
    /// The variable of the environment that sets it.
    pub(crate) variable: Option<&'static str>,
    pub(crate) support: Support,
}

#[derive(Clone, Copy)]
pub(crate) enum Support {
    Full,
    /// Accepted: ignoring it changes neither the server nor the protection of the connection.
    Ignored,
    /// These values alone.
    Only(&'static [&'static str], &'static str),
    /// Ignoring it would connect with less protection, or otherwise, than was asked for.
    Refused(&'static str),
}

use Support::{Full, Ignored, Only, Refused};

impl Keyword {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        // The name that the driver has for `keepalives_count`.
        let name = if name == "keepalives_retries" { "keepalives_count" } else { name };
        KEYWORDS.iter().find(|keyword| keyword.name == name)
    }
}

const fn has(name: &'static str, variable: &'static str, support: Support) -> Keyword {
    Keyword { name, variable: Some(variable), support }
}

const fn plain(name: &'static str, support: Support) -> Keyword {
    Keyword { name, variable: None, support }
}

const NO_GSS: &str = "encryption by GSSAPI is not supported; use `disable`, and TLS (`sslmode`)";
const NO_KEY_PASSWORD: &str =
    "encrypted private keys are not supported; decrypt the file: `openssl pkey -in KEY -out NEW`";
const NO_PEER: &str = "the user at the other end of a socket is not checked; connect by TCP with \
                       `sslmode=verify-full`";
const NO_AUTH_CHOICE: &str = "the method of authentication cannot be required here; use \
                              `sslmode=verify-full`, or `channel_binding=require`";
const NO_OAUTH: &str = "OAuth is not supported; use a password or a client certificate";
const NO_SCRAM_KEYS: &str = "SCRAM keys are not supported; use the password";

/// `service` and `servicefile` come first: they say where others are.
pub(crate) const KEYWORDS: [Keyword; 52] = [
    has("service", "PGSERVICE", Full),
    has("servicefile", "PGSERVICEFILE", Full),
    has("host", "PGHOST", Full),
    has("hostaddr", "PGHOSTADDR", Full),
    has("port", "PGPORT", Full),
    has("user", "PGUSER", Full),
    has("password", "PGPASSWORD", Full),
    has("passfile", "PGPASSFILE", Full),
    has("dbname", "PGDATABASE", Full),
    has("options", "PGOPTIONS", Full),
    has("application_name", "PGAPPNAME", Full),
    plain("fallback_application_name", Full),
    has("connect_timeout", "PGCONNECT_TIMEOUT", Full),
    has("target_session_attrs", "PGTARGETSESSIONATTRS", Full),
    has("load_balance_hosts", "PGLOADBALANCEHOSTS", Full),
    plain("keepalives", Full),
    plain("keepalives_idle", Full),
    plain("keepalives_interval", Full),
    plain("keepalives_count", Full),
    plain("tcp_user_timeout", Full),
    has("sslmode", "PGSSLMODE", Full),
    has("sslnegotiation", "PGSSLNEGOTIATION", Full),
    has("sslrootcert", "PGSSLROOTCERT", Full),
    has("sslcert", "PGSSLCERT", Full),
    has("sslkey", "PGSSLKEY", Full),
    has("sslcertmode", "PGSSLCERTMODE", Full),
    has("sslcrl", "PGSSLCRL", Full),
    has("sslsni", "PGSSLSNI", Full),
    has("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Full),
    has("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Full),
    has("channel_binding", "PGCHANNELBINDING", Full),
    has("sslcrldir", "PGSSLCRLDIR", Refused("name one file of revoked certificates with `sslcrl`")),
    plain("sslpassword", Refused(NO_KEY_PASSWORD)),
    has("sslcompression", "PGSSLCOMPRESSION", Ignored),
    plain("sslkeylogfile", Refused("the keys of TLS are not logged")),
    has("requirepeer", "PGREQUIREPEER", Refused(NO_PEER)),
    has("require_auth", "PGREQUIREAUTH", Refused(NO_AUTH_CHOICE)),
    has("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"], NO_GSS)),
    has("krbsrvname", "PGKRBSRVNAME", Ignored),
    has("gsslib", "PGGSSLIB", Ignored),
    has("gssdelegation", "PGGSSDELEGATION", Ignored),
    plain("scram_client_key", Refused(NO_SCRAM_KEYS)),
    plain("scram_server_key", Refused(NO_SCRAM_KEYS)),
    plain("oauth_issuer", Refused(NO_OAUTH)),
    plain("oauth_client_id", Refused(NO_OAUTH)),
    plain("oauth_client_secret", Refused(NO_OAUTH)),
    plain("oauth_scope", Refused(NO_OAUTH)),
    plain("replication", Refused("a store needs an ordinary connection")),
    plain(
        "client_encoding",
        Only(&["UTF8", "utf8", "UTF-8", "utf-8", "auto"], "the store speaks UTF8 alone"),
    ),
    has(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        Only(&["3.0"], "this build speaks version 3.0 of the protocol"),
    ),
    has("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored),
    plain("authtype", Ignored),
];
