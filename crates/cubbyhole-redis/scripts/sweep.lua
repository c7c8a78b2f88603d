-- Removes expired entries of a namespace from its indexes (the engine removed their values), and
-- the registration of the namespace if nothing is left in it.
--
-- KEYS: keys, metas, expiries, fence. ARGV: the token with which the namespace is listed, at most
-- how many. Answers how many were removed, whether the name may go from the index, whether more
-- have expired.
local limit = tonumber(ARGV[2])
local dead, live, found = dead_and_live(KEYS[2], KEYS[3], (now()), limit)
if found > 0 then
  -- A key of another type fails here and not half way.
  redis.call('ZCARD', KEYS[1])
end
if #live > 0 then
  -- So does a fence.
  redis.call('GET', KEYS[4])
end
correct_expiries(KEYS[3], live)
local emptied = forget_and_withdraw(KEYS[1], KEYS[2], KEYS[3], KEYS[4], dead, ARGV[1])
return { #dead, emptied, found == limit and 1 or 0 }
