-- Removes keys of a namespace, whatever they hold, and the registration of the namespace if nothing
-- is left in it.
--
-- KEYS: keys, metas, expiries, fence, the values. ARGV: the token with which the namespace is
-- listed, the keys, also those that are no names and have no value. Answers how many were live,
-- whether the name may go from the index.
local time = now()
local members = { unpack(ARGV, 2) }
local live = 0
if #members > 0 then
  local metas = redis.call('HMGET', KEYS[2], unpack(members))
  for i = 1, #members do
    -- What cannot be read is removed like the rest.
    if metas[i] and (#metas[i] ~= 38 or is_live(metas[i], time)) then
      live = live + 1
    end
  end
  -- A key of another type fails here and not half way, and a fence that has gone.
  redis.call('ZCARD', KEYS[1])
  redis.call('ZCARD', KEYS[3])
  redis.call('GET', KEYS[4])
  if #KEYS > 4 then
    redis.call('UNLINK', unpack(KEYS, 5))
  end
end
return { live, forget_and_withdraw(KEYS[1], KEYS[2], KEYS[3], KEYS[4], members, ARGV[1]) }
