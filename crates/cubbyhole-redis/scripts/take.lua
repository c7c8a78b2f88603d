-- Reads and removes an entry.
--
-- KEYS: keys, metas, expiries, value. ARGV: key. Returns metadata and value.
local time = now()
local meta = redis.call('HGET', KEYS[2], ARGV[1])
if not is_live(meta, time) then
  return { false, false }
end
local value = redis.call('GET', KEYS[4])
-- A key of the wrong type fails here, before the first write.
redis.call('ZCARD', KEYS[1])
redis.call('ZCARD', KEYS[3])
redis.call('UNLINK', KEYS[4])
forget(KEYS[1], KEYS[2], KEYS[3], { ARGV[1] })
return { value and meta, value }
