-- Changes or removes the expiry of an entry without reading its value.
--
-- KEYS: keys, metas, expiries, value. ARGV: key, the new expiry. Returns whether the entry was
-- live.
local time = now()
-- An invalid expiry is refused even if there is no entry.
local expires = instant_of(ARGV[2], time)
if not expires then
  return refuse('TOOLATE', 0)
end
local meta = redis.call('HGET', KEYS[2], ARGV[1])
if not is_live(meta, time) then
  return 0
end
redis.call('ZCARD', KEYS[1])
set_expiry(KEYS[2], KEYS[3], KEYS[4], ARGV[1], meta, expires, time)
if expires ~= 0 then
  clear_some(KEYS[1], KEYS[2], KEYS[3], time, 100)
end
return 1
