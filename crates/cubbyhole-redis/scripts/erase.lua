-- Removes keys of a namespace, and the registration of the namespace if it is then empty.
--
-- KEYS: keys, metas, expiries, fence, the values. ARGV: the token with which the namespace is
-- listed, the keys, including invalid ones, which have no value. Returns how many entries were
-- live, and whether the name of the namespace can be removed from the name index.
local time = now()
local members = { unpack(ARGV, 2) }
local live = 0
if #members > 0 then
  local metas = redis.call('HMGET', KEYS[2], unpack(members))
  for i = 1, #members do
    live = live + counts_as_live(metas[i], time)
  end
  -- A key of the wrong type or an expired fence fails here, before the first write.
  redis.call('ZCARD', KEYS[1])
  redis.call('ZCARD', KEYS[3])
  redis.call('GET', KEYS[4])
  if #KEYS > 4 then
    redis.call('UNLINK', unpack(KEYS, 5))
  end
end
return { live, forget_and_withdraw(KEYS[1], KEYS[2], KEYS[3], KEYS[4], members, ARGV[1]) }
