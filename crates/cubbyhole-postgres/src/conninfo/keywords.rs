//! The parameters of libpq up to version 18, and which of them this crate supports.

pub(crate) struct Keyword {
    pub(crate) name: &'static str,
    /// The environment variable that sets the parameter.
    pub(crate) variable: Option<&'static str>,
    pub(crate) support: Support,
}

#[derive(Clone, Copy)]
pub(crate) enum Support {
    Full,
    /// Accepted without effect. Ignoring it affects neither the choice of the server nor security.
    Ignored,
    /// Supported with these values only; the text is the reason.
    Only(&'static [&'static str], &'static str),
    /// Rejected with this reason. Ignoring it would weaken security or change the connection.
    Refused(&'static str),
}

use Support::{Full, Ignored, Only, Refused};

impl Keyword {
    pub(crate) fn find(name: &str) -> Option<&'static Self> {
        // `tokio-postgres` calls `keepalives_count` by this name.
        let name = if name == "keepalives_retries" { "keepalives_count" } else { name };
        KEYWORDS.iter().find(|keyword| keyword.name == name)
    }
}

const fn with_variable(name: &'static str, variable: &'static str, support: Support) -> Keyword {
    Keyword { name, variable: Some(variable), support }
}

const fn without_variable(name: &'static str, support: Support) -> Keyword {
    Keyword { name, variable: None, support }
}

const NO_GSS: &str = "GSSAPI encryption is not supported; use `disable`, and TLS (`sslmode`)";
const NO_KEY_PASSWORD: &str =
    "encrypted private keys are not supported; decrypt the file: `openssl pkey -in KEY -out NEW`";
const NO_PEER: &str = "the user that owns a socket cannot be verified; connect over TCP with \
                       `sslmode=verify-full`";
const NO_AUTH_CHOICE: &str = "requiring an authentication method is not supported; use \
                              `sslmode=verify-full`, or `channel_binding=require`";
const NO_OAUTH: &str = "OAuth is not supported; use a password or a client certificate";
const NO_SCRAM_KEYS: &str = "SCRAM keys are not supported; use the password";

/// `service` and `servicefile` come first, because they select another source.
pub(crate) const KEYWORDS: [Keyword; 52] = [
    with_variable("service", "PGSERVICE", Full),
    with_variable("servicefile", "PGSERVICEFILE", Full),
    with_variable("host", "PGHOST", Full),
    with_variable("hostaddr", "PGHOSTADDR", Full),
    with_variable("port", "PGPORT", Full),
    with_variable("user", "PGUSER", Full),
    with_variable("password", "PGPASSWORD", Full),
    with_variable("passfile", "PGPASSFILE", Full),
    with_variable("dbname", "PGDATABASE", Full),
    with_variable("options", "PGOPTIONS", Full),
    with_variable("application_name", "PGAPPNAME", Full),
    without_variable("fallback_application_name", Full),
    with_variable("connect_timeout", "PGCONNECT_TIMEOUT", Full),
    with_variable("target_session_attrs", "PGTARGETSESSIONATTRS", Full),
    with_variable("load_balance_hosts", "PGLOADBALANCEHOSTS", Full),
    without_variable("keepalives", Full),
    without_variable("keepalives_idle", Full),
    without_variable("keepalives_interval", Full),
    without_variable("keepalives_count", Full),
    without_variable("tcp_user_timeout", Full),
    with_variable("sslmode", "PGSSLMODE", Full),
    with_variable("sslnegotiation", "PGSSLNEGOTIATION", Full),
    with_variable("sslrootcert", "PGSSLROOTCERT", Full),
    with_variable("sslcert", "PGSSLCERT", Full),
    with_variable("sslkey", "PGSSLKEY", Full),
    with_variable("sslcertmode", "PGSSLCERTMODE", Full),
    with_variable("sslcrl", "PGSSLCRL", Full),
    with_variable("sslsni", "PGSSLSNI", Full),
    with_variable("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", Full),
    with_variable("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION", Full),
    with_variable("channel_binding", "PGCHANNELBINDING", Full),
    with_variable(
        "sslcrldir",
        "PGSSLCRLDIR",
        Refused("name one file of revoked certificates with `sslcrl`"),
    ),
    without_variable("sslpassword", Refused(NO_KEY_PASSWORD)),
    with_variable("sslcompression", "PGSSLCOMPRESSION", Ignored),
    without_variable("sslkeylogfile", Refused("logging TLS keys is not supported")),
    with_variable("requirepeer", "PGREQUIREPEER", Refused(NO_PEER)),
    with_variable("require_auth", "PGREQUIREAUTH", Refused(NO_AUTH_CHOICE)),
    with_variable("gssencmode", "PGGSSENCMODE", Only(&["disable", "prefer"], NO_GSS)),
    with_variable("krbsrvname", "PGKRBSRVNAME", Ignored),
    with_variable("gsslib", "PGGSSLIB", Ignored),
    with_variable("gssdelegation", "PGGSSDELEGATION", Ignored),
    without_variable("scram_client_key", Refused(NO_SCRAM_KEYS)),
    without_variable("scram_server_key", Refused(NO_SCRAM_KEYS)),
    without_variable("oauth_issuer", Refused(NO_OAUTH)),
    without_variable("oauth_client_id", Refused(NO_OAUTH)),
    without_variable("oauth_client_secret", Refused(NO_OAUTH)),
    without_variable("oauth_scope", Refused(NO_OAUTH)),
    without_variable("replication", Refused("the store does not use replication connections")),
    without_variable(
        "client_encoding",
        Only(&["UTF8", "utf8", "UTF-8", "utf-8", "auto"], "the store supports only UTF8"),
    ),
    with_variable(
        "min_protocol_version",
        "PGMINPROTOCOLVERSION",
        Only(&["3.0"], "the store supports only protocol version 3.0"),
    ),
    with_variable("max_protocol_version", "PGMAXPROTOCOLVERSION", Ignored),
    without_variable("authtype", Ignored),
];
