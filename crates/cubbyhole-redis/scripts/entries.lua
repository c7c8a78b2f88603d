-- Reads entries as of one instant.
--
-- KEYS: metas, the values. ARGV: the limit in bytes, the keys. Returns metadata and value for each
-- key: see read_entries.
return read_entries((now()), tonumber(ARGV[1]), 2)
