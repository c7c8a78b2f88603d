-- Lists a name in an index, with a token that is above every earlier one of that name.
--
-- KEYS: index, and, with a token, its own fence. ARGV: name, the fence that the name's own slot
-- told, 'root' for the index that is listed nowhere, the index's own token ('' without), when that
-- was asked for. Answers the token.
local index, name = KEYS[1], ARGV[1]
local time, micros = now()
if ARGV[3] ~= 'root' and not redis.call('ZSCORE', index, MARKER) then
  if ARGV[4] == '' then
    return unregistered(time, 0)
  end
  local accepted, fence = accepts(KEYS[2], ARGV[4], ARGV[5], time)
  if not accepted then
    return unregistered(time, fence)
  end
  redis.call('ZADD', index, 0, MARKER)
end
local stem = name .. '\0'
local listed = redis.call('ZRANGE', index, '[' .. stem, '(' .. name .. '\1', 'BYLEX')
local token = math.max(micros, tonumber(ARGV[2]) + 1)
for _, member in ipairs(listed) do
  token = math.max(token, (counted(string.sub(member, #stem + 1)) or 0) + 1)
end
-- The new one first, so that the index is never empty.
redis.call('ZADD', index, 0, stem .. digits(token))
for _, member in ipairs(listed) do
  redis.call('ZREM', index, member)
end
return digits(token)
