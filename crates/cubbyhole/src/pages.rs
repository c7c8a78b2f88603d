//! Compiles the Rust examples of the documentation pages as doc tests.
//!
//! To add a page, add an empty module whose documentation is the page. Blocks that need a server or
//! write a file are marked `rust,no_run`; blocks of other languages need a language (`text`, `toml`).

#[doc = include_str!("../../../README.md")]
mod readme {}

#[doc = include_str!("../../../docs/quickstart.md")]
mod quickstart {}

#[doc = include_str!("../../../docs/introduction.md")]
mod introduction {}

#[doc = include_str!("../../../docs/concepts.md")]
mod concepts {}

#[doc = include_str!("../../../docs/guides/agent-memory.md")]
mod guide_agent_memory {}

#[doc = include_str!("../../../docs/guides/sessions.md")]
mod guide_sessions {}

#[doc = include_str!("../../../docs/guides/jobs.md")]
mod guide_jobs {}

#[doc = include_str!("../../../docs/guides/your-own-backend.md")]
mod guide_your_own_backend {}

#[doc = include_str!("../../../docs/guides/services.md")]
mod guide_services {}

#[doc = include_str!("../../../docs/backends/memory.md")]
mod backend_memory {}

#[doc = include_str!("../../../docs/backends/embedded.md")]
mod backend_embedded {}

#[doc = include_str!("../../../docs/backends/postgres.md")]
mod backend_postgres {}

#[doc = include_str!("../../../docs/backends/redis.md")]
mod backend_redis {}

#[doc = include_str!("../../../docs/layers/README.md")]
mod layers {}

#[doc = include_str!("../../../docs/layers/scoped.md")]
mod layer_scoped {}

#[doc = include_str!("../../../docs/layers/read-only.md")]
mod layer_read_only {}

#[doc = include_str!("../../../docs/layers/limited.md")]
mod layer_limited {}

#[doc = include_str!("../../../docs/layers/ttl-policy.md")]
mod layer_ttl_policy {}

#[doc = include_str!("../../../docs/layers/cached.md")]
mod layer_cached {}

#[doc = include_str!("../../../docs/layers/timeout.md")]
mod layer_timeout {}

#[doc = include_str!("../../../docs/layers/retry.md")]
mod layer_retry {}

#[doc = include_str!("../../../docs/layers/compressed.md")]
mod layer_compressed {}

#[doc = include_str!("../../../docs/layers/encrypted.md")]
mod layer_encrypted {}

#[doc = include_str!("../../../docs/layers/faulty.md")]
mod layer_faulty {}

#[doc = include_str!("../README.md")]
mod crate_cubbyhole {}

#[doc = include_str!("../../cubbyhole-conformance/README.md")]
mod crate_conformance {}

#[doc = include_str!("../../cubbyhole-core/README.md")]
mod crate_core {}

#[doc = include_str!("../../cubbyhole-embedded/README.md")]
mod crate_embedded {}

#[doc = include_str!("../../cubbyhole-layers/README.md")]
mod crate_layers {}

#[doc = include_str!("../../cubbyhole-memory/README.md")]
mod crate_memory {}

#[doc = include_str!("../../cubbyhole-postgres/README.md")]
mod crate_postgres {}

#[doc = include_str!("../../cubbyhole-redis/README.md")]
mod crate_redis {}

#[doc = include_str!("../../cubbyhole-telemetry/README.md")]
mod crate_telemetry {}
