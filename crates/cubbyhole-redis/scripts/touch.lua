-- Replaces the expiry and the idle TTL of an entry without reading its value.
--
-- KEYS: keys, metas, expiries, value. ARGV: key, the new expiry, the condition. Returns whether the
-- entry was live.
local time = now()
-- An invalid expiry is refused even if there is no entry.
local expires, idle = instant_of(ARGV[2], time)
if not expires then
  return too_late(0, idle)
end
local meta = redis.call('HGET', KEYS[2], ARGV[1])
local live = is_live(meta, time)
if ARGV[3] ~= '' then
  local current = live and string.sub(meta, 1, 16) or 'absent'
  if not holds(ARGV[3], current) then
    return conflict(0, current)
  end
end
if not live then
  return 0
end
redis.call('ZCARD', KEYS[1])
set_expiry(KEYS[2], KEYS[3], KEYS[4], ARGV[1], meta, expires, idle, time)
if expires ~= 0 then
  clear_some(KEYS[1], KEYS[2], KEYS[3], time, 100)
end
return 1
