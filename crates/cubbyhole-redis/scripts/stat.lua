-- Reads the metadata of entries as of one instant, and no values: the metadata has their lengths.
--
-- It is a script and not a plain HMGET because the metadata must be compared with the server's clock
-- of the same instant.
--
-- KEYS: metas. ARGV: the keys. Returns the metadata of each key, nil if there is no live entry.
local time = now()
local metas = redis.call('HMGET', KEYS[1], unpack(ARGV))
for i = 1, #metas do
  metas[i] = is_live(metas[i], time) and metas[i]
end
return metas
