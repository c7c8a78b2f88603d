-- Gives an entry another expiry, or none, and leaves its value where it is.
--
-- KEYS: metas, expiries, value. ARGV: key, the new expiry. Answers whether it was live.
local time = now()
local meta = redis.call('HGET', KEYS[1], ARGV[1])
if not is_live(meta, time) then
  return 0
end
local expires = instant(ARGV[2], time)
if not expires then
  return refuse('TOOLATE', 0)
end
set_expiry(KEYS[1], KEYS[2], KEYS[3], ARGV[1], meta, expires, time)
return 1
