-- How many entries of a namespace are live and how many have expired.
--
-- KEYS: keys, expiries.
local dead = redis.call('ZCOUNT', KEYS[2], 0, (now()))
return { redis.call('ZCARD', KEYS[1]) - dead, dead }
