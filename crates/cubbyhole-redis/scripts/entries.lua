-- Entries with their values, as of one instant.
--
-- KEYS: metas, then the values. ARGV: the keys. Answers meta data and value for each, or nothing
-- twice.
local time = now()
local metas = redis.call('HMGET', KEYS[1], unpack(ARGV))
local values = redis.call('MGET', unpack(KEYS, 2))
local answer = {}
for i = 1, #ARGV do
  local there = values[i] and is_live(metas[i], time)
  answer[2 * i - 1] = there and metas[i]
  answer[2 * i] = there and values[i]
end
return answer
