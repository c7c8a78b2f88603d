-- Creates the table, its row security, and the functions that the store calls.
--
-- The migration replaces @schema@ and the roles @app@, @sweeper@, @enumerator@, @operator@ and
-- @auditor@ with quoted names. Each function implements one call of the store: it sets the tenant
-- for its transaction, so row security shows only that tenant's rows, and does the work in the same
-- round trip.
--
-- Rules for all functions:
--   * A read takes the time before its statement takes a snapshot. With a later time, an entry
--     whose TTL was extended in between would look expired. A write takes the time after it has
--     locked the row.
--   * Timestamps are milliseconds since 1970. TTLs are in milliseconds.
--   * The server may cache a plan while the table is small and keep it when the table has grown.
--     Such a plan must not read the whole table, so sequential scans are off. Functions that read a
--     range in order also turn off bitmap scans, sorts and JIT (the nominal cost of disabled plans
--     would trigger JIT). Keys in an array are looked up one by one, each in a subquery with LIMIT,
--     which leaves the planner no alternative.
--
-- Functions in policies have a body that is bound when they are created (RETURN). The server
-- resolves the names in a text body in the caller's search_path at every call.

-- Returns the tenant of a namespace: its first component, with escapes; NULL if there is none.
CREATE FUNCTION @schema@.tenant_of(namespace text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN strpos(namespace, '\') = 0 THEN nullif(split_part(namespace, ':', 1), '')
    ELSE substring(namespace FROM '^(?:[^:\\]|\\[:\\])+') END;

-- Checks that a row is valid. One function implements all rules, because the server parses the text
-- of each constraint at every statement that writes. Operators are qualified with pg_catalog, so
-- the caller's search_path has no effect, and string literals (E'') do not depend on settings. The
-- function never returns NULL, which a constraint accepts as true.
CREATE FUNCTION @schema@.is_entry(
    namespace text, key text, tenant text, created_at bigint, updated_at bigint, expires_at bigint
) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
    -- Nobody writes into another tenant's names, and a namespace is one that can be parsed.
    IF pg_catalog.strpos(namespace, E'\\') OPERATOR(pg_catalog.=) 0 THEN
        IF tenant OPERATOR(pg_catalog.=) ''
            OR tenant OPERATOR(pg_catalog.<>) pg_catalog.split_part(namespace, ':', 1)
        THEN
            RETURN false;
        END IF;
    ELSIF namespace OPERATOR(pg_catalog.!~) E'^(?:[^:\\\\]|\\\\[:\\\\])+(?::(?:[^:\\\\]|\\\\[:\\\\])*)*$'
        OR tenant OPERATOR(pg_catalog.<>)
            pg_catalog.substring(namespace, E'^(?:[^:\\\\]|\\\\[:\\\\])+')
    THEN
        RETURN false;
    END IF;
    -- Names are short, and instants can be read: up to the end of the year 9999.
    RETURN pg_catalog.octet_length(namespace) OPERATOR(pg_catalog.<=) 1024
        AND pg_catalog.octet_length(key) OPERATOR(pg_catalog.<=) 1024
        AND least(created_at, updated_at, expires_at) OPERATOR(pg_catalog.>=) 0
        AND greatest(created_at, updated_at, expires_at) OPERATOR(pg_catalog.<=) 253402300799999;
END $$;

CREATE TABLE @schema@.entries (
    namespace  text   COLLATE "C" NOT NULL,
    key        text   COLLATE "C" NOT NULL,
    -- Not part of an index with namespace and key: three names of 1,024 bytes exceed an index row.
    tenant     text   COLLATE "C" NOT NULL,
    version    uuid   NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL,
    expires_at bigint,
    value      bytea  NOT NULL,
    -- The index includes the expiry, so listings can use index-only scans on vacuumed pages.
    PRIMARY KEY (namespace, key) INCLUDE (expires_at),
    CONSTRAINT entry_is_valid CHECK (
        @schema@.is_entry(namespace, key, tenant, created_at, updated_at, expires_at)
    )
);

CREATE INDEX entries_expiry ON @schema@.entries (expires_at) WHERE expires_at IS NOT NULL;

ALTER TABLE @schema@.entries ENABLE ROW LEVEL SECURITY;
ALTER TABLE @schema@.entries FORCE ROW LEVEL SECURITY;

-- Returns the current time, which decides which entries have expired. Tests replace this function.
CREATE FUNCTION @schema@.clock() RETURNS bigint
LANGUAGE sql VOLATILE PARALLEL SAFE
RETURN floor(date_part('epoch', clock_timestamp()) * 1000)::bigint;

-- Returns the end of the year 9999, the last valid timestamp.
CREATE FUNCTION @schema@.end_of_time() RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN 253402300799999;

-- Returns when an entry expires that is written at `now`.
CREATE FUNCTION @schema@.expiry(now bigint, ttl bigint, instant bigint) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN ttl IS NULL THEN instant ELSE least(now + ttl, @schema@.end_of_time()) END;

-- Returns a string that is greater than every key. Keys have at most 1,024 bytes.
CREATE FUNCTION @schema@.past_every_key() RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN repeat(U&'\+10FFFF', 257);

CREATE FUNCTION @schema@.check_ttl(now bigint, ttl bigint) RETURNS void
LANGUAGE plpgsql IMMUTABLE
AS $$
BEGIN
    IF ttl > @schema@.end_of_time() - now THEN
        RAISE EXCEPTION 'the TTL ends past the year 9999' USING ERRCODE = 'CBH01';
    END IF;
END $$;

CREATE FUNCTION @schema@.get(p_tenant text, p_namespace text, p_key text) RETURNS bytea
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    found_value bytea;
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    SELECT e.value INTO found_value FROM @schema@.entries e
        WHERE e.namespace = p_namespace AND e.key = p_key
            AND (e.expires_at IS NULL OR e.expires_at > now);
    RETURN found_value;
END $$;

CREATE FUNCTION @schema@.get_entry(
    p_tenant text, p_namespace text, p_key text, p_extend bigint
) RETURNS TABLE (version uuid, created_at bigint, updated_at bigint, expires_at bigint, value bytea)
LANGUAGE plpgsql VOLATILE ROWS 1 SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    IF p_extend IS NOT NULL THEN
        PERFORM @schema@.check_ttl(now, p_extend);
        -- Only an entry that expires is locked: reading others costs no write. (`coalesce` keeps
        -- the planner from the index of expiries: of anything strict it knows that the column is
        -- not null, and then may read that index from end to end.)
        PERFORM 1 FROM @schema@.entries e
            WHERE e.namespace = p_namespace AND e.key = p_key AND coalesce(e.expires_at, 0) > 0
            FOR UPDATE;
        now := @schema@.clock();
        UPDATE @schema@.entries e SET expires_at = @schema@.expiry(now, p_extend, NULL)
            WHERE e.namespace = p_namespace AND e.key = p_key AND coalesce(e.expires_at, 0) > now
                AND coalesce(e.expires_at, 0) < @schema@.expiry(now, p_extend, NULL);
    END IF;
    RETURN QUERY SELECT e.version, e.created_at, e.updated_at, e.expires_at, e.value
        FROM @schema@.entries e
        WHERE e.namespace = p_namespace AND e.key = p_key
            AND (e.expires_at IS NULL OR e.expires_at > now);
END $$;

-- One statement reads one snapshot, so a batch is visible completely or not at all.
CREATE FUNCTION @schema@.get_many(p_tenant text, p_namespace text, p_keys text[])
RETURNS TABLE (
    key text, version uuid, created_at bigint, updated_at bigint, expires_at bigint, value bytea
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    RETURN QUERY SELECT e.key, e.version, e.created_at, e.updated_at, e.expires_at, e.value
        FROM unnest(p_keys) AS wanted (key) CROSS JOIN LATERAL (
            SELECT * FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key = wanted.key LIMIT 1
        ) e
        WHERE e.expires_at IS NULL OR e.expires_at > now;
END $$;

CREATE FUNCTION @schema@.put(
    p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
    p_ttl bigint, p_instant bigint
) RETURNS void
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    IF p_ttl IS NOT NULL THEN
        PERFORM @schema@.check_ttl(now, p_ttl);
    END IF;
    -- What stands after SET is computed once the row is locked, and reads the clock anew.
    INSERT INTO @schema@.entries AS e
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
        VALUES (p_namespace, p_key, p_tenant, p_version, now, now,
            @schema@.expiry(now, p_ttl, p_instant), p_value)
        ON CONFLICT (namespace, key) DO UPDATE SET
            version = excluded.version,
            value = excluded.value,
            (created_at, updated_at, expires_at) = (
                SELECT CASE WHEN e.expires_at <= t.now THEN t.now ELSE e.created_at END,
                    t.now, @schema@.expiry(t.now, p_ttl, p_instant)
                FROM (SELECT @schema@.clock() AS now) t
            );
END $$;

-- Writes if the entry has the version `p_expected`, or is absent if `p_expected` is NULL. Otherwise
-- returns the current version in `current`.
CREATE FUNCTION @schema@.put_if(
    p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
    p_ttl bigint, p_instant bigint, p_expected uuid, OUT written boolean, OUT current uuid
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    IF p_ttl IS NOT NULL THEN
        PERFORM @schema@.check_ttl(now, p_ttl);
    END IF;
    IF p_expected IS NULL THEN
        -- The condition after WHERE is judged once the row is locked.
        INSERT INTO @schema@.entries AS e
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
            VALUES (p_namespace, p_key, p_tenant, p_version, now, now,
                @schema@.expiry(now, p_ttl, p_instant), p_value)
            ON CONFLICT (namespace, key) DO UPDATE SET
                version = excluded.version,
                value = excluded.value,
                (created_at, updated_at, expires_at) = (
                    SELECT t.now, t.now, @schema@.expiry(t.now, p_ttl, p_instant)
                    FROM (SELECT @schema@.clock() AS now) t
                )
            WHERE e.expires_at <= @schema@.clock();
        written := FOUND;
        IF NOT written THEN
            SELECT e.version INTO current FROM @schema@.entries e
                WHERE e.namespace = p_namespace AND e.key = p_key;
        END IF;
        RETURN;
    END IF;
    current := @schema@.lock_entry(p_namespace, p_key);
    written := current IS NOT DISTINCT FROM p_expected;
    IF written THEN
        now := @schema@.clock();
        UPDATE @schema@.entries e SET version = p_version, value = p_value, updated_at = now,
                expires_at = @schema@.expiry(now, p_ttl, p_instant)
            WHERE e.namespace = p_namespace AND e.key = p_key;
    END IF;
END $$;

-- Locks the row and returns its version, or NULL if the entry is absent or has expired. The caller
-- must have set the tenant.
CREATE FUNCTION @schema@.lock_entry(p_namespace text, p_key text) RETURNS uuid
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    current uuid;
    expiry bigint;
BEGIN
    SELECT e.version, e.expires_at INTO current, expiry FROM @schema@.entries e
        WHERE e.namespace = p_namespace AND e.key = p_key FOR UPDATE;
    IF expiry <= @schema@.clock() THEN
        RETURN NULL;
    END IF;
    RETURN current;
END $$;

CREATE FUNCTION @schema@.delete(p_tenant text, p_namespace text, p_key text) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    was_live boolean;
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    DELETE FROM @schema@.entries e WHERE e.namespace = p_namespace AND e.key = p_key
        RETURNING e.expires_at IS NULL OR e.expires_at > @schema@.clock() INTO was_live;
    RETURN coalesce(was_live, false);
END $$;

-- Deletes the entry if it has the version `p_expected`. If `p_expected` is NULL, only checks that
-- the entry is absent.
CREATE FUNCTION @schema@.delete_if(
    p_tenant text, p_namespace text, p_key text, p_expected uuid,
    OUT held boolean, OUT current uuid
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    current := @schema@.lock_entry(p_namespace, p_key);
    held := current IS NOT DISTINCT FROM p_expected;
    IF held AND p_expected IS NOT NULL THEN
        DELETE FROM @schema@.entries e WHERE e.namespace = p_namespace AND e.key = p_key;
    END IF;
END $$;

CREATE FUNCTION @schema@.take(p_tenant text, p_namespace text, p_key text)
RETURNS TABLE (version uuid, created_at bigint, updated_at bigint, expires_at bigint, value bytea)
LANGUAGE plpgsql VOLATILE ROWS 1 SET enable_seqscan = off
AS $$
DECLARE
    taken @schema@.entries;
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    DELETE FROM @schema@.entries e WHERE e.namespace = p_namespace AND e.key = p_key
        RETURNING e.* INTO taken;
    IF taken.version IS NOT NULL
        AND (taken.expires_at IS NULL OR taken.expires_at > @schema@.clock())
    THEN
        RETURN QUERY SELECT
            taken.version, taken.created_at, taken.updated_at, taken.expires_at, taken.value;
    END IF;
END $$;

CREATE FUNCTION @schema@.touch(
    p_tenant text, p_namespace text, p_key text, p_ttl bigint, p_instant bigint
) RETURNS boolean
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    IF p_ttl IS NOT NULL THEN
        PERFORM @schema@.check_ttl(now, p_ttl);
    END IF;
    IF @schema@.lock_entry(p_namespace, p_key) IS NULL THEN
        RETURN false;
    END IF;
    UPDATE @schema@.entries e
        SET expires_at = @schema@.expiry(@schema@.clock(), p_ttl, p_instant)
        WHERE e.namespace = p_namespace AND e.key = p_key;
    RETURN true;
END $$;

-- Applies a batch. The operations are in key order, and `p_places` are their positions in the
-- caller's batch. A put has a version, a delete has none. Conditions: 0 none, 1 absent, 2 the
-- expected version.
--
-- The function first locks every key in key order, then checks the conditions, then applies puts
-- and deletes. Two batches with a common key are therefore serialised. An absent key cannot be
-- locked. A put claims it with its insert. A delete inserts nothing, so in a batch with deletes the
-- function claims all absent keys with expired rows, which it removes at the end. If a concurrent
-- change breaks this protocol, the function raises a serialization failure and the store retries
-- the batch.
CREATE FUNCTION @schema@.write_batch(
    p_tenant text, p_namespace text, p_keys text[], p_places integer[], p_conditions integer[],
    p_expected uuid[], p_versions uuid[], p_ttls bigint[], p_instants bigint[], p_values bytea[],
    OUT failed integer, OUT current uuid
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    locked bigint;
    seen bigint;
    next_expiry bigint;
    lost bigint;
    claimed bigint;
    nobody CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    PERFORM @schema@.check_ttl(now, max(ttl)) FROM unnest(p_ttls) AS ttl;
    IF array_position(p_versions, NULL) IS NOT NULL THEN
        -- Rows that exist stay locked although the condition lets none be changed.
        INSERT INTO @schema@.entries AS e
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
            SELECT p_namespace, o.key, p_tenant, nobody, 0, 0, 0, '' FROM unnest(p_keys) AS o (key)
            ON CONFLICT (namespace, key) DO UPDATE SET version = e.version WHERE false;
    END IF;
    PERFORM 1 FROM unnest(p_keys) AS o (key) CROSS JOIN LATERAL (
        SELECT 1 FROM @schema@.entries d
        WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1 FOR UPDATE
    ) e;
    GET DIAGNOSTICS locked = ROW_COUNT;

    now := @schema@.clock();
    SELECT count(e.key), min(e.expires_at) FILTER (WHERE e.expires_at > now),
            count(*) FILTER (WHERE CASE o.condition
                WHEN 1 THEN e.key IS NOT NULL AND (e.expires_at IS NULL OR e.expires_at > now)
                WHEN 2 THEN e.version IS DISTINCT FROM o.expected OR e.expires_at <= now
                ELSE false END)
        INTO seen, next_expiry, lost
        FROM unnest(p_keys, p_conditions, p_expected) AS o (key, condition, expected)
        LEFT JOIN LATERAL (
            SELECT d.key, d.version, d.expires_at FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1
        ) e ON true;
    -- An entry came after the locks were taken: it is not locked.
    IF seen <> locked THEN
        RAISE EXCEPTION 'a key was written meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
    IF lost > 0 THEN
        SELECT o.place, CASE WHEN e.expires_at <= now THEN NULL ELSE e.version END
            INTO failed, current
            FROM unnest(p_keys, p_conditions, p_expected, p_places)
                AS o (key, condition, expected, place)
            LEFT JOIN LATERAL (
                SELECT d.key, d.version, d.expires_at FROM @schema@.entries d
                WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1
            ) e ON true
            WHERE CASE o.condition
                WHEN 1 THEN e.key IS NOT NULL AND (e.expires_at IS NULL OR e.expires_at > now)
                WHEN 2 THEN e.version IS DISTINCT FROM o.expected OR e.expires_at <= now
                ELSE false END
            ORDER BY o.place LIMIT 1;
        DELETE FROM @schema@.entries e WHERE e.ctid = ANY (ARRAY(
            SELECT l.place FROM unnest(p_keys) AS o (key)
            CROSS JOIN LATERAL (
                SELECT d.ctid AS place, d.version FROM @schema@.entries d
                WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1
            ) l
            WHERE l.version = nobody
        ));
        RETURN;
    END IF;

    INSERT INTO @schema@.entries AS e
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
        SELECT p_namespace, o.key, p_tenant, o.version, now, now,
                @schema@.expiry(now, o.ttl, o.instant), o.value
            FROM unnest(p_keys, p_conditions, p_versions, p_ttls, p_instants, p_values)
                AS o (key, condition, version, ttl, instant, value)
            WHERE o.version IS NOT NULL AND o.condition <> 1
        ON CONFLICT (namespace, key) DO UPDATE SET
            version = excluded.version,
            value = excluded.value,
            expires_at = excluded.expires_at,
            (created_at, updated_at) = (
                SELECT CASE WHEN e.expires_at <= t.now THEN t.now ELSE e.created_at END, t.now
                FROM (SELECT @schema@.clock() AS now) t
            );
    IF 1 = ANY (p_conditions) THEN
        INSERT INTO @schema@.entries AS e
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value)
            SELECT p_namespace, o.key, p_tenant, o.version, now, now,
                    @schema@.expiry(now, o.ttl, o.instant), o.value
                FROM unnest(p_keys, p_conditions, p_versions, p_ttls, p_instants, p_values)
                    AS o (key, condition, version, ttl, instant, value)
                WHERE o.version IS NOT NULL AND o.condition = 1
            ON CONFLICT (namespace, key) DO UPDATE SET
                version = excluded.version,
                value = excluded.value,
                created_at = now,
                updated_at = now,
                expires_at = excluded.expires_at
            WHERE e.expires_at <= now;
        GET DIAGNOSTICS claimed = ROW_COUNT;
        IF claimed <> (SELECT count(*) FROM unnest(p_conditions, p_versions) AS o (c, v)
            WHERE o.c = 1 AND o.v IS NOT NULL)
        THEN
            RAISE EXCEPTION 'a key was written meanwhile' USING ERRCODE = 'serialization_failure';
        END IF;
    END IF;
    IF array_position(p_versions, NULL) IS NOT NULL THEN
        DELETE FROM @schema@.entries e WHERE e.ctid = ANY (ARRAY(
            SELECT l.place FROM unnest(p_keys, p_versions) AS o (key, version)
            CROSS JOIN LATERAL (
                SELECT d.ctid AS place FROM @schema@.entries d
                WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1
            ) l
            WHERE o.version IS NULL
        ));
    END IF;
    -- The conditions must still hold now that everything is locked.
    IF next_expiry <= @schema@.clock() AND (1 = ANY (p_conditions) OR 2 = ANY (p_conditions)) THEN
        RAISE EXCEPTION 'an entry expired meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
END $$;

-- Returns the keys in [p_from, p_to), or all keys from `p_from` if `p_to` is NULL.
CREATE FUNCTION @schema@.list(p_tenant text, p_namespace text, p_from text, p_to text)
RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    p_to := coalesce(p_to, @schema@.past_every_key());
    RETURN QUERY SELECT e.key FROM @schema@.entries e
        WHERE e.namespace = p_namespace AND e.key >= p_from AND e.key < p_to
            AND (e.expires_at IS NULL OR e.expires_at > now)
        ORDER BY e.key;
END $$;

-- Returns a page of at most `p_limit` entries in [p_from, p_to). If an entry would exceed
-- `p_bytes`, the page ends with that entry, without its value, to show that there are more. `value`
-- is also NULL if `p_values` is false.
CREATE FUNCTION @schema@.scan(
    p_tenant text, p_namespace text, p_from text, p_to text,
    p_limit integer, p_bytes bigint, p_values boolean
) RETURNS TABLE (
    key text, version uuid, created_at bigint, updated_at bigint, expires_at bigint,
    value_bytes integer, value bytea
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    p_to := coalesce(p_to, @schema@.past_every_key());
    RETURN QUERY SELECT p.key, p.version, p.created_at, p.updated_at, p.expires_at, p.size,
            CASE WHEN p_values AND (p.bytes <= p_bytes OR p.place = 1) THEN p.value END
        FROM (
            SELECT e.*, octet_length(e.value) AS size,
                sum(octet_length(e.key) + CASE WHEN p_values THEN octet_length(e.value) ELSE 0 END)
                    OVER w AS bytes,
                row_number() OVER w AS place
            FROM @schema@.entries e
            WHERE e.namespace = p_namespace AND e.key >= p_from AND e.key < p_to
                AND (e.expires_at IS NULL OR e.expires_at > now)
            WINDOW w AS (ORDER BY e.key ROWS UNBOUNDED PRECEDING)
            ORDER BY e.key LIMIT p_limit
        ) p
        WHERE p.place <= 2 OR p_bytes >=
            p.bytes - octet_length(p.key) - CASE WHEN p_values THEN p.size ELSE 0 END;
END $$;

-- Returns at most `p_limit` namespaces under a prefix, after `p_after`, that contain a live entry.
-- Each step looks up the next namespace in the index, regardless of the number of entries between.
-- (No name contains NUL, so the first possible name after `a` is `a` and U+0001.)
CREATE FUNCTION @schema@.namespaces(
    p_tenant text, p_prefix text, p_after text, p_limit bigint
) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    low text := p_prefix || ':';
    high text := p_prefix || ';';
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    -- Names such as `a-b` stand between `a` and `a:`, so the prefix itself is looked up apart.
    IF p_after IS NULL OR p_after COLLATE "C" < p_prefix THEN
        RETURN QUERY SELECT e.namespace FROM @schema@.entries e
            WHERE e.namespace = p_prefix AND (e.expires_at IS NULL OR e.expires_at > now)
            ORDER BY e.namespace, e.key LIMIT 1;
        IF FOUND THEN
            p_limit := p_limit - 1;
        END IF;
    END IF;
    IF p_after COLLATE "C" >= low THEN
        low := p_after || chr(1);
    END IF;
    -- The last one is looked up first: the steps between then need no upper bound, which the
    -- index would compare with every key on the page of each step.
    RETURN QUERY WITH RECURSIVE last AS MATERIALIZED (
        SELECT e.namespace FROM @schema@.entries e
            WHERE e.namespace >= low AND e.namespace < high
                AND (e.expires_at IS NULL OR e.expires_at > now)
            ORDER BY e.namespace DESC, e.key DESC LIMIT 1
    ), found AS (
        (SELECT e.namespace FROM @schema@.entries e
            WHERE e.namespace >= low AND e.namespace < high
                AND (e.expires_at IS NULL OR e.expires_at > now)
            ORDER BY e.namespace, e.key LIMIT 1)
        UNION ALL
        SELECT (SELECT e.namespace FROM @schema@.entries e
            WHERE e.namespace > f.namespace
                AND (e.expires_at IS NULL OR e.expires_at > now)
            ORDER BY e.namespace, e.key LIMIT 1)
        FROM found f WHERE f.namespace < (SELECT l.namespace FROM last l)
    ) SELECT f.namespace FROM found f LIMIT p_limit;
END $$;

CREATE FUNCTION @schema@.usage(
    p_tenant text, p_prefix text,
    OUT namespaces bigint, OUT entries bigint, OUT bytes bigint, OUT expired bigint
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    low text := p_prefix || ':';
    high text := p_prefix || ';';
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    -- Two ranges apart: joined by OR, a plan may read the whole index instead.
    SELECT count(*) FILTER (WHERE n.live > 0), coalesce(sum(n.live), 0),
            coalesce(sum(n.size), 0), coalesce(sum(n.dead), 0)
        INTO namespaces, entries, bytes, expired
        FROM (
            SELECT count(*) FILTER (WHERE e.is_live) AS live,
                sum(e.size) FILTER (WHERE e.is_live) AS size,
                count(*) FILTER (WHERE NOT e.is_live) AS dead
            FROM (
                SELECT o.namespace, octet_length(o.key) + octet_length(o.value) AS size,
                    o.expires_at IS NULL OR o.expires_at > now AS is_live
                FROM @schema@.entries o WHERE o.namespace = p_prefix
                UNION ALL
                SELECT b.namespace, octet_length(b.key) + octet_length(b.value),
                    b.expires_at IS NULL OR b.expires_at > now
                FROM @schema@.entries b WHERE b.namespace >= low AND b.namespace < high
            ) e
            GROUP BY e.namespace
        ) n;
END $$;

-- Removes at most `p_limit` rows under a prefix. `removed` counts the live ones among them.
CREATE FUNCTION @schema@.erase(
    p_tenant text, p_prefix text, p_limit bigint, OUT removed bigint, OUT done boolean
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    low text := p_prefix || ':';
    high text := p_prefix || ';';
    passed bigint;
    live bigint;
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    WITH gone AS (
        DELETE FROM @schema@.entries e WHERE e.ctid = ANY (ARRAY(
            SELECT d.ctid FROM @schema@.entries d WHERE d.namespace = p_prefix
                ORDER BY d.namespace, d.key LIMIT p_limit FOR UPDATE
        )) RETURNING e.expires_at IS NULL OR e.expires_at > @schema@.clock() AS was_live
    ) SELECT count(*), count(*) FILTER (WHERE was_live) INTO passed, removed FROM gone;
    WITH gone AS (
        DELETE FROM @schema@.entries e WHERE e.ctid = ANY (ARRAY(
            SELECT d.ctid FROM @schema@.entries d WHERE d.namespace >= low AND d.namespace < high
                ORDER BY d.namespace, d.key LIMIT p_limit - passed FOR UPDATE
        )) RETURNING e.expires_at IS NULL OR e.expires_at > @schema@.clock() AS was_live
    ) SELECT count(*) FILTER (WHERE was_live) INTO live FROM gone;
    removed := removed + live;
    done := NOT EXISTS (SELECT 1 FROM @schema@.entries e WHERE e.namespace = p_prefix)
        AND NOT EXISTS (SELECT 1 FROM @schema@.entries e
            WHERE e.namespace >= low AND e.namespace < high);
END $$;

-- Removes expired entries of all tenants, at most `p_limit` and 1,000, and returns how many. The
-- function runs as a role to which row security shows only expired rows. It skips rows that other
-- transactions lock. The second check of the expiry is wrapped in `coalesce`: with a plain
-- condition the planner may scan the index of all expired rows and compare each with every locked
-- row.
CREATE FUNCTION @schema@.evict(p_limit integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    removed bigint;
BEGIN
    DELETE FROM @schema@.entries e WHERE coalesce(e.expires_at <= now, false) AND e.ctid = ANY (ARRAY(
        SELECT d.ctid FROM @schema@.entries d WHERE d.expires_at <= now
            ORDER BY d.expires_at LIMIT least(p_limit, 1000) FOR UPDATE SKIP LOCKED
    ));
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;

-- Returns at most `p_limit` tenants after `p_after`, in order, that contain a live entry. The
-- function runs as a role that sees the names in all rows. Only members of @operator@ may call it.
--
-- The namespaces of a tenant `t` are `t` itself and the names that start with `t:`. Names such as
-- `t-b` sort between the two. The tenant of the next name is therefore the next tenant, unless a
-- proper prefix of it is a tenant that has only names of the second form, which sort later.
CREATE FUNCTION @schema@.tenants(p_after text, p_limit integer) RETURNS SETOF text
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    last text COLLATE "C" := coalesce(p_after, '');
    low text COLLATE "C" := last || chr(1);
    next_tenant text COLLATE "C";
    beginning text COLLATE "C";
    place integer;
BEGIN
    WHILE p_limit > 0 LOOP
        SELECT @schema@.tenant_of(e.namespace) INTO next_tenant FROM @schema@.entries e
            WHERE e.namespace >= low ORDER BY e.namespace, e.key LIMIT 1;
        EXIT WHEN NOT FOUND;
        IF next_tenant <= last THEN
            -- The second sort of names of a tenant that was passed.
            low := next_tenant || ';';
            CONTINUE;
        END IF;
        FOR place IN 1 .. length(next_tenant) - 1 LOOP
            CONTINUE WHEN substr(next_tenant, place + 1, 1) COLLATE "C" >= ':';
            beginning := left(next_tenant, place);
            -- One that ends within an escape is no tenant's name.
            CONTINUE WHEN (place - length(rtrim(beginning, '\'))) % 2 = 1;
            IF beginning > last AND EXISTS (SELECT 1 FROM @schema@.entries e
                WHERE e.namespace >= beginning || ':' AND e.namespace < beginning || ';')
            THEN
                next_tenant := beginning;
                EXIT;
            END IF;
        END LOOP;
        last := next_tenant;
        low := next_tenant || chr(1);
        IF EXISTS (SELECT 1 FROM @schema@.entries e WHERE e.namespace = next_tenant
                AND (e.expires_at IS NULL OR e.expires_at > now))
            OR EXISTS (SELECT 1 FROM @schema@.entries e
                WHERE e.namespace >= next_tenant || ':' AND e.namespace < next_tenant || ';'
                    AND (e.expires_at IS NULL OR e.expires_at > now))
        THEN
            RETURN NEXT next_tenant;
            p_limit := p_limit - 1;
        END IF;
    END LOOP;
END $$;

-- Returns the value as JSON, or NULL if it is not JSON or `jsonb` cannot represent it.
CREATE FUNCTION @schema@.as_jsonb(p_value bytea) RETURNS jsonb
LANGUAGE plpgsql IMMUTABLE STRICT
AS $$
BEGIN
    RETURN convert_from(p_value, 'UTF8')::jsonb;
EXCEPTION WHEN others THEN
    RETURN NULL;
END $$;

-- Shows entries to users of psql, under the same row security:
--     SET cubbyhole.tenant = 'acme'; SELECT * FROM cubbyhole.documents;
CREATE VIEW @schema@.documents WITH (security_invoker = true) AS
    SELECT e.namespace, e.key, @schema@.as_jsonb(e.value) AS value,
        octet_length(e.value) AS value_bytes, e.version,
        to_timestamp(e.created_at / 1000.0) AS created_at,
        to_timestamp(e.updated_at / 1000.0) AS updated_at,
        to_timestamp(e.expires_at / 1000.0) AS expires_at
    FROM @schema@.entries e
    WHERE e.expires_at IS NULL OR e.expires_at > @schema@.clock();

-- The policy derives the tenant from the namespace instead of the column `tenant`, so index-only
-- scans can answer listings. The check of the table keeps both equal.
CREATE POLICY tenant ON @schema@.entries FOR ALL TO @app@
    USING (@schema@.tenant_of(namespace) = current_setting('cubbyhole.tenant', true))
    WITH CHECK (@schema@.tenant_of(namespace) = current_setting('cubbyhole.tenant', true));
CREATE POLICY audit ON @schema@.entries FOR SELECT TO @auditor@
    USING (@schema@.tenant_of(namespace) = current_setting('cubbyhole.tenant', true));
-- `coalesce` prevents the same plan as in `evict`.
CREATE POLICY sweep ON @schema@.entries FOR ALL TO @sweeper@
    USING (coalesce(expires_at <= @schema@.clock(), false)) WITH CHECK (false);
CREATE POLICY enumerate ON @schema@.entries FOR SELECT TO @enumerator@ USING (true);

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @schema@ FROM PUBLIC;
GRANT USAGE ON SCHEMA @schema@ TO @app@, @sweeper@, @enumerator@, @operator@, @auditor@;
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA @schema@ TO @app@;
REVOKE EXECUTE ON FUNCTION @schema@.tenants(text, integer) FROM @app@;
GRANT EXECUTE ON FUNCTION @schema@.tenants(text, integer) TO @operator@;
GRANT EXECUTE ON FUNCTION @schema@.clock(), @schema@.tenant_of(text)
    TO @sweeper@, @enumerator@, @auditor@;
GRANT EXECUTE ON FUNCTION @schema@.as_jsonb(bytea) TO @auditor@;
GRANT SELECT, INSERT, UPDATE, DELETE ON @schema@.entries TO @app@;
GRANT SELECT ON @schema@.documents, @schema@.migrations TO @app@, @auditor@;
GRANT SELECT ON @schema@.entries TO @auditor@;
-- Locking a row requires the privilege to update a column. The policy permits no update.
GRANT SELECT (ctid, expires_at), UPDATE (expires_at), DELETE
    ON @schema@.entries TO @sweeper@;
GRANT SELECT (namespace, key, expires_at) ON @schema@.entries TO @enumerator@;

-- ALTER FUNCTION ... OWNER TO requires that the new owner may create objects in the schema.
GRANT CREATE ON SCHEMA @schema@ TO @sweeper@, @enumerator@;
ALTER FUNCTION @schema@.evict(integer) OWNER TO @sweeper@;
ALTER FUNCTION @schema@.tenants(text, integer) OWNER TO @enumerator@;
REVOKE CREATE ON SCHEMA @schema@ FROM @sweeper@, @enumerator@;
