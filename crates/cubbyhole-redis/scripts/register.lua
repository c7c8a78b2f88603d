-- Lists a name in a name index, with a new token above every earlier token of that name.
--
-- KEYS: the index; with a token of the index itself, also the fence of the index. ARGV: the name;
-- the fence of the name's own slot; 'root' for the index of tenants, which is not registered
-- anywhere; the token of the index or ''; the instant at which that token was requested. Returns
-- the new token.
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
-- The new member comes first, so the index is never empty: see the prelude.
redis.call('ZADD', index, 0, stem .. digits(token))
for _, member in ipairs(listed) do
  redis.call('ZREM', index, member)
end
return digits(token)
