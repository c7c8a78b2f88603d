-- A batch of puts and deletes in one namespace, all or nothing; one put is a batch of one, and an
-- empty batch registers only.
--
-- KEYS: keys, metas, expiries, the value of each operation, and, with a token, the fence.
-- ARGV: token ('' without), when it was asked for; then for each operation five: key, condition
--       ('' always, 'absent', else the version), new version ('' deletes), expiry, value.
-- Answers how many live entries were deleted.
--
-- Half of what a put costs is here, so that the common way calls no function that it can do without.
local call = redis.call
local metas, expiries = KEYS[2], KEYS[3]
local clock = call('TIME')
local time = clock[1] * 1000 + math.floor(clock[2] / 1000)
local count = (#ARGV - 2) / 5
-- Of each operation: its meta data as it was, when it was created (0: there is no live entry), when
-- it expires (nothing: never).
local metas_before, created_before, instants = {}, {}, {}
-- The marker and the keys to put that have no meta data; the position of each operation's key in it.
local unknown, unknown_at = { MARKER }, {}
-- Whether there is a value without meta data, which a delete removes as well.
local orphaned = {}
local expects_registration, may_expire = count == 0, false
local touches_keys, touches_expiries = false, false

-- A TTL that ends too late is refused before any condition is judged.
for i = 1, count do
  local at = i * 5 - 2
  if ARGV[at + 3] ~= '' then
    instants[i] = instant_of(ARGV[at + 3], time)
    if not instants[i] then
      return refuse('TOOLATE', i - 1)
    end
    may_expire = true
  end
end

for i = 1, count do
  local at = i * 5 - 2
  local meta = call('HGET', metas, ARGV[at])
  local created = 0
  if meta then
    local created_at, expires = struct.unpack('>I6xxxxxxI6', meta, 17)
    if expires == 0 or expires > time then
      created = created_at
    else
      -- The engine may have removed it only now: see the prelude.
      call('EXISTS', KEYS[i + 3])
    end
    touches_expiries = touches_expiries or expires ~= 0
  end
  local condition = ARGV[at + 1]
  if condition ~= '' then
    local current = created > 0 and string.sub(meta, 1, 16) or 'absent'
    if condition ~= current then
      if current ~= 'absent' then
        current = string.gsub(current, '.', function(byte)
          return string.format('%02x', string.byte(byte))
        end)
      end
      return refuse('CONFLICT', i - 1, current)
    end
  end
  if ARGV[at + 2] ~= '' then
    expects_registration = expects_registration or created == 0
    if not meta then
      touches_keys = true
      unknown[#unknown + 1] = ARGV[at]
      unknown_at[i] = #unknown
    end
  else
    touches_keys = true
    orphaned[i] = not meta and call('EXISTS', KEYS[i + 3]) == 1
  end
  metas_before[i], created_before[i] = meta, created
end

-- A key of another type, which only another program can have put there, fails here and not half way.
if touches_keys then
  call('ZCARD', KEYS[1])
end
if touches_keys or touches_expiries or may_expire then
  call('ZCARD', expiries)
end

local scores = expects_registration and call('ZMSCORE', expiries, unpack(unknown))
if scores and not scores[1] then
  local token = ARGV[1]
  if token == '' then
    return unregistered(time, 0)
  end
  local accepted, fence = accepts(KEYS[#KEYS], token, ARGV[2], time)
  if not accepted then
    return unregistered(time, fence)
  end
  call('ZADD', expiries, -1, MARKER)
end

local deleted, forgotten = 0, {}
for i = 1, count do
  local at = i * 5 - 2
  local key, version, value = ARGV[at], ARGV[at + 2], KEYS[i + 3]
  local meta, created = metas_before[i], created_before[i]
  if version ~= '' then
    local bytes, expires = ARGV[at + 4], instants[i] or 0
    if not meta then
      call('ZADD', KEYS[1], 0, key)
    end
    if created == 0 then
      created = time
    end
    call('HSET', metas, key, version .. struct.pack('>I6I6I6I4', created, time, expires, #bytes))
    if expires == 0 then
      call('SET', value, bytes)
      -- Also an instant whose meta data is lost, which would end the new entry.
      if (meta and expires_at(meta) ~= 0) or (unknown_at[i] and scores[unknown_at[i]]) then
        call('ZREM', expiries, key)
      end
    else
      call('ZADD', expiries, expires, key)
      if expires > time then
        -- As in expire_value.
        call('SET', value, bytes, 'PXAT', digits(expires - 1))
      else
        call('UNLINK', value)
      end
    end
  elseif meta or orphaned[i] then
    call('UNLINK', value)
    forgotten[#forgotten + 1] = key
    if created > 0 then
      deleted = deleted + 1
    end
  end
end

if #forgotten > 0 then
  forget(KEYS[1], metas, expiries, forgotten)
end
if may_expire then
  clear_some(KEYS[1], metas, expiries, time, math.max(100, 2 * count))
end
return deleted
