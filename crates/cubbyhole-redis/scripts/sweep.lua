-- Removes expired entries of a namespace from its index, and the registration of the namespace if
-- it is then empty. The engine has already removed the values.
--
-- KEYS: keys, metas, expiries, fence. ARGV: the token with which the namespace is listed, the
-- limit. Returns how many entries were removed, whether the name of the namespace can be removed
-- from the name index, and whether more entries may have expired.
local limit = tonumber(ARGV[2])
local dead, live, found = dead_and_live(KEYS[2], KEYS[3], (now()), limit)
if found > 0 then
  -- A key of the wrong type fails here, before the first write.
  redis.call('ZCARD', KEYS[1])
end
if #live > 0 then
  -- So does an expired fence.
  redis.call('GET', KEYS[4])
end
correct_expiries(KEYS[3], live)
local emptied = forget_and_withdraw(KEYS[1], KEYS[2], KEYS[3], KEYS[4], dead, ARGV[1])
return { #dead, emptied, found == limit and 1 or 0 }
