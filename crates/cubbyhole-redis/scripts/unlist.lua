-- Removes the registration of an index in which no name is left.
--
-- KEYS: index, its own fence. ARGV: the token with which it is listed itself. Answers whether its
-- name may go from the index that lists it.
local names = redis.call('ZCARD', KEYS[1])
if redis.call('ZSCORE', KEYS[1], MARKER) then
  names = names - 1
end
if names > 0 then
  return 0
end
local fence = raised_fence(KEYS[2], ARGV[1])
redis.call('DEL', KEYS[1])
set_fence(KEYS[2], fence)
return 1
