-- Returns the number of live entries of a namespace and the number of expired ones.
--
-- KEYS: keys, expiries.
local dead = redis.call('ZCOUNT', KEYS[2], 0, (now()))
local live = redis.call('ZCARD', KEYS[1]) - dead
if live < 0 then
  error('more keys have expired than there are')
end
return { live, dead }
