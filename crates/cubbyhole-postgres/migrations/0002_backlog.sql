-- Adds a function that counts the backlog of the sweep.

-- Returns how many entries of all tenants have expired and are not swept, counting up to `p_limit`
-- and 100,000, and for how many milliseconds the oldest of them has been expired. The function runs
-- as the same role as `evict`, to which row security shows only expired rows, and returns no names.
-- The count is bounded because there may be millions.
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

-- ALTER FUNCTION ... OWNER TO requires that the new owner may create objects in the schema.
GRANT CREATE ON SCHEMA @schema@ TO @sweeper@;
ALTER FUNCTION @schema@.backlog(integer) OWNER TO @sweeper@;
REVOKE CREATE ON SCHEMA @schema@ FROM @sweeper@;
