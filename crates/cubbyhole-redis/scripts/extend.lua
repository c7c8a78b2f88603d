-- Reads an entry, and extends its expiry to the new one if that is later.
--
-- KEYS: metas, expiries, value. ARGV: key, the new expiry. Returns metadata and value.
local time = now()
-- An invalid expiry is refused even if there is no entry.
local expires = instant_of(ARGV[2], time)
if not expires then
  return refuse('TOOLATE', 0)
end
local meta = redis.call('HGET', KEYS[1], ARGV[1])
local value = redis.call('GET', KEYS[3])
if not value or not is_live(meta, time) then
  return { false, false }
end
local current = expires_at(meta)
if current ~= 0 and current < expires then
  meta = set_expiry(KEYS[1], KEYS[2], KEYS[3], ARGV[1], meta, expires, time)
end
return { meta, value }
