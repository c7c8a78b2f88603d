-- Reading of entries, shared by entries.lua and extend.lua.

-- Reads entries as of one instant, with at most `limit` bytes of values, or none if `limit` is nil.
-- The number of bytes is limited, because the server serves no other client while the script runs.
-- The keys are the arguments from `first` on. Their values are KEYS[2] and the following.
--
-- Returns metadata and value for each key: both are false if there is no entry, and the value alone
-- is false if it exceeds the limit. The first value is returned regardless of its size.
local function read_entries(time, limit, first)
  local metas = redis.call('HMGET', KEYS[1], unpack(ARGV, first))
  local read = 0
  if limit then
    for i = 1, #metas do
      local bytes = is_live(metas[i], time) and struct.unpack('>I4', metas[i], 35) or 0
      if bytes > limit and i > 1 then
        break
      end
      limit = limit - bytes
      read = i
    end
  end
  local values = read > 0 and redis.call('MGET', unpack(KEYS, 2, read + 1))
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
end
