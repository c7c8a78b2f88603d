-- Adds the idle TTL of an entry, and functions for refreshing reads, pages in descending order,
-- pages across namespaces, metadata without values, more conditions, and deletion by key prefix.
--
-- Builds of version 2 may run until they are replaced. Their functions keep their arguments and
-- their columns, so a function with other columns has another name or another number of arguments.
-- The functions of version 2 that write an expiry call the new ones, which clear the idle TTL.
-- The others are unchanged: they neither read nor write the idle TTL.
--
-- The rules at the top of the first migration apply to all functions. The table is altered last,
-- because calls wait for it from then on.

-- Replaces the function with six arguments. An entry with an idle TTL has an expiry.
CREATE FUNCTION @schema@.is_entry(
    namespace text, key text, tenant text, created_at bigint, updated_at bigint, expires_at bigint,
    idle_ttl bigint
) RETURNS boolean
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
AS $$
BEGIN
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
    IF idle_ttl IS NOT NULL
        AND (idle_ttl OPERATOR(pg_catalog.<=) 0 OR expires_at IS NULL)
    THEN
        RETURN false;
    END IF;
    RETURN pg_catalog.octet_length(namespace) OPERATOR(pg_catalog.<=) 1024
        AND pg_catalog.octet_length(key) OPERATOR(pg_catalog.<=) 1024
        AND least(created_at, updated_at, expires_at) OPERATOR(pg_catalog.>=) 0
        AND greatest(created_at, updated_at, expires_at, idle_ttl)
            OPERATOR(pg_catalog.<=) 253402300799999;
END $$;

CREATE OR REPLACE FUNCTION @schema@.is_entry(
    namespace text, key text, tenant text, created_at bigint, updated_at bigint, expires_at bigint
) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN @schema@.is_entry(namespace, key, tenant, created_at, updated_at, expires_at, NULL);

-- Returns the new expiry of an entry that is read at `now`, or NULL if the read changes nothing.
-- `extend` is the TTL that the entry gets at least, or NULL. `refresh` restarts the idle TTL, unless
-- less than a tenth of it has passed since the last restart. (No strict condition on the expiry: see
-- `coalesce` in `get_entry` of the first migration.)
CREATE FUNCTION @schema@.extended(
    now bigint, expires_at bigint, idle_ttl bigint, extend bigint, refresh boolean
) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN expires_at > now THEN greatest(
    CASE WHEN expires_at < @schema@.expiry(now, extend, NULL)
        THEN @schema@.expiry(now, extend, NULL) END,
    CASE WHEN refresh
            AND (@schema@.expiry(now, idle_ttl, NULL) - expires_at) * 10 >= idle_ttl
        THEN @schema@.expiry(now, idle_ttl, NULL) END
) END;

-- Returns whether a condition holds for the version of the live entry, which is NULL without one.
-- Conditions: 0 none, 1 absent, 2 the expected version, 3 present.
CREATE FUNCTION @schema@.holds(condition integer, expected uuid, current uuid) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE condition
    WHEN 1 THEN current IS NULL
    WHEN 2 THEN current IS NOT DISTINCT FROM expected
    WHEN 3 THEN current IS NOT NULL
    ELSE true END;

-- Makes the store retry the call, because a concurrent write came between two of its statements.
CREATE FUNCTION @schema@.written_meanwhile() RETURNS bigint
LANGUAGE plpgsql VOLATILE
AS $$
BEGIN
    RAISE EXCEPTION 'a key was written meanwhile' USING ERRCODE = 'serialization_failure';
END $$;

