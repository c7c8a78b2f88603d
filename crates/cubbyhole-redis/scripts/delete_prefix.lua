-- Removes the first keys of a namespace that start with a prefix. The registration of the namespace
-- remains, as after a delete: a sweep withdraws it if the namespace is then empty.
--
-- KEYS: keys, metas, expiries, the values. ARGV: from and to (bounds of ZRANGE BYLEX that contain
-- the prefix), the limit, 'partial' to remove the declared keys even if there are others before
-- them, or ''; the keys, including invalid ones, which have no value. Returns how many entries were
-- live, and whether no other key starts with the prefix.
local time = now()
local limit, partial = tonumber(ARGV[3]), ARGV[4] == 'partial'
local members = { unpack(ARGV, 5) }
local declared = {}
for i = 1, #members do
  declared[members[i]] = true
end
local listed = redis.call('ZRANGE', KEYS[1], ARGV[1], ARGV[2], 'BYLEX', 'LIMIT', 0, limit + 1)
local done = #listed <= limit
for i = 1, math.min(#listed, limit) do
  if not declared[listed[i]] then
    -- Another client has written this key since the caller read the keys.
    if not partial then
      return refuse('CHANGED')
    end
    done = false
  end
end
local metas = redis.call('HMGET', KEYS[2], unpack(members))
local live = 0
for i = 1, #members do
  live = live + counts_as_live(metas[i], time)
end
-- A key of the wrong type fails here, before the first write.
redis.call('ZCARD', KEYS[3])
if #KEYS > 3 then
  redis.call('UNLINK', unpack(KEYS, 4))
end
forget(KEYS[1], KEYS[2], KEYS[3], members)
return { live, done and 1 or 0 }
