-- Removes the registration of a name index if the index is empty.
--
-- KEYS: the index, its fence. ARGV: the token with which the index is listed. Returns whether its
-- name can be removed from the index of tenants.
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