-- Reads without a lock first: a read that changes nothing must not wait for writers, nor write.
CREATE FUNCTION @schema@.get_entry(
    p_tenant text, p_namespace text, p_key text, p_extend bigint, p_refresh boolean
) RETURNS TABLE (
    version uuid, created_at bigint, updated_at bigint, expires_at bigint, idle_ttl bigint,
    value bytea
)
LANGUAGE plpgsql VOLATILE ROWS 1 SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    found_entry @schema@.entries;
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    IF p_extend IS NULL AND NOT p_refresh THEN
        RETURN QUERY SELECT e.version, e.created_at, e.updated_at, e.expires_at, e.idle_ttl, e.value
            FROM @schema@.entries e
            WHERE e.namespace = p_namespace AND e.key = p_key
                AND (e.expires_at IS NULL OR e.expires_at > now);
        RETURN;
    END IF;
    IF p_extend IS NOT NULL THEN
        PERFORM @schema@.check_ttl(now, p_extend);
    END IF;
    LOOP
        SELECT e.* INTO found_entry FROM @schema@.entries e
            WHERE e.namespace = p_namespace AND e.key = p_key
                AND (e.expires_at IS NULL OR e.expires_at > now);
        IF NOT FOUND THEN
            RETURN;
        END IF;
        EXIT WHEN @schema@.extended(
            now, found_entry.expires_at, found_entry.idle_ttl, p_extend, p_refresh) IS NULL;
        PERFORM 1 FROM @schema@.entries e
            WHERE e.namespace = p_namespace AND e.key = p_key FOR UPDATE;
        now := @schema@.clock();
        UPDATE @schema@.entries e
            SET expires_at = @schema@.extended(now, e.expires_at, e.idle_ttl, p_extend, p_refresh)
            WHERE e.namespace = p_namespace AND e.key = p_key
                AND @schema@.extended(now, e.expires_at, e.idle_ttl, p_extend, p_refresh) IS NOT NULL
            RETURNING e.* INTO found_entry;
        -- Otherwise another call was faster, or the entry expired during the wait: read again.
        EXIT WHEN FOUND;
    END LOOP;
    RETURN QUERY SELECT found_entry.version, found_entry.created_at, found_entry.updated_at,
        found_entry.expires_at, found_entry.idle_ttl, found_entry.value;
END $$;

