-- How much the sweep is behind.

-- Over all tenants, how many entries have expired and are not swept, counted up to `p_limit`, and for how
-- many milliseconds the oldest of them has been so. It runs as the role that `evict` runs as, to which
-- row security shows what has expired and nothing else, and it tells no names. The counting is
-- bounded, for there may be millions.
CREATE FUNCTION @schema@.backlog(p_limit integer, OUT expired bigint, OUT late bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
SET jit = off
AS $$
DECLARE
    now bigint := @schema@.clock();
BEGIN
    SELECT count(*), now - min(d.expires_at) INTO expired, late FROM (
        SELECT e.expires_at FROM @schema@.entries e WHERE e.expires_at <= now
            ORDER BY e.expires_at LIMIT least(p_limit, 100000)
    ) d;
END $$;

REVOKE ALL ON FUNCTION @schema@.backlog(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @schema@.backlog(integer) TO @app@;

-- The new owner of a function must be able to create in its schema while it becomes that.
GRANT CREATE ON SCHEMA @schema@ TO @sweeper@;
ALTER FUNCTION @schema@.backlog(integer) OWNER TO @sweeper@;
REVOKE CREATE ON SCHEMA @schema@ FROM @sweeper@;
