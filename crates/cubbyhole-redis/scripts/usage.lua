-- Counts up to a thousand keys of a namespace.
--
-- KEYS: keys, metas. ARGV: from (a bound of ZRANGE BYLEX). Returns the bound at which to continue
-- if there may be more keys, else nil; the number of live entries; the bytes of their keys and
-- values; and the number of expired entries.
local time = now()
local members = redis.call('ZRANGE', KEYS[1], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, 1000)
if #members == 0 then
  return { false, 0, 0, 0 }
end
local metas = redis.call('HMGET', KEYS[2], unpack(members))
local live, bytes, dead = 0, 0, 0
for i = 1, #members do
  if is_live(metas[i], time) then
    live = live + 1
    bytes = bytes + #members[i] + struct.unpack('>I4', metas[i], 35)
  else
    dead = dead + 1
  end
end
return { #members == 1000 and '(' .. members[#members], live, bytes, dead }