-- As `get_entry`, reads without locks first. The keys are distinct and in order if the call may write,
-- because rows are locked in that order.
CREATE FUNCTION @schema@.get_many(
    p_tenant text, p_namespace text, p_keys text[], p_extend bigint, p_refresh boolean
) RETURNS TABLE (
    key text, version uuid, created_at bigint, updated_at bigint, expires_at bigint,
    idle_ttl bigint, value bytea
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    began bigint := @schema@.clock();
    now bigint := began;
    may_write boolean := p_extend IS NOT NULL OR p_refresh;
    due text[];
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    IF may_write THEN
        IF p_extend IS NOT NULL THEN
            PERFORM @schema@.check_ttl(now, p_extend);
        END IF;
        due := ARRAY(SELECT e.key FROM unnest(p_keys) AS wanted (key) CROSS JOIN LATERAL (
            SELECT d.key FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key = wanted.key
                AND @schema@.extended(now, d.expires_at, d.idle_ttl, p_extend, p_refresh) IS NOT NULL
            LIMIT 1
        ) e);
        IF cardinality(due) > 0 THEN
            due := ARRAY(SELECT e.key FROM unnest(due) AS o (key) CROSS JOIN LATERAL (
                SELECT d.key FROM @schema@.entries d
                WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1 FOR UPDATE
            ) e);
            now := @schema@.clock();
            UPDATE @schema@.entries e
                SET expires_at = @schema@.extended(now, e.expires_at, e.idle_ttl, p_extend, p_refresh)
                WHERE e.ctid = ANY (ARRAY(
                    SELECT l.place FROM unnest(due) AS o (key) CROSS JOIN LATERAL (
                        SELECT d.ctid AS place FROM @schema@.entries d
                        WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1
                    ) l
                )) AND @schema@.extended(now, e.expires_at, e.idle_ttl, p_extend, p_refresh)
                    IS NOT NULL;
        END IF;
    END IF;
    RETURN QUERY SELECT e.key, e.version, e.created_at, e.updated_at,
            -- An entry that is still due was written after the locks were taken.
            CASE WHEN may_write AND @schema@.extended(
                    began, e.expires_at, e.idle_ttl, p_extend, p_refresh) IS NOT NULL
                THEN @schema@.written_meanwhile() ELSE e.expires_at END,
            e.idle_ttl, e.value
        FROM unnest(p_keys) AS wanted (key) CROSS JOIN LATERAL (
            SELECT * FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key = wanted.key LIMIT 1
        ) e
        WHERE e.expires_at IS NULL OR e.expires_at > now;
END $$;

-- Returns metadata and sizes. The size of a value is known without reading it.
CREATE FUNCTION @schema@.stat(p_tenant text, p_namespace text, p_keys text[])
RETURNS TABLE (
    key text, version uuid, created_at bigint, updated_at bigint, expires_at bigint,
    idle_ttl bigint, value_bytes integer
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    RETURN QUERY SELECT e.key, e.version, e.created_at, e.updated_at, e.expires_at, e.idle_ttl,
            e.size
        FROM unnest(p_keys) AS wanted (key) CROSS JOIN LATERAL (
            SELECT d.*, octet_length(d.value) AS size FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key = wanted.key LIMIT 1
        ) e
        WHERE e.expires_at IS NULL OR e.expires_at > now;
END $$;

-- `p_idle` is the idle TTL, or NULL. The first expiry is in `p_ttl` or `p_instant`, as without one.
CREATE FUNCTION @schema@.put(
    p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
    p_ttl bigint, p_instant bigint, p_idle bigint
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
    -- Expressions after SET are evaluated once the row is locked, and read the clock again.
    INSERT INTO @schema@.entries AS e
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value, idle_ttl)
        VALUES (p_namespace, p_key, p_tenant, p_version, now, now,
            @schema@.expiry(now, p_ttl, p_instant), p_value, p_idle)
        ON CONFLICT (namespace, key) DO UPDATE SET
            version = excluded.version,
            value = excluded.value,
            idle_ttl = excluded.idle_ttl,
            (created_at, updated_at, expires_at) = (
                SELECT CASE WHEN e.expires_at <= t.now THEN t.now ELSE e.created_at END,
                    t.now, @schema@.expiry(t.now, p_ttl, p_instant)
                FROM (SELECT @schema@.clock() AS now) t
            );
END $$;

CREATE OR REPLACE FUNCTION @schema@.put(
    p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
    p_ttl bigint, p_instant bigint
) RETURNS void
LANGUAGE sql VOLATILE
RETURN @schema@.put(p_tenant, p_namespace, p_key, p_value, p_version, p_ttl, p_instant, NULL);

-- Writes if the condition holds (see `holds`). Otherwise returns the current version in `current`.
CREATE FUNCTION @schema@.put_if(
    p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
    p_ttl bigint, p_instant bigint, p_idle bigint, p_condition integer, p_expected uuid,
    OUT written boolean, OUT current uuid
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
    IF p_condition = 1 THEN
        -- The condition after WHERE is evaluated once the row is locked.
        INSERT INTO @schema@.entries AS e
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value, idle_ttl)
            VALUES (p_namespace, p_key, p_tenant, p_version, now, now,
                @schema@.expiry(now, p_ttl, p_instant), p_value, p_idle)
            ON CONFLICT (namespace, key) DO UPDATE SET
                version = excluded.version,
                value = excluded.value,
                idle_ttl = excluded.idle_ttl,
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
    written := current IS NOT NULL AND @schema@.holds(p_condition, p_expected, current);
    IF written THEN
        now := @schema@.clock();
        UPDATE @schema@.entries e SET version = p_version, value = p_value, updated_at = now,
                expires_at = @schema@.expiry(now, p_ttl, p_instant), idle_ttl = p_idle
            WHERE e.namespace = p_namespace AND e.key = p_key;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION @schema@.put_if(
    p_tenant text, p_namespace text, p_key text, p_value bytea, p_version uuid,
    p_ttl bigint, p_instant bigint, p_expected uuid, OUT written boolean, OUT current uuid
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT f.written, f.current FROM @schema@.put_if(
        p_tenant, p_namespace, p_key, p_value, p_version, p_ttl, p_instant, NULL,
        CASE WHEN p_expected IS NULL THEN 1 ELSE 2 END, p_expected) f;
END;

-- Deletes the entry if there is one and the condition holds. Returns whether it holds.
CREATE FUNCTION @schema@.delete_if(
    p_tenant text, p_namespace text, p_key text, p_condition integer, p_expected uuid,
    OUT held boolean, OUT current uuid
)
LANGUAGE plpgsql VOLATILE SET enable_seqscan = off
AS $$
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    current := @schema@.lock_entry(p_namespace, p_key);
    held := @schema@.holds(p_condition, p_expected, current);
    IF held AND current IS NOT NULL THEN
        DELETE FROM @schema@.entries e WHERE e.namespace = p_namespace AND e.key = p_key;
    END IF;
END $$;

-- `take`, with the idle TTL.
CREATE FUNCTION @schema@.take_entry(p_tenant text, p_namespace text, p_key text)
RETURNS TABLE (
    version uuid, created_at bigint, updated_at bigint, expires_at bigint, idle_ttl bigint,
    value bytea
)
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
        RETURN QUERY SELECT taken.version, taken.created_at, taken.updated_at, taken.expires_at,
            taken.idle_ttl, taken.value;
    END IF;
END $$;

-- Replaces the expiry of a live entry if the condition holds. Without a live entry `touched` is
-- false.
CREATE FUNCTION @schema@.touch(
    p_tenant text, p_namespace text, p_key text, p_ttl bigint, p_instant bigint, p_idle bigint,
    p_condition integer, p_expected uuid, OUT touched boolean, OUT held boolean, OUT current uuid
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
    current := @schema@.lock_entry(p_namespace, p_key);
    held := @schema@.holds(p_condition, p_expected, current);
    touched := held AND current IS NOT NULL;
    IF touched THEN
        UPDATE @schema@.entries e
            SET expires_at = @schema@.expiry(@schema@.clock(), p_ttl, p_instant), idle_ttl = p_idle
            WHERE e.namespace = p_namespace AND e.key = p_key;
    END IF;
END $$;

CREATE OR REPLACE FUNCTION @schema@.touch(
    p_tenant text, p_namespace text, p_key text, p_ttl bigint, p_instant bigint
) RETURNS boolean
LANGUAGE sql VOLATILE
RETURN (SELECT f.touched FROM @schema@.touch(
    p_tenant, p_namespace, p_key, p_ttl, p_instant, NULL, 0, NULL) f);

-- Replaces the function with ten arguments, whose comment describes how keys are locked. New are the
-- idle TTLs, the condition 3, and `deleted`: the places of the deletes that removed a live entry.
CREATE FUNCTION @schema@.write_batch(
    p_tenant text, p_namespace text, p_keys text[], p_places integer[], p_conditions integer[],
    p_expected uuid[], p_versions uuid[], p_ttls bigint[], p_instants bigint[], p_idles bigint[],
    p_values bytea[], OUT failed integer, OUT current uuid, OUT deleted integer[]
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
        -- Existing rows stay locked although the condition prevents any change.
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
            count(*) FILTER (WHERE NOT @schema@.holds(o.condition, o.expected,
                CASE WHEN e.expires_at <= now THEN NULL ELSE e.version END)),
            array_agg(o.place) FILTER (WHERE o.version IS NULL AND e.key IS NOT NULL
                AND (e.expires_at IS NULL OR e.expires_at > now))
        INTO seen, next_expiry, lost, deleted
        FROM unnest(p_keys, p_places, p_conditions, p_expected, p_versions)
            AS o (key, place, condition, expected, version)
        LEFT JOIN LATERAL (
            SELECT d.key, d.version, d.expires_at FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1
        ) e ON true;
    -- An entry that was inserted after the locks were taken is not locked.
    IF seen <> locked THEN
        PERFORM @schema@.written_meanwhile();
    END IF;
    IF lost > 0 THEN
        deleted := NULL;
        SELECT o.place, CASE WHEN e.expires_at <= now THEN NULL ELSE e.version END
            INTO failed, current
            FROM unnest(p_keys, p_conditions, p_expected, p_places)
                AS o (key, condition, expected, place)
            LEFT JOIN LATERAL (
                SELECT d.key, d.version, d.expires_at FROM @schema@.entries d
                WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1
            ) e ON true
            WHERE NOT @schema@.holds(o.condition, o.expected,
                CASE WHEN e.expires_at <= now THEN NULL ELSE e.version END)
            ORDER BY o.place LIMIT 1;
        -- A missing entry is not locked. If it was inserted since, the condition holds by now.
        IF failed IS NULL THEN
            PERFORM @schema@.written_meanwhile();
        END IF;
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
            (namespace, key, tenant, version, created_at, updated_at, expires_at, value, idle_ttl)
        SELECT p_namespace, o.key, p_tenant, o.version, now, now,
                @schema@.expiry(now, o.ttl, o.instant), o.value, o.idle
            FROM unnest(p_keys, p_conditions, p_versions, p_ttls, p_instants, p_values, p_idles)
                AS o (key, condition, version, ttl, instant, value, idle)
            WHERE o.version IS NOT NULL AND o.condition <> 1
        ON CONFLICT (namespace, key) DO UPDATE SET
            version = excluded.version,
            value = excluded.value,
            expires_at = excluded.expires_at,
            idle_ttl = excluded.idle_ttl,
            (created_at, updated_at) = (
                SELECT CASE WHEN e.expires_at <= t.now THEN t.now ELSE e.created_at END, t.now
                FROM (SELECT @schema@.clock() AS now) t
            );
    IF 1 = ANY (p_conditions) THEN
        INSERT INTO @schema@.entries AS e
                (namespace, key, tenant, version, created_at, updated_at, expires_at, value, idle_ttl)
            SELECT p_namespace, o.key, p_tenant, o.version, now, now,
                    @schema@.expiry(now, o.ttl, o.instant), o.value, o.idle
                FROM unnest(p_keys, p_conditions, p_versions, p_ttls, p_instants, p_values, p_idles)
                    AS o (key, condition, version, ttl, instant, value, idle)
                WHERE o.version IS NOT NULL AND o.condition = 1
            ON CONFLICT (namespace, key) DO UPDATE SET
                version = excluded.version,
                value = excluded.value,
                created_at = now,
                updated_at = now,
                expires_at = excluded.expires_at,
                idle_ttl = excluded.idle_ttl
            WHERE e.expires_at <= now;
        GET DIAGNOSTICS claimed = ROW_COUNT;
        IF claimed <> (SELECT count(*) FROM unnest(p_conditions, p_versions) AS o (c, v)
            WHERE o.c = 1 AND o.v IS NOT NULL)
        THEN
            PERFORM @schema@.written_meanwhile();
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
    IF next_expiry <= @schema@.clock()
        AND (array_position(p_versions, NULL) IS NOT NULL OR 0 < ANY (p_conditions))
    THEN
        RAISE EXCEPTION 'an entry expired meanwhile' USING ERRCODE = 'serialization_failure';
    END IF;
END $$;

CREATE OR REPLACE FUNCTION @schema@.write_batch(
    p_tenant text, p_namespace text, p_keys text[], p_places integer[], p_conditions integer[],
    p_expected uuid[], p_versions uuid[], p_ttls bigint[], p_instants bigint[], p_values bytea[],
    OUT failed integer, OUT current uuid
)
LANGUAGE sql VOLATILE
BEGIN ATOMIC
    SELECT f.failed, f.current FROM @schema@.write_batch(
        p_tenant, p_namespace, p_keys, p_places, p_conditions, p_expected, p_versions, p_ttls,
        p_instants, NULL, p_values) f;
END;

-- Returns a page of at most `p_limit` entries in [p_from, p_to), in descending order if `p_reversed`.
-- The last row shows that there are more and is not part of the page if `is_extra`: it is the one at
-- `p_limit`, or the first one that would make the page larger than `p_bytes`. `value` is NULL for that
-- row, and if `p_values` is false.
CREATE FUNCTION @schema@.scan(
    p_tenant text, p_namespace text, p_from text, p_to text,
    p_limit integer, p_bytes bigint, p_values boolean, p_reversed boolean
) RETURNS TABLE (
    key text, version uuid, created_at bigint, updated_at bigint, expires_at bigint,
    idle_ttl bigint, value_bytes integer, value bytea, is_extra boolean
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
    -- Two statements, because one plan reads the index in one direction.
    IF p_reversed THEN
        RETURN QUERY SELECT p.key, p.version, p.created_at, p.updated_at, p.expires_at, p.idle_ttl,
                p.size, CASE WHEN p_values AND NOT p.extra THEN p.value END, p.extra
            FROM (
                SELECT s.*, s.place = p_limit OR s.place > 1 AND s.bytes > p_bytes AS extra
                FROM (
                    SELECT e.*, octet_length(e.value) AS size,
                        sum(octet_length(e.key)
                            + CASE WHEN p_values THEN octet_length(e.value) ELSE 0 END)
                            OVER w AS bytes,
                        row_number() OVER w AS place
                    FROM @schema@.entries e
                    WHERE e.namespace = p_namespace AND e.key >= p_from AND e.key < p_to
                        AND (e.expires_at IS NULL OR e.expires_at > now)
                    WINDOW w AS (ORDER BY e.key DESC ROWS UNBOUNDED PRECEDING)
                    ORDER BY e.key DESC LIMIT p_limit
                ) s
            ) p
            WHERE p.place <= 2 OR p_bytes >=
                p.bytes - octet_length(p.key) - CASE WHEN p_values THEN p.size ELSE 0 END;
    ELSE
        RETURN QUERY SELECT p.key, p.version, p.created_at, p.updated_at, p.expires_at, p.idle_ttl,
                p.size, CASE WHEN p_values AND NOT p.extra THEN p.value END, p.extra
            FROM (
                SELECT s.*, s.place = p_limit OR s.place > 1 AND s.bytes > p_bytes AS extra
                FROM (
                    SELECT e.*, octet_length(e.value) AS size,
                        sum(octet_length(e.key)
                            + CASE WHEN p_values THEN octet_length(e.value) ELSE 0 END)
                            OVER w AS bytes,
                        row_number() OVER w AS place
                    FROM @schema@.entries e
                    WHERE e.namespace = p_namespace AND e.key >= p_from AND e.key < p_to
                        AND (e.expires_at IS NULL OR e.expires_at > now)
                    WINDOW w AS (ORDER BY e.key ROWS UNBOUNDED PRECEDING)
                    ORDER BY e.key LIMIT p_limit
                ) s
            ) p
            WHERE p.place <= 2 OR p_bytes >=
                p.bytes - octet_length(p.key) - CASE WHEN p_values THEN p.size ELSE 0 END;
    END IF;
END $$;

-- `scan`, and restarts the idle TTL of each entry of the page.
--
-- The function reads the page without locks first, and writes only if a refresh is due. It then locks
-- the due rows in key order and reads the page again, because the page may have changed. It refreshes
-- the locked rows in that page. If another row in it is due, the store retries the call.
CREATE FUNCTION @schema@.scan_refreshing(
    p_tenant text, p_namespace text, p_from text, p_to text,
    p_limit integer, p_bytes bigint, p_values boolean, p_reversed boolean
) RETURNS TABLE (
    key text, version uuid, created_at bigint, updated_at bigint, expires_at bigint,
    idle_ttl bigint, value_bytes integer, value bytea, is_extra boolean
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off
SET jit = off
AS $$
DECLARE
    began bigint := @schema@.clock();
    now bigint;
    due text[];
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    due := ARRAY(
        SELECT s.key FROM @schema@.scan(p_tenant, p_namespace, p_from, p_to,
            p_limit, p_bytes, p_values, p_reversed) s
        WHERE NOT s.is_extra
            AND @schema@.extended(began, s.expires_at, s.idle_ttl, NULL, true) IS NOT NULL
        ORDER BY s.key COLLATE "C"
    );
    IF cardinality(due) > 0 THEN
        due := ARRAY(SELECT e.key FROM unnest(due) AS o (key) CROSS JOIN LATERAL (
            SELECT d.key FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key = o.key LIMIT 1 FOR UPDATE
        ) e);
    END IF;
    IF cardinality(due) = 0 THEN
        RETURN QUERY SELECT s.key, s.version, s.created_at, s.updated_at,
                CASE WHEN NOT s.is_extra AND @schema@.extended(
                        began, s.expires_at, s.idle_ttl, NULL, true) IS NOT NULL
                    THEN @schema@.written_meanwhile() ELSE s.expires_at END,
                s.idle_ttl, s.value_bytes, s.value, s.is_extra
            FROM @schema@.scan(p_tenant, p_namespace, p_from, p_to,
                p_limit, p_bytes, p_values, p_reversed) s;
        RETURN;
    END IF;
    now := @schema@.clock();
    -- The page is read whole before the update starts.
    RETURN QUERY WITH page AS MATERIALIZED (
        SELECT s.*, NOT s.is_extra AND s.key IN (SELECT u.key FROM unnest(due) AS u (key)) AS is_due
        FROM @schema@.scan(p_tenant, p_namespace, p_from, p_to,
            p_limit, p_bytes, p_values, p_reversed) s
    ), refreshed AS (
        UPDATE @schema@.entries e
            SET expires_at = @schema@.extended(now, e.expires_at, e.idle_ttl, NULL, true)
            WHERE e.ctid = ANY (ARRAY(
                SELECT l.place FROM page p CROSS JOIN LATERAL (
                    SELECT d.ctid AS place FROM @schema@.entries d
                    WHERE d.namespace = p_namespace AND d.key = p.key LIMIT 1
                ) l
                WHERE p.is_due
            )) AND @schema@.extended(now, e.expires_at, e.idle_ttl, NULL, true) IS NOT NULL
    ) SELECT p.key, p.version, p.created_at, p.updated_at,
            CASE WHEN p.is_due THEN coalesce(
                    @schema@.extended(now, p.expires_at, p.idle_ttl, NULL, true), p.expires_at)
                WHEN NOT p.is_extra AND @schema@.extended(
                    began, p.expires_at, p.idle_ttl, NULL, true) IS NOT NULL
                THEN @schema@.written_meanwhile() ELSE p.expires_at END,
            p.idle_ttl, p.value_bytes, p.value, p.is_extra
        FROM page p;
END $$;

-- Returns a page, as `scan` does, of the entries in all namespaces under a prefix, in the order of
-- (namespace, key), after the position (p_after_namespace, p_after_key) if it is set.
--
-- The prefix itself and the names below it are two ranges of the index, with the same form: bounds on
-- (namespace, key). With an equality instead, the planner would not know that the first range is in
-- the order of the page.
CREATE FUNCTION @schema@.scan_recursive(
    p_tenant text, p_prefix text, p_after_namespace text, p_after_key text,
    p_limit integer, p_bytes bigint, p_values boolean
) RETURNS TABLE (
    namespace text, key text, version uuid, created_at bigint, updated_at bigint,
    expires_at bigint, idle_ttl bigint, value_bytes integer, value bytea, is_extra boolean
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint := @schema@.clock();
    low text COLLATE "C" := p_prefix || ':';
    high text COLLATE "C" := p_prefix || ';';
    first_namespace text COLLATE "C" := coalesce(p_after_namespace, p_prefix);
    -- No key contains NUL, so the first possible key after `a` is `a` and U+0001.
    first_key text COLLATE "C" := coalesce(p_after_key || chr(1), '');
    low_key text COLLATE "C" := '';
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    IF first_namespace >= low THEN
        low := first_namespace;
        low_key := first_key;
    END IF;
    RETURN QUERY SELECT p.namespace, p.key, p.version, p.created_at, p.updated_at, p.expires_at,
            p.idle_ttl, p.size, CASE WHEN p_values AND NOT p.extra THEN p.value END, p.extra
        FROM (
            SELECT s.*, s.place = p_limit OR s.place > 1 AND s.bytes > p_bytes AS extra
            FROM (
                SELECT b.*, octet_length(b.value) AS size,
                    sum(octet_length(b.key)
                        + CASE WHEN p_values THEN octet_length(b.value) ELSE 0 END) OVER w AS bytes,
                    row_number() OVER w AS place
                FROM (
                    (SELECT e.* FROM @schema@.entries e
                        WHERE (e.namespace, e.key) >= (first_namespace, first_key)
                            AND e.namespace <= p_prefix
                            AND (e.expires_at IS NULL OR e.expires_at > now)
                        ORDER BY e.namespace, e.key LIMIT p_limit)
                    UNION ALL
                    (SELECT e.* FROM @schema@.entries e
                        WHERE (e.namespace, e.key) >= (low, low_key) AND e.namespace < high
                            AND (e.expires_at IS NULL OR e.expires_at > now)
                        ORDER BY e.namespace, e.key LIMIT p_limit)
                ) b
                WINDOW w AS (ORDER BY b.namespace, b.key ROWS UNBOUNDED PRECEDING)
                ORDER BY b.namespace, b.key LIMIT p_limit
            ) s
        ) p
        WHERE p.place <= 2 OR p_bytes >=
            p.bytes - octet_length(p.key) - CASE WHEN p_values THEN p.size ELSE 0 END;
END $$;

-- Removes at most `p_limit` rows of one namespace in [p_from, p_to). `removed` counts the live ones
-- among them.
--
-- One statement deletes the rows and finds out whether others are left. A row that is inserted while it
-- runs remains, because the statement does not see it. It may delete only locked rows, because a row that another transaction changes is not deleted or is counted
-- for another instant. If a row was written after the locks were taken, the function locks again.
CREATE FUNCTION @schema@.delete_prefix(
    p_tenant text, p_namespace text, p_from text, p_to text, p_limit bigint,
    OUT removed bigint, OUT done boolean
)
LANGUAGE plpgsql VOLATILE
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint;
    locked text[];
    is_complete boolean;
BEGIN
    PERFORM set_config('cubbyhole.tenant', p_tenant, true);
    p_to := coalesce(p_to, @schema@.past_every_key());
    LOOP
        locked := ARRAY(SELECT d.key FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key >= p_from AND d.key < p_to
            ORDER BY d.namespace, d.key LIMIT p_limit FOR UPDATE);
        now := @schema@.clock();
        WITH seen AS MATERIALIZED (
            SELECT d.ctid AS place, d.key IN (SELECT l.key FROM unnest(locked) AS l (key)) AS is_locked
            FROM @schema@.entries d
            WHERE d.namespace = p_namespace AND d.key >= p_from AND d.key < p_to
            ORDER BY d.namespace, d.key LIMIT p_limit + 1
        ), counted AS MATERIALIZED (
            SELECT count(*) AS rows, count(*) FILTER (WHERE s.is_locked) AS locked_rows FROM seen s
        ), gone AS (
            DELETE FROM @schema@.entries e WHERE e.ctid = ANY (ARRAY(
                SELECT s.place FROM seen s WHERE s.is_locked
                    AND (SELECT c.locked_rows = least(c.rows, p_limit) FROM counted c)
            )) RETURNING e.expires_at IS NULL OR e.expires_at > now AS was_live
        ) SELECT c.locked_rows = least(c.rows, p_limit), c.locked_rows = c.rows,
                (SELECT count(*) FILTER (WHERE g.was_live) FROM gone g)
            INTO is_complete, done, removed FROM counted c;
        EXIT WHEN is_complete;
    END LOOP;
END $$;

REVOKE ALL ON ALL FUNCTIONS IN SCHEMA @schema@ FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    @schema@.is_entry(text, text, text, bigint, bigint, bigint, bigint),
    @schema@.extended(bigint, bigint, bigint, bigint, boolean),
    @schema@.holds(integer, uuid, uuid),
    @schema@.written_meanwhile(),
    @schema@.get_entry(text, text, text, bigint, boolean),
    @schema@.get_many(text, text, text[], bigint, boolean),
    @schema@.stat(text, text, text[]),
    @schema@.put(text, text, text, bytea, uuid, bigint, bigint, bigint),
    @schema@.put_if(text, text, text, bytea, uuid, bigint, bigint, bigint, integer, uuid),
    @schema@.delete_if(text, text, text, integer, uuid),
    @schema@.take_entry(text, text, text),
    @schema@.touch(text, text, text, bigint, bigint, bigint, integer, uuid),
    @schema@.write_batch(text, text, text[], integer[], integer[], uuid[], uuid[], bigint[],
        bigint[], bigint[], bytea[]),
    @schema@.scan(text, text, text, text, integer, bigint, boolean, boolean),
    @schema@.scan_refreshing(text, text, text, text, integer, bigint, boolean, boolean),
    @schema@.scan_recursive(text, text, text, text, integer, bigint, boolean),
    @schema@.delete_prefix(text, text, text, text, bigint)
TO @app@;

-- The view is locked before its table, as readers of the view do.
LOCK TABLE @schema@.documents IN ACCESS EXCLUSIVE MODE;
-- The new constraint has no entry to reject yet, so it is not validated: the former one has accepted
-- all rows. Adding the column does not rewrite the table.
ALTER TABLE @schema@.entries
    ADD COLUMN idle_ttl bigint,
    DROP CONSTRAINT entry_is_valid,
    ADD CONSTRAINT entry_is_valid CHECK (
        @schema@.is_entry(namespace, key, tenant, created_at, updated_at, expires_at, idle_ttl)
    ) NOT VALID;

CREATE OR REPLACE VIEW @schema@.documents WITH (security_invoker = true) AS
    SELECT e.namespace, e.key, @schema@.as_jsonb(e.value) AS value,
        octet_length(e.value) AS value_bytes, e.version,
        to_timestamp(e.created_at / 1000.0) AS created_at,
        to_timestamp(e.updated_at / 1000.0) AS updated_at,
        to_timestamp(e.expires_at / 1000.0) AS expires_at,
        make_interval(secs => e.idle_ttl / 1000.0) AS idle_ttl
    FROM @schema@.entries e
    WHERE e.expires_at IS NULL OR e.expires_at > @schema@.clock();
