-- Entries with their values, as of one instant, as far as they are not too much to be read while
-- nobody else is served.
--
-- KEYS: metas, then the values. ARGV: how many bytes of values are read, then the keys. Answers
-- meta data and value for each, nothing twice if there is none, and meta data alone for what is too
-- much. The first is never too much.
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
    -- The length alone says nothing of what is empty, and more of what is no string: it fails.
    there = live and redis.call('EXISTS', KEYS[i + 1]) == 1
      and redis.call('STRLEN', KEYS[i + 1]) >= 0
  end
  answer[2 * i - 1] = there and metas[i]
  answer[2 * i] = there and i <= read and values[i]
end
return answer
