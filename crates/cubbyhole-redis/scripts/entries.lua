-- Reads entries as of one instant. The number of value bytes is limited, because the server serves
-- no other client while the script runs.
--
-- KEYS: metas, the values. ARGV: the limit in bytes, the keys. Returns metadata and value for each
-- key: both are nil if there is no entry, and the value alone is nil if it exceeds the limit. The
-- first value is returned regardless of its size.
local time = now()
local metas = redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
local left = tonumber(ARGV[1])
local read = 0
for i = 1, #metas do
  local bytes = is_live(metas[i], time) and struct.unpack('>I4', metas[i], 35) or 0
  if bytes > left and i > 1 then
    break
  end
  left = left - bytes
  read = i
end
local values = redis.call('MGET', unpack(KEYS, 2, read + 1))
local answer = {}
for i = 1, #metas do
  local live = is_live(metas[i], time)
  local there
  if i <= read then
    there = live and values[i]
  else
    -- EXISTS finds empty values. STRLEN fails for a key of the wrong type.
    there = live and redis.call('EXISTS', KEYS[i + 1]) == 1
      and redis.call('STRLEN', KEYS[i + 1]) >= 0
  end
  answer[2 * i - 1] = there and metas[i]
  answer[2 * i] = there and i <= read and values[i]
end
return answer
