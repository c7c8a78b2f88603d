//! libpq's session parameters: user, database, timeouts, socket options, required server state.

use std::time::Duration;

use cubbyhole_core::{Error, Result};
use socket2::TcpKeepalive;
use tokio_postgres::config::{ChannelBinding, SslNegotiation};

use super::environment::Environment;
use super::parameters::Parameters;

const APPLICATION_NAME: &str = "cubbyhole";
/// The default idle time before TCP keepalive probes, which detect a dead peer.
const DEFAULT_KEEPALIVE: Duration = Duration::from_secs(60);
/// The default time that sent data may stay unacknowledged by the peer.
const DEFAULT_USER_TIMEOUT: Duration = Duration::from_secs(30);

/// The session parameters that are equal for all hosts.
#[derive(Clone)]
pub(crate) struct SessionParameters {
    /// The driver's configuration, without hosts, password and `sslmode`.
    pub(crate) server: tokio_postgres::Config,
    pub(crate) user: String,
    pub(crate) database: String,
    /// `None` if not set.
    pub(crate) connect_timeout: Option<Duration>,
    pub(crate) attrs: SessionAttrs,
    pub(crate) shuffles_hosts: bool,
    pub(crate) socket: SocketOptions,
}

/// The required state of the server: libpq's `target_session_attrs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SessionAttrs {
    Any,
    ReadWrite,
    ReadOnly,
    Primary,
    Standby,
    PreferStandby,
}

#[derive(Debug, Clone)]
pub(crate) struct SocketOptions {
    pub(crate) keepalive: Option<TcpKeepalive>,
    /// Zero selects the default of the operating system.
    #[cfg_attr(
        not(any(target_os = "linux", target_os = "android")),
        expect(dead_code, reason = "only Linux and Android have this socket option")
    )]
    pub(crate) user_timeout: Duration,
}

impl SessionParameters {
    pub(crate) fn new(parameters: &Parameters, environment: &Environment) -> Result<Self> {
        let user = match parameters.text("user")? {
            Some((user, _)) => user.to_owned(),
            None => environment.user.clone().ok_or_else(|| {
                Error::invalid_argument(
                    "the PostgreSQL URL names no user, and the user of this process has no name: write \
                     `postgres://USER@HOST/DATABASE` or set PGUSER",
                )
            })?,
        };
        let database = parameters.text("dbname")?.map_or(&*user, |(name, _)| name).to_owned();
        let mut server = tokio_postgres::Config::new();
        server.user(&*user).dbname(&*database);
        let application_name = match parameters.text("application_name")? {
            Some(name) => Some(name),
            None => parameters.text("fallback_application_name")?,
        };
        server.application_name(application_name.map_or(APPLICATION_NAME, |(name, _)| name));
        if let Some((options, _)) = parameters.text("options")? {
            server.options(options);
        }
        let advice = "write `disable`, `prefer` or `require`";
        let binding = parameters.parsed("channel_binding", advice, |value| match value {
            "disable" => Some(ChannelBinding::Disable),
            "prefer" => Some(ChannelBinding::Prefer),
            "require" => Some(ChannelBinding::Require),
            _ => None,
        })?;
        server.channel_binding(binding.unwrap_or(ChannelBinding::Prefer));
        let advice = "write `postgres` or `direct`";
        let negotiation = parameters.parsed("sslnegotiation", advice, |value| match value {
            "postgres" => Some(SslNegotiation::Postgres),
            "direct" => Some(SslNegotiation::Direct),
            _ => None,
        })?;
        server.ssl_negotiation(negotiation.unwrap_or(SslNegotiation::Postgres));
        let advice = "write `disable` or `random`";
        let shuffles = parameters.parsed("load_balance_hosts", advice, |value| match value {
            "disable" => Some(false),
            "random" => Some(true),
            _ => None,
        })?;
        let advice = "write a whole number of seconds, or 0 to wait indefinitely";
        let connect_timeout = parameters.parsed("connect_timeout", advice, |value| {
            Some(match value.trim().parse::<i32>().ok()? {
                ..=0 => Duration::MAX,
                seconds => Duration::from_secs(seconds.unsigned_abs().into()),
            })
        })?;
        Ok(Self {
            server,
            user,
            database,
            connect_timeout,
            attrs: attrs(parameters)?,
            shuffles_hosts: shuffles.unwrap_or(false),
            socket: socket(parameters)?,
        })
    }
}

fn attrs(parameters: &Parameters) -> Result<SessionAttrs> {
    let advice = "write `any`, `read-write`, `read-only`, `primary`, `standby` or `prefer-standby`";
    let attrs = parameters.parsed("target_session_attrs", advice, |value| {
        Some(match value {
            "any" => SessionAttrs::Any,
            "read-write" => SessionAttrs::ReadWrite,
            "read-only" => SessionAttrs::ReadOnly,
            "primary" => SessionAttrs::Primary,
            "standby" => SessionAttrs::Standby,
            "prefer-standby" => SessionAttrs::PreferStandby,
            _ => return None,
        })
    })?;
    Ok(attrs.unwrap_or(SessionAttrs::Any))
}

fn socket(parameters: &Parameters) -> Result<SocketOptions> {
    // As in libpq, zero and negative values select the default of the operating system.
    let number = |name, advice| {
        let read = |value: &str| Some(value.trim().parse::<i32>().ok()?.max(0).unsigned_abs());
        parameters.parsed(name, advice, read)
    };
    let seconds = |name| {
        let seconds = number(name, "write a whole number of seconds")?;
        Ok::<_, Error>(seconds.map(|seconds| Duration::from_secs(seconds.into())))
    };
    let keepalives = number("keepalives", "write `1` or `0`")?.is_none_or(|value| value != 0);
    let mut keepalive = TcpKeepalive::new();
    let idle = seconds("keepalives_idle")?.unwrap_or(DEFAULT_KEEPALIVE);
    if !idle.is_zero() {
        keepalive = keepalive.with_time(idle);
    }
    if let Some(interval) = seconds("keepalives_interval")?.filter(|time| !time.is_zero()) {
        keepalive = keepalive.with_interval(interval);
    }
    let count = number("keepalives_count", "write a whole number")?.filter(|count| *count > 0);
    if let Some(count) = count {
        keepalive = keepalive.with_retries(count);
    }
    let millis = number("tcp_user_timeout", "write a whole number of milliseconds")?;
    let user_timeout = millis.map(|millis| Duration::from_millis(millis.into()));
    Ok(SocketOptions {
        keepalive: keepalives.then_some(keepalive),
        user_timeout: user_timeout.unwrap_or(DEFAULT_USER_TIMEOUT),
    })
}
