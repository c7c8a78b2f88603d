-- A batch of puts and deletes in one namespace, all or nothing; one put is a batch of one, and an
-- empty batch registers only.
--
-- KEYS: keys, metas, expiries, the value of each operation, and, with a token, the fence.
-- ARGV: token ('' without), when it was asked for; then for each operation six: 'put' or 'delete',
--       key, condition ('' always, 'absent', else the version), new version, expiry, value.
-- Answers how many live entries were deleted.
local keys, metas, expiries = KEYS[1], KEYS[2], KEYS[3]
local token, issued = ARGV[1], ARGV[2]
local time = now()
local count = (#ARGV - 2) / 6
local before, instants = {}, {}
local expects_registration = count == 0
local may_expire = false

local function hex(bytes)
  return (string.gsub(bytes, '.', function(byte)
    return string.format('%02x', string.byte(byte))
  end))
end

for i = 1, count do
  local at = i * 6 - 4
  local meta = redis.call('HGET', metas, ARGV[at + 2])
  local live = is_live(meta, time)
  local condition = ARGV[at + 3]
  local holds = condition == ''
    or (condition == 'absent' and not live)
    or (live and condition == string.sub(meta, 1, 16))
  if not holds then
    return refuse('CONFLICT', i - 1, live and hex(string.sub(meta, 1, 16)) or 'absent')
  end
  if ARGV[at + 1] == 'put' then
    instants[i] = instant(ARGV[at + 5], time)
    if not instants[i] then
      return refuse('TOOLATE', i - 1)
    end
    expects_registration = expects_registration or not live
    may_expire = may_expire or instants[i] ~= 0
  end
  before[i] = meta
end

if expects_registration and not redis.call('ZSCORE', expiries, MARKER) then
  if token == '' then
    return unregistered(time, 0)
  end
  local accepted, fence = accepts(KEYS[#KEYS], token, issued, time)
  if not accepted then
    return unregistered(time, fence)
  end
  redis.call('ZADD', expiries, -1, MARKER)
end

local deleted = 0
for i = 1, count do
  local at = i * 6 - 4
  local key, value = ARGV[at + 2], KEYS[i + 3]
  local meta = before[i]
  local live = is_live(meta, time)
  local had_expiry = meta and expires_at(meta) ~= 0
  if ARGV[at + 1] == 'put' then
    local expires = instants[i]
    if not meta then
      redis.call('ZADD', keys, 0, key)
    end
    local created = live and struct.unpack('>I6', meta, 17) or time
    local bytes = ARGV[at + 6]
    redis.call('HSET', metas, key,
      ARGV[at + 4] .. struct.pack('>I6I6I6I4', created, time, expires, #bytes))
    if expires == 0 then
      redis.call('SET', value, bytes)
      if had_expiry then
        redis.call('ZREM', expiries, key)
      end
    else
      redis.call('ZADD', expiries, expires, key)
      if expires > time then
        -- As in expire_value.
        redis.call('SET', value, bytes, 'PXAT', expires - 1)
      else
        redis.call('UNLINK', value)
      end
    end
  elseif meta then
    redis.call('UNLINK', value)
    forget(keys, metas, expiries, { key })
    if live then
      deleted = deleted + 1
    end
  end
end

-- What can leave dead members behind also clears some away, more than it can add, so that they
-- never outnumber this however long nobody sweeps.
if may_expire and redis.call('ZCOUNT', expiries, 0, time) > 1000 then
  local step = math.max(100, 2 * count)
  local dead = redis.call('ZRANGE', expiries, 0, time, 'BYSCORE', 'LIMIT', 0, step)
  forget(keys, metas, expiries, dead)
end
return deleted
